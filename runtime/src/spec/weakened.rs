//! What makes a container weaker than the defaults, in words for the console.

use oci_spec::runtime::Capability;

use super::{NamespaceChoice, Options, SeccompChoice, capabilities};

/// One sentence part per weakening, in a fixed order.
pub(super) fn list(options: &Options, held: &[Capability]) -> Vec<String> {
    let mut words = Vec::new();
    if options.ids.is_none() {
        words.push("user namespace of the machine".to_owned());
    }
    let namespaces = [
        ("pid", &options.pid),
        ("network", &options.network),
        ("ipc", &options.ipc),
        ("uts", &options.uts),
        ("cgroup", &options.cgroup),
    ];
    for (name, choice) in namespaces {
        if *choice == NamespaceChoice::Host {
            words.push(format!("{name} namespace of the machine"));
        }
    }
    let more: Vec<String> =
        held.iter().filter(|c| !capabilities::DEFAULT.contains(c)).map(|c| format!("CAP_{c}")).collect();
    if !more.is_empty() {
        words.push(format!("more capabilities: {}", more.join(" ")));
    }
    match options.seccomp {
        SeccompChoice::Default => {}
        SeccompChoice::Unconfined => words.push("no system call filter".to_owned()),
        SeccompChoice::Profile(_) => words.push("own system call filter".to_owned()),
    }
    if !options.no_new_privileges {
        words.push("new privileges allowed".to_owned());
    }
    if options.masked_paths.is_some() {
        words.push("own list of masked paths".to_owned());
    }
    if options.readonly_paths.is_some() {
        words.push("own list of read-only paths".to_owned());
    }
    if !options.devices.is_empty() {
        let devices: Vec<&str> = options.devices.iter().map(|d| d.source.as_str()).collect();
        words.push(format!("devices of the machine: {}", devices.join(" ")));
    }
    words
}
