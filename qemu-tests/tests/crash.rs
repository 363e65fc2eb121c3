//! PID 1 of a real machine is made to crash by a container that the declaration gives the means to.

mod support;

use std::net::TcpStream;
use std::time::Duration;

use garboard_qemu::{Ending, Error, Image, Snapshot, Vm, secs};
use support::{Project, fixture};

const BOOT: Duration = secs(120);

/// `saboteur` crashes PID 1 once somebody has connected to port 7000, and again for port 7001. `prisoner` is an ordinary container
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
        command = ["sh", "-c", "listen() { nc -l -p $1 </dev/null; echo strikes; }; listen 7000; kill -SEGV 1; listen 7001; kill -BUS 1; exec sleep 1000000"]
        network_mode = "host"
        ports = ["7000-7001:7000-7001"]
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

#[test]
fn a_second_crash_within_a_minute_starts_the_machine_over() {
    let (_project, image) = bake();
    let vm = Vm::boot(&image).unwrap();
    vm.wait_ready(BOOT).unwrap();
    strike(&vm);
    let ended = vm.wait_status("end of the machine", secs(60), |_| {
        let _ = TcpStream::connect(vm.address(7001).unwrap());
        Ok(false)
    });
    assert!(matches!(ended, Err(Error::Ended { .. })), "{ended:?}");
    let ending = vm.wait_exit(BOOT).unwrap();
    let console = vm.console().transcript();
    assert_eq!(ending, Ending::Reboot, "{console}");
    assert!(console.contains("PID 1 crashed and goes on, nothing was lost: fatal signal 11"), "{console}");
    let sentence =
        console.lines().find(|line| line.starts_with("garboard: PID 1 crashed (fatal signal 7 sent by process "));
    let sentence = sentence.unwrap_or_else(|| panic!("no reason: {console}"));
    assert!(sentence.contains("can't go on: crash number 2 came within a minute of the one before"), "{sentence}");
    assert!(!console.contains("Kernel panic"), "{console}");
}
