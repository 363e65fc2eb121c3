//! Ends of containers: kept exactly, by the hundred at once, over and over without anything left behind, and the last of all.

mod support;

use std::fmt::Write;
use std::path::Path;

use garboard_qemu::{Exit, Image, Snapshot, Vm, secs};
use support::{BOOT, Project, fixture, judge};

/// Containers that sleep until all are killed at once. To start one takes an emulated machine a tenth of a second and more.
const SLEEPERS: usize = 40;
/// Orphans that sleep as well, and end with them: PID 1's children like these.
const ORPHANS: usize = 460;

/// Containers that crash as soon as they are started, and how often each does.
#[derive(Clone, Copy)]
struct Loops {
    containers: usize,
    crashes: u64,
}

/// Before the last crash there are three seconds without one.
const SOME: Loops = Loops { containers: 15, crashes: 7 };
/// Ten thousand in all. Before the last there is a minute without one, which is as long as it gets.
const MANY: Loops = Loops { containers: 840, crashes: 12 };

/// `nursery` has the orphans. `overseer` counts PID 1's descriptors and unreaped children, and kills all sleepers with one call once
/// all are there.
const CHILDREN: &str = r#"
[containers.nursery]
image = "PERL"
user = "root"
entrypoint = ["perl", "-e", '''
for (1 .. ORPHANS) {
    if (!fork) { exit if fork; $0 = "sleep 31337"; sleep }
    wait;
}
sleep;
''']
pid = "host"
restart = "always"

[containers.overseer]
image = "PERL"
user = "root"
entrypoint = ["perl", "-e", '''
$| = 1;
for (;; sleep 2) {
    opendir FDS, "/proc/1/fd"; $fds = grep /\d/, readdir FDS;
    $zombies = 0; @sleepers = ();
    opendir PROC, "/proc";
    for (grep /^\d/, readdir PROC) {
        $zombies++ if open(STAT, "/proc/$_/stat") && <STAT> =~ /\) Z 1 /;
        push @sleepers, $_ if open(LINE, "/proc/$_/cmdline") && <LINE> =~ /^sleep.31337/;
    }
    print "fds $fds zombies $zombies sleepers ", @sleepers + 0, "\n";
    print "killed ", kill(KILL => @sleepers), "\n" if @sleepers == ALL;
}
''']
pid = "host"
userns_mode = "host"
cap_add = ["KILL", "SYS_PTRACE"]
restart = "always"
"#;

const ENDING: &str = r#"
name = "ends"
[console]
logs = false
status = false
[system]
memory = 1024
[volumes.keep]

[containers.zero]
image = "BUSYBOX"
command = ["true"]
restart = "on-failure"

[containers.seven]
image = "BUSYBOX"
command = ["sh", "-c", "exit 7"]
restart = "on-failure:2"

[containers.signal]
image = "BUSYBOX"
command = ["sh", "-c", "kill -USR1 $$"]
pid = "host"

# What it writes when it is asked to stop it doesn't sync, and it goes on.
[containers.deaf]
image = "BUSYBOX"
command = ["sh", "-c", "trap 'echo heard >/keep/heard; echo heard' TERM; while :; do sleep 1; done"]
volumes = ["keep:/keep"]
stop_grace_period = "3s"
restart = "always"
"#;

