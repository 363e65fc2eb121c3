//! Verifies the system image, mounts it and makes it the root.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::disk::System;
use super::{BootError, erofs};
use crate::sys::dm;

/// Name of the verified device.
const NAME: &str = "garboard-system";
const CONTROL: &str = "/dev/mapper/control";
/// Where the image is mounted before it becomes `/`.
pub const SYSROOT: &str = "/sysroot";

/// Mounts what every program expects, with the initramfs as root: `/proc`, `/sys`, `/dev`, `/run`.
pub fn mount_basics() -> Result<(), BootError> {
    let nothing = MountFlags::NOSUID | MountFlags::NOEXEC;
    let all = nothing | MountFlags::NODEV;
    let mounts: [(&str, &str, MountFlags, Option<&CStr>); 4] = [
        ("devtmpfs", "/dev", nothing, Some(c"mode=0755")),
        ("proc", "/proc", all, None),
        ("sysfs", "/sys", all, None),
        ("tmpfs", "/run", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=0755")),
    ];
    for (kind, target, flags, data) in mounts {
        make_directory(target)?;
        mount(kind, kind, target, flags, data)?;
    }
    Ok(())
}

/// Mounts, and says what to do when the kernel can't.
pub fn mount(kind: &str, source: &str, target: &str, flags: MountFlags, data: Option<&CStr>) -> Result<(), BootError> {
    match rustix::mount::mount(source, target, kind, flags, data) {
        // Mounted already: devtmpfs by the kernel, or all of it before PID 1 executed itself again.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(errno) => {
            let error = BootError::new("mount", format!("{kind} on {target}"), errno);
            Err(match errno {
                Errno::NODEV => error.fix(format!("the kernel does not know the filesystem {kind}")),
                _ => error,
            })
        }
    }
}

/// Makes a directory unless it is there.
pub fn make_directory(path: &str) -> Result<(), BootError> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(BootError::new("make directory", path, errno)),
    }
}

/// Sets up dm-verity over the image; returns the path of the verified device. Nothing has been verified yet: every block is,
/// when it is first read.
pub fn verify(system: &System, root_hash: &[u8; 32]) -> Result<String, BootError> {
    let control = open_control()?;
    let fault = |operation, cause: &dyn std::fmt::Display| {
        BootError::new(operation, format!("{NAME} over {}", system.name), cause)
    };
    let table = system.superblock.table(&system.data, &system.hash, system.hash_offset, root_hash);
    let (Some(parameters), Some(sectors)) = (table, system.superblock.sectors()) else {
        return Err(fault("set up dm-verity", &"its superblock gives an impossible size"));
    };
    let device = dm::create(&control, NAME).map_err(|e| fault("make the mapped device", &e))?;
    let target = dm::Target { kind: "verity", sectors, parameters: &parameters };
    dm::load_table(&control, NAME, target).and_then(|()| dm::resume(&control, NAME)).map_err(|e| {
        // What can't be used is not left behind.
        let _ = dm::remove(&control, NAME);
        fault("set up dm-verity", &e).fix(
            "the kernel lacks CONFIG_DM_VERITY or SHA-256, or the disk is shorter than the image that was written to it",
        )
    })?;
    Ok(format!("/dev/dm-{}", minor(device)))
}

/// Minor number of a device number as device-mapper gives it (`huge_encode_dev`: minor bits 0–7 and 20–31).
fn minor(device: u64) -> u64 {
    (device & 0xff) | ((device >> 12) & 0xfff_ff00)
}

fn open_control() -> Result<File, BootError> {
    let open = || File::options().read(true).write(true).open(CONTROL);
    open().or_else(|_| make_control().and_then(|()| open())).map_err(|e| {
        BootError::new("open", CONTROL, e)
            .fix("the kernel lacks CONFIG_BLK_DEV_DM, or the initrd lacks the module dm_mod")
    })
}

/// devtmpfs makes the node when device-mapper is loaded; without devtmpfs it is made by hand.
fn make_control() -> std::io::Result<()> {
    let number = std::fs::read_to_string("/sys/class/misc/device-mapper/dev")?;
    let (major, minor) = number.trim().split_once(':').ok_or(std::io::ErrorKind::InvalidData)?;
    let number = |text: &str| text.parse::<u32>().map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData));
    let device = rustix::fs::makedev(number(major)?, number(minor)?);
    std::fs::create_dir_all("/dev/mapper")?;
    rustix::fs::mknodat(rustix::fs::CWD, CONTROL, FileType::CharacterDevice, Mode::from_raw_mode(0o600), device)?;
    Ok(())
}

/// Mounts the verified image where it waits to become the root.
pub fn mount_system(device: &str, system: &System) -> Result<(), BootError> {
    make_directory(SYSROOT)?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV;
    rustix::mount::mount(device, SYSROOT, "erofs", flags, None).map_err(|errno| {
        let error = BootError::new("mount the system image", system.name.as_str(), errno);
        match mount_fix(errno, || head(device)) {
            Some(fix) => error.fix(fix),
            None => error,
        }
    })
}

/// What to do when the image can't be mounted, as far as the cause says. `head` is how it begins.
fn mount_fix(errno: Errno, head: impl FnOnce() -> Vec<u8>) -> Option<String> {
    match errno {
        Errno::NODEV => Some("the kernel lacks CONFIG_EROFS_FS, or the initrd lacks the module erofs".into()),
        Errno::IO | Errno::UCLEAN => Some(corrupt_fix().into()),
        // What the kernel says of features and algorithms that it doesn't know.
        Errno::OPNOTSUPP | Errno::INVAL => Some(unreadable_fix(&head())),
        _ => None,
    }
}

