//! What happens to a container after it was made: start, signals, deletion.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use super::error::{During, Error, Result};
use super::record::{Record, Status};
use super::store::{Entry, Lock};
use super::{bundle, cgroup, gate, hook_output, in_place, notify, process, storage, systemd};
use crate::failure::Step;
use crate::report::Report;
use crate::sys;

/// How long a killed process may take to go.
const GONE_BY: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
/// How long one that may be about to end is waited for.
const ENDING: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Opens the gate of a created container and waits until its program is executed. A `startContainer` or `poststart` hook that
/// fails destroys the container (runtime spec, "Lifecycle", 7 and 9).
pub fn start(entry: &Entry, lock: Lock) -> Result<()> {
    let record = entry.record()?;
    let (status, process) = entry.status(&record)?;
    let (Status::Created, Some(process)) = (status, process) else {
        let why = match status {
            Status::Stopped => "cannot start a container that has stopped".to_owned(),
            Status::Running => "cannot start an already running container".to_owned(),
            other => format!("it is {}, not created", other.text()),
        };
        return Err(Error::new(format!("start container {}: {why}", entry.id())));
    };
    if record.without_program {
        // Nothing can become of it.
        end(&process, &record);
        return Err(Error::new(format!("start container {}: config.json: process: missing", entry.id())));
    }
    let notify = notify::listen(entry)?;
    match gate::open(entry.directory())? {
        Report::Failed(failure) => {
            end(&process, &record);
            if failure.step == Step::RunHook {
                let _ = destroy(entry, &record);
            }
            return Err(failure.into());
        }
        Report::Died => {
            end(&process, &record);
            return Err(Error::new(format!("start container {}: its process was killed", entry.id())));
        }
        Report::Executed | Report::Pending => {}
    }
    gate::remove(entry.directory());
    started(entry, lock, &record, process.as_fd(), notify.as_ref())
}

/// Waits for the end of a process that has failed to start, as whoever is told of that deletes the container at once.
fn end(process: &OwnedFd, record: &Record) {
    let _ = pidfd_send_signal(process, Signal::KILL);
    // What became of it is in the failure that is told.
    let _ = wait_for_end(process.as_fd(), record.pid);
}

/// What comes after the program was executed: `poststart` hooks, and readiness passed on.
pub fn started(
    entry: &Entry,
    lock: Lock,
    record: &Record,
    process: BorrowedFd<'_>,
    notify: Option<&OwnedFd>,
) -> Result<()> {
    // Hooks may use the container.
    drop(lock);
    let hooks = bundle::decided("poststart", Some(&record.poststart))?;
    if let Err(error) = hook_output::run_all(record, &hooks, || record.state("running", record.pid)) {
        let _lock = entry.lock()?;
        let _ = destroy(entry, record);
        return Err(error);
    }
    notify.map_or(Ok(()), |socket| notify::forward(socket, process, record.pid))
}

/// Sends a signal to the container's first process, or to all of its processes, which may be none.
pub fn kill(entry: &Entry, signal: u8, all: bool) -> Result<()> {
    let record = entry.record()?;
    let what = || format!("kill container {}", entry.id());
    let not_running = || Error::new(format!("{}: container not running", what()));
    let (status, process) = entry.status(&record)?;
    // What is written down of it isn't whole yet. Where its maker died meanwhile, what is left may be killed.
    if status == Status::Creating && entry.is_locked() {
        return Err(not_running());
    }
    // With a pid namespace of its own nobody outlives the first process. Without, who kills it means them all.
    if (all || (i32::from(signal) == libc::SIGKILL && !record.own_pids))
        && let Some(cgroup) = cgroup::open(&record)?
        && crate::cgroup::populated(&cgroup)?
    {
        if i32::from(signal) == libc::SIGKILL {
            return Ok(crate::cgroup::kill(&cgroup)?);
        }
        for pid in crate::cgroup::processes(&cgroup)? {
            match sys::process::signal_pid(pid, signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                other => other.during(what)?,
            }
        }
        return Ok(());
    }
    let sent = process.map_or(Err(Errno::SRCH), |process| sys::process::signal_pidfd(process.as_fd(), signal));
    match sent {
        Err(Errno::SRCH) if all => Ok(()),
        Err(Errno::SRCH) => Err(not_running()),
        other => other.during(what),
    }
}

/// Deletes a container that is stopped or was never started; with `force`, whatever state it is in.
pub fn delete(entry: &Entry, _lock: &Lock, force: bool) -> Result<()> {
    let record = entry.record()?;
    let (mut status, process) = entry.status(&record)?;
    if let Some(process) = process.filter(|_| !force && status != Status::Created) {
        // It may have been killed just now.
        let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&ENDING));
        (status, _) = entry.status(&record)?;
    }
    // As runc and crun have it: one that was never started is cleared away. Who makes images with it relies on that.
    if !matches!(status, Status::Stopped | Status::Created) && !force {
        return Err(Error::new(format!(
            "cannot delete container {} that is not stopped: it is {}: kill it first, or delete it with --force",
            entry.id(),
            status.text()
        )));
    }
    destroy(entry, &record)
}

/// Undoes everything that making the container did, and runs its `poststop` hooks. The caller holds its lock.
pub fn destroy(entry: &Entry, record: &Record) -> Result<()> {
    if let Some(process) = process::open(record.pid, record.start_time).during(|| "look at the container's process")? {
        match pidfd_send_signal(&process, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            other => other.during(|| format!("kill process {}", record.pid))?,
        }
        wait_for_end(process.as_fd(), record.pid)?;
    }
    cgroup::remove(record)?;
    if let Some(resctrl) = &record.resctrl
        && let Err(failure) = resctrl.groups(&record.id).remove()
    {
        // Whoever lacks the hardware by now has nothing to give back.
        crate::cli::log::warn(&failure.to_string());
    }
    // Nothing is left in it. Where systemd can't be asked any more, it finds out by itself.
    if let Some(Err(error)) = record.scope.as_deref().map(systemd::stop) {
        crate::cli::log::warn(&error.to_string());
    }
    in_place::destroy(entry)?;
    storage::destroy(entry)?;
    entry.remove()?;
    let hooks = bundle::decided("poststop", Some(&record.poststop))?;
    hook_output::run_each(record, &hooks, || record.state(Status::Stopped.text(), 0));
    Ok(())
}

pub(crate) fn wait_for_end(process: BorrowedFd<'_>, pid: i32) -> Result<()> {
    loop {
        match poll(&mut [PollFd::from_borrowed_fd(process, PollFlags::IN)], Some(&GONE_BY)) {
            Err(Errno::INTR) => {}
            Ok(0) => return Err(Error::new(format!("kill process {pid}: it didn't end within {} s", GONE_BY.tv_sec))),
            other => return other.map(drop).during(|| format!("wait for the end of process {pid}")),
        }
    }
}
