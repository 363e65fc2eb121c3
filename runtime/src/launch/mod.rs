//! The launch description: everything the runtime needs to start one container, with every decision already made.
//!
//! Plain data. It is written by the `compile` half (from an OCI runtime spec) and obeyed by the other. Paths *inside* the
//! container are absolute and as the image or the declaration gave them, hostile until resolved by file descriptor; paths
//! *outside* are absolute paths of the machine that launches.

mod machine;
mod mount;
mod process;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use machine::{Cgroup, DeviceAccess, DeviceSetting, IntelRdt, Listener, NetDevice, Seccomp};
pub use mount::{
    Attributes, CreateDir, Device, DeviceNode, EndLinks, IdMapping, Mount, MountFlags, MountSource, Node, NodeKind,
};
pub use process::{
    Capabilities, ExecAffinity, Landlock, MemoryPolicy, Process, Rlimit, Scheduler,
};

/// One container, ready to be started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The program and its environment.
    pub process: Process,
    /// Which namespaces are the container's own.
    pub namespaces: Namespaces,
    /// Ids inside → ids outside. `None`: no user namespace of its own (`userns_mode = "host"`), or a joined one whose map isn't known.
    pub ids: Option<IdMap>,
    /// Offsets of a new time namespace's clocks (time_namespaces(7)).
    pub time_offsets: Vec<TimeOffset>,
    /// Where `/` comes from.
    pub root: Root,
    /// Mounts on top of the root, in order. `/proc`, `/dev` and their like are entries here, nothing is implied.
    pub mounts: Vec<Mount>,
    /// Give `/dev` the nodes that every container has (null zero full random urandom tty and the links) also where it is the
    /// root's own directory. A tmpfs there always gets them, a bind mount never.
    pub populate_dev: bool,
    /// Declared device nodes, beyond those. They are put there after all mounts.
    pub devices: Vec<Device>,
    /// Paths hidden from the container (files by `/dev/null`, directories by an empty read-only tmpfs). Absent ones are skipped.
    pub masked_paths: Vec<String>,
    /// Paths remounted read-only. Absent ones are skipped.
    pub readonly_paths: Vec<String>,
    /// UTS host name; `None` keeps what the namespace has.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// Namespaced sysctls as `(dotted name, value)`.
    pub sysctls: Vec<(String, String)>,
    /// Resource limits and device rules.
    pub cgroup: Cgroup,
    /// The filter, already compiled. `None`: `seccomp=unconfined` was declared.
    pub seccomp: Option<Seccomp>,
    /// Class of service of Intel RDT.
    pub intel_rdt: Option<IntelRdt>,
    /// Interfaces that move into its network namespace.
    pub net_devices: Vec<NetDevice>,
}

impl Launch {
    /// Nothing but a root filesystem and namespaces of its own: root without capabilities, ids, mounts, limits or filter. The
    /// program is the caller's to set, and whatever else it wants.
    #[must_use]
    pub fn bare(root: Root) -> Self {
        let process = Process { cwd: "/".to_owned(), no_new_privileges: true, ..Process::default() };
        Self { process, root, ..Self::default() }
    }

    /// Whether the container's root is another user than the machine's.
    #[must_use]
    pub fn in_user_namespace(&self) -> bool {
        self.ids.is_some() || self.namespaces.user.is_some()
    }

    /// Whether its namespace of queues is made by its own root: `/dev/mqueue` belongs to whoever makes it.
    pub(crate) fn makes_queues_late(&self) -> bool {
        self.in_user_namespace() && self.namespaces.ipc == Namespace::New
    }

    /// Whether the machine's root is nobody in the container. Of a namespace that is joined, and whose maps aren't known, nobody can say so.
    pub(crate) fn has_other_root(&self) -> bool {
        self.ids.as_ref().is_some_and(|ids| ids.uids.iter().all(|range| range.outside != 0))
    }

    /// Whether a bind mount, by its place in the list, becomes read-only only when everything is mounted: a later one lies in it, whose place
    /// may have to be made there.
    pub(crate) fn closes_late(&self, index: usize) -> bool {
        let Some(mount) = self.mounts.get(index).filter(|mount| mount.flags.own.set & libc::MOUNT_ATTR_RDONLY != 0) else {
            return false;
        };
        self.mounts.iter().skip(index.saturating_add(1)).any(|later| is_beneath(&later.target, &mount.target))
    }

    /// The map of the user namespace that is made for it; a joined one has its map.
    pub(crate) fn new_map(&self) -> Option<&IdMap> {
        self.ids.as_ref().filter(|_| self.namespaces.user.is_none())
    }
}

/// Whether an absolute path is one beneath another, however either is written.
pub(crate) fn is_beneath(path: &str, above: &str) -> bool {
    let (path, above) = (Path::new(path), Path::new(above));
    path != above && path.starts_with(above)
}

