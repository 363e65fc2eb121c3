//! What a launcher that starts one container only does at the same time, on a machine with a second processor.
//!
//! A new network namespace takes the kernel nearly as long as all mounts of a container together. A helper makes it while the
//! root is built, and the child joins it when something needs it. It costs one more process, so who starts many containers at
//! once, with every processor busy, is better off without.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces};

use crate::failure::{Context, Failure, Step};
use crate::launch::{Launch, Namespace, TimeNamespace};
use crate::sys::clone::Helper;

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
    /// Begins what can be begun for `launch`, before anything else is done for it.
    pub fn begin(launch: &Launch) -> Result<Self, Failure> {
        let runs_ahead = may_run_ahead(launch);
        // Interfaces are given to it before the child is let go.
        let makes = runs_ahead && launch.namespaces.network == Namespace::New && launch.net_devices.is_empty();
        Ok(Self { network: makes.then(Network::begin).transpose()?, runs_ahead })
    }

    /// See the field.
    pub(crate) fn network(&self) -> Option<&Network> {
        self.network.as_ref()
    }

    /// See the field.
    pub(crate) fn runs_ahead(&self) -> bool {
        self.runs_ahead
    }
}

/// Whether the child may begin before the launcher has done its part: all that it does until then is in namespaces of its own,
/// and nothing that the launcher does for it changes how.
fn may_run_ahead(launch: &Launch) -> bool {
    let namespaces = &launch.namespaces;
    let staged = namespaces.user.is_some() || namespaces.mount.is_some() || namespaces.time == TimeNamespace::New;
    launch.new_map().is_none() && !staged && launch.intel_rdt.is_none()
}

/// A network namespace in the making.
#[derive(Debug)]
pub(crate) struct Network {
    /// The process that makes it, and holds it until somebody else is in it.
    helper: Helper,
    /// How that went.
    told: OwnedFd,
    /// Of the child, in its copy.
    joined: Cell<bool>,
}

impl Network {
    fn begin() -> Result<Self, Failure> {
        let object = || "of a network namespace's maker";
        let (told, tell) = pipe_with(PipeFlags::CLOEXEC).at(Step::Pipe, object)?;
        let helper = Helper::start_making(UnshareFlags::NEWNET, tell.as_fd()).at(Step::Clone, object)?;
        Ok(Self { helper, told, joined: Cell::new(false) })
    }

    /// Joins it, in the child, if `fstype` may need it.
    pub(crate) fn join_for(&self, fstype: &str) -> Result<(), Failure> {
        if WITHOUT_NETWORK.contains(&fstype) { Ok(()) } else { self.join() }
    }

    /// Joins it, in the child, once it is there. Later calls do nothing.
    pub(crate) fn join(&self) -> Result<(), Failure> {
        if self.joined.get() {
            return Ok(());
        }
        let object = || "network namespace";
        made(&self.told).at(Step::Unshare, object)?;
        move_into_thread_name_spaces(self.helper.pidfd(), ThreadNameSpaceType::NETWORK).at(Step::JoinNamespace, object)?;
        self.joined.set(true);
        Ok(())
    }
}

/// Waits for the maker's word.
fn made(told: &OwnedFd) -> Result<(), Errno> {
    let mut errno = [0_u8; 4];
    loop {
        match rustix::io::read(told, &mut errno) {
            Ok(4) => break,
            // It has been killed.
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
