//! A start by way of a stage: a short-lived process between the launcher and the child.
//!
//! Some namespaces have to be entered before others are made: a user namespace that exists already must own the new ones, a mount
//! namespace can't be left again, nor any other by who is root only of a user namespace, and the clocks of a time namespace can be set only before the first process is in it. The
//! stage enters and sets them, then makes the child as the launcher's own (`CLONE_PARENT`), and ends.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::joined::{self, Visits};
use crate::failure::{Context, Failure, Step};
use crate::launch::{Launch, Namespace, Namespaces, TimeNamespace, TimeOffset};
use crate::sys::clone::Child;
use crate::{child, descriptor, report, sys, userns};

/// What the stage does, if there must be one.
pub(super) struct Stage<'a> {
    /// The namespaces that the launcher could enter and not leave again.
    visits: Option<&'a Visits<'a>>,
    /// The stage is in the child's new user namespace already, which so owns what the stage makes.
    mapped: bool,
}

impl<'a> Stage<'a> {
    pub(super) fn of(launch: &Launch, visits: &'a Visits<'a>) -> Option<Self> {
        let namespaces = &launch.namespaces;
        let visits = visits.are_one_way().then_some(visits);
        // A new user namespace has no rights over the ones to visit: then only the child is in it.
        let mapped = launch.new_map().is_some() && visits.is_none();
        let time = namespaces.time == TimeNamespace::New;
        let joins = namespaces.user.is_some() || matches!(namespaces.mount, Namespace::Path(_));
        (visits.is_some() || joins || time)
            .then_some(Self { visits, mapped })
    }

    /// Whether it enters namespaces in the launcher's place.
    pub(super) fn visits(&self) -> bool {
        self.visits.is_some()
    }

    /// Whether the child's ids were mapped by way of the stage.
    pub(super) fn is_mapped(&self) -> bool {
        self.mapped
    }
}

/// The pipes that the launcher keeps for the child; the stage and the child close their copies.
pub(super) struct Ends<'a> {
    pub(super) go: &'a Cell<Option<OwnedFd>>,
}

/// Makes the child. `new` are the namespaces that are made with it, `body` what it does.
pub(super) fn fork(
    stage: &Stage<'_>,
    launch: &Launch,
    new: UnshareFlags,
    group: Option<BorrowedFd<'_>>,
    ends: &Ends<'_>,
    body: impl FnOnce() -> i32,
) -> Result<Child, Failure> {
    let joined = Joined::open(&launch.namespaces)?;
    let (go_reader, go_writer) = pipe_with(PipeFlags::CLOEXEC).at(Step::Pipe, || "to the stage")?;
    let (said, says) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .at(Step::Pipe, || "from the stage")?;
    let go_writer = Cell::new(Some(go_writer));
    // The child must close its copy, or the launcher would wait for a stage that was killed as long as the child waits for the launcher.
    let says = Cell::new(Some(says));
    let of_the_stage = if stage.mapped { UnshareFlags::NEWUSER } else { UnshareFlags::empty() };
    let of_the_child = new.difference(of_the_stage);
    let forked = sys::clone::fork_into(of_the_stage, group, Signal::CHILD.as_raw(), || {
        drop(go_writer.take());
        match on_stage(stage, launch, go_reader.as_fd(), &joined).and_then(|()| {
            sys::clone::fork_sibling(of_the_child, || {
                drop(ends.go.take());
                drop(says.take());
                body()
            })
            .at(Step::Clone, || "by the stage")
        }) {
            // A launcher that is gone is nobody to tell; then the child finds out, too.
            Ok(child) => says.take().map_or(1, |says| i32::from(descriptor::send(says.as_fd(), &[1], child.pidfd.as_fd()).is_err())),
            Err(failure) => {
                says.take().inspect(|says| report::write(says.as_fd(), &failure));
                1
            }
        }
    })
    .at(Step::Clone, || "the stage")?;
    drop(says.take());
    let ids = launch.new_map().filter(|_| stage.mapped);
    let mapped = ids.map_or(Ok(()), |ids| userns::write_maps(forked.pid, ids));
    let told = mapped.and_then(|()| {
        let writer = go_writer.take().ok_or_else(|| Failure::new(Step::Pipe, "to the stage", Errno::BADF))?;
        match rustix::io::write(&writer, &[1]) {
            Ok(_) | Err(Errno::PIPE) => Ok(()),
            Err(errno) => Err(Failure::new(Step::Pipe, "to the stage", errno)),
        }
    });
    if let Err(failure) = told {
        sys::clone::kill_and_reap(&forked);
        return Err(failure);
    }
    let answer = receive(&said);
    sys::clone::reap(forked.pid);
    let pidfd = answer?;
    let pid = number(pidfd.as_fd()).at(Step::Clone, || "by the stage")?;
    Ok(Child { pid, pidfd })
}

