//! fuse-overlayfs(1): an overlay in user space, for kernels whose own can't be mounted.
//!
//! It serves a mount that is made here, not by the setuid fusermount, so the mount is in no namespace but the container's. When that is
//! gone, so is the mount, and the program ends by itself.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};
use rustix::process::{Pid, Signal};
use rustix::thread::UnshareFlags;

use crate::child::rootfs::Layers;
use crate::failure::{Context, Failure, Step};
use crate::{hook, sys};

const PROGRAM: &str = "fuse-overlayfs";
const DEVICE: &str = "/dev/fuse";
/// It has opened the layers and said that it is there within so long. It takes milliseconds; a disk may have to spin up.
const ANSWER: Duration = Duration::from_secs(10);
/// What it says, in the workspace, whose size bounds it.
const SAYINGS: &str = "said";

/// Why it can't be used, if it can't.
pub(super) fn probe() -> Option<Errno> {
    let is_there = |directory: std::path::PathBuf| {
        rustix::fs::access(directory.join(PROGRAM), rustix::fs::Access::EXEC_OK).is_ok()
    };
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    if !std::env::split_paths(&path).any(is_there) {
        return Some(Errno::NOENT);
    }
    open_device().err()
}

fn open_device() -> Result<OwnedFd, Errno> {
    rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Mounts the layers of the workspace, which is this process's working directory. Returns the root, mounted nowhere, and the
/// process that serves it, once it does.
pub(super) fn mount(layers: &Layers<'_>, workspace: BorrowedFd<'_>) -> Result<(OwnedFd, i32), Failure> {
    let device = open_device().at(Step::Open, || DEVICE)?;
    let root = mount_device(device.as_fd())?;
    let mut daemon = serve(layers, workspace, device)?;
    // With whatever it has started, if it is a script.
    let kill = |daemon: &Child| {
        if let Some(group) = i32::try_from(daemon.id()).ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    };
    // Not even death ends a question that it has taken, but its own does.
    let failure = match wait_for_answer(root.as_fd(), || kill(&daemon)) {
        Ok(()) => {
            let pid = i32::try_from(daemon.id()).map_err(|_| Failure::check("a process id that is none"))?;
            return Ok((root, pid));
        }
        Err(failure) => failure,
    };
    kill(&daemon);
    let _ = daemon.wait();
    let object = format!("{}: {}", failure.object, sayings(workspace).unwrap_or_default());
    Err(Failure::new(failure.step, object.trim_end_matches([':', ' ']), Errno::from_raw_os_error(failure.errno)))
}

/// Waits until the program answers, or the kernel in its place once it is gone. A process of its own asks, as nothing but death
/// ends that question. If it takes too long, the program is given up first.
fn wait_for_answer(root: BorrowedFd<'_>, give_up: impl FnOnce()) -> Result<(), Failure> {
    let asks = sys::clone::fork_into(UnshareFlags::empty(), None, libc::SIGCHLD, || {
        // Whoever kills this process has it ask no longer.
        let bound = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        bound.and_then(|()| rustix::fs::fstatvfs(root)).err().map_or(0, |errno| errno.raw_os_error().clamp(1, 255))
    })
    .at(Step::Clone, || format!("to wait for {PROGRAM}"))?;
    if !hook::ends_in_time(asks.pidfd.as_fd(), Some(ANSWER)) {
        give_up();
        sys::clone::kill_and_reap(&asks);
        let object = format!("{PROGRAM}, which hasn't answered for {} s", ANSWER.as_secs());
        return Err(Failure::new(Step::RunStorage, object, Errno::TIMEDOUT));
    }
    let status = hook::wait(asks.pidfd.as_fd()).at(Step::RunStorage, || PROGRAM)?;
    match status.exit_status() {
        Some(0) => Ok(()),
        errno => Err(Failure::new(Step::RunStorage, PROGRAM, errno.map_or(Errno::IO, Errno::from_raw_os_error))),
    }
}

fn mount_device(device: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).at(Step::Mount, || "fuse")?;
    let set = |key: &str, value: &str| {
        fsconfig_set_string(context.as_fd(), key, value).at(Step::MountOption, || format!("fuse {key}={value}"))
    };
    set("source", PROGRAM)?;
    set("fd", &device.as_raw_fd().to_string())?;
    set("rootmode", "40000")?;
    set("user_id", "0")?;
    set("group_id", "0")?;
    // The kernel judges by owners and modes, for every user of the namespace.
    for flag in ["default_permissions", "allow_other"] {
        fsconfig_set_flag(context.as_fd(), flag).at(Step::MountOption, || format!("fuse {flag}"))?;
    }
    fsconfig_create(context.as_fd()).at(Step::Mount, || "fuse")?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).at(Step::Mount, || "fuse")
}

/// Starts the program with nothing of this process's but the device, which no one else keeps: so its end is seen.
fn serve(layers: &Layers<'_>, workspace: BorrowedFd<'_>, device: OwnedFd) -> Result<Child, Failure> {
    let lowers: Vec<String> = (0..layers.mounts.len()).map(|number| format!("layers/{number}")).collect();
    let (upper, work) = layers.upper;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND | OFlags::CLOEXEC;
    let said = rustix::fs::openat(workspace, SAYINGS, flags, Mode::RUSR | Mode::WUSR)
        .at(Step::Create, || "file for what fuse-overlayfs says")?;
    rustix::io::fcntl_setfd(&device, FdFlags::empty()).at(Step::RunStorage, || PROGRAM)?;
    let mut command = Command::new(PROGRAM);
    command
        .args(["-f", "-o", &format!("lowerdir={},upperdir={upper},workdir={work}", lowers.join(":"))])
        .arg(format!("/dev/fd/{}", device.as_raw_fd()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::from(said))
        // Signals of the caller's terminal aren't for it.
        .process_group(0);
    command
        .spawn()
        .map_err(|error| Failure::new(Step::RunStorage, PROGRAM, Errno::from_io_error(&error).unwrap_or(Errno::IO)))
}

/// The beginning of what the program has complained about.
fn sayings(workspace: BorrowedFd<'_>) -> Option<String> {
    let file = rustix::fs::openat(workspace, SAYINGS, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = Vec::new();
    File::from(file).take(512).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    // It hands options to its library that not every version of that knows.
    let lines = text.lines().filter(|line| !line.starts_with("unknown argument ignored"));
    Some(lines.collect::<Vec<_>>().join(", "))
}
