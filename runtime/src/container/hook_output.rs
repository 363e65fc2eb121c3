//! Files that hooks write to: crun's annotations. Otherwise they write where the runtime does, or the program.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use super::error::{During, Error, Result};
use super::record::Record;
use crate::cli::log;
use crate::hook::{self, Hook, State, Surroundings};

const STDOUT: &str = "run.oci.hooks.stdout";
const STDERR: &str = "run.oci.hooks.stderr";

/// The files that a container's annotations name, open.
#[derive(Debug)]
pub(super) struct HookOutput {
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl HookOutput {
    /// None of them.
    pub(super) const NONE: Self = Self { stdout: None, stderr: None };

    /// Opens them, relative paths from the bundle on, to append. They are opened for each kind of hooks anew, so a link in a file's place isn't
    /// followed; nor is anybody waited for who would read from it.
    pub(super) fn open(record: &Record) -> Result<Self> {
        let open = |name: &str| {
            let Some(path) = record.annotations.get(name).filter(|path| !path.is_empty()) else { return Ok(None) };
            let path = Path::new(&record.bundle).join(path);
            let how = OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | how;
            let opened = rustix::fs::openat(CWD, &path, flags, Mode::from_raw_mode(0o600)).and_then(|file| {
                rustix::io::ioctl_fionbio(&file, false)?;
                rustix::io::fcntl_dupfd_cloexec(file, 3)
            });
            opened.map(Some).during(|| format!("open {} (annotations[{name}])", path.display()))
        };
        Ok(Self { stdout: open(STDOUT)?, stderr: open(STDERR)? })
    }

    /// As hooks take it.
    pub(super) fn as_fds(&self) -> hook::Output<'_> {
        [&self.stdout, &self.stderr].map(|file| file.as_ref().map(AsFd::as_fd))
    }
}

/// Runs hooks of the machine's with a state, up to the first that fails.
pub(super) fn run_all(record: &Record, hooks: &[Hook], state: impl FnOnce() -> Vec<u8>) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let output = HookOutput::open(record)?;
    let surroundings = Surroundings { output: output.as_fds(), ..Surroundings::default() };
    Ok(hook::run_all(surroundings, hooks, &State::new(&state())?)?)
}

/// The same to the last: one that fails keeps none of the others from running (runtime spec, "Lifecycle", 13), nor does a file that
/// can't be opened. Both are warnings. They clear away what nobody else would, and go on if this process is killed.
pub(super) fn run_each(record: &Record, hooks: &[Hook], state: impl FnOnce() -> Vec<u8>) {
    if hooks.is_empty() {
        return;
    }
    let state = state();
    let warn = |error: Error| log::warn(&error.to_string());
    let output = HookOutput::open(record).unwrap_or_else(|error| {
        warn(error);
        HookOutput::NONE
    });
    let surroundings = Surroundings { output: output.as_fds(), outlive: true, ..Surroundings::default() };
    for hook in hooks {
        let ran = State::new(&state).and_then(|state| hook::run(surroundings, hook, &state));
        let _ = ran.map_err(|failure| warn(failure.into()));
    }
}
