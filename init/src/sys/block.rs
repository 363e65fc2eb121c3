//! Ioctls of block devices and of the ext4 filesystem on them.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `_IOR(0x12, 114, size_t)`
const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;
/// `_IO(0x12, 105)`
const BLKPG: libc::c_ulong = 0x1269;
const BLKPG_ADD_PARTITION: libc::c_int = 1;
const BLKPG_RESIZE_PARTITION: libc::c_int = 3;
/// `_IOW('f', 16, __u64)`
const EXT4_IOC_RESIZE_FS: libc::c_ulong = 0x4008_6610;

/// `struct blkpg_ioctl_arg`
#[repr(C)]
struct PartitionCall {
    op: libc::c_int,
    flags: libc::c_int,
    length: libc::c_int,
    data: *mut Partition,
}

/// `struct blkpg_partition`
#[repr(C)]
struct Partition {
    start: i64,
    length: i64,
    number: libc::c_int,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

/// Size of the block device in bytes.
pub fn size(device: &File) -> io::Result<u64> {
    let mut size = 0u64;
    // SAFETY: BLKGETSIZE64 writes one u64 through the pointer, which points to a live one.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), BLKGETSIZE64, &raw mut size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(size) }
}

/// Tells the kernel that partition `number` of `disk` now covers `length` bytes from byte `start`. It may be in use.
pub fn resize_partition(disk: &File, number: u32, start: u64, length: u64) -> io::Result<()> {
    partition(disk, BLKPG_RESIZE_PARTITION, number, start, length)
}

/// Tells the kernel of a partition that it did not find by itself.
pub fn add_partition(disk: &File, number: u32, start: u64, length: u64) -> io::Result<()> {
    partition(disk, BLKPG_ADD_PARTITION, number, start, length)
}

fn partition(disk: &File, op: libc::c_int, number: u32, start: u64, length: u64) -> io::Result<()> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut data = Partition {
        start: i64::try_from(start).map_err(invalid)?,
        length: i64::try_from(length).map_err(invalid)?,
        number: libc::c_int::try_from(number).map_err(invalid)?,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let size = libc::c_int::try_from(size_of::<Partition>()).map_err(invalid)?;
    let mut call = PartitionCall { op, flags: 0, length: size, data: &raw mut data };
    // SAFETY: BLKPG reads one `blkpg_ioctl_arg` and the `blkpg_partition` it points to; both are live and laid out as in
    // linux/blkpg.h (`repr(C)`, same fields).
    let result = unsafe { libc::ioctl(disk.as_raw_fd(), BLKPG, &raw mut call) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Grows a mounted ext4 filesystem to `blocks` of its own blocks. `mount` is any file or directory on it.
pub fn ext4_resize(mount: &File, blocks: u64) -> io::Result<()> {
    // SAFETY: EXT4_IOC_RESIZE_FS reads one u64 through the pointer, which points to a live one.
    let result = unsafe { libc::ioctl(mount.as_raw_fd(), EXT4_IOC_RESIZE_FS, &raw const blocks) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_size() {
        assert_eq!(size_of::<Partition>(), 152);
        assert_eq!(size_of::<PartitionCall>(), 24);
    }

    #[test]
    fn other_files_are_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(size(&file).is_err());
        assert!(ext4_resize(&file, 1).is_err());
        assert!(resize_partition(&file, 1, 0, 0).is_err());
        assert!(add_partition(&file, u32::MAX, 0, 0).is_err());
    }
}
