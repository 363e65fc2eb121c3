//! Interfaces of the machine that become the container's (runtime spec, "Network Devices").

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::joined;
use super::netlink::{Address, Link, Network};
use crate::failure::{Context, Failure, Step};
use crate::launch::{Launch, Namespace, Namespaces, NetDevice};

/// Interfaces that were moved, and what they were, should the container not come to be: most would go with its namespace.
#[derive(Debug)]
pub(crate) struct Moved {
    inside: Network,
    machine: OwnedFd,
    devices: Vec<Device>,
}

#[derive(Debug)]
struct Device {
    /// Its number in the container.
    index: u32,
    /// The rest is as it was on the machine.
    name: String,
    up: bool,
    addresses: Vec<Address>,
}

/// Moves the launch's interfaces into the network namespace of its waiting child, with their addresses, and brings them up. On failure
/// all are where they were.
pub(super) fn give(pid: i32, launch: &Launch) -> Result<Option<Moved>, Failure> {
    if launch.net_devices.is_empty() {
        return Ok(None);
    }
    let path = match &launch.namespaces.network {
        Namespace::Path(path) => path.clone(),
        Namespace::New | Namespace::Host => format!("/proc/{pid}/ns/net"),
    };
    let target = rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .at(Step::Open, || path.as_str())?;
    let only_network = Namespaces { network: Namespace::Path(path), ..Namespaces::of_launcher() };
    let socket = || Network::here().at(Step::MoveInterface, || "of the container");
    let inside = joined::Visits::open(&only_network)?.during(socket, drop)?;
    let outside = Network::here().at(Step::MoveInterface, || "of the machine")?;
    let named = |device: &NetDevice| format!("{} as {}", device.outside, device.inside);
    let find = |device| find(device, &outside, &inside).at(Step::MoveInterface, || named(device));
    // Before the first is moved, as a move is not without traces.
    let found = launch.net_devices.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    let mut moved = Moved { inside, machine: joined::open("/proc/self/ns/net")?, devices: Vec::new() };
    for (device, found) in launch.net_devices.iter().zip(found) {
        if let Err(errno) = moved.add(device, found, &outside, target.as_fd()) {
            moved.give_back();
            return Err(Failure::new(Step::MoveInterface, named(device), errno));
        }
    }
    Ok(Some(moved))
}

/// The interface on the machine, and its addresses.
fn find(device: &NetDevice, outside: &Network, inside: &Network) -> Result<(Link, Vec<Address>), Errno> {
    let link = outside.link(&device.outside)?;
    match inside.link(&device.inside) {
        // Asked first, as the kernel would move it and then not rename it.
        Ok(_) => return Err(Errno::EXIST),
        Err(Errno::NODEV) => {}
        Err(errno) => return Err(errno),
    }
    let addresses = outside.addresses(link.index)?;
    Ok((link, addresses))
}

impl Moved {
    fn add(
        &mut self,
        device: &NetDevice,
        (link, addresses): (Link, Vec<Address>),
        outside: &Network,
        target: BorrowedFd<'_>,
    ) -> Result<(), Errno> {
        let before = self.inside.indices()?;
        let moved = outside.move_to(link.index, target, &device.inside);
        // The kernel may have given it another number, and chosen its name. On failure it may have been moved and not renamed.
        let index = self.inside.indices()?.into_iter().find(|index| !before.contains(index));
        let index = index.ok_or(moved.err().unwrap_or(Errno::NODEV))?;
        let device = Device { index, name: device.outside.clone(), up: link.up, addresses };
        let entered = moved.and_then(|()| enter(&self.inside, index, &device.addresses)).and_then(|()| self.inside.up(index));
        self.devices.push(device);
        entered
    }

    /// Moves them back, under their names, with their addresses, and up if they were. The failure for which that is done is the one to
    /// report, so nothing is told of others.
    pub(crate) fn give_back(self) {
        let Ok(outside) = Network::here() else { return };
        for device in self.devices.iter().rev() {
            let _ = self.inside.move_to(device.index, self.machine.as_fd(), &device.name);
            if let Ok(Link { index, .. }) = outside.link(&device.name) {
                let _ = enter(&outside, index, &device.addresses);
                let _ = if device.up { outside.up(index) } else { Ok(()) };
            }
        }
    }
}

/// Gives an interface its addresses.
fn enter(network: &Network, index: u32, addresses: &[Address]) -> Result<(), Errno> {
    addresses.iter().try_for_each(|address| match network.add(index, address) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    })
}
