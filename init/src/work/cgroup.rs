//! The cgroup in which a container's process is, for those who are to join it there.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

/// A process's cgroup.
#[derive(Debug)]
pub(super) struct Cgroup {
    /// Its path in the hierarchy; empty where there is none.
    path: String,
    /// Its directory; `None`: nothing is mounted in which it could be found.
    pub(super) directory: Option<OwnedFd>,
}

impl Cgroup {
    /// The one that a process is in, wherever they are mounted: the container's own, or one that the container has made in it, where
    /// its own may take no more processes.
    pub(super) fn of(pid: i32) -> Result<Self, String> {
        // One that has ended is in none.
        let of_process = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let path = of_process.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default().to_owned();
        let mounts = std::fs::read_to_string("/proc/self/mounts")
            .map_err(|e| format!("find its cgroup: read /proc/self/mounts: {e}"))?;
        let mounted = |line: &str| {
            let mut fields = line.split(' ').skip(1);
            let place = fields.next()?;
            (fields.next() == Some("cgroup2")).then(|| format!("{place}/{path}"))
        };
        let directory = mounts.lines().find_map(mounted).map(|directory| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(&directory, flags, Mode::empty()).map_err(|e| format!("open {directory}: {e}"))
        });
        Ok(Self { path, directory: directory.transpose()? })
    }

    /// It is the one of the container of this name, or in it.
    pub(super) fn is_of(&self, container: &str) -> bool {
        self.path.split('/').any(|part| part == container)
    }
}
