//! The way down.

use std::time::{Duration, Instant};

use garboard_runtime::plan::{Condition, Container, Restart};

use crate::rig::{Rig, after, shell, with};

/// By name.
pub const TESTS: &[(&str, fn())] = &[
    ("shutdown::dependents_stop_first_and_the_deaf_are_killed", dependents_stop_first_and_the_deaf_are_killed),
    ("shutdown::the_port_switches_off", the_port_switches_off),
    ("shutdown::signals_have_their_meanings", signals_have_their_meanings),
];

fn dependents_stop_first_and_the_deaf_are_killed() {
    let polite = |name: &str| {
        with(Restart::Always, shell(name, "trap 'echo bye; exit 0' TERM; echo up; while true; do usleep 10000; done"))
    };
    let deaf =
        Container { stop_grace_ms: 700, ..shell("deaf", "trap '' TERM; echo up; while true; do usleep 10000; done") };
    let mut rig = Rig::new(vec![polite("db"), after(0, Condition::Started, polite("web")), deaf]);
    for name in ["db", "web", "deaf"] {
        rig.wait_state(name, "running");
        rig.wait_console(&format!("{name:<4} | up\n"));
    }
    let begun = Instant::now();
    rig.signal(15);
    let (status, console) = rig.end();
    assert_eq!(status, 10, "SIGTERM starts over\n{console}");
    assert!(
        begun.elapsed() >= Duration::from_millis(700) && begun.elapsed() < Duration::from_secs(9),
        "{:?}",
        begun.elapsed()
    );
    let place = |text: &str| console.find(text).unwrap_or_else(|| panic!("{text:?} in\n{console}"));
    assert!(place("web  | bye") < place("db   | bye"));
    assert!(place("garboard: web exited with status 0") < place("db   | bye"), "web is waited for");
    assert!(console.contains("garboard: deaf was killed by SIGKILL"));
}

fn the_port_switches_off() {
    let mut rig =
        Rig::new(vec![with(Restart::Always, shell("web", "trap 'exit 0' TERM; while true; do usleep 10000; done"))]);
    rig.wait_state("web", "running");
    assert_eq!(rig.ask(serde_json::json!({"request": "poweroff"}))["type"], "ok");
    let (status, console) = rig.end();
    assert_eq!(status, 0);
    assert!(console.contains("garboard: switching off (asked by the status port); stopping containers"));
}

fn signals_have_their_meanings() {
    for (number, status) in [(12, 0), (30, 0), (2, 10), (10, 11), (34 + 4, 0), (34 + 5, 10)] {
        let mut rig = Rig::new(vec![Container { stop_grace_ms: 100, ..shell("web", "sleep 10000") }]);
        rig.wait_state("web", "running");
        rig.signal(number);
        assert_eq!(rig.end().0, status, "signal {number}");
    }
}
