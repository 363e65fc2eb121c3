//! What the automaton remembers, and what can be asked of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::unit::{Exit, Phase, Reason, Unit};
use super::watch::Health;
use super::{Policy, Rules, backoff, pods};

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

impl Goal {
    /// What the machine does, for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::PowerOff => "switching off",
            Self::Reboot => "starting over",
            Self::Halt => "halting",
        }
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
    /// The container for whose sake it has, by its `on_failure`; `None`: it was asked for.
    pub because: Option<usize>,
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
    /// Members of each pod.
    pub(super) pods: BTreeMap<usize, Vec<usize>>,
    /// Units that changed since [`State::take_changed`].
    changed: Vec<usize>,
    common_changed: bool,
}

impl State {
    /// An automaton to which nothing has happened. `seed` decides the random part of delays.
    pub fn new(rules: Vec<Rules>, policy: Policy, seed: u64) -> Self {
        let units = rules.iter().map(|_| Unit::new()).collect();
        let common = Common {
            begun: false,
            data: DataPhase::Pending,
            devices: false,
            goal: None,
            because: None,
            finished: false,
            seed,
        };
        Self::resume(rules, policy, units, common)
    }

    /// The automaton as it was when `units` and `common` were kept. Missing units are as new, surplus ones are left out.
    pub fn resume(rules: Vec<Rules>, policy: Policy, mut units: Vec<Unit>, common: Common) -> Self {
        units.resize_with(rules.len(), Unit::new);
        let pods = pods::members(&rules);
        Self { rules, policy, units, common, pods, changed: Vec::new(), common_changed: true }
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

    /// Children that were made of this container so far. What is heard of one run and not of the present one concerns nobody:
    /// [`super::Event::Probed`] is told which run was asked.
    pub fn run(&self, index: usize) -> u32 {
        self.units.get(index).map_or(0, |u| u.run)
    }

    /// Whether an answer to [`super::Action::Probe`] is awaited.
    pub fn probing(&self, index: usize) -> bool {
        self.units.get(index).is_some_and(|u| u.watch.probing && matches!(u.phase, Phase::Running { .. }))
    }

    /// Whether the container is as its declaration wants it: running (for a moment already, so that a crash loop doesn't look
    /// well between two crashes) and well as far as its check says, or ended by itself with status 0 and not wanted back.
    pub fn as_declared(&self, index: usize, now: u64) -> bool {
        self.units.get(index).is_some_and(|unit| match unit.phase {
            Phase::Running { .. } => {
                let well = matches!(unit.watch.health, Health::None | Health::Healthy);
                well && self.settles_at(unit).is_some_and(|at| now >= at)
            }
            Phase::Exited => unit.reason != Reason::Asked && unit.exit.is_some_and(Exit::success),
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
            Phase::Starting { deadline, .. } | Phase::Stopping { deadline, .. } => Some(deadline),
            Phase::Backoff { until } => Some(until),
            Phase::Running { .. } => {
                let watch = unit.watch.deadline().filter(|_| self.common.goal.is_none());
                self.settles_at(unit).filter(|at| *at > now).into_iter().chain(watch).min()
            }
            _ => None,
        };
        self.units.iter().filter_map(due).min()
    }

    /// Who has not started, or not said that it is alive, by now, and so is killed at the next [`super::Event::Tick`].
    pub fn too_late(&self, now: u64) -> Vec<usize> {
        let late = |unit: &Unit| match unit.phase {
            Phase::Starting { deadline, .. } => now >= deadline,
            Phase::Running { .. } => unit.watch.alive_by.is_some_and(|by| now >= by) && self.common.goal.is_none(),
            _ => false,
        };
        self.units.iter().enumerate().filter(|(_, unit)| late(unit)).map(|(index, _)| index).collect()
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
