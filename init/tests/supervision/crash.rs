//! The supervisor itself crashes.

use std::os::unix::fs::FileExt;

use garboard_runtime::plan::{Condition, Restart};

use crate::rig::{Rig, Setup, after, find, kill, sharing_pids, shell, with};
use crate::watched::{notifying, say};

/// By name.
pub const TESTS: &[(&str, fn())] = &[
    ("crash::a_panic_loses_nothing", a_panic_loses_nothing),
    ("crash::a_fault_loses_nothing", a_fault_loses_nothing),
    ("crash::a_broken_invariant_loses_nothing", a_broken_invariant_loses_nothing),
    ("crash::an_exit_that_was_seen_is_not_lost", an_exit_that_was_seen_is_not_lost),
    ("crash::what_outlived_a_container_is_cleared_away", what_outlived_a_container_is_cleared_away),
    ("crash::what_a_container_said_is_not_lost", what_a_container_said_is_not_lost),
    ("crash::a_launch_that_was_reported_is_not_lost", a_launch_that_was_reported_is_not_lost),
    ("crash::a_shutdown_that_was_asked_for_is_not_lost", a_shutdown_that_was_asked_for_is_not_lost),
    ("crash::who_was_asked_to_stop_is_not_asked_again", who_was_asked_to_stop_is_not_asked_again),
    ("crash::what_follows_from_an_exit_is_kept_as_a_whole", what_follows_from_an_exit_is_kept_as_a_whole),
    ("crash::aborts_and_bus_errors_are_survived", aborts_and_bus_errors_are_survived),
    (
        "crash::a_state_that_can_t_be_read_back_is_told_in_good_time",
        a_state_that_can_t_be_read_back_is_told_in_good_time,
    ),
];

pub const PANIC: i32 = 34 + 8;
const FAULT: i32 = 34 + 9;
/// The first container counts as having no process.
const NONSENSE: i32 = 34 + 16;
/// Earlier crashes don't count any more.
const FORGET: i32 = 34 + 17;
/// A panic when a turn's events are taken, and nothing is done of what follows from them.
const TAKEN: i32 = 34 + 13;
/// A panic when a part of what has changed is kept.
const KEEPING: i32 = 34 + 15;

/// Lets the supervisor find all of this at once.
fn meanwhile(rig: &Rig, what: impl FnOnce()) {
    rig.signal(19);
    what();
    rig.signal(18);
}

fn wait_resumed(rig: &mut Rig) {
    rig.wait("resumed", |s| s["notes"].to_string().contains("crashed and goes on"));
}

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
    let struck = std::time::Instant::now();
    rig.signal(18);

    let after = rig.wait("resumed", |s| s["notes"].as_array().is_some_and(|n| !n.is_empty()));
    let note = after["notes"][0].as_str().unwrap();
    assert!(note.contains("crashed and goes on") && note.contains(reason), "{note}");
    let away = note.rsplit_once("; back after ").and_then(|(_, rest)| rest.strip_suffix(" ms")).map(str::parse::<f64>);
    let until_now = struck.elapsed().as_secs_f64() * 1000.0;
    assert!(
        away.clone().is_some_and(|ms| ms.is_ok_and(|ms| 0.0 < ms && ms < until_now)),
        "{away:?}, {until_now}: {note}"
    );
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

