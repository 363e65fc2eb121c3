//! Processes by the thousand: left behind by their parents, or made until the kernel has no more to give. PID 1 reaps every one
//! that comes to it, goes on when it can make none itself, and is out of reach even for those that see it.

mod support;

use std::collections::BTreeMap;

use garboard_qemu::{Exit, Image, Vm, secs};
use serde_json::{Map, Value};
use support::{BOOT, Project, finished, fixture};

/// So many each of two containers leaves behind, in a few seconds on an emulated machine.
const ORPHANS: u64 = 500;
/// So many where there is time for it: fifty thousand in all.
const MANY: u64 = 25_000;
/// So many a third leaves to a parent that takes no notice of them.
const FORSAKEN: u64 = 50;

/// Leaves orphans behind, each of which had a parent of its own; each tenth executes a program. The last says whose it is then.
const PARENT: &str = r#"
i=0
while [ $((i += 1)) -lt ORPHANS ]; do
    case $i in *0) (/bin/true &) ;; *) (: &) ;; esac
done
(sleep 1 && exec sh -c 'echo parent $PPID; : >/dev/told' &)
until [ -e /dev/told ]; do sleep 1; done
echo made ORPHANS
"#;

/// `shared`'s orphans come to PID 1, `inside`'s to the reaper that `init` asks for. When they are done, the `hog` takes every
/// number of a process that is left.
const DECLARATION: &str = r#"
name = "orphans"
[console]
logs = false
status = false
[system]
memory = 512
[system.sysctls]
"kernel.pid_max" = 700

[containers.shared]
image = "BUSYBOX"
command = ["sh", "-c", """PARENT"""]
pid = "host"

[containers.inside]
image = "BUSYBOX"
command = ["sh", "-c", """PARENT"""]
init = true

# The control: nobody reaps its orphans. The shell would, but it is gone when they end.
[containers.careless]
image = "BUSYBOX"
command = ["sh", "-c", "i=0; while [ $((i += 1)) -le FORSAKEN ]; do (sleep 10 &); done; exec sleep 1000000"]

[containers.witness]
image = "PERL"
user = "root"
entrypoint = ["perl", "-e", '''
$| = 1;
for (;; sleep 2) {
    $zombies = 0;
    opendir PROC, "/proc";
    for (grep /^\d/, readdir PROC) {
        $zombies++ if open(STAT, "/proc/$_/stat") && <STAT> =~ /\) Z /;
    }
    open STAT, "/proc/stat";
    print "forks $1 zombies $zombies\n" if join("", <STAT>) =~ /processes (\d+)/;
}
''']
pid = "host"

# It sees PID 1 and all others, and has none of their ids.
[containers.prisoner]
image = "PERL"
user = "root"
entrypoint = ["perl", "-e", '''
$| = 1;
open COMM, "/proc/1/comm"; print "sees ", <COMM>;
for $signal (qw(KILL TERM SEGV ABRT STOP INT)) {
    kill($signal, 1) ? $reached++ : $!{EPERM} && $refused++;
    # And everybody else, of which the kernel says nothing but that there was somebody.
    kill $signal, -1;
}
print "reached ", $reached + 0, "\nrefused $refused\n";
# inotify_init(2): the kernel has 128 by default, for all containers and PID 1.
$watches++ while $watches < 300 && syscall(294, 0) >= 0;
print "watches $watches\n";
''']
pid = "host"

[containers.hog]
image = "PERL"
user = "root"
entrypoint = ["perl", "-e", '''
$| = 1;
until ($until && time > $until) {
    $pid = fork;
    if ($pid) { push @all, $pid; next }
    sleep if defined $pid;
    # There is none left: now the next one may begin. Whichever comes free is taken, too.
    if (!$until) {
        $until = time + 12;
        socket S, 1, 2, 0 and send S, "READY=1", 0, pack("S a*", 1, $ENV{NOTIFY_SOCKET}) or print "send: $!\n";
    }
    select undef, undef, undef, 0.01;
}
kill KILL => @all;
waitpid $_, 0 for @all;
print "held ", @all + 0, "\n";
''']
pids_limit = 2000
notify = true
start_timeout = "5m"
depends_on = { shared = { condition = "service_completed_successfully" }, inside = { condition = "service_completed_successfully" } }

# To be started when there is nothing left to start it with.
[containers.restless]
image = "BUSYBOX"
command = ["sleep", "1"]
restart = "always"
depends_on = ["hog"]
"#;

