//! `linux.namespaces`, id mappings, time offsets.

use garboard_runtime::report::Report;
use garboard_runtime::start::{Started, Stdio};
use libtest_mimic::Trial;
use serde_json::json;

use super::{BASE, Config, bundle};
use crate::site::{reap, remove_cgroup, start_launch, wait_for_report};

pub fn tests() -> Vec<Trial> {
    trials![
        a_container_has_the_namespaces_that_it_names,
        several_ranges_of_ids_are_mapped,
        a_time_namespace_has_its_offsets,
        clocks_that_cannot_be_are_named,
        all_eight_namespaces_are_joined_by_path,
        a_user_namespace_owns_what_is_made_with_it,
        devices_belong_to_ids_of_a_joined_user_namespace,
        a_mount_namespace_is_joined,
        what_is_no_namespace_is_refused,
        a_failed_stage_leaves_no_child,
        the_machine_s_cgroups_don_t_come_with_its_sys,
    ]
}

const KINDS: [(&str, &str); 8] = [
    ("pid", "pid"),
    ("network", "net"),
    ("mount", "mnt"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("user", "user"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

const SHOW: &str = "for n in pid net mnt ipc uts user cgroup time; do stat -c %N /proc/self/ns/$n; done";

fn of(process: &str, file: &str) -> String {
    std::fs::read_link(format!("/proc/{process}/ns/{file}")).unwrap().to_str().unwrap().to_owned()
}

fn a_container_has_the_namespaces_that_it_names() {
    let all = bundle("all", SHOW).in_user_namespace().namespace("time", json!({"type": "time"})).output();
    let few = bundle("few", SHOW);
    let few =
        ["network", "ipc", "uts", "cgroup", "pid"].into_iter().fold(few, |c, kind| c.namespace(kind, json!(null)));
    let few = few.set("/mounts", json!([{"destination": "/proc", "type": "proc", "source": "proc"}])).output();
    for (kind, file) in KINDS {
        assert!(!all.contains(&of("self", file)), "{kind} is its own: {all}");
        assert_eq!(few.contains(&of("self", file)), kind != "mount", "{kind} is inherited: {few}");
    }
}

fn several_ranges_of_ids_are_mapped() {
    let ranges = |outside: u32| {
        json!([{"containerID": 0, "hostID": outside, "size": 1}, {"containerID": 1, "hostID": outside + 70_000, "size": 999},
               {"containerID": 5000, "hostID": outside + 1, "size": 2}])
    };
    let text = bundle("ranges", "cat /proc/self/uid_map /proc/self/gid_map; id -u; id -g")
        .in_user_namespace()
        .set("/linux/uidMappings", ranges(BASE))
        .set("/linux/gidMappings", ranges(BASE + 7))
        .set("/process/user", json!({"uid": 5001, "gid": 3}))
        .output();
    let numbers: Vec<u32> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let (a, b) = (BASE, BASE + 7);
    let expected = [0, a, 1, 1, a + 70_000, 999, 5000, a + 1, 2, 0, b, 1, 1, b + 70_000, 999, 5000, b + 1, 2, 5001, 3];
    assert_eq!(numbers, expected);
}

fn a_time_namespace_has_its_offsets() {
    const DAYS: u64 = 1000 * 86_400;
    for user in [false, true] {
        let config = bundle("time", "cat /proc/self/timens_offsets /proc/uptime")
            .namespace("time", json!({"type": "time"}))
            .set("/linux/timeOffsets", json!({"boottime": {"secs": DAYS, "nanosecs": 7}, "monotonic": {"secs": 5}}));
        let text = if user { config.in_user_namespace() } else { config }.output();
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words[..6], ["monotonic", "5", "0", "boottime", &DAYS.to_string(), "7"], "{text}");
        let uptime: f64 = words[6].parse().unwrap();
        assert!(uptime > DAYS as f64, "{text}");
    }
    // Without one, the machine's.
    let text = bundle("no-time", "cat /proc/uptime").output();
    assert!(text.split_whitespace().next().unwrap().parse::<f64>().unwrap() < DAYS as f64);
}

fn clocks_that_cannot_be_are_named() {
    let refusal = bundle("bad-time", "true")
        .namespace("time", json!({"type": "time"}))
        .set("/linux/timeOffsets", json!({"boottime": {"secs": i64::MIN}}))
        .refusal();
    assert!(refusal.contains("set clock boottime -9223372036854775808 0"), "{refusal}");
}

/// A container that others join.
fn first(config: Config) -> Started {
    let started = start_launch(&config.launch(), "first", Stdio::default()).unwrap();
    assert_eq!(wait_for_report(&started), Report::Executed);
    started
}

fn end(started: &Started) {
    garboard_runtime::cgroup::kill(started.cgroup.as_ref().unwrap()).unwrap();
    assert_eq!(reap(started), 137);
    remove_cgroup("first");
}

fn all_eight_namespaces_are_joined_by_path() {
    for user in [false, true] {
        let config = bundle("first", "sleep 20").namespace("time", json!({"type": "time"}));
        let started = first(if user { config.in_user_namespace() } else { config });
        let its = |file: &str| of(&started.pid.to_string(), file);
        let kinds = KINDS.iter().filter(|(kind, _)| *kind != "user" || user);
        let second = kinds.clone().fold(bundle("second", SHOW), |config, (kind, file)| {
            config.namespace(kind, json!({"type": kind, "path": format!("/proc/{}/ns/{file}", started.pid)}))
        });
        let before: Vec<String> = KINDS.iter().map(|(_, file)| of("self", file)).collect();
        let text = second.output();
        for (kind, file) in kinds {
            assert!(text.contains(&its(file)), "{kind} is joined: {text}");
        }
        assert_eq!(KINDS.iter().map(|(_, file)| of("self", file)).collect::<Vec<_>>(), before, "the launcher is back");
        end(&started);
    }
}

/// Filesystems of namespaces that a joined user namespace doesn't own couldn't be mounted in it.
fn a_user_namespace_owns_what_is_made_with_it() {
    let started = first(bundle("owner", "sleep 20").in_user_namespace());
    let path = format!("/proc/{}/ns/user", started.pid);
    let text = bundle(
        "owned",
        "id -u; cat /proc/self/uid_map; grep -c sysfs /proc/mounts; echo $$; hostname inside && hostname",
    )
    .namespace("user", json!({"type": "user", "path": path}))
    .set("/hostname", json!("outside"))
    .output();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words[..4], ["0", "0", &BASE.to_string(), "65536"], "{text}");
    assert!(words.contains(&"1") && text.ends_with("inside\n"), "{text}");
    end(&started);
}

fn devices_belong_to_ids_of_a_joined_user_namespace() {
    let started = first(bundle("device-owner", "sleep 20").in_user_namespace());
    let path = format!("/proc/{}/ns/user", started.pid);
    let device =
        json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 33, "gid": 44}]);
    let text = bundle("device-owned", "stat -c '%a %u %g' /dev/fuse")
        .namespace("user", json!({"type": "user", "path": path}))
        .set("/linux/devices", device)
        .output();
    assert_eq!(text, "640 33 44\n");
    end(&started);
}