fn bake(loops: Loops) -> (Project, Image) {
    let numbers = [("ORPHANS", ORPHANS), ("ALL", SLEEPERS + ORPHANS)];
    let children = numbers.iter().fold(CHILDREN.to_owned(), |text, (name, n)| text.replace(name, &n.to_string()));
    let mut declaration = format!("{ENDING}{children}");
    let sleepers = (0..SLEEPERS).map(|n| (format!("sleeper{n}"), r#"["sleep", "31337"]"#, "no"));
    let loops = (0..loops.containers).map(|n| (format!("loop{n}"), r#"["false"]"#, "always"));
    for (name, command, restart) in sleepers.chain(loops) {
        let image = "image = \"BUSYBOX\"";
        writeln!(declaration, "[containers.{name}]\n{image}\ncommand = {command}\nrestart = \"{restart}\"").unwrap();
    }
    let (perl, busybox) = (fixture("oci", "redis"), fixture("oci", "busybox"));
    let project = Project::new(&declaration.replace("PERL", &perl).replace("BUSYBOX", &busybox));
    let image = Image::load(project.build_without_disk()).unwrap();
    (project, image)
}

#[test]
fn ends_are_kept_and_crash_loops_leave_nothing() {
    let (_project, image) = bake(SOME);
    let state = tempfile::tempdir().unwrap();
    let vm = Vm::builder(&image).state(state.path()).boot().unwrap();
    exact_ends_are_kept_and_the_policy_applied(&vm);
    all_ends_at_once_are_seen(&vm);
    crash_loops_leave_nothing_and_are_held_back(&vm, SOME);
    who_is_deaf_is_killed_and_what_it_wrote_is_kept(&vm, state.path());
}

/// For a long evening:
///
///     GARBOARD_TIME_SCALE=20 cargo test -p garboard-qemu --test ends -- --ignored --nocapture
#[test]
#[ignore = "takes a quarter of an hour"]
fn ten_thousand_crashes_leave_nothing() {
    let (_project, image) = bake(MANY);
    let vm = Vm::boot(&image).unwrap();
    crash_loops_leave_nothing_and_are_held_back(&vm, MANY);
    vm.hard_stop();
}

fn exact_ends_are_kept_and_the_policy_applied(vm: &Vm) {
    for (name, state, exit, restarts) in [
        ("zero", "exited", Exit::Code(0), 0),
        ("seven", "failed", Exit::Code(7), 2),
        ("signal", "failed", Exit::Signal(10), 0),
    ] {
        vm.wait_status(name, BOOT, |status| {
            let one = status.container(name).unwrap();
            Ok((one.state.as_str(), one.exit, one.restarts) == (state, Some(exit), restarts))
        })
        .unwrap();
    }
}

/// The last that `overseer` has counted: PID 1's descriptors, its unreaped children, and the sleepers.
fn counted(vm: &Vm) -> [usize; 3] {
    let log = vm.logs("overseer", 2).unwrap();
    let line = log.iter().rfind(|line| line.starts_with("fds ")).cloned().unwrap_or_default();
    let numbers: Vec<usize> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().unwrap_or([usize::MAX; 3])
}

fn all_ends_at_once_are_seen(vm: &Vm) {
    let sleepers = |status: &Snapshot| -> Vec<_> {
        status.containers.iter().filter(|c| c.name.starts_with("sleeper")).map(|c| (c.exit, c.restarts)).collect()
    };
    vm.wait_status(
        "the ends of all",
        BOOT,
        |status| Ok(sleepers(status) == vec![(Some(Exit::Signal(9)), 0); SLEEPERS]),
    )
    .unwrap();
    // The control: it was one call, for all of them.
    let killed = format!("killed {}", SLEEPERS + ORPHANS);
    vm.wait_status(&killed, BOOT, |_| Ok(vm.logs("overseer", 1000)?.contains(&killed))).unwrap();
    println!("{} ends after {} s, {:?} on a processor", SLEEPERS + ORPHANS, vm.elapsed().as_secs(), vm.cpu_time());
    vm.wait_status("no zombie", BOOT, |_| Ok(counted(vm)[1..] == [0, 0])).unwrap();
}

fn crash_loops_leave_nothing_and_are_held_back(vm: &Vm, loops: Loops) {
    let crashes = |status: &Snapshot| -> Vec<u64> {
        status.containers.iter().filter(|c| c.name.starts_with("loop")).map(|c| c.restarts).collect()
    };
    // What is open while nothing is being started: the least of some seconds.
    let least = || {
        let sample = |_| {
            std::thread::sleep(secs(1));
            counted(vm)[0]
        };
        (0..10).map(sample).min().unwrap()
    };
    vm.wait_status("some crashes", BOOT, |status| Ok(crashes(status).iter().all(|n| *n >= loops.crashes / 2))).unwrap();
    let (before, descriptors) = (vm.status().unwrap(), least());
    vm.wait_status("many crashes", BOOT, |status| Ok(crashes(status).iter().all(|n| *n >= loops.crashes))).unwrap();
    let (after, now) = (vm.status().unwrap(), least());
    println!("{} crashes after {} s", crashes(&after).iter().sum::<u64>(), vm.elapsed().as_secs());
    println!("resident {} → {}, descriptors {descriptors} → {now}", before.pid1_rss_bytes, after.pid1_rss_bytes);
    assert!(after.pid1_rss_bytes <= before.pid1_rss_bytes + (256 << 10));
    assert!(now <= descriptors + 2, "{descriptors} → {now}");
    // Each delay is twice the one before, less a quarter at most.
    for one in after.containers.iter().filter(|c| c.name.starts_with("loop")) {
        let least: u64 = (0..one.restarts).map(|n| (100 << n).min(60_000) * 3 / 4).sum();
        assert!(after.uptime_ms > least, "{} crashes of {} in {} ms", one.restarts, one.name, after.uptime_ms);
    }
}

/// It is killed when its time is over, and then the disks are written.
fn who_is_deaf_is_killed_and_what_it_wrote_is_kept(vm: &Vm, state: &Path) {
    let disk = state.join("data.ext4");
    let heard = || judge("debugfs", ["-R", "cat /volumes/keep/heard", disk.to_str().unwrap()]);
    assert!(!heard().lines().any(|line| line == "heard"), "it has not been asked yet");
    vm.power_off(secs(60)).unwrap();
    assert!(vm.console().contains("garboard: deaf was killed by SIGKILL"), "{}", vm.console().tail(20));
    assert!(heard().lines().any(|line| line == "heard"), "{}", heard());
    judge("e2fsck", ["-fn", disk.to_str().unwrap()]);
}
