//! Containers' directories that an earlier boot has left: their state, kept in memory, went with that boot, so nobody else will
//! ever remove them.
//!
//! A directory's name says which boot made it. One of another boot can't belong to a living container, unless another machine
//! uses the same place: filesystems that several machines can have are left alone.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::fs::{Dir, FlockOperation, Mode, ResolveFlags};
use rustix::io::Errno;

use super::kept::PREFIX;
use super::removal;
use crate::container::error::{During, Error, Result};
use crate::failure::Failure;
use crate::launch::IdMap;

/// A new container waits for it no longer; the next one's goes on.
const LONGEST: Duration = Duration::from_secs(1);
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Filesystems of disks and of memory, which one machine has (statfs(2)): ext, XFS, Btrfs, F2FS, ZFS, tmpfs, and overlay, which
/// keeps nothing elsewhere.
const OF_ONE_MACHINE: [u32; 7] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x2fc1_2fc1, 0x0102_1994, 0x794c_7630];

/// This boot's name, 32 hexadecimal digits.
pub(super) fn boot() -> Result<String> {
    let text = std::fs::read_to_string(BOOT_ID).during(|| format!("read {BOOT_ID}"))?;
    let boot: String = text.trim().chars().filter(|letter| *letter != '-').collect();
    if is_hexadecimal(boot.as_bytes(), 32) {
        return Ok(boot);
    }
    Err(Error::new(format!("read {BOOT_ID}: {:?} names no boot", text.trim())))
}

/// Removes from `place` the directories of other boots than `boot`, as far as time allows. What other ids own in them goes if
/// they are among `ids`. Returns what a person should know.
pub(super) fn clear(place: &str, boot: &str, ids: Option<&IdMap>) -> Option<String> {
    let until = Instant::now() + LONGEST;
    let mut told = None;
    let mut clear = || -> std::result::Result<(), Errno> {
        let place = rustix::fs::open(place, removal::DIRECTORY, Mode::empty())?;
        if !is_of_one_machine(place.as_fd()) {
            return Ok(());
        }
        for entry in Dir::read_from(&place)? {
            let entry = entry?;
            if Instant::now() > until {
                break;
            }
            let name = entry.file_name().to_bytes();
            let Some(name) = std::str::from_utf8(name).ok().filter(|name| is_of_another(name, boot)) else { continue };
            match remove(place.as_fd(), name, ids, until) {
                Ok(()) => {}
                Err(failure) if told.is_none() => told = Some(failure),
                Err(_) => {}
            }
        }
        Ok(())
    };
    // A place that can't be read is the next step's to name.
    let _ = clear();
    told.map(|failure| format!("layers: in {place} stays what an earlier boot has left: {failure}"))
}

/// One of them, unless another process is at it.
fn remove(place: BorrowedFd<'_>, name: &str, ids: Option<&IdMap>, until: Instant) -> std::result::Result<(), Failure> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    // Also one that isn't a directory, or that is mounted on: nothing that this program makes.
    let Ok(own) = rustix::fs::openat2(place, name, removal::DIRECTORY, Mode::empty(), how) else { return Ok(()) };
    if rustix::fs::flock(&own, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    removal::remove(place, name, own.as_fd(), ids, Some(until))
}

/// Whether it is `garboard-BOOT-ID-RANDOM` of another boot.
fn is_of_another(name: &str, boot: &str) -> bool {
    let parts = name.strip_prefix(PREFIX).and_then(|rest| {
        let (made, rest) = rest.split_once('-')?;
        let (id, random) = rest.rsplit_once('-')?;
        Some((made, id, random))
    });
    parts.is_some_and(|(made, id, random)| {
        is_hexadecimal(made.as_bytes(), 32) && !id.is_empty() && is_hexadecimal(random.as_bytes(), 16) && made != boot
    })
}

fn is_hexadecimal(text: &[u8], length: usize) -> bool {
    text.len() == length && text.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_of_one_machine(place: BorrowedFd<'_>) -> bool {
    let kind = rustix::fs::fstatfs(place).ok().and_then(|fs| u32::try_from(fs.f_type).ok());
    kind.is_some_and(|kind| OF_ONE_MACHINE.contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "0123456789abcdef0123456789abcdef";
    const THEIRS: &str = "fedcba9876543210fedcba9876543210";

    #[test]
    fn only_what_another_boot_has_made_is_stale() {
        assert!(is_of_another(&format!("garboard-{THEIRS}-web-0011223344556677"), OURS));
        assert!(is_of_another(&format!("garboard-{THEIRS}-a-b-c-0011223344556677"), OURS));
        for other in [
            format!("garboard-{OURS}-web-0011223344556677"),
            format!("garboard-{OURS}-{THEIRS}-0011223344556677"),
            format!("garboard-{THEIRS}-0011223344556677"),
            format!("garboard-{THEIRS}--0011223344556677"),
            format!("garboard-{THEIRS}-web-001122334455667"),
            format!("garboard-{THEIRS}-web-001122334455667g"),
            format!("garboard-{}-web-0011223344556677", THEIRS.to_uppercase()),
            format!("garboard-{}-web-0011223344556677", &THEIRS[1..]),
            format!("{THEIRS}-web-0011223344556677"),
            format!("old-garboard-{THEIRS}-web-0011223344556677"),
            "garboard-web".to_owned(),
            "garboard-".to_owned(),
            String::new(),
        ] {
            assert!(!is_of_another(&other, OURS), "{other}");
        }
    }

    #[test]
    fn a_boot_has_a_name() {
        let name = boot().unwrap();
        assert_eq!(name.len(), 32);
        assert_eq!(boot().unwrap(), name);
    }

    #[test]
    fn time_ends_it_and_the_next_goes_on() {
        let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
        let name = format!("garboard-{THEIRS}-web-0011223344556677");
        std::fs::create_dir_all(scratch.path().join(&name).join("upper/deep")).unwrap();
        let place = rustix::fs::open(scratch.path(), removal::DIRECTORY, Mode::empty()).unwrap();
        let over = remove(place.as_fd(), &name, None, Instant::now() - Duration::from_secs(1)).unwrap_err();
        assert_eq!(over.errno, Errno::TIMEDOUT.raw_os_error());
        assert!(scratch.path().join(&name).exists());
        // Somebody else is at it.
        let other = std::fs::File::open(scratch.path().join(&name)).unwrap();
        rustix::fs::flock(&other, FlockOperation::LockExclusive).unwrap();
        assert_eq!(clear(scratch.path().to_str().unwrap(), OURS, None), None);
        assert!(scratch.path().join(&name).exists());
        drop(other);
        assert_eq!(clear(scratch.path().to_str().unwrap(), OURS, None), None);
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}
