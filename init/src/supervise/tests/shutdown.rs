//! The end of the machine.

use garboard_runtime::plan::HealthCheck;

use super::watched::check;
use super::*;

#[test]
fn shutdown_goes_against_the_dependencies() {
    // 0 ◀ 1 ◀ 2, and 3 by itself.
    let mut s = machine(vec![
        rules(Restart::Always, &[]),
        rules(Restart::Always, &[(0, Condition::Started)]),
        rules(Restart::Always, &[(1, Condition::Started)]),
        rules(Restart::Always, &[]),
    ]);
    s.step(Event::Begin, 0);
    (0..4).for_each(|i| drop(up(&mut s, i, 0)));
    assert_eq!(s.step(Event::Shutdown(Goal::Reboot), 100), [Action::Stop(3), Action::Stop(2)]);
    assert_eq!(s.step(Event::Exited(3, Exit::Signal(15)), 101), []);
    assert_eq!(s.step(Event::Exited(2, OK), 102), [Action::Stop(1)]);
    assert_eq!(s.step(Event::Shutdown(Goal::PowerOff), 103), [], "the first word stands");
    assert_eq!(s.step(Event::Exited(1, OK), 104), [Action::Stop(0)]);
    assert_eq!(s.step(Event::Exited(0, OK), 105), [Action::Finish(Goal::Reboot)]);
    assert_eq!(s.step(Event::Tick, 106), []);
}

#[test]
fn shutdown_kills_at_the_deadline_and_never_waits_for_ever() {
    let mut s = running(Restart::Always);
    assert_eq!(s.step(Event::Shutdown(Goal::PowerOff), 1000), [Action::Stop(0)]);
    assert_eq!(s.next_deadline(1000), Some(11_000));
    assert_eq!(s.step(Event::Tick, 10_999), []);
    for n in 0..3 {
        assert_eq!(s.step(Event::Tick, 11_000 + n * 2000), [Action::Kill(0)]);
    }
    assert_eq!(s.step(Event::Tick, 17_000), [Action::Finish(Goal::PowerOff)]);
    assert_eq!(s.units()[0].reason, Reason::Unkillable);
}

#[test]
fn shutdown_starts_nothing_and_asks_nobody_who_does_not_run() {
    let mut s = machine(vec![rules(Restart::Always, &[]); 4]);
    s.step(Event::Begin, 0);
    up(&mut s, 0, 0);
    s.step(Event::Exited(0, BAD), 1);
    s.step(Event::Launched(1), 1);
    assert_eq!([phase(&s, 2), phase(&s, 3)], [Phase::Launching; 2]);
    assert_eq!(s.step(Event::Shutdown(Goal::Halt), 2), [Action::Kill(1)]);
    assert!(!s.wants_launch(2));
    // A launch that was under way all the same.
    assert_eq!(s.step(Event::Launched(2), 3), [Action::Kill(2)]);
    assert_eq!(s.step(Event::Tick, 300), []);
    assert_eq!(s.step(Event::Exited(1, Exit::Signal(9)), 301), [Action::Finish(Goal::Halt)]);
}

#[test]
fn shutdown_of_an_empty_machine_finishes_at_once() {
    assert_eq!(machine(vec![]).step(Event::Shutdown(Goal::PowerOff), 0), [Action::Finish(Goal::PowerOff)]);
}

#[test]
fn on_the_way_down_nobody_is_asked_how_it_is_and_none_ends_out_of_its_turn() {
    let health = HealthCheck { retries: 1, start_interval_ms: 1_000, restart: true, ..check() };
    let supervision =
        Supervision { notify: true, watchdog_ms: Some(2_000), health: Some(health), ..Supervision::default() };
    let database = Rules { supervision, ..rules(Restart::Always, &[]) };
    let mut s = machine(vec![database, rules(Restart::Always, &[(0, Condition::Started)])]);
    s.step(Event::Begin, 0);
    s.step(Event::Launched(0), 0);
    s.step(Event::Executed(0), 0);
    s.step(Event::Ready(0), 0);
    up(&mut s, 1, 0);
    assert_eq!(s.step(Event::Tick, 1_000), [Action::Probe(0)]);
    assert_eq!(s.step(Event::Shutdown(Goal::PowerOff), 1_100), [Action::Stop(1)]);
    assert_eq!(s.step(Event::Probed(0, 1, Err("goes down".into())), 1_200), [], "others still need it");
    assert_eq!(s.step(Event::WatchdogTrigger(0), 1_300), []);
    assert_eq!(s.next_deadline(1_300), Some(11_100), "the grace of the other one");
    assert_eq!(s.step(Event::Tick, 9_000), []);
    assert_eq!(s.step(Event::Exited(1, OK), 9_001), [Action::Stop(0)]);
}

#[test]
fn what_is_under_way_is_owed_by_whoever_goes_on() {
    let mut s = machine(vec![rules(Restart::Always, &[]); 3]);
    s.step(Event::Begin, 0);
    (0..3).for_each(|i| drop(up(&mut s, i, 0)));
    assert_eq!(s.owed(), []);
    s.step(Event::StopAsked(0), 10);
    s.step(Event::Tick, 10_010);
    s.step(Event::Shutdown(Goal::Halt), 10_011);
    assert_eq!(s.owed(), [Action::Stop(2), Action::Stop(1), Action::Kill(0)]);
    (0..3).for_each(|i| drop(s.step(Event::Exited(i, OK), 10_012)));
    assert_eq!(s.owed(), [Action::Finish(Goal::Halt)]);
}
