//! `garboard-runtime` on a machine whose cgroups have controllers: what it sets holds, what it tells is so.

#[path = "support/guest.rs"]
mod guest;
#[path = "support/oci.rs"]
mod oci;
mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use guest::Guest;
use oci::{boot, bundle, config, run, runtime};
use serde_json::{Value, json};
use support::judge;

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

# Who looks after it comes in however few it may have, and makes no other.
$runtime update --pids-limit 1 one
echo full $($runtime exec one /bin/busybox echo in 2>&1)
echo fuller $($runtime exec one /bin/busybox sh -c '/bin/busybox true; echo out' 2>&1 | tail -n 1)
echo there $($runtime exec one /bin/busybox cat /proc/self/cgroup)
$runtime update --pids-limit 9 one && $runtime update --pids-limit 0 one
echo none $? $(cat $group/pids.max)

echo '{"hugepageLimits": [{"pageSize": "2MB", "limit": 2097152}]}' | $runtime update -r - one
echo huge $(cat $group/hugetlb.2MB.max $group/hugetlb.2MB.rsvd.max)
# Who has a weight isn't idle; the control: the kernel wouldn't take it.
$runtime update --cpu-idle 1 one
echo idle $(cat $group/cpu.idle) $(echo 59 2>/dev/null >$group/cpu.weight || echo refused)
$runtime update --cpu-share 512 one
echo woken $? $(cat $group/cpu.idle $group/cpu.weight)
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

