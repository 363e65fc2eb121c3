//! `pause` and `resume`: the freezer.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

use super::args::Name;
use crate::cgroup as own;
use crate::container::error::During;
use crate::container::record::Status;
use crate::container::store::Store;
use crate::container::{Error, Result, cgroup};

/// How long that may take, as others who want the container wait for it.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(store: &Store, arguments: &Name, freeze: bool) -> Result<u8> {
    let verb = if freeze { "pause" } else { "resume" };
    let entry = store.find(&arguments.id)?;
    let _lock = entry.lock()?;
    let record = entry.record()?;
    let (status, _) = entry.status(&record)?;
    let allowed = if freeze { matches!(status, Status::Running | Status::Created) } else { status == Status::Paused };
    if !allowed {
        let why = if freeze { "container not running" } else { "container not paused" };
        return Err(Error::new(format!("{verb} container {}: {why}: it is {}", entry.id(), status.text())));
    }
    let cgroup = cgroup::open(&record)?
        .ok_or_else(|| Error::new(format!("{verb} container {}: it has no cgroup to freeze", entry.id())))?;
    own::freeze(&cgroup, freeze)?;
    // Each change of the file wakes the poll; a lost one costs no more than its limit.
    const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    let events = rustix::fs::openat(&cgroup, "cgroup.events", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .during(|| "open cgroup.events")?;
    let until = Instant::now() + PATIENCE;
    while own::frozen(&cgroup)? != freeze {
        if Instant::now() >= until {
            let why = if freeze {
                // It would be frozen at some later time, when nobody expects it any more.
                own::freeze(&cgroup, false)?;
                "a process doesn't let itself be frozen"
            } else {
                "it still is frozen: a cgroup above its own must be"
            };
            return Err(Error::new(format!("{verb} container {}: {why}", entry.id())));
        }
        let _ = rustix::io::pread(&events, &mut [0_u8; 256], 0);
        let _ = poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&MOMENT));
    }
    Ok(0)
}
