//! Limits and devices, seen and tried from inside: what is declared holds, and what breaks a limit harms only itself.

mod support;

use std::collections::BTreeMap;

use garboard_qemu::{Exit, Image, Vm, secs};
use serde_json::Map;
use support::{BOOT, Project, expect, finished, fixture};

fn bake(declaration: &str) -> (Project, Image) {
    let project = Project::new(&declaration.replace("BUSYBOX", &fixture("oci", "busybox")));
    std::fs::write(project.path("profile.json"), PROFILE).unwrap();
    let image = Image::load(project.build_without_disk()).unwrap();
    (project, image)
}

/// Denies one call, to who hasn't the capability for it.
const PROFILE: &str = r#"{
    "defaultAction": "SCMP_ACT_ALLOW",
    "archMap": [{ "architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"] }],
    "syscalls": [{
        "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": [], "comment": "",
        "includes": { "minKernel": "4.8" }, "excludes": { "caps": ["CAP_SYS_ADMIN"] }
    }]
}"#;

const LIMITS: &str = r#"
name = "limits"
[console]
status = false

[containers.declared]
image = "BUSYBOX"
command = ["sh", "-c", '''
cd /sys/fs/cgroup
for file in memory.max memory.low memory.swap.max pids.max cpu.max cpu.weight cpuset.cpus io.weight io.max; do
    echo $file $(cat $file)
done
echo nofile $(ulimit -Sn) $(ulimit -Hn)
(ulimit -n 64) 2>&- && echo raised yes || echo raised no
(echo max > memory.max) 2>&- && echo lifted yes || echo lifted no
echo map $(cat /proc/self/uid_map)
''']
mem_limit = "48m"
mem_reservation = "8m"
memswap_limit = "64m"
pids_limit = 40
cpus = 0.5
cpu_shares = 2048
cpuset = "0"
ulimits = { nofile = { soft = 16, hard = 32 } }
blkio_config = { weight = 300 }

# What declares nothing is the control.
[containers.plain]
image = "BUSYBOX"
command = ["sh", "-c", '''
for file in memory.max cpu.max pids.max; do echo $file $(cat /sys/fs/cgroup/$file); done
echo map $(cat /proc/self/uid_map)
mkdir /new && echo directory yes
''']

# Its profile is a file in Docker's format.
[containers.profiled]
image = "BUSYBOX"
command = ["sh", "-c", "mkdir /new 2>&- && echo directory yes || echo directory no"]
security_opt = ["seccomp=profile.json"]

# 96 MiB, written to by reading into them.
[containers.hog]
image = "BUSYBOX"
command = ["dd", "if=/dev/zero", "of=/dev/null", "bs=96M", "count=1"]
mem_limit = "32m"

[containers.free-hog]
image = "BUSYBOX"
command = ["dd", "if=/dev/zero", "of=/dev/null", "bs=96M", "count=1"]

# The hog is a child of a shell that would go on; both belong to one group, which ends as one.
[containers.half-hog]
image = "BUSYBOX"
command = ["sh", "-c", "dd if=/dev/zero of=/dev/null bs=96M count=1; echo survived yes"]
mem_limit = "32m"

# The shell is spared (`oom_score_adj`), and so the group's other processes end alone.
[containers.spared]
image = "BUSYBOX"
command = ["sh", "-c", '''
(echo 0 > /proc/self/oom_score_adj; exec dd if=/dev/zero of=/dev/null bs=96M count=1) & wait $!
echo ended $?
exec sleep 1000000
''']
mem_limit = "32m"
oom_score_adj = -1000

[containers.many]
image = "BUSYBOX"
command = ["sh", "-c", '''
(i=0; while [ $((i += 1)) -le 60 ]; do sleep 1000 & done) 2>&-
set -- /proc/[0-9]*
echo processes $#
while read -r line; do echo $line; done < /sys/fs/cgroup/pids.events
''']
pids_limit = 20

[containers.free-many]
image = "BUSYBOX"
command = ["sh", "-c", '''
(i=0; while [ $((i += 1)) -le 60 ]; do sleep 1000 & done) 2>&-
set -- /proc/[0-9]*
echo processes $#
''']

