//! Maps of sparse members: which parts of the file are stored.

use std::io::{self, Read};

use super::{BLOCK, invalid, pax, truncated};

/// A stored part of a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where in the file.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) length: u64,
}

/// A sparse file's size and its stored parts in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Map {
    pub(crate) real_size: u64,
    pub(crate) extents: Vec<Extent>,
    /// The extents are at the start of the data (PAX version 1.0) and not read yet.
    pub(super) in_data: bool,
}

impl Map {
    pub(super) fn new(real_size: u64) -> Self {
        Self { real_size, extents: Vec::new(), in_data: false }
    }

    /// From PAX records; `None` if they are about something else. The second value is the member's real name, if given.
    pub(super) fn from_records(records: &[(Vec<u8>, Vec<u8>)]) -> io::Result<Option<(Self, Option<Vec<u8>>)>> {
        let last = |name: &[u8]| records.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_slice());
        let Some(real_size) = last(b"realsize").or(last(b"size")) else {
            return if records.is_empty() { Ok(None) } else { Err(invalid("a sparse member without its real size")) };
        };
        let mut map = Self::new(pax::decimal(b"GNU.sparse.realsize", real_size)?);
        if let Some(major) = last(b"major") {
            let minor = last(b"minor").unwrap_or(b"");
            match (major, minor) {
                (b"1", b"0") => map.in_data = true,
                (b"0", _) => {}
                _ => return Err(invalid("a sparse member of an unknown version")),
            }
        }
        if let Some(list) = last(b"map") {
            // Version 0.1: offset,length,offset,length,…
            let numbers = list.split(|&byte| byte == b',').map(|n| pax::decimal(b"GNU.sparse.map", n));
            map.extents = pair(numbers.collect::<io::Result<Vec<_>>>()?)?;
        } else if !map.in_data {
            // Version 0.0: a pair of records per extent.
            let numbers = records
                .iter()
                .filter(|(key, _)| key == b"offset" || key == b"numbytes")
                .map(|(key, value)| pax::decimal(key, value));
            map.extents = pair(numbers.collect::<io::Result<Vec<_>>>()?)?;
        }
        Ok(Some((map, last(b"name").map(<[u8]>::to_vec))))
    }

    pub(super) fn push_gnu(&mut self, entries: &[tar::GnuSparseHeader]) -> io::Result<()> {
        for entry in entries.iter().filter(|entry| !entry.is_empty()) {
            self.extents.push(Extent { offset: entry.offset()?, length: entry.length()? });
        }
        Ok(())
    }

    /// Extents in order, without overlap, within the file, and together as long as the stored data.
    pub(super) fn check(&self, stored: u64) -> io::Result<()> {
        let bad = || invalid("a sparse map with overlapping, unordered or misplaced extents");
        let (mut end, mut total) = (0u64, 0u64);
        for extent in &self.extents {
            if extent.offset < end {
                return Err(bad());
            }
            end = extent.offset.checked_add(extent.length).ok_or_else(bad)?;
            total = total.checked_add(extent.length).ok_or_else(bad)?;
        }
        if end > self.real_size {
            return Err(bad());
        }
        if total == stored { Ok(()) } else { Err(invalid("a sparse map that doesn't add up to the member's size")) }
    }
}

fn pair(numbers: Vec<u64>) -> io::Result<Vec<Extent>> {
    if !numbers.len().is_multiple_of(2) {
        return Err(invalid("a sparse map with half an extent"));
    }
    Ok(numbers.chunks_exact(2).map(|pair| Extent { offset: pair[0], length: pair[1] }).collect())
}

/// Reads the map at the start of a version 1.0 member: decimal lines (count, then offset and length of each extent),
/// padded to whole blocks. Returns it and how many bytes it took of the `available` ones.
pub(super) fn read_leading_map(input: &mut impl Read, available: u64, limit: u64) -> io::Result<(Vec<Extent>, u64)> {
    let mut lines =
        Lines { input, block: [0; BLOCK as usize], at: BLOCK as usize, used: 0, most: available.min(limit) };
    let count = lines.number()?;
    let mut numbers = Vec::new();
    for _ in 0..count.checked_mul(2).ok_or_else(|| invalid("a sparse map that is too long"))? {
        numbers.push(lines.number()?);
    }
    Ok((pair(numbers)?, lines.used))
}

struct Lines<'a, R> {
    input: &'a mut R,
    block: [u8; BLOCK as usize],
    at: usize,
    used: u64,
    most: u64,
}

impl<R: Read> Lines<'_, R> {
    fn number(&mut self) -> io::Result<u64> {
        let mut digits = Vec::new();
        loop {
            if self.at == self.block.len() {
                self.used += BLOCK;
                if self.used > self.most {
                    return Err(invalid("a sparse map longer than the member or the limit `extension_bytes`"));
                }
                self.input.read_exact(&mut self.block).map_err(|_| truncated())?;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' => return pax::decimal(b"sparse map", &digits),
                _ if digits.len() < 20 => digits.push(byte),
                _ => return Err(invalid("a malformed sparse map")),
            }
        }
    }
}
