//! What is done at the same time for one launch, on a machine with a second processor.
//!
//! A new network namespace takes the kernel nearly as long as all mounts of a container together. A process of its own makes it, and that
//! of queues and shared memory, while the root is built, and the child joins both when something needs one. That costs one process more, so who starts many containers
//! at once, with every processor busy, is better off without.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use rustix::thread::{
    CpuSet, ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces, sched_getaffinity, sched_getcpu, sched_setaffinity,
};

use crate::failure::{Context, Failure, Step};
use crate::launch::{Launch, Namespace, TimeNamespace};
use crate::sys::helper::{Helper, Processors};

/// Filesystems that are the same in every network namespace. Others may belong to the one that they were mounted in.
const WITHOUT_NETWORK: [&str; 5] = ["proc", "tmpfs", "devpts", "mqueue", "cgroup2"];

/// What is done beside the rest for one launch. Kept until the child has executed its program or waits at its gate.
#[derive(Debug)]
pub struct Beside {
    /// The network namespace, if the launch has a new one and it can be made this way.
    network: Option<Network>,
    /// The child needn't wait for the launcher before it builds the root.
    runs_ahead: bool,
}

impl Beside {
    /// Begins what can be begun for `launch`, before anything else is done for it. Of that its namespaces count, and what is given to them: the
    /// rest need not be decided yet.
    pub fn begin(launch: &Launch) -> Result<Self, Failure> {
        let runs_ahead = may_run_ahead(launch);
        let makes = runs_ahead && launch.namespaces.network == Namespace::New;
        let network = makes.then(|| Network::begin(launch)).transpose()?;
        Ok(Self { network, runs_ahead })
    }

    /// See the field.
    pub(crate) fn network(&self) -> Option<&Network> {
        self.network.as_ref()
    }

    /// See the field.
    pub(crate) fn runs_ahead(&self) -> bool {
        self.runs_ahead
    }

    /// Waits until the launcher is sent nowhere any more, so that it may make processes that go on for long.
    #[cfg(feature = "cli")]
    pub(crate) fn settle(&self) {
        if let Some(network) = &self.network {
            network.wait();
        }
    }

    /// Leaves this processor to the child that was just made, if it runs ahead: its work is the longer one. Going on on another one,
    /// the launcher has done its part before the child needs it, also if it waits for the network namespace first, which the child needs
    /// sooner.
    pub(crate) fn make_way(&self) {
        if !self.runs_ahead {
            return;
        }
        if let Some(network) = &self.network {
            network.wait();
        } else if let Ok(all) = sched_getaffinity(None)
            && let Some(others) = others(all)
            && sched_setaffinity(None, &others).is_ok()
        {
            // There already, it may be where it might before.
            let _ = sched_setaffinity(None, &all);
        } else {
            rustix::thread::sched_yield();
        }
    }

    /// In the child, when it begins: lets the launcher make way. The kernel may have gone on with the child instead, and the launcher
    /// would wait until that has nothing to do.
    pub(crate) fn begin_in_child(&self) {
        if self.runs_ahead && self.network.is_none() {
            rustix::thread::sched_yield();
        }
    }
}

/// Whether the child may begin before the launcher has done its part: all that it does until then is in namespaces of its own,
/// and nothing that the launcher does for it changes how, or needs to look into a child that has closed itself to that.
fn may_run_ahead(launch: &Launch) -> bool {
    let namespaces = &launch.namespaces;
    let own_mounts = namespaces.mount == Namespace::New;
    // One that is joined is joined by the launcher, which may have nobody in its memory then (time_namespaces(7)).
    let staged = namespaces.user.is_some() || !own_mounts || namespaces.time != TimeNamespace::Host;
    launch.new_map().is_none() && !staged && launch.intel_rdt.is_none() && launch.net_devices.is_empty()
}

/// A network namespace in the making, with its loopback interface, and others that are made with it.
#[derive(Debug)]
pub(crate) struct Network {
    // First, so that it is the first to go: see `Sent`.
    /// The process that makes it and holds it until somebody else is in it; without a signal at its end, so that nobody takes it for
    /// a container.
    maker: Helper,
    /// What it makes.
    kinds: UnshareFlags,
    /// How that goes: an error number or 0 for either.
    told: OwnedFd,
    /// Ends when it has done what it can.
    done: OwnedFd,
    /// Where the maker is sent, which sends the launcher there, too; until that has set it right.
    processors: Sent,
    /// Of the child, in its copy.
    joined: Cell<bool>,
}

impl Network {
    fn begin(launch: &Launch) -> Result<Self, Failure> {
        let queues = if launch.namespaces.ipc == Namespace::New { UnshareFlags::NEWIPC } else { UnshareFlags::empty() };
        let kinds = UnshareFlags::NEWNET | queues;
        let object = || "with a network namespace's maker";
        let (told, tell) = pipe_with(PipeFlags::CLOEXEC).at(Step::Pipe, object)?;
        let (done, end) = pipe_with(PipeFlags::CLOEXEC).at(Step::Pipe, object)?;
        let all = sched_getaffinity(None).ok();
        let processors = all.and_then(|all| others(all).map(|elsewhere| Processors { elsewhere, all }));
        let maker = Helper::make_network(kinds, tell.as_fd(), end.as_fd(), processors).at(Step::Clone, || "network namespace's maker")?;
        // It goes there by itself, but the kernel likes to leave a new process where its maker is, to begin when that sleeps.
        if let Some(Processors { elsewhere, .. }) = processors {
            // Where it can't be done, it begins later.
            let _ = sched_setaffinity(Pid::from_raw(maker.pid()), &elsewhere);
        }
        Ok(Self { maker, kinds, told, done, processors: Sent(Cell::new(processors)), joined: Cell::new(false) })
    }

