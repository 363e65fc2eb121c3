//! The supervisor: a pure automaton. No clock, no system calls, no I/O.
//!
//! [`State::step`] takes what happened and the time, and answers with what to do; [`crate::event_loop`] does it. Times are
//! milliseconds of `CLOCK_BOOTTIME`, so the wall clock may jump as it likes.
//!
//! A container's life:
//!
//! ```text
//! Waiting ──conditions hold──▶ Launching ──child made──▶ Starting ──program executed──▶ Running
//!    │                            │ ▲                       │       (and says READY=1)    │
//!    │ a dependency failed        │ └─────── Backoff ◀──────┴── it ended, policy wants it ─┤
//!    ▼                            ▼             │                                          │ policy doesn't
//!  Failed ◀───────────────────────┴─────────────┘ (gave up)               Exited / Failed ◀┘
//! ```
//!
//! and whatever has a child can be stopped, for one of seven purposes, which decides what follows:
//!
//! ```text
//! Starting, Running ──▶ Stopping ──it ended──▶ Exited                (the machine stops; a person asked)
//!                          │                ├▶ Launching             (a person wants it anew)
//!                          │                ├▶ as a failure does     (unhealthy; watchdog missed; too late)
//!                          │                └▶ Failed                (a member of its pod was given up)
//!                          └─survived every attempt to kill it──▶ Failed
//! ```
//!
//! Rules, each with a test in `tests.rs` and below `tests/`, all together against a world that does what it likes in `simulate/`:
//!
//! * A `depends_on` condition is about the first start, or the first since a person asked. Started and completed are remembered;
//!   a dependency that can't meet its condition any more fails its dependents, with the reason. What a person stopped, a person
//!   may start: that is waited for.
//! * An end is followed by a delay that doubles from [`Policy::backoff_base_ms`] to [`Policy::backoff_cap_ms`], less a random
//!   part of up to a quarter (so that what failed together doesn't come back together). A run of [`Policy::stable_ms`] starts
//!   the count over.
//! * A launch that failed for want of memory or processes (EAGAIN, ENOMEM) is tried again whatever the restart policy says.
//! * One that notifies has started when it says so, and has failed when it doesn't in time; it may ask for more time.
//! * Health: Docker's rules. Watchdog: systemd's. Neither ends anything once the machine is stopping.
//! * What a person asks for comes before any policy, and the last word counts.
//! * A pod waits until all of its members may start, is stopped in one breath, and goes down with a member that is given up.
//! * What is given up stays so until a person asks, or takes the machine with it, or never is: as its `on_failure` says.
//! * Every stop ends: stop signal, `cgroup.kill` at the deadline, again a few times, then it goes on without. A child that
//!   survived that is remembered: there is never a second one beside it.

mod backoff;
mod conditions;
mod end;
mod operator;
mod owed;
mod pods;
mod rules;
mod shutdown;
#[cfg(test)]
mod simulate;
mod sound;
mod start;
mod state;
mod step;
mod stop;
#[cfg(test)]
mod tests;
mod unit;
mod watch;

pub use backoff::Policy;
pub use rules::{Need, Rules};
pub use state::{Common, DataPhase, Goal, State};
pub use unit::{Exit, Phase, Purpose, Reason, Unit};
pub use watch::{Health, Watch};

/// Longer texts are cut, in bytes: what is remembered has to fit into a record of fixed size.
pub const LONGEST_TEXT: usize = 300;

/// What happened. `usize` is a container's index in the plan; an index out of range is ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The machine is ready for containers.
    Begin,
    /// `/data` can be used.
    DataReady,
    /// `/data` will not come; why.
    DataUnavailable(String),
    /// Every module that will be loaded is loaded.
    DevicesReady,
    /// [`Action::Launch`] made a child.
    Launched(usize),
    /// [`Action::Launch`] made none.
    LaunchFailed(usize, Fault),
    /// The child executed the container's program.
    Executed(usize),
    /// The child could not set the container up; its exit follows.
    SetupFailed(usize, Fault),
    /// It says that it is ready (`READY=1`).
    Ready(usize),
    /// It needs so many milliseconds from now to start or to stop in (`EXTEND_TIMEOUT_USEC=`).
    ExtendTimeout(usize, u64),
    /// It says that it is alive (`WATCHDOG=1`).
    Alive(usize),
    /// It said so much that it is not listened to for so many milliseconds: they don't count.
    Unheard(usize, u64),
    /// It will say so at least once in so many milliseconds; 0: it won't (`WATCHDOG_USEC=`).
    WatchdogSet(usize, u64),
    /// It says that it doesn't work (`WATCHDOG=trigger`).
    WatchdogTrigger(usize),
    /// It says that it is about to end by itself (`STOPPING=1`).
    Leaving(usize),
    /// The answer to [`Action::Probe`], which was asked in this [`State::run`]; why it is a bad one.
    Probed(usize, u32, Result<(), String>),
    /// [`Action::Probe`] of this run will have no answer, through no fault of the container: it is asked again later.
    ProbeLost(usize, u32),
    /// The container's first process ended.
    Exited(usize, Exit),
    /// A person wants it stopped.
    StopAsked(usize),
    /// A person wants it to run.
    StartAsked(usize),
    /// A person wants it stopped and started.
    RestartAsked(usize),
    /// A deadline may have passed ([`State::next_deadline`]).
    Tick,
    /// Stop everything, then do this.
    Shutdown(Goal),
}

/// Why a launch failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Operation, object and cause, for people.
    pub text: String,
    /// For want of memory or processes: likely to succeed later.
    pub transient: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start the container; answer with [`Event::Launched`] or [`Event::LaunchFailed`]. Ask [`State::wants_launch`] when some
    /// time has passed since.
    Launch(usize),
    /// Send its stop signal to the container's first process.
    Stop(usize),
    /// Kill every process of the container (`cgroup.kill`).
    Kill(usize),
    /// Ask whether the container works, and answer with [`Event::Probed`] when it has answered or its time for that is over.
    Probe(usize),
    /// Every container has ended: sync, unmount and do it.
    Finish(Goal),
}

fn short(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(LONGEST_TEXT));
    text
}
