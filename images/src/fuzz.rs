//! Entry points for the fuzz targets: one call per parser of foreign bytes. Not part of the interface.
//!
//! `cargo +nightly fuzz run layer_tar` (or `erofs`, `manifests`) in this crate's directory, with cargo-fuzz installed.

use std::io::Cursor;

use crate::contents::Contents;
use crate::erofs::{Algorithm, FileKind, Reader};
use crate::layer::{self, Target};
use crate::tree::Tree;
use crate::{Limits, Result};

/// Limits small enough that a target can't run long.
fn limits() -> Limits {
    Limits {
        layer_bytes: 16 << 20,
        file_bytes: 1 << 30,
        content_bytes: 64 << 20,
        entries: 10_000,
        metadata_bytes: 8 << 20,
        link_bytes: 4 << 20,
        depth: 64,
        extension_bytes: 64 << 10,
        ..Limits::default()
    }
}

/// A layer's tar stream; what is accepted is written as EROFS, compressed or not, and must read back.
pub fn layer_tar(bytes: &[u8]) {
    let forms = [None, Some(Algorithm::Lz4), Some(Algorithm::Zstd)];
    if let Ok(image) = bake(bytes, forms[bytes.len() % forms.len()]) {
        let mut reader = Reader::new(Cursor::new(image)).expect("what the writer wrote must be readable");
        let count = walk(&mut reader, 1 << 20).expect("every file the writer wrote must be readable");
        assert!(count > 0);
    }
}

fn bake(bytes: &[u8], compression: Option<Algorithm>) -> Result<Vec<u8>> {
    let limits = limits();
    let mut tree = Tree::new(&limits);
    let mut contents = Contents::new(&std::env::temp_dir(), &limits)?;
    let target = Target { limits: &limits, tree: &mut tree, contents: &mut contents };
    let layer = layer::entries("fuzz", bytes, target)?;
    tree.link(Tree::ROOT, b"layer", layer.root)?;
    let mut out = tempfile::tempfile().map_err(crate::Error::io("create", "a scratch file"))?;
    let summary = crate::erofs::write(&tree, &contents, compression, &mut out)?;
    let mut image = vec![0; (summary.blocks * crate::erofs::BLOCK_SIZE) as usize];
    std::os::unix::fs::FileExt::read_exact_at(&out, &mut image, 0).map_err(crate::Error::io("read", "the image"))?;
    Ok(image)
}

/// An EROFS image.
pub fn erofs(bytes: &[u8]) {
    if let Ok(mut reader) = Reader::new(Cursor::new(bytes)) {
        let _ = walk(&mut reader, 64 << 10);
    }
}

/// Reads everything there is, a bounded number of inodes.
fn walk<R: std::io::Read + std::io::Seek>(reader: &mut Reader<R>, limit: u64) -> Result<usize> {
    let mut pending = vec![reader.root()?];
    let mut count = 0;
    while let Some(inode) = pending.pop() {
        count += 1;
        if count > 20_000 {
            break;
        }
        reader.xattrs(&inode)?;
        match inode.kind {
            FileKind::Directory => {
                for entry in reader.list(&inode)? {
                    pending.push(reader.inode(entry.nid)?);
                }
            }
            FileKind::File if inode.size <= limit => drop(reader.read(&inode, limit)?),
            FileKind::Symlink => drop(reader.read_link(&inode)?),
            _ => {}
        }
    }
    Ok(count)
}

/// Index, manifest and configuration.
pub fn manifests(bytes: &[u8]) {
    crate::source::manifest::parse_anything(bytes);
}
