//! What a container would see: an image's layers merged.

use crate::contents::Contents;
use crate::layer::{MOST_LINKS, path};
use crate::tree::{self, Attributes, Node, NodeId, Tree};
use crate::{Error, Result};

/// The layers of one image merged as overlayfs does it. Paths are resolved inside the image, symbolic links included: an
/// absolute one starts at the image's root, and `..` there stays there.
#[derive(Debug)]
pub struct View<'a> {
    tree: &'a Tree,
    contents: &'a Contents,
    /// The layers' roots, the topmost first.
    roots: Merged,
}

/// What lies at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, 0o7777 at most.
    pub mode: u32,
    /// Bytes, of a file; 0 for others.
    pub size: u64,
}

/// The kinds of file, symbolic links excepted (they are followed).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A device node or fifo.
    Special,
}

/// One name in the merged tree: the nodes that make it up, the topmost first. More than one only for directories.
pub(crate) type Merged = Vec<NodeId>;

impl<'a> View<'a> {
    pub(crate) fn new(tree: &'a Tree, contents: &'a Contents, roots: Vec<NodeId>) -> Self {
        Self { tree, contents, roots: visible(tree, roots.into_iter()) }
    }

    /// What lies at `path` (absolute inside the image; a relative one is taken from `/`); `None` if nothing does.
    pub fn metadata(&self, path: &str) -> Result<Option<Metadata>> {
        let Some(node) = self.node(path)? else { return Ok(None) };
        let (kind, size) = match &node.kind {
            tree::Kind::File(id) => (Kind::File, self.contents.get(*id).size),
            tree::Kind::Directory(_) => (Kind::Directory, 0),
            _ => (Kind::Special, 0),
        };
        let Attributes { mode, uid, gid, .. } = node.attributes;
        Ok(Some(Metadata { kind, uid, gid, mode: mode.into(), size }))
    }

    /// Whether a directory with something in it lies at `path`, which is resolved as in [`View::metadata`].
    pub fn has_entries(&self, path: &str) -> Result<bool> {
        let Some(merged) = self.resolve(path)? else { return Ok(false) };
        let names = merged.iter().flat_map(|&id| match &self.tree.get(id).kind {
            tree::Kind::Directory(entries) => entries.keys().collect(),
            _ => Vec::new(),
        });
        // A name may be there only to hide one below.
        Ok(names.into_iter().any(|name| self.child(&merged, name).is_some()))
    }

    /// The content of the regular file at `path`; `None` if nothing lies there, an error if it is more than `limit` bytes
    /// or no regular file.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(node) = self.node(path)? else { return Ok(None) };
        let object = || format!("`{}` in the image", path.escape_debug());
        let tree::Kind::File(id) = node.kind else {
            return Err(Error::unsupported(object(), "not a regular file"));
        };
        let size = self.contents.get(id).size;
        if size > limit {
            return Err(Error::unsupported(object(), format!("{size} bytes, more than the {limit} it may have")));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        self.contents.read_at(id, 0, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// The root.
    pub(crate) fn root(&self) -> &Merged {
        &self.roots
    }

    /// The topmost node at a path, links followed.
    fn node(&self, path: &str) -> Result<Option<&'a Node>> {
        Ok(self.resolve(path)?.and_then(|merged| merged.first().map(|&id| self.tree.get(id))))
    }

    /// What lies at a path, links followed.
    fn resolve(&self, path: &str) -> Result<Option<Merged>> {
        let looped = || Error::unsupported(path, format!("more than {MOST_LINKS} symbolic links in its path"));
        let mut steps: Vec<Merged> = vec![self.roots.clone()];
        let mut pending: Vec<Box<[u8]>> = path::split(path.as_bytes()).rev().map(Box::from).collect();
        let mut links = 0;
        while let Some(name) = pending.pop() {
            let here = &steps[steps.len() - 1];
            if !here.first().is_some_and(|&id| self.tree.get(id).is_directory()) {
                return Ok(None);
            }
            if *name == *b".." {
                if steps.len() > 1 {
                    steps.pop();
                }
                continue;
            }
            let Some(found) = self.child(here, &name) else { return Ok(None) };
            if let tree::Kind::Symlink(target) = &self.tree.get(found[0]).kind {
                links += 1;
                if links > MOST_LINKS {
                    return Err(looped());
                }
                if target.starts_with(b"/") {
                    steps.truncate(1);
                }
                pending.extend(path::split(target).rev().map(Box::from));
                continue;
            }
            steps.push(found);
        }
        Ok(steps.pop())
    }

    /// An entry of a merged directory.
    pub(crate) fn child(&self, directory: &[NodeId], name: &[u8]) -> Option<Merged> {
        let found = visible(self.tree, directory.iter().filter_map(|&id| self.tree.child(id, name)));
        (!found.is_empty()).then_some(found)
    }
}

/// Of nodes with one name, the topmost first, those that are seen: the first, and directories beneath a directory up to
/// one that hides what is below.
fn visible(tree: &Tree, nodes: impl Iterator<Item = NodeId>) -> Merged {
    let mut merged = Merged::new();
    for id in nodes {
        let node = tree.get(id);
        if node.is_whiteout() || (!merged.is_empty() && !node.is_directory()) {
            break;
        }
        merged.push(id);
        if !node.is_directory() || node.opaque {
            break;
        }
    }
    merged
}
