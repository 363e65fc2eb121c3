//! The supervisor itself crashes.

use garboard_runtime::plan::Restart;

use crate::rig::{Rig, Setup, find, kill, sharing_pids, shell, with};

/// By name.
pub const TESTS: &[(&str, fn())] = &[
    ("crash::a_panic_loses_nothing", a_panic_loses_nothing),
    ("crash::a_fault_loses_nothing", a_fault_loses_nothing),
    ("crash::an_exit_that_was_seen_is_not_lost", an_exit_that_was_seen_is_not_lost),
    ("crash::what_outlived_a_container_is_cleared_away", what_outlived_a_container_is_cleared_away),
    ("crash::aborts_and_bus_errors_are_survived", aborts_and_bus_errors_are_survived),
];

pub const PANIC: i32 = 34 + 8;
const FAULT: i32 = 34 + 9;

fn survives(signal: i32, reason: &str) {
    let ticking = "i=0; while true; do echo tick $i; i=$((i+1)); usleep 20000; done";
    let mut rig = Rig::new(vec![
        with(Restart::Always, shell("ticking", ticking)),
        with(Restart::Always, shell("quiet", "sleep 10000")),
        shell("ending", "sleep 10000"),
    ]);
    let running = |s: &serde_json::Value| s["containers"].as_array().unwrap().iter().all(|c| c["state"] == "running");
    let before = rig.wait("running", running);
    let descriptors = rig.descriptors();
    let pid = |s: &serde_json::Value, name: &str| find(s, name)["pid"].as_i64().unwrap() as i32;

    // One container ends while nobody is there to see it.
    rig.signal(19);
    kill(pid(&before, "ending"), 9);
    kill(rig.pid(), signal);
    rig.signal(18);

    let after = rig.wait("resumed", |s| s["notes"].as_array().is_some_and(|n| !n.is_empty()));
    let note = after["notes"][0].as_str().unwrap();
    assert!(note.contains("crashed and goes on") && note.contains(reason), "{note}");
    for name in ["ticking", "quiet"] {
        assert_eq!(pid(&after, name), pid(&before, name), "{name} is the same process");
        assert_eq!((&find(&after, name)["state"], &find(&after, name)["restarts"]), (&"running".into(), &0.into()));
    }
    assert_eq!(rig.wait_state("ending", "failed")["exit"]["signal"], 9);
    assert!(rig.descriptors() <= descriptors, "{descriptors} → {}", rig.descriptors());

    // Still supervised: started again, and heard.
    kill(pid(&before, "quiet"), 9);
    let again =
        rig.wait("started again", |s| find(s, "quiet")["restarts"] == 1 && find(s, "quiet")["state"] == "running");
    assert_ne!(pid(&again, "quiet"), pid(&before, "quiet"));

    // Lines from before and after, on a machine however busy.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let mut log = rig.log("ticking");
    while log.len() < 50 && std::time::Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(50));
        log = rig.log("ticking");
    }
    let numbers: Vec<u64> = log.iter().map(|l| l.strip_prefix("tick ").unwrap().parse().unwrap()).collect();
    assert!(numbers.len() >= 50 && numbers[0] == 0, "{numbers:?}");
    assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1), "no line was lost: {numbers:?}");

    // The second within a minute is the last.
    kill(rig.pid(), signal);
    let (status, _) = rig.end();
    assert_eq!(status, 70);
}

fn a_panic_loses_nothing() {
    survives(PANIC, "panic at init/src/event_loop/signals.rs");
}

fn a_fault_loses_nothing() {
    survives(FAULT, "fatal signal 11 at address 0x8");
}

/// Its first process has ended and is reaped, another one is still there, and PID 1 crashes before it has seen to that.
fn what_outlived_a_container_is_cleared_away() {
    let container = with(Restart::Always, shell("parent", "sleep 10000 & exec sleep 10001"));
    let mut rig = Rig::new(vec![sharing_pids(container)]);
    let pid = rig.wait_state("parent", "running")["pid"].as_i64().unwrap() as i32;
    rig.wait_console("all containers are as declared");
    rig.signal(19);
    kill(rig.pid(), 34 + 11);
    kill(pid, 9);
    rig.signal(18);
    rig.wait("resumed", |s| s["notes"].to_string().contains("crashed and goes on"));
    let again = rig.wait("again", |s| find(s, "parent")["state"] == "running" && find(s, "parent")["restarts"] == 1);
    assert_ne!(find(&again, "parent")["pid"], pid);
    // The two of the new run.
    rig.until("those of the new run", |rig| rig.children().len() == 1);
}

/// Signals that nobody sent on purpose are no different.
fn aborts_and_bus_errors_are_survived() {
    for (number, name) in [(6, "fatal signal 6"), (7, "fatal signal 7"), (4, "fatal signal 4")] {
        let mut rig = Rig::new(vec![shell("web", "sleep 10000")]);
        let pid = rig.wait_state("web", "running")["pid"].clone();
        rig.wait_console("all containers are as declared");
        kill(rig.pid(), number);
        let after = rig.wait("resumed", |s| s["notes"].as_array().is_some_and(|n| !n.is_empty()));
        assert!(after["notes"][0].as_str().unwrap().contains(name), "{after}");
        assert_eq!(find(&after, "web")["pid"], pid);
        // What was said before is not said again.
        std::thread::sleep(std::time::Duration::from_secs(1));
        assert_eq!(rig.console().matches("all containers are as declared").count(), 1, "{}", rig.console());
    }
}

/// A crash between an exit and the record of what follows from it.
fn an_exit_that_was_seen_is_not_lost() {
    let containers = vec![shell("ending", "sleep 10000"), with(Restart::Always, shell("web", "sleep 10000"))];
    let mut rig = Rig::with(containers, Setup { data: Some(false), ..Setup::default() });
    let status = rig.wait("settled", |s| {
        s["network"]["state"] == "up" && ["ending", "web"].iter().all(|name| find(s, name)["state"] == "running")
    });
    let containers: Vec<i64> = ["ending", "web"].map(|name| find(&status, name)["pid"].as_i64().unwrap()).into();
    // The others have done their work.
    rig.until("two containers and the network worker are left", |rig| rig.children().len() == 3);
    // All but `web`.
    let ending: Vec<i32> = rig.children().iter().map(|c| c.0).filter(|pid| i64::from(*pid) != containers[1]).collect();
    assert_eq!(ending.len(), 2);
    rig.signal(19);
    ending.iter().for_each(|pid| kill(*pid, 9));
    kill(rig.pid(), 34 + 10);
    rig.signal(18);
    rig.wait("resumed", |s| s["notes"].to_string().contains("crashed and goes on"));
    assert_eq!(rig.wait_state("ending", "failed")["exit"]["signal"], 9);
    let status = rig.wait("noticed", |s| s["network"]["state"] == "failed");
    assert_eq!(status["network"]["detail"], "its worker was killed by SIGKILL");
    let web = rig.container("web");
    assert_eq!((&web["pid"], &web["state"]), (&containers[1].into(), &"running".into()));
}
