//! Directories on disk: blocks that each hold sorted entries, 12 bytes per entry first, then the names.

use super::BLOCK_SIZE;
use super::format::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK};

/// Bytes of an entry without its name.
pub(super) const DIRENT: usize = 12;

/// The entry's type as `mode` has it.
pub(super) fn file_type(mode: u16) -> u8 {
    match mode & S_IFMT {
        S_IFREG => 1,
        S_IFDIR => 2,
        S_IFCHR => 3,
        S_IFBLK => 4,
        S_IFIFO => 5,
        S_IFSOCK => 6,
        S_IFLNK => 7,
        _ => 0,
    }
}

/// How many bytes each block of a directory uses, given the names' lengths in order.
pub(super) fn block_sizes(lengths: impl Iterator<Item = usize>) -> Vec<u16> {
    let mut sizes = Vec::new();
    let mut used = 0;
    for length in lengths {
        let need = DIRENT + length;
        if used + need > BLOCK_SIZE as usize {
            sizes.push(used as u16);
            used = 0;
        }
        used += need;
    }
    if used > 0 {
        sizes.push(used as u16);
    }
    sizes
}

/// One entry to write.
pub(super) struct Dirent<'a> {
    pub(super) name: &'a [u8],
    pub(super) nid: u64,
    pub(super) file_type: u8,
}

/// The used bytes of each block of a directory whose entries come sorted. Sizes as [`block_sizes`] says.
pub(super) fn blocks(entries: &[Dirent<'_>]) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        let mut used = 0;
        let fits = rest.iter().take_while(|entry| {
            used += DIRENT + entry.name.len();
            used <= BLOCK_SIZE as usize
        });
        let (these, others) = rest.split_at(fits.count().max(1));
        blocks.push(block(these));
        rest = others;
    }
    blocks
}

fn block(entries: &[Dirent<'_>]) -> Vec<u8> {
    let mut name_offset = entries.len() * DIRENT;
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.extend(entry.nid.to_le_bytes());
        bytes.extend((name_offset as u16).to_le_bytes());
        bytes.extend([entry.file_type, 0]);
        name_offset += entry.name.len();
    }
    for entry in entries {
        bytes.extend(entry.name);
    }
    bytes
}

/// Reads the used bytes of one block as `(nid, type, name)`; `None` if it is malformed.
pub(super) fn parse(block: &[u8]) -> Option<Vec<(u64, u8, &[u8])>> {
    let entry = |n: usize| -> Option<(u64, usize, u8)> {
        let bytes = block.get(n * DIRENT..(n + 1) * DIRENT)?;
        let nid = u64::from_le_bytes(bytes[..8].try_into().ok()?);
        Some((nid, usize::from(u16::from_le_bytes([bytes[8], bytes[9]])), bytes[10]))
    };
    let (_, names, _) = entry(0)?;
    if names == 0 || names % DIRENT != 0 {
        return None;
    }
    let count = names / DIRENT;
    let mut entries = Vec::new();
    for n in 0..count {
        let (nid, start, kind) = entry(n)?;
        let last = n + 1 == count;
        let end = if last { block.len() } else { entry(n + 1)?.1 };
        let name = block.get(start..end)?;
        // Only the last name may be followed by zeros, up to the end of the block.
        let length = if last { name.iter().position(|&byte| byte == 0).unwrap_or(name.len()) } else { name.len() };
        let name = &name[..length];
        if start < names || name.is_empty() || name.len() > 255 || name.contains(&0) || name.contains(&b'/') {
            return None;
        }
        entries.push((nid, kind, name));
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn entries_come_back(lengths in prop::collection::vec(1usize..=255, 1..200)) {
            let names: Vec<Vec<u8>> = lengths.iter().map(|&length| vec![b'n'; length]).collect();
            let entries: Vec<_> = names.iter().enumerate()
                .map(|(n, name)| Dirent { name, nid: n as u64 + 5, file_type: 1 }).collect();
            let blocks = blocks(&entries);
            let sizes: Vec<_> = blocks.iter().map(|block| block.len() as u16).collect();
            prop_assert_eq!(&sizes, &block_sizes(lengths.iter().copied()));
            let read: Vec<_> = blocks.iter().flat_map(|block| parse(block).unwrap()).collect();
            let wanted: Vec<_> = entries.iter().map(|entry| (entry.nid, 1, entry.name)).collect();
            prop_assert_eq!(read, wanted);
        }

        #[test]
        fn any_bytes_parse_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            let _ = parse(&bytes);
        }
    }
}
