//! The tree that becomes the filesystem: plain data in memory, names are bytes, nothing touches the machine's files.

use std::collections::BTreeMap;

use crate::contents::ContentId;
use crate::{Error, Limits, Result};

/// A node's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(pub(crate) u32);

/// Names and nodes of a directory, sorted by bytes.
pub(crate) type Entries = BTreeMap<Box<[u8]>, NodeId>;

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory(Entries),
    File(ContentId),
    Symlink(Box<[u8]>),
    /// Number 0/0 is a whiteout.
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// Extended attributes by full name.
pub(crate) type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// What a node has besides its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Permission bits, 0o7777 at most.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub(crate) mtime: (i64, u32),
    pub(crate) xattrs: Xattrs,
}

impl Attributes {
    /// Root's, without a time: what is made here and stands in no archive.
    pub(crate) fn made(mode: u16) -> Self {
        Self { mode, uid: 0, gid: 0, mtime: (0, 0), xattrs: Xattrs::new() }
    }
}

/// A file, directory, link or device; hard links are several names of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) attributes: Attributes,
    /// Of a directory: hides what lower layers have there.
    pub(crate) opaque: bool,
    /// Of a directory: there are whiteouts in it, or have been.
    pub(crate) whiteouts: bool,
    /// Made with `add_file` or `add_dir`: lies behind all layers in the image.
    pub(crate) late: bool,
}

impl Node {
    pub(crate) fn directory(attributes: Attributes) -> Self {
        Self { kind: Kind::Directory(Entries::new()), attributes, opaque: false, whiteouts: false, late: false }
    }

    pub(crate) fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory(_))
    }

    pub(crate) fn is_whiteout(&self) -> bool {
        self.kind == Kind::CharDevice { major: 0, minor: 0 }
    }
}

/// All nodes; number 0 is the root. Nodes that lost their last name stay, unreachable.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    /// Estimated bytes of memory.
    memory: u64,
    /// Bytes of symbolic links' targets followed.
    followed: u64,
    entries_limit: u64,
    memory_limit: u64,
    link_limit: u64,
}

/// Bytes that a node or a name needs besides its own bytes, roughly.
const OVERHEAD: u64 = 64;

impl Tree {
    pub(crate) const ROOT: NodeId = NodeId(0);

    pub(crate) fn new(limits: &Limits) -> Self {
        let root = Node::directory(Attributes::made(0o755));
        Self {
            nodes: vec![root],
            memory: 0,
            followed: 0,
            // Numbers are 32 bits wide.
            entries_limit: limits.entries.min(u64::from(u32::MAX)),
            memory_limit: limits.metadata_bytes,
            link_limit: limits.link_bytes,
        }
    }

    pub(crate) fn get(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub(crate) fn get_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    /// The entry `name` of the directory `id`.
    pub(crate) fn child(&self, id: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.get(id).kind {
            Kind::Directory(entries) => entries.get(name).copied(),
            _ => None,
        }
    }

    /// Makes a node without a name.
    pub(crate) fn add(&mut self, node: Node) -> Result<NodeId> {
        if self.nodes.len() as u64 >= self.entries_limit {
            let (limit, object) = (self.entries_limit, "layer store".into());
            return Err(Error::Limit { object, limit, unit: "entries", name: "entries" });
        }
        let target = if let Kind::Symlink(target) = &node.kind { target.len() as u64 } else { 0 };
        self.charge(size_of::<Node>() as u64 + target + xattrs_cost(&node.attributes))?;
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(node);
        Ok(id)
    }

    /// Gives `child` the name `name` in `directory`, in place of what had it.
    pub(crate) fn link(&mut self, directory: NodeId, name: &[u8], child: NodeId) -> Result<()> {
        self.charge(OVERHEAD + name.len() as u64)?;
        if let Kind::Directory(entries) = &mut self.get_mut(directory).kind {
            entries.insert(name.into(), child);
        }
        Ok(())
    }

    /// Gives a node other attributes.
    pub(crate) fn set_attributes(&mut self, id: NodeId, attributes: Attributes) -> Result<()> {
        self.charge(xattrs_cost(&attributes))?;
        self.get_mut(id).attributes = attributes;
        Ok(())
    }

    /// Counts memory that is kept because of the tree.
    pub(crate) fn charge(&mut self, bytes: u64) -> Result<()> {
        self.memory += bytes;
        if self.memory <= self.memory_limit {
            return Ok(());
        }
        let (limit, object) = (self.memory_limit, "layer store: names and attributes".into());
        Err(Error::Limit { object, limit, unit: "bytes", name: "metadata_bytes" })
    }

    /// Counts what it takes to follow a symbolic link's target of so many bytes.
    pub(crate) fn charge_link(&mut self, bytes: usize) -> Result<()> {
        self.followed += bytes as u64;
        if self.followed <= self.link_limit {
            return Ok(());
        }
        let (limit, object) = (self.link_limit, "layer store: symbolic links followed on the way to entries".into());
        Err(Error::Limit { object, limit, unit: "bytes", name: "link_bytes" })
    }
}

fn xattrs_cost(attributes: &Attributes) -> u64 {
    attributes.xattrs.iter().map(|(name, value)| OVERHEAD + (name.len() + value.len()) as u64).sum()
}
