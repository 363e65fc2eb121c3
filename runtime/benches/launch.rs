//! How long a container takes from the launcher's call to its program's end, against an ordinary child and `crun run`.
//!
//! `sudo cargo bench -p garboard-runtime --bench launch [ROUNDS]`. The program is busybox's `true`, static. All three run the
//! same file, the containers with the same OCI spec, interleaved, so that they share the machine's moods.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as ProcessStdio};
use std::time::{Duration, Instant};

use garboard_runtime::cgroup::{self, AbsentController};
use garboard_runtime::compile;
use garboard_runtime::launch::{IdMap, IdRange, Launch, Root, RootSource, Upper};
use garboard_runtime::report::{self, Report};
use garboard_runtime::spec::{self, FileMetadata, ImageFiles, Options};
use garboard_runtime::start::{Site, Stdio, start};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitId, WaitIdOptions, waitid};

const CGROUPS: &str = "/sys/fs/cgroup";

fn main() {
    let rounds = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(200);
    if std::env::var_os("IN_OWN_MOUNTS").is_none() {
        // A mount namespace for the cgroup mount that crun expects.
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().expect("own path"));
        let status = unshare.arg(rounds.to_string()).env("IN_OWN_MOUNTS", "1").status().expect("run unshare");
        std::process::exit(status.code().unwrap_or(1));
    }
    rustix::mount::mount("cgroup2", CGROUPS, "cgroup2", rustix::mount::MountFlags::empty(), None)
        .expect("mount cgroup2 as root");
    let scratch = tempfile::tempdir().expect("scratch directory");
    std::fs::set_permissions(scratch.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).expect("permissions");
    let bench = Bench::new(scratch.path());
    measure(&bench, rounds);
}

/// One container, in the forms that each launcher wants.
struct Bench {
    rootfs: PathBuf,
    bundle: PathBuf,
    launch: Launch,
}

impl Bench {
    fn new(scratch: &Path) -> Self {
        let bundle = scratch.join("bundle");
        let rootfs = bundle.join("rootfs");
        for directory in ["bin", "proc", "sys", "dev"] {
            std::fs::create_dir_all(rootfs.join(directory)).expect("rootfs");
        }
        std::fs::copy("/bin/busybox", rootfs.join("bin/true")).expect("busybox-static is installed");
        let range = vec![IdRange { inside: 0, outside: 1_000_000, size: 65_536 }];
        let options = Options {
            command: Some(vec!["/bin/true".to_owned()]),
            ids: Some(IdMap { uids: range.clone(), gids: range }),
            ..Options::default()
        };
        let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config = serde_json::from_str(config).expect("config");
        let container = spec::from_image(&config, &options, &NoFiles).expect("spec");
        let layers = vec![rootfs.to_str().expect("UTF-8").to_owned()];
        let source = RootSource::Layers { layers, upper: Upper::Tmpfs { size: 1 << 20 } };
        let launch = compile::launch(&container.spec, Root { source, ..Root::default() }, &[]).expect("launch");
        let mut json = serde_json::to_value(&container.spec).expect("json");
        // Without its cgroup work: older versions of crun raise RLIMIT_MEMLOCK for it, which not every root may.
        json["linux"].as_object_mut().expect("linux").remove("resources");
        // Nothing in it is newer, and older versions of crun refuse a number that they don't know.
        json["ociVersion"] = "1.0.2".into();
        std::fs::write(bundle.join("config.json"), json.to_string()).expect("config.json");
        Self { rootfs, bundle, launch }
    }
}

fn measure(bench: &Bench, rounds: usize) {
    let parent = rustix::fs::open(CGROUPS, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).expect("cgroups");
    let site = Site {
        cgroup_parent: Some(parent.as_fd()),
        absent_controller: AbsentController::Record,
        device_filters: None,
        volumes: &[],
        root: None,
    };
    let (mut called, mut executed, mut ended) = (Vec::new(), Vec::new(), Vec::new());
    let (mut plain, mut crun) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let begin = Instant::now();
        let started = start(&bench.launch, "garboard-bench", &site, Stdio::default()).unwrap_or_else(|f| panic!("{f}"));
        called.push(begin.elapsed());
        wait(started.report.as_fd(), PollFlags::empty());
        match report::read(&started.report) {
            Report::Executed => executed.push(begin.elapsed()),
            other => panic!("{other:?}"),
        }
        wait(started.pidfd.as_fd(), PollFlags::IN);
        ended.push(begin.elapsed());
        waitid(WaitId::PidFd(started.pidfd.as_fd()), WaitIdOptions::EXITED).expect("reap");
        while cgroup::remove(&parent, "garboard-bench").is_err() {}

        let begin = Instant::now();
        assert!(Command::new(bench.rootfs.join("bin/true")).status().expect("run true").success());
        plain.push(begin.elapsed());

        let begin = Instant::now();
        let mut command = Command::new("crun");
        command.args(["--cgroup-manager=disabled", "run", "--bundle"]).arg(&bench.bundle).arg("garboard-bench-crun");
        // What crun writes about files it doesn't need isn't our matter.
        if command.stderr(ProcessStdio::null()).status().is_ok_and(|status| status.success()) {
            crun.push(begin.elapsed());
        }
    }
    println!("median of {rounds} rounds, microseconds");
    print("ordinary child, fork to end", &mut plain);
    print("garboard, call to return", &mut called);
    print("garboard, call to exec", &mut executed);
    print("garboard, call to end", &mut ended);
    if crun.is_empty() {
        println!("{:<30} doesn't run here", "crun run, without cgroup");
    } else {
        print("crun run, without cgroup", &mut crun);
    }
}

/// Waits for that, or for the other end to be closed.
fn wait(fd: std::os::fd::BorrowedFd<'_>, event: PollFlags) {
    poll(&mut [PollFd::from_borrowed_fd(fd, event)], None).expect("poll");
}

fn print(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_micros();
    println!("{what:<30} {:>7}   (10 %: {}, 90 %: {})", at(50), at(10), at(90));
}

/// An image without passwd and group.
struct NoFiles;

impl ImageFiles for NoFiles {
    fn read(&self, _path: &str, _limit: usize) -> std::io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn metadata(&self, _path: &str) -> std::io::Result<Option<FileMetadata>> {
        Ok(None)
    }
}
