//! A directory of an image: its layers merged by the kernel, mounted nowhere.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen,
};
use rustix::thread::UnshareFlags;

use crate::failure::{Context, Failure, Step};
use crate::launcher::volume;
use crate::plan::Fill;
use crate::sys;

/// Where a kernel before 6.7 mounts the merged layers, in a mount namespace of this process's own.
const PLACE: &str = "/tmp";

/// The directory that the volume is filled from. Links in its path lead where they lead in the image.
pub(super) fn open(fill: &Fill) -> Result<OwnedFd, Failure> {
    let root = match fill.layers.as_slice() {
        // An overlay of one read-only directory is refused, and needs none.
        [only] => rustix::fs::open(only.as_str(), volume::DIRECTORY, Mode::empty()).at(Step::Open, || only.as_str())?,
        several => match merged(several) {
            Err(Errno::INVAL) => merged_by_string(several),
            other => other,
        }
        .at(Step::Mount, || "overlay of the image's layers")?,
    };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(&root, fill.path.as_str(), volume::DIRECTORY, Mode::empty(), resolve)
        .at(Step::FillVolume, || format!("{} from {} of the image", fill.directory, fill.path))
}

/// EINVAL: the kernel is older than 6.7 and has no `lowerdir+`.
fn merged(layers: &[String]) -> Result<OwnedFd, Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in layers {
        fsconfig_set_string(context.as_fd(), "lowerdir+", layer.as_str())?;
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// Every layer in one string, which mount(2) takes a page of.
fn merged_by_string(layers: &[String]) -> Result<OwnedFd, Errno> {
    let options = CString::new(format!("lowerdir={}", layers.join(":"))).map_err(|_| Errno::INVAL)?;
    sys::process::unshare(UnshareFlags::NEWNS)?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    rustix::mount::mount("overlay", PLACE, "overlay", MountFlags::RDONLY, options.as_c_str())?;
    rustix::fs::open(PLACE, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}
