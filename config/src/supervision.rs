//! What a valid declaration says about watching a container.

use std::time::Duration;

/// How a container is watched, and what follows when it can't be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supervision {
    /// `notify`: it says itself when it is ready (sd_notify(3)). Default false.
    pub notify: bool,
    /// `start_timeout`: from its launch until it counts as started, or it is killed. Default 60 s.
    pub start_timeout: Duration,
    /// `watchdog`: the longest time between two signs of life, only with `notify`.
    pub watchdog: Option<Duration>,
    /// `healthcheck`.
    pub health: Option<HealthCheck>,
    /// `on_failure`. Default [`OnFailure::Ignore`].
    pub on_failure: OnFailure,
    /// `status = "read"`: it may ask for the appliance's status.
    pub reads_status: bool,
}

/// `healthcheck`: a question that is asked again and again. Defaults are Compose's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The question.
    pub test: HealthTest,
    /// From an answer to the next question. Default 30 s.
    pub interval: Duration,
    /// No answer within this is a bad one. Default 30 s.
    pub timeout: Duration,
    /// So many bad answers in a row make it unhealthy. Default 3.
    pub retries: u32,
    /// Bad answers don't count for so long after its start, until the first good one. Default none.
    pub start_period: Duration,
    /// The interval during that time. Default 5 s.
    pub start_interval: Duration,
    /// An unhealthy container is stopped, and that counts as a failure. Default true.
    pub restart: bool,
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthTest {
    /// This program, executed in the container, ends with status 0.
    Exec(Vec<String>),
    /// A connection to this TCP port of the container is accepted.
    Tcp(u16),
    /// `GET` of this path at this port of the container is answered with a status from 200 to 399.
    Http {
        /// The TCP port.
        port: u16,
        /// Absolute path, with query.
        path: String,
    },
}

/// `on_failure`: what follows when a container has failed and is not started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// It is shown, nothing else.
    #[default]
    Ignore,
    /// It is started again all the same, as rarely as the delay allows.
    Restart,
    /// The machine is stopped in order and started again.
    Reboot,
    /// The machine is stopped in order and switched off.
    PowerOff,
}
