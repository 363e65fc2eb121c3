//! What has happened, numbered: for people on the console, for programs on the status port.

use serde::{Deserialize, Serialize};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// From 1 in the order of happening, also over a crash of PID 1; never used twice in a boot.
    pub number: u64,
    /// Milliseconds since boot.
    pub time_ms: u64,
    /// What kind of thing.
    pub kind: Kind,
    /// The container that it is about; none: the machine.
    pub container: Option<String>,
    /// What happened and why, in words. May hold what a container said: to be escaped wherever it is shown.
    pub text: String,
}

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The machine began, and why.
    Boot,
    /// How the boot before this one ended.
    Previous,
    /// A container's program was executed.
    Started,
    /// It says that it is ready, if it is one that does.
    Ready,
    /// It ended.
    Exited,
    /// The kernel killed processes of it, as it, or the machine, was out of memory.
    OutOfMemory,
    /// Its launch failed.
    LaunchFailed,
    /// It was given up.
    Failed,
    /// Its health is another than before.
    Health,
    /// It was asked to stop, and why.
    Stopping,
    /// The machine is on its way down, and why.
    Shutdown,
    /// PID 1 crashed and went on.
    Crash,
    /// Something of the machine's own: network, disks, modules.
    Note,
}
