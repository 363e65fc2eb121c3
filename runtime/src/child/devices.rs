//! `/dev`: the machine's own nodes, bound one by one, and the customary links. A user namespace can't make nodes.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use super::paths::{Kind, Links};
use super::paths;
use crate::failure::{Context, Failure, Step};
use crate::launch::Launch;
use crate::launcher::{STANDARD_DEVICES, Tree, Trees};

/// Links of every `/dev` (runtime spec, "Dev symbolic links").
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Fills the tmpfs that is mounted on `/dev`.
pub(crate) fn populate(dev: BorrowedFd<'_>, trees: &Trees) -> Result<(), Failure> {
    for ((name, _), tree) in STANDARD_DEVICES.iter().zip(&trees.standard_devices) {
        bind(dev, name, Links::Refuse, tree)?;
    }
    for (name, target) in LINKS {
        match rustix::fs::symlinkat(target, dev, name) {
            Err(Errno::EXIST) => {}
            other => other.at(Step::Create, || format!("/dev/{name}"))?,
        }
    }
    Ok(())
}

/// Binds the declared devices. The cgroup's device filter decides whether they can be used.
pub(crate) fn bind_declared(launch: &Launch, trees: &Trees, root: BorrowedFd<'_>) -> Result<(), Failure> {
    for (device, tree) in launch.devices.iter().zip(&trees.devices) {
        bind(root, &device.target, Links::Refuse, tree)?;
    }
    Ok(())
}

fn bind(root: BorrowedFd<'_>, path: &str, links: Links, tree: &Tree) -> Result<(), Failure> {
    let node = tree.detached()?;
    let absolute = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let target = paths::ensure(root, &absolute, Kind::File, links).at(Step::MountTarget, || path)?;
    paths::attach(node.as_fd(), target.as_fd()).at(Step::Mount, || format!("device on {path}"))
}
