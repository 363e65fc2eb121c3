//! What a port is told without asking again.

use serde::{Deserialize, Serialize};

/// Whose log the kernel's is, in place of a container's index.
pub const KERNEL: u32 = u32::MAX;
/// Logs that a subscription names, at most; `"all"` has no bound. It is kept in a record of fixed size.
pub const MOST_LOGS: usize = 32;

/// One port's subscription.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Number of the last event that was told; `None`: events aren't wanted.
    pub events: Option<u64>,
    /// Every log is wanted.
    pub all_logs: bool,
    /// These are: indices of containers, or [`KERNEL`].
    pub logs: Vec<u32>,
}

impl Subscription {
    /// Whether lines of this log are to be told.
    pub fn wants(&self, log: u32) -> bool {
        self.all_logs || self.logs.contains(&log)
    }

    /// Adds a log. False: there are too many.
    pub fn add(&mut self, log: u32) -> bool {
        if !self.wants(log) {
            if self.logs.len() >= MOST_LOGS {
                return false;
            }
            self.logs.push(log);
        }
        true
    }

    /// Anything is wanted.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}