[containers.space]
image = "BUSYBOX"
command = ["sh", "-c", '''
for file in /small/f /dev/shm/f /f /large/f; do
    dd if=/dev/zero of=$file bs=64k count=64 2>/tmp/said && echo $file all || echo $file $(sed -n 's/.*: //p;q' /tmp/said)
    echo size$file $(stat -c %s $file)
    rm $file
done
''']
tmpfs = ["/small:size=1m", "/large", "/tmp"]
shm_size = "512k"
storage_opt = { size = "2m" }

[containers.port]
image = "BUSYBOX"
command = ["sh", "-c", '''
httpd -p 80 -h /etc && echo page $(wget -q -O - http://127.0.0.1/group | head -n 1)
echo interfaces $(ls /sys/class/net)
''']

# Capabilities of the machine's own root, so that only the device filter stands between it and the kernel's log.
[containers.device]
image = "BUSYBOX"
command = ["sh", "-c", '''
mknod /dev/own c 1 11 2>&- && echo mknod yes || echo mknod no
[ -e /dev/kmsg ] && echo node yes || echo node no
''']
userns_mode = "host"
cap_add = ["MKNOD"]

[containers.free-device]
image = "BUSYBOX"
command = ["sh", "-c", '''
mknod /dev/own c 1 11 2>&- && echo mknod yes || echo mknod no
[ -c /dev/kmsg ] && echo node yes || echo node no
dd if=/dev/kmsg of=/dev/null bs=8k count=1 2>&- && echo read yes || echo read no
dd if=/dev/zero of=/dev/kmsg bs=1 count=1 2>&- && echo write yes || echo write no
''']
userns_mode = "host"
cap_add = ["MKNOD", "SYSLOG"]
devices = ["/dev/kmsg:/dev/kmsg:rm"]

# An ordinary container with the same device.
[containers.own-device]
image = "BUSYBOX"
command = ["sh", "-c", '''
mknod /dev/own c 1 11 2>&- && echo mknod yes || echo mknod no
[ -c /dev/kmsg ] && echo node yes || echo node no
''']
devices = ["/dev/kmsg:/dev/kmsg:rm"]

[containers.sibling]
image = "BUSYBOX"
command = ["sleep", "1000000"]
restart = "always"
"#;

/// What is declared holds; the container beside each one declares nothing and is the control.
#[test]
fn what_is_declared_holds_and_nothing_else_is_limited() {
    let (_project, image) = bake(LIMITS);
    let vm = Vm::boot(&image).unwrap();
    limits_are_seen_as_declared(&vm);
    memory_limits_kill_who_breaks_them(&vm);
    who_is_killed_beside_the_first_process_is_told_of(&vm);
    no_more_processes_than_declared(&vm);
    space_ends_where_declared(&vm);
    low_ports_are_there_for_root(&vm);
    devices_are_there_when_declared(&vm);
    expect(&finished(&vm, "profiled").1, &[("directory", "no")]);
    expect(&finished(&vm, "plain").1, &[("directory", "yes")]);

    vm.wait_as_declared("sibling", BOOT).unwrap();
    let status = vm.status().unwrap();
    assert_eq!(status.container("sibling").unwrap().restarts, 0, "{}", status.table());
    vm.power_off(secs(60)).unwrap();
}

fn limits_are_seen_as_declared(vm: &Vm) {
    let (exit, found) = finished(vm, "declared");
    assert_eq!(exit, Exit::Code(0));
    let wanted = [
        ("memory.max", "50331648"),
        ("memory.low", "8388608"),
        ("memory.swap.max", "16777216"),
        ("pids.max", "40"),
        ("cpu.max", "50000 100000"),
        ("cpu.weight", "174"),
        ("cpuset.cpus", "0"),
        ("io.weight", "default 60"),
        ("nofile", "16 32"),
        ("raised", "no"),
        ("lifted", "no"),
    ];
    expect(&found, &wanted);
    let (_, plain) = finished(vm, "plain");
    expect(&plain, &[("memory.max", "max"), ("cpu.max", "max 100000"), ("pids.max", "2048")]);

    // Each has ids of its own, and none has the machine's.
    let range = |found: &BTreeMap<String, String>| -> Vec<u32> {
        found["map"].split_whitespace().map(|number| number.parse().unwrap()).collect()
    };
    let (one, other) = (range(&found), range(&plain));
    for range in [&one, &other] {
        assert!(range[0] == 0 && range[1] >= 65_536 && range[2] == 65_536, "{range:?}");
    }
    assert!(one[1].abs_diff(other[1]) >= 65_536, "{one:?} and {other:?} overlap");
}

