//! The volumes of a launch: directories of the machine that are made when they are absent, and can be opened ahead of the start
//! by somebody who may wait for their disk.

use std::os::fd::OwnedFd;

use crate::failure::Failure;
use crate::launch::{CreateDir, Launch, MountSource};
use crate::launcher::volume;

/// The volumes by their paths, in the order of the launch's mounts. One that is mounted twice comes twice.
pub fn of(launch: &Launch) -> impl Iterator<Item = (&str, CreateDir)> {
    launch.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Bind { path, create: Some(create), .. } => Some((path.as_str(), *create)),
        _ => None,
    })
}

/// Makes a volume if it is absent, and opens it for [`crate::start::Site::volumes`].
pub fn open(path: &str, create: CreateDir) -> Result<OwnedFd, Failure> {
    volume::open(path, create)
}
