//! Tar streams, member by member, every length bounded.
//!
//! Headers are decoded by the `tar` crate. Its own iterator is not used, for three reasons: it reads extension headers of
//! any size into memory, it splits PAX records at newlines (a binary attribute such as `security.capability` may hold one)
//! and it doesn't know the PAX forms of sparse files. So the walk over the 512-byte blocks is here.
//!
//! Understood: v7, ustar, GNU (long names, sparse) and PAX (all records named in pax(1), `SCHILY.xattr.*`, `GNU.sparse.*`
//! in its versions 0.0, 0.1 and 1.0). Ambiguities on which readers are known to differ are refused: data behind an entry
//! type that has none, content behind the end-of-archive blocks, repeated extension headers, names in two forms of them.

mod member;
mod pax;
mod sparse;

use std::io::{self, Read};

pub(crate) use member::{Kind, Member};
pub(crate) use sparse::Extent;

/// Tar's unit.
const BLOCK: u64 = 512;

/// What a tar stream is read from.
pub(crate) trait Input: Read {
    /// Moves on by `count` bytes; an error if there are fewer.
    fn skip(&mut self, count: u64) -> io::Result<()>
    where
        Self: Sized,
    {
        let skipped = io::copy(&mut self.by_ref().take(count), &mut io::sink())?;
        if skipped == count { Ok(()) } else { Err(truncated()) }
    }
}

/// Walks the members of a tar stream.
pub(crate) struct Tarball<R> {
    input: R,
    /// Bytes taken from the input so far.
    position: u64,
    /// Bytes of the current member's data not read yet.
    unread: u64,
    /// Zero bytes that pad the current member's data to whole blocks.
    padding: u64,
    /// Bytes of one extension header.
    extension_limit: u64,
}

/// The error of a stream that ends early.
fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the tar stream is cut off")
}

/// A malformed-stream error.
fn invalid(detail: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail.into())
}

impl<R: Input> Tarball<R> {
    /// Reads from `input`; no extension header may exceed `extension_limit` bytes.
    pub(crate) fn new(input: R, extension_limit: u64) -> Self {
        Self { input, position: 0, unread: 0, padding: 0, extension_limit }
    }

    /// Where in the stream the current member's data begins (before any of it was read).
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next member, whose data can then be read from `self`; `None` at the end of the archive.
    pub(crate) fn next_member(&mut self) -> io::Result<Option<Member>> {
        let mut extensions = member::Extensions::default();
        loop {
            self.skip_data()?;
            let Some(header) = self.header()? else {
                return if extensions.is_empty() {
                    Ok(None)
                } else {
                    Err(invalid("the archive ends behind an extension header"))
                };
            };
            let size = member::number(&header.as_old().size, || header.entry_size())?;
            match header.entry_type().as_byte() {
                b'L' => extensions.set_name(self.extension(size)?)?,
                b'K' => extensions.set_link(self.extension(size)?)?,
                b'x' => extensions.set_records(pax::Records::parse(&self.extension(size)?)?)?,
                b'g' => pax::Records::parse(&self.extension(size)?)?.check_global()?,
                _ => {
                    let mut member = Member::new(&header, size, extensions)?;
                    self.begin_data(member.stored);
                    self.sparse_map(&header, &mut member)?;
                    return Ok(Some(member));
                }
            }
        }
    }

