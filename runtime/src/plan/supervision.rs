//! How a container is watched, and what follows when it can't be had.

use serde::{Deserialize, Serialize};

/// Where a container that notifies finds its socket.
pub const NOTIFY_TARGET: &str = "/run/garboard/notify.sock";

/// What the declaration says about watching a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supervision {
    /// It says itself when it is ready (`READY=1`, sd_notify(3)): it counts as started from then on, not when its program is
    /// executed.
    pub notify: bool,
    /// Milliseconds from its launch until it counts as started, or it is killed.
    pub start_timeout_ms: u64,
    /// Milliseconds between two `WATCHDOG=1`, or it is killed; only of one that notifies.
    pub watchdog_ms: Option<u64>,
    /// How it is asked whether it works.
    pub health: Option<HealthCheck>,
    /// What follows when it is given up.
    pub on_failure: OnFailure,
}

impl Default for Supervision {
    fn default() -> Self {
        Self { notify: false, start_timeout_ms: 60_000, watchdog_ms: None, health: None, on_failure: OnFailure::Ignore }
    }
}

/// A question that is asked again and again. Compose's meanings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The question.
    pub test: HealthTest,
    /// Milliseconds from an answer to the next question.
    pub interval_ms: u64,
    /// No answer within so many milliseconds is a bad one.
    pub timeout_ms: u64,
    /// So many bad answers in a row make it unhealthy; at least 1.
    pub retries: u32,
    /// Bad answers don't count for so many milliseconds after its start, unless a good one came before.
    pub start_period_ms: u64,
    /// The interval during that time.
    pub start_interval_ms: u64,
    /// An unhealthy container is stopped, and its end counts as a failure.
    pub restart: bool,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthTest {
    /// This program, executed in the container, must end with status 0.
    Exec(Vec<String>),
    /// A connection to this TCP port, in the container's network namespace, must be accepted.
    Tcp(u16),
    /// `GET` of this path at this port must be answered with a status from 200 to 399.
    Http {
        /// TCP port, in the container's network namespace.
        port: u16,
        /// Absolute path, with query.
        path: String,
    },
}

/// What follows when a container is given up: its restart policy doesn't start it again although it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnFailure {
    /// Nothing but that it is shown.
    Ignore,
    /// It isn't given up: it is started again, as rarely as the delay allows.
    Restart,
    /// The machine is stopped in order and started again.
    Reboot,
    /// The machine is stopped in order and switched off.
    PowerOff,
}

/// Containers that share their network, ipc and uts namespaces and their ids, and start and stop together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its name.
    pub name: String,
}
