//! Capability names, `linux/capability.h`.

use serde_json::{Value, json};

use crate::errors::quote;
use crate::read::{Fault, Word, nearest};

/// A capability as `CAP_…`, or `ALL`. Written with or without `CAP_`, in either case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Capability(pub(crate) String);

/// Without `CAP_`, in the order of their numbers.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl Word for Capability {
    const EXPECTED: &'static str = "a capability such as \"NET_ADMIN\"";

    fn parse(text: &str) -> Result<Self, Fault> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if upper == "ALL" {
            return Ok(Self(upper));
        }
        if NAMES.contains(&name) {
            return Ok(Self(format!("CAP_{name}")));
        }
        let fault = Fault::new(format!("{} isn't a capability", quote(text)));
        Err(match nearest(name, NAMES) {
            Some(name) => fault.help(format!("did you mean \"{name}\"?")),
            None => fault.help("capabilities(7) lists them; write \"NET_ADMIN\" or \"CAP_NET_ADMIN\", or \"ALL\""),
        })
    }

    fn word_schema() -> Value {
        json!({ "type": "string", "pattern": format!("^(?:[Aa][Ll][Ll]|(?:[Cc][Aa][Pp]_)?(?:{}))$", any_case()) })
    }
}

/// A pattern for the names in either case: JSON Schema's patterns have no flag for that.
fn any_case() -> String {
    let letter = |c: char| match c {
        '_' => "_".to_owned(),
        c => format!("[{c}{}]", c.to_ascii_lowercase()),
    };
    NAMES.map(|name| name.chars().map(letter).collect::<String>()).join("|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_every_spelling() {
        for text in ["NET_ADMIN", "CAP_NET_ADMIN", "cap_net_admin", "net_admin"] {
            assert_eq!(Capability::parse(text), Ok(Capability("CAP_NET_ADMIN".into())), "{text}");
        }
        assert_eq!(Capability::parse("all"), Ok(Capability("ALL".into())));
        assert_eq!(Capability::parse("NET_ADMN").unwrap_err().help.unwrap(), "did you mean \"NET_ADMIN\"?");
        for text in ["", "CAP_", "CAP_ALL", "CAP_CAP_CHOWN"] {
            assert!(Capability::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!(NAMES[21], "SYS_ADMIN");
        assert_eq!(NAMES[40], "CHECKPOINT_RESTORE");
    }
}
