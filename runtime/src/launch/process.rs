//! The program that a container runs, and what it is given.

use serde::{Deserialize, Serialize};

/// The program that the container runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments; the first is looked up in `PATH` of `env`, inside the container, if it has no slash.
    pub args: Vec<String>,
    /// `NAME=value` strings.
    pub env: Vec<String>,
    /// Working directory inside the container; created when absent (as Docker does).
    pub cwd: String,
    /// User id inside the container.
    pub uid: u32,
    /// Group id inside the container.
    pub gid: u32,
    /// Supplementary groups inside the container.
    pub additional_gids: Vec<u32>,
    /// File mode creation mask; `None` keeps the launcher's.
    pub umask: Option<u32>,
    /// Capability sets, as bit masks by capability number (`1 << CAP_X`).
    pub capabilities: Capabilities,
    /// Resource limits to set before exec.
    pub rlimits: Vec<Rlimit>,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// `/proc/self/oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// How it is scheduled (sched_setattr(2)).
    pub scheduler: Option<Scheduler>,
    /// ioprio_set(2): class in bits 13 to 15, level in bits 0 to 2.
    pub io_priority: Option<u16>,
    /// Processors of a process that is executed in a running container; of no effect on its first one.
    pub exec_affinity: ExecAffinity,
    /// Where its memory comes from (set_mempolicy(2)).
    pub memory_policy: Option<MemoryPolicy>,
    /// Execution domain (personality(2)).
    pub personality: Option<u32>,
    /// AppArmor profile to change to when the program is executed.
    pub apparmor_profile: Option<String>,
    /// SELinux label of the executed program.
    pub selinux_label: Option<String>,
    /// Landlock rules, besides everything else.
    pub landlock: Option<Landlock>,
}

/// The five capability sets, bit N being capability number N (`linux/capability.h`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Upper bound for everything the process may ever gain.
    pub bounding: u64,
    /// In force.
    pub effective: u64,
    /// Kept over exec of files with inheritable file capabilities.
    pub inheritable: u64,
    /// May be put in force.
    pub permitted: u64,
    /// Kept over exec of ordinary files by a non-root user.
    pub ambient: u64,
}

/// One `setrlimit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Resource number as in `<sys/resource.h>` (`RLIMIT_NOFILE` is 7).
    pub resource: u32,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

impl Rlimit {
    /// By number (`asm-generic/resource.h`, which x86-64 and arm64 share).
    const NAMES: [&str; 16] = [
        "CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING", "MSGQUEUE",
        "NICE", "RTPRIO", "RTTIME",
    ];
}

impl std::fmt::Display for Rlimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match usize::try_from(self.resource).ok().and_then(|number| Self::NAMES.get(number)) {
            Some(name) => write!(f, "RLIMIT_{name}")?,
            None => write!(f, "{}", self.resource)?,
        }
        write!(f, " to {}:{}", self.soft, self.hard)
    }
}

/// `struct sched_attr` of `linux/sched/types.h`, less its size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduler {
    /// `SCHED_OTHER` is 0.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// −20…19, for `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// 1…99, for `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub runtime: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub deadline: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub period: u64,
}

/// Processors by bit mask, the lowest in the first byte's lowest bit; empty: not set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecAffinity {
    /// Before it enters the container's cgroup.
    pub initial: Vec<u8>,
    /// When it is in it.
    pub last: Vec<u8>,
}

/// set_mempolicy(2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    /// `MPOL_*` with its `MPOL_F_*` flags (`linux/mempolicy.h`).
    pub mode: u32,
    /// Memory nodes by bit mask, as in [`ExecAffinity`].
    pub nodes: Vec<u8>,
}

/// landlock(7): what isn't named here is denied, of the kinds that are handled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landlock {
    /// Files are handled: absolute paths in the container whose trees may be read and executed.
    pub read: Option<Vec<String>>,
    /// Files are handled: absolute paths whose trees may also be changed.
    pub write: Option<Vec<String>>,
    /// TCP ports that may be bound (Linux 6.7).
    pub bind: Option<Vec<u16>>,
    /// TCP ports that may be connected to (Linux 6.7).
    pub connect: Option<Vec<u16>>,
    /// No abstract unix sockets of processes outside (Linux 6.12).
    pub scope_abstract_sockets: bool,
    /// No signals to processes outside (Linux 6.12).
    pub scope_signals: bool,
}
