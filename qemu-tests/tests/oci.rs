//! `garboard-runtime` on a machine whose cgroups have controllers: what it sets holds, what it tells is so.

#[path = "support/guest.rs"]
mod guest;
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use garboard_qemu::{Image, Vm, secs};
use guest::Guest;
use serde_json::{Value, json};
use support::{BOOT, judge, older_kernel};

/// Where the program under test is in the target directory.
const STATIC: &str = "static-runtime/x86_64-unknown-linux-gnu/tool/garboard-runtime";

/// The program under test, for which `qemu-tests/verify` builds it.
fn runtime() -> PathBuf {
    let path = match std::env::var_os("GARBOARD_RUNTIME") {
        Some(path) => PathBuf::from(path),
        // A test executable is in TARGET/PROFILE/deps.
        None => std::env::current_exe().unwrap().ancestors().nth(3).unwrap().join(STATIC),
    };
    let build = "runtime/build-static --profile tool";
    assert!(path.exists(), "{} is missing: run {build}", path.display());
    path
}

/// A bundle in `/bundle` that runs this.
fn bundle(guest: &mut Guest, arguments: &[&str]) {
    bundle_with(guest, arguments, |_| {});
}

/// The same, changed.
fn bundle_with(guest: &mut Guest, arguments: &[&str], change: impl FnOnce(&mut Value)) {
    let capabilities = json!(["CAP_KILL"]);
    let mut config = json!({
        "ociVersion": "1.3.0",
        "process": {
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": arguments, "env": ["PATH=/bin"],
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        ],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"}]},
    });
    change(&mut config);
    guest.text("bundle/config.json", &config.to_string());
    guest.file("bundle/rootfs/bin/busybox", Path::new("/bin/busybox"));
    guest.directory("bundle/rootfs/proc");
    guest.directory("bundle/rootfs/dev");
}

/// The `key value` lines that the script prints on a machine of its own, which has a bundle that sleeps.
fn run(script: &str) -> BTreeMap<String, String> {
    let mut guest = Guest::new(script);
    bundle(&mut guest, &["/bin/busybox", "sleep", "100000"]);
    boot(guest)
}

fn boot(mut guest: Guest) -> BTreeMap<String, String> {
    guest.program(&runtime());
    let directory = tempfile::tempdir().unwrap();
    let initrd = guest.write(directory.path());
    let image = Image::bare(older_kernel().0, initrd, "quiet");
    let vm = Vm::builder(&image).memory_mb(512).boot().unwrap();
    let mut found = BTreeMap::new();
    vm.wait_console("the end", BOOT).unwrap();
    for line in vm.console().transcript().lines() {
        if let Some((key, value)) = line.trim().split_once(' ') {
            found.insert(key.to_owned(), value.to_owned());
        }
    }
    let _ = vm.wait_exit(secs(20));
    println!("{found:#?}");
    found
}

const LIMITS: &str = r#"
runtime=garboard-runtime group=/sys/fs/cgroup/one
show() {
    for file in memory.max memory.low memory.swap.max cpu.max cpu.weight cpuset.cpus pids.max io.weight; do
        echo $1:$file $(cat $group/$file)
    done
}
cd /bundle
$runtime run --detach one </dev/null >/dev/null 2>&1
echo state $($runtime state one | grep status)
show before
$runtime update --memory 64m --memory-swap 96m --memory-reservation 32m --cpu-quota 50000 --cpu-period 200000 \
    --cpu-share 512 --cpuset-cpus 0 --pids-limit 20 --blkio-weight 500 one
echo update $?
show limited
$runtime update --cpu-period 100000 one
show period
echo '{"memory": {"limit": 33554432}, "cpu": {"cpus": "1-4000"}}' | $runtime update --resources - one 2>/tmp/said
echo refused $? $(cat /tmp/said)
show refused
echo '{"memory": {"limit": -1, "swap": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1}}' | $runtime update -r - one
show lifted

