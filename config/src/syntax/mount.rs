//! Volumes `NAME:TARGET[:OPTIONS]` and tmpfs mounts `TARGET[:OPTIONS]`.

use serde_json::{Value, json};

use super::digits::decimal;
use super::id::LARGEST as LARGEST_ID;
use super::name::VolumeName;
use super::path::AbsolutePath;
use super::size::Bytes;
use crate::container::Tmpfs;
use crate::errors::quote;
use crate::read::{Fault, Word};

/// One entry of `volumes` in its short form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumeShort {
    pub(crate) name: String,
    pub(crate) target: String,
    pub(crate) read_only: bool,
    pub(crate) nocopy: bool,
}

/// One entry of `tmpfs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TmpfsEntry {
    pub(crate) target: String,
    pub(crate) options: Tmpfs,
    pub(crate) read_only: bool,
}

/// Permission bits: an octal string, or an octal number (`0o1777`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mode(pub(crate) u32);

impl Word for Mode {
    const EXPECTED: &'static str = "permission bits such as \"1777\"";

    fn parse(text: &str) -> Result<Self, Fault> {
        let digits = (1..=5).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o7777).map(Self).ok_or_else(|| {
            Fault::new(format!("{} isn't a set of permission bits", quote(text)))
                .help("write them in octal, such as \"1777\" or \"0755\"")
        })
    }

    fn from_integer(number: i64) -> Option<Result<Self, Fault>> {
        let mode = u32::try_from(number).ok().filter(|mode| *mode <= 0o7777).map(Self);
        Some(mode.ok_or_else(|| {
            Fault::new("permission bits are from 0o0 to 0o7777").help("write them in octal, such as 0o1777")
        }))
    }

    fn from_digits(number: i64, radix: u32) -> Option<Result<Self, Fault>> {
        if radix == 8 || number == 0 {
            return Self::from_integer(number);
        }
        // TOML has no `0755`, so this is nearly always meant to be octal.
        let fault = Fault::new("permission bits are written in octal");
        let digits = number.to_string();
        Some(Err(match Self::parse(&digits) {
            Ok(_) if radix == 10 => fault.help(format!("write 0o{digits} or \"{digits}\"")),
            _ => fault.help("write them such as 0o1777 or \"1777\""),
        }))
    }

    fn word_schema() -> Value {
        json!({ "anyOf": [
            { "type": "string", "pattern": "^[0-7]{1,5}$" },
            { "type": "integer", "minimum": 0, "maximum": 0o7777 },
        ] })
    }
}

impl Word for VolumeShort {
    const EXPECTED: &'static str = "a volume such as \"data:/var/lib/app\"";

    fn parse(text: &str) -> Result<Self, Fault> {
        if text.starts_with(['.', '~']) || (text.starts_with('/') && text.contains(':')) {
            return Err(bind_fault(text));
        }
        let mut parts = text.split(':');
        let (Some(name), target, options, None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(Fault::new(format!("{} has too many parts", quote(text)))
                .help("write \"NAME:/path\" or \"NAME:/path:ro\""));
        };
        let Some(target) = target else {
            let fault = Fault::new(format!("{} isn't a volume with a path", quote(text)));
            return Err(match name.starts_with('/') {
                true => fault.help(format!("give it a name (\"NAME:{name}\", with a table [volumes.NAME]), or use tmpfs if nothing is to be kept")),
                false => fault.help(format!("write \"{name}:/path/in/the/container\"")),
            });
        };
        let name = VolumeName::parse(name)?.0;
        let target = mount_target(target)?;
        let (mut read_only, mut nocopy) = (false, false);
        for option in options.into_iter().flat_map(|options| options.split(',')) {
            match option {
                "ro" => read_only = true,
                "rw" => read_only = false,
                "nocopy" => nocopy = true,
                "z" | "Z" => {
                    return Err(
                        Fault::new(format!("the volume option {} needs SELinux", quote(option))).help("leave it out")
                    );
                }
                _ => {
                    return Err(Fault::new(format!("unknown volume option {}", quote(option)))
                        .help("the options are: ro, rw, nocopy"));
                }
            }
        }
        Ok(Self { name, target, read_only, nocopy })
    }

    fn word_schema() -> Value {
        json!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}:/[^:]*(:(ro|rw|nocopy)(,(ro|rw|nocopy))*)?$" })
    }
}

/// Why a directory of the machine isn't mounted.
fn bind_fault(text: &str) -> Fault {
    Fault::new(format!("{} is a directory of the machine, and an appliance has none to share", quote(text))).help(
        "put files that never change into the image; for those that do, declare a volume: a table [volumes.NAME], \
         and \"NAME:/path\" here",
    )
}

/// What the runtime puts into every `/dev`: nodes, and links and filesystems that no device can take the place of.
const NODES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];
const TAKEN: [&str; 7] = ["fd", "mqueue", "ptmx", "pts", "stderr", "stdin", "stdout"];

/// A mount's target: not the root, not where the container's isolation lies, and nothing that every `/dev` has. Memory of another size
/// or a volume can be mounted on `/dev/shm`.
pub(crate) fn mount_target(text: &str) -> Result<String, Fault> {
    target(text, |name, _| NODES.contains(&name))
}

/// A device's target: as a mount's, but a node may take the place of one that is there anyway, and none of a directory.
pub(crate) fn device_target(text: &str) -> Result<String, Fault> {
    target(text, |name, beneath| if beneath { NODES.contains(&name) } else { name == "shm" })
}

