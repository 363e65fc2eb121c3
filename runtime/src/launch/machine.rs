//! What the launcher does outside the container for it: limits, and what is taken from the machine.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Control group settings (cgroup v2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// `(file, value)` pairs to write in order, such as `("memory.max", "67108864")`.
    pub settings: Vec<(String, String)>,
    /// Each a choice: the first pair whose file exists is written, such as `io.bfq.weight` or else `io.weight`.
    pub choices: Vec<Vec<(String, String)>>,
    /// Refuse a `memory.max` below what is in use, where the kernel would kill for it.
    pub check_memory: bool,
    /// The device rules as a compiled `BPF_PROG_TYPE_CGROUP_DEVICE` program (8-byte instructions). Empty: every device is allowed.
    pub device_filter: Vec<u8>,
    /// Devices that the filter is to allow besides, by name: their numbers are known at the start only.
    pub devices: Vec<DeviceAccess>,
    /// Settings of single devices, written after `settings`.
    pub device_settings: Vec<DeviceSetting>,
    /// Give the cgroup to this user of the container (cgroups(7), "Delegating a hierarchy to a less privileged user").
    pub owner: Option<u32>,
}

/// What a container may do with a device of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceAccess {
    /// Path of the node on the machine.
    pub path: String,
    /// Read from it.
    pub read: bool,
    /// Write to it.
    pub write: bool,
    /// Make nodes of its number.
    pub mknod: bool,
}

/// A control group setting of one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSetting {
    /// The file: `io.max`, `io.weight`.
    pub file: String,
    /// Path of the node on the machine. What is written is its number, a space and the value.
    pub path: String,
    /// The value: `rbps=1048576`.
    pub value: String,
}

/// A compiled seccomp filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seccomp {
    /// Classic BPF, 8-byte `sock_filter` structures in the machine's byte order.
    pub bpf: Arc<[u8]>,
    /// `SECCOMP_FILTER_FLAG_*` for `seccomp(2)`.
    pub flags: u32,
    /// Who answers calls that the filter hands over. `Some` exactly if it hands any over.
    pub listener: Option<Listener>,
}

impl Seccomp {
    /// See [`Listener::early`].
    pub(crate) fn is_early(&self) -> bool {
        self.listener.as_ref().is_some_and(|listener| listener.early)
    }
}

/// A seccomp agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Its unix stream socket on the machine.
    pub path: String,
    /// The container process state that it is told (runtime spec, "The Container Process State"): the text around the process
    /// id, which stands between every two of these.
    pub message: Vec<String>,
    /// The filter lets pass all that is still done between `create` and the program, so that it may be in force, and its listener sent,
    /// as soon as the container is created.
    pub early: bool,
}

/// A class of service of Intel's Resource Director Technology (Documentation/arch/x86/resctrl.rst).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntelRdt {
    /// Directory name of the class; `None`: one of the container's own.
    pub class: Option<String>,
    /// The container's id: the name of its own class and of its group for monitoring. `None`: its cgroup's name.
    pub name: Option<String>,
    /// It is monitored apart.
    pub monitor: bool,
    /// Lines for its `schemata` file, in order.
    pub schemata: Vec<String>,
}

/// An interface of the machine that becomes the container's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetDevice {
    /// Its name on the machine.
    pub outside: String,
    /// Its name in the container; may end with `%d` for a number that the kernel chooses.
    pub inside: String,
}