/// glibc closes them in a part of its start that is left out.
#[test]
fn constants_of_the_program_are_closed_when_it_runs() {
    let bundle = tempfile::tempdir().unwrap();
    judge("mkfifo", [bundle.path().join("config.json").to_str().unwrap()]);
    let mut command = Command::new(runtime());
    command.arg("--root").arg(bundle.path()).args(["run", "--bundle"]).arg(bundle.path()).arg("waits");
    let mut process = command.stdin(Stdio::null()).spawn().unwrap();
    let maps = format!("/proc/{}/maps", process.id());
    // It waits for somebody to write its configuration once its heap is there. The file's maps begin where the linker has put them.
    let begin = Instant::now();
    let found = loop {
        let found = std::fs::read_to_string(&maps).unwrap();
        if found.contains("[heap]") || begin.elapsed() > Duration::from_secs(20) {
            break found;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    process.kill().unwrap();
    process.wait().unwrap();
    // Rights, offset, device and file, which is the program wherever there is one, by a mount that has no name.
    let maps = found.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let rights: Vec<&str> = maps.filter(|fields| fields[4] != "0").map(|fields| fields[1]).collect();
    assert_eq!(rights, ["r--p", "r-xp", "r--p", "rw-p"], "{found}");
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
    assert_eq!(found["full"], "in");
    assert!(found["fuller"].contains("fork"), "{}", found["fuller"]);
    assert_eq!(found["there"], "0::/");
    assert_eq!(found["none"], "0 1");
    assert_eq!(found["huge"], "2097152 2097152");
    assert_eq!((found["idle"].as_str(), found["woken"].as_str()), ("1 refused", "0 0 59"));
}

const FEW: &str = r#"
mount -t tmpfs tmpfs /tmp
runtime=garboard-runtime
for bundle in /few/*; do
    name=$(basename $bundle)
    echo $name $($runtime run --bundle $bundle $name </dev/null 2>&1)
done
"#;

/// The lowest limit lets the program begin, and nobody else; also where a process between starts it. What 0 means, the version says.
#[test]
fn few_processes_are_few_and_enough_to_begin() {
    let mut guest = Guest::new(FEW);
    // One that begins in a cgroup beneath its own has controllers there, too.
    let script = "cd /sys/fs/cgroup; [ ! -d init ] || { read below <init/pids.max; echo $below below; }; read max <pids.max; \
                  (:) && echo $max made || echo $max alone";
    let annotations = json!({"run.oci.delegate-cgroup": "init"});
    for (name, version, limit, time, beneath) in [
        ("one", "1.3.0", json!(1), false, false),
        ("none", "1.3.0", json!(0), false, false),
        ("older", "1.2.1", json!(0), false, false),
        ("unsaid", "1.3.0", Value::Null, false, false),
        ("staged", "1.3.0", json!(1), true, false),
        ("two", "1.3.0", json!(2), false, false),
        ("beneath", "1.3.0", json!(1), false, true),
    ] {
        let mut config = config(&["/bin/busybox", "sh", "-c", script]);
        config["ociVersion"] = version.into();
        config["linux"]["resources"] = json!({"pids": {"limit": limit}});
        config["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup2", "source": "cgroup", "options": ["ro"],
        }));
        if beneath {
            config["annotations"] = annotations.clone();
        }
        if time {
            config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        }
        guest.text(&format!("few/{name}/config.json"), &config.to_string());
        let rootfs = format!("few/{name}/rootfs");
        guest.file(&format!("{rootfs}/bin/busybox"), Path::new("/bin/busybox"));
        for directory in ["proc", "dev", "sys/fs/cgroup"] {
            guest.directory(&format!("{rootfs}/{directory}"));
        }
    }
    let found = boot(guest);
    for (name, max) in [("one", "1"), ("none", "1"), ("staged", "1"), ("beneath", "1")] {
        let said = found[name].trim_start_matches("max below ");
        assert_eq!(found[name].starts_with("max below"), name == "beneath", "{}", found[name]);
        assert!(said.contains("fork") || said == format!("{max} alone"), "{name}: {said}");
    }
    for (name, max) in [("older", "max"), ("unsaid", "max"), ("two", "2")] {
        assert_eq!(found[name], format!("{max} made"), "{name}");
    }
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

/// An ordinary user, whose cgroup root has delegated with its controllers, as systemd does; and what tries the limits.
const DELEGATED: &str = r#"
group=/sys/fs/cgroup/user
mkdir -p $group/caller /home/state
echo "+memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
for directory in $group $group/caller; do
    chown 1000:1000 $directory $directory/cgroup.procs $directory/cgroup.subtree_control $directory/cgroup.threads
done
chown -R 1000:1000 /home
cat >/as-user <<'END'
runtime="/bin/garboard-runtime --root /home/state"
echo user $(id -u)
for bundle in limited free; do
    $runtime run --bundle /$bundle $bundle </dev/null 2>&1
    echo $bundle:status $?
    [ -e /sys/fs/cgroup/user/$bundle ] || echo $bundle:gone yes
done
$runtime run --detach --bundle /asleep asleep </dev/null >/dev/null 2>&1
echo asleep:files $(cd /sys/fs/cgroup/user/asleep && cat memory.max pids.max cgroup.procs | wc -l) \
    $(cat /sys/fs/cgroup/user/asleep/memory.max /sys/fs/cgroup/user/asleep/pids.max)
$runtime update --memory 32m --pids-limit 9 asleep
echo asleep:updated $? $(cat /sys/fs/cgroup/user/asleep/memory.max /sys/fs/cgroup/user/asleep/pids.max)
$runtime delete --force asleep
echo asleep:deleted $?
# Beneath the caller's own cgroup, which has processes, no limit could hold.
$runtime run --bundle /nowhere nowhere </dev/null 2>&1 | sed 's/^/nowhere: /'
END
echo $$ >$group/caller/cgroup.procs
/bin/setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps=-all /bin/sh /as-user
"#;

/// Tries to have 64 MiB, and then 30 processes at once; tells with the container's name in front.
const TRIES: &str = r#"
dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null
echo $0:memory $?
# A shell that can't fork ends.
(i=0; while [ $((i += 1)) -le 30 ]; do sleep 1000 & done) 2>/dev/null
set -- /proc/[0-9]*
echo $0:processes $#
"#;

#[test]
fn an_ordinary_user_s_limits_hold_in_a_delegated_cgroup() {
    let mut guest = Guest::new(DELEGATED);
    guest.program(Path::new("/usr/bin/setpriv"));
    // For the root filesystem, which all of them share.
    bundle(&mut guest, &["/bin/busybox", "true"]);
    let limits = json!({"memory": {"limit": 24 << 20, "swap": 24 << 20}, "pids": {"limit": 12}});
    let sleep: &[&str] = &["/bin/busybox", "sleep", "100000"];
    for (name, arguments, cgroup, limits) in [
        ("limited", &["/bin/busybox", "sh", "-c", TRIES, "limited"][..], Some("/user/limited"), Some(&limits)),
        ("free", &["/bin/busybox", "sh", "-c", TRIES, "free"], Some("/user/free"), None),
        ("asleep", sleep, Some("/user/asleep"), Some(&limits)),
        ("nowhere", sleep, None, Some(&limits)),
    ] {
        let mut config = config(arguments);
        config["root"]["path"] = json!("/bundle/rootfs");
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        for field in ["uidMappings", "gidMappings"] {
            config["linux"][field] = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
        }
        if let Some(cgroup) = cgroup {
            config["linux"]["cgroupsPath"] = json!(cgroup);
        }
        if let Some(limits) = limits {
            config["linux"]["resources"] = limits.clone();
        }
        guest.text(&format!("{name}/config.json"), &config.to_string());
    }
    let found = boot(guest);
    assert_eq!(found["user"], "1000");
    // Killed for want of memory, and no more processes; the control has both.
    let processes = |bundle: &str| found[&format!("{bundle}:processes")].parse::<u32>().unwrap();
    assert_eq!((found["limited:memory"].as_str(), found["free:memory"].as_str()), ("137", "0"));
    assert!((2..=12).contains(&processes("limited")) && processes("free") > 30, "{found:?}");
    for bundle in ["limited", "free"] {
        assert_eq!(
            (found[&format!("{bundle}:status")].as_str(), found[&format!("{bundle}:gone")].as_str()),
            ("0", "yes")
        );
    }
    assert_eq!(found["asleep:files"], "3 25165824 12");
    assert_eq!((found["asleep:updated"].as_str(), found["asleep:deleted"].as_str()), ("0 33554432 9", "0"));
    assert!(found["nowhere:"].contains("the controller isn't enabled"), "{}", found["nowhere:"]);
}
