//! How a boot ended is told in the next one: on a real machine, whose end is real too.

mod support;

use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use garboard_qemu::{Image, Machine, Previous, Snapshot, Vm, secs};
use support::{BOOT, Project, fixture};

/// `critical` gives up, and with it the machine, once it was told to on port 7002; in later boots it stays. `saboteur` crashes
/// PID 1 for each of two other ports.
const ENDS: &str = r#"
name = "ends"
[volumes.keep]

[containers.critical]
image = "BUSYBOX"
command = ["sh", "-c", '''
listen() { until [ "$(nc -l -p $1 </dev/null)" = go ]; do sleep 0.1; done; }
[ -e /keep/done ] || { echo waits; listen 7002; touch /keep/done; exit 3; }
echo stays
exec sleep 1000000
''']
volumes = ["keep:/keep"]
network_mode = "host"
ports = ["7002"]
on_failure = "reboot"

[containers.saboteur]
image = "BUSYBOX"
command = ["sh", "-c", '''
listen() { until [ "$(nc -l -p $1 </dev/null)" = go ]; do sleep 0.1; done; }
listen 7000; kill -SEGV 1; listen 7001; kill -BUS 1; exec sleep 1000000
''']
network_mode = "host"
ports = ["7000-7001:7000-7001"]
pid = "host"
userns_mode = "host"
cap_add = ["KILL"]
restart = "always"

# What lies beside the volumes is nobody's but PID 1's.
[containers.curious]
image = "BUSYBOX"
command = ["sh", "-c", "ls -a /keep /keep/..; exec sleep 1000000"]
volumes = ["keep:/keep"]
"#;

/// Waits until boot number `number` is under way, as far as its disk knows, and says how the one before ended.
fn told(vm: &Vm, number: u64, provoke: impl Fn()) -> Previous {
    let mut previous = None;
    let wanted = |status: &Snapshot| {
        let there = status.boot == Some(number);
        previous = status.previous.clone().filter(|_| there);
        if !there {
            provoke();
        }
        Ok(there)
    };
    vm.wait_status(&format!("boot {number}"), BOOT, wanted).unwrap();
    previous.unwrap()
}

fn bake(declaration: &str) -> (Project, Image) {
    let project = Project::new(&declaration.replace("BUSYBOX", &fixture("oci", "busybox")));
    let image = Image::load(project.build_without_disk()).unwrap();
    (project, image)
}

/// Sends a word, as a listener may also end without anybody having come.
fn tell(vm: &Vm, port: u16) {
    if let Ok(mut stream) = TcpStream::connect(vm.address(port).unwrap()) {
        let _ = stream.write_all(b"go\n");
    }
}

#[test]
fn each_end_is_told_in_the_next_boot() {
    let (project, image) = bake(ENDS);
    let boot = || Vm::builder(&image).state(project.path("state")).reboot().boot().unwrap();
    let vm = boot();
    assert_eq!(told(&vm, 1, || ()).cause, "first_boot");
    let log = vm.logs("curious", 100).unwrap();
    assert!(!log.iter().any(|line| line.contains(".garboard")), "{log:?}");
    // A container that the machine is nothing without.
    let previous = told(&vm, 2, || tell(&vm, 7002));
    let why = "started over: critical was given up, and its declaration wants that";
    assert_eq!((&*previous.cause, &*previous.text, previous.boot), ("reboot", why, Some(1)));
    assert!(previous.uptime_ms.is_some_and(|ms| ms > 0), "{previous:?}");
    vm.wait_line(secs(30), |line| line.starts_with("garboard: the boot before this one (number 1), after ")).unwrap();

    // Its power is cut.
    vm.hard_stop();
    drop(vm);
    let vm = boot();
    let previous = told(&vm, 3, || ());
    assert_eq!((&*previous.cause, previous.boot, previous.uptime_ms), ("unclean", Some(2), None), "{previous:?}");

    // PID 1 crashes once, which is no end, and again.
    let previous = told(&vm, 4, || {
        let once = vm.console().contains("PID 1 crashed and goes on, nothing was lost: fatal signal 11");
        tell(&vm, if once { 7001 } else { 7000 });
    });
    assert_eq!((&*previous.cause, previous.boot), ("crash", Some(3)), "{previous:?}");
    for reason in ["fatal signal 7 sent by process", "fatal signal 11 sent by process", "within a minute"] {
        assert!(previous.text.contains(reason), "{reason}: {previous:?}");
    }
    assert_eq!(vm.reboots(), 1);

    // The control for the power cut: a machine that is switched off says so.
    vm.power_off(secs(60)).unwrap();
    let vm = boot();
    let previous = told(&vm, 5, || ());
    assert_eq!((&*previous.cause, &*previous.text), ("poweroff", "switched off: asked by the status port"));
    vm.hard_stop();
}

