//! Workers: started in order, listened to, held to account, gone at the end. Their bodies here only say what real ones might.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use garboard_runtime::launch::{EndLinks, IdMapping, Mount, MountFlags, MountSource};
use garboard_runtime::plan::Restart;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::rig::{Rig, Setup, changed, find, kill, shell, with};

/// By name.
pub const TESTS: &[(&str, fn())] = &[
    ("workers::what_needs_no_data_runs_without_it", what_needs_no_data_runs_without_it),
    ("workers::required_data_that_is_absent_ends_the_machine", required_data_that_is_absent_ends_the_machine),
    ("workers::one_that_can_not_be_started_is_tried_again", one_that_can_not_be_started_is_tried_again),
    ("workers::a_network_that_failed_is_tried_again", a_network_that_failed_is_tried_again),
    ("workers::modules_that_were_killed_are_locked_all_the_same", modules_that_were_killed_are_locked_all_the_same),
    ("workers::a_lock_that_does_not_close_is_told", a_lock_that_does_not_close_is_told),
    ("workers::data_without_a_report_is_absent", data_without_a_report_is_absent),
    (
        "workers::a_report_that_only_a_crashed_one_heard_is_asked_for_again",
        a_report_that_only_a_crashed_one_heard_is_asked_for_again,
    ),
    ("workers::one_that_nobody_knows_after_a_crash_is_ended", one_that_nobody_knows_after_a_crash_is_ended),
    ("workers::a_crash_at_once_forgets_no_work", a_crash_at_once_forgets_no_work),
    ("workers::nothing_is_started_on_the_way_down", nothing_is_started_on_the_way_down),
    ("workers::data_that_is_killed_on_the_way_down_is_not_missed", data_that_is_killed_on_the_way_down_is_not_missed),
    ("workers::a_crash_on_the_last_steps_ends_all_the_same", a_crash_on_the_last_steps_ends_all_the_same),
];

const NETWORK: &str = r#"{"uplink":"eth7","addresses":["192.0.2.7/24"],"state":"up","detail":""}"#;

/// The body of a worker. The working directory has what a test wants of it: a file `hold-KIND` holds it up, a file `KIND` is its
/// report. It notes its start in `started`.
pub fn run(kind: &str) -> i32 {
    let mut started = File::options().create(true).append(true).open("started").unwrap();
    // Whoever else is there when the last one looks could still mount something.
    let note = if kind == "stop" && siblings() > 0 { ", not alone" } else { "" };
    // In one piece, as others write to it too.
    started.write_all(format!("{kind}{note}\n").as_bytes()).unwrap();
    while Path::new(&format!("hold-{kind}")).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let usual = match kind {
        "modules" => r#"{"loaded":3,"failed":["load module x.ko: ENOEXEC"],"absent":["x"]}"#.to_owned(),
        "data" => r#"{"state":"absent","detail":"no disk has it","bytes":0}"#.to_owned(),
        "network" => format!("this is not a report\n{NETWORK}"),
        _ => String::new(),
    };
    let said = std::fs::read_to_string(kind).unwrap_or(usual);
    println!("{said}");
    if kind == "network" && said.contains(NETWORK) {
        // Its end takes a while: there is much to give back.
        let memory = vec![1_u8; 64 << 20];
        // The lease is kept until somebody ends it.
        std::thread::sleep(Duration::from_secs(1000));
        drop(std::hint::black_box(memory));
    }
    0
}

/// How many other children its parent has.
fn siblings() -> usize {
    let parent = std::os::unix::process::parent_id();
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    children.split_whitespace().count() - 1
}

