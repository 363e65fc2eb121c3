//! The `keep` worker writes the logs that are kept, and the `previous` worker reads them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::{emit, report};
use crate::boot;
use crate::kept::progress::Progress;
use crate::kept::socket::{self, Woken};
use crate::kept::writer::Writer;
use crate::kept::{boot_id, files, previous as earlier};
use crate::logs::Follower;

/// What was written is on the disk at most so long after. A machine that loses its power loses no more.
const SYNC: Duration = Duration::from_secs(2);
/// Lines that come so soon after each other are written together.
const GATHER: Duration = Duration::from_millis(50);
/// Bytes of a log that one reply holds, as of one in memory.
pub const LONGEST_LOG: usize = 128 << 10;

/// Keeps the logs of the plan at this path in that data filesystem, until PID 1 closes its end of standard input.
pub fn run(arguments: &[String]) -> i32 {
    match keep(arguments) {
        Ok(()) => 0,
        Err(fault) => {
            // Status 1 says enough if this can't be said.
            let _ = emit(&report::Keep { fault: Some(fault) });
            1
        }
    }
}

fn keep(arguments: &[String]) -> Result<(), String> {
    let [data, plan] = arguments else { return Err("keep logs: not a directory and a plan".to_owned()) };
    let plan = boot::read_plan_at(plan).map_err(|e| e.to_string())?;
    let stdin = io::stdin();
    let [rings, progress] = socket::take_over(&stdin).map_err(|e| format!("take the rings over: {e}"))?;
    let logs = files::open_logs(data)?;
    // One that PID 1 has given up may not be gone this moment.
    rustix::fs::flock(&logs, FlockOperation::LockExclusive).map_err(|e| format!("lock the logs: {e}"))?;
    let follower = Follower::new(rings, plan.containers.len(), plan.log_budget);
    let mut writer = Writer::new(&plan, &logs, follower, Progress::adopt(progress), &boot_id())?;
    drop(plan);
    write(&mut writer, stdin.as_fd());
    Ok(())
}

fn write(writer: &mut Writer, stdin: impl AsFd) {
    // When the oldest line was written that is not yet synced.
    let mut since: Option<Instant> = None;
    let mut said = None;
    loop {
        if writer.pass(false) {
            since.get_or_insert_with(Instant::now);
        }
        if since.is_some_and(|since| since.elapsed() >= SYNC) {
            writer.sync();
            since = None;
        }
        // That it keeps all of them is said at first, and whenever it does again.
        let fault = writer.fault().map(str::to_owned);
        if said.as_ref() != Some(&fault) {
            emit(&report::Keep { fault: fault.clone() });
            said = Some(fault);
        }
        // What came meanwhile is woken for, and waits for more.
        if writer.is_behind() {
            continue;
        }
        let left = since.map(|since| SYNC.saturating_sub(since.elapsed()));
        match socket::wait(&stdin, left.into_iter().chain(writer.again()).min()) {
            Woken::Look => socket::pause(&stdin, GATHER),
            // It is time to sync, or one that failed is tried again.
            Woken::Time => {}
            Woken::End => {
                while writer.pass(true) {}
                return writer.sync();
            }
        }
    }
}

/// Reads the newest lines of earlier boots of a container's log: at most so many.
pub fn previous(arguments: &[String]) -> i32 {
    let [data, name, count] = arguments else { return 1 };
    let (Ok(count), Some(directory)) = (count.parse(), find(data, name)) else { return 0 };
    let lines = earlier::tail(&directory, &boot_id(), count, LONGEST_LOG);
    i32::from(lines.iter().any(|line| emit(line) != 0))
}

/// A name that leads elsewhere is no container's.
fn find(data: &str, name: &str) -> Option<OwnedFd> {
    if name.contains('/') || name.starts_with('.') { None } else { files::find(data, name) }
}
