//! Where everything is measured: a mount namespace of its own, one layer with busybox on a tmpfs, and cgroups.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::MountFlags;

use crate::{bare, plan};

pub const CGROUPS: &str = "/sys/fs/cgroup";
/// Scratch is on a tmpfs, as `/run` is elsewhere.
const MEMORY: &str = "/dev/shm";
/// The kernel takes network namespaces apart long after their last process, and others wait for that meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);

/// Enters a mount namespace with a cgroup2 mount, by executing this program in one. Returns in there.
pub fn enter() {
    if std::env::var_os("IN_OWN_MOUNTS").is_none() {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().expect("own path"));
        unshare.args(std::env::args_os().skip(1)).env("IN_OWN_MOUNTS", "1");
        std::process::exit(unshare.status().expect("run unshare").code().unwrap_or(1));
    }
    let mounted = rustix::mount::mount("cgroup2", CGROUPS, "cgroup2", MountFlags::empty(), None);
    mounted.expect("mount cgroup2 as root");
}

/// The machine's, of a minute.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Time on the clock, and of all processors together, which a busy machine blurs less.
#[derive(Clone, Copy)]
pub struct Took {
    pub clock: Duration,
    pub processor: Duration,
}

pub struct Site {
    scratch: tempfile::TempDir,
    floor: PathBuf,
    cgroup: PathBuf,
    /// Network namespaces before anything was begun.
    namespaces: usize,
}

impl Site {
    pub fn new() -> Self {
        let scratch = tempfile::tempdir_in(MEMORY).expect("scratch directory");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(scratch.path(), open).expect("permissions");
        let floor = bare::build(scratch.path());
        let cgroup = Path::new(CGROUPS).join(format!("garboard-scale-{}", std::process::id()));
        let site = Self { scratch, floor, cgroup, namespaces: network_namespaces() };
        for directory in ["bin", "proc", "sys", "dev", "etc"] {
            std::fs::create_dir_all(site.path("layer").join(directory)).expect("layer");
        }
        for file in ["hosts", "hostname", "resolv.conf"] {
            std::fs::write(site.path("layer/etc").join(file), "").expect("layer");
        }
        for applet in ["sleep", "true"] {
            std::fs::copy("/bin/busybox", site.path("layer/bin").join(applet)).expect("busybox-static is installed");
        }
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Made anew.
    fn cgroup(&self) -> &Path {
        std::fs::create_dir(&self.cgroup).expect("make a cgroup");
        &self.cgroup
    }

    /// A command that runs in the cgroup, made anew, in which it makes the containers' own.
    pub fn within(&self, program: &Path) -> Command {
        let mut shell = Command::new("/bin/busybox");
        shell.args(["sh", "-c", "echo $$ > $0/cgroup.procs; exec \"$@\""]).arg(self.cgroup()).arg(program);
        shell
    }

    /// Processor time that everything in there has used.
    pub fn used(&self) -> Duration {
        let text = std::fs::read_to_string(self.cgroup.join("cpu.stat")).expect("cpu.stat");
        let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
        Duration::from_micros(line.and_then(|number| number.parse().ok()).expect("usage_usec"))
    }

    /// How long the floor takes for so many containers.
    pub fn floor(&self, count: usize, filters: bool) -> Took {
        let run = self.path("floor-run");
        for directory in ["etc", "work"] {
            std::fs::create_dir_all(run.join(directory)).expect("directory");
        }
        std::fs::write(run.join("resolv.conf"), "").expect("resolv.conf");
        std::os::unix::fs::symlink(self.path("layer"), run.join("layer")).expect("layer");
        if filters {
            let launch = plan::launch(self);
            std::fs::write(run.join("filter"), launch.seccomp.expect("a filter").bpf).expect("filter");
            std::fs::write(run.join("devices"), launch.cgroup.device_filter).expect("filter");
        }
        let mut floor = self.within(&self.floor);
        floor.arg(count.to_string()).arg(&run).arg(&self.cgroup).stdin(Stdio::null());
        let begun = Instant::now();
        let status = floor.status().expect("start the floor");
        let took = Took { clock: begun.elapsed(), processor: self.used() };
        assert!(status.success(), "floor: {status}");
        let procs = |n: usize| std::fs::read_to_string(self.cgroup.join(format!("c{n}/cgroup.procs"))).expect("cgroup");
        assert!((0..count).all(|number| procs(number).lines().count() == 1), "not all of the floor's run");
        self.settle();
        std::fs::remove_dir_all(run).expect("remove the floor's files");
        took
    }

    pub fn cgroup_path(&self) -> &Path {
        &self.cgroup
    }

    /// Ends every container and waits until the kernel has taken apart what they had.
    pub fn settle(&self) {
        let until = Instant::now() + PATIENCE;
        while self.cgroup.exists() {
            let _ = std::fs::write(self.cgroup.join("cgroup.kill"), "1");
            for entry in std::fs::read_dir(&self.cgroup).into_iter().flatten().flatten() {
                let _ = std::fs::remove_dir(entry.path());
            }
            let _ = std::fs::remove_dir(&self.cgroup);
            assert!(Instant::now() < until, "{} can't be emptied", self.cgroup.display());
            std::thread::sleep(Duration::from_millis(50));
        }
        let until = Instant::now() + PATIENCE;
        while network_namespaces() > self.namespaces + 10 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(250));
        }
        std::thread::sleep(Duration::from_secs(2));
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.settle();
    }
}

/// How many the kernel has; 0 where it doesn't say.
fn network_namespaces() -> usize {
    let text = std::fs::read_to_string("/proc/slabinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("net_namespace "));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
