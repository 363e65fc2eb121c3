//! Descriptors that were inherited over an exec.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::{Resource, getrlimit};

use super::crash;
use std::sync::atomic::{AtomicBool, Ordering};

/// Every descriptor above standard error that this process was born with. Those not taken are closed when it is dropped.
#[derive(Debug, Default)]
pub struct Inherited(BTreeMap<RawFd, OwnedFd>);

static TAKEN: AtomicBool = AtomicBool::new(false);

impl Inherited {
    /// Takes ownership of all of them. Call it first thing in `main`, before anything is opened; a second call gets none.
    pub fn take_all() -> Self {
        if TAKEN.swap(true, Ordering::SeqCst) {
            return Self::default();
        }
        let mut all = BTreeMap::new();
        // Trying is quicker than a listing of `/proc/self/fd`, for which the kernel makes a file of each.
        for number in 3..table_size() {
            // What is open is made close-on-exec, as all of ours are.
            // SAFETY: fcntl(2) with an integer argument touches no memory; a closed descriptor gives EBADF.
            if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == 0 {
                // SAFETY: it is open, and nothing owns it: it was inherited, and this function hands each out once (`TAKEN`).
                all.insert(number, unsafe { OwnedFd::from_raw_fd(number) });
                crash::keep(number);
            }
        }
        Self(all)
    }

    /// The descriptor with this number.
    pub fn take(&mut self, number: RawFd) -> Option<OwnedFd> {
        self.0.remove(&number)
    }
}

/// A descriptor's number, as records keep it; -1: none. What is to be kept over a crash must be asked for its number here.
pub fn number(fd: Option<&impl AsFd>) -> RawFd {
    let number = fd.map_or(-1, |fd| fd.as_fd().as_raw_fd());
    crash::keep(number);
    number
}

/// Every open descriptor is below it (proc_pid_status(5): FDSize; without `/proc` the limit, as it has seldom been lowered).
fn table_size() -> RawFd {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")?.trim().parse().ok());
    let limit = || getrlimit(Resource::Nofile).current.and_then(|limit| RawFd::try_from(limit).ok());
    size.or_else(limit).unwrap_or(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_its_number_is_kept() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let high = rustix::io::fcntl_dupfd_cloexec(&file, 200).unwrap();
        assert_eq!(number(Some(&high)), high.as_raw_fd());
        assert!(crash::keeps(high.as_raw_fd()) && !crash::keeps(high.as_raw_fd() + 1000));
        assert_eq!(number(None::<&OwnedFd>), -1);
        assert!(table_size() > high.as_raw_fd());
    }
}
