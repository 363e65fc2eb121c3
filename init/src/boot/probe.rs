//! Asks the running kernel what it can do. Cheap: a dozen refused system calls and a few small files.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::path::Path;

use super::features::Kernel;
use crate::sys;

/// The oldest kernel that is accepted without a word.
const OLDEST: (u32, u32) = (4, 18);

/// Since when a tmpfs can be mounted with mapped ids.
const TMPFS_WITH_MAPPED_IDS: (u32, u32) = (6, 3);

/// What was found, by the feature table's names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found(BTreeSet<&'static str>);

impl Kernel for Found {
    fn has(&self, feature: &str) -> bool {
        self.0.contains(feature)
    }
}

/// Asks for everything. `cgroup` is the root of the control group tree, if it could be mounted.
pub fn probe(cgroup: Option<BorrowedFd<'_>>) -> Found {
    Found(ask(cgroup).into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect())
}

fn ask(cgroup: Option<BorrowedFd<'_>>) -> Vec<(&'static str, bool)> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let release = rustix::system::uname();
    let filesystems = read("/proc/filesystems");
    let controllers = read("/sys/fs/cgroup/cgroup.controllers");
    let user_namespaces = read("/proc/sys/user/max_user_namespaces");
    let exists = |path: &str| Path::new(path).exists();
    let filesystem = |name: &str| filesystems.lines().any(|line| line.rsplit('\t').next() == Some(name));
    let controller = |name: &str| controllers.split_ascii_whitespace().any(|c| c == name);
    // These two files exist in every control group but the root; the containers' parent is made before the check.
    let group_file = |name: &str| Path::new(super::machine::CGROUP).join(name).exists();

    vec![
        ("version", version(release.release().to_bytes()).is_none_or(|v| v >= OLDEST)),
        ("tmpfs", filesystem("tmpfs")),
        ("erofs", filesystem("erofs")),
        ("ext4", filesystem("ext4")),
        ("overlay", filesystem("overlay")),
        ("mqueue", filesystem("mqueue")),
        ("dm_verity", exists("/sys/module/dm_verity")),
        ("cgroup_v2", cgroup.is_some()),
        ("memory", controller("memory")),
        ("cpu", controller("cpu")),
        ("pids", controller("pids")),
        ("io", controller("io")),
        ("cpuset", controller("cpuset")),
        ("freezer", group_file("cgroup.freeze")),
        ("cgroup_kill", group_file("cgroup.kill")),
        ("device_control", cgroup.is_some_and(sys::probe::cgroup_bpf)),
        ("user_ns", exists("/proc/self/ns/user") && user_namespaces.trim() != "0"),
        ("pid_ns", exists("/proc/self/ns/pid")),
        ("net_ns", exists("/proc/self/ns/net")),
        ("ipc_ns", exists("/proc/self/ns/ipc")),
        ("uts_ns", exists("/proc/self/ns/uts")),
        ("cgroup_ns", exists("/proc/self/ns/cgroup")),
        ("seccomp", sys::probe::seccomp()),
        ("seccomp_filter", sys::probe::seccomp_filter()),
        ("idmapped_mounts", sys::probe::mount_setattr()),
        // Only a tmpfs and a user namespace together could show it.
        ("idmapped_tmpfs", version(release.release().to_bytes()).is_none_or(|v| v >= TMPFS_WITH_MAPPED_IDS)),
        ("mount_api", sys::probe::fsopen()),
        ("openat2", sys::probe::openat2()),
        ("pidfd", sys::probe::pidfd()),
        ("clone_into_cgroup", sys::probe::clone_into_cgroup()),
        ("memfd", sys::probe::memfd()),
    ]
}

/// Major and minor number of a kernel release (`6.12.117+deb12-cloud-amd64`).
fn version(release: &[u8]) -> Option<(u32, u32)> {
    let text = std::str::from_utf8(release).ok()?;
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::features::check;

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(version(b"6.12.117+deb12-cloud-amd64"), Some((6, 12)));
        assert_eq!(version(b"4.9.0"), Some((4, 9)));
        assert!(version(b"4.9.0").unwrap() < OLDEST && version(b"4.18").unwrap() >= OLDEST);
        assert_eq!(version(b"linux"), None);
    }

    #[test]
    fn exactly_the_rows_of_the_table_are_asked_for() {
        let asked: BTreeSet<_> = ask(None).into_iter().map(|(name, _)| name.to_owned()).collect();
        let rows: BTreeSet<_> = check(&Found::default(), None).into_iter().map(|f| f.name).collect();
        assert_eq!(asked, rows);
    }

    #[test]
    fn what_any_linux_has_is_found() {
        let found = probe(None);
        assert!(found.has("tmpfs") && found.has("pid_ns") && found.has("pidfd") && found.has("version"));
        assert!(!found.has("cgroup_v2") && !found.has("device_control"));
    }
}
