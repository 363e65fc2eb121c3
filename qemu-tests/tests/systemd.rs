//! `garboard-runtime` on a machine whose first process is systemd, which makes the cgroups.

#[path = "support/guest.rs"]
mod guest;
#[path = "support/oci.rs"]
mod oci;
mod support;

use std::path::Path;

use guest::Guest;
use oci::{boot, bundle_with};
use serde_json::json;

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
