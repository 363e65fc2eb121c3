//! Filesystems for volumes in memory.

use std::ffi::CString;

use garboard_runtime::plan::MemoryVolume;
use rustix::mount::MountFlags;

use super::{BootError, root};

/// What a container may write is data: no device nodes, and no program there gains privileges.
const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// Mounts a tmpfs for each. Without it what a container writes would fill `/run`, which PID 1 itself needs, so a fault stops the boot.
pub fn mount_in_memory(volumes: &[MemoryVolume]) -> Result<(), BootError> {
    for volume in volumes {
        std::fs::create_dir_all(&volume.path).map_err(|e| BootError::new("make directory", &volume.path, e))?;
        let options = CString::new(options(volume.size)).unwrap_or_default();
        root::mount("tmpfs", "tmpfs", &volume.path, FLAGS, Some(&options))?;
    }
    Ok(())
}

/// Only root outside has business at its root: containers reach the volume by bind mounts.
fn options(size: Option<u64>) -> String {
    let size = size.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
    format!("mode=0700{size}")
}

#[cfg(test)]
mod tests {
    use super::options;

    #[test]
    fn a_size_is_told_to_the_kernel_in_bytes() {
        assert_eq!(options(Some(1 << 20)), "mode=0700,size=1048576");
        assert_eq!(options(None), "mode=0700");
    }
}
