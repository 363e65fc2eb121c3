//! A machine whose PID 1 stands still starts over if it has a watchdog, and only then.

mod support;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use garboard_qemu::{Builder, Ending, Image, Machine, Snapshot, Vm, scaled, secs};
use support::{BOOT, Project, fixture};

/// `saboteur` waits for somebody to connect to port 7000, then makes PID 1 turn in circles: two bytes of a jump to itself, written to
/// where PID 1 will go on when its system call is done. `witness` tells of the watchdog.
fn bake(system: &str) -> (Project, Image) {
    let project = Project::new(
        &r#"
        name = "watched"
        [system]
        SYSTEM

        [containers.witness]
        image = "BUSYBOX"
        command = ["sh", "-c", "for i in 1 2 3 4 5 6; do cat /sys/class/watchdog/watchdog0/state && break; sleep 1; done; cat /sys/class/watchdog/watchdog0/identity /sys/class/watchdog/watchdog0/timeout; exec sleep 1000000"]

        [containers.saboteur]
        image = "BUSYBOX"
        command = ["sh", "-c", '''
        nc -l -p 7000 </dev/null
        # It is at work now and then, and in no system call.
        until set -- $(cat /proc/1/syscall) && [ $# -gt 2 ]; do usleep 10000; done
        while [ $# -gt 1 ]; do shift; done
        echo "PID 1 will go on at $1"
        printf '\353\376' | dd of=/proc/1/mem bs=1 seek=$(($1)) conv=notrunc && echo struck
        exec sleep 1000000
        ''']
        network_mode = "host"
        ports = ["7000"]
        pid = "host"
        userns_mode = "host"
        cap_add = ["SYS_PTRACE"]
        "#
        .replace("SYSTEM", system)
        .replace("BUSYBOX", &fixture("oci", "busybox")),
    );
    let image = Image::load(project.build_without_disk()).unwrap();
    (project, image)
}

/// Boots, and makes PID 1 stand still once this watchdog was told of: it prints nothing after that.
fn struck(machine: Builder, watchdog: &str) -> Vm {
    let vm = machine.boot().unwrap();
    vm.wait_ready(BOOT).unwrap();
    vm.wait_console(watchdog, BOOT).unwrap();
    // The saboteur may listen a little later, and there may be no address yet. PID 1 can't be asked.
    let until = Instant::now() + scaled(secs(60));
    while !vm.console().contains("PID 1 will go on at") {
        assert!(Instant::now() < until, "{}", vm.console().transcript());
        let _ = TcpStream::connect(vm.address(7000).unwrap());
        std::thread::sleep(Duration::from_millis(200));
    }
    vm
}

/// The machine starts over, and knows afterwards what has ended it as far as its watchdog does.
fn starts_over(machine: Machine, device: Option<&str>, identity: &str, cause: &str) {
    let (_project, image) = bake("watchdog = \"10s\"");
    let mut builder = Vm::builder(&image).machine(machine).cmdline("no_timer_check").reboot();
    for argument in device.into_iter().flat_map(|device| ["-device", device]) {
        builder = builder.qemu_argument(argument);
    }
    let vm = struck(builder, identity);
    let mut previous = None;
    let began_again = |status: &Snapshot| {
        previous = status.previous.clone();
        // Each boot says so once; the first has, as the saboteur was reached.
        let boots = vm.console().transcript().matches("garboard: network: eth0 has").count();
        Ok(boots > 1 && previous.is_some())
    };
    vm.wait_status("another boot", secs(180), began_again).unwrap();
    let console = vm.console().transcript();
    assert_eq!(previous.unwrap().cause, cause, "{console}");
    for line in ["active", identity, "10"] {
        let told = |l: &str| l.starts_with("witness ") && l.trim_end().ends_with(line);
        assert!(console.lines().any(told), "{line}: {console}");
    }
}

#[test]
fn a_machine_that_stands_still_is_started_over_by_its_watchdog() {
    starts_over(Machine::Q35, Some("i6300esb"), "i6300ESB timer", "watchdog");
}

#[test]
fn a_machine_without_a_watchdog_has_the_kernel_s() {
    // That one forgets why.
    let (_project, image) = bake("watchdog = \"10s\"");
    let vm = struck(Vm::builder(&image).machine(Machine::Microvm), "Software Watchdog");
    let ending = vm.wait_exit(secs(120)).unwrap();
    let console = vm.console().transcript();
    assert_eq!(ending, Ending::Reboot, "{console}");
}

/// The control: PID 1 does stand still, and nothing else would start the machine over.
#[test]
fn without_one_it_stands_still() {
    let (_project, image) = bake("");
    let vm = struck(Vm::builder(&image), "");
    assert!(vm.wait_exit(secs(30)).is_err(), "{}", vm.console().transcript());
    assert!(vm.status().is_err(), "PID 1 answers");
}
