//! The machine's watchdog, which is a pipe here: what is written to it is food.

use std::time::{Duration, Instant};

use crate::rig::{Rig, Setup, eaten, kill, shell};

/// By name.
pub const TESTS: &[(&str, fn())] = &[
    ("watchdog::it_is_fed_until_the_loop_stands_still", it_is_fed_until_the_loop_stands_still),
    ("watchdog::it_is_fed_over_a_crash_and_let_go_in_the_end", it_is_fed_over_a_crash_and_let_go_in_the_end),
    ("watchdog::it_is_fed_while_pid_1_gives_up", it_is_fed_while_pid_1_gives_up),
    ("watchdog::one_that_is_not_there_is_told", one_that_is_not_there_is_told),
];

const PANIC: i32 = 34 + 8;
const HANG: i32 = 34 + 12;
const POWER_OFF: i32 = 12;

/// A rig whose watchdog bites after a second.
fn watched() -> Rig {
    let setup = Setup { watchdog: Some(1), bowl: true, ..Setup::default() };
    let mut rig = Rig::with(vec![shell("web", "sleep 10000")], setup);
    rig.wait_state("web", "running");
    rig
}

/// Waits until it was fed so often.
fn wait_for_food(rig: &Rig, times: usize) -> Vec<u8> {
    let until = Instant::now() + Duration::from_secs(30);
    let mut food = Vec::new();
    while food.len() < times {
        assert!(Instant::now() < until, "fed {} times", food.len());
        food.extend(rig.eaten());
        std::thread::sleep(Duration::from_millis(20));
    }
    food
}

fn it_is_fed_until_the_loop_stands_still() {
    let rig = watched();
    assert!(wait_for_food(&rig, 5).iter().all(|byte| *byte == b'.'));
    kill(rig.pid(), HANG);
    std::thread::sleep(Duration::from_millis(600));
    rig.eaten();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(rig.eaten(), b"", "nobody feeds it for a loop that stands still");
}

fn it_is_fed_over_a_crash_and_let_go_in_the_end() {
    let mut rig = watched();
    wait_for_food(&rig, 1);
    kill(rig.pid(), PANIC);
    rig.wait("resumed", |s| s["notes"].as_array().is_some_and(|n| !n.is_empty()));
    wait_for_food(&rig, 5);
    rig.signal(POWER_OFF);
    let bowl = rig.bowl();
    assert_eq!(rig.end().0, 0);
    assert_eq!(eaten(&bowl).last(), Some(&b'V'), "a machine that is off isn't to be started over");
}

/// That writes disks back, which takes as long as it takes.
fn it_is_fed_while_pid_1_gives_up() {
    let mut rig = watched();
    kill(rig.pid(), PANIC);
    rig.wait("resumed", |s| s["notes"].as_array().is_some_and(|n| !n.is_empty()));
    let bowl = rig.bowl();
    rig.signal(19);
    eaten(&bowl);
    kill(rig.pid(), PANIC);
    rig.signal(18);
    assert_eq!(rig.end().0, 70);
    let food = eaten(&bowl);
    assert!(food.starts_with(b".") && !food.contains(&b'V'), "{food:?}");
}

fn one_that_is_not_there_is_told() {
    let setup = Setup { watchdog: Some(5), ..Setup::default() };
    let mut rig = Rig::with(vec![shell("web", "sleep 10000")], setup);
    let status = rig.wait("told", |s| s["notes"].as_array().is_some_and(|n| !n.is_empty()));
    let note = status["notes"][0].as_str().unwrap();
    assert!(note.contains("no watchdog: open watchdog: "), "{note}");
}
