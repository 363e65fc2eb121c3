//! What a container may do, and what of that weakens its isolation.

use crate::container::{Container, NetworkMode, Seccomp};
use crate::errors::quote;
use crate::keys::ContainerKeys;
use crate::problems::{Problems, Span};
use crate::read::{At, Field, List, Table};
use crate::syntax::{Capability, SecurityOption, sysctl_fault};

/// The part of a [`Container`] that this module decides.
pub(super) struct Isolation {
    pub(super) cap_add: Vec<String>,
    pub(super) cap_drop: Vec<String>,
    pub(super) no_new_privileges: bool,
    pub(super) seccomp: Seccomp,
    pub(super) sysctls: Vec<(String, String)>,
    /// The places of the sysctls' names.
    pub(super) sysctl_places: Vec<Span>,
}

pub(super) fn isolation(
    keys: &ContainerKeys,
    network: NetworkMode,
    host_ipc: bool,
    problems: &mut Problems,
) -> Isolation {
    if let Some(field) = keys.privileged.as_ref().filter(|field| field.value.0) {
        problems
            .error(
                &field.key,
                "`privileged` would give the container the whole machine, PID 1's files and memory among it",
            )
            .help(
                "name what it needs instead: cap_add = [\"NET_ADMIN\"], devices = [\"/dev/kvm\"], \
                 security_opt = [\"seccomp=unconfined\"], userns_mode = \"host\"",
            );
    }
    let (sysctls, sysctl_places) = sysctls(keys, network, host_ipc, problems);
    let mut isolation = Isolation {
        cap_add: capabilities(keys.cap_add.as_ref(), problems),
        cap_drop: capabilities(keys.cap_drop.as_ref(), problems),
        no_new_privileges: true,
        seccomp: Seccomp::Default,
        sysctls,
        sysctl_places,
    };
    for name in keys.cap_add.iter().flat_map(|field| &field.value.0) {
        if name.value.0 != "ALL" && isolation.cap_drop.contains(&name.value.0) {
            problems
                .error(&name.span, format!("{} is both added and dropped", name.value.0))
                .help("leave out one or the other");
        }
    }
    check_reach(keys, network, problems);
    security_options(keys, &mut isolation, problems);
    isolation
}

fn capabilities(field: Option<&Field<List<Capability>>>, problems: &mut Problems) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in field.into_iter().flat_map(|field| &field.value.0) {
        if names.contains(&name.value.0) {
            problems.error(&name.span, format!("{} is given twice", name.value.0)).help("leave out one of them");
        } else {
            names.push(name.value.0.clone());
        }
    }
    names
}

/// A capability counts in the container's own user namespace, so that some have nothing there to act on. Only those are told of which that
/// holds whatever the program does: `SYS_ADMIN` can make namespaces in which others mean something.
fn check_reach(keys: &ContainerKeys, network: NetworkMode, problems: &mut Problems) {
    /// Those that the kernel asks for with `capable()`, which means the machine's own user namespace, and what they are about.
    const OF_MACHINE: [(&str, &str); 6] = [
        ("CAP_SYS_TIME", "the clock"),
        ("CAP_SYS_MODULE", "the kernel's modules"),
        ("CAP_SYS_RAWIO", "raw access to memory and disks"),
        ("CAP_SYSLOG", "the kernel's log"),
        ("CAP_SYS_PACCT", "process accounting"),
        ("CAP_BLOCK_SUSPEND", "the machine's sleep"),
    ];
    let added = keys.cap_add.iter().flat_map(|field| &field.value.0);
    let nests = added.clone().any(|name| matches!(name.value.0.as_str(), "ALL" | "CAP_SYS_ADMIN"));
    if nests || keys.given("userns_mode") {
        return;
    }
    for At { span, value } in added {
        let name = value.0.as_str();
        let about = match OF_MACHINE.iter().find(|(known, _)| *known == name) {
            Some((_, about)) => *about,
            None if name == "CAP_NET_ADMIN" && network == NetworkMode::Host && keys.network_mode.is_some() => {
                "the machine's network"
            }
            None => continue,
        };
        let name = name.trim_start_matches("CAP_");
        problems
            .error(span, format!("{name} has no effect on {about} from a container with ids of its own"))
            .help("add userns_mode = \"host\", which makes root in the container root of the machine; or leave the capability out");
    }
}