# Eight processes at most, and the control.
crowd='for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1 >/dev/null 2>&1 & done; echo all; wait'
echo free $($runtime exec one /bin/busybox sh -c "$crowd" 2>&1 | tail -n 1)
$runtime update --pids-limit 8 one
echo crowded $($runtime exec one /bin/busybox sh -c "$crowd" 2>&1 | tail -n 1)
"#;

#[test]
fn the_program_is_static_and_starts_before_any_library() {
    let program = runtime();
    let segments = judge("readelf", ["-lW", program.to_str().unwrap()]);
    assert!(segments.contains("EXEC"), "it isn't at a fixed address: {segments}");
    for loader in ["INTERP", "DYNAMIC"] {
        assert!(!segments.contains(loader), "it asks for a dynamic loader: {segments}");
    }
    // What it does before its C library is set up works without one.
    assert!(judge(program.to_str().unwrap(), ["run", "--help"]).contains("CONTAINER"));
}

#[test]
fn limits_change_while_a_container_runs() {
    let found = run(LIMITS);
    let shown = |at: &str| {
        let of = |file: &str| found.get(&format!("{at}:{file}")).cloned().unwrap_or_default();
        let files = [
            "memory.max",
            "memory.low",
            "memory.swap.max",
            "cpu.max",
            "cpu.weight",
            "cpuset.cpus",
            "pids.max",
            "io.weight",
        ];
        files.map(of)
    };
    assert_eq!(found["update"], "0");
    assert_eq!(shown("before"), ["max", "0", "max", "max 100000", "100", "", "max", "default 100"]);
    let limited = ["67108864", "33554432", "33554432", "50000 200000", "59", "0", "20", "default 4950"];
    assert_eq!(shown("limited"), limited);
    let period = ["67108864", "33554432", "33554432", "50000 100000", "59", "0", "20", "default 4950"];
    assert_eq!(shown("period"), period);
    assert!(
        found["refused"].starts_with("1 ") && found["refused"].contains("cpuset.cpus=1-4000"),
        "{}",
        found["refused"]
    );
    assert_eq!(shown("refused"), period);
    assert_eq!(shown("lifted"), ["max", "33554432", "max", "max 100000", "59", "0", "max", "default 4950"]);
    assert_eq!(found["free"], "all");
    assert!(found["crowded"].contains("fork"), "{}", found["crowded"]);
}

const EVENTS: &str = r#"
runtime=garboard-runtime
cd /bundle
$runtime run --detach one </dev/null >/dev/null 2>&1
# Has memory of its own, and the control: without a limit it gets it.
hog='/bin/busybox dd if=/dev/zero of=/dev/null bs=64M count=1'
$runtime exec one $hog 2>/dev/null
echo free $?
$runtime update --memory 16m --pids-limit 9 --cpuset-cpus 0 one
$runtime events --interval 200ms one >/tmp/events &
events=$!
sleep 1
$runtime exec one $hog 2>/dev/null
echo hog $?
until grep -q oom /tmp/events; do sleep 0.1; done
echo stats $($runtime events --stats one)
$runtime kill one KILL
wait $events
echo events $?
echo oom $(grep -c '"type":"oom","id":"one"' /tmp/events)
echo told $(grep -c '"type":"stats"' /tmp/events)
"#;

#[test]
fn events_tell_what_is_used_and_when_memory_runs_out() {
    let found = run(EVENTS);
    assert_eq!(found["free"], "0");
    assert_eq!(found["hog"], "137");
    assert_eq!((found["events"].as_str(), found["oom"].as_str()), ("0", "1"));
    assert!(found["told"].parse::<u32>().unwrap() >= 2);
    let event: Value = serde_json::from_str(&found["stats"]).unwrap();
    let data = &event["data"];
    assert_eq!(data["memory"]["usage"]["limit"], 16 << 20);
    assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 0);
    assert!(data["memory"]["usage"]["failcnt"].as_u64().unwrap() > 0);
    assert!(data["memory"]["raw"]["anon"].is_u64());
    assert_eq!(data["pids"], json!({"current": 1, "limit": 9}));
    assert_eq!(data["cpuset"]["cpus"], json!([0]));
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    assert_eq!(data["hugetlb"]["2MB"], json!({"usage": 0, "failcnt": 0}));
}

