//! The data filesystem after it was mounted: disks fail and fill up later.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, StatVfsMountFlags};

use super::Supervisor;
use crate::console::table;
use crate::work::report::{self, DataState};

const MOUNT_POINT: &str = "/data";
/// With less than this share of it left, the filesystem counts as full.
const FULL: u64 = 64;
/// After a warning of the kernel the filesystem is looked at so many milliseconds later, as its errors are counted by and by,
const SOON_MS: u64 = 500;
/// and so long after the last one once more.
const LATER_MS: u64 = 3_000;
/// Where the kernel's log can't be read it is looked at that often.
const POLL_MS: u64 = 10_000;
const FAILED: &str = "its disk failed, and nothing more is written to it";

/// The kernel's count of a mounted ext4's errors (`Documentation/ABI/testing/sysfs-fs-ext4`).
#[derive(Debug)]
pub(super) struct Errors {
    file: OwnedFd,
    /// How many there were already.
    before: u64,
}

impl Errors {
    /// The count of the filesystem on the device with that number; `None` when it is no ext4.
    fn of(device: u64) -> Option<Self> {
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok()?;
        Self::open(&PathBuf::from("/sys/fs/ext4").join(link.file_name()?).join("errors_count"))
    }

    fn open(path: &Path) -> Option<Self> {
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut errors = Self { file, before: 0 };
        errors.before = errors.count()?;
        Some(errors)
    }

    fn count(&self) -> Option<u64> {
        let mut text = [0; 32];
        let n = rustix::io::pread(&self.file, &mut text, 0).ok()?;
        std::str::from_utf8(text.get(..n)?).ok()?.trim().parse().ok()
    }

    /// There were some since it was opened.
    fn any(&self) -> bool {
        self.count().is_some_and(|count| count > self.before)
    }
}

impl Supervisor {
    /// Looks at the data filesystem from now on, if it is there and can be written to.
    pub(super) fn watch_data(&mut self, now: u64) {
        if self.data.state == DataState::Mounted {
            self.data_errors = rustix::fs::stat(MOUNT_POINT).ok().and_then(|stat| Errors::of(stat.st_dev));
            // What the kernel said before may have been heard, and not understood yet.
            self.doubt_data(now);
        }
    }

    /// The kernel has complained, of whatever: a filesystem that gives up says so there, and nowhere that could be waited for.
    pub(super) fn doubt_data(&mut self, now: u64) {
        if self.data.state == DataState::Mounted {
            self.data_doubt = now.saturating_add(LATER_MS);
            let soon = now.saturating_add(SOON_MS);
            self.data_check = Some(self.data_check.map_or(soon, |at| at.min(soon)));
        }
    }

    /// Says so when the data filesystem has failed.
    pub(super) fn check_data(&mut self, now: u64) {
        if self.data_check.is_none_or(|at| at > now) {
            return;
        }
        if self.data_now().state == DataState::Mounted {
            self.data_check = match &self.kernel_log {
                None => Some(now.saturating_add(POLL_MS)),
                Some(_) => Some(self.data_doubt).filter(|at| *at > now),
            };
            return;
        }
        self.data_check = None;
        self.data.state = DataState::Readonly;
        FAILED.clone_into(&mut self.data.detail);
        self.note(format!("the data filesystem: {FAILED} until the machine starts anew"));
    }

    /// The data filesystem at this moment. The kernel answers from memory: a disk that hangs holds nobody up.
    pub(super) fn data_now(&self) -> report::Data {
        let mut data = self.data.clone();
        if !matches!(data.state, DataState::Mounted | DataState::Tmpfs) {
            return data;
        }
        let Ok(fs) = rustix::fs::statvfs(MOUNT_POINT) else { return data };
        // It is mounted so that the first error ends all writing. Since 6.13 the mount does not show that any more.
        let failed =
            fs.f_flag.contains(StatVfsMountFlags::RDONLY) || self.data_errors.as_ref().is_some_and(Errors::any);
        if data.state == DataState::Mounted && failed {
            return report::Data { state: DataState::Readonly, detail: FAILED.to_owned(), ..data };
        }
        if let Some(text) = fullness(fs.f_bavail.saturating_mul(fs.f_frsize), data.bytes) {
            let separator = if data.detail.is_empty() { "" } else { "; " };
            data.detail = format!("{text}{separator}{}", data.detail);
        }
        data
    }
}

/// Says that a filesystem of `bytes` bytes is full, if so little is left.
fn fullness(left: u64, bytes: u64) -> Option<String> {
    let full = left < bytes.checked_div(FULL).unwrap_or(0);
    full.then(|| format!("full: {} of {} are left", table::size(left), table::size(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_filesystem_is_told_from_one_that_has_room() {
        assert_eq!(fullness(1 << 20, 64 << 20), None);
        assert_eq!(fullness(100 << 10, 64 << 20).as_deref(), Some("full: 100 KiB of 64.0 MiB are left"));
        assert_eq!(fullness(0, 64 << 20).as_deref(), Some("full: 0 B of 64.0 MiB are left"));
        assert_eq!(fullness(0, 0), None);
    }

    #[test]
    fn errors_are_counted_from_when_it_was_opened() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "3\n").unwrap();
        let errors = Errors::open(file.path()).unwrap();
        assert!(!errors.any());
        std::fs::write(file.path(), "5\n").unwrap();
        assert!(errors.any());
        std::fs::write(file.path(), "junk").unwrap();
        assert!(!errors.any());
        assert!(Errors::open(Path::new("/nowhere")).is_none());
    }
}
