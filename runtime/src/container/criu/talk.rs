//! A talk with criu by its own protocol, for what there is no other way for: it hands the outer side of a terminal over, and waits where
//! something else is to be done.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use rustix::process::{Pid, Signal, set_parent_process_death_signal};

use super::message::{self, Said};
use super::{Running, Surroundings, complaint};
use crate::container::error::{During, Error, Result};
use crate::descriptor;
use crate::sys::clone::kill_and_reap;

/// Bytes; each of criu's has an id or a word, and perhaps an error's text.
const LONGEST_MESSAGE: usize = 4096;
/// The stage that comes with the outer side of a terminal that nobody among the restored holds.
const TERMINAL: &str = "orphan-pts-master";
/// The stage at which everything is written and nothing goes on yet.
const DUMPED: &str = "post-dump";

/// What criu has to say of what it has done.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The process that it has restored.
    pub(crate) pid: Option<i32>,
    /// Its terminal's outer side.
    pub(crate) terminal: Option<OwnedFd>,
}

/// What is done when criu is there, for what it is to make or to write down. If it fails, so does that.
pub(crate) struct Beside<Seat, Dumped> {
    /// With its process id, before it does anything. Returns more arguments.
    pub(crate) seat: Seat,
    /// When a dump is written and its processes still stand still.
    pub(crate) dumped: Dumped,
}

/// Has criu do by its own protocol what it does with these arguments, minding a terminal whose outer side isn't inside.
pub(crate) fn ask(
    program: &Path,
    mut arguments: Vec<OsString>,
    log: &Path,
    place: &Surroundings<'_>,
    Beside { seat, dumped }: Beside<impl FnOnce(i32) -> Result<Vec<OsString>>, impl FnOnce() -> Result<()>>,
) -> Result<Outcome> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .during(|| "make a socket pair for criu")?;
    // Not closed by exec, as criu is to have it.
    let theirs = rustix::io::dup(theirs).during(|| "make a socket pair for criu")?;
    let swrk = vec!["swrk".into(), theirs.as_raw_fd().to_string().into()];
    let this = rustix::process::getpid();
    // Directories of where criu is, as it mounts something in one.
    let running = Running::start(program, swrk, place, || {
        message::directories(&arguments).try_for_each(|path| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = rustix::fs::open(path, flags, Mode::empty())?;
            descriptor::send(theirs.as_fd(), b"directory", directory.as_fd())
        })?;
        wait_for_go(theirs.as_fd(), this)
    })?;
    drop(theirs);
    let directories = message::directories(&arguments).map_while(|_| descriptor::receive(ours.as_fd()).ok()?);
    let directories: Vec<OwnedFd> = directories.collect();
    if directories.len() < message::directories(&arguments).count() {
        running.finish(log)?;
    }
    let request = seat(running.child.pid).and_then(|more| {
        arguments.extend(more);
        message::request(&arguments, &directories)
    });
    let request = request.inspect_err(|_| kill_and_reap(&running.child))?;
    let (mut terminal, mut dumped, mut beside) = (None, Some(dumped), Ok(()));
    let mut at_stage = |stage: &str, received: Option<OwnedFd>| {
        match (stage, dumped.take_if(|_| stage == DUMPED)) {
            (TERMINAL, _) => terminal = received,
            (_, Some(dumped)) => {
                beside = dumped();
                return beside.is_ok();
            }
            _ => {}
        }
        true
    };
    let begun = send(&ours, b"go", SendFlags::NOSIGNAL);
    let said = begun.and_then(|_| talk(ours.as_fd(), &request, &mut at_stage));
    let said = said.during(|| format!("talk to {}", running.path.display()));
    // It ends when nobody talks to it any more.
    drop(ours);
    if let Err(error) = beside {
        running.wait()?;
        return Err(error);
    }
    if let Ok(Said::Done(pid)) = said {
        running.wait()?;
        return Ok(Outcome { pid, terminal });
    }
    // Its log knows better why it has failed than what it said, if it said anything.
    running.finish(log)?;
    said?;
    Err(Error::new(format!("talk to {}: it has failed: {}", running.path.display(), complaint(log))))
}

/// Waits in criu's place until this process, whose child it is then, has made its seat. It can't hear that nobody is there any more, as
/// it has the other end of the socket itself until it becomes criu.
fn wait_for_go(socket: BorrowedFd<'_>, parent: Pid) -> std::result::Result<(), Errno> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Some(parent) {
        return Err(Errno::PIPE);
    }
    recv(socket, &mut [0_u8; 2], RecvFlags::empty())?;
    set_parent_process_death_signal(None)
}

/// From the request to the last word. criu tells of stages on the way, and waits each time; one of them comes with a terminal.
fn talk(
    criu: BorrowedFd<'_>,
    request: &[u8],
    at_stage: &mut dyn FnMut(&str, Option<OwnedFd>) -> bool,
) -> std::result::Result<Said, Errno> {
    send(criu, request, SendFlags::NOSIGNAL)?;
    let mut buffer = [0_u8; LONGEST_MESSAGE];
    loop {
        let (received, length) = descriptor::receive_with(criu, &mut buffer)?;
        match message::understand(buffer.get(..length).unwrap_or_default()).ok_or(Errno::PROTO)? {
            Said::Stage(stage) => {
                let goes_on = at_stage(&stage, received);
                send(criu, &message::answer(goes_on), SendFlags::NOSIGNAL)?;
            }
            last => return Ok(last),
        }
    }
}
