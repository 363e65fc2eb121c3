//! Containers that may read the machine's status, each on a socket that PID 1 makes for it.

use super::{Container, PlanError, RUN};
use crate::launch::{EndLinks, IdMapping, Mount, MountFlags, MountSource};

/// Where such a container finds its socket, inside.
pub const STATUS_SOCKET: &str = "/run/garboard/status.sock";

/// The same socket on the machine, beneath PID 1's directory `run`: in a directory of the container's own.
pub fn status_socket(run: &str, container: &str) -> String {
    format!("{run}/status/{container}/status.sock")
}

impl Container {
    /// Lets it read the status: has PID 1 make its socket, and mounts that in it. What was mounted there is mounted no more.
    pub fn let_read_status(&mut self) -> Result<(), PlanError> {
        self.reads_status = true;
        let path = status_socket(RUN, &self.name);
        let mut flags = MountFlags::default();
        // A socket is connected to through a read-only mount, too; nothing else can be done with it.
        flags.own.set(
            libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC,
        );
        self.launch.change(|launch| {
            launch.mounts.retain(|mount| mount.target != STATUS_SOCKET);
            launch.mounts.push(Mount {
                target: STATUS_SOCKET.to_owned(),
                source: MountSource::Bind { path, recursive: false, idmap: IdMapping::None, links: EndLinks::Followed, create: None },
                flags,
            });
        })
    }
}
