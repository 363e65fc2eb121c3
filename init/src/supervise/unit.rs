//! What the automaton remembers of one container.

use serde::{Deserialize, Serialize};

use super::watch::Watch;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// It returned this status.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Exit {
    /// It returned 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

/// What a stop is for, which decides what follows its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// The machine is stopping: it rests.
    Shutdown,
    /// A person wants it stopped: it rests until a person wants it back.
    Asked,
    /// A person wants it started anew: it is launched at once.
    Restart,
    /// It was asked too often in vain whether it works: a failure.
    Unhealthy,
    /// It didn't say in time that it is alive: a failure.
    Watchdog,
    /// It didn't start in time: a failure.
    Late,
    /// This member of its pod was given up: so is it.
    Pod(usize),
}

/// Where a container is in its life. Times in milliseconds of `CLOCK_BOOTTIME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Its conditions don't hold yet.
    Waiting,
    /// It is to be launched.
    Launching,
    /// Its child sets itself up, and says that it is ready if it is one that does; killed when it isn't done by `deadline`.
    Starting {
        /// When it has taken too long.
        deadline: u64,
        /// Its program runs; it has yet to say that it is ready.
        executed: bool,
    },
    /// Its program runs.
    Running {
        /// When it was executed, or said that it is ready.
        since: u64,
    },
    /// It is started again at `until`.
    Backoff {
        /// When.
        until: u64,
    },
    /// It was asked to stop; killed at `deadline`.
    Stopping {
        /// What for.
        purpose: Purpose,
        /// When it is killed (again).
        deadline: u64,
        /// It can't move its deadline any further.
        latest: u64,
        /// How often it was killed.
        kills: u8,
    },
    /// It ended and is not wanted back.
    Exited,
    /// It is wanted, but was given up.
    Failed,
}

impl Phase {
    /// A child exists.
    pub fn active(self) -> bool {
        matches!(self, Self::Starting { .. } | Self::Running { .. } | Self::Stopping { .. })
    }

    /// Nothing will happen to it any more, unless a person asks for it.
    pub fn last(self) -> bool {
        matches!(self, Self::Exited | Self::Failed)
    }
}

/// Why a container is where it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// Nothing to say.
    #[default]
    None,
    /// As its last exit says.
    Ended,
    /// Its launch failed so.
    Launch(String),
    /// This need (by its place in [`super::Rules::needs`]) can't be met any more.
    Need(usize),
    /// It needs `/data`, which will not come.
    Data(String),
    /// The machine is stopping.
    Shutdown,
    /// It survived `cgroup.kill`.
    Unkillable,
    /// A person wanted it stopped.
    Asked,
    /// It was asked too often in vain whether it works; the last answer.
    Unhealthy(String),
    /// It didn't say in time that it is alive.
    Watchdog,
    /// It said that it was about to end, and didn't in time.
    Lingered,
    /// This container of its pod was given up.
    Pod(usize),
}

/// One container's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Where it is.
    pub phase: Phase,
    /// Why.
    pub reason: Reason,
    /// How often it was started again, ever.
    pub restarts: u32,
    /// Ends in a row without a stable run between; decides the delay.
    pub streak: u32,
    /// Failures in a row without a stable run between; decides when `on-failure:n` gives up.
    pub failures: u32,
    /// It started at least once since it was last asked for.
    pub started: bool,
    /// It ended by itself with status 0 at least once since it was last asked for.
    pub completed: bool,
    /// How it ended last.
    pub exit: Option<Exit>,
    /// The present launch failed so, or this is why it is being stopped; its child's exit is still to come.
    pub fault: Option<(String, bool)>,
    /// Children made so far: tells what one run says from what another said.
    pub run: u32,
    /// Its conditions held since it was last asked for: they are not looked at again.
    pub passed: bool,
    /// A child that could not be killed is still there: another one has to wait for its end.
    pub lingers: bool,
    /// How it is watched in this run.
    pub watch: Watch,
}

impl Unit {
    /// Before anything happened.
    pub fn new() -> Self {
        Self {
            phase: Phase::Waiting,
            reason: Reason::None,
            restarts: 0,
            streak: 0,
            failures: 0,
            started: false,
            completed: false,
            exit: None,
            fault: None,
            run: 0,
            passed: false,
            lingers: false,
            watch: Watch::default(),
        }
    }

    /// Starts the counts over at the end of a run that was long enough. One that ends because it doesn't work any more, and has only run
    /// on since, counts for as long as it is known to have worked: else it could go on so for ever.
    pub(super) fn forgive(&mut self, purpose: Option<Purpose>, stable_ms: u64, now: u64) {
        let worked_until = match purpose {
            Some(Purpose::Unhealthy) => self.watch.well_at.unwrap_or(0),
            Some(Purpose::Watchdog) => self.watch.alive_at.unwrap_or(0),
            _ => now,
        };
        if let Phase::Running { since } = self.phase
            && worked_until.saturating_sub(since) >= stable_ms
        {
            (self.streak, self.failures) = (0, 0);
        }
    }

    /// Wants it started as if nothing had been yet. Its child must be gone.
    pub(super) fn anew(&mut self) {
        let kept =
            Self { restarts: self.restarts, exit: self.exit, run: self.run, lingers: self.lingers, ..Self::new() };
        *self = kept;
    }
}

impl Default for Unit {
    fn default() -> Self {
        Self::new()
    }
}
