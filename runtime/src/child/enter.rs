//! The side of an `exec`: from a fork of the launcher to a program in a container that runs already. Every line runs in the child.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::Mode;
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::{NOT_EXECUTED, Theatre, console, identity, listener, open_directory, program, wait_for_go};
use crate::failure::{Context, Failure, Step};
use crate::launch::{Process, Seccomp};
use crate::{report, sys};

/// What the child has from the launcher.
pub(crate) struct Entrant<'a> {
    /// The container's first process.
    pub(crate) pidfd: BorrowedFd<'a>,
    /// The namespaces that are left to be entered.
    pub(crate) namespaces: &'a Cell<ThreadNameSpaceType>,
    /// The container's root, where it doesn't come with its mount namespace.
    pub(crate) root: Option<BorrowedFd<'a>>,
    /// The container has a user namespace, entered by now.
    pub(crate) in_user_namespace: bool,
    /// The program.
    pub(crate) process: &'a Process,
    /// Its filter.
    pub(crate) seccomp: Option<&'a Seccomp>,
    /// One byte comes when its limits are set.
    pub(crate) go: BorrowedFd<'a>,
    /// Where a failure goes.
    pub(crate) report: BorrowedFd<'a>,
    /// Standard input, output and error.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// Terminal, keyring and kept descriptors.
    pub(crate) theatre: Theatre<'a>,
    /// The connection to the seccomp agent.
    pub(crate) agent: Option<BorrowedFd<'a>>,
}

/// Becomes the program. Returns only the exit status of having failed, which is reported by then.
pub(crate) fn enter(entrant: &Entrant<'_>) -> i32 {
    if let Err(failure) = enter_and_execute(entrant) {
        report::write(entrant.report, &failure);
    }
    NOT_EXECUTED
}

fn enter_and_execute(entrant: &Entrant<'_>) -> Result<(), Failure> {
    wait_for_go(entrant.go)?;
    let umask = rustix::process::umask(Mode::from_raw_mode(0o022));
    // While the machine's `/proc` is at hand.
    let labels = super::label::open(entrant.process)?;
    if !entrant.theatre.stages().keep_keyring {
        labels.on_keys(|| sys::process::new_session_keyring().at(Step::JoinKeyring, || "of the process's own"))?;
    }
    labels.set()?;
    let listener = entrant.seccomp.and_then(|seccomp| seccomp.listener.as_ref());
    let message = listener.map(listener::message).transpose()?;
    let namespaces = entrant.namespaces.get();
    if !namespaces.is_empty() {
        move_into_thread_name_spaces(entrant.pidfd, namespaces)
            .at(Step::JoinNamespace, || "of the container's first process")?;
    }
    if entrant.in_user_namespace {
        identity::become_root(entrant.process, entrant.theatre.stages().keep_groups)?;
    }
    entrant.root.map_or(Ok(()), super::change_to)?;
    // Only now the root is the container's.
    let root = open_directory("/")?;
    let arrived = super::change_directory(&entrant.process.cwd)?;
    let stages = entrant.theatre.stages();
    let terminal = stages.console.as_ref();
    let terminal = terminal.map(|console| console::open(root.as_fd(), entrant.process, console)).transpose()?;
    program::execute(&program::Program {
        process: entrant.process,
        seccomp: entrant.seccomp,
        stdio: entrant.stdio,
        terminal: terminal.as_ref().map(AsFd::as_fd),
        report: entrant.report,
        theatre: &entrant.theatre,
        arrived,
        umask,
        agent: entrant.agent,
        message: message.as_deref().unwrap_or_default(),
    })
}