fn memory_limits_kill_who_breaks_them(vm: &Vm) {
    let (_, shell) = finished(vm, "half-hog");
    assert!(!shell.contains_key("survived"), "half of a container outlived the other");
    for name in ["hog", "half-hog"] {
        assert_eq!(finished(vm, name).0, Exit::Signal(9), "{name}");
        let status = vm.status().unwrap();
        let hog = status.container(name).unwrap();
        assert_eq!((hog.state.as_str(), hog.detail.as_str()), ("failed", "was killed by SIGKILL: out of memory"));
    }
    assert_eq!(finished(vm, "free-hog").0, Exit::Code(0));
}

/// The first process goes on, and so does its container.
fn who_is_killed_beside_the_first_process_is_told_of(vm: &Vm) {
    vm.wait_status("a killed process", BOOT, |status| Ok(status.container("spared").unwrap().oom_kills > 0)).unwrap();
    vm.wait_status("its end", BOOT, |_| Ok(vm.logs("spared", 10)?.contains(&"ended 137".to_owned()))).unwrap();
    let status = vm.status().unwrap();
    let spared = status.container("spared").unwrap();
    assert_eq!((spared.state.as_str(), spared.exit, spared.restarts), ("running", None, 0));
    assert_eq!(spared.detail, "one of its processes was killed for want of memory");
    // Of a container that ends of it all are counted.
    let kills = ["spared", "hog", "half-hog", "sibling", "free-hog"];
    let kills = kills.map(|name| status.container(name).unwrap().oom_kills);
    assert_eq!(kills, [1, 1, 2, 0, 0], "{}", status.table());

    let events = vm.request("events", &Map::from_iter([("count".to_owned(), 1000.into())])).unwrap();
    let of = |name: &str| -> Vec<(&str, &str)> {
        let events = events["events"].as_array().unwrap().iter().filter(|event| event["container"] == name);
        events.map(|event| (event["kind"].as_str().unwrap(), event["text"].as_str().unwrap())).collect()
    };
    let one = ("out_of_memory", "the kernel killed one of its processes for want of memory");
    assert_eq!(of("spared"), [("started", "its program runs"), one]);
    assert!(of("hog").contains(&one), "{:?}", of("hog"));
    assert_eq!(of("sibling"), [("started", "its program runs")]);
    let metrics = vm.request("metrics", &Map::new()).unwrap();
    let metrics = metrics["text"].as_str().unwrap();
    assert!(metrics.contains("garboard_container_oom_kills_total{container=\"spared\"} 1\n"), "{metrics}");
}

fn no_more_processes_than_declared(vm: &Vm) {
    let count = |name| finished(vm, name).1["processes"].parse::<u32>().unwrap();
    let limited = count("many");
    assert!((15..=20).contains(&limited), "{limited}");
    assert_eq!(count("free-many"), 61);
    assert_ne!(finished(vm, "many").1["max"], "0", "the limit was never reached");
}

fn space_ends_where_declared(vm: &Vm) {
    let (_, found) = finished(vm, "space");
    let full = "No space left on device";
    expect(&found, &[("/small/f", full), ("/dev/shm/f", full), ("/f", full), ("/large/f", "all")]);
    let sizes =
        [("size/small/f", "1048576"), ("size/dev/shm/f", "524288"), ("size/f", "2097152"), ("size/large/f", "4194304")];
    expect(&found, &sizes);
}

fn low_ports_are_there_for_root(vm: &Vm) {
    let (_, found) = finished(vm, "port");
    expect(&found, &[("page", "root:x:0:"), ("interfaces", "lo")]);
}

fn devices_are_there_when_declared(vm: &Vm) {
    expect(&finished(vm, "device").1, &[("mknod", "no"), ("node", "no")]);
    // The control: the same program with the device declared. It may read it, and what isn't declared stays denied.
    expect(&finished(vm, "free-device").1, &[("mknod", "yes"), ("node", "yes"), ("read", "yes"), ("write", "no")]);
    // With ids of its own a container has the node that is declared and can make none.
    expect(&finished(vm, "own-device").1, &[("mknod", "no"), ("node", "yes")]);
}
