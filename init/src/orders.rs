//! Between PID 1 and its launch workers: orders to start containers one way, what became of each the other.
//!
//! One message is one order or one answer, so that nothing is ever read by halves.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
use serde::{Deserialize, Serialize};

use crate::passing;

/// No answer is longer, in bytes.
const LONGEST: usize = 2048;

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// There is a child. With it come the read ends of its report pipe and of its output.
    Made {
        /// The container's index.
        index: usize,
        /// The child's process id.
        pid: i32,
        /// Limits that could not be set.
        degraded: String,
    },
    /// There is none, or it was killed, as something of its start failed.
    Failed {
        /// The container's index.
        index: usize,
        /// Operation, object and cause.
        text: String,
        /// Likely to succeed later.
        transient: bool,
    },
}

/// An answer, and what came with it.
#[derive(Debug)]
pub struct Heard {
    /// What was said.
    pub answer: Answer,
    /// The read ends of [`Answer::Made`], in that order.
    pub descriptors: Vec<OwnedFd>,
}

/// PID 1's end and the worker's.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Orders the start of the container with this index, without waiting.
pub fn give(socket: impl AsFd, index: usize) -> io::Result<()> {
    rustix::net::send(socket, &index.to_ne_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    Ok(())
}

/// No more orders come: the worker ends when it has done what it is at.
pub fn end(socket: impl AsFd) {
    let _ = shutdown(socket, Shutdown::Write);
}

/// Waits for the next order; `None`: there will be none.
pub fn next(socket: impl AsFd) -> Option<usize> {
    let mut bytes = [0; size_of::<usize>()];
    loop {
        match rustix::net::recv(&socket, &mut bytes, RecvFlags::empty()) {
            Ok((_, length)) if length == bytes.len() => return Some(usize::from_ne_bytes(bytes)),
            Err(Errno::INTR) => {}
            _ => return None,
        }
    }
}

/// Says what became of an order.
pub fn answer(socket: impl AsFd, answer: &Answer, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = postcard::to_stdvec(answer).map_err(io::Error::other)?;
    passing::send(socket, &bytes, descriptors, SendFlags::empty())
}

/// Takes the next answer, without waiting. `None`: the worker is gone, or says what it never would.
pub fn hear(socket: impl AsFd) -> io::Result<Option<Heard>> {
    let mut bytes = [0; LONGEST];
    let (length, descriptors) = passing::receive(socket, &mut bytes, RecvFlags::DONTWAIT)?;
    let answer = postcard::from_bytes(bytes.get(..length).unwrap_or_default()).ok();
    Ok(answer.map(|answer| Heard { answer, descriptors }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn orders_and_answers_come_across_whole() {
        let (ours, theirs) = pair().unwrap();
        give(&ours, 7).unwrap();
        give(&ours, usize::MAX).unwrap();
        end(&ours);
        assert_eq!([next(&theirs), next(&theirs), next(&theirs)], [Some(7), Some(usize::MAX), None]);

        let made = Answer::Made { index: 7, pid: 1 << 22, degraded: "d".repeat(200) };
        let failed = Answer::Failed { index: 7, text: "t".repeat(300), transient: true };
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        answer(&theirs, &made, &[reader.as_fd(), writer.as_fd()]).unwrap();
        answer(&theirs, &failed, &[]).unwrap();
        let heard = hear(&ours).unwrap().unwrap();
        assert_eq!((heard.answer, heard.descriptors.len()), (made, 2));
        rustix::io::write(&heard.descriptors[1], b"x").unwrap();
        assert_eq!(rustix::io::read(&reader, &mut [0; 2]), Ok(1), "{}", heard.descriptors[0].as_raw_fd());
        let heard = hear(&ours).unwrap().unwrap();
        assert_eq!((heard.answer, heard.descriptors.len()), (failed, 0));
        assert_eq!(hear(&ours).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(theirs);
        assert!(hear(&ours).unwrap().is_none());
    }
}
