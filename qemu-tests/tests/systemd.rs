//! `garboard-runtime` on a machine whose first process is systemd, which makes the cgroups.

#[path = "support/criu.rs"]
mod criu;
#[path = "support/guest.rs"]
mod guest;
#[path = "support/oci.rs"]
mod oci;
mod support;

use std::path::Path;

use garboard_qemu::secs;
use guest::Guest;
use oci::{boot, boot_for, bundle, bundle_with};
use serde_json::json;

/// systemd as the first process, with a bus and one service, which is the test.
const FIRST: &str = "exec /bin/systemd --unit=test.target";
const TARGET: &str = "[Unit]\nDefaultDependencies=no\nWants=dbus.service job.service\n";
const SOCKET: &str = "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n";
const DAEMON: &str = "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\nAfter=dbus.socket\n[Service]\nType=notify\n\
    ExecStart=/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation\n";
const JOB: &str = "[Unit]\nDefaultDependencies=no\nAfter=dbus.service\n[Service]\nExecStart=/bin/sh /job\n\
    Environment=PATH=/bin\nStandardOutput=tty\nStandardError=tty\nTTYPath=/dev/console\n";

/// A machine whose first process is systemd, with a bus, and this script as its only service.
fn guest(job: &str) -> Guest {
    let mut guest = Guest::new(FIRST);
    for program in ["/usr/lib/systemd/systemd", "/usr/bin/systemctl", "/usr/bin/systemd-run", "/usr/bin/dbus-daemon"] {
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
    guest.text("job", &format!("{job}\necho the end\npoweroff -f\n"));
    guest
}

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
# Where no memory may be written to and executed. What it starts here is the program by the name of ps.
printf '%s\n' '#!/bin/sh' 'echo PID' >/tmp/ps
chmod +x /tmp/ps
strict='systemd-run --quiet --wait --pipe --setenv PATH=/tmp:/bin --property DefaultDependencies=no --property MemoryDenyWriteExecute=yes'
echo strict $($strict $(command -v $runtime) ps one 2>&1)
show made
systemctl daemon-reload
show reloaded
$runtime update --memory 32m --cpu-quota 33333 --pids-limit 9 --cpuset-cpus 0 one
echo update $?
show updated
systemctl daemon-reload
show kept
# Who is idle stays it, whatever else systemd is told.
$runtime update --cpu-idle 1 one && $runtime update --pids-limit 8 one && systemctl daemon-reload
echo idle $(cat $group/cpu.idle)
$runtime update --cpu-idle 0 one && systemctl daemon-reload
echo awake $(cat $group/cpu.idle $group/cpu.weight)
$runtime update --cpu-idle 1 one && $runtime update --cpu-share 512 one && systemctl daemon-reload
echo woken $(cat $group/cpu.idle $group/cpu.weight)
# systemd passes on no controller for huge pages, neither later nor from the start.
echo '{"hugepageLimits": [{"pageSize": "2MB", "limit": 2097152}]}' | $runtime update -r - one
systemctl daemon-reload
echo huge $(cat $group/hugetlb.2MB.max $group/hugetlb.2MB.rsvd.max)
echo longest $(systemctl show --value --property RuntimeMaxUSec vm-one.scope)
$runtime update --pids-limit 0 one
echo fewest $? $(systemctl show --value --property TasksMax vm-one.scope) $(cat $group/pids.max)
echo known $(systemctl show --value --property MemoryMax vm-one.scope)
# The control: what systemd isn't told of doesn't stay.
echo 50331648 >$group/memory.max
systemctl daemon-reload
echo untold $(cat $group/memory.max)
$runtime delete --force one
[ -e $group ] || echo gone yes
echo -hugetlb >/sys/fs/cgroup/limits.slice/cgroup.subtree_control
sed 's/"memory":{/"hugepageLimits":[{"pageSize":"2MB","limit":4194304}],&/' -i config.json
$runtime --systemd-cgroup run --detach one </dev/null >/dev/null 2>&1
echo huger $(cat $group/hugetlb.2MB.max)
# What is made anew is in a scope, too, with all the limits.
$runtime checkpoint --image-path /tmp/images one
echo written $? $(systemctl show --value --property LoadState vm-one.scope)
$runtime --systemd-cgroup restore --detach --image-path /tmp/images one </dev/null >/dev/null 2>&1
echo anew $(cat $group/cgroup.procs | wc -l) $(cat $group/pids.max $group/memory.max $group/hugetlb.2MB.max)
echo unit $(systemctl show --value --property TasksMax --property MemoryMax vm-one.scope)
$runtime delete --force one
[ -e $group ] || echo ended yes
"#;

#[test]
fn limits_hold_under_systemd() {
    let mut guest = guest(&format!("{}{SCOPE}", criu::PREPARE));
    criu::add(&mut guest);
    bundle_with(&mut guest, &["/bin/busybox", "sleep", "100000"], |config| {
        config["linux"]["cgroupsPath"] = json!("limits.slice:vm:one");
        config["annotations"] = json!({"org.systemd.property.RuntimeMaxSec": "600"});
        config["linux"]["resources"] = json!({
            "memory": {"limit": 64 << 20}, "pids": {"limit": 20}, "cpu": {"quota": 50000, "period": 100_000, "shares": 512},
        });
    });
    let found = boot(guest);
    let shown = |at: &str| {
        let of = |file: &str| found.get(&format!("{at}:{file}")).cloned().unwrap_or_default();
        ["memory.max", "cpu.max", "cpu.weight", "cpuset.cpus", "pids.max"].map(of)
    };
    assert!(found["state"].contains("running"), "{}", found["state"]);
    assert_eq!(found["strict"], "PID");
    let made = ["67108864", "50000 100000", "59", "", "20"];
    assert_eq!((shown("made"), shown("reloaded")), (made.map(str::to_owned), made.map(str::to_owned)));
    assert_eq!(found["update"], "0");
    assert_eq!(shown("updated"), ["33554432", "33333 100000", "59", "0", "9"]);
    // systemd counts processor time in whole hundredths.
    assert_eq!(shown("kept"), ["33554432", "34000 100000", "59", "0", "9"]);
    let (idle, awake, woken) = (found["idle"].as_str(), found["awake"].as_str(), found["woken"].as_str());
    assert_eq!((idle, awake, woken), ("1", "0 100", "0 59"));
    assert_eq!((found["huge"].as_str(), found["huger"].as_str()), ("2097152 2097152", "4194304"));
    assert_eq!((found["longest"].as_str(), found["fewest"].as_str()), ("10min", "0 1 1"));
    assert_eq!((found["known"].as_str(), found["untold"].as_str()), ("33554432", "33554432"));
    assert_eq!(found["gone"], "yes");
    assert_eq!((found["written"].as_str(), found["ended"].as_str()), ("0 not-found", "yes"));
    assert_eq!((found["anew"].as_str(), found["unit"].as_str()), ("1 20 67108864 4194304", "67108864 20"));
}

const PODMAN: &str = r#"
export HOME=/root
# Where everything looks for the bus.
mkdir -p /root /var/tmp && ln -s /run /var/run
podman() {
    command podman --runtime /bin/garboard-runtime --cgroup-manager systemd --storage-driver vfs --events-backend file "$@"
}
run() { podman run --log-driver k8s-file --network none "$@" --rootfs /bundle/rootfs /bin/busybox sleep 100000; }
slice=/sys/fs/cgroup/machine.slice
hog='/bin/busybox dd if=/dev/zero of=/dev/null bs=64M count=1'
# systemd takes a moment to be on its bus.
for i in 1 2 3 4 5 6 7 8 9 10; do systemctl is-active dbus.socket >/dev/null 2>&1 && break; sleep 1; done
id=$(run --detach --name limited --memory 24m --memory-swap 24m --pids-limit 20 2>/tmp/said)
sed 's/^/said: /' /tmp/said
scope=libpod-$id.scope
echo manager $(podman info --format '{{.Host.CgroupManager}}')
echo state $(podman inspect --format '{{.State.Status}}' limited)
for property in ActiveState Slice Delegate MemoryMax TasksMax; do
    echo scope:$property $(systemctl show --value --property $property $scope)
done
echo files $(cat $slice/$scope/memory.max $slice/$scope/pids.max)
systemctl daemon-reload
echo kept $(cat $slice/$scope/memory.max)
podman exec limited $hog 2>/dev/null
echo hog $?
podman update --memory 32m limited >/dev/null
echo updated $(systemctl show --value --property MemoryMax $scope) $(cat $slice/$scope/memory.max)
# The control has no limit.
run --detach --name free >/dev/null
podman exec free $hog 2>/dev/null
echo free $?
echo before $(systemctl list-units --all --plain --no-legend 'libpod-*' | grep -vc conmon) $(ls $slice | grep -c '^libpod-[0-9a-f]*.scope')
podman rm --force --time 0 limited free >/dev/null
echo removed $?
for i in 1 2 3 4 5; do [ -z "$(systemctl list-units --all --plain --no-legend 'libpod-*')" ] && break; sleep 1; done
echo after $(systemctl list-units --all --plain --no-legend 'libpod-*' | wc -l) $(ls $slice 2>/dev/null | grep -c libpod)
"#;

#[test]
fn podman_s_limits_are_those_of_its_scopes() {
    let mut guest = guest(PODMAN);
    bundle(&mut guest, &[]);
    for program in ["podman", "conmon"] {
        guest.program(&Path::new("/usr/bin").join(program));
    }
    for file in
        ["etc/containers/policy.json", "usr/share/containers/containers.conf", "usr/share/containers/seccomp.json"]
    {
        guest.file(file, &Path::new("/").join(file));
    }
    let found = boot_for(guest, 2048, secs(400));
    let scope = |property: &str| found[&format!("scope:{property}")].as_str();
    assert_eq!((found["manager"].as_str(), found["state"].as_str()), ("systemd", "running"));
    assert_eq!((scope("ActiveState"), scope("Slice"), scope("Delegate")), ("active", "machine.slice", "yes"));
    assert_eq!((scope("MemoryMax"), scope("TasksMax")), ("25165824", "20"));
    assert_eq!((found["files"].as_str(), found["kept"].as_str()), ("25165824 20", "25165824"));
    assert_eq!((found["hog"].as_str(), found["free"].as_str()), ("137", "0"));
    assert_eq!(found["updated"], "33554432 33554432");
    // Both containers' scopes, of which nothing stays.
    assert_eq!((found["before"].as_str(), found["removed"].as_str(), found["after"].as_str()), ("2 2", "0", "0 0"));
}
