//! Device nodes: `SOURCE[:TARGET][:rwm]`.

use serde_json::{Value, json};

use super::mount::device_target;
use super::path::AbsolutePath;
use crate::container::Device;
use crate::errors::quote;
use crate::read::{Fault, Word};

/// One entry of `devices` in its short form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceEntry(pub(crate) Device);

/// The path of a device node on the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DevicePath(pub(crate) String);

/// What a container may do with a device: some of `r`, `w` and `m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Permissions {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) mknod: bool,
}

impl Default for Permissions {
    /// Docker's: everything.
    fn default() -> Self {
        Self { read: true, write: true, mknod: true }
    }
}

impl Word for DevicePath {
    const EXPECTED: &'static str = "the path of a device, such as \"/dev/kvm\"";

    fn parse(text: &str) -> Result<Self, Fault> {
        let path = AbsolutePath::parse(text)?.0;
        if path.starts_with("/dev/") {
            return Ok(Self(path));
        }
        Err(Fault::new(format!("{} isn't under /dev", quote(text)))
            .help("devices of the machine are under /dev, such as \"/dev/kvm\""))
    }

    fn word_schema() -> Value {
        json!({ "type": "string", "pattern": "^/+dev/" })
    }
}

impl Word for Permissions {
    const EXPECTED: &'static str = "permissions such as \"rwm\"";

    fn parse(text: &str) -> Result<Self, Fault> {
        let has = |letter| text.contains(letter);
        if text.is_empty() || text.len() > 3 || !text.bytes().all(|b| matches!(b, b'r' | b'w' | b'm')) {
            return Err(Fault::new(format!("{} isn't a set of permissions", quote(text)))
                .help("write some of `r` (read), `w` (write) and `m` (mknod), such as \"rw\""));
        }
        Ok(Self { read: has('r'), write: has('w'), mknod: has('m') })
    }

    fn word_schema() -> Value {
        json!({ "type": "string", "pattern": "^[rwm]{1,3}$" })
    }
}

impl Word for DeviceEntry {
    const EXPECTED: &'static str = "a device such as \"/dev/kvm\" or \"/dev/sda:/dev/xvdc:r\"";

    fn parse(text: &str) -> Result<Self, Fault> {
        let mut parts = text.split(':');
        let source = DevicePath::parse(parts.next().unwrap_or_default())?.0;
        let (target, permissions) = match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => (source.as_str(), Permissions::default()),
            (Some(word), None, _) if !word.starts_with('/') => (source.as_str(), Permissions::parse(word)?),
            (Some(target), None, _) => (target, Permissions::default()),
            (Some(target), Some(word), None) => (target, Permissions::parse(word)?),
            _ => {
                return Err(
                    Fault::new(format!("{} has too many parts", quote(text))).help("write \"SOURCE:TARGET:rwm\"")
                );
            }
        };
        let target = device_target(target)?;
        let Permissions { read, write, mknod } = permissions;
        Ok(Self(Device { source, target, read, write, mknod }))
    }

    fn word_schema() -> Value {
        json!({ "type": "string", "pattern": "^/+dev/[^:]+(:/[^:]*)?(:[rwm]{1,3})?$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        for (text, source, target, permissions) in [
            ("/dev/kvm", "/dev/kvm", "/dev/kvm", "rwm"),
            ("/dev/kvm:r", "/dev/kvm", "/dev/kvm", "r"),
            ("/dev/sda:/dev/xvdc", "/dev/sda", "/dev/xvdc", "rwm"),
            ("/dev/sda:/dev/xvdc:rw", "/dev/sda", "/dev/xvdc", "rw"),
        ] {
            let Permissions { read, write, mknod } = Permissions::parse(permissions).unwrap();
            let device = Device { source: source.into(), target: target.into(), read, write, mknod };
            assert_eq!(DeviceEntry::parse(text), Ok(DeviceEntry(device)), "{text}");
        }
        for text in ["/dev/urandom:/dev/random", "/dev/a:/dev/shm/a", "/dev/tty"] {
            assert!(DeviceEntry::parse(text).is_ok(), "{text:?}");
        }
        for text in [
            "",
            "kvm",
            "/etc/passwd",
            "/dev/../etc",
            "/dev/kvm:x",
            "/dev/kvm:",
            "/dev/a:/b:r:w",
            "/dev/a:/b:",
            "/dev/",
            "/dev/a:/",
            "/dev/a:/dev",
            "/dev/a:/dev/pts",
            "/dev/a:/dev/shm",
            "/dev/a:/dev/null/a",
            "/dev/a:/dev/stdin",
            "/dev/a:/proc/a",
            "/dev/pts/0",
        ] {
            assert!(DeviceEntry::parse(text).is_err(), "{text:?}");
        }
    }
}
