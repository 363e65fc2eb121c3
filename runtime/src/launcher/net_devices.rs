//! Interfaces of the machine that become the container's (runtime spec, "Network Devices").

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::joined;
use super::netlink::Network;
use crate::failure::{Context, Failure, Step};
use crate::launch::{Launch, Namespace, Namespaces, NetDevice};

/// Moves the launch's interfaces into the network namespace of its waiting child, with their addresses, and brings them up.
pub(super) fn give(pid: i32, launch: &Launch) -> Result<(), Failure> {
    if launch.net_devices.is_empty() {
        return Ok(());
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
    launch.net_devices.iter().try_for_each(|device| {
        move_one(device, &outside, &inside, target.as_fd())
            .at(Step::MoveInterface, || format!("{} as {}", device.outside, device.inside))
    })
}

fn move_one(
    device: &NetDevice,
    outside: &Network,
    inside: &Network,
    target: std::os::fd::BorrowedFd<'_>,
) -> Result<(), Errno> {
    let index = outside.index(&device.outside)?;
    let addresses = outside.addresses(index)?;
    match inside.index(&device.inside) {
        // Asked first, as the kernel would move it and then not rename it.
        Ok(_) => return Err(Errno::EXIST),
        Err(Errno::NODEV) => {}
        Err(errno) => return Err(errno),
    }
    let before = inside.indices()?;
    outside.move_to(index, target, &device.inside)?;
    // The kernel may have given it another number, and chosen its name.
    let index = inside.indices()?.into_iter().find(|index| !before.contains(index)).ok_or(Errno::NODEV)?;
    for address in &addresses {
        match inside.add(index, address) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    inside.up(index)
}
