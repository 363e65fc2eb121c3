//! The mounts of a spec: the kernel's filesystems first, then what was declared and the image's own volumes, outer ones first.

use std::path::PathBuf;

use oci_spec::runtime::Mount as SpecMount;

use super::{Error, ImageFiles, Mount, MountKind, NamespaceChoice, Options};
use crate::launch::{CreateDir, is_beneath, tmpfs_inodes};

/// Default size of `/dev/shm`, Docker's.
const SHM_SIZE: u64 = 64 << 20;
/// `tty` group of every distribution, by which terminals are owned.
const TTY_GID: u32 = 5;

/// Everything to mount, in order, and how volumes are made, by target.
pub(super) struct Mounts {
    pub(super) mounts: Vec<SpecMount>,
    pub(super) volumes: Vec<(String, CreateDir)>,
    /// Volumes of the image on which nothing is declared to be mounted.
    pub(super) uncovered: Vec<String>,
}

/// Puts the mounts of `options` together. `image_volumes` are the paths that the image declares.
pub(super) fn collect(options: &Options, image_volumes: &[String], files: &dyn ImageFiles) -> Result<Mounts, Error> {
    let mut made = Mounts { mounts: kernel_filesystems(options), volumes: Vec::new(), uncovered: Vec::new() };
    let of_kernel = made.mounts.len();
    for mount in &options.mounts {
        check_target(&mount.target)?;
        if !matches!(mount.kind, MountKind::Bind { .. }) {
            expect_no_file(options, &mount.target, files)?;
        }
        made.add(options, mount, files)?;
    }
    for device in &options.devices {
        check_target(&device.target)?;
    }
    for target in image_volumes {
        if options.mounts.iter().any(|mount| same_path(&mount.target, target)) {
            continue;
        }
        made.uncovered.push(target.clone());
        if let Some(size) = options.image_volumes {
            check_target(target)?;
            expect_no_file(options, target, files)?;
            let found = metadata(files, target)?;
            let kind = MountKind::Tmpfs {
                size: Some(size),
                mode: Some(found.mode),
                uid: Some(found.uid),
                gid: Some(found.gid),
            };
            made.add(options, &Mount { target: target.clone(), kind, read_only: false, noexec: false }, files)?;
        }
    }
    // A mount covers what was mounted beneath it before: the outer one goes first, as with Docker, whoever wants it.
    made.mounts[of_kernel..].sort_by_key(|mount| mount.destination().components().count());
    Ok(made)
}

impl Mounts {
    fn add(&mut self, options: &Options, mount: &Mount, files: &dyn ImageFiles) -> Result<(), Error> {
        let mut flags = vec!["nosuid".to_owned(), "nodev".to_owned()];
        if mount.read_only {
            flags.push("ro".to_owned());
        }
        if mount.noexec {
            flags.push("noexec".to_owned());
        }
        let (fstype, source, more) = match &mount.kind {
            MountKind::Bind { source, recursive } => {
                ("bind", source.as_str(), vec![if *recursive { "rbind" } else { "bind" }.to_owned()])
            }
            MountKind::Volume { source } => {
                self.volumes.push((mount.target.clone(), metadata(files, &mount.target)?));
                let idmap = options.ids.is_some().then(|| "idmap".to_owned());
                ("bind", source.as_str(), ["bind".to_owned()].into_iter().chain(idmap).collect())
            }
            MountKind::Tmpfs { size, mode, uid, gid } => {
                let number = |key: &str, value: Option<u32>| value.map(|value| format!("{key}={value}"));
                let inodes = size.map(|size| format!("nr_inodes={}", tmpfs_inodes(size)));
                let size = size.map(|size| format!("size={size}"));
                let mode = format!("mode={:o}", mode.unwrap_or(0o1777));
                (
                    "tmpfs",
                    "tmpfs",
                    [size, inodes, Some(mode), number("uid", *uid), number("gid", *gid)]
                        .into_iter()
                        .flatten()
                        .collect(),
                )
            }
        };
        flags.extend(more);
        self.mounts.push(entry(&mount.target, fstype, source, flags));
        Ok(())
    }
}