/// What a namespace of the container is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    /// A new one, the container's own.
    #[default]
    New,
    /// The launcher's.
    Host,
    /// An existing one, by the path of its file (`/proc/…/ns/net`, `/run/netns/…`).
    Path(String),
}

/// The namespaces. A joined user namespace is here; without one, a new one is what [`Launch::ids`] says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Process ids.
    pub pid: Namespace,
    /// Network. A new one gets its loopback interface up.
    pub network: Namespace,
    /// System V IPC and POSIX message queues.
    pub ipc: Namespace,
    /// Host and domain name.
    pub uts: Namespace,
    /// The view of the cgroup tree.
    pub cgroup: Namespace,
    /// Join the user namespace of this file.
    pub user: Option<String>,
    /// Mounts. The root of one that is joined becomes the container's. In the launcher's the root must stand at its place already
    /// ([`crate::start::Site::root`]), and whatever is mounted in it stays when the container has ended.
    pub mount: Namespace,
    /// Clocks.
    pub time: TimeNamespace,
}

impl Namespaces {
    /// Every one the launcher's.
    pub(crate) fn of_launcher() -> Self {
        Self {
            pid: Namespace::Host,
            network: Namespace::Host,
            ipc: Namespace::Host,
            uts: Namespace::Host,
            cgroup: Namespace::Host,
            user: None,
            mount: Namespace::Host,
            time: TimeNamespace::Host,
        }
    }
}

/// What the time namespace is; unlike the others' the default is the launcher's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeNamespace {
    /// The launcher's.
    #[default]
    Host,
    /// A new one.
    New,
    /// An existing one, by the path of its file.
    Path(String),
}

/// How far a clock of a time namespace is from the machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeOffset {
    /// `CLOCK_BOOTTIME`, else `CLOCK_MONOTONIC`.
    pub boottime: bool,
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds, below 10⁹.
    pub nanoseconds: u32,
}

/// Id mappings of a user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// User ids.
    pub uids: Vec<IdRange>,
    /// Group ids.
    pub gids: Vec<IdRange>,
}

/// `size` ids from `inside` stand for those from `outside`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id in the container.
    pub inside: u32,
    /// First id on the machine.
    pub outside: u32,
    /// How many.
    pub size: u32,
}

/// The root filesystem.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// What it is made of.
    pub source: RootSource,
    /// Mounted read-only for the container.
    pub readonly: bool,
    /// How mounts spread to and from it.
    pub propagation: Propagation,
}

/// How mounts spread between a root directory and the machine (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// Among the container and what it starts.
    Shared,
    /// From the machine into it.
    Slave,
    /// Not at all, and it can't be bound elsewhere.
    Unbindable,
}

impl Root {
    /// Whether the container can't write to it: said so, or there is nowhere to write to.
    #[must_use]
    pub fn is_readonly(&self) -> bool {
        self.readonly || matches!(self.source, RootSource::Layers { upper: Upper::None, .. })
    }
}

/// What a root filesystem is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootSource {
    /// An existing directory, ids as they are on disk.
    Directory(String),
    /// Overlay over layers (idmapped to the container's ids when it has a user namespace).
    Layers {
        /// Layer directories, the topmost first.
        layers: Vec<String>,
        /// Where writes go.
        upper: Upper,
    },
}

/// So many files may be in a tmpfs of `size` bytes: one for each page, as many as the kernel gives one of its own default size,
/// so that every file that holds anything has room. Files that hold nothing would otherwise fill the machine's memory.
#[must_use]
pub fn tmpfs_inodes(size: u64) -> u64 {
    const PAGE: u64 = 4096;
    const AT_LEAST: u64 = 1024;
    size.div_ceil(PAGE).max(AT_LEAST)
}

/// A directory without a name, which is none: a launch has to say where its root is.
impl Default for RootSource {
    fn default() -> Self {
        Self::Directory(String::new())
    }
}

/// The writable side of an overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Upper {
    /// None: the overlay is read-only.
    None,
    /// A tmpfs of at most this many bytes, gone with the container.
    Tmpfs {
        /// Size limit in bytes.
        size: u64,
    },
    /// A directory (holding `upper` and `work`), kept.
    Directory(String),
}

/// The file of a sysctl beneath `/proc/sys`. As in sysctl(8), the first separator decides: after a dot, dots separate directories and
/// a slash stands for a dot inside a name (`net.ipv4.conf.eth0/1.forwarding`); after a slash, the name is the path.
#[must_use]
pub fn sysctl_path(name: &str) -> String {
    if name.find(['.', '/']).and_then(|at| name.as_bytes().get(at)) == Some(&b'/') {
        return name.to_owned();
    }
    name.chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn dots_separate_and_slashes_stand_for_dots() {
        assert_eq!(super::sysctl_path("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(super::sysctl_path("net/ipv4/conf/eth0.1/forwarding"), "net/ipv4/conf/eth0.1/forwarding");
    }
}
