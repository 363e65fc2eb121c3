//! Descriptors that were inherited over an exec.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::crash;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is looked at if nobody says how many there are.
const LIKELY: RawFd = 1024;
/// The kernel answers for no more than the process may have, which may be as few as this on the smallest machines.
const ASKED_AT_ONCE: usize = 256;

/// Every descriptor above standard error that this process was born with. Those not taken are closed when it is dropped.
#[derive(Debug, Default)]
pub struct Inherited(BTreeMap<RawFd, OwnedFd>);

static TAKEN: AtomicBool = AtomicBool::new(false);

impl Inherited {
    /// Takes ownership of all of them, up to `highest`. Call it first thing in `main`, before anything is opened; a second call gets none.
    pub fn take_all(highest: &str) -> Self {
        if TAKEN.swap(true, Ordering::SeqCst) {
            return Self::default();
        }
        let mut all = BTreeMap::new();
        let mut next = 3;
        for number in open_numbers(highest.parse().map_or(LIKELY, |highest: RawFd| highest.saturating_add(1))) {
            close_unlisted(next, number);
            next = number.saturating_add(1);
            // SAFETY: it is open, and nothing owns it: it was inherited, and this function hands each out once (`TAKEN`).
            all.insert(number, unsafe { OwnedFd::from_raw_fd(number) });
            crash::keep(number);
        }
        close_unlisted(next, RawFd::MAX);
        // What is left is made close-on-exec, as all of ours are.
        // SAFETY: close_range(2) with this flag closes nothing, and touches no memory.
        unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
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

/// Closes those from one number to before another: of a path only (O_PATH), which the kernel doesn't list, and the next incarnation has no
/// use for. One that stayed open would keep the filesystem that it lies on from being unmounted.
fn close_unlisted(first: RawFd, end: RawFd) {
    let (Ok(first), Ok(last)) = (u32::try_from(first), u32::try_from(end.saturating_sub(1))) else { return };
    if first <= last {
        // SAFETY: nothing owns them: nothing was opened since this process was executed.
        unsafe { libc::close_range(first, last, 0) };
    }
}

/// Which descriptors above standard error and below `end` are open, but for those of a path only. The kernel is asked about many at once, instead of about each, or for
/// a listing of `/proc/self/fd`, for which it makes a file of each.
fn open_numbers(end: RawFd) -> Vec<RawFd> {
    let mut open = Vec::new();
    let mut numbers = 3..end;
    loop {
        let ask = |fd| libc::pollfd { fd, events: 0, revents: 0 };
        let mut asked: Vec<libc::pollfd> = numbers.by_ref().take(ASKED_AT_ONCE).map(ask).collect();
        if asked.is_empty() {
            return open;
        }
        let count = libc::nfds_t::try_from(asked.len()).unwrap_or(0);
        // SAFETY: the array is writable and as long as is said; with no time to wait the call returns at once.
        let answered = unsafe { libc::poll(asked.as_mut_ptr(), count, 0) } >= 0;
        let is_open = |asked: &&libc::pollfd| {
            // SAFETY: fcntl(2) with this command touches no memory; a closed descriptor gives EBADF.
            let by_itself = || unsafe { libc::fcntl(asked.fd, libc::F_GETFD) } >= 0;
            if answered { asked.revents & libc::POLLNVAL == 0 } else { by_itself() }
        };
        open.extend(asked.iter().filter(is_open).map(|asked| asked.fd));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_found_and_nothing_else() {
        let file = std::fs::File::open("/dev/null").unwrap();
        // Far above what other tests open meanwhile.
        let high = [700, 1023].map(|least| rustix::io::fcntl_dupfd_cloexec(&file, least).unwrap());
        let found = open_numbers(1024);
        assert!(high.iter().all(|fd| found.contains(&fd.as_raw_fd())));
        assert_eq!(found.iter().filter(|number| **number > 650).count(), 2);
    }

    #[test]
    fn what_is_asked_for_its_number_is_kept() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let high = rustix::io::fcntl_dupfd_cloexec(&file, 200).unwrap();
        assert_eq!(number(Some(&high)), high.as_raw_fd());
        assert!(crash::keeps(high.as_raw_fd()) && !crash::keeps(high.as_raw_fd() + 1000));
        assert_eq!(number(None::<&OwnedFd>), -1);
    }
}
