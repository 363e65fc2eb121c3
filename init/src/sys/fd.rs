//! Descriptors that were inherited over an exec.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
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
        let mut numbers = Vec::new();
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            numbers.extend(entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<RawFd>().ok()));
        }
        let mut all = BTreeMap::new();
        for number in numbers.into_iter().filter(|n| *n > 2) {
            // The listing's own descriptor is closed by now. What is open is made close-on-exec, as all of ours are.
            // SAFETY: fcntl(2) with an integer argument touches no memory; a closed descriptor gives EBADF.
            if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == 0 {
                // SAFETY: it is open, and nothing owns it: it was inherited, and this function hands each out once (`TAKEN`).
                all.insert(number, unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
        Self(all)
    }

    /// The descriptor with this number.
    pub fn take(&mut self, number: RawFd) -> Option<OwnedFd> {
        self.0.remove(&number)
    }
}

/// A descriptor's number, as records keep it; -1: none.
pub fn number(fd: Option<&OwnedFd>) -> RawFd {
    fd.map_or(-1, AsRawFd::as_raw_fd)
}
