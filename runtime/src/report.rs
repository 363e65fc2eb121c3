//! What became of a started child, read from its report pipe.
//!
//! The child's end of the pipe is close-on-exec: executing the program closes it, and so does dying. To tell them apart, a child
//! that is about to execute writes one byte. One that fails writes one [`Failure`], in one atomic write. All of it fits the pipe,
//! and is read when the child's end is closed.
//!
//! The byte is written before the program's seccomp filter is in force, so that a filter may forbid every call but exec. One that
//! forbids write(2) also keeps back why exec failed: then all that is known is the exit status 127.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::failure::{Failure, Step};

/// How far a started child has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Still setting itself up.
    Pending,
    /// It executed its program.
    Executed,
    /// It died before; its exit status tells how.
    Died,
    /// It couldn't; it exits with status 127 at once.
    Failed(Failure),
}

/// A child is about to execute its program. No [`Failure`] begins with this byte.
const EXECUTING: u8 = 0xff;

/// Reads the report without waiting. `fd` is [`crate::start::Started::report`]; poll it for hang-up (`POLLHUP`, which need not be
/// asked for), as what there is to read before that is not the whole report.
///
/// Call it until it says something other than [`Report::Pending`], then close the descriptor.
pub fn read(fd: impl AsFd) -> Report {
    let mut hung_up = [PollFd::new(&fd, PollFlags::empty())];
    match poll(&mut hung_up, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(0) | Err(Errno::INTR) => return Report::Pending,
        Ok(_) => {}
        Err(errno) => return Report::Failed(Failure::new(Step::Pipe, "report", errno)),
    }
    let mut buffer = [0_u8; 4097];
    match rustix::io::read(&fd, &mut buffer) {
        Ok(n) => judge(buffer.get(..n).unwrap_or(&[])),
        Err(Errno::INTR) => Report::Pending,
        Err(errno) => Report::Failed(Failure::new(Step::Pipe, "report", errno)),
    }
}

/// What a whole report means.
pub(crate) fn judge(bytes: &[u8]) -> Report {
    match bytes {
        [] => Report::Died,
        [EXECUTING] => Report::Executed,
        [EXECUTING, failure @ ..] | failure => Report::Failed(decode(failure)),
    }
}

/// Tells [`read`] that the program is executed next, unless a failure follows.
pub(crate) fn executing(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    loop {
        match rustix::io::write(fd, &[EXECUTING]) {
            Err(Errno::INTR) => {}
            // A parent that has gone is nobody to tell.
            Ok(_) | Err(Errno::PIPE) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}

/// Writes `failure` for [`read`] on the other side. A parent that has gone is nobody to tell.
pub(crate) fn write(fd: BorrowedFd<'_>, failure: &Failure) {
    if let Ok(bytes) = postcard::to_stdvec(failure) {
        while rustix::io::write(fd, &bytes) == Err(Errno::INTR) {}
    }
}

/// The child could be the container's program already (it never is before exec), so its bytes are bounded and checked.
pub(crate) fn decode(bytes: &[u8]) -> Failure {
    match postcard::from_bytes::<Failure>(bytes) {
        Ok(failure) => failure,
        Err(_) => Failure::new(Step::Pipe, "malformed report", Errno::IO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::os::fd::OwnedFd;

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).unwrap()
    }

    #[test]
    fn a_failure_is_told_also_of_the_execution_itself() {
        for executing_first in [false, true] {
            let (reader, writer) = pipe();
            if executing_first {
                executing(writer.as_fd()).unwrap();
            }
            let failure = Failure::new(Step::Execute, "/bin/web", Errno::NOENT);
            write(writer.as_fd(), &failure);
            assert_eq!(read(&reader), Report::Pending);
            drop(writer);
            assert_eq!(read(&reader), Report::Failed(failure));
        }
    }

    #[test]
    fn an_execution_is_told_from_a_death() {
        let (reader, writer) = pipe();
        executing(writer.as_fd()).unwrap();
        assert_eq!(read(&reader), Report::Pending, "it may still fail");
        drop(writer);
        assert_eq!(read(&reader), Report::Executed);
        let (reader, writer) = pipe();
        assert_eq!(read(&reader), Report::Pending);
        drop(writer);
        assert_eq!(read(&reader), Report::Died);
    }

    #[test]
    fn no_failure_begins_like_an_execution() {
        // Its first byte is the step's number.
        for step in [Step::Clone, Step::Execute, Step::Pipe] {
            assert!(postcard::to_stdvec(&Failure::new(step, "", Errno::IO)).unwrap()[0] < 0x80);
        }
    }

    #[test]
    fn the_longest_failure_fits_one_atomic_write() {
        let failure = Failure::new(Step::Execute, "x".repeat(10_000), Errno::NOENT);
        assert!(postcard::to_stdvec(&failure).unwrap().len() <= 4096);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_failure_not_a_panic(bytes in proptest::collection::vec(0_u8.., 0..4096)) {
            judge(&bytes);
        }
    }
}