/// Takes back what [`verify`] and [`mount_system`] have done for an image that can't be used.
pub fn unmount_system() {
    let _ = rustix::mount::unmount(SYSROOT, UnmountFlags::empty());
    if let Ok(control) = open_control() {
        let _ = dm::remove(&control, NAME);
    }
}

/// What to do about an image that the kernel doesn't understand, given how it begins.
fn unreadable_fix(head: &[u8]) -> String {
    match erofs::needs(head) {
        Some(needs) => format!("{needs}: choose another in [system], or another kernel, and build again"),
        None => "the image was made for another kernel: build it again".into(),
    }
}

/// How a filesystem begins; nothing if it can't be read.
fn head(device: &str) -> Vec<u8> {
    let mut head = vec![0; erofs::HEAD];
    match File::open(device).and_then(|file| file.read_exact_at(&mut head, 0)) {
        Ok(()) => head,
        Err(_) => Vec::new(),
    }
}

/// What to do about a block that fails verification.
pub fn corrupt_fix() -> &'static str {
    "the image is damaged, or does not belong to this roothash=: write the system disk again"
}

/// Makes the mounted image the root: the basics move into it, it moves over `/`, and the initramfs, out of reach from then on, is emptied
/// to give its memory back. (`pivot_root` can't be used: the initramfs can't be moved. A chroot alone would forbid user
/// namespaces.)
pub fn switch() -> Result<(), BootError> {
    let step = |object: &str, errno: Errno| {
        let error = BootError::new("make the system image the root:", object, errno);
        if errno == Errno::IO { error.fix(corrupt_fix()) } else { error }
    };
    let open = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let initramfs = rustix::fs::open("/", open, Mode::empty()).map_err(|e| step("open /", e))?;
    for name in ["/proc", "/sys", "/dev", "/run"] {
        rustix::mount::mount_move(name, format!("{SYSROOT}{name}")).map_err(|errno| {
            match (step(&format!("move {name}"), errno), errno) {
                (error, Errno::NOENT) => error.fix("the image lacks that directory: build it again"),
                (error, _) => error,
            }
        })?;
    }
    rustix::process::chdir(SYSROOT).map_err(|e| step("enter", e))?;
    rustix::mount::mount_move(".", "/").map_err(|e| step("move over /", e))?;
    rustix::process::chroot(".").map_err(|e| step("chroot", e))?;
    rustix::process::chdir("/").map_err(|e| step("enter /", e))?;
    empty(initramfs.as_fd());
    seal(initramfs.as_fd())
}

/// Makes the initramfs read-only: the running program lies there, and a container that shares the machine's user ids could
/// otherwise write to it through `/proc/self/exe` (CVE-2019-5736).
fn seal(initramfs: BorrowedFd<'_>) -> Result<(), BootError> {
    // It has no name any more, but its descriptor has one.
    let path = format!("/proc/self/fd/{}", initramfs.as_raw_fd());
    rustix::mount::mount_remount(path, MountFlags::RDONLY | MountFlags::BIND, c"")
        .map_err(|errno| BootError::new("make the initramfs", "read-only", errno))
}

/// Removes everything beneath a directory, on its own filesystem only. What can't be removed stays; it costs memory only. The
/// running program was executed from there: its file stays in memory for as long as it runs.
fn empty(directory: BorrowedFd<'_>) {
    if let Ok(stat) = rustix::fs::fstat(directory) {
        empty_beneath(directory, stat.st_dev, 16);
    }
}

fn empty_beneath(directory: BorrowedFd<'_>, device: u64, depth: u32) {
    let Some(deeper) = depth.checked_sub(1) else { return };
    let Ok(entries) = Dir::read_from(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if entry.file_type() != FileType::Directory {
            let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
            continue;
        }
        let open = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Ok(child) = rustix::fs::openat(directory, name, open, Mode::empty())
            && rustix::fs::fstat(&child).is_ok_and(|stat| stat.st_dev == device)
        {
            empty_beneath(child.as_fd(), device, deeper);
            let _ = rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_image_names_its_compression() {
        let mut head = vec![0; erofs::HEAD];
        assert!(unreadable_fix(&head).contains("made for another kernel"));
        head[1024..1028].copy_from_slice(&0xe0f5_e1e2_u32.to_le_bytes());
        (head[1024 + 80], head[1024 + 84]) = (3, 8);
        assert!(unreadable_fix(&head).starts_with("compression = \"zstd\" needs Linux 6.10"));
    }

    #[test]
    fn a_mount_that_fails_names_what_its_cause_says_and_no_more() {
        let fix = |errno| mount_fix(errno, Vec::new);
        assert_eq!([Errno::NOMEM, Errno::BUSY, Errno::NOENT, Errno::NXIO].map(fix), [const { None }; 4]);
        assert!([Errno::IO, Errno::UCLEAN].map(fix).iter().flatten().all(|fix| fix.contains("damaged")));
        assert!([Errno::INVAL, Errno::OPNOTSUPP].map(fix).iter().flatten().all(|fix| fix.contains("another kernel")));
    }

    #[test]
    fn minor_numbers_are_decoded() {
        assert_eq!(minor(0xfd00), 0);
        assert_eq!(minor(0xfd07), 7);
        assert_eq!(minor(0x0010_fd01), 0x101);
    }

    #[test]
    fn emptying_removes_what_is_beneath_and_follows_no_link() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("kept"), "").unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("modules/deep")).unwrap();
        std::fs::write(dir.path().join("modules/deep/a.ko"), "").unwrap();
        std::fs::write(dir.path().join("init"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
        empty(rustix::fs::open(dir.path(), OFlags::DIRECTORY, Mode::empty()).unwrap().as_fd());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(outside.path().join("kept").exists());
    }
}
