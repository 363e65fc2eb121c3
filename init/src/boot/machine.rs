//! Makes a machine of a kernel: control groups, settings, host name, loopback.

use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};

use garboard_runtime::launch::sysctl_path;
use garboard_runtime::plan::Plan;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::{BootError, root};
use crate::logs::Rings;
use crate::sys;

/// Where the control group tree is mounted.
pub const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// Parent of the containers' control groups.
pub const CGROUP: &str = "/sys/fs/cgroup/garboard";
/// Controllers that containers get, as far as the kernel has them.
const CONTROLLERS: [&str; 5] = ["memory", "cpu", "pids", "io", "cpuset"];

/// Settings of every machine. What a kernel does not have is passed over; the plan's own settings are applied after these.
const SYSCTLS: &[(&str, &str)] = &[
    // A container's root may serve port 80 on the machine's network without any capability there.
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    // Nobody may learn kernel addresses or read its log from a container.
    ("kernel.kptr_restrict", "2"),
    ("kernel.dmesg_restrict", "1"),
    ("kernel.perf_event_paranoid", "3"),
    ("kernel.unprivileged_bpf_disabled", "1"),
    ("net.core.bpf_jit_harden", "2"),
    ("kernel.yama.ptrace_scope", "1"),
    // No other kernel takes over, and no key combination does anything.
    ("kernel.kexec_load_disabled", "1"),
    ("kernel.sysrq", "0"),
    // Containers' count with those of the machine's root, of which each process of theirs could have all: so many that memory, which is counted for each
    // container, comes to an end first.
    ("fs.inotify.max_user_instances", "131072"),
    // An appliance has nobody at hand: after a panic it starts anew.
    ("kernel.panic", "10"),
    // Crashes of set-user-ID programs leave no readable memory image, and planted links and pipes are not followed.
    ("fs.suid_dumpable", "0"),
    ("fs.protected_hardlinks", "1"),
    ("fs.protected_symlinks", "1"),
    ("fs.protected_fifos", "2"),
    ("fs.protected_regular", "2"),
];

/// Mounts the control group tree (v2) and makes the containers' parent in it; returns the root's directory.
pub fn mount_cgroups() -> Result<OwnedFd, BootError> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // memory_recursiveprot came with 5.7, nsdelegate with 4.13.
    let mut options = [Some(c"nsdelegate,memory_recursiveprot"), Some(c"nsdelegate"), None].into_iter();
    let errno = loop {
        let Some(data) = options.next() else { break Errno::INVAL };
        match rustix::mount::mount("cgroup2", CGROUP_ROOT, "cgroup2", flags, data) {
            Ok(()) | Err(Errno::BUSY) => {
                root::make_directory(CGROUP)?;
                return open_directory(CGROUP_ROOT);
            }
            Err(Errno::INVAL) => {}
            Err(errno) => break errno,
        }
    };
    Err(BootError::new("mount cgroup2 on", CGROUP_ROOT, errno).fix("the kernel lacks CONFIG_CGROUPS"))
}

/// Gives the containers' control groups every controller the kernel has, and returns their parent's directory.
pub fn delegate_controllers() -> Result<OwnedFd, BootError> {
    let present = std::fs::read_to_string(format!("{CGROUP_ROOT}/cgroup.controllers")).unwrap_or_default();
    let enable = enabling(&present);
    for directory in [CGROUP_ROOT, CGROUP] {
        let file = format!("{directory}/cgroup.subtree_control");
        std::fs::write(&file, &enable).map_err(|e| BootError::new("enable controllers in", file, e))?;
    }
    open_directory(CGROUP)
}

/// What to write to `cgroup.subtree_control` for those `cgroup.controllers`.
fn enabling(present: &str) -> String {
    let ours = present.split_ascii_whitespace().filter(|name| CONTROLLERS.contains(name));
    ours.map(|name| format!("+{name} ")).collect()
}

fn open_directory(path: &str) -> Result<OwnedFd, BootError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|e| BootError::new("open", path, e))
}

/// Applies kernel settings, host name and loopback. Faults here stop nothing: each is returned as a sentence.
pub fn configure(plan: &Plan) -> Vec<String> {
    let mut warnings = Vec::new();
    let declared = plan.sysctls.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in SYSCTLS.iter().copied().chain(declared) {
        match set_sysctl(name, value) {
            Ok(()) => {}
            // Ours are then another kernel's business. What brings a declared one is a module, or an interface, that is still to come.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => warnings.push(unset(name, value, &e)),
        }
    }
    if let Err(e) = rustix::system::sethostname(plan.hostname.as_bytes()) {
        warnings.push(format!("set the host name {}: {e}", plan.hostname));
    }
    if let Err(e) = loopback_up() {
        warnings.push(format!("set up the loopback interface: {e}"));
    }
    warnings
}

/// Applies the declared settings once more, when all modules are in: those of what these have brought among them.
pub fn configure_late(plan: &Plan) -> Vec<String> {
    let fault = |(name, value): &(String, String)| set_sysctl(name, value).err().map(|e| unset(name, value, &e));
    plan.sysctls.iter().filter_map(fault).collect()
}

fn unset(name: &str, value: &str, error: &std::io::Error) -> String {
    format!("set {name} to {value}: {error}")
}

fn set_sysctl(name: &str, value: &str) -> std::io::Result<()> {
    std::fs::write(format!("/proc/sys/{}", sysctl_path(name)), value)
}

fn loopback_up() -> std::io::Result<()> {
    // Any IP socket reaches the interface; binding to no address needs none to be up.
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    sys::net::set_up(socket.as_fd(), "lo")
}

/// Refuses a machine whose memory can't hold what the plan takes before a single container has asked for any.
pub fn check_memory(plan: &Plan) -> Result<(), BootError> {
    let info = rustix::system::sysinfo();
    let unit = u64::from(info.mem_unit);
    let bytes = |count: u64| count.saturating_mul(unit);
    judge_memory(bytes(info.totalram), bytes(info.freeram), Rings::memory(plan.containers.len(), plan.log_budget))
}

/// PID 1, the verified image's hashes, control groups, and room for one small program.
const OWN_MEMORY: u64 = 12 << 20;

fn judge_memory(total: u64, free: u64, logs: u64) -> Result<(), BootError> {
    let needed = OWN_MEMORY.saturating_add(logs);
    if free >= needed {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let cause = format!("{} MiB of {} MiB are free, at least {} MiB are needed", mib(free), mib(total), mib(needed));
    Err(BootError::new("find memory", "for the containers", cause).fix("give the machine more memory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_controllers_are_enabled() {
        assert_eq!(enabling("cpuset cpu io memory hugetlb pids rdma misc\n"), "+cpuset +cpu +io +memory +pids ");
        assert_eq!(enabling(""), "");
    }

    #[test]
    fn too_little_memory_is_one_sentence() {
        assert!(judge_memory(64 << 20, 20 << 20, 8 << 20).is_ok());
        let error = judge_memory(64 << 20, 10 << 20, 8 << 20).unwrap_err().to_string();
        assert!(error.contains("10 MiB of 64 MiB are free, at least 20 MiB are needed"), "{error}");
        assert!(judge_memory(0, 0, u64::MAX).is_err());
    }
}