fn security_options(keys: &ContainerKeys, isolation: &mut Isolation, problems: &mut Problems) {
    let (mut privileges, mut seccomp) = (None, None);
    for option in keys.security_opt.iter().flat_map(|field| &field.value.0) {
        let first = match &option.value {
            SecurityOption::NoNewPrivileges(on) => {
                isolation.no_new_privileges = *on;
                privileges.replace(option.span.clone())
            }
            SecurityOption::Seccomp(choice) => {
                isolation.seccomp = choice.clone();
                seccomp.replace(option.span.clone())
            }
        };
        if let Some(first) = first {
            problems
                .error(&option.span, "this security option is given twice")
                .help("leave out one of them")
                .related(&first, "first given here");
        }
    }
}

/// Sysctls that belong to one of the container's own namespaces, with their places; all others are the machine's, whoever sets them.
fn sysctls(
    keys: &ContainerKeys,
    network: NetworkMode,
    host_ipc: bool,
    problems: &mut Problems,
) -> (Vec<(String, String)>, Vec<Span>) {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let (mut sysctls, mut places) = (Vec::new(), Vec::new());
    for (name, value) in keys.sysctls.iter().flat_map(|field| &field.value.0) {
        if let Some(fault) = sysctl_fault(&name.value) {
            fault.report(&name.span, problems);
            continue;
        }
        let of_network = name.value.starts_with("net.");
        let of_ipc = IPC.contains(&name.value.as_str()) || name.value.starts_with("fs.mqueue.");
        let (message, help) = if of_network && network == NetworkMode::Host {
            ("is the machine's, whose network this container shares", "set it in [system] `sysctls`")
        } else if of_ipc && host_ipc {
            ("is the machine's, whose message queues this container shares", "set it in [system] `sysctls`")
        } else if !of_network && !of_ipc {
            (
                "is the machine's, not a container's",
                "set it in [system] `sysctls`; a container's own are net.*, fs.mqueue.* and those of System V IPC",
            )
        } else {
            sysctls.push((name.value.clone(), value.value.clone()));
            places.push(name.span.clone());
            continue;
        };
        problems.error(&name.span, format!("the sysctl {} {message}", quote(&name.value))).help(help);
    }
    (sysctls, places)
}

/// What makes this container's isolation weaker than the default, in the declaration's words.
pub(super) fn weakened(container: &Container) -> Vec<String> {
    let mut weakened = Vec::new();
    let mut note = |condition: bool, words: &str| {
        if condition {
            weakened.push(words.to_owned());
        }
    };
    note(container.ids.is_none(), "userns_mode = \"host\"");
    note(container.network == NetworkMode::Host, "network_mode = \"host\"");
    note(container.host_pid, "pid = \"host\"");
    note(container.host_ipc, "ipc = \"host\"");
    note(container.host_uts, "uts = \"host\"");
    note(container.host_cgroup, "cgroup = \"host\"");
    note(!container.no_new_privileges, "security_opt = [\"no-new-privileges:false\"]");
    match &container.seccomp {
        Seccomp::Default => {}
        Seccomp::Unconfined => note(true, "security_opt = [\"seccomp=unconfined\"]"),
        Seccomp::Profile(path) => note(true, &format!("security_opt = [\"seccomp={}\"]", path.display())),
    }
    let list =
        |names: &mut dyn Iterator<Item = &str>| names.map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let added = list(&mut container.cap_add.iter().map(|name| name.strip_prefix("CAP_").unwrap_or(name)));
    note(!added.is_empty(), &format!("cap_add = [{added}]"));
    let devices = list(&mut container.devices.iter().map(|device| device.source.as_str()));
    note(!devices.is_empty(), &format!("devices = [{devices}]"));
    note(container.resources.pids == crate::container::Limit::Unlimited, "pids_limit = -1");
    weakened
}
