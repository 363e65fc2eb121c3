//! Finds out how QEMU can execute instructions here: by KVM, if that really works, else by translation.
//!
//! `/dev/kvm` that can be opened proves little: nested virtualisation may accept a machine and then never run it. So a kernel is
//! booted under KVM with a time limit, once; the answer is kept in the user's cache directory, "no" for a day only: the computer
//! may just have been busy.

use std::fmt;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::sys;

/// Time in which a kernel under KVM comes to its end for want of a root filesystem. It takes a fifth of that on a slow computer.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// How long "KVM doesn't work" is believed.
const NO_LASTS: Duration = Duration::from_secs(24 * 3600);

/// How QEMU executes the machine's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// By the processor.
    Kvm,
    /// By translation: everywhere, and some ten times slower.
    Tcg,
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

impl FromStr for Accel {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "kvm" => Ok(Self::Kvm),
            "tcg" => Ok(Self::Tcg),
            _ => Err(format!("unknown accelerator '{text}': there are kvm and tcg")),
        }
    }
}

impl Accel {
    /// `GARBOARD_ACCEL`, or else KVM if `kernel` boots under it, or else TCG.
    ///
    /// # Errors
    /// If `GARBOARD_ACCEL` is neither `kvm` nor `tcg`.
    pub fn choose(qemu: &Path, kernel: &Path) -> Result<Self> {
        match std::env::var("GARBOARD_ACCEL") {
            Ok(text) => return text.parse().map_err(|e| Error::Unsuitable(format!("GARBOARD_ACCEL: {e}"))),
            Err(std::env::VarError::NotUnicode(_)) => {
                return Err(Error::Unsuitable("GARBOARD_ACCEL: kvm or tcg".into()));
            }
            Err(std::env::VarError::NotPresent) => {}
        }
        static CHOICE: OnceLock<Accel> = OnceLock::new();
        Ok(*CHOICE.get_or_init(|| find_out(qemu, kernel)))
    }
}

fn find_out(qemu: &Path, kernel: &Path) -> Accel {
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Accel::Tcg;
    }
    let cache = cache_file(qemu);
    if let Some(known) = cache.as_deref().and_then(remembered) {
        return known;
    }
    let found = if kvm_boots(qemu, kernel) { Accel::Kvm } else { Accel::Tcg };
    // Not being able to remember costs the next run a few seconds, no more.
    if let Some(path) = cache {
        let _ = path.parent().map(fs::create_dir_all);
        let _ = fs::write(path, format!("{found}\n"));
    }
    found
}

/// The answer of an earlier run, if it is still good.
fn remembered(cache: &Path) -> Option<Accel> {
    let known = fs::read_to_string(cache).ok()?.trim().parse().ok()?;
    let age = fs::metadata(cache).ok()?.modified().ok()?.elapsed().unwrap_or_default();
    (known == Accel::Kvm || age < NO_LASTS).then_some(known)
}

/// Whether `kernel`, without an initrd, comes as far as panicking about that.
fn kvm_boots(qemu: &Path, kernel: &Path) -> bool {
    let mut command = Command::new(qemu);
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35", "-accel", "kvm"])
        .args(["-cpu", "host", "-m", "256M", "-serial", "stdio", "-append", "earlyprintk=ttyS0 console=ttyS0 panic=-1"])
        .arg("-kernel")
        .arg(kernel)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    // Ctrl-C on a terminal would end it as if it had booted nothing.
    command.process_group(0);
    sys::kill_with_parent(&mut command);
    let Ok(mut child) = command.spawn() else { return false };
    let output = child.stdout.take().map(|mut pipe| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = pipe.read_to_end(&mut text);
            text
        })
    });
    let ended = ends_within(&mut child, PROBE_LIMIT);
    let _ = child.kill();
    let _ = child.wait();
    let text = output.and_then(|thread| thread.join().ok()).unwrap_or_default();
    ended && text.windows(13).any(|window| window == b"Linux version")
}

fn ends_within(child: &mut std::process::Child, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if child.try_wait().is_ok_and(|status| status.is_some_and(|status| status.success())) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// Where the answer is kept: one file per kernel, processor and QEMU, all of which it depends on.
fn cache_file(qemu: &Path) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let mut hasher = DefaultHasher::new();
    fs::read("/proc/version").ok()?.hash(&mut hasher);
    let cpu = fs::read_to_string("/proc/cpuinfo").ok()?;
    cpu.lines().find(|line| line.starts_with("model name")).hash(&mut hasher);
    qemu.hash(&mut hasher);
    fs::metadata(qemu).ok()?.modified().ok()?.hash(&mut hasher);
    Some(cache.join("garboard").join(format!("accel-{:016x}", hasher.finish())))
}

/// Rate of the time stamp counter in kHz, measured: the processor's current clock rate in /proc/cpuinfo is another thing.
///
/// Under TCG a machine sees this computer's own counter.
pub fn tsc_khz() -> u64 {
    static RATE: OnceLock<u64> = OnceLock::new();
    *RATE.get_or_init(|| {
        let (start, first) = moment();
        std::thread::sleep(Duration::from_millis(50));
        let (end, last) = moment();
        let elapsed = end.duration_since(start).as_nanos().max(1);
        (u128::from(last.wrapping_sub(first)) * 1_000_000 / elapsed) as u64
    })
}

/// One moment by the clock and by the counter. A busy computer lets time pass between the two, which would make a machine's clock
/// go wrong by as much of the time it is measured in; so of several tries the quickest counts.
fn moment() -> (Instant, u64) {
    let one = |_| {
        let (time, stamp) = (Instant::now(), sys::time_stamp());
        (time.elapsed(), (time, stamp))
    };
    let quickest = (0..20).map(one).min_by_key(|(took, _)| *took);
    quickest.map_or_else(|| (Instant::now(), sys::time_stamp()), |(_, moment)| moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_understood() {
        assert_eq!("kvm".parse(), Ok(Accel::Kvm));
        assert_eq!(Accel::Tcg.to_string().parse(), Ok(Accel::Tcg));
        assert!("hvf".parse::<Accel>().unwrap_err().contains("kvm and tcg"));
    }

    #[test]
    fn no_is_asked_again_the_next_day() {
        let cache = tempfile::NamedTempFile::new().unwrap();
        let written = |text: &str, ago: Duration| {
            fs::write(cache.path(), text).unwrap();
            cache.as_file().set_modified(std::time::SystemTime::now() - ago).unwrap();
            remembered(cache.path())
        };
        assert_eq!(written("tcg\n", NO_LASTS / 2), Some(Accel::Tcg));
        assert_eq!(written("tcg\n", NO_LASTS * 2), None);
        assert_eq!(written("kvm\n", NO_LASTS * 2), Some(Accel::Kvm));
        assert_eq!(written("", Duration::ZERO), None);
    }

    #[test]
    fn clock_rate_is_a_plausible_one() {
        assert!((500_000..10_000_000).contains(&tsc_khz()), "{}", tsc_khz());
    }

    #[test]
    fn a_program_that_hangs_or_fails_is_not_kvm() {
        assert!(!kvm_boots(Path::new("/nonexistent/qemu"), Path::new("k")));
        assert!(!kvm_boots(Path::new("/bin/true"), Path::new("k")));
        let started = Instant::now();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(!ends_within(&mut child, Duration::from_millis(200)));
        assert!(started.elapsed() < Duration::from_secs(5));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