/// The workers that were started, in order.
fn started(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn containers() -> Vec<garboard_runtime::plan::Container> {
    let source = MountSource::Bind {
        path: "/data/volumes/x".into(),
        recursive: false,
        idmap: IdMapping::Container { recursive: false },
        links: EndLinks::Followed,
        create: None,
    };
    let mount = Mount { target: "/mnt".into(), source, flags: MountFlags::default() };
    let keeper = changed(shell("keeper", "echo never"), |launch| launch.mounts.push(mount));
    let web = with(Restart::Always, shell("web", "trap 'exit 0' TERM; while true; do usleep 10000; done"));
    vec![keeper, web]
}

fn what_needs_no_data_runs_without_it() {
    let mut rig = Rig::with(containers(), Setup { data: Some(false), ..Setup::default() });
    let status = rig.wait("settled", |s| s["network"]["state"] == "up" && find(s, "keeper")["state"] == "failed");
    assert_eq!(find(&status, "keeper")["detail"], "needs /data: no disk has it");
    assert_eq!(find(&status, "web")["state"], "running");
    assert_eq!(status["data"], serde_json::json!({"state": "absent", "detail": "no disk has it", "bytes": 0}));
    assert_eq!(status["network"]["addresses"], serde_json::json!(["192.0.2.7/24"]));
    assert_eq!(status["notes"], serde_json::json!(["load module x.ko: ENOEXEC"]));
    // The worker of the data has said its word, and may take a moment to go.
    rig.until("web and the network worker are left", |rig| rig.children().len() == 2);

    // A crash of the supervisor doesn't lose workers either.
    kill(rig.pid(), 34 + 8);
    rig.wait("resumed", |s| s["notes"].as_array().is_some_and(|n| n.len() == 2));
    let web = rig.container("web")["pid"].as_i64().unwrap() as i32;
    let worker = rig.children().into_iter().find(|(pid, _)| *pid != web).unwrap().0;
    kill(worker, 9);
    let status = rig.wait("noticed", |s| s["network"]["state"] == "failed");
    assert_eq!(status["network"]["detail"], "its worker was killed by SIGKILL");

    rig.ask(serde_json::json!({"request": "poweroff"}));
    assert_eq!(rig.end().0, 0);
}

fn required_data_that_is_absent_ends_the_machine() {
    let rig = Rig::with(containers(), Setup { data: Some(true), ..Setup::default() });
    let (status, console) = rig.end();
    assert_eq!(status, 0, "switched off");
    // As `garboard.stop=` has it.
    let halting = Rig::with(containers(), Setup { data: Some(true), halting: true, ..Setup::default() });
    assert_eq!(halting.end().0, 11, "halted");
    assert!(console.contains("garboard: the data filesystem is required and absent: no disk has it"), "{console}");
}

fn one_that_can_not_be_started_is_tried_again() {
    let mut rig = Rig::with(containers(), Setup { data: Some(true), fate: "starve", ..Setup::default() });
    let told = "start the modules worker: Too many open files (os error 24); it is tried again";
    rig.wait("told", |s| s["notes"] == serde_json::json!([told]));
    std::fs::write(rig.file("data"), r#"{"state":"tmpfs","detail":"","bytes":0}"#).unwrap();
    let limit = Rlimit { current: Some(256), ..getrlimit(Resource::Nofile) };
    prlimit(Pid::from_raw(rig.pid()), Resource::Nofile, limit).unwrap();
    rig.wait("at work", |s| s["network"]["state"] == "up" && s["data"]["state"] == "tmpfs" && s["state"] == "running");
    // Two at the same time.
    let mut started = started(&rig.file("started"));
    started.sort();
    assert_eq!(started, ["data", "modules", "network"]);
}

fn a_network_that_failed_is_tried_again() {
    let files = &[("network", r#"{"uplink":null,"addresses":[],"state":"failed","detail":"none is there"}"#)];
    let mut rig = Rig::with(containers(), Setup { data: Some(false), files, ..Setup::default() });
    let status = rig.wait("told", |s| s["network"]["state"] == "failed");
    assert_eq!(status["network"]["detail"], "none is there");
    std::fs::write(rig.file("network"), NETWORK).unwrap();
    rig.wait("up", |s| s["network"]["state"] == "up");
}

fn modules_that_were_killed_are_locked_all_the_same() {
    let files = &[("hold-modules", ""), ("modules_disabled", "0")];
    let mut rig = Rig::with(vec![], Setup { data: Some(false), files, ..Setup::default() });
    let path = rig.file("started");
    rig.until("at work", |_| started(&path) == ["modules"]);
    assert_eq!(std::fs::read_to_string(rig.file("modules_disabled")).unwrap(), "0");
    let [(worker, _)] = rig.children()[..] else { panic!("one worker") };
    kill(worker, 9);
    rig.wait("networked", |s| s["network"]["state"] == "up");
    assert_eq!(std::fs::read_to_string(rig.file("modules_disabled")).unwrap(), "1");
}

fn a_lock_that_does_not_close_is_told() {
    // Writing to a directory fails.
    let files = &[("modules_disabled/x", "")];
    let mut rig = Rig::with(containers(), Setup { data: Some(false), files, ..Setup::default() });
    let status = rig.wait("networked", |s| s["network"]["state"] == "up");
    let notes: Vec<&str> = status["notes"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    assert!(
        notes.contains(&"modules can still be loaded: write modules_disabled: Is a directory (os error 21)"),
        "{notes:?}"
    );
}

fn data_without_a_report_is_absent() {
    let files = &[("data", "no report")];
    let mut rig = Rig::with(containers(), Setup { data: Some(false), files, ..Setup::default() });
    let detail = rig.wait_state("keeper", "failed")["detail"].clone();
    assert_eq!(detail, "needs /data: its worker gave no report");
}

/// PID 1 crashes with the line in its hands.
fn a_report_that_only_a_crashed_one_heard_is_asked_for_again() {
    let files = &[("hold-data", ""), ("data", r#"{"state":"tmpfs","detail":"","bytes":0}"#)];
    let mut rig = Rig::with(containers(), Setup { data: Some(true), files, ..Setup::default() });
    rig.wait("networked", |s| s["network"]["state"] == "up");
    let path = rig.file("started");
    rig.until("at work", |_| started(&path).contains(&"data".to_owned()));
    rig.signal(19);
    kill(rig.pid(), 34 + 14);
    std::fs::remove_file(rig.file("hold-data")).unwrap();
    rig.until("it has ended", |rig| rig.children().iter().any(|(_, state)| *state == 'Z'));
    rig.signal(18);
    let status = rig.wait("resumed", |s| s["notes"].to_string().contains("crashed and goes on"));
    assert_ne!(status["state"], "stopping", "{status:#}");
    rig.wait("there", |s| s["data"]["state"] == "tmpfs");
    assert_eq!(started(&path).iter().filter(|kind| *kind == "data").count(), 2);
}

/// Two were started when the modules were in, and PID 1 crashes before it is kept that they were.
fn one_that_nobody_knows_after_a_crash_is_ended() {
    let files = &[("hold-modules", ""), ("hold-network", "")];
    let mut rig = Rig::with(vec![], Setup { data: Some(false), files, ..Setup::default() });
    let path = rig.file("started");
    rig.until("at work", |_| started(&path) == ["modules"]);
    rig.signal(19);
    kill(rig.pid(), 34 + 10);
    std::fs::remove_file(rig.file("hold-modules")).unwrap();
    rig.until("it has ended", |rig| rig.children().iter().any(|(_, state)| *state == 'Z'));
    rig.signal(18);
    rig.wait("resumed", |s| s["notes"].to_string().contains("crashed and goes on"));
    let networks = || started(&path).iter().filter(|kind| *kind == "network").count();
    rig.wait("that has settled", |s| s["data"]["state"] == "absent");
    rig.until("one network worker is left, and nobody else", |rig| networks() > 0 && rig.children().len() == 1);
    std::fs::remove_file(rig.file("hold-network")).unwrap();
    rig.wait("networked", |s| s["network"]["state"] == "up");
}

fn a_crash_at_once_forgets_no_work() {
    let mut rig = Rig::with(containers(), Setup { data: Some(false), fate: "crash", ..Setup::default() });
    let status = rig.wait("at work", |s| s["network"]["state"] == "up" && find(s, "keeper")["state"] == "failed");
    let notes: Vec<&str> = status["notes"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    assert_eq!((notes.len(), notes[0]), (3, "something is not as it should be"));
    assert!(notes[1].contains("crashed and goes on"), "{notes:?}");
}

fn nothing_is_started_on_the_way_down() {
    let deaf = with(Restart::Always, shell("deaf", "trap '' TERM; echo up; while true; do usleep 10000; done"));
    let files = &[("hold-modules", "")];
    let mut rig = Rig::with(vec![deaf], Setup { data: Some(true), files, ..Setup::default() });
    rig.wait_console("deaf | up");
    let path = rig.file("started");
    rig.until("at work", |_| started(&path) == ["modules"]);
    rig.ask(serde_json::json!({"request": "poweroff"}));
    std::fs::remove_file(rig.file("hold-modules")).unwrap();
    rig.until("done", |rig| rig.children().len() == 1);
    let pid = rig.container("deaf")["pid"].as_i64().unwrap() as i32;
    kill(pid, 9);
    rig.until("at its end", |_| started(&path).len() > 1);
    assert_eq!(started(&path), ["modules", "stop"]);
    assert_eq!(rig.end().0, 0);
}

fn data_that_is_killed_on_the_way_down_is_not_missed() {
    let files = &[("hold-data", "")];
    let mut rig = Rig::with(containers(), Setup { data: Some(true), files, ..Setup::default() });
    rig.wait("networked", |s| s["network"]["state"] == "up");
    let path = rig.file("started");
    rig.ask(serde_json::json!({"request": "reboot"}));
    rig.until("at its end", |_| started(&path).len() > 3);
    // The last one waited for the ends of the others.
    assert_eq!(started(&path)[3], "stop");
    let (status, console) = rig.end();
    assert_eq!(status, 10, "{console}");
    assert!(!console.contains("required and absent"), "{console}");
}

/// After the last container's end, before the last worker's start, with another that would never end.
fn a_crash_on_the_last_steps_ends_all_the_same() {
    let mut rig = Rig::with(containers(), Setup { data: Some(false), ..Setup::default() });
    rig.wait("settled", |s| s["network"]["state"] == "up" && find(s, "keeper")["state"] == "failed");
    rig.wait_state("web", "running");
    kill(rig.pid(), 34 + 11);
    rig.ask(serde_json::json!({"request": "poweroff"}));
    rig.wait_console("crashed and goes on");
    assert_eq!(rig.end().0, 0);
}
