//! The mounts on top of the root, in the launch's order.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::mount::MountAttrFlags;

use super::paths::{Kind, Links};
use super::{devices, paths};
use crate::failure::{Context, Failure, Step};
use crate::filesystem;
use crate::launch::{Launch, Mount, MountSource};
use crate::launcher::{Tree, Trees, attributes};

/// Mounts everything. A tmpfs on `/dev` gets its nodes and links at once, so that later mounts can go on top.
pub(crate) fn mount_all(launch: &Launch, trees: &Trees, root: BorrowedFd<'_>) -> Result<(), Failure> {
    for (mount, bind) in launch.mounts.iter().zip(&trees.binds) {
        match (&mount.source, bind) {
            (MountSource::Filesystem { fstype, options }, _) => new_filesystem(mount, fstype, options, trees, root)?,
            (MountSource::Bind { path, .. }, Some(tree)) => bind_tree(mount, path, tree, root)?,
            (MountSource::Bind { path, .. }, None) => {
                return Err(Failure::check(format!("{path} was not opened by the launcher")));
            }
        }
    }
    Ok(())
}

fn new_filesystem(
    mount: &Mount,
    fstype: &str,
    options: &[String],
    trees: &Trees,
    root: BorrowedFd<'_>,
) -> Result<(), Failure> {
    let bits = MountAttrFlags::from_bits_truncate(u32::try_from(attributes(mount.flags)).unwrap_or_default());
    let filesystem = filesystem::new(fstype, options, bits.difference(MountAttrFlags::MOUNT_ATTR_RDONLY))?;
    let target = target(root, mount, Kind::Directory)?;
    paths::attach(filesystem.as_fd(), target.as_fd()).at(Step::Mount, || format!("{fstype} on {}", mount.target))?;
    if fstype == "tmpfs" && mount.target.trim_end_matches('/') == "/dev" {
        // After it is attached, as nothing can be mounted on what isn't.
        devices::populate(filesystem.as_fd(), trees)?;
    }
    if mount.flags.readonly {
        // Only now, as `/dev` had to be filled first.
        let change = crate::sys::mount::Change { set: libc::MOUNT_ATTR_RDONLY, ..Default::default() };
        crate::sys::mount::set_attributes(filesystem.as_fd(), change)
            .at(Step::MountAttributes, || mount.target.as_str())?;
    }
    Ok(())
}

fn bind_tree(mount: &Mount, path: &str, tree: &Tree, root: BorrowedFd<'_>) -> Result<(), Failure> {
    let source = tree.detached()?;
    let stat = rustix::fs::fstat(&source).at(Step::Open, || path)?;
    let is_directory = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
    let target = target(root, mount, if is_directory { Kind::Directory } else { Kind::File })?;
    paths::attach(source.as_fd(), target.as_fd()).at(Step::Mount, || format!("{path} on {}", mount.target))
}

fn target(root: BorrowedFd<'_>, mount: &Mount, kind: Kind) -> Result<std::os::fd::OwnedFd, Failure> {
    paths::ensure(root, &mount.target, kind, links(&mount.target)).at(Step::MountTarget, || mount.target.as_str())
}

/// Links are refused on the way to the kernel's own filesystems: an image that ships `/proc`, `/sys` or `/dev` as a link would
/// have them, and what is masked in them, somewhere else than every other rule expects.
pub(super) fn links(target: &str) -> Links {
    match target.split('/').find(|name| !name.is_empty() && *name != ".") {
        Some("proc" | "sys" | "dev") => Links::Refuse,
        _ => Links::Follow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kernel_filesystems_refuse_links() {
        for strict in ["/proc", "/dev/pts", "//sys/fs/cgroup", "/./dev"] {
            assert_eq!(links(strict), Links::Refuse, "{strict}");
        }
        for lenient in ["/var/run", "/process", "/", "/srv/dev"] {
            assert_eq!(links(lenient), Links::Follow, "{lenient}");
        }
    }
}
