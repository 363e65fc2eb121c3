//! Asks the running kernel what it can do. Cheap: a dozen refused system calls and a few small files.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::path::Path;

use super::features::Kernel;
use crate::sys;

/// The oldest kernel that is accepted without a word: older ones are not tested.
const OLDEST: (u32, u32) = (6, 1);

/// Since when layers (EROFS) and what is stacked of them (overlayfs) can be mounted with mapped ids.
const LAYERS_WITH_MAPPED_IDS: (u32, u32) = (5, 19);

/// Since when a tmpfs can be mounted with mapped ids.
const TMPFS_WITH_MAPPED_IDS: (u32, u32) = (6, 3);

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// By the feature table's names.
    features: BTreeSet<&'static str>,
    release: String,
}

impl Kernel for Found {
    fn has(&self, feature: &str) -> bool {
        self.features.contains(feature)
    }

    fn release(&self) -> &str {
        &self.release
    }
}

/// Asks for everything. `cgroup` is the root of the control group tree, if it could be mounted.
pub fn probe(cgroup: Option<BorrowedFd<'_>>) -> Found {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let answers = ask(cgroup, version(&release)).into_iter();
    Found { features: answers.filter(|(_, there)| *there).map(|(name, _)| name).collect(), release }
}

fn ask(cgroup: Option<BorrowedFd<'_>>, version: Option<(u32, u32)>) -> Vec<(&'static str, bool)> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    // What only a mount and a user namespace together could show goes by the version.
    let since = |release: (u32, u32)| version.is_none_or(|version| version >= release);
    let filesystems = read("/proc/filesystems");
    let controllers = read("/sys/fs/cgroup/cgroup.controllers");
    let user_namespaces = read("/proc/sys/user/max_user_namespaces");
    let exists = |path: &str| Path::new(path).exists();
    let filesystem = |name: &str| filesystems.lines().any(|line| line.rsplit('\t').next() == Some(name));
    let controller = |name: &str| controllers.split_ascii_whitespace().any(|c| c == name);
    // These two files exist in every control group but the root; the containers' parent is made before the check.
    let group_file = |name: &str| Path::new(super::machine::CGROUP).join(name).exists();

    vec![
        ("version", since(OLDEST)),
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
        ("idmapped_mounts", sys::probe::mount_setattr() && since(LAYERS_WITH_MAPPED_IDS)),
        ("idmapped_tmpfs", since(TMPFS_WITH_MAPPED_IDS)),
        ("mount_api", sys::probe::fsopen()),
        ("openat2", sys::probe::openat2()),
        ("pidfd", sys::probe::pidfd()),
        ("clone_into_cgroup", sys::probe::clone_into_cgroup()),
        ("memfd", sys::probe::memfd()),
    ]
}

/// Major and minor number of a kernel release (`6.12.117+deb12-cloud-amd64`).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::features::check;

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(version("6.12.117+deb12-cloud-amd64"), Some((6, 12)));
        assert_eq!(version("5.9.0"), Some((5, 9)));
        assert!(version("5.9.0").unwrap() < LAYERS_WITH_MAPPED_IDS && version("6.1").unwrap() >= OLDEST);
        assert_eq!(version("linux"), None);
    }

    #[test]
    fn layers_with_mapped_ids_need_more_than_the_call() {
        let there = |version| {
            let answers = ask(None, Some(version));
            answers.into_iter().find(|(name, _)| *name == "idmapped_mounts").unwrap().1
        };
        assert!(there((5, 19)), "this kernel has the call");
        assert!(!there((5, 18)));
    }

    #[test]
    fn exactly_the_rows_of_the_table_are_asked_for() {
        let asked: BTreeSet<_> = ask(None, None).into_iter().map(|(name, _)| name.to_owned()).collect();
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
