//! Where everything goes: decided from the tree, and from where the contents of layers came to lie.
//!
//! ```text
//! block 0            superblock
//! contents           of the layers, each different one once, ordered by digest
//! directory blocks   of directories larger than what fits behind their inode
//! inodes             the root's first, then the layers', then those of files added by path
//! late contents      of files added by path, in the order they were added
//! ```

use std::collections::{HashMap, HashSet};

use super::format::{
    CHUNK_BASED, CHUNK_ENTRY, COMPACT_SIZE, COMPRESSED, EXTENDED_SIZE, FLAT_INLINE, FLAT_PLAIN, S_IFBLK, S_IFCHR,
    S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, SLOT, encode_device,
};
use super::inode::RawInode;
use super::order::Order;
use super::pack::Place;
use super::{BLOCK_SIZE, clusters, dirents, xattr};
use crate::contents::{Content, ContentId, Contents, SHORTEST_HOLE};
use crate::tree::{Kind, Node, NodeId, Tree};
use crate::{Error, Result};

/// Files up to this size lie behind their inode instead of in a block of their own.
pub(super) const INLINE_MAX: u64 = 1024;
/// Entries of a chunk map, at most; larger files have larger chunks.
const MOST_CHUNKS: u64 = 1 << 16;
/// Inodes begin here in their area: number 0 means "none" to programs that list directories.
const FIRST_INODE: u64 = 64;

/// The place of all that is written.
#[derive(Debug)]
pub(super) struct Layout {
    /// The nodes in the order of their inodes.
    pub(super) nodes: Vec<Placed>,
    /// Of each node (by number), its index in `nodes`.
    pub(super) index: HashMap<NodeId, u32>,
    /// First block of the inode area.
    pub(super) meta_block: u64,
    /// First block behind the inode area.
    pub(super) late_block: u64,
    /// In the order of their blocks, from `late_block`.
    pub(super) late_contents: Vec<ContentId>,
    /// Blocks of the whole image.
    pub(super) blocks: u64,
    /// Where every content is that has blocks.
    pub(super) places: HashMap<ContentId, Place>,
    /// There are files in chunks.
    pub(super) chunked: bool,
    /// There are compressed files.
    pub(super) compressed: bool,
    /// There are compressed contents that more than one file has.
    pub(super) shared: bool,
}

/// A node's inode and where it is.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) id: NodeId,
    pub(super) parent: NodeId,
    pub(super) inode: RawInode,
    /// Where the inode is, in bytes from the start of the inode area.
    pub(super) offset: u64,
}

impl Placed {
    /// The inode's number.
    pub(super) fn nid(&self) -> u64 {
        self.offset / SLOT
    }
}

/// Where a content's bytes are.
pub(super) fn is_inline(content: &Content) -> bool {
    content.holes.is_empty() && content.size <= INLINE_MAX
}

/// log2 of the blocks in a chunk of `content`.
pub(super) fn chunk_bits(content: &Content) -> u32 {
    let mut bits = SHORTEST_HOLE.trailing_zeros();
    while content.size.div_ceil(BLOCK_SIZE << bits) > MOST_CHUNKS {
        bits += 1;
    }
    bits
}

/// Of each chunk of `content`: how many blocks it has, and whether it is a hole.
pub(super) fn chunks(content: &Content) -> impl Iterator<Item = (u64, bool)> {
    let chunk = 1u64 << chunk_bits(content);
    let blocks = content.size.div_ceil(BLOCK_SIZE);
    let mut holes = content.holes.iter().peekable();
    (0..blocks.div_ceil(chunk)).map(move |n| {
        let (from, to) = (n * chunk, ((n + 1) * chunk).min(blocks));
        while holes.next_if(|hole| hole.start + hole.count <= from).is_some() {}
        (to - from, holes.peek().is_some_and(|hole| hole.start <= from && to <= hole.start + hole.count))
    })
}

/// Blocks that `content` takes of its own, as it is.
pub(super) fn block_count(content: &Content) -> u64 {
    match () {
        () if is_inline(content) => 0,
        () if content.holes.is_empty() => content.size.div_ceil(BLOCK_SIZE),
        () => chunks(content).filter(|(_, hole)| !hole).map(|(blocks, _)| blocks).sum(),
    }
}

/// Plans the image, the contents of whose layers are in `places` and end with the block before `next`.
pub(super) fn plan(
    tree: &Tree,
    contents: &Contents,
    order: Order,
    mut places: HashMap<ContentId, Place>,
    mut next: u64,
) -> Result<Layout> {
    let mut nodes = Vec::with_capacity(order.visits.len());
    let mut index = HashMap::with_capacity(order.visits.len());
    for visit in &order.visits {
        let number = nodes.len() as u32;
        index.insert(visit.id, number);
        let inode = describe(tree.get(visit.id), contents, &places, visit.links, number + 1, &mut next);
        nodes.push(Placed { id: visit.id, parent: visit.parent, inode, offset: 0 });
    }
    let meta_block = next;
    let mut offset = FIRST_INODE;
    for placed in &mut nodes {
        offset = place(tree.get(placed.id), contents, placed, offset);
    }
    // fsck.erofs 1.5 looks for attributes behind every inode, even the last one: let there be something.
    let late_block = meta_block + (offset + SLOT).div_ceil(BLOCK_SIZE);
    next = late_block;
    for &id in &order.late {
        places.insert(id, Place::plain(next));
        next += block_count(contents.get(id));
    }
    if next > u64::from(u32::MAX) {
        let limit = u64::from(u32::MAX) * BLOCK_SIZE;
        return Err(Error::unsupported(
            "system image",
            format!("{} bytes; EROFS has at most {limit}", next * BLOCK_SIZE),
        ));
    }
    // Addresses of late contents are known only now that the inode area's size is.
    let (mut chunked, mut shared, mut compressed) = (false, false, HashSet::new());
    for placed in &mut nodes {
        let Kind::File(id) = tree.get(placed.id).kind else { continue };
        match placed.inode.layout {
            CHUNK_BASED => chunked = true,
            COMPRESSED => shared |= !compressed.insert(id),
            FLAT_PLAIN => placed.inode.union = places.get(&id).map_or(0, |place| place.first) as u32,
            _ => {}
        }
    }
    Ok(Layout {
        nodes,
        index,
        meta_block,
        late_block,
        late_contents: order.late,
        blocks: next,
        places,
        chunked,
        compressed: !compressed.is_empty(),
        shared,
    })
}

