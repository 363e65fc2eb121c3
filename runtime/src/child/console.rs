//! The container's terminal: a pair of the container's own devpts, one side on its streams, the other sent outside.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, OutputModes, Winsize, tcgetattr, tcsetattr};

use super::paths::{self, Kind, Links};
use super::hide;
use crate::descriptor;
use crate::failure::{Context, Failure, Step};
use crate::launch::Process;
use crate::start::Console;

/// `f_type` of devpts (`linux/magic.h`).
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// Makes the pair beneath `root`, sends its outer side away and returns the inner one, which the program's user then owns.
pub(super) fn open(root: BorrowedFd<'_>, process: &Process, console: &Console<'_>) -> Result<OwnedFd, Failure> {
    let outer = open_multiplexer(root)?;
    rustix::pty::unlockpt(&outer).at(Step::OpenTerminal, || "unlock")?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let inner = rustix::pty::ioctl_tiocgptpeer(&outer, flags).at(Step::OpenTerminal, || "inner side")?;
    match rustix::fs::fchown(&inner, Some(Uid::from_raw(process.uid)), None::<Gid>) {
        // A bound devpts of somebody else's, or an id that isn't mapped: the streams work all the same.
        Err(Errno::PERM | Errno::INVAL) => {}
        other => other.at(Step::OpenTerminal, || format!("owner {}", process.uid))?,
    }
    if let Some((height, width)) = console.size {
        let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&outer, size).at(Step::OpenTerminal, || "size")?;
    }
    if console.plain_lines {
        let mut settings = tcgetattr(&inner).at(Step::OpenTerminal, || "settings")?;
        settings.output_modes.remove(OutputModes::ONLCR);
        tcsetattr(&inner, OptionalActions::Now, &settings).at(Step::OpenTerminal, || "settings")?;
    }
    descriptor::send(console.socket, b"/dev/ptmx", outer.as_fd()).at(Step::OpenTerminal, || "send to the console socket")?;
    Ok(inner)
}

/// Shows the terminal as `/dev/console`, as the runtime spec wants it.
pub(super) fn bind(root: BorrowedFd<'_>, terminal: BorrowedFd<'_>) -> Result<(), Failure> {
    let place = paths::ensure(root, "/dev/console", Kind::File, Links::Refuse)
        .at(Step::MountTarget, || "/dev/console")?;
    let node = hide::clone_mount(terminal, false).at(Step::OpenTree, || "terminal")?;
    paths::attach(node.as_fd(), place.as_fd()).at(Step::Mount, || "terminal on /dev/console")
}

/// The container's own `/dev/pts/ptmx`, certainly of a devpts: the image must not slip another device in.
fn open_multiplexer(root: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    const PATH: &str = "/dev/pts/ptmx";
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let place = rustix::fs::openat2(root, "/dev/pts", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)
        .at(Step::OpenTerminal, || PATH)?;
    if rustix::fs::fstatfs(&place).at(Step::OpenTerminal, || PATH)?.f_type != DEVPTS_SUPER_MAGIC {
        return Err(Failure::new(Step::OpenTerminal, format!("{PATH}: no devpts is mounted there"), Errno::INVAL));
    }
    rustix::fs::openat2(&place, "ptmx", flags, Mode::empty(), how).at(Step::OpenTerminal, || PATH)
}
