//! What became of a started child, read from its report pipe.
//!
//! The child's end of the pipe is close-on-exec: executing the program closes it, and so does dying. A child that fails
//! first writes one [`Failure`], in one atomic write.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use crate::failure::{Failure, Step};

/// How far a started child has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Still setting itself up.
    Pending,
    /// It executed its program (or something killed it before; its exit status then tells).
    Executed,
    /// It couldn't; it exits with status 127 at once.
    Failed(Failure),
}

/// Reads the report without waiting. `fd` is [`crate::start::Started::report`]; poll it for reading.
///
/// Call it until it says something other than [`Report::Pending`], then close the descriptor.
pub fn read(fd: impl AsFd) -> Report {
    let mut buffer = [0_u8; 4096];
    match rustix::io::read(fd, &mut buffer) {
        Ok(0) => Report::Executed,
        Ok(n) => Report::Failed(decode(buffer.get(..n).unwrap_or(&[]))),
        Err(Errno::AGAIN | Errno::INTR) => Report::Pending,
        Err(errno) => Report::Failed(Failure::new(Step::Pipe, "report", errno)),
    }
}

/// Writes `failure` for [`read`] on the other side. A parent that has gone is nobody to tell.
pub(crate) fn write(fd: BorrowedFd<'_>, failure: &Failure) {
    if let Ok(bytes) = postcard::to_stdvec(failure) {
        while rustix::io::write(fd, &bytes) == Err(Errno::INTR) {}
    }
}

/// The child could be the container's program already (it never is before exec), so its bytes are bounded and checked.
fn decode(bytes: &[u8]) -> Failure {
    match postcard::from_bytes::<Failure>(bytes) {
        Ok(failure) => failure,
        Err(_) => Failure::new(Step::Pipe, "malformed report", Errno::IO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    #[test]
    fn pending_then_failed_then_executed() {
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).unwrap();
        assert_eq!(read(&reader), Report::Pending);
        let failure = Failure::new(Step::Execute, "/bin/web", Errno::NOENT);
        write(writer.as_fd(), &failure);
        assert_eq!(read(&reader), Report::Failed(failure));
        drop(writer);
        assert_eq!(read(&reader), Report::Executed);
    }

    #[test]
    fn the_longest_failure_fits_one_atomic_write() {
        let failure = Failure::new(Step::Execute, "x".repeat(10_000), Errno::NOENT);
        assert!(postcard::to_stdvec(&failure).unwrap().len() <= 4096);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_failure_not_a_panic(bytes in proptest::collection::vec(0_u8.., 0..4096)) {
            let _: Failure = decode(&bytes);
        }
    }
}
