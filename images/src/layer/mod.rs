//! Reading a layer: from its blob through verification and decompression to the tree.

mod apply;
mod attributes;
mod compression;
pub(crate) mod path;

use std::collections::HashMap;
use std::io::{self, Read};

pub(crate) use apply::{Implicit, MOST_LINKS};
pub(crate) use compression::{Coding, coding, decoder};

use crate::contents::Contents;
use crate::digest::HashingReader;
use crate::tarball::{Input, Tarball};
use crate::tree::{Attributes, Kind, Node, NodeId, Tree};
use crate::{Digest, Error, Limits, Result};

/// A layer in the tree.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) root: NodeId,
    /// Directories without an entry of their own, the root perhaps among them. In an overlay they would
    /// cover the attributes of the directory below, so they get that one's. None that stands in the place of a whiteout.
    pub(crate) implicit: Implicit,
}

impl Layer {
    /// A second copy of a layer's nodes, and of each the copy; contents are shared, hard links stay together.
    pub(crate) fn copy(&self, tree: &mut Tree) -> Result<(Layer, HashMap<NodeId, NodeId>)> {
        let mut copies: HashMap<NodeId, NodeId> = HashMap::new();
        let root = copy_node(tree, self.root, &mut copies)?;
        let mut pending = vec![self.root];
        while let Some(original) = pending.pop() {
            let Kind::Directory(entries) = tree.get(original).kind.clone() else { continue };
            for (name, child) in entries {
                let copy = match copies.get(&child) {
                    Some(&copy) => copy,
                    None => {
                        pending.push(child);
                        copy_node(tree, child, &mut copies)?
                    }
                };
                tree.link(copies[&original], &name, copy)?;
            }
        }
        // Directories that were replaced later have no copy.
        let implicit = self.implicit.iter().filter_map(|id| copies.get(id).copied()).collect();
        Ok((Layer { root, implicit }, copies))
    }
}

fn copy_node(tree: &mut Tree, id: NodeId, copies: &mut HashMap<NodeId, NodeId>) -> Result<NodeId> {
    let original = tree.get(id);
    let kind = if original.is_directory() { Kind::Directory(Default::default()) } else { original.kind.clone() };
    let node = Node {
        kind,
        attributes: original.attributes.clone(),
        opaque: original.opaque,
        whiteouts: original.whiteouts,
        late: false,
    };
    let copy = tree.add(node)?;
    copies.insert(id, copy);
    Ok(copy)
}

/// What a layer's bytes must be.
pub(crate) struct Expected {
    /// Digest of the blob, where something names it.
    pub(crate) blob: Option<Digest>,
    pub(crate) size: u64,
    pub(crate) diff_id: Digest,
}

/// Where layers go.
pub(crate) struct Target<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) tree: &'a mut Tree,
    pub(crate) contents: &'a mut Contents,
}

/// Reads the layer called `name` in messages from `blob`, to the end, and verifies it.
pub(crate) fn read(name: &str, blob: impl Read, expected: &Expected, target: Target<'_>) -> Result<Layer> {
    let limit = target.limits.layer_bytes;
    let mut raw = HashingReader::new(blob.take(expected.size.saturating_add(1)));
    let result = decode(name, &mut raw, target);
    // If the blob isn't what it should be, that is the cause of whatever else went wrong.
    let drained = io::copy(&mut raw, &mut io::sink()).map_err(Error::io("read", name));
    if !matches!(result, Err(Error::Limit { .. })) {
        drained?;
        if raw.count() != expected.size {
            return Err(Error::Size { object: name.into(), expected: expected.size, found: raw.count() });
        }
        check_digest(name, expected.blob, raw.digest())?;
    }
    let (layer, diff_id) = result.map_err(|error| match error {
        Error::Limit { limit: found, name: "layer_bytes", unit, .. } => {
            debug_assert_eq!(found, limit);
            Error::Limit { object: name.into(), limit, unit, name: "layer_bytes" }
        }
        other => other,
    })?;
    check_digest(&format!("{name}, decompressed"), Some(expected.diff_id), diff_id)?;
    Ok(layer)
}

fn check_digest(object: &str, expected: Option<Digest>, found: Digest) -> Result<()> {
    match expected {
        Some(expected) if expected != found => Err(Error::Digest { object: object.into(), expected, found }),
        _ => Ok(()),
    }
}

/// The tree of a compressed tar stream and the digest of the decompressed one.
fn decode(name: &str, raw: impl Read, target: Target<'_>) -> Result<(Layer, Digest)> {
    let decoder = decoder(raw).map_err(|e| stream_error(name, e))?;
    let mut stream =
        HashingReader::new(Bounded { inner: decoder, left: target.limits.layer_bytes, limits: target.limits });
    let layer = entries(name, &mut stream, target)?;
    Ok((layer, stream.digest()))
}

/// The tree of a tar stream, read to its end.
pub(crate) fn entries(name: &str, stream: impl Read, target: Target<'_>) -> Result<Layer> {
    let root = target.tree.add(Node::directory(Attributes::made(0o755)))?;
    let mut tarball = Tarball::new(Stream(stream), target.limits.extension_bytes);
    let Target { limits, tree, contents } = target;
    let implicit = Implicit::from([root]);
    let mut applier = apply::Applier { layer: name, limits, tree, contents, root, implicit };
    while let Some(member) = tarball.next_member().map_err(|e| stream_error(name, e))? {
        applier.apply(member, &mut tarball)?;
    }
    let implicit = applier.implicit;
    Ok(Layer { root, implicit })
}

/// An error of the stream as one about the layer. Our own errors come through as they are.
fn stream_error(layer: &str, error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(error) => Error::malformed(layer, error.to_string()),
    }
}

struct Stream<R>(R);

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Input for Stream<R> {}

/// Ends with an error behind so many bytes.
struct Bounded<'a, R> {
    inner: R,
    left: u64,
    limits: &'a Limits,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => {
                self.left = left;
                Ok(count)
            }
            None => Err(io::Error::other(Error::Limit {
                object: "layer".into(),
                limit: self.limits.layer_bytes,
                unit: "bytes decompressed",
                name: "layer_bytes",
            })),
        }
    }
}
