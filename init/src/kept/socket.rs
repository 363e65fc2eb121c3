//! Between PID 1 and the `keep` worker: a socket on which the worker gets what it reads, is told to look, and learns that it is to end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};

use crate::passing;

/// Why a worker went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// There is something to look at.
    Look,
    /// The time was up.
    Time,
    /// PID 1 has closed its end: what there is, is all that there will be.
    End,
}

/// PID 1's end and the worker's.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// Gives descriptors to the worker, without waiting.
pub fn hand_over(socket: impl AsFd, descriptors: [BorrowedFd<'_>; 2]) -> io::Result<()> {
    passing::send(socket, b".", &descriptors, SendFlags::DONTWAIT)
}

/// Takes them.
pub fn take_over(socket: impl AsFd) -> io::Result<[OwnedFd; 2]> {
    let (_, taken) = passing::receive(socket, &mut [0], RecvFlags::empty())?;
    taken.try_into().map_err(|_| io::ErrorKind::UnexpectedEof.into())
}

/// Has the worker look. One that has not come to look yet needs no further word.
pub fn look(socket: impl AsFd) {
    let _ = rustix::net::send(socket, b".", SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}

/// Waits until there is something to look at.
pub fn wait(socket: impl AsFd, most: Option<Duration>) -> Woken {
    if !ready(&socket, PollFlags::IN, most) {
        return Woken::Time;
    }
    loop {
        match rustix::net::recv(&socket, &mut [0; 512][..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Woken::End,
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Woken::Look,
            Err(_) => return Woken::End,
        }
    }
}

/// Lets some time pass, but for the end.
pub fn pause(socket: impl AsFd, time: Duration) {
    ready(socket, PollFlags::RDHUP, Some(time));
}

fn ready(socket: impl AsFd, flags: PollFlags, most: Option<Duration>) -> bool {
    let most = most.and_then(|time| Timespec::try_from(time).ok());
    loop {
        match poll(&mut [PollFd::new(&socket, flags)], most.as_ref()) {
            Err(Errno::INTR) => {}
            other => return other != Ok(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_looks_and_the_end_arrive() {
        let (ours, theirs) = pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        hand_over(&ours, [file.as_fd(), ours.as_fd()]).unwrap();
        let taken = take_over(&theirs).unwrap();
        assert_eq!(rustix::fs::fstat(&taken[0]).unwrap().st_rdev, rustix::fs::fstat(&file).unwrap().st_rdev);
        // Its own end in its hands would keep it from the end.
        drop(taken);
        assert_eq!(wait(&theirs, Some(Duration::ZERO)), Woken::Time);
        // Many are as good as one, and none waits for room.
        (0..100_000).for_each(|_| look(&ours));
        assert_eq!(wait(&theirs, None), Woken::Look);
        assert_eq!(wait(&theirs, Some(Duration::ZERO)), Woken::Time);
        look(&ours);
        drop(ours);
        pause(&theirs, Duration::from_secs(1000));
        assert_eq!(wait(&theirs, None), Woken::End);
        assert!(take_over(&theirs).is_err());
    }
}
