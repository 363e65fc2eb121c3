//! The kernel command line: what of it concerns Garboard.

use crate::boot::BootError;

/// The kernel's own limit is 2,048 bytes on x86; anything longer is not a command line.
const MAX_LENGTH: usize = 64 << 10;

/// What to do once the boot has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Power off: a person is watching, or a hypervisor should see the end.
    PowerOff,
    /// Start over: boot counting can then fall back to the other system slot.
    Reboot,
    /// Stay, with the message on the console.
    Halt,
}

impl Stop {
    fn parse(value: &str) -> Option<Self> {
        Some(match value {
            "poweroff" => Self::PowerOff,
            "reboot" => Self::Reboot,
            "halt" => Self::Halt,
            _ => return None,
        })
    }

    /// What `garboard.stop=` says on a command line that may be wrong otherwise: just then it matters.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes.get(..MAX_LENGTH).unwrap_or(bytes));
        words(&text).filter_map(|word| word.strip_prefix("garboard.stop=")).filter_map(Self::parse).last()
    }
}

/// The options PID 1 obeys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cmdline {
    /// `roothash=`: the root of the system partition's hash tree. `None` when absent.
    pub root_hash: Option<[u8; 32]>,
    /// `garboard.stop=poweroff|reboot|halt`: what to do when the boot fails.
    pub stop: Option<Stop>,
    /// `garboard.trace`: print the boot trace on the console once the first container runs.
    pub trace: bool,
    /// `MODULE.PARAMETER[=VALUE]` words, for modules loaded later (the kernel applies them to built-in code only).
    pub module_parameters: Vec<(String, String)>,
    /// `module_blacklist=NAME,NAME…`: modules that the kernel refuses to load.
    pub module_blacklist: Vec<String>,
}

impl Cmdline {
    /// Reads a command line. Unknown words are other programs' business; malformed ones of ours are errors.
    pub fn parse(bytes: &[u8]) -> Result<Self, BootError> {
        let fault = |word: &str, cause: &str| BootError::new("read the kernel command line", word, cause);
        if bytes.len() > MAX_LENGTH {
            return Err(fault("", "longer than 65,536 bytes"));
        }
        let text = String::from_utf8_lossy(bytes);
        let mut line = Self::default();
        for word in words(&text) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match name {
                "roothash" => {
                    let hash = parse_hash(value).ok_or_else(|| {
                        fault(word, "not a root hash").fix("roothash= takes the 64 hexadecimal digits from image.json")
                    })?;
                    line.root_hash = Some(hash);
                }
                "garboard.stop" => {
                    let stop = Stop::parse(value)
                        .ok_or_else(|| fault(word, "unknown action").fix("use poweroff, reboot or halt"))?;
                    line.stop = Some(stop);
                }
                "garboard.trace" => line.trace = true,
                "module_blacklist" => line.module_blacklist.extend(value.split(',').map(canonical)),
                _ if name.starts_with("garboard.") => {
                    return Err(fault(word, "unknown option").fix("known are garboard.stop= and garboard.trace"));
                }
                _ => {
                    if let Some((module, parameter)) = word.split_once('.').filter(|(m, _)| is_module_name(m)) {
                        line.module_parameters.push((canonical(module), parameter.to_owned()));
                    }
                }
            }
        }
        Ok(line)
    }

    /// Whether the kernel was told not to load this module.
    pub fn forbids(&self, module: &str) -> bool {
        self.module_blacklist.contains(&canonical(module))
    }

    /// The parameters given to a module, separated by blanks, as `finit_module(2)` takes them.
    pub fn parameters_of(&self, module: &str) -> String {
        let module = canonical(module);
        let given: Vec<&str> =
            self.module_parameters.iter().filter(|(m, _)| *m == module).map(|(_, p)| p.as_str()).collect();
        given.join(" ")
    }
}

/// Words are separated by blanks that stand outside double quotes; quotes stay part of their word, as the kernel passes them on.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    line.split(move |c: char| {
        quoted ^= c == '"';
        c.is_ascii_whitespace() && !quoted
    })
    .filter(|word| !word.is_empty())
}

/// The kernel treats `-` and `_` in module names alike.
fn canonical(module: &str) -> String {
    module.replace('-', "_")
}

fn is_module_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn takes_what_concerns_us() {
        let hash = "ab".repeat(32);
        let line = format!(
            "quiet console=ttyS0 roothash={hash} garboard.stop=halt virtio-mmio.device=512@0xfeb00000:5 virtio_mmio.device=512@0xfeb00200:6\n"
        );
        let line = Cmdline::parse(line.as_bytes()).unwrap();
        assert_eq!(line.root_hash, Some([0xab; 32]));
        assert_eq!(line.stop, Some(Stop::Halt));
        assert_eq!(line.parameters_of("virtio_mmio"), "device=512@0xfeb00000:5 device=512@0xfeb00200:6");
        assert_eq!(line.parameters_of("loop"), "");
    }

    #[test]
    fn forbidden_modules_are_known() {
        let line = Cmdline::parse(b"module_blacklist=dm-verity,erofs module_blacklist=ext4").unwrap();
        assert!(["dm_verity", "dm-verity", "erofs", "ext4"].iter().all(|name| line.forbids(name)));
        assert!(!line.forbids("overlay"));
    }

    #[test]
    fn quotes_keep_blanks_together() {
        let line = Cmdline::parse(br#"a="x garboard.stop=halt" dyndbg.x="1 2""#).unwrap();
        assert_eq!(line.stop, None);
        assert_eq!(line.parameters_of("dyndbg"), r#"x="1 2""#);
    }

    #[test]
    fn malformed_options_of_ours_are_named() {
        for (text, word) in
            [("roothash=12", "roothash=12"), ("garboard.stop=now", "garboard.stop=now"), ("garboard.x", "garboard.x")]
        {
            let error = Cmdline::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.object, word);
            assert!(!error.fix.is_empty());
            // What is to be done then is known all the same.
            assert_eq!(Stop::of(format!("{text} garboard.stop=halt quiet").as_bytes()), Some(Stop::Halt));
            assert_eq!(Stop::of(text.as_bytes()), None);
        }
        assert!(Cmdline::parse(&vec![b'a'; MAX_LENGTH + 1]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_handled(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let _ = Cmdline::parse(&bytes);
        }
    }
}
