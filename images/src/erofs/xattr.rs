//! Extended attributes on disk: behind the inode a 12-byte header, then the attributes, each padded to 4 bytes.
//!
//! Attributes are written inline only; those shared between inodes aren't worth a second place.

use crate::tree::{Node, Xattrs};

/// Bytes of the header.
const HEADER: usize = 12;
/// Bytes of an attribute without name and value.
const ENTRY: usize = 4;
/// What says "opaque" to overlayfs, under both names it may look for.
const OPAQUE: [&[u8]; 2] = [b"trusted.overlay.opaque", b"user.overlay.opaque"];
/// What has overlayfs look for whiteouts in a directory that it doesn't merge with others (`ovl_path_check_origin_xattr` of Linux,
/// fs/overlayfs/namei.c): else it lists them, and they lead nowhere. Empty, it says nothing about where the directory is from.
const ORIGIN: [&[u8]; 2] = [b"trusted.overlay.origin", b"user.overlay.origin"];

/// Name prefixes and their numbers. The ACL names stand for the whole name.
const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];

/// The number of a name's prefix and what follows it; `None` if EROFS has no such namespace.
fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|&(number, prefix)| {
        let rest = name.strip_prefix(prefix)?;
        // A namespace needs a name in it, an ACL's name is complete.
        (rest.is_empty() != prefix.ends_with(b".")).then_some((number, rest))
    })
}

/// Whether an attribute of this name can be kept.
pub(crate) fn storable(name: &[u8]) -> bool {
    split(name).is_some()
}

/// All attributes of a node, its marks for overlayfs among them.
fn all(node: &Node) -> impl Iterator<Item = (&[u8], &[u8])> {
    let marks = [(node.opaque, OPAQUE, &b"y"[..]), (node.whiteouts, ORIGIN, b"")];
    let own = node.attributes.xattrs.iter().map(|(name, value)| (&**name, &**value));
    let marks = marks.into_iter().filter(|(marked, ..)| *marked);
    own.chain(marks.flat_map(|(_, names, value)| names.map(|name| (name, value))))
}

/// Bytes of a node's attributes on disk, the header included.
pub(super) fn disk_size(node: &Node) -> usize {
    let entries: usize = all(node)
        .filter_map(|(name, value)| Some((split(name)?.1.len() + value.len() + ENTRY).next_multiple_of(4)))
        .sum();
    if entries == 0 { 0 } else { HEADER + entries }
}

/// The inode's count for attributes of so many bytes.
pub(super) fn count(disk_size: usize) -> u16 {
    if disk_size == 0 { 0 } else { ((disk_size - HEADER) / 4 + 1) as u16 }
}

/// Bytes on disk for an inode's count.
pub(super) fn size_of_count(count: u16) -> usize {
    if count == 0 { 0 } else { HEADER + 4 * usize::from(count - 1) }
}

/// A node's attributes as they stand on disk.
pub(super) fn encode(node: &Node) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in all(node) {
        let Some((number, rest)) = split(name) else { continue };
        if bytes.is_empty() {
            bytes.resize(HEADER, 0);
        }
        bytes.extend([rest.len() as u8, number]);
        bytes.extend((value.len() as u16).to_le_bytes());
        bytes.extend(rest);
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// The attributes in their bytes on disk; `None` if they are malformed or shared ones are among them.
pub(super) fn parse(bytes: &[u8]) -> Option<Xattrs> {
    let mut found = Xattrs::new();
    if bytes.is_empty() {
        return Some(found);
    }
    let shared = *bytes.get(4)?;
    let mut rest = bytes.get(HEADER..)?;
    if shared != 0 {
        return None;
    }
    while !rest.is_empty() {
        let head = rest.get(..ENTRY)?;
        let (name_length, value_length) = (usize::from(head[0]), usize::from(u16::from_le_bytes([head[2], head[3]])));
        let (_, prefix) = PREFIXES.iter().find(|(number, _)| *number == head[1])?;
        let name = rest.get(ENTRY..ENTRY + name_length)?;
        let value = rest.get(ENTRY + name_length..ENTRY + name_length + value_length)?;
        found.insert([prefix, name].concat().into(), value.into());
        rest = rest.get((ENTRY + name_length + value_length).next_multiple_of(4)..)?;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Attributes;

    #[test]
    fn attributes_come_back() {
        let mut attributes = Attributes::made(0o755);
        let xattrs: [(&[u8], &[u8]); 4] = [
            (b"user.x", b"value"),
            (b"security.capability", &[0; 20]),
            (b"system.posix_acl_access", b"\x02\0\0\0"),
            (b"trusted.empty", b""),
        ];
        attributes.xattrs = xattrs.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        let mut node = Node::directory(attributes.clone());
        let bytes = encode(&node);
        assert_eq!(bytes.len(), disk_size(&node));
        assert_eq!(size_of_count(count(bytes.len())), bytes.len());
        assert_eq!(parse(&bytes), Some(attributes.xattrs.clone()));
        node.opaque = true;
        let marked = parse(&encode(&node)).unwrap();
        assert_eq!(marked.len(), 6);
        assert_eq!(marked[&b"user.overlay.opaque"[..]], b"y".as_slice().into());
        assert_eq!(marked[&b"trusted.overlay.opaque"[..]], b"y".as_slice().into());
        node.whiteouts = true;
        let marked = parse(&encode(&node)).unwrap();
        assert_eq!(marked.len(), 8);
        assert_eq!(marked[&b"user.overlay.origin"[..]], b"".as_slice().into());
        for cut in 1..bytes.len() {
            if let Some(fewer) = parse(&bytes[..cut]) {
                assert!(fewer.len() < 4, "{cut}");
            }
        }
    }

    #[test]
    fn namespaces() {
        for name in ["user.a", "trusted.a", "security.a", "system.posix_acl_access", "system.posix_acl_default"] {
            assert!(storable(name.as_bytes()), "{name}");
        }
        for name in ["user.", "user", "system.nfs4_acl", "system.posix_acl_accessx", "btrfs.compression", ""] {
            assert!(!storable(name.as_bytes()), "{name}");
        }
    }
}
