//! Files that hooks write to: crun's annotations. Otherwise they write where the runtime does, or the program.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use super::error::{During, Result};
use super::record::Record;
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
    /// Opens them, relative paths from the bundle on, to append.
    pub(super) fn open(record: &Record) -> Result<Self> {
        let open = |name: &str| {
            let Some(path) = record.annotations.get(name) else { return Ok(None) };
            let path = Path::new(&record.bundle).join(path);
            let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOCTTY | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(CWD, &path, flags, Mode::from_raw_mode(0o600))
                .and_then(|file| rustix::io::fcntl_dupfd_cloexec(file, 3));
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
pub(super) fn run_all(record: &Record, hooks: &[Hook], state: &[u8]) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let output = HookOutput::open(record)?;
    let surroundings = Surroundings { output: output.as_fds(), ..Surroundings::default() };
    Ok(hook::run_all(surroundings, hooks, &State::new(state)?)?)
}