fn bake(orphans: u64) -> (Project, Image) {
    let project = Project::new(
        &DECLARATION
            .replace("PARENT", PARENT)
            .replace("ORPHANS", &orphans.to_string())
            .replace("FORSAKEN", &FORSAKEN.to_string())
            .replace("PERL", &fixture("oci", "redis"))
            .replace("BUSYBOX", &fixture("oci", "busybox")),
    );
    let image = Image::load(project.build_without_disk()).unwrap();
    (project, image)
}

#[test]
fn orphans_are_reaped_and_a_shortage_is_survived() {
    let (_project, image) = bake(ORPHANS);
    let vm = Vm::boot(&image).unwrap();
    all_orphans_are_reaped(&vm, ORPHANS);
    who_sees_pid_1_does_not_reach_it(&vm);
    a_shortage_is_survived(&vm);
    vm.power_off(secs(60)).unwrap();
}

/// All of them, as often as the numbers of processes come round. For a long evening:
///
///     GARBOARD_TIME_SCALE=10 cargo test -p garboard-qemu --test orphans -- --ignored --nocapture
#[test]
#[ignore = "takes minutes"]
fn fifty_thousand_orphans_are_reaped() {
    let (_project, image) = bake(MANY);
    let vm = Vm::boot(&image).unwrap();
    let before = vm.status().unwrap().pid1_rss_bytes;
    all_orphans_are_reaped(&vm, MANY);
    let after = vm.status().unwrap().pid1_rss_bytes;
    println!("resident {before} → {after}");
    assert!(after <= before + (256 << 10));
    vm.hard_stop();
}

fn all_orphans_are_reaped(vm: &Vm, orphans: u64) {
    for name in ["shared", "inside"] {
        let (exit, found) = finished(vm, name);
        assert_eq!((exit, found["made"].as_str()), (Exit::Code(0), orphans.to_string().as_str()), "{name}: {found:?}");
        // In either the first process took over: PID 1 itself, and the container's reaper.
        assert_eq!(found["parent"], "1", "{name}");
    }
    println!("{} orphans after {} s, {:?} on a processor", 2 * orphans, vm.elapsed().as_secs(), vm.cpu_time());
    let counted = || -> BTreeMap<String, u64> {
        let last = vm.logs("witness", 1).unwrap().pop().unwrap_or_default();
        let words: Vec<&str> = last.split(' ').collect();
        words.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].parse().unwrap())).collect()
    };
    // None is left but those that nobody reaps: they are the control, which shows that others would be seen. For each there were two processes.
    vm.wait_status("nobody's orphans only", BOOT, |_| {
        let counted = counted();
        let forks = counted.get("forks").is_some_and(|forks| *forks > 2 * 2 * orphans);
        Ok(forks && counted.get("zombies") == Some(&FORSAKEN))
    })
    .unwrap();
}

/// Nor any other, or the restarts below would tell. The control is `tests/crash.rs`, where the same signals arrive.
fn who_sees_pid_1_does_not_reach_it(vm: &Vm) {
    let (exit, found) = finished(vm, "prisoner");
    assert_eq!(exit, Exit::Code(0));
    support::expect(&found, &[("sees", "init"), ("reached", "0"), ("refused", "6"), ("watches", "300")]);
}

/// Events of one kind about a container: their numbers and texts.
fn events(vm: &Vm, kind: &str, container: &str) -> Vec<(u64, String)> {
    let reply = vm.request("events", &Map::from_iter([("count".to_owned(), 1000.into())])).unwrap();
    let of = |event: &&Value| event["kind"] == kind && (event["container"] == container || container.is_empty());
    let told = |event: &Value| (event["number"].as_u64().unwrap(), event["text"].as_str().unwrap().to_owned());
    reply["events"].as_array().unwrap().iter().filter(of).map(told).collect()
}

fn a_shortage_is_survived(vm: &Vm) {
    let shortage = "a start for which there was no process left";
    vm.wait_status(shortage, BOOT, |_| Ok(!events(vm, "launch_failed", "restless").is_empty())).unwrap();
    let (failed, why) = events(vm, "launch_failed", "restless").pop().unwrap();
    println!("{why}");
    assert!(why.contains("(EAGAIN): "), "{why}");
    // It was tried again, though there was nothing wrong with the container, and once there was room it ran.
    assert_eq!(finished(vm, "hog").0, Exit::Code(0));
    vm.wait_status("another start", BOOT, |_| {
        Ok(events(vm, "started", "restless").last().is_some_and(|(number, _)| *number > failed))
    })
    .unwrap();
    assert_eq!(events(vm, "crash", ""), []);
    let status = vm.status().unwrap();
    for name in ["careless", "witness"] {
        let container = status.container(name).unwrap();
        assert_eq!((container.restarts, container.state.as_str()), (0, "running"), "{}", status.table());
    }
}
