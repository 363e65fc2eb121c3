//! Containers that break what they can break, all at once: none but themselves is harmed.

mod support;

use std::time::{Duration, Instant};

use garboard_qemu::{Exit, Image, Snapshot, Vm, scaled, secs};
use support::{BOOT, Project, fixture};

/// Within so long the status port answers, whatever the containers do.
const ANSWER: Duration = secs(1);

const BESIEGED: &str = r#"
name = "besieged"
[system]
watchdog = "10s"
[console]
status = false
logs = false

# Processes that make processes for ever: each that can't ends and makes room for another.
[containers.bomb]
image = "BUSYBOX"
command = ["sh", "-c", "bomb() { while :; do bomb & done; }; bomb 2>&- & while :; do :; done"]
pids_limit = 64
mem_limit = "48m"
restart = "always"

[containers.hog]
image = "BUSYBOX"
command = ["dd", "if=/dev/zero", "of=/dev/null", "bs=96M", "count=1"]
mem_limit = "32m"
restart = "always"

[containers.flood]
image = "BUSYBOX"
command = ["yes", "flood flood flood flood flood flood flood flood"]
restart = "always"

# As fast as a pipe takes it, and never the end of a line.
[containers.zeros]
image = "BUSYBOX"
command = ["cat", "/dev/zero"]
restart = "always"

# The machine's clock goes a year forward and two back.
[containers.clock]
image = "BUSYBOX"
command = ["sh", "-c", '''
now=$(date +%s) year=31536000
date -s @$((now + year)) >&- && echo forward $(($(date +%s) - now >= year))
sleep 2
date -s @$((now - year)) >&- && echo back $(($(date +%s) - now < 0))
exec sleep 1000000
''']
userns_mode = "host"
cap_add = ["SYS_TIME"]
restart = "always"

[containers.witness]
image = "BUSYBOX"
command = ["sh", "-c", '''
watchdog=/sys/class/watchdog/watchdog0
until grep -qs active $watchdog/state; do sleep 1; done
echo watchdog $(cat $watchdog/state $watchdog/timeout)
exec sleep 1000000
''']
restart = "always"

[containers.sibling]
image = "BUSYBOX"
command = ["sh", "-c", "while :; do echo beat; sleep 1; done"]
restart = "always"
"#;
/// PID 1's memory never gets near this, whatever the containers print.
const PID1_LIMIT: u64 = 4 << 20;
/// More than any of these tests takes, and far less than a year.
const HOUR_MS: u64 = 3_600_000;
/// Unfed, the watchdog would have started the machine over more than twice in so long.
const FED_MS: u64 = 25_000;

/// A fork bomb, a memory hog, floods of logs and a jumping clock at once harm neither their sibling nor the status port, nor do they
/// keep PID 1 from its watchdog.
#[test]
fn bombs_hogs_and_floods_harm_only_themselves() {
    let project = Project::new(&BESIEGED.replace("BUSYBOX", &fixture("oci", "busybox")));
    let image = Image::load(project.build_without_disk()).unwrap();
    let vm = Vm::boot(&image).unwrap();
    vm.wait_status("a watchdog", BOOT, |_| Ok(vm.logs("witness", 10)? == ["watchdog active 10"])).unwrap();
    // All three have been at it for a while.
    vm.wait_status("siege", BOOT, |status| {
        let of = |name| status.container(name).unwrap();
        let floods = ["flood", "zeros"].map(|name| of(name).log_dropped > 1 << 20);
        Ok(of("bomb").is_healthy() && floods == [true, true] && of("hog").restarts >= 2)
    })
    .unwrap();
    let besieged = vm.status().unwrap().uptime_ms;
    vm.wait_status("jumps of the clock", BOOT, |_| Ok(vm.logs("clock", 10)? == ["forward 1", "back 1"])).unwrap();
    let restarts = |status: &Snapshot| status.container("hog").unwrap().restarts;
    let before = restarts(&vm.status().unwrap());
    vm.wait_status("restart after the jumps", BOOT, |status| Ok(restarts(status) > before)).unwrap();
    let mut slowest = Duration::ZERO;
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(300));
        let asked = Instant::now();
        let status = vm.status().unwrap();
        slowest = slowest.max(asked.elapsed());
        for name in ["sibling", "witness", "bomb", "flood", "zeros", "clock"] {
            let container = status.container(name).unwrap();
            assert_eq!((container.restarts, container.as_declared), (0, true), "{name}: {}", status.table());
            assert!(container.uptime_ms.is_some_and(|ms| ms < HOUR_MS), "{name}: {:?}", container.uptime_ms);
        }
        assert!(status.uptime_ms < HOUR_MS, "{}", status.uptime_ms);
        assert!(status.pid1_rss_bytes < PID1_LIMIT, "{}", status.pid1_rss_bytes);
        assert_eq!(status.container("sibling").unwrap().log_dropped, 0);
    }
    println!("slowest answer: {slowest:?}");
    // PID 1 finds the time to feed it: else this would be another boot, or none. What it does unfed, `tests/watchdog.rs` shows.
    vm.wait_status("much time", BOOT, |status| Ok(status.uptime_ms > besieged + FED_MS)).unwrap();
    assert_eq!(vm.reboots(), 0);
    assert!(slowest < scaled(ANSWER), "an answer took {slowest:?}");
    assert_eq!(vm.status().unwrap().container("hog").unwrap().exit, Some(Exit::Signal(9)));
    assert!(vm.console().contains("garboard: hog was killed by SIGKILL: out of memory; starts again in"));
    assert!(vm.logs("sibling", 10).unwrap().iter().any(|line| line == "beat"));
    vm.power_off(secs(60)).unwrap();
}
