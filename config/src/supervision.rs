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
    /// `healthcheck`; `None`: no check, not even the image's own.
    pub health: Option<HealthCheck>,
    /// `on_failure`. Default [`OnFailure::Ignore`].
    pub on_failure: OnFailure,
    /// `status = "read"`: it may ask for the appliance's status.
    pub reads_status: bool,
}

/// `healthcheck`: a question that is asked again and again. What it doesn't declare is as the image's HEALTHCHECK has it, else
/// Compose's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The question.
    pub test: Option<HealthTest>,
    /// From an answer to the next question. Default 30 s.
    pub interval: Option<Duration>,
    /// No answer within this is a bad one. Default 30 s.
    pub timeout: Option<Duration>,
    /// So many bad answers in a row make it unhealthy. Default 3.
    pub retries: Option<u32>,
    /// Bad answers don't count for so long after its start, until the first good one. Default none.
    pub start_period: Option<Duration>,
    /// The interval during that time. Default 5 s.
    pub start_interval: Option<Duration>,
    /// An unhealthy container is stopped, and that counts as a failure. Default true.
    pub restart: bool,
}

/// Nothing is declared.
impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            test: None,
            interval: None,
            timeout: None,
            retries: None,
            start_period: None,
            start_interval: None,
            restart: true,
        }
    }
}

impl HealthCheck {
    /// Whether it is as if there were no `healthcheck`.
    #[must_use]
    pub fn is_undeclared(&self) -> bool {
        *self == Self::default()
    }

    /// The shortest `interval`, `timeout` or `start_interval`: asked more often, the answers would be most of what the machine does.
    pub const SHORTEST: Duration = Duration::from_millis(100);
    /// The most `retries`.
    pub const MOST_RETRIES: u32 = 1000;
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