/// `taken`: whether a name in `/dev`, or what would lie beneath it, is taken besides [`TAKEN`].
fn target(text: &str, taken: fn(&str, bool) -> bool) -> Result<String, Fault> {
    let path = AbsolutePath::parse(text)?.0;
    if let Some(rest) = path.strip_prefix("/dev").filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        let (name, beneath) = rest
            .trim_start_matches('/')
            .split_once('/')
            .map_or((rest.trim_start_matches('/'), false), |(name, _)| (name, true));
        if name.is_empty() || TAKEN.contains(&name) || taken(name, beneath) {
            return Err(Fault::new(format!(
                "nothing can be put at {}: it belongs to every container's /dev",
                quote(&path)
            ))
            .help("choose another path"));
        }
    }
    if path == "/" {
        return Err(Fault::new("nothing can be mounted over the container's root").help("name a directory beneath it"));
    }
    match ["/proc", "/sys"]
        .iter()
        .find(|top| path == **top || path.strip_prefix(**top).is_some_and(|rest| rest.starts_with('/')))
    {
        Some(top) => Err(Fault::new(format!("nothing can be mounted in {top}"))
            .help("the container's isolation depends on it; choose another path")),
        None => Ok(path),
    }
}

impl Word for TmpfsEntry {
    const EXPECTED: &'static str = "a path with options, such as \"/run:size=16m,mode=755\"";

    fn parse(text: &str) -> Result<Self, Fault> {
        let (target, options) = match text.split_once(':') {
            Some((target, options)) => (target, Some(options)),
            None => (text, None),
        };
        let target = mount_target(target)?;
        let mut entry = Self { target, options: Tmpfs::default(), read_only: false };
        for option in options.into_iter().flat_map(|options| options.split(',')) {
            entry.apply(option)?;
        }
        Ok(entry)
    }

    fn word_schema() -> Value {
        json!({ "type": "string", "pattern": "^/[^:]*(:[A-Za-z0-9=., ]*)?$" })
    }
}

impl TmpfsEntry {
    fn apply(&mut self, option: &str) -> Result<(), Fault> {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let id = |text: &str| {
            decimal(text).filter(|id| *id <= LARGEST_ID).ok_or_else(|| {
                Fault::new(format!("{} isn't an id", quote(text)))
                    .help(format!("write a number from 0 to {LARGEST_ID}"))
            })
        };
        match key {
            "size" => match Bytes::parse(value)?.0 {
                0 => return Err(no_room()),
                size => self.options.size = Some(size),
            },
            "mode" => self.options.mode = Some(Mode::parse(value)?.0),
            "uid" => self.options.uid = Some(id(value)?),
            "gid" => self.options.gid = Some(id(value)?),
            "noexec" => self.options.exec = false,
            "exec" => self.options.exec = true,
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            // What always holds.
            "nosuid" | "nodev" => {}
            "suid" | "dev" => {
                return Err(Fault::new(format!("the tmpfs option {} isn't allowed", quote(option)))
                    .help("nosuid and nodev always hold; leave it out"));
            }
            _ => {
                return Err(Fault::new(format!("unknown tmpfs option {}", quote(option))).help(
                    "the options are: size=SIZE, mode=OCTAL, uid=N, gid=N, noexec, exec, ro, rw, nosuid, nodev",
                ));
            }
        }
        Ok(())
    }
}

/// The kernel takes a size of 0 for no limit.
pub(crate) fn no_room() -> Fault {
    Fault::new("a tmpfs can't have the size 0")
        .help("write a size such as \"16m\", or leave it out for half the memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        for (text, name, target, read_only, nocopy) in [
            ("data:/var/lib/x", "data", "/var/lib/x", false, false),
            ("data:/x/:ro", "data", "/x", true, false),
            ("data:/x:rw,nocopy", "data", "/x", false, true),
        ] {
            let expected = VolumeShort { name: name.into(), target: target.into(), read_only, nocopy };
            assert_eq!(VolumeShort::parse(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "data",
            "/x",
            "./a:/x",
            "~/a:/x",
            "/a:/x",
            "data:x",
            "data:/",
            "data:/proc",
            "data:/sys/fs",
            "data:/dev",
            "data:/dev/null",
            "data:/dev/pts/x",
            "data:/../x",
            "data:/x:z",
            "data:/x:foo",
            "data:/x:ro:rw",
            "-a:/x",
            "data:",
            "data:/x:",
        ] {
            assert!(VolumeShort::parse(text).is_err(), "{text:?}");
        }
        for text in ["data:/process", "data:/devices", "data:/dev/x", "data:/dev/shm", "data:/dev/shm/x"] {
            assert!(VolumeShort::parse(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn tmpfs() {
        let entry = TmpfsEntry::parse("/run:size=16m,mode=0755,uid=1,gid=2,noexec,ro,nosuid").unwrap();
        let options = Tmpfs { size: Some(16 << 20), mode: Some(0o755), uid: Some(1), gid: Some(2), exec: false };
        assert_eq!(entry, TmpfsEntry { target: "/run".into(), options, read_only: true });
        assert!(!TmpfsEntry::parse("/run").unwrap().options.exec, "as with Docker");
        assert!(TmpfsEntry::parse("/run:exec").unwrap().options.exec);
        for text in [
            "",
            "run",
            "/",
            "/run:",
            "/run:size",
            "/run:size=x",
            "/run:size=0",
            "/run:size=0.0001k",
            "/run:mode=9",
            "/run:mode=77777",
            "/run:mode=000755",
            "/run:uid=a",
            "/run:uid=4294967295",
            "/run:gid=+1",
            "/run:suid",
            "/run:huge=always",
        ] {
            assert!(TmpfsEntry::parse(text).is_err(), "{text:?}");
        }
    }
}
