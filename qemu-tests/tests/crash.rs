//! PID 1 of a real machine is made to crash: by a container that the declaration gives the means to, and by itself.

#[path = "support/cpio.rs"]
mod cpio;
mod support;

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use garboard_qemu::{Image, Snapshot, Vm, secs};
use support::{Project, fixture};

const BOOT: Duration = secs(120);

/// `saboteur` crashes PID 1 once somebody has connected to port 7000. `prisoner` is an ordinary container
/// that tries the same and more from inside.
fn bake() -> (Project, Image) {
    let project = Project::new(
        &r#"
        name = "crash"
        [volumes.keep]

        [containers.prisoner]
        image = "BUSYBOX"
        command = ["sh", "-c", '''
        trap "echo TERM to myself" TERM
        echo pid $$
        echo ctrl-alt-del $(cat /proc/sys/kernel/ctrl-alt-del)
        for signal in SEGV KILL TERM ABRT; do kill -$signal 1; done
        kill -KILL -1
        set -- /proc/[0-9]*; echo processes $#
        # The ids that PID 1, the threads of the kernel and the other containers have outside.
        i=2; reached=0
        while [ $((i += 1)) -lt 400 ]; do kill -KILL $i 2>&- && : $((reached += 1)); done
        echo reached $reached
        while :; do sleep 1; done
        ''']
        restart = "always"

        [containers.keeper]
        image = "BUSYBOX"
        command = ["sh", "-c", "i=0; while :; do echo beat $((i += 1)); sleep 1; done"]
        volumes = ["keep:/keep"]
        network_mode = "host"
        restart = "always"

        [containers.saboteur]
        image = "BUSYBOX"
        command = ["sh", "-c", "nc -l -p 7000 </dev/null; echo strikes; kill -SEGV 1; exec sleep 1000000"]
        network_mode = "host"
        ports = ["7000"]
        pid = "host"
        userns_mode = "host"
        cap_add = ["KILL"]
        restart = "always"
        "#
        .replace("BUSYBOX", &fixture("oci", "busybox")),
    );
    let image = Image::load(project.build_without_disk()).unwrap();
    (project, image)
}

/// Has the saboteur crash PID 1, which goes on.
fn strike(vm: &Vm) {
    let words = "garboard: PID 1 crashed and goes on, nothing was lost: fatal signal 11 sent by process";
    vm.wait_status(words, secs(60), |_| {
        // Nobody may listen yet; and when it has struck nobody listens any more.
        let _ = TcpStream::connect(vm.address(7000).unwrap());
        Ok(vm.console().contains(words))
    })
    .unwrap();
}

/// What must be the same before and after: processes, starts.
fn lives(status: &Snapshot) -> Vec<(String, Option<u32>, u64)> {
    status.containers.iter().map(|c| (c.name.clone(), c.pid, c.restarts)).collect()
}

/// The number after the last `beat` that was logged.
fn beats(vm: &Vm) -> u32 {
    let log = vm.logs("keeper", 1).unwrap();
    log.first().and_then(|line| line.strip_prefix("beat ")?.parse().ok()).unwrap_or(0)
}

#[test]
fn a_crash_of_pid_1_loses_no_container_and_no_log() {
    let (_project, image) = bake();
    let vm = Vm::boot(&image).unwrap();
    vm.wait_ready(BOOT).unwrap();
    vm.wait_console("beat 3", secs(30)).unwrap();
    vm.wait_status("its address", BOOT, |status| Ok(status.network.state == "up")).unwrap();
    let before = vm.status().unwrap();
    assert!(!vm.console().contains("strikes"), "the crash came before the test was ready for it");
    assert!(lives(&before).iter().all(|(_, pid, _)| pid.is_some()), "{}", before.table());

    strike(&vm);
    let after = vm.status().unwrap();
    assert_eq!(lives(&before), lives(&after), "{}", after.table());
    assert!(after.uptime_ms >= before.uptime_ms && after.ready, "{}", after.table());
    assert_eq!((&before.data, &before.network), (&after.data, &after.network));
    // What was logged before is there, and what is printed now arrives.
    let log = vm.logs("keeper", 1000).unwrap();
    assert!(log.iter().any(|line| line == "beat 1"), "{log:?}");
    let counted = beats(&vm);
    vm.wait_status("further beats", secs(30), |_| Ok(beats(&vm) > counted + 1)).unwrap();

    // An ordinary container had tried the like at its start: its PID 1 is itself, and it reaches no other process. That the
    // saboteur's signals do arrive is the control. Ctrl-Alt-Del is a signal to PID 1, too, and no reset (the kernel's default, 1).
    let log = vm.logs("prisoner", 100).unwrap();
    for line in ["pid 1", "processes 1", "reached 0", "ctrl-alt-del 0"] {
        assert!(log.iter().any(|logged| logged == line), "{line}: {log:?}");
    }
    vm.power_off(secs(60)).unwrap();
}