    /// Waits, in the launcher, until there is nothing more to do for it. The launcher then goes on where its maker was: if it had not
    /// slept for long, it might not even come to go there by itself before the child sleeps.
    fn wait(&self) {
        let processors = self.processors.0.take();
        self.maker.wait(&self.done, processors);
        if let Some(Processors { all, .. }) = processors {
            let _ = sched_setaffinity(None, &all);
        }
    }

    /// The kinds of namespaces that are made.
    pub(crate) fn kinds(&self) -> UnshareFlags {
        self.kinds
    }

    /// Joins them, in the child, if `fstype` may need one.
    pub(crate) fn join_for(&self, fstype: &str) -> Result<(), Failure> {
        let is_elsewhere = fstype == "mqueue" && self.kinds.contains(UnshareFlags::NEWIPC);
        if WITHOUT_NETWORK.contains(&fstype) && !is_elsewhere { Ok(()) } else { self.join() }
    }

    /// Joins them, in the child, once they are there. Later calls do nothing.
    pub(crate) fn join(&self) -> Result<(), Failure> {
        if self.joined.get() {
            return Ok(());
        }
        let queues = self.kinds.contains(UnshareFlags::NEWIPC);
        let object = || if queues { "network and ipc namespaces" } else { "network namespace" };
        hear(&self.told).at(Step::Unshare, object)?;
        let maker = self.maker.pidfd();
        let kinds = if queues { ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION } else { ThreadNameSpaceType::empty() };
        move_into_thread_name_spaces(maker, kinds | ThreadNameSpaceType::NETWORK).at(Step::JoinNamespace, object)?;
        self.joined.set(true);
        Ok(())
    }

    /// Waits, in the child that has joined it, until its loopback interface is up.
    pub(crate) fn loopback_is_up(&self) -> Result<(), Failure> {
        hear(&self.told).at(Step::LoopbackUp, || "lo")
    }
}

/// Where the launcher may have been sent. Whoever lets go of it has let go of the maker before, which sends nobody any more then.
#[derive(Debug)]
struct Sent(Cell<Option<Processors>>);

impl Drop for Sent {
    /// Also of a launcher that comes to nothing: its last hooks are to run where it might before.
    fn drop(&mut self) {
        if let Some(Processors { all, .. }) = self.0.take() {
            let _ = sched_setaffinity(None, &all);
        }
    }
}

/// These processors without the one that this process runs on, if that leaves any.
fn others(mut processors: CpuSet) -> Option<CpuSet> {
    processors.unset(sched_getcpu());
    (processors.count() > 0).then_some(processors)
}

/// Waits for the maker's next word.
fn hear(told: &OwnedFd) -> Result<(), Errno> {
    let mut errno = [0_u8; 4];
    loop {
        match rustix::io::read(told, &mut errno) {
            Ok(4) => break,
            // It has been killed. The child's own copy of the other end was never made.
            Ok(_) => return Err(Errno::SRCH),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    match i32::from_ne_bytes(errno) {
        0 => Ok(()),
        errno => Err(Errno::from_raw_os_error(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe_with(PipeFlags::CLOEXEC).unwrap()
    }

    #[test]
    fn errors_of_the_maker_arrive_one_by_one() {
        let (told, tell) = pipe();
        for errno in [0, Errno::NOSPC.raw_os_error()] {
            rustix::io::write(&tell, &errno.to_ne_bytes()).unwrap();
        }
        assert_eq!(hear(&told), Ok(()));
        assert_eq!(hear(&told), Err(Errno::NOSPC));
    }

    #[test]
    fn a_maker_that_was_killed_is_not_waited_for() {
        let (told, tell) = pipe();
        drop(tell);
        assert_eq!(hear(&told), Err(Errno::SRCH));
    }

    #[test]
    fn what_the_launcher_must_do_first_is_waited_for() {
        let plain = Launch::default();
        assert!(may_run_ahead(&plain));
        let mut time = plain.clone();
        time.namespaces.time = TimeNamespace::New;
        let mut clocks = plain.clone();
        clocks.namespaces.time = TimeNamespace::Path("/proc/1/ns/time".to_owned());
        let mut joined = plain.clone();
        joined.namespaces.user = Some("/proc/1/ns/user".to_owned());
        let mut mapped = plain.clone();
        mapped.ids = Some(crate::launch::IdMap::default());
        let mut given = plain;
        given.net_devices = vec![crate::launch::NetDevice { outside: "a".to_owned(), inside: "b".to_owned() }];
        for launch in [time, clocks, joined, mapped, given] {
            assert!(!may_run_ahead(&launch), "{launch:?}");
        }
    }
}