/// All that the stage does before the child is made.
fn on_stage(stage: &Stage<'_>, launch: &Launch, go: BorrowedFd<'_>, joined: &Joined<'_>) -> Result<(), Failure> {
    child::wait_for_go(go)?;
    stage.visits.map_or(Ok(()), Visits::enter)?;
    // Another mount namespace may have another `/proc`.
    let clocks = clocks(launch)?;
    joined.enter()?;
    set_clocks(launch, clocks)
}

/// The child's pid descriptor, or why there is none.
fn receive(socket: &OwnedFd) -> Result<OwnedFd, Failure> {
    let mut buffer = [0_u8; 4096];
    match descriptor::receive_with(socket.as_fd(), &mut buffer).at(Step::Pipe, || "from the stage")? {
        (Some(pidfd), _) => Ok(pidfd),
        (None, 0) => Err(Failure::new(Step::Pipe, "from the stage, which is gone", Errno::PIPE)),
        (None, length) => Err(report::decode(buffer.get(..length).unwrap_or_default())),
    }
}

/// The process id that a pid descriptor stands for, as this process sees it (pidfd_open(2), `/proc/self/fdinfo`).
fn number(pidfd: BorrowedFd<'_>) -> Result<i32, Errno> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = [0_u8; 1024];
    let length = rustix::io::read(&file, &mut buffer)?;
    let text = std::str::from_utf8(buffer.get(..length).unwrap_or_default()).unwrap_or_default();
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.filter(|pid| *pid > 0).ok_or(Errno::SRCH)
}

/// The namespaces that only a process can enter that never comes back.
struct Joined<'a> {
    user: Option<(OwnedFd, &'a str)>,
    mount: Option<(OwnedFd, &'a str)>,
}

impl<'a> Joined<'a> {
    fn open(namespaces: &'a Namespaces) -> Result<Self, Failure> {
        let open = |path: Option<&'a str>| path.map(|path| joined::open(path).map(|file| (file, path))).transpose();
        let mount = match &namespaces.mount {
            Namespace::Path(path) => Some(path.as_str()),
            Namespace::New | Namespace::Host => None,
        };
        Ok(Self { user: open(namespaces.user.as_deref())?, mount: open(mount)? })
    }

    /// The mount namespace first, while there are the launcher's rights, and again with those that the user namespace gives.
    fn enter(&self) -> Result<(), Failure> {
        let enter = |(file, path): &(OwnedFd, &str), kind| {
            move_into_link_name_space(file.as_fd(), Some(kind)).at(Step::JoinNamespace, || *path)
        };
        let early = self.mount.as_ref().map(|mount| enter(mount, LinkNameSpaceType::Mount));
        if let Some(user) = &self.user {
            enter(user, LinkNameSpaceType::User)?;
        }
        match (early, &self.mount) {
            (Some(Err(_)), Some(mount)) if self.user.is_some() => enter(mount, LinkNameSpaceType::Mount),
            (early, _) => early.unwrap_or(Ok(())),
        }
    }
}

/// The file for the offsets, if any clock is to have one.
fn clocks(launch: &Launch) -> Result<Option<OwnedFd>, Failure> {
    const OFFSETS: &str = "/proc/self/timens_offsets";
    if launch.time_offsets.is_empty() {
        return Ok(None);
    }
    rustix::fs::open(OFFSETS, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).at(Step::SetClock, || OFFSETS).map(Some)
}

/// Makes the time namespace for the child and sets its clocks (time_namespaces(7)).
fn set_clocks(launch: &Launch, clocks: Option<OwnedFd>) -> Result<(), Failure> {
    if launch.namespaces.time != TimeNamespace::New {
        return Ok(());
    }
    sys::process::unshare(UnshareFlags::NEWTIME).at(Step::Unshare, || "time namespace")?;
    let Some(clocks) = clocks else { return Ok(()) };
    let text = render(&launch.time_offsets);
    rustix::io::write(&clocks, text.as_bytes()).at(Step::SetClock, || text.trim_end().replace('\n', ", ")).map(drop)
}

/// One line for each clock.
fn render(offsets: &[TimeOffset]) -> String {
    let clock = |offset: &TimeOffset| if offset.boottime { "boottime" } else { "monotonic" };
    offsets.iter().map(|o| format!("{} {} {}\n", clock(o), o.seconds, o.nanoseconds)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_one_line_per_clock() {
        let offset = |boottime, seconds| TimeOffset { boottime, seconds, nanoseconds: 5 };
        assert_eq!(render(&[offset(false, -1), offset(true, 86_400)]), "monotonic -1 5\nboottime 86400 5\n");
    }
}