/// The inode of a node. Directory blocks are taken from `next`.
fn describe(
    node: &Node,
    contents: &Contents,
    places: &HashMap<ContentId, Place>,
    links: u32,
    number: u32,
    next: &mut u64,
) -> RawInode {
    let attributes = &node.attributes;
    let xattr_size = xattr::disk_size(node);
    let mut inode = RawInode {
        layout: FLAT_PLAIN,
        xattr_count: xattr::count(xattr_size),
        mode: attributes.mode,
        size: 0,
        union: 0,
        number,
        uid: attributes.uid,
        gid: attributes.gid,
        mtime: attributes.mtime,
        links,
        extended: true,
    };
    // A part behind the inode may not leave the block; this leaves room for either size of inode.
    let fits_inline = |bytes: u64| EXTENDED_SIZE as u64 + xattr_size as u64 + bytes <= BLOCK_SIZE;
    match &node.kind {
        Kind::Directory(entries) => {
            inode.mode |= S_IFDIR;
            let sizes = dirents::block_sizes(with_dots(entries.keys().map(|name| &**name)).map(<[u8]>::len));
            let last = u64::from(sizes.last().copied().unwrap_or(0));
            let whole = sizes.len() as u64 - 1;
            inode.size = whole * BLOCK_SIZE + last;
            inode.union = *next as u32;
            *next += whole;
            if fits_inline(last) {
                inode.layout = FLAT_INLINE;
            } else {
                *next += 1;
            }
        }
        Kind::File(id) => {
            inode.mode |= S_IFREG;
            let content = contents.get(*id);
            inode.size = content.size;
            if let Some(place) = places.get(id).filter(|place| place.indexed()) {
                inode.layout = COMPRESSED;
                inode.union = place.block_count() as u32;
            } else if !content.holes.is_empty() {
                inode.layout = CHUNK_BASED;
                inode.union = chunk_bits(content);
            } else if content.size > 0 && is_inline(content) {
                inode.layout = FLAT_INLINE;
            }
        }
        Kind::Symlink(target) => {
            inode.mode |= S_IFLNK;
            inode.size = target.len() as u64;
            if fits_inline(inode.size) {
                inode.layout = FLAT_INLINE;
            } else {
                inode.union = *next as u32;
                *next += 1;
            }
        }
        Kind::CharDevice { major, minor } => {
            inode.mode |= S_IFCHR;
            inode.union = encode_device(*major, *minor);
        }
        Kind::BlockDevice { major, minor } => {
            inode.mode |= S_IFBLK;
            inode.union = encode_device(*major, *minor);
        }
        Kind::Fifo => inode.mode |= S_IFIFO,
    }
    inode.smallest()
}

/// Gives an inode the first place at or behind `offset` where it may be; returns what follows it.
fn place(node: &Node, contents: &Contents, placed: &mut Placed, offset: u64) -> u64 {
    let inode = &placed.inode;
    let head = (inode.disk_size() + xattr::size_of_count(inode.xattr_count)) as u64;
    let tail = match (inode.layout, &node.kind) {
        (FLAT_INLINE, _) => inode.size % BLOCK_SIZE,
        (CHUNK_BASED, Kind::File(id)) => chunks(contents.get(*id)).count() as u64 * CHUNK_ENTRY,
        (COMPRESSED, _) => clusters::start(head) - head + clusters::size(inode.size),
        _ => 0,
    };
    let mut offset = offset.next_multiple_of(SLOT);
    let fits = |offset: u64| {
        // Neither the inode nor the data behind it may cross into another block; attributes, maps and indexes may.
        let inode_fits = offset % BLOCK_SIZE + inode.disk_size() as u64 <= BLOCK_SIZE;
        let tail_fits = match (inode.layout, &node.kind) {
            // Older kernels (5.15) take a link for damaged whose target isn't in the inode's own block.
            (FLAT_INLINE, Kind::Symlink(_)) => offset % BLOCK_SIZE + head + tail <= BLOCK_SIZE,
            (FLAT_INLINE, _) => (offset + head) % BLOCK_SIZE + tail <= BLOCK_SIZE,
            _ => true,
        };
        inode_fits && tail_fits
    };
    while !fits(offset) {
        offset += SLOT;
    }
    placed.offset = offset;
    offset + head + tail
}

/// A directory's names with `.` and `..` where they belong.
pub(super) fn with_dots<'a>(names: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    let dots: [&[u8]; 2] = [b".", b".."];
    let mut names = names.peekable();
    let mut dots = dots.into_iter().peekable();
    std::iter::from_fn(move || match (names.peek(), dots.peek()) {
        (Some(name), Some(dot)) if name < dot => names.next(),
        (_, Some(_)) => dots.next(),
        _ => names.next(),
    })
}

const _: () = assert!(COMPACT_SIZE as u64 == SLOT && EXTENDED_SIZE as u64 == 2 * SLOT);