/// What criu looks for in the kernel before it does anything, in an order in which it can be loaded.
const MODULES: [&str; 11] = [
    "net/ipv4/inet_diag.ko",
    "net/ipv4/tcp_diag.ko",
    "net/ipv4/udp_diag.ko",
    "net/unix/unix_diag.ko",
    "net/packet/af_packet_diag.ko",
    "net/netlink/netlink_diag.ko",
    "drivers/net/tun.ko",
    "drivers/net/veth.ko",
    "lib/libcrc32c.ko",
    "net/netfilter/nfnetlink.ko",
    "net/netfilter/nf_tables.ko",
];

const IMAGES: &str = r#"
runtime=garboard-runtime
cd /bundle
for module in /modules/*; do insmod $module; done
ip link set lo up
# It counts. Its streams are pipes, of which others can take the places.
sleep 1000 | $runtime run --detach one 2>&1 | cat >/tmp/before &
until $runtime state one 2>/dev/null | grep -q running; do sleep 0.1; done
sleep 1
$runtime checkpoint --image-path /tmp/images one
echo checkpoint $?
$runtime state one >/dev/null 2>&1
echo gone $?
sleep 1
sleep 1000 | $runtime restore --detach --image-path /tmp/images one 2>&1 | cat >/tmp/after &
for i in 1 2 3 4 5 6 7 8 9 10; do $runtime state one 2>/dev/null | grep -q running || sleep 1; done
sleep 2
echo restored $($runtime state one | grep status)
echo before $(head -n 1 /tmp/before) $(tail -n 1 /tmp/before)
echo after $(head -n 1 /tmp/after) $(tail -n 1 /tmp/after)
echo inside $(cat /sys/fs/cgroup/one/cgroup.procs | wc -l)
$runtime exec one /bin/busybox true
echo exec $?
$runtime delete --force one
echo deleted $?
"#;

#[test]
fn a_container_goes_on_from_its_images() {
    let mut guest = Guest::new(IMAGES);
    let count = "i=0; while :; do echo $i; i=$((i + 1)); sleep 0.2; done";
    bundle(&mut guest, &["/bin/busybox", "sh", "-c", count]);
    // It keeps filesystems in memory by tar, with options that busybox's has not.
    for program in ["/usr/sbin/criu", "/usr/bin/tar"] {
        guest.program(Path::new(program));
    }
    let modules = older_kernel().1.join("kernel");
    for (number, name) in MODULES.iter().enumerate() {
        guest.file(&format!("modules/{number:02}"), &modules.join(name));
    }
    let found = boot(guest);
    assert_eq!((found["checkpoint"].as_str(), found["gone"].as_str()), ("0", "1"));
    assert!(found["restored"].contains("running"), "{}", found["restored"]);
    let ends = |when: &str| -> Vec<u32> { found[when].split(' ').map(|number| number.parse().unwrap()).collect() };
    let (before, after) = (ends("before"), ends("after"));
    assert_eq!((before[0], after[0]), (0, before[1] + 1));
    assert!(after[1] > after[0]);
    // The shell, and perhaps its sleep.
    assert!(["1", "2"].contains(&found["inside"].as_str()), "{}", found["inside"]);
    assert_eq!((found["exec"].as_str(), found["deleted"].as_str()), ("0", "0"));
}

/// systemd as the first process, with a bus and one service, which is the test.
const FIRST: &str = "exec /bin/systemd --unit=test.target";
const TARGET: &str = "[Unit]\nDefaultDependencies=no\nWants=dbus.service job.service\n";
const SOCKET: &str = "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n";
const DAEMON: &str = "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\nAfter=dbus.socket\n[Service]\nType=notify\n\
    ExecStart=/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation\n";
const JOB: &str = "[Unit]\nDefaultDependencies=no\nAfter=dbus.service\n[Service]\nExecStart=/bin/sh /job\n\
    Environment=PATH=/bin\nStandardOutput=tty\nStandardError=tty\nTTYPath=/dev/console\n";

const SCOPE: &str = r#"
runtime=garboard-runtime group=/sys/fs/cgroup/limits.slice/vm-one.scope
show() {
    for file in memory.max cpu.max cpu.weight cpuset.cpus pids.max; do
        echo $1:$file $(cat $group/$file)
    done
}
cd /bundle
# systemd takes a moment to be on its bus.
for i in 1 2 3 4 5 6 7 8 9 10; do $runtime --systemd-cgroup run --detach one </dev/null >/dev/null 2>/tmp/said && break; sleep 1; done
cat /tmp/said
echo state $($runtime state one | grep status)
show made
systemctl daemon-reload
show reloaded
$runtime update --memory 32m --cpu-quota 33333 --pids-limit 9 --cpuset-cpus 0 one
echo update $?
show updated
systemctl daemon-reload
show kept
echo known $(systemctl show --value --property MemoryMax vm-one.scope)
# The control: what systemd isn't told of doesn't stay.
echo 50331648 >$group/memory.max
systemctl daemon-reload
echo untold $(cat $group/memory.max)
$runtime delete --force one
[ -e $group ] || echo gone yes
echo the end
poweroff -f
"#;

#[test]
fn limits_hold_under_systemd() {
    let mut guest = Guest::new(FIRST);
    bundle_with(&mut guest, &["/bin/busybox", "sleep", "100000"], |config| {
        config["linux"]["cgroupsPath"] = json!("limits.slice:vm:one");
        config["linux"]["resources"] = json!({
            "memory": {"limit": 64 << 20}, "pids": {"limit": 20}, "cpu": {"quota": 50000, "period": 100_000, "shares": 512},
        });
    });
    for program in ["/usr/lib/systemd/systemd", "/usr/bin/systemctl", "/usr/bin/dbus-daemon"] {
        guest.program(Path::new(program));
    }
    for file in ["usr/share/dbus-1/system.conf", "usr/share/dbus-1/system.d/org.freedesktop.systemd1.conf"] {
        guest.file(file, &Path::new("/").join(file));
    }
    guest.text("etc/passwd", "root:x:0:0::/:/bin/sh\nmessagebus:x:100:100::/:/bin/false\n");
    guest.text("etc/group", "root:x:0:\nmessagebus:x:100:\n");
    guest.text("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    for (name, text) in
        [("test.target", TARGET), ("dbus.socket", SOCKET), ("dbus.service", DAEMON), ("job.service", JOB)]
    {
        guest.text(&format!("etc/systemd/system/{name}"), text);
    }
    guest.text("job", SCOPE);
    let found = boot(guest);
    let shown = |at: &str| {
        let of = |file: &str| found.get(&format!("{at}:{file}")).cloned().unwrap_or_default();
        ["memory.max", "cpu.max", "cpu.weight", "cpuset.cpus", "pids.max"].map(of)
    };
    assert!(found["state"].contains("running"), "{}", found["state"]);
    let made = ["67108864", "50000 100000", "59", "", "20"];
    assert_eq!((shown("made"), shown("reloaded")), (made.map(str::to_owned), made.map(str::to_owned)));
    assert_eq!(found["update"], "0");
    assert_eq!(shown("updated"), ["33554432", "33333 100000", "59", "0", "9"]);
    // systemd counts processor time in whole hundredths.
    assert_eq!(shown("kept"), ["33554432", "34000 100000", "59", "0", "9"]);
    assert_eq!((found["known"].as_str(), found["untold"].as_str()), ("33554432", "33554432"));
    assert_eq!(found["gone"], "yes");
}
