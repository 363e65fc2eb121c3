//! Namespaces that several containers share (a pod's): made before the first of them, held by descriptor, by no process.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::thread::UnshareFlags;

use crate::failure::{Context, Failure, Step};
use crate::launch::{IdMap, Launch, Namespace, Namespaces};
use crate::launcher::Visits;
use crate::{filesystem, sys, userns};

/// The namespaces, each if the containers have one of their own and not the machine's. The user namespace owns the others.
#[derive(Debug, Default)]
pub struct Shared {
    /// User and group ids.
    pub user: Option<OwnedFd>,
    /// Network, its loopback interface up.
    pub network: Option<OwnedFd>,
    /// System V IPC and POSIX message queues.
    pub ipc: Option<OwnedFd>,
    /// Host and domain name.
    pub uts: Option<OwnedFd>,
}

impl Shared {
    /// Makes those that `launch` would make for itself. Needs what [`userns::create`] needs, and CAP_SYS_ADMIN; blocks as briefly.
    pub fn of(launch: &Launch) -> Result<Self, Failure> {
        let own = |namespace: &Namespace, flag| if *namespace == Namespace::New { flag } else { UnshareFlags::empty() };
        let namespaces = &launch.namespaces;
        let user = if launch.new_map().is_some() { UnshareFlags::NEWUSER } else { UnshareFlags::empty() };
        let kinds = user
            | own(&namespaces.network, UnshareFlags::NEWNET)
            | own(&namespaces.ipc, UnshareFlags::NEWIPC)
            | own(&namespaces.uts, UnshareFlags::NEWUTS);
        let helper = sys::helper::Helper::start(kinds).at(Step::Clone, || "a helper for shared namespaces")?;
        if let Some(ids) = launch.new_map() {
            userns::write_maps(helper.pid(), ids)?;
        }
        let open = |flag, name: &str| {
            let path = format!("/proc/{}/ns/{name}", helper.pid());
            let open = || rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            kinds.contains(flag).then(open).transpose().at(Step::Open, || path.as_str())
        };
        let shared = Self {
            user: open(UnshareFlags::NEWUSER, "user")?,
            network: open(UnshareFlags::NEWNET, "net")?,
            ipc: open(UnshareFlags::NEWIPC, "ipc")?,
            uts: open(UnshareFlags::NEWUTS, "uts")?,
        };
        shared.bring_loopback_up()?;
        shared.give_queues(launch.new_map())?;
        Ok(shared)
    }

    /// Has `launch` join them.
    pub fn join(&self, launch: &mut Launch) {
        let namespaces = &mut launch.namespaces;
        namespaces.user = self.user.as_ref().map(path).or(namespaces.user.take());
        for (shared, namespace) in [
            (&self.network, &mut namespaces.network),
            (&self.ipc, &mut namespaces.ipc),
            (&self.uts, &mut namespaces.uts),
        ] {
            if let Some(shared) = shared {
                *namespace = Namespace::Path(path(shared));
            }
        }
    }

    /// Gives `/dev/mqueue` to the containers' root: it belongs to whoever made the namespace, who is nobody there.
    fn give_queues(&self, ids: Option<&IdMap>) -> Result<(), Failure> {
        let (Some(ipc), Some(ids)) = (&self.ipc, ids) else { return Ok(()) };
        let there = Namespaces { ipc: Namespace::Path(path(ipc)), ..Namespaces::of_launcher() };
        let open = || filesystem::new("mqueue", &[], MountAttrFlags::empty());
        let queues = match Visits::open(&there)?.during(open, drop) {
            // This kernel has none.
            Err(failure) if failure.errno == Errno::NODEV.raw_os_error() => return Ok(()),
            other => other?,
        };
        let (uid, gid) = (userns::outside(0, Some(&ids.uids)), userns::outside(0, Some(&ids.gids)));
        rustix::fs::chownat(&queues, "", uid.map(Uid::from_raw), gid.map(Gid::from_raw), AtFlags::EMPTY_PATH)
            .at(Step::Create, || "the owner of shared queues")
    }

    fn bring_loopback_up(&self) -> Result<(), Failure> {
        let Some(network) = &self.network else { return Ok(()) };
        let there = Namespaces { network: Namespace::Path(path(network)), ..Namespaces::of_launcher() };
        let up = || sys::net::loopback_up().at(Step::LoopbackUp, || "lo of shared namespaces");
        Visits::open(&there)?.during(up, drop)
    }
}

/// By which this process, and so the launcher, finds it.
fn path(namespace: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", namespace.as_raw_fd())
}
