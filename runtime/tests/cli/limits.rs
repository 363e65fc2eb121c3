//! `update` and `events`. This machine's cgroup2 may have no controllers, so limits are those that every cgroup has; real ones
//! are for a machine of their own (`qemu-tests`), and their files for unit tests.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::site::{Site, shell, until};
use crate::trials;

pub fn tests() -> Vec<Trial> {
    trials![
        limits_change_while_it_runs,
        a_refused_limit_takes_the_others_back,
        wrong_limits_are_named_and_change_nothing,
        limits_are_for_containers_that_live,
        usage_is_told_once,
        events_end_with_the_container,
    ]
}

/// For an ordinary user without a cgroup.
pub fn without_a_cgroup() -> Vec<Trial> {
    trials![limits_and_events_need_a_cgroup]
}

fn running() -> Site {
    let site = shell("sleep 60");
    site.create(&[]);
    site.ok(&["start", &site.id]);
    site
}

fn limit(site: &Site, file: &str) -> String {
    std::fs::read_to_string(site.cgroup().join(file)).unwrap().trim().to_owned()
}

/// `update` with these resources on standard input.
fn update(site: &Site, resources: &str) -> (i32, String) {
    let mut command = site.plain_command(&["update", "--resources", "-", &site.id]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One that has read enough closes its end.
    let _ = child.stdin.take().unwrap().write_all(resources.as_bytes());
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn limits_change_while_it_runs() {
    let site = running();
    assert_eq!(limit(&site, "cgroup.max.descendants"), "max");
    assert_eq!(update(&site, r#"{"unified": {"cgroup.max.descendants": "5"}}"#), (0, String::new()));
    assert_eq!(limit(&site, "cgroup.max.descendants"), "5");
    let file = site.directory.join("resources.json");
    std::fs::write(&file, r#"{"unified": {"cgroup.max.descendants": "max", "cgroup.max.depth": "7"}}"#).unwrap();
    site.ok(&["update", "-r", file.to_str().unwrap(), &site.id]);
    assert_eq!((limit(&site, "cgroup.max.descendants"), limit(&site, "cgroup.max.depth")), ("max".into(), "7".into()));
    // What says nothing changes nothing; so does the absence of limits where there is no controller.
    assert_eq!(update(&site, r#"{"pids": {}, "memory": {"limit": 0}, "cpu": {"cpus": ""}}"#).0, 0);
    site.ok(&["update", &site.id]);
    site.ok(&["update", "--pids-limit", "-1", "--memory", "-1", "--memory-swap=-1", "--cpu-quota", "-1", &site.id]);
    // A caller that sends the container's own device rules along is understood.
    let devices = site.config["linux"]["resources"]["devices"].clone();
    assert!(devices.is_array());
    let resources = json!({"devices": devices, "unified": {"cgroup.max.depth": "6"}});
    assert_eq!(update(&site, &resources.to_string()), (0, String::new()));
    assert_eq!(limit(&site, "cgroup.max.depth"), "6");
    assert_eq!(site.status(), "running");
}

fn a_refused_limit_takes_the_others_back() {
    let site = running();
    // Both come after the first by name, and so in writing: there is no such controller, and no such value.
    for refused in [r#""zero.max": "1""#, r#""cgroup.max.descendants": "-5""#] {
        let (status, error) = update(&site, &format!(r#"{{"unified": {{"cgroup.max.depth": "3", {refused}}}}}"#));
        assert_eq!(status, 1, "{error}");
        assert!(error.contains(&format!("update container {}: set cgroup ", site.id)), "{error}");
        assert_eq!(
            (limit(&site, "cgroup.max.depth"), limit(&site, "cgroup.max.descendants")),
            ("max".into(), "max".into())
        );
    }
    let (_, error) = update(&site, r#"{"unified": {"absent.max": "1"}}"#);
    assert!(
        error.contains("absent.max=1: the requested cgroup controller `absent` is not available: operation not supported (EOPNOTSUPP)")
            && error.contains("the controller isn't enabled"),
        "{error}"
    );
}

fn wrong_limits_are_named_and_change_nothing() {
    let site = running();
    for (json, named) in [
        ("", "resources: EOF"),
        ("[]", "no JSON object"),
        ("{\"pids\": 5}", "linux.resources.pids: invalid type: integer `5`"),
        (r#"{"memory": {"limit": "64m"}}"#, "linux.resources.memory.limit"),
        (r#"{"memory": {"swap": 5}}"#, "linux.resources.memory.swap"),
        (r#"{"memory": {"kernel": 5}}"#, "linux.resources.memory.kernel: not supported"),
        (r#"{"cpu": {"realtimeRuntime": 5}}"#, "linux.resources.cpu.realtimeRuntime: not supported"),
        (r#"{"cpu": {"cpus": "0-"}}"#, "linux.resources.cpu.cpus"),
        (r#"{"blockIO": {"weight": 5}}"#, "5 isn't from 10 to 1000"),
        (r#"{"unified": {"../cgroup.procs": "1"}}"#, "isn't a controller's file"),
        (r#"{"unified": {"KEY": "1"}}"#, "the specified key has not the form CONTROLLER.VALUE `KEY`"),
        (r#"{"devices": [{"allow": true, "access": "rwm"}]}"#, "device rules are fixed"),
    ] {
        let (status, error) = update(&site, json);
        assert_eq!(status, 1, "{json}: {error}");
        assert!(error.starts_with("garboard-runtime: update: ") && error.contains(named), "{json}: {error}");
    }
    let huge = format!("{{\"a\": \"{}\"}}", "x".repeat(17 << 20));
    assert!(update(&site, &huge).1.contains("the limit is 16777216"));
    for flags in [
        ["--memory", "64x"],
        ["--memory", "-2"],
        ["--pids-limit", "many"],
        ["--cpu-share", "-1"],
        ["--blkio-weight", "65536"],
        ["--cpu-period", ""],
    ] {
        let done = site.run(&["update", flags[0], flags[1], &site.id]);
        assert_eq!(done.status, 1, "{flags:?}: {done:?}");
        assert!(done.stderr.contains(flags[0]), "{flags:?}: {done:?}");
    }
    assert!(
        site.fails(&["update", "--resources", "/absent", &site.id])
            .contains("read /absent: no such file or directory (ENOENT)")
    );
    // No machine of these tests has the hardware.
    assert!(
        site.fails(&["update", "--l3-cache-schema", "L3:0=f", &site.id]).contains("no resctrl filesystem is mounted")
    );
    let done = site.run(&["update", "--memory", "1m", "-r", "/dev/null", &site.id]);
    assert!(done.stderr.contains("flags beside --resources have no effect"), "{done:?}");
    assert_eq!(site.status(), "running");
}

fn limits_are_for_containers_that_live() {
    let site = shell("true");
    assert!(site.fails(&["update", &site.id]).contains("container does not exist"));
    assert!(site.fails(&["events", "--stats", &site.id]).contains("container does not exist"));
    site.create(&[]);
    site.ok(&["update", "--pids-limit", "-1", &site.id]);
    assert!(site.ok(&["events", "--stats", &site.id]).contains("\"stats\""));
    site.ok(&["start", &site.id]);
    site.wait_for("stopped");
    assert!(site.fails(&["update", "--pids-limit", "-1", &site.id]).contains("container not running"));
    for arguments in [&["events", &site.id][..], &["events", "--stats", &site.id]] {
        assert!(site.fails(arguments).contains("container not running"));
    }
}

fn usage_is_told_once() {
    let site = shell("i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; echo counted; sleep 60");
    let output = site.create(&[]);
    site.ok(&["start", &site.id]);
    until("it has worked", || std::fs::read_to_string(&output).unwrap().contains("counted"));
    let told = site.ok(&["events", "--stats", &site.id]);
    assert_eq!(told.lines().count(), 1);
    let event: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((event["type"].as_str(), event["id"].as_str()), (Some("stats"), Some(site.id.as_str())));
    let cpu = &event["data"]["cpu"]["usage"];
    assert!(cpu["total"].as_u64().unwrap() > 1_000_000, "{event}");
    for part in ["memory", "pids", "blkio", "hugetlb", "intel_rdt", "cpuset"] {
        assert!(event["data"][part].is_object(), "{part}: {event}");
    }
    for wrong in ["0s", "-1s", "5", "soon"] {
        let done = site.run(&["events", &format!("--interval={wrong}"), &site.id]);
        assert_eq!(done.status, 1, "{wrong}: {done:?}");
        assert!(done.stderr.contains("--interval"), "{wrong}: {done:?}");
    }
}

fn events_end_with_the_container() {
    let site = running();
    let mut command = site.plain_command(&["events", "--interval", "20ms", &site.id]);
    let mut events = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(event["type"], "stats");
    }
    site.ok(&["kill", &site.id, "KILL"]);
    // The pipe's end is the end of the command.
    assert!(lines.all(|line| line.unwrap().contains("\"stats\"")));
    assert!(events.wait().unwrap().success());
    // Whoever stops listening gets an error, not a command that goes on for ever.
    let site = running();
    let mut command = site.plain_command(&["events", "--interval", "1ms", &site.id]);
    let mut events = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(events.stdout.take());
    assert_eq!(events.wait().unwrap().code(), Some(1));
    assert_eq!(site.status(), "running");
}

fn limits_and_events_need_a_cgroup() {
    let site = running();
    assert!(site.fails(&["update", "--pids-limit", "5", &site.id]).contains("it has no cgroup"));
    assert!(site.fails(&["events", "--stats", &site.id]).contains("it has no cgroup"));
}
