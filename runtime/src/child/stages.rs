//! Where the child waits for the launcher, or runs hooks itself. Nothing here costs a start that has no stages, as PID 1's.

use std::cell::OnceCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use crate::failure::{Context, Failure, Step};
use crate::hook::{self, Surroundings};
use crate::launch::{Launch, RootSource};
use crate::start::{GateMessage, StageMessage, Stages};

/// The child's side of the stages.
pub(crate) struct Theatre<'a> {
    stages: &'a Stages<'a>,
    /// This side of the socket pair with the launcher.
    launcher: Option<BorrowedFd<'a>>,
    /// Whoever opened the gate, and so wants to know how it went on.
    opener: OnceCell<OwnedFd>,
}

impl<'a> Theatre<'a> {
    pub(crate) fn new(stages: &'a Stages<'a>, launcher: Option<BorrowedFd<'a>>) -> Self {
        Self { stages, launcher, opener: OnceCell::new() }
    }

    /// Whether others may look at this process before it executes its program: it waits, or runs programs of the container's. Then it has
    /// only what it still needs.
    pub(crate) fn is_watched(&self) -> bool {
        self.stages.gate.is_some() || self.stages.hooks.is_some_and(|hooks| !hooks.start_container.is_empty())
    }

    /// Whether waiting is all that comes before the program.
    pub(crate) fn only_waits(&self) -> bool {
        self.stages.gate.is_some() && self.stages.hooks.is_none_or(|hooks| hooks.start_container.is_empty())
    }

    /// The descriptors that it needs then.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'a>> {
        let output = self.stages.hooks.map_or([None; 2], |hooks| hooks.output);
        [self.launcher, self.stages.gate].into_iter().chain(output).flatten()
    }

    /// What was asked for.
    pub(crate) fn stages(&self) -> &'a Stages<'a> {
        self.stages
    }

    /// Where hooks look for the container's root, so that they find it there with all its mounts and can add to them.
    pub(crate) fn root_shown_at<'b>(&self, launch: &'b Launch) -> Option<&'b str> {
        match &launch.root.source {
            RootSource::Directory(path) if self.stages.hooks.is_some() && path != "/" => Some(path),
            _ => None,
        }
    }

    /// Everything is mounted and the root not yet changed: the launcher's hooks, then those of this namespace.
    ///
    /// Those of this namespace find themselves in the root to be, as with runc.
    pub(crate) fn mounted(&self, root: BorrowedFd<'_>) -> Result<(), Failure> {
        let Some(hooks) = &self.stages.hooks else { return Ok(()) };
        if hooks.in_launcher {
            self.ask(StageMessage::Mounted)?;
        }
        if hooks.create_container.is_empty() {
            return Ok(());
        }
        rustix::process::fchdir(root).at(Step::ChangeDirectory, || "to the new root")?;
        let state = hook::State::new(&(hooks.state)("created", own_pid()))?;
        let surroundings = Surroundings { output: hooks.output, ..Surroundings::default() };
        hook::run_all(surroundings, hooks.create_container, &state)
    }

    /// What the last hooks are told, if there are any.
    pub(crate) fn last_state(&self) -> Result<Option<hook::State>, Failure> {
        let hooks = self.stages.hooks.as_ref().filter(|hooks| !hooks.start_container.is_empty());
        hooks.map(|hooks| hook::State::new(&(hooks.state)("created", own_pid()))).transpose()
    }

    /// Only the program itself is missing: waits until the gate is opened, if there is one, then runs the last hooks, with their state
    /// and in what the program will have around it.
    pub(crate) fn ready(&self, state: Option<&hook::State>, surroundings: Surroundings<'_>) -> Result<(), Failure> {
        if let Some(gate) = self.stages.gate {
            self.tell(StageMessage::AtGate)?;
            let opener = wait_at(gate)?;
            // There is one gate, and it is passed once.
            let _ = self.opener.set(opener);
        }
        match (&self.stages.hooks, state) {
            (Some(hooks), Some(state)) => {
                let surroundings = Surroundings { output: hooks.output, ..surroundings };
                hook::run_all(surroundings, hooks.start_container, state)
            }
            _ => Ok(()),
        }
    }

    /// Where reports go: to the one who opened the gate, else to the launcher.
    pub(crate) fn report<'b>(&'b self, launcher: BorrowedFd<'b>) -> BorrowedFd<'b> {
        self.opener.get().map_or(launcher, AsFd::as_fd)
    }

    fn tell(&self, message: StageMessage) -> Result<(), Failure> {
        let Some(launcher) = self.launcher else { return Ok(()) };
        rustix::net::send(launcher, &[message as u8], SendFlags::NOSIGNAL).map(drop).at(Step::Pipe, || "to the launcher")
    }

    /// Tells, and waits for the answer. A launcher that is gone, or whose hook failed, doesn't answer.
    fn ask(&self, message: StageMessage) -> Result<(), Failure> {
        self.tell(message)?;
        let Some(launcher) = self.launcher else { return Ok(()) };
        match receive(launcher).at(Step::Pipe, || "from the launcher")? {
            Some(_) => Ok(()),
            None => Err(Failure::new(Step::Pipe, "from the launcher, which is gone", Errno::PIPE)),
        }
    }
}

/// Accepts until somebody really opens the gate: one who connects and dies has changed nothing.
fn wait_at(gate: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    loop {
        let opener = match rustix::net::accept_with(gate, SocketFlags::CLOEXEC) {
            Err(Errno::INTR | Errno::CONNABORTED) => continue,
            other => other.at(Step::Pipe, || "from the gate")?,
        };
        if receive(opener.as_fd()).ok().flatten() == Some(GateMessage::Open as u8) {
            return Ok(opener);
        }
    }
}

/// One byte, or `None` at the end.
fn receive(socket: BorrowedFd<'_>) -> Result<Option<u8>, Errno> {
    let mut byte = [0_u8; 1];
    loop {
        match rustix::net::recv(socket, &mut byte, RecvFlags::empty()) {
            Ok((0, _)) => return Ok(None),
            Ok(_) => return Ok(byte.first().copied()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// This process's id as its own namespace sees it.
fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_pid()
}