fn a_mount_namespace_is_joined() {
    let started = first(bundle("mounts", "sleep 20"));
    let path = format!("/proc/{}/ns/mnt", started.pid);
    let text = bundle("joins", "stat -c %N /proc/self/ns/mnt; ls /only-here")
        .namespace("mount", json!({"type": "mount", "path": path}))
        .mount(json!({"destination": "/only-here", "type": "tmpfs"}))
        .output();
    assert!(text.contains(&of(&started.pid.to_string(), "mnt")), "{text}");
    end(&started);
}

fn what_is_no_namespace_is_refused() {
    for kind in ["user", "mount", "time", "network"] {
        let refusal =
            |path: &str| bundle("none", "true").namespace(kind, json!({"type": kind, "path": path})).refusal();
        let text = refusal("/etc/passwd");
        assert!(text.contains("/etc/passwd on the machine is no namespace"), "{kind}: {text}");
        let text = refusal("/no/such/file");
        assert!(text.contains("/no/such/file: no such file or directory (ENOENT)"), "{kind}: {text}");
        let text = refusal("/proc/self/ns/uts");
        assert!(
            text.contains(
                "join namespace /proc/self/ns/uts: invalid argument (EINVAL): the file is a namespace of another kind"
            ),
            "{text}"
        );
    }
}

fn a_failed_stage_leaves_no_child() {
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    for _ in 0..10 {
        bundle("bad-stage", "true")
            .namespace("time", json!({"type": "time"}))
            .set("/linux/timeOffsets", json!({"boottime": {"secs": i64::MIN}}))
            .refusal();
        // After the stage, in the child.
        bundle("bad-program", "true")
            .namespace("time", json!({"type": "time"}))
            .set("/process/args", json!(["/no/such/program"]))
            .refusal();
    }
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap();
    assert_eq!((descriptors(), children), (before, String::new()));
}

/// Where the network is the machine's, a user namespace can't mount a `/sys` of its own and has the machine's instead.
fn the_machine_s_cgroups_don_t_come_with_its_sys() {
    let outside = std::fs::read_dir("/sys/fs/cgroup").unwrap().count();
    assert!(outside > 0, "control: there is something to be seen");
    let site = |name: &str| {
        let script =
            "ls /sys/class | grep -c net; ls -A /sys/fs/cgroup | wc -l; mkdir /sys/fs/cgroup/new 2>/dev/null; echo $?";
        let mounts = json!([
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev"]},
        ]);
        bundle(name, script).namespace("network", json!(null)).set("/mounts", mounts)
    };
    assert_eq!(site("sys-shown").in_user_namespace().output(), "1\n0\n1\n");
}
