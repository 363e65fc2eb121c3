//! What the automaton remembers.

use serde::{Deserialize, Serialize};

use super::{Policy, Rules, backoff};

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

/// What to do once every container has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goal {
    /// Switch the machine off.
    PowerOff,
    /// Start it again.
    Reboot,
    /// Stop it, but leave it on.
    Halt,
}

/// Where a container is in its life. Times in milliseconds of `CLOCK_BOOTTIME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Its conditions don't hold yet.
    Waiting,
    /// It is to be launched.
    Launching,
    /// Its child sets itself up; killed when it isn't done by `deadline`.
    Starting {
        /// When it has taken too long.
        deadline: u64,
    },
    /// Its program runs.
    Running {
        /// When it was executed.
        since: u64,
    },
    /// It is started again at `until`.
    Backoff {
        /// When.
        until: u64,
    },
    /// It was asked to stop; killed at `deadline`.
    Stopping {
        /// When it is killed (again).
        deadline: u64,
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

    /// Nothing will happen to it any more.
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
    /// Its restart policy's number of attempts is used up.
    GaveUp,
    /// This need (by its place in [`Rules::needs`]) can't be met any more.
    Need(usize),
    /// It needs `/data`, which will not come.
    Data(String),
    /// The machine is stopping.
    Shutdown,
    /// It survived `cgroup.kill`.
    Unkillable,
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
    /// Its program was executed at least once.
    pub started: bool,
    /// It ended with status 0 at least once.
    pub completed: bool,
    /// How it ended last.
    pub exit: Option<Exit>,
    /// The present launch failed so; its child's exit is still to come.
    pub fault: Option<(String, bool)>,
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
        }
    }
}

impl Default for Unit {
    fn default() -> Self {
        Self::new()
    }
}

/// How far `/data` is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataPhase {
    /// Its worker is busy.
    Pending,
    /// It can be used.
    Ready,
    /// It will not come.
    Unavailable(String),
}

/// The memory that is not one container's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Common {
    /// [`super::Event::Begin`] was seen.
    pub begun: bool,
    /// How far `/data` is.
    pub data: DataPhase,
    /// The modules are in, and with them the devices they bring.
    pub devices: bool,
    /// What shutdown is for, once it has begun.
    pub goal: Option<Goal>,
    /// [`super::Action::Finish`] was issued.
    pub finished: bool,
    /// State of the random numbers.
    pub seed: u64,
}

/// The automaton.
#[derive(Debug, Clone)]
pub struct State {
    pub(super) rules: Vec<Rules>,
    pub(super) policy: Policy,
    pub(super) units: Vec<Unit>,
    pub(super) common: Common,
    /// Units that changed since [`State::take_changed`].
    changed: Vec<usize>,
    common_changed: bool,
}

impl State {
    /// An automaton to which nothing has happened. `seed` decides the random part of delays.
    pub fn new(rules: Vec<Rules>, policy: Policy, seed: u64) -> Self {
        let units = rules.iter().map(|_| Unit::new()).collect();
        let common =
            Common { begun: false, data: DataPhase::Pending, devices: false, goal: None, finished: false, seed };
        Self::resume(rules, policy, units, common)
    }

    /// The automaton as it was when `units` and `common` were kept. Missing units are as new, surplus ones are left out.
    pub fn resume(rules: Vec<Rules>, policy: Policy, mut units: Vec<Unit>, common: Common) -> Self {
        units.resize_with(rules.len(), Unit::new);
        Self { rules, policy, units, common, changed: Vec::new(), common_changed: true }
    }

    /// The containers' memories, in the plan's order.
    pub fn units(&self) -> &[Unit] {
        &self.units
    }

    /// The memory that is not one container's.
    pub fn common(&self) -> &Common {
        &self.common
    }

    /// What never changes, in the plan's order.
    pub fn rules(&self) -> &[Rules] {
        &self.rules
    }

    /// Indices of the units that changed since the last call (each once), and whether the common memory did.
    pub fn take_changed(&mut self) -> (Vec<usize>, bool) {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        (changed, std::mem::take(&mut self.common_changed))
    }

    /// Whether an [`super::Action::Launch`] issued for this container still stands.
    pub fn wants_launch(&self, index: usize) -> bool {
        self.units.get(index).is_some_and(|u| u.phase == Phase::Launching)
    }

    /// Whether the container is as its declaration wants it: running (for a moment already, so that a crash loop doesn't look
    /// well between two crashes), or ended with status 0 and not wanted back.
    pub fn as_declared(&self, index: usize, now: u64) -> bool {
        self.units.get(index).is_some_and(|unit| match unit.phase {
            Phase::Running { .. } => self.settles_at(unit).is_some_and(|at| now >= at),
            Phase::Exited => unit.exit.is_some_and(Exit::success),
            _ => false,
        })
    }

    /// Whether every container is as declared.
    pub fn ready(&self, now: u64) -> bool {
        self.common.begun && self.common.goal.is_none() && (0..self.units.len()).all(|i| self.as_declared(i, now))
    }

    /// When [`super::Event::Tick`] is due, in milliseconds; `None`: not before something else happens.
    pub fn next_deadline(&self, now: u64) -> Option<u64> {
        let due = |unit: &Unit| match unit.phase {
            Phase::Starting { deadline } | Phase::Stopping { deadline, .. } => Some(deadline),
            Phase::Backoff { until } => Some(until),
            Phase::Running { .. } => self.settles_at(unit).filter(|at| *at > now),
            _ => None,
        };
        self.units.iter().filter_map(due).min()
    }

    /// When a running container counts as started for good.
    fn settles_at(&self, unit: &Unit) -> Option<u64> {
        let Phase::Running { since } = unit.phase else { return None };
        let settle = if unit.streak == 0 { self.policy.settle_ms } else { self.policy.resettle_ms };
        Some(since.saturating_add(settle))
    }

    /// Changes one unit; `None` when there is no such unit.
    pub(super) fn change<T>(&mut self, index: usize, change: impl FnOnce(&mut Unit) -> T) -> Option<T> {
        let unit = self.units.get_mut(index)?;
        self.changed.push(index);
        Some(change(unit))
    }

    /// Changes the common memory.
    pub(super) fn change_common(&mut self) -> &mut Common {
        self.common_changed = true;
        &mut self.common
    }

    pub(super) fn random(&mut self) -> u64 {
        backoff::next_random(&mut self.change_common().seed)
    }
}