/// As who watches a machine that starts over has it: what is followed goes on.
#[test]
fn logs_and_events_are_followed_into_the_next_boot() {
    let (project, image) = bake(ENDS);
    for (arguments, before, after) in [
        (&["logs", "critical", "--follow"][..], "waits", "stays"),
        (&["events", "--follow"], "critical", "the boot before this one (number 1)"),
    ] {
        let vm = Vm::builder(&image).state(project.path(arguments[0])).reboot().boot().unwrap();
        let socket = vm.status_socket().display().to_string();
        let (printed, said) = (project.path("printed"), project.path("said"));
        let mut follower = Command::new(support::tool());
        follower.args(arguments).args(["--socket", &socket]).stdin(Stdio::null());
        follower.stdout(File::create(&printed).unwrap()).stderr(File::create(&said).unwrap());
        let mut follower = follower.spawn().unwrap();
        let wait = |path: &Path, text: &str, provoke: &dyn Fn()| {
            let until = Instant::now() + BOOT;
            while !std::fs::read_to_string(path).unwrap().contains(text) {
                assert!(Instant::now() < until, "not told: {text:?}\n{}", std::fs::read_to_string(path).unwrap());
                provoke();
                std::thread::sleep(Duration::from_millis(200));
            }
        };
        wait(&printed, before, &|| ());
        wait(&printed, after, &|| tell(&vm, 7002));
        let lines = std::fs::read_to_string(&printed).unwrap();
        assert_eq!(lines.matches(after).count(), 1, "{lines}\n{}", std::fs::read_to_string(&said).unwrap());
        follower.kill().unwrap();
        follower.wait().unwrap();
        vm.hard_stop();
    }
}

/// `killer` has PID 1 end, which no kernel goes on without: twelve bytes of a system call (`exit_group` with 9), written to where PID 1
/// will go on.
const PANIC: &str = r#"
name = "panic"
[system.sysctls]
"kernel.panic" = "-1"                    # at once: nobody wants to read it

[containers.killer]
image = "BUSYBOX"
command = ["sh", "-c", '''
nc -l -p 7000 </dev/null
# It is at work now and then, and nowhere that could be told.
until set -- $(cat /proc/1/syscall) && [ $# -gt 2 ]; do usleep 10000; done
while [ $# -gt 1 ]; do shift; done
# All in one write.
{ dd bs=1 count=0 seek=$(($1)) && printf '\270\347\000\000\000\277\011\000\000\000\017\005'; } </dev/null 1<>/proc/1/mem
exec sleep 1000000
''']
network_mode = "host"
ports = ["7000"]
pid = "host"
userns_mode = "host"
cap_add = ["SYS_PTRACE"]

# It crashes PID 1 for each of two lines that come.
[containers.saboteur]
image = "BUSYBOX"
command = ["sh", "-c", '''
listen() { until [ "$(nc -l -p $1 </dev/null)" = go ]; do sleep 0.1; done; }
listen 7001; kill -SEGV 1; listen 7002; kill -BUS 1; exec sleep 1000000
''']
network_mode = "host"
ports = ["7001-7002:7001-7002"]
pid = "host"
userns_mode = "host"
cap_add = ["KILL"]
"#;

/// What the machine's flash has of the boot before, once so many boots are over. `provoke` ends one.
fn told_by_flash(vm: &Vm, reboots: u32, provoke: impl Fn()) -> Previous {
    let mut previous = None;
    let wanted = |status: &Snapshot| {
        let there = vm.reboots() >= reboots && status.previous.is_some();
        previous = status.previous.clone();
        if !there {
            provoke();
        }
        Ok(there)
    };
    vm.wait_status("words of the boot before", BOOT, wanted).unwrap();
    previous.unwrap()
}

/// The machine has UEFI's flash, of which its kernel makes a place for its last lines, and no other place for them, nor for PID 1's.
#[test]
fn two_crashes_and_a_panic_are_each_told_once_even_without_a_data_filesystem() {
    let project = Project::new(&PANIC.replace("BUSYBOX", &fixture("oci", "busybox")));
    let image = Image::load(project.build()).unwrap();
    let vm = Vm::builder(&image).machine(Machine::Uefi).reboot().boot().unwrap();
    assert_eq!(told_by_flash(&vm, 0, || ()).cause, "unknown");

    // The firmware resets the machine when it has set its variables up.
    let before = vm.reboots();
    let crash = told_by_flash(&vm, before + 1, || {
        let once = vm.console().contains("PID 1 crashed and goes on, nothing was lost: fatal signal 11");
        tell(&vm, if once { 7002 } else { 7001 });
    });
    assert_eq!(crash.cause, "crash", "{crash:?}\n{}", vm.console().transcript());
    for reason in ["fatal signal 7 sent by process", "fatal signal 11 sent by process", "within a minute"] {
        assert!(crash.text.contains(reason), "{reason}: {crash:?}");
    }
    assert!(crash.uptime_ms.is_some_and(|ms| ms > 0), "{crash:?}");
    let few = |lines: &[String]| !lines.is_empty() && lines.len() <= 16;
    assert!(few(&crash.kernel) && crash.kernel.last().unwrap().contains("reboot: Restarting system"), "{crash:?}");

    let panic = told_by_flash(&vm, before + 2, || drop(TcpStream::connect(vm.address(7000).unwrap())));
    assert_eq!(panic.cause, "panic", "{panic:?}\n{}", vm.console().transcript());
    assert!(panic.text.contains("Attempted to kill init! exitcode=0x00000900") && few(&panic.kernel), "{panic:?}");
    // The control: what was told was removed, or it would stand beside it.
    assert!(!panic.text.contains("before that"), "{panic:?}");
    vm.hard_stop();
}
