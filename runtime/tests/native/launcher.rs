//! A launcher to attack: a copy of this executable that starts a container and goes away, as a runtime's command line does.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The script in the image whose interpreter is `/proc/self/exe`: executing it executes the launcher's program again.
pub const TRAP: &str = "/trap";

/// `launcher BASE user|host`: starts a container whose program is the trap, waits until it is executed, and ends.
pub fn run(arguments: &[String]) -> i32 {
    use garboard_runtime::launch::*;
    use garboard_runtime::start::{Site, Stdio, start};
    let source = RootSource::Layers { layers: vec![arguments[0].clone()], upper: Upper::Tmpfs { size: 1 << 20 } };
    let mut launch = Launch::bare(Root { source, ..Root::default() });
    launch.ids = (arguments[1] == "user").then(|| crate::site::ids(crate::site::BASE_ID));
    launch.process.args = vec![TRAP.to_owned()];
    launch.process.no_new_privileges = false;
    launch.process.capabilities =
        Capabilities { bounding: 0xff, effective: 0xff, permitted: 0xff, ..Capabilities::default() };
    launch.mounts = vec![Mount {
        target: "/proc".to_owned(),
        source: MountSource::Filesystem {
            fstype: "proc".to_owned(),
            device: None,
            options: Vec::new(),
            copy_up: false,
        },
        flags: MountFlags::default(),
    }];
    let site = Site {
        cgroup_parent: None,
        absent_controller: garboard_runtime::cgroup::AbsentController::Fail,
        device_filters: None,
        volumes: &[],
        root: None,
    };
    let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
    use std::os::fd::AsFd;
    let stdio = Stdio { stdin: None, stdout: Some(stdout.as_fd()), stderr: Some(stderr.as_fd()) };
    let started = match start(&launch, "launcher", &site, stdio) {
        Ok(started) => started,
        Err(failure) => {
            eprintln!("{failure}");
            return 1;
        }
    };
    println!("degraded: {:?}", started.degraded);
    match crate::site::wait_for_report(&started) {
        garboard_runtime::report::Report::Executed => 0,
        other => {
            eprintln!("{other:?}");
            1
        }
    }
}

/// What an attacker says in the end.
const GIVEN_UP: &str = "given up";

/// The attacker's code in the launcher's program: keeps a descriptor to it over exec, so that nobody executes it any more,
/// and has a shell write through that descriptor.
pub fn sprung() -> i32 {
    let exe = rustix::fs::open("/proc/self/exe", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&exe);
    // Busy as long as somebody executes it, which ends; any other refusal is the answer.
    let write = format!("{{ echo overwritten > /proc/self/fd/{fd}; }} 2>&1");
    let script = format!(
        "i=0; while [ $i -lt 3000 ]; do why=$({write}) && exit 0; case $why in *busy*) sleep 0.01;; *) break;; esac; i=$((i+1)); done; \
         echo \"$why\"; echo {GIVEN_UP}; exit 1"
    );
    let error = std::os::unix::process::CommandExt::exec(std::process::Command::new("/bin/sh").args(["-c", &script]));
    eprintln!("{error}");
    2
}

/// Runs the attack on the launcher at `copy` and tells whether the file was changed.
pub fn attack(copy: &Path, base: &Path, user: &str) -> (bool, String) {
    let before = std::fs::metadata(copy).unwrap().len();
    let log = tempfile::tempfile().unwrap();
    let status = std::process::Command::new(copy)
        .args(["launcher", base.to_str().unwrap(), user])
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log.try_clone().unwrap())
        .status()
        .unwrap();
    // The container outlives its launcher; it ends by itself after its tries.
    let until = Instant::now() + Duration::from_secs(60);
    let (mut changed, mut text) = (false, String::new());
    while Instant::now() < until && !changed && !text.contains(GIVEN_UP) {
        std::thread::sleep(Duration::from_millis(20));
        changed = std::fs::metadata(copy).unwrap().len() != before;
        // Reading at an offset leaves the container's own alone.
        let mut said = vec![0; usize::try_from(log.metadata().unwrap().len()).unwrap()];
        log.read_exact_at(&mut said, 0).unwrap();
        text = String::from_utf8_lossy(&said).into_owned();
    }
    assert!(status.success(), "the launcher didn't start the container: {text}");
    (changed, text)
}
