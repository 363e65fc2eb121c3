//! How everything is at one moment. The console's table and the status port's JSON are made from this one type.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::boot::Feature;
use crate::last_words::Previous;
use crate::supervise::Exit;
use crate::work::report;

/// The appliance at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Its name.
    pub appliance: String,
    /// The machine's host name.
    pub hostname: String,
    /// What it is doing.
    pub state: MachineState,
    /// Every container is as declared.
    pub ready: bool,
    /// Milliseconds since the kernel started.
    pub uptime_ms: u64,
    /// PID 1's resident memory.
    pub pid1_rss_bytes: u64,
    /// The kernel feature check's findings.
    pub features: Vec<Feature>,
    /// The uplink.
    pub network: report::Network,
    /// The data filesystem.
    pub data: report::Data,
    /// Which boot of those that the data filesystem knows this is; none: that is not kept, or not yet.
    pub boot: Option<u64>,
    /// How the one before ended, once that is known.
    pub previous: Option<Previous>,
    /// How logs are kept there.
    pub kept_logs: report::KeptLogs,
    /// The containers, in the plan's order.
    pub containers: Vec<Container>,
    /// What went wrong in PID 1 itself, newest last.
    pub notes: Vec<String>,
    /// Number of the newest event, by which a reader knows whether it has missed one; 0: none yet.
    pub last_event: u64,
}

/// What the appliance is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineState {
    /// Not everything has settled yet.
    Booting,
    /// Every container has come to where it will stay for now.
    Running,
    /// On its way down.
    Stopping,
}

/// One container at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its image, as declared.
    pub image: String,
    /// Where it is in its life.
    pub state: ContainerState,
    /// What its health check says.
    pub health: Health,
    /// Its first process, as PID 1 sees it.
    pub pid: Option<i32>,
    /// How often it was started again.
    pub restarts: u32,
    /// How it ended last.
    pub exit: Option<Exit>,
    /// Why it is where it is; empty when there is nothing to say.
    pub detail: String,
    /// Milliseconds since its program was executed.
    pub uptime_ms: Option<u64>,
    /// Memory charged to it.
    pub memory_bytes: u64,
    /// Processor time that it has used, of all processors together, in microseconds.
    pub cpu_us: u64,
    /// Processes of it that the kernel has killed for want of memory, since boot.
    pub oom_kills: u64,
    /// What it says of itself (`STATUS=`, sd_notify(3)).
    pub says: String,
    /// Bytes of its output that were thrown away unseen.
    pub log_dropped: u64,
    /// Bytes of its log that were to be kept, and are lost to that.
    pub log_unkept: u64,
    /// What weakens its isolation, in the declaration's words.
    pub weakened: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The pod that it is in.
    pub pod: Option<String>,
    /// It is as its declaration wants it.
    pub as_declared: bool,
}

/// Where a container is in its life, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    /// Its conditions don't hold yet.
    Waiting,
    /// Its child sets itself up.
    Starting,
    /// Its program runs.
    Running,
    /// It ended and is started again soon.
    Backoff,
    /// It was asked to stop.
    Stopping,
    /// It ended and is not wanted back.
    Exited,
    /// It was given up.
    Failed,
}

/// What a health check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// There is no check.
    None,
    /// It has not answered yet, or not well, and still has time.
    Starting,
    /// Its last answers were good.
    Healthy,
    /// Too many answers in a row were bad.
    Unhealthy,
}

impl ContainerState {
    /// The word that people and programs see.
    pub fn text(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Backoff => "backoff",
            Self::Stopping => "stopping",
            Self::Exited => "exited",
            Self::Failed => "failed",
        }
    }
}

impl MachineState {
    /// The word that people and programs see.
    pub fn text(self) -> &'static str {
        match self {
            Self::Booting => "booting",
            Self::Running => "running",
            Self::Stopping => "stopping",
        }
    }
}