/// What PID 1 has in its memory can't be so: it goes on from what it kept before.
fn a_broken_invariant_loses_nothing() {
    survives(NONSENSE, "invariant broken: ticking has no process and counts as having one");
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

/// Real ones, and signals that somebody sent.
fn aborts_and_bus_errors_are_survived() {
    let mut rig = Rig::new(vec![shell("web", "sleep 10000")]);
    let pid = rig.wait_state("web", "running")["pid"].clone();
    rig.wait_console("all containers are as declared");
    let last =
        |s: &serde_json::Value| s["notes"].as_array().unwrap().last().map(ToString::to_string).unwrap_or_default();
    for (number, reason) in [
        (34 + 18, "fatal signal 7 at address 0x"),
        (34 + 19, "fatal signal 4 at address 0x"),
        (34 + 20, "fatal signal 6"),
        (6, "fatal signal 6 sent by process"),
        (7, "fatal signal 7 sent by process"),
        (4, "fatal signal 4 sent by process"),
    ] {
        // Each as if a minute had passed.
        kill(rig.pid(), FORGET);
        rig.wait("forgotten", |s| last(s).contains("don't count any more"));
        kill(rig.pid(), number);
        let after = rig.wait("resumed", |s| last(s).contains("crashed and goes on"));
        assert!(last(&after).contains(reason), "{after}");
        assert_eq!(find(&after, "web")["pid"], pid);
    }
    // What was said before is not said again.
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(rig.console().matches("all containers are as declared").count(), 1, "{}", rig.console());
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

/// What is read from a socket is nowhere else.
fn what_a_container_said_is_not_lost() {
    let mut rig = Rig::new(vec![notifying(shell("slow", "echo here; sleep 10000"))]);
    rig.wait_console("slow | here");
    assert_eq!(rig.container("slow")["state"], "starting");
    meanwhile(&rig, || {
        say(&rig, "slow", "READY=1");
        rig.signal(TAKEN);
    });
    wait_resumed(&mut rig);
    rig.wait_state("slow", "running");
}

/// Nor is what is read from a pipe.
fn a_launch_that_was_reported_is_not_lost() {
    let mut rig = Rig::with(vec![shell("web", "sleep 10000")], Setup { frozen: true, ..Setup::default() });
    let pid = rig.wait_state("web", "starting")["pid"].as_i64().unwrap();
    meanwhile(&rig, || {
        rig.thaw();
        let program = || std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        rig.until("its program runs", |_| program().contains("10000"));
        rig.signal(TAKEN);
    });
    wait_resumed(&mut rig);
    assert_eq!(rig.wait_state("web", "running")["pid"], pid);
}

/// Nor is a signal; and who has to be asked to stop is asked by whoever goes on.
fn a_shutdown_that_was_asked_for_is_not_lost() {
    let life = "trap 'echo asked; exit 0' TERM; echo up; while true; do usleep 10000; done";
    let mut rig = Rig::new(vec![shell("web", life)]);
    rig.wait_console("web | up");
    rig.wait_state("web", "running");
    meanwhile(&rig, || {
        rig.signal(12);
        rig.signal(TAKEN);
    });
    let (status, console) = rig.end();
    assert_eq!(status, 0, "{console}");
    assert!(console.contains("crashed and goes on") && console.contains("web | asked"), "{console}");
}

/// Once: a second time may mean that there is no patience left.
fn who_was_asked_to_stop_is_not_asked_again() {
    let life = "trap 'echo asked' TERM; echo up; while true; do usleep 10000; done";
    let mut rig = Rig::new(vec![shell("slow", life)]);
    rig.wait_console("slow | up");
    rig.ask(serde_json::json!({"request": "reboot"}));
    rig.wait_console("slow | asked");
    // What has begun is carried out, and another end isn't promised.
    let refused = rig.ask(serde_json::json!({"request": "poweroff"}));
    assert!(refused["type"] == "error" && refused["message"].as_str().unwrap().contains("starting over"), "{refused}");
    assert_eq!(rig.ask(serde_json::json!({"request": "reboot"}))["type"], "ok");
    let pid = rig.wait_state("slow", "stopping")["pid"].as_i64().unwrap() as i32;
    rig.signal(PANIC);
    wait_resumed(&mut rig);
    // Long enough for another one to arrive.
    std::thread::sleep(std::time::Duration::from_millis(300));
    kill(pid, 9);
    let (status, console) = rig.end();
    assert_eq!((status, console.matches("slow | asked").count()), (10, 1), "{console}");
}

/// The last one's end is the end of all.
fn what_follows_from_an_exit_is_kept_as_a_whole() {
    let life = "trap '' TERM; echo up; while true; do usleep 10000; done";
    let mut rig = Rig::new(vec![shell("deaf", life)]);
    rig.wait_console("deaf | up");
    rig.ask(serde_json::json!({"request": "reboot"}));
    let pid = rig.wait_state("deaf", "stopping")["pid"].as_i64().unwrap() as i32;
    meanwhile(&rig, || {
        kill(pid, 9);
        rig.signal(KEEPING);
    });
    rig.wait_console("crashed and goes on");
    let (status, console) = rig.end();
    assert_eq!(status, 10, "{console}");
}

/// Somebody else writes where PID 1 keeps its state, before everything has settled.
fn a_state_that_can_t_be_read_back_is_told_in_good_time() {
    let told = |spoil: bool| {
        let chain = |on, name, script| after(on, Condition::Completed, shell(name, script));
        let mut rig = Rig::new(vec![
            shell("first", "true"),
            chain(0, "second", "trap 'exit 0' TERM; echo traps; while true; do usleep 10000; done"),
            chain(1, "third", "sleep 10000"),
        ]);
        rig.wait_console("second | traps");
        if spoil {
            // All but what is large. What concerns the first container isn't written once more.
            let state = rig.descriptor("/memfd:garboard-state (deleted)");
            let state = std::fs::File::options().write(true).open(state).unwrap();
            let (large, all) = (128 << 10, state.metadata().unwrap().len());
            state.write_all_at(&vec![0xa5; usize::try_from(all - large).unwrap()], large).unwrap();
        }
        kill(rig.container("second")["pid"].as_i64().unwrap() as i32, 15);
        rig.wait_state("third", "running");
        // It comes in the turn after that in which all has settled; the first question may have been in the same.
        rig.status();
        rig.status()["notes"].to_string()
    };
    let notes = told(true);
    assert!(notes.contains("what PID 1 keeps of its state can't be read back"), "{notes}");
    // The control.
    assert_eq!(told(false), "[]");
}
