//! The supervisor: a pure automaton. No clock, no system calls, no I/O.
//!
//! [`State::step`] takes what happened and the time, and answers with what to do; [`crate::event_loop`] does it. Times are
//! milliseconds of `CLOCK_BOOTTIME`, so the wall clock may jump as it likes.
//!
//! A container's life:
//!
//! ```text
//! Waiting ──conditions hold──▶ Launching ──child made──▶ Starting ──program executed──▶ Running
//!    │                            │ ▲                       │                              │
//!    │ a dependency failed        │ └─────── Backoff ◀──────┴── it ended, policy wants it ─┤
//!    ▼                            ▼             │                                          │ policy doesn't
//!  Failed ◀───────────────────────┴─────────────┘ (gave up)               Exited / Failed ◀┘
//! ```
//!
//! and on shutdown `Running ─▶ Stopping ─▶ Exited`, dependents before what they depend on.
//!
//! Rules, each with a test in `tests.rs`, all together against random events in `properties.rs`:
//!
//! * A `depends_on` condition is about the first start. Started and completed are remembered; a dependency that can't meet its
//!   condition any more fails its dependents, with the reason.
//! * An end is followed by a delay that doubles from [`Policy::backoff_base_ms`] to [`Policy::backoff_cap_ms`], less a random
//!   part of up to a quarter (so that what failed together doesn't come back together). A run of [`Policy::stable_ms`] starts
//!   the count over.
//! * A launch that failed for want of memory or processes (EAGAIN, ENOMEM) is tried again whatever the restart policy says.
//! * Shutdown always ends: stop signal, `cgroup.kill` at the deadline, again a few times, then it goes on without.

mod backoff;
mod conditions;
#[cfg(test)]
mod properties;
mod rules;
mod shutdown;
mod state;
mod step;
#[cfg(test)]
mod tests;

pub use backoff::Policy;
pub use rules::{Need, Rules};
pub use state::{Common, DataPhase, Exit, Goal, Phase, Reason, State, Unit};

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
    /// The container's first process ended.
    Exited(usize, Exit),
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
    /// Every container has ended: sync, unmount and do it.
    Finish(Goal),
}