    /// The next header block; `None` at the end of the archive, behind which only zeros may follow.
    fn header(&mut self) -> io::Result<Option<tar::Header>> {
        let mut block = [0; BLOCK as usize];
        match self.fill(&mut block)? {
            0 => return Ok(None),
            n if n < block.len() => return Err(truncated()),
            _ => {}
        }
        if block.iter().all(|&byte| byte == 0) {
            loop {
                match self.fill(&mut block)? {
                    0 => return Ok(None),
                    n if block[..n].iter().all(|&byte| byte == 0) => {}
                    _ => return Err(invalid("something follows the end of the archive")),
                }
            }
        }
        let mut header = tar::Header::from_byte_slice(&block).clone();
        let sum = block[..148].iter().chain(&block[156..]).map(|&byte| u32::from(byte)).sum::<u32>() + 8 * 32;
        match header.cksum() {
            Ok(found) if found == sum => {
                // The magic tells the format. The `tar` crate goes by the version, too, and with another one than this would
                // leave out the name's prefix.
                if block[257..263] == *b"ustar\0" {
                    header.as_mut_bytes()[263..265].copy_from_slice(b"00");
                }
                Ok(Some(header))
            }
            _ => Err(invalid(format!("no tar header at byte {}: checksum mismatch", self.position - BLOCK))),
        }
    }

    /// The whole data of an extension header.
    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > self.extension_limit {
            return Err(invalid(format!(
                "an extension header of {size} bytes; the limit `extension_bytes` is {}",
                self.extension_limit
            )));
        }
        self.begin_data(size);
        let mut data = Vec::new();
        self.by_ref().take(size).read_to_end(&mut data)?;
        if data.len() as u64 == size { Ok(data) } else { Err(truncated()) }
    }

    fn begin_data(&mut self, size: u64) {
        self.unread = size;
        self.padding = size.wrapping_neg() % BLOCK;
    }

    /// Skips what is left of the current member. Its data must be there; the padding may be missing at the end of a
    /// stream (umoci leaves it and the end blocks out), for digests tell whether a stream is whole.
    fn skip_data(&mut self) -> io::Result<()> {
        let overflow = || invalid("a size that overflows");
        self.position = self.position.checked_add(self.unread).ok_or_else(overflow)?;
        self.input.skip(std::mem::take(&mut self.unread))?;
        let mut padding = [0; BLOCK as usize];
        let length = std::mem::take(&mut self.padding) as usize;
        self.fill(&mut padding[..length])?;
        Ok(())
    }

    /// Fills `block` as far as the input goes.
    fn fill(&mut self, block: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < block.len() {
            match self.input.read(&mut block[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }

    /// Reads the map of a sparse member, wherever its format keeps it.
    fn sparse_map(&mut self, header: &tar::Header, member: &mut Member) -> io::Result<()> {
        if let Some(map) = &mut member.sparse {
            // Version 1.0 keeps the map at the start of the data, everything else in headers.
            if map.in_data {
                let limit = self.extension_limit;
                let (extents, used) = sparse::read_leading_map(self, member.stored, limit)?;
                map.extents = extents;
                member.stored -= used;
            }
        } else if header.entry_type().is_gnu_sparse() {
            member.sparse = Some(self.old_gnu_map(header)?);
        }
        if let Some(map) = &mut member.sparse {
            map.check(member.stored)?;
            member.size = map.real_size;
        }
        Ok(())
    }

    /// The map of an old GNU sparse member: four extents in the header, 21 in each extension block before the data.
    fn old_gnu_map(&mut self, header: &tar::Header) -> io::Result<sparse::Map> {
        let gnu = header.as_gnu().ok_or_else(|| invalid("a sparse member without a GNU header"))?;
        let mut map = sparse::Map::new(gnu.real_size()?);
        map.push_gnu(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let mut extension = tar::GnuExtSparseHeader::new();
            // These blocks precede the data and are not counted in the member's size.
            if self.fill(extension.as_mut_bytes())? < BLOCK as usize {
                return Err(truncated());
            }
            if map.extents.len() as u64 * BLOCK / 21 > self.extension_limit {
                return Err(invalid("a sparse map larger than the limit `extension_bytes`"));
            }
            map.push_gnu(extension.sparse())?;
            more = extension.is_extended();
        }
        Ok(map)
    }
}

/// The stored data of the current member.
impl<R: Input> Read for Tarball<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.unread).map_or(buffer.len(), |unread| buffer.len().min(unread));
        if most == 0 {
            return Ok(0);
        }
        let count = self.input.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(truncated());
        }
        self.unread -= count as u64;
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
