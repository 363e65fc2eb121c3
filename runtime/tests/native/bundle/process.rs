//! `process`, `linux.personality`, `linux.memoryPolicy`, Landlock.

use libtest_mimic::Trial;
use serde_json::json;

use super::bundle;
use crate::site::fields;

pub fn tests() -> Vec<Trial> {
    trials![
        user_groups_and_umask_arrive,
        five_sets_of_capabilities_arrive,
        capabilities_that_cannot_be_granted_are_left_out,
        an_ambient_capability_needs_the_other_sets,
        scheduler_and_io_priority_arrive,
        a_real_time_scheduler_arrives_in_a_user_namespace,
        memory_comes_from_where_it_should,
        a_32_bit_machine_is_shown,
        names_of_the_machine_arrive,
        labels_need_their_security_module,
        landlock_denies_what_is_not_named,
        limits_of_the_process_are_exact,
    ]
}

fn user_groups_and_umask_arrive() {
    let text = bundle("user", "id -u; id -g; id -G; umask; pwd; echo $A")
        .set("/process/user", json!({"uid": 33, "gid": 44, "umask": 0o027, "additionalGids": [5, 6]}))
        .set("/process/cwd", json!("/tmp"))
        .set("/process/env", json!(["PATH=/bin", "A=b c"]))
        .output();
    assert_eq!(text, "33\n44\n44 5 6\n0027\n/tmp\nb c\n");
    // Without one it stays the launcher's.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o031));
    let text = bundle("umask", "umask").output();
    rustix::process::umask(before);
    assert_eq!(text, "0031\n");
}

fn five_sets_of_capabilities_arrive() {
    let text = bundle("capabilities", "cat /proc/self/status")
        .set("/process/user", json!({"uid": 33, "gid": 33}))
        .set(
            "/process/capabilities",
            json!({"bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_BPF"], "permitted": ["CAP_CHOWN", "CAP_KILL"],
                   "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]}),
        )
        .output();
    let status = fields(&text);
    let set = |name: &str| u64::from_str_radix(&status[name], 16).unwrap();
    assert_eq!(set("CapBnd"), 1 | 1 << 5 | 1 << 13 | 1 << 39);
    // What a user's program has after exec is what is ambient.
    assert_eq!((set("CapPrm"), set("CapEff"), set("CapInh"), set("CapAmb")), (1 << 5, 1 << 5, 1 << 5, 1 << 5));
}

/// The kernel takes an ambient capability only if it is permitted and inheritable: another can't be granted.
fn an_ambient_capability_needs_the_other_sets() {
    let sets = json!({"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"], "ambient": ["CAP_KILL"]});
    let text = bundle("ambient", "grep Cap /proc/self/status").set("/process/capabilities", sets).output();
    assert_eq!(u64::from_str_radix(&fields(&text)["CapAmb"], 16).unwrap(), 0);
}

/// "Runtimes SHOULD NOT fail": what the launcher itself may not have, the container can't get.
fn capabilities_that_cannot_be_granted_are_left_out() {
    let mut launch = bundle("beyond", "cat /proc/self/status").launch();
    // Numbers that this kernel doesn't have.
    let beyond = 1 << 60 | 1 << 5;
    launch.process.capabilities.permitted = beyond;
    launch.process.capabilities.effective = beyond;
    launch.process.capabilities.inheritable = beyond;
    launch.process.capabilities.ambient = beyond;
    launch.process.capabilities.bounding = beyond;
    let text = crate::site::run_launch(&launch, "bundle").unwrap().output;
    assert_eq!(u64::from_str_radix(&fields(&text)["CapAmb"], 16).unwrap(), 1 << 5);
}

fn scheduler_and_io_priority_arrive() {
    let text = bundle("scheduler", "cat /proc/self/stat; ionice -p $$")
        .set("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 7}))
        .set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 6}))
        .output();
    let words: Vec<&str> = text.lines().next().unwrap().split(' ').collect();
    assert_eq!((words[18], words[40]), ("7", "3"), "nice and policy: {text}");
    assert!(text.ends_with("best-effort: prio 6\n"), "{text}");
}

