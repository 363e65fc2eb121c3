//! What a run takes of memory: resident at most, and the lowest limit under which it succeeds.

use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;

use crate::site::{Runtime, Site};

/// A limit is searched for in steps of this many bytes, below the last number.
const STEP: u64 = 16 << 10;
const MOST: u64 = 64 << 20;
/// It must do so many times, as what is in use differs by a few pages from run to run.
const TIMES: usize = 4;
/// Peaks differ as little.
const PEAKS: usize = 5;

/// The most memory, in KiB, that any process of a run has resident; the median of a few runs.
pub fn resident(site: &Site, runtime: Runtime) -> u64 {
    let mut peaks: Vec<u64> = (0..PEAKS)
        .map(|_| {
            let output = site.measured(&site.run(runtime), Path::new("/dev/null")).output().expect("start measured");
            assert!(output.status.success(), "{}: {}", runtime.name(), output.status);
            let text = String::from_utf8_lossy(&output.stderr);
            text.lines().last().and_then(|line| line.parse().ok()).expect("a number of measured")
        })
        .collect();
    peaks.sort_unstable();
    peaks[PEAKS / 2]
}

/// This process's own memory control group, in which others with limits can be made.
///
/// Of version 1, as there a container's processes stay in the runtime's group. `None`: this machine's memory controller isn't there.
pub struct Limits {
    group: PathBuf,
    hierarchy: PathBuf,
}

impl Limits {
    pub fn open(site: &Site) -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").expect("/proc/self/cgroup");
        let own = own.lines().find_map(|line| line.split_once(":memory:"))?.1;
        let hierarchy = site.scratch().join("memory");
        std::fs::create_dir(&hierarchy).expect("mount point");
        rustix::mount::mount("cgroup", &hierarchy, "cgroup", MountFlags::empty(), Some(c"memory")).ok()?;
        let group = hierarchy.join(own.trim_start_matches('/')).join(format!("garboard-bench-{}", std::process::id()));
        Some(Self { group, hierarchy })
    }

    /// The lowest limit in bytes under which a run succeeds each time.
    pub fn lowest(&self, site: &Site, runtime: Runtime) -> u64 {
        let (mut fails, mut succeeds) = (0, MOST);
        while succeeds - fails > STEP {
            let limit = (fails + succeeds) / 2;
            if (0..TIMES).all(|_| self.suffices(limit, site, runtime)) {
                succeeds = limit;
            } else {
                fails = limit;
            }
        }
        succeeds
    }

    fn suffices(&self, limit: u64, site: &Site, runtime: Runtime) -> bool {
        std::fs::create_dir(&self.group).expect("make a memory control group");
        std::fs::write(self.group.join("memory.limit_in_bytes"), limit.to_string()).expect("set a limit");
        let procs = self.group.join("cgroup.procs");
        let status = site.measured(&site.run(runtime), &procs).output().expect("start measured").status;
        if !status.success() {
            site.clear(runtime);
        }
        // Until the last process of one that was killed is gone.
        while std::fs::remove_dir(&self.group).is_err() {
            std::thread::yield_now();
        }
        status.success()
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.hierarchy, rustix::mount::UnmountFlags::DETACH);
    }
}
