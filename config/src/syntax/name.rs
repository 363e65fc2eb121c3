//! Names of things.

use serde_json::{Value, json};

use crate::errors::quote;
use crate::read::{Fault, Word};

/// The longest host name label and file-name-like name, in bytes.
const LONGEST: usize = 63;

/// Declares a string type whose text matches a rule.
macro_rules! names {
    ($( $(#[doc = $doc:literal])+ $name:ident: $what:literal, $rule:expr, $pattern:literal, $help:literal; )*) => { $(
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) struct $name(pub(crate) String);

        impl Word for $name {
            const EXPECTED: &'static str = $what;

            fn parse(text: &str) -> Result<Self, Fault> {
                let rule: fn(&str) -> bool = $rule;
                if rule(text) {
                    return Ok(Self(text.to_owned()));
                }
                Err(Fault::new(format!("{} isn't {}", quote(text), $what)).help($help))
            }

            fn word_schema() -> Value {
                json!({ "type": "string", "pattern": $pattern })
            }
        }
    )* };
}

names! {
    /// An appliance: a host name label in lower case.
    MachineName: "a name for an appliance",
    |text| is_label(text) && !text.bytes().any(|b| b.is_ascii_uppercase()),
    "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
    "write at most 63 lower-case letters, digits and `-`, beginning and ending with a letter or digit";

    /// A container.
    ContainerName: "a name for a container",
    |text| is_file_name(text) && !text.bytes().any(|b| b.is_ascii_uppercase()),
    "^[a-z0-9][a-z0-9_.-]{0,62}$",
    "write at most 63 lower-case letters, digits, `_`, `.` and `-`, beginning with a letter or digit";

    /// A pod: also its containers' host name.
    PodName: "a name for a pod",
    is_label,
    "^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$",
    "write at most 63 letters, digits and `-`, beginning and ending with a letter or digit";

    /// A volume.
    VolumeName: "a name for a volume",
    is_file_name,
    "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$",
    "write at most 63 letters, digits, `_`, `.` and `-`, beginning with a letter or digit";

    /// A host name: labels with dots between. At most 64 bytes, which is what the kernel keeps. As in Compose, `_` passes.
    HostName: "a host name",
    |text| text.len() <= 64 && are_labels(text),
    "^[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?$",
    "write at most 64 letters, digits, `-` and `.`, such as \"web\" or \"web.example.org\"";

    /// A name of any host: labels as before, as long as the DNS has names.
    AnyHostName: "a host name",
    |text| text.len() <= 253 && are_labels(text),
    "^[A-Za-z0-9]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?$",
    "write at most 253 letters, digits, `-` and `.`, such as \"db\" or \"db.example.org\"";

    /// A network interface: 15 bytes at most, no slash, no space, no colon (`dev_valid_name` in Linux).
    InterfaceName: "a name of a network interface",
    |text| (1..=15).contains(&text.len()) && !matches!(text, "." | "..")
        && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':')),
    "^[!-~]{1,15}$",
    "write at most 15 characters, such as \"eth0\"";
}

fn are_labels(text: &str) -> bool {
    text.split('.').all(|label| is_label(&label.replace('_', "-")))
}

fn is_label(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_file_name(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// What is wrong with a container's name if its control group would lie where the kernel has a file, or a later one may. (`*_cftypes` in Linux: a
/// controller's name, a dot and the file's.)
pub(crate) fn cgroup_fault(name: &str) -> Option<Fault> {
    const OWNERS: [&str; 11] =
        ["cgroup", "cpu", "cpuset", "dmem", "hugetlb", "io", "irq", "memory", "misc", "pids", "rdma"];
    let owner = name.split_once('.').map(|(owner, _)| owner).filter(|owner| OWNERS.contains(owner))?;
    Some(
        Fault::new(format!(
            "{} is how the kernel calls a file of control groups, among which the container's own is",
            quote(name)
        ))
        .help(format!("choose a name that doesn't begin with `{owner}.`")),
    )
}

/// What is wrong with the dotted name of a sysctl, if anything.
pub(crate) fn sysctl_fault(name: &str) -> Option<Fault> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b':');
    let good = name.len() <= 255
        && name.split('.').count() >= 2
        && name.split('.').all(|part| !part.is_empty() && part.bytes().all(allowed));
    if good {
        return None;
    }
    Some(
        Fault::new(format!("{} isn't the name of a sysctl", quote(name)))
            .help("write it with dots, such as \"net.core.somaxconn\""),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_rules() {
        let long = "x".repeat(64);
        for (text, machine, container, volume, host) in [
            ("web", true, true, true, true),
            ("web-1", true, true, true, true),
            ("1", true, true, true, true),
            ("web.1_x", false, true, true, true),
            ("Web", false, false, true, true),
            ("web-", false, true, true, false),
            ("-web", false, false, false, false),
            (".web", false, false, false, false),
            ("we b", false, false, false, false),
            ("wéb", false, false, false, false),
            ("a/b", false, false, false, false),
            ("", false, false, false, false),
            ("..", false, false, false, false),
            (long.as_str(), false, false, false, false),
        ] {
            assert_eq!(MachineName::parse(text).is_ok(), machine, "machine {text:?}");
            assert_eq!(ContainerName::parse(text).is_ok(), container, "container {text:?}");
            assert_eq!(VolumeName::parse(text).is_ok(), volume, "volume {text:?}");
            assert_eq!(HostName::parse(text).is_ok(), host, "host {text:?}");
        }
        for (text, good) in [("eth0", true), ("", false), ("..", false), ("a/b", false), ("sixteen-bytes-xx", false)] {
            assert_eq!(InterfaceName::parse(text).is_ok(), good, "interface {text:?}");
        }
        for (text, good) in
            [("memory.max", false), ("cgroup.procs", false), ("cpu", true), ("cpus.x", true), ("a.cpu.b", true)]
        {
            assert_eq!(cgroup_fault(text).is_none(), good, "{text:?}");
        }
        for (text, good) in [
            ("net.core.somaxconn", true),
            ("net/ipv4/ip_forward", false),
            ("kernel", false),
            ("net..core", false),
            ("net.../x", false),
            ("", false),
        ] {
            assert_eq!(sysctl_fault(text).is_none(), good, "sysctl {text:?}");
        }
    }
}