/// Signals that have PID 1 crash by itself, and how: the kernel keeps nobody from faults of his own.
const KINDS: [(u32, &str); 6] = [
    (34 + 8, "panic at "),
    (34 + 9, "fatal signal 11 at address 0x8"),
    (34 + 18, "fatal signal 7 at address 0x"),
    (34 + 19, "fatal signal 4 at address 0x"),
    (34 + 20, "fatal signal 6"),
    (34 + 16, "invariant broken: "),
];
/// Crashes before this don't count any more.
const FORGET: (u32, &str) = (34 + 17, "don't count any more");

/// A machine whose PID 1 does what signals want of it (the table in `init/src/event_loop/signals.rs`), and `trigger`, which sends them: each
/// line that comes to port 7000 has a number, so that it counts once, and a signal.
fn bake_fragile() -> (Project, Image) {
    let project = Project::new(
        &r#"
        name = "fragile"
        [volumes.keep]

        [containers.keeper]
        image = "BUSYBOX"
        command = ["sh", "-c", "i=0; while :; do echo beat $((i += 1)); sleep 1; done"]
        volumes = ["keep:/keep"]

        [containers.trigger]
        image = "BUSYBOX"
        command = ["sh", "-c", '''
        last=0
        while :; do
            set -- $(nc -l -p 7000 </dev/null)
            [ "${1:-0}" -gt $last ] && last=$1 && kill -$2 1
        done
        ''']
        network_mode = "host"
        ports = ["7000"]
        pid = "host"
        userns_mode = "host"
        cap_add = ["KILL"]
        "#
        .replace("BUSYBOX", &fixture("oci", "busybox")),
    );
    let mut image = Image::load(project.build_without_disk()).unwrap();
    let mut initrd = std::fs::read(&image.initrd).unwrap();
    initrd.resize(initrd.len().next_multiple_of(4), 0);
    cpio::entry(&mut initrd, "init", 0o100_755, &std::fs::read(support::crash_test_init()).unwrap());
    cpio::entry(&mut initrd, "TRAILER!!!", 0, &[]);
    image.initrd = project.path("initrd");
    std::fs::write(&image.initrd, initrd).unwrap();
    (project, image)
}

#[test]
fn each_kind_of_crash_is_survived_and_the_second_within_a_minute_starts_the_machine_over() {
    let (project, image) = bake_fragile();
    let vm = Vm::builder(&image).state(project.path("state")).reboot().boot().unwrap();
    vm.wait_ready(BOOT).unwrap();
    vm.wait_status("the first boot", BOOT, |status| Ok(status.boot == Some(1))).unwrap();
    let before = vm.status().unwrap();
    // Nobody may listen at the moment.
    let send = |number: usize, signal: u32| {
        let stream = TcpStream::connect(vm.address(7000).unwrap());
        let _ = stream.and_then(|mut stream| writeln!(stream, "{number} {signal}"));
    };
    // Rows that go on, put together.
    let lines = || vm.console().transcript().replace('\r', "").replace("\ngarboard> ", "");
    let said = |text: &str| lines().matches(text).count();
    for (place, (signal, reason)) in KINDS.iter().enumerate() {
        let words = format!("PID 1 crashed and goes on, nothing was lost: {reason}");
        for (number, signal, words, times) in
            [(2 * place + 1, FORGET.0, FORGET.1, place + 1), (2 * place + 2, *signal, &words, 1)]
        {
            vm.wait_status(words, secs(60), |_| {
                let there = said(words) == times;
                if !there {
                    send(number, signal);
                }
                Ok(there)
            })
            .unwrap();
        }
        let after = vm.status().unwrap();
        assert_eq!(lives(&before), lives(&after), "{}", after.table());
    }
    let counted = beats(&vm);
    vm.wait_status("further beats", secs(30), |_| Ok(beats(&vm) > counted + 1)).unwrap();
    assert_eq!(vm.reboots(), 0);

    let mut previous = None;
    vm.wait_status("another boot", BOOT, |status| {
        previous = status.previous.clone().filter(|_| status.boot == Some(2));
        if vm.reboots() == 0 {
            send(2 * KINDS.len() + 1, KINDS[0].0);
        }
        Ok(previous.is_some())
    })
    .unwrap();
    let previous = previous.unwrap();
    assert_eq!((&*previous.cause, previous.boot), ("crash", Some(1)), "{previous:?}");
    for text in [KINDS[0].1, KINDS[5].1, "came within a minute of the one before"] {
        assert!(previous.text.contains(text), "{text}: {previous:?}");
    }
    let console = lines();
    let sentence = console.lines().find(|line| line.starts_with("garboard: PID 1 crashed (panic at "));
    assert!(sentence.is_some_and(|sentence| sentence.contains("can't go on: crash number ")), "{console}");
    assert!(!console.contains("Kernel panic"), "{console}");
    vm.hard_stop();
}
