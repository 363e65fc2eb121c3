//! What a container sees in its filesystem besides the root.

use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use super::IdMap;

/// One mount inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the container; made if absent, resolved beneath the root only.
    pub target: String,
    /// What is mounted.
    pub source: MountSource,
    /// What the mount allows.
    pub flags: MountFlags,
}

impl Mount {
    /// Whether the container's root is what is mounted from then on.
    pub(crate) fn covers_root(&self) -> bool {
        self.target == "/" && !matches!(self.source, MountSource::Existing { .. })
    }
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A new instance of a filesystem: its type and options (`size=…`, `mode=…`, `newinstance`, …) as `key=value` or flags.
    Filesystem {
        /// One of `/proc/filesystems`.
        fstype: String,
        /// Device or dummy; `None`: the type's name.
        device: Option<String>,
        /// Options given to `fsconfig`.
        options: Vec<String>,
        /// Copy what the mount covers onto it (`tmpcopyup`).
        copy_up: bool,
    },
    /// An existing file or directory of the machine.
    Bind {
        /// Absolute path outside.
        path: String,
        /// With the mounts beneath it.
        recursive: bool,
        /// Whose ids its files have.
        idmap: IdMapping,
        /// What becomes of symbolic links there and at the target.
        links: EndLinks,
        /// Make `path` before mounting it, if it is absent: a volume's directory.
        create: Option<CreateDir>,
    },
    /// What the container has at another place by then, with the mounts before this one.
    Inside {
        /// Absolute path inside the container.
        path: String,
        /// With the mounts beneath it.
        recursive: bool,
    },
    /// The mount that is there already: its attributes and propagation change, and with `options` its filesystem's.
    Existing {
        /// Options given to `fsconfig` of its filesystem; `None`: it is left alone.
        options: Option<Vec<String>>,
    },
}

/// Whose ids the files of a bind mount have (mount_setattr(2), `MOUNT_ATTR_IDMAP`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdMapping {
    /// As they are on disk.
    #[default]
    None,
    /// Mapped to the container's ids, so that ids on disk are the container's own.
    Container {
        /// Also the mounts beneath.
        recursive: bool,
    },
    /// Mapped by a map of the mount's own.
    Own {
        /// Ids on disk → ids outside the container.
        ids: IdMap,
        /// Also the mounts beneath.
        recursive: bool,
    },
}

/// What becomes of symbolic links at the ends of a bind mount's two paths. On the way there they are followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndLinks {
    /// They are followed.
    #[default]
    Followed,
    /// A source that is one is made once more at the target.
    Copied,
    /// It is what is mounted, or mounted on.
    Kept {
        /// That at the source.
        source: bool,
        /// That at the target.
        target: bool,
    },
}

/// How an absent volume directory is made: as the image has the directory it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateDir {
    /// Owner, as an id on disk.
    pub uid: u32,
    /// Group, as an id on disk.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// What a mount allows and where its changes go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountFlags {
    /// Of the mount itself.
    pub own: Attributes,
    /// Of it and of everything beneath, after `own`.
    pub tree: Attributes,
    /// `MOUNT_ATTR_*` bits to clear with those of `own`, unless they are locked: what nobody named.
    pub unnamed: u64,
    /// What its source denies, and how that keeps times of access, must remain: to change it is EPERM.
    pub keeps: bool,
    /// Changes of propagation in order: `MS_SHARED` and its like, with `MS_REC` for the mounts beneath (`linux/mount.h`).
    /// Empty: private, with everything beneath.
    pub propagation: Vec<u32>,
}

/// `MOUNT_ATTR_*` bits of mount_setattr(2). A bit in neither leaves a bind mount's source as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// To set.
    pub set: u64,
    /// To clear.
    pub clear: u64,
}

impl Attributes {
    /// Sets `bits`, which earlier calls may have cleared.
    pub fn set(&mut self, bits: u64) {
        self.set |= bits;
        self.clear &= !bits;
    }

    /// Clears `bits`, which earlier calls may have set.
    pub fn clear(&mut self, bits: u64) {
        self.clear |= bits;
        self.set &= !bits;
    }

    /// Whether there is nothing to change.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.set == 0 && self.clear == 0
    }
}

impl MountFlags {
    /// Whether the mount itself has all of `bits`.
    #[must_use]
    pub fn has(&self, bits: u64) -> bool {
        (self.own.set | self.tree.set) & bits == bits
    }

    /// Whether nothing can be written through the mount.
    #[must_use]
    pub fn is_readonly(&self) -> bool {
        self.has(libc::MOUNT_ATTR_RDONLY)
    }

    /// Whether the first of its changes of propagation is about the mounts beneath, too, and doesn't share them: then none of them is a peer of its
    /// source's any more.
    pub(crate) fn withdraws_whole_tree(&self) -> bool {
        self.propagation.first().is_some_and(|change| u64::from(*change) & (libc::MS_REC | libc::MS_SHARED) == libc::MS_REC)
    }

    /// Takes `bits` away, also from what is beneath.
    pub fn remove(&mut self, bits: u64) {
        self.own.set &= !bits;
        self.tree.set &= !bits;
    }
}

/// A device node of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute path inside the container.
    pub target: String,
    /// What it is.
    pub node: DeviceNode,
}

/// What a device node is. What may be done with it, [`super::Cgroup`] says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceNode {
    /// As the machine's at this path, which is looked up at the start; it belongs to the program's user.
    Machine(String),
    /// Of this number. The container's root makes it; where it can't (in a user namespace), one that the launcher made is bound.
    Numbered(Node),
}

/// One device node by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// What kind of file.
    pub kind: NodeKind,
    /// Device number.
    pub major: u32,
    /// Device number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner inside the container.
    pub uid: u32,
    /// Group inside the container.
    pub gid: u32,
}

/// The kinds of file that mknod(2) makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeKind {
    /// `c` and `u`.
    Character,
    /// `b`
    Block,
    /// `p`
    Fifo,
}

impl NodeKind {
    /// What stat(2) says of one.
    pub(crate) fn file_type(self) -> FileType {
        match self {
            Self::Character => FileType::CharacterDevice,
            Self::Block => FileType::BlockDevice,
            Self::Fifo => FileType::Fifo,
        }
    }
}
