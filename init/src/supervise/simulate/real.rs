//! What is true of one container, whatever the automaton believes.

use super::super::{Exit, Health};

/// One container and what became of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Real {
    /// A child exists.
    pub(super) alive: bool,
    /// Its program was executed, in this run.
    pub(super) executed: bool,
    /// The automaton was told so.
    pub(super) told: bool,
    /// Its set-up failed, in this run; for want of something.
    pub(super) fault: Option<bool>,
    /// It doesn't stop when it is asked.
    pub(super) deaf: bool,
    /// It doesn't end when it is killed.
    pub(super) undying: bool,
    /// Every attempt to kill it was made.
    pub(super) left: bool,
    /// Since when it runs as the automaton understands it, in this run.
    pub(super) since: Option<u64>,
    /// When it was first asked to stop, or killed, in this run.
    pub(super) stopped: Option<u64>,
    /// It was sent its stop signal, in this run.
    pub(super) signalled: bool,
    /// Children made so far.
    pub(super) run: u32,
    /// The run in which it was last asked whether it works, without an answer so far.
    pub(super) asked: Option<u32>,
    pub(super) health: Health,
    pub(super) good: bool,
    pub(super) bad: u32,
    /// When it must next say that it is alive, and how often.
    pub(super) alive_by: Option<u64>,
    /// When its check last answered well.
    pub(super) well_at: Option<u64>,
    /// When it last said that it is alive.
    pub(super) alive_at: Option<u64>,
    /// It said that it is about to end, and can't move its end beyond this.
    pub(super) leaving: Option<u64>,
    /// It was given time since it last said that it is alive.
    pub(super) spared: bool,
    pub(super) watchdog_ms: Option<u64>,
    pub(super) exit: Option<Exit>,
    /// Ends in a row; failures in a row.
    pub(super) streak: u32,
    pub(super) failures: u32,
    /// Launches after a delay.
    pub(super) relaunches: u32,
    pub(super) ever_started: bool,
    pub(super) ever_completed: bool,
    /// It was launched since it was new, or was last asked for.
    pub(super) launched: bool,
}

impl Real {
    /// It runs, and nobody has asked it to stop.
    pub(super) fn running(&self) -> bool {
        self.alive && self.since.is_some() && self.stopped.is_none()
    }

    /// Nothing of a run is left.
    pub(super) fn run_over(&mut self) {
        (self.executed, self.told, self.fault) = (false, false, None);
        (self.since, self.stopped, self.signalled, self.left) = (None, None, false, false);
        (self.health, self.good, self.bad) = (Health::None, false, 0);
        (self.alive_by, self.watchdog_ms, self.spared) = (None, None, false);
        (self.well_at, self.alive_at, self.leaving) = (None, None, None);
    }

    /// It is as good as new.
    pub(super) fn anew(&mut self) {
        (self.streak, self.failures, self.launched) = (0, 0, false);
    }
}