fn a_real_time_scheduler_arrives_in_a_user_namespace() {
    let text = bundle("fifo", "cat /proc/self/stat; ionice -p $$")
        .in_user_namespace()
        .set(
            "/process/scheduler",
            json!({"policy": "SCHED_FIFO", "priority": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
        )
        .set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_RT", "priority": 1}))
        .set("/process/args", json!(["/bin/cat", "/proc/self/stat"]))
        .output();
    let words: Vec<&str> = text.lines().next().unwrap().split(' ').collect();
    assert_eq!((words[39], words[40]), ("3", "1"), "priority and policy: {text}");
}

fn memory_comes_from_where_it_should() {
    let text = bundle("memory", "cat /proc/self/numa_maps")
        .set("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}))
        .output();
    assert!(text.lines().all(|line| line.contains("bind=static:0")), "{text}");
    let refusal =
        bundle("no-node", "true").set("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "900"})).refusal();
    assert!(refusal.contains("set_mempolicy 0x2: invalid argument (EINVAL): the nodes don't exist"), "{refusal}");
}

fn a_32_bit_machine_is_shown() {
    let machine = |domain: &str| {
        bundle("personality", "/bin/busybox uname -m").set("/linux/personality", json!({"domain": domain})).output()
    };
    assert_eq!(machine("LINUX32"), "i686\n");
    assert_eq!(machine("LINUX"), "x86_64\n");
}

fn names_of_the_machine_arrive() {
    let text = bundle("names", "hostname; cat /proc/sys/kernel/domainname /proc/sys/kernel/shmmni")
        .set("/hostname", json!("inside"))
        .set("/domainname", json!("example.test"))
        .set("/linux/sysctl", json!({"kernel/shmmni": "77"}))
        .output();
    assert_eq!(text, "inside\nexample.test\n77\n");
    let text = bundle("sysctl-names", "cat /proc/sys/kernel/domainname")
        .set("/linux/sysctl", json!({"kernel.domainname": "other.test"}))
        .output();
    assert_eq!(text, "other.test\n");
    let refusal = bundle("shared-uts", "true")
        .namespace("uts", json!(null))
        .set("/linux/sysctl", json!({"kernel.domainname": "x"}))
        .refusal();
    assert!(refusal.contains("sysctl kernel.domainname in a namespace of the machine"), "{refusal}");
}

/// No machine that these tests run on has a policy; what is written where one is, unit tests tell.
fn labels_need_their_security_module() {
    for (field, name) in [("apparmorProfile", "apparmor profile x"), ("selinuxLabel", "SELinux label x")] {
        let refusal = bundle("label", "true").set(&format!("/process/{field}"), json!("x")).refusal();
        assert!(refusal.contains(&format!("set security label {name}")), "{refusal}");
    }
}

fn landlock_denies_what_is_not_named() {
    let script =
        "cat /etc/group | head -n 1; echo x > /tmp/allowed && echo written; cat /secret; echo y > /etc/denied; true";
    let run = |rules: serde_json::Value| {
        let config = bundle("landlock", script);
        std::fs::write(config.rootfs().join("secret"), "seen\n").unwrap();
        config.set("/annotations", rules)
    };
    for no_new_privileges in [false, true] {
        let text = run(json!({
            "org.garboard.landlock.read": "/bin:/lib:/lib64:/usr:/etc:/dev:/no/such/path",
            "org.garboard.landlock.write": "/tmp:/dev/null",
            "org.garboard.landlock.connect": "80", "org.garboard.landlock.scope": "signals"
        }))
        .set("/process/noNewPrivileges", json!(no_new_privileges))
        .output();
        assert!(text.starts_with("root:x:0:\nwritten\n"), "{text}");
        assert_eq!(text.matches("Permission denied").count(), 2, "{text}");
    }
    // Without the rules root may.
    let text = run(json!({})).output();
    assert!(text.contains("seen\n") && !text.contains("denied"), "{text}");
}

fn limits_of_the_process_are_exact() {
    let text = bundle("limits", "ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj")
        .set(
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]),
        )
        .set("/process/oomScoreAdj", json!(77))
        .output();
    assert_eq!(text, "100\n200\n0\n77\n");
}
