//! Starting a container of the plan, as PID 1 and its launch workers do it alike.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use garboard_runtime::failure::Failure;
use garboard_runtime::launch::Launch;
use garboard_runtime::plan::Container;
use garboard_runtime::start::{Site, Stages, Started, Stdio, start_in_stages};
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::escape::one_line;
use crate::etc_files;
use crate::supervise::Fault;

/// A reason is kept in a record of fixed size.
pub const LONGEST_REASON: usize = 300;
/// So is this.
const LONGEST_DEGRADED: usize = 200;

/// The pipe for a container's output: what PID 1 reads, and what the container writes to.
pub fn output_pipe() -> Result<(OwnedFd, OwnedFd), Fault> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| os_fault("make a pipe", &e.into()))?;
    rustix::fs::fcntl_setfl(&reader, OFlags::NONBLOCK).map_err(|e| os_fault("set up a pipe", &e.into()))?;
    Ok((reader, writer))
}

/// Starts it. One pipe for both of its streams keeps their order.
pub fn start(
    container: &Container,
    launch: &Launch,
    run_dir: &Path,
    site: &Site<'_>,
    output: &OwnedFd,
    stages: &Stages<'_>,
) -> Result<Started, Fault> {
    etc_files::write(run_dir, &container.name, &container.etc)
        .map_err(|e| os_fault(&format!("write its files in {}", run_dir.display()), &e))?;
    let stdio = Stdio { stdin: None, stdout: Some(output.as_fd()), stderr: Some(output.as_fd()) };
    start_in_stages(launch, &container.name, site, stdio, stages).map_err(|f| fault(&f))
}

/// What isn't as declared, in a few words.
pub fn in_short(degraded: &[String]) -> String {
    let mut text = one_line(&degraded.join("; "));
    text.truncate(text.floor_char_boundary(LONGEST_DEGRADED));
    text
}

/// Why the runtime could not start it.
pub fn fault(failure: &Failure) -> Fault {
    // It may quote what an image has: a program's name, a file's.
    let mut text = one_line(&failure.to_string());
    text.truncate(text.floor_char_boundary(LONGEST_REASON));
    Fault { text, transient: failure.is_temporary() }
}

/// Why the machine could not.
pub fn os_fault(operation: &str, error: &io::Error) -> Fault {
    let short = [libc::ENOMEM, libc::EAGAIN, libc::EMFILE, libc::ENFILE, libc::ENOSPC];
    let transient = error.raw_os_error().is_some_and(|e| short.contains(&e));
    Fault { text: format!("{operation}: {error}"), transient }
}