/// `/proc`, `/dev`, `/sys` and what belongs beneath them.
fn kernel_filesystems(options: &Options) -> Vec<SpecMount> {
    let list = |flags: &[&str]| -> Vec<String> { flags.iter().map(|f| (*f).to_owned()).collect() };
    let own_user = options.ids.is_some();
    let mut mounts = Vec::new();
    // In a user namespace the kernel mounts only those of the container's own namespaces; else the machine's are bound.
    if own_user && options.pid == NamespaceChoice::Host {
        mounts.push(entry("/proc", "bind", "/proc", list(&["rbind", "nosuid", "nodev", "noexec"])));
    } else {
        mounts.push(entry("/proc", "proc", "proc", list(&["nosuid", "nodev", "noexec"])));
    }
    mounts.push(entry(
        "/dev",
        "tmpfs",
        "tmpfs",
        list(&["nosuid", "noexec", "mode=755", "size=65536k", "nr_inodes=16384"]),
    ));
    let mut pts = list(&["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
    if maps_group(options, TTY_GID) {
        pts.push(format!("gid={TTY_GID}"));
    }
    mounts.push(entry("/dev/pts", "devpts", "devpts", pts));
    if options.ipc == NamespaceChoice::Host {
        mounts.push(entry("/dev/shm", "bind", "/dev/shm", list(&["bind", "nosuid", "nodev", "noexec"])));
    } else {
        let size = options.shm_size.unwrap_or(SHM_SIZE);
        let (size, inodes) = (format!("size={size}"), format!("nr_inodes={}", tmpfs_inodes(size)));
        let shm = list(&["nosuid", "nodev", "noexec", "mode=1777", &size, &inodes]);
        mounts.push(entry("/dev/shm", "tmpfs", "shm", shm));
    }
    // A joined ipc namespace is another user namespace's, and its queues can't be mounted in this one.
    if options.ipc == NamespaceChoice::New {
        mounts.push(entry("/dev/mqueue", "mqueue", "mqueue", list(&["nosuid", "nodev", "noexec"])));
    }
    if own_user && options.network != NamespaceChoice::New {
        mounts.push(entry("/sys", "bind", "/sys", list(&["rbind", "nosuid", "nodev", "noexec", "ro"])));
    } else {
        mounts.push(entry("/sys", "sysfs", "sysfs", list(&["nosuid", "nodev", "noexec", "ro"])));
    }
    if options.cgroup == NamespaceChoice::New {
        mounts.push(entry("/sys/fs/cgroup", "cgroup", "cgroup", list(&["nosuid", "nodev", "noexec", "ro"])));
    }
    mounts
}

fn maps_group(options: &Options, gid: u32) -> bool {
    options.ids.as_ref().is_none_or(|ids| {
        ids.gids.iter().any(|range| gid.checked_sub(range.inside).is_some_and(|offset| offset < range.size))
    })
}

fn entry(target: &str, fstype: &str, source: &str, mut options: Vec<String>) -> SpecMount {
    if options.iter().any(|option| option == "rbind") {
        // What is denied on a mount is denied beneath it, too.
        let denied = ["ro", "nosuid", "nodev", "noexec"];
        let more: Vec<String> =
            options.iter().filter(|o| denied.contains(&o.as_str())).map(|option| format!("r{option}")).collect();
        options.extend(more);
    }
    let mut mount = SpecMount::default();
    mount
        .set_destination(PathBuf::from(target))
        .set_typ(Some(fstype.to_owned()))
        .set_source(Some(PathBuf::from(source)))
        .set_options(Some(options));
    mount
}

/// Refuses targets over which the isolation rests.
fn check_target(target: &str) -> Result<(), Error> {
    let names: Vec<&str> = target.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    if !target.starts_with('/') || names.contains(&"..") {
        return Err(Error::new("mounts", format!("target {target:?} must be an absolute path without '..'")));
    }
    match names.as_slice() {
        [] => Err(Error::new("mounts", "nothing can be mounted on /")),
        ["proc", ..] => Err(Error::new("mounts", format!("{target}: nothing can be mounted on /proc or beneath it"))),
        ["sys"] | ["dev"] | ["sys", "fs", "cgroup"] => {
            Err(Error::new("mounts", format!("{target} is the kernel's filesystem and can't be replaced")))
        }
        _ => Ok(()),
    }
}

fn names(path: &str) -> Vec<&str> {
    path.split('/').filter(|name| !name.is_empty() && *name != ".").collect()
}

fn same_path(a: &str, b: &str) -> bool {
    names(a) == names(b)
}

/// The kernel mounts no directory over a file, and none can be made beneath one.
fn expect_no_file(options: &Options, target: &str, files: &dyn ImageFiles) -> Result<(), Error> {
    // What another mount covers isn't seen.
    if options.mounts.iter().any(|other| is_beneath(target, &other.target)) {
        return Ok(());
    }
    let mut path = String::new();
    for name in names(target) {
        path = format!("{path}/{name}");
        let found = files.metadata(&path).map_err(|e| Error::new("mounts", format!("{path} in the image: {e}")))?;
        if found.is_some_and(|found| !found.directory) {
            return Err(Error::new(
                "mounts",
                format!("{path} is a file in the image, and only a directory can be mounted over"),
            ));
        }
    }
    Ok(())
}

/// Owner and mode of the image's directory at `target`, which a volume there takes over; root's 0755 if there is none.
fn metadata(files: &dyn ImageFiles, target: &str) -> Result<CreateDir, Error> {
    let found = files.metadata(target).map_err(|e| Error::new("mounts", format!("{target} in the image: {e}")))?;
    Ok(match found {
        Some(found) if found.directory => CreateDir { uid: found.uid, gid: found.gid, mode: found.mode & 0o7777 },
        _ => CreateDir { uid: 0, gid: 0, mode: 0o755 },
    })
}
