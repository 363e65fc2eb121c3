//! Writes an image as planned, from front to back, the superblock last.

use std::fs::File;

use super::dirents::{self, Dirent};
use super::format::{
    CHUNK_BASED, COMPRESSED, FLAT_INLINE, INCOMPAT_CHUNKED, INCOMPAT_SHARED, NULL_ADDRESS, S_IFDIR, Superblock,
};
use super::layout::{self, Layout, Placed};
use super::output::Output;
use super::{Algorithm, BLOCK_SIZE, clusters, order, pack, xattr};
use crate::Result;
use crate::contents::Contents;
use crate::store::Summary;
use crate::tree::{Kind, Node, Tree};

/// Writes the image of `tree` to `out`, an empty file, the contents of its layers compressed if there is an algorithm.
///
/// The contents come first: how small they become decides where everything else goes.
pub(crate) fn write(
    tree: &Tree,
    contents: &Contents,
    compression: Option<Algorithm>,
    out: &mut File,
) -> Result<Summary> {
    let order = order::order(tree, contents);
    // Chunks of a large file with holes are large, and hold the zeros around what is in them.
    let ids = order.early.iter().chain(&order.late);
    let blocks: u64 = ids.map(|id| layout::block_count(contents.get(*id))).sum();
    contents.require_room(blocks.saturating_mul(BLOCK_SIZE))?;
    let mut output = Output::new(out)?;
    let places = pack::write(&mut output, contents, &order.early, compression, &order.plain)?;
    let content_blocks = output.position / BLOCK_SIZE - 1;

    let plan = layout::plan(tree, contents, order, places, output.position / BLOCK_SIZE)?;
    for placed in &plan.nodes {
        write_blocks(&mut output, tree, &plan, placed)?;
    }
    for placed in &plan.nodes {
        output.pad_to(plan.meta_block * BLOCK_SIZE + placed.offset)?;
        write_inode(&mut output, tree, contents, compression, &plan, placed)?;
    }
    output.pad_to(plan.late_block * BLOCK_SIZE)?;
    pack::write(&mut output, contents, &plan.late_contents, None, &Default::default())?;
    debug_assert_eq!(output.position, plan.blocks * BLOCK_SIZE);

    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    let superblock = Superblock {
        root_nid: plan.nodes[0].nid() as u16,
        inodes: plan.nodes.len() as u64,
        blocks: plan.blocks as u32,
        meta_block: plan.meta_block as u32,
        uuid: output.uuid(),
        incompatible: flag(plan.chunked, INCOMPAT_CHUNKED) | flag(plan.shared, INCOMPAT_SHARED),
        compression: compression.filter(|_| plan.compressed),
    };
    output.finish(&superblock.encode())?;
    Ok(Summary {
        blocks: plan.blocks,
        uuid: superblock.uuid,
        inodes: superblock.inodes,
        contents: plan.places.len() as u64,
        content_bytes: plan.places.keys().map(|&id| contents.get(id).stored()).sum(),
        content_blocks: content_blocks + plan.blocks - plan.late_block,
        shared_bytes: contents.shared(),
        metadata_bytes: (plan.late_block - plan.meta_block) * BLOCK_SIZE,
    })
}

/// The used bytes of a directory's blocks.
fn directory_blocks(tree: &Tree, plan: &Layout, placed: &Placed) -> Vec<Vec<u8>> {
    let Kind::Directory(entries) = &tree.get(placed.id).kind else { return Vec::new() };
    let own = |id| &plan.nodes[plan.index[&id] as usize];
    let names = layout::with_dots(entries.keys().map(|name| &**name));
    let dirents: Vec<_> = names
        .map(|name| {
            let target = match name {
                b"." => placed,
                b".." => own(placed.parent),
                name => own(entries[name]),
            };
            Dirent { name, nid: target.nid(), file_type: dirents::file_type(target.inode.mode) }
        })
        .collect();
    dirents::blocks(&dirents)
}

/// What a directory or long symbolic link has in blocks of its own.
fn write_blocks(output: &mut Output<'_>, tree: &Tree, plan: &Layout, placed: &Placed) -> Result<()> {
    let inline = placed.inode.layout == FLAT_INLINE;
    match &tree.get(placed.id).kind {
        Kind::Directory(_) => {
            if inline && placed.inode.size < BLOCK_SIZE {
                return Ok(());
            }
            let mut blocks = directory_blocks(tree, plan, placed);
            if inline {
                blocks.pop();
            }
            for block in blocks {
                output.hashed(&block)?;
                output.pad_block()?;
            }
        }
        Kind::Symlink(target) if !inline => {
            output.hashed(target)?;
            output.pad_block()?;
        }
        _ => {}
    }
    Ok(())
}

/// An inode, its attributes and what follows them.
fn write_inode(
    output: &mut Output<'_>,
    tree: &Tree,
    contents: &Contents,
    compression: Option<Algorithm>,
    plan: &Layout,
    placed: &Placed,
) -> Result<()> {
    let node: &Node = tree.get(placed.id);
    output.hashed(&placed.inode.encode())?;
    output.hashed(&xattr::encode(node))?;
    match (&node.kind, placed.inode.layout) {
        (Kind::Directory(_), FLAT_INLINE) => {
            debug_assert_eq!(placed.inode.mode & S_IFDIR, S_IFDIR);
            let tail = directory_blocks(tree, plan, placed).pop().unwrap_or_default();
            output.hashed(&tail)
        }
        (Kind::Symlink(target), FLAT_INLINE) => output.hashed(target),
        (Kind::File(id), FLAT_INLINE) => {
            let mut bytes = vec![0; contents.get(*id).size as usize];
            contents.read_at(*id, 0, &mut bytes)?;
            output.hashed(&bytes)
        }
        (Kind::File(id), CHUNK_BASED) => {
            let mut address = plan.places.get(id).map_or(0, |place| place.first);
            for (blocks, hole) in layout::chunks(contents.get(*id)) {
                let entry = if hole { NULL_ADDRESS } else { address as u32 };
                address += if hole { 0 } else { blocks };
                output.hashed(&entry.to_le_bytes())?;
            }
            Ok(())
        }
        (Kind::File(id), COMPRESSED) => {
            let (Some(place), Some(algorithm)) = (plan.places.get(id), compression) else { return Ok(()) };
            output.pad_to(clusters::start(output.position))?;
            output.hashed(&clusters::header(algorithm))?;
            place.chunks(placed.inode.size).try_for_each(|chunk| output.hashed(&chunk.entries()))
        }
        _ => Ok(()),
    }
}
