//! What a worker tells PID 1: one line of JSON on its standard output for each result.

use serde::{Deserialize, Serialize};

use crate::last_words::Previous;

/// Result of the `modules` worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modules {
    /// How many were loaded (or already there).
    pub loaded: u32,
    /// A sentence for each that could not be loaded.
    pub failed: Vec<String>,
    /// The names of those.
    pub absent: Vec<String>,
}

/// Result of the `health` worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The container works.
    pub well: bool,
    /// Why not, in words of which some may be the container's.
    pub detail: String,
}

/// Result of the `data` worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounted {
    /// What became of the filesystem.
    #[serde(flatten)]
    pub data: Data,
    /// The containers that a person had stopped and that are to stay so, by index.
    #[serde(default)]
    pub stopped: Vec<usize>,
    /// Why those can't be told.
    #[serde(default)]
    pub fault: Option<String>,
}

/// Result of the `stopped` worker, if it could not do its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// Why.
    pub fault: String,
}

/// The data filesystem, in the status's terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// What is at `/data`.
    pub state: DataState,
    /// Why, when it is not `Mounted` in full.
    pub detail: String,
    /// Size of the filesystem in bytes.
    pub bytes: u64,
}

/// What is at `/data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataState {
    /// The data filesystem, writable.
    Mounted,
    /// The data filesystem, but it can only be read.
    Readonly,
    /// A tmpfs in its stead: nothing is kept.
    Tmpfs,
    /// Nothing: the plan requires the data filesystem and it is not there.
    Absent,
    /// Nothing: the declaration keeps nothing.
    None,
}

/// Result of the `volumes` worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volumes {
    /// Its descriptors of them, in the order of [`garboard_runtime::volumes::of`].
    pub opened: Vec<i32>,
    /// Why there are none: operation, object and cause.
    pub fault: Option<String>,
    /// The cause may pass.
    pub transient: bool,
}

/// Result of the `passphrase` worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passphrase {
    /// The hash is that of the passphrase.
    pub right: bool,
}

/// Result of the `shell` worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shell {
    /// Why there was none.
    pub fault: Option<String>,
}

/// What the `words` worker says, a line for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Words {
    /// How the boot before ended; first of all.
    Previous(Previous),
    /// That this one is under way is on the disk, and its number.
    Kept(u64),
    /// It could not be kept, and why.
    Fault(String),
}

/// Result of the `network` worker, in the status's terms; one line for each change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The uplink interface.
    pub uplink: Option<String>,
    /// Its addresses with prefix, `10.0.2.15/24`.
    pub addresses: Vec<String>,
    /// How far it got.
    pub state: NetworkState,
    /// Why, when it is not up.
    pub detail: String,
}

/// How far the network got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkState {
    /// No uplink is declared.
    #[default]
    None,
    /// An address is being asked for.
    Configuring,
    /// The uplink has its addresses.
    Up,
    /// The uplink has none.
    Failed,
}

/// Result of the `keep` worker: one when it begins, one when it can't go on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// Why it can't: operation, object and cause.
    pub fault: Option<String>,
}

/// Result of the `previous` worker: one line of a kept log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptLine {
    /// Milliseconds since its boot; 0: not known.
    pub time_ms: u64,
    /// The text, made plain.
    pub text: String,
    /// It goes on from the line before.
    pub continues: bool,
    /// When, in RFC 3339's form; `None`: the line was damaged.
    pub time: Option<String>,
    /// The kernel's name of the boot.
    pub boot: Option<String>,
    /// It stands for so many bytes that are missing, and is no line of the container's.
    pub missing: u64,
}

/// How logs are kept, in the status's terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptLogs {
    /// Whether they are.
    pub state: KeptState,
    /// Why not.
    pub detail: String,
}

/// Whether logs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeptState {
    /// None is declared to be.
    None,
    /// The data filesystem is not there yet, or the worker not yet at work.
    Waiting,
    /// They are.
    Kept,
    /// They aren't for now; it is tried again.
    Failed,
    /// They aren't, as the data filesystem can't be written to.
    Absent,
}
