//! Readiness, watchdog and health.

use garboard_runtime::plan::{HealthCheck, HealthTest};

use super::*;

fn notifying() -> Rules {
    let supervision = Supervision { notify: true, start_timeout_ms: 5_000, ..Supervision::default() };
    Rules { supervision, ..rules(Restart::No, &[]) }
}

pub(super) fn check() -> HealthCheck {
    HealthCheck {
        test: HealthTest::Tcp(80),
        interval_ms: 1_000,
        timeout_ms: 500,
        retries: 3,
        start_period_ms: 0,
        start_interval_ms: 100,
        restart: false,
    }
}

fn checked(check: HealthCheck, restart: Restart) -> Rules {
    Rules { supervision: Supervision { health: Some(check), ..Supervision::default() }, ..rules(restart, &[]) }
}

fn launched(rules: Vec<Rules>) -> State {
    let mut s = machine(rules);
    s.step(Event::Begin, 0);
    s.step(Event::Launched(0), 0);
    s
}

fn health(s: &State) -> Health {
    s.units()[0].watch.health
}

fn bad(text: &str) -> Result<(), String> {
    Err(text.to_owned())
}

/// Waits for the next question and answers it at once.
fn answer(s: &mut State, now: &mut u64, answer: Result<(), String>) -> Vec<Action> {
    *now = s.units()[0].watch.probe_at.unwrap();
    assert_eq!(s.step(Event::Tick, *now - 1), []);
    assert_eq!(s.step(Event::Tick, *now), [Action::Probe(0)]);
    assert!(s.probing(0));
    s.step(Event::Probed(0, s.run(0), answer), *now)
}

#[test]
fn who_says_that_it_is_ready_has_not_started_before() {
    let mut s = launched(vec![notifying(), rules(Restart::No, &[(0, Condition::Started)])]);
    assert_eq!(s.step(Event::Executed(0), 10), []);
    assert!(!s.units()[0].started && !s.as_declared(0, 4000));
    assert_eq!(s.step(Event::Ready(0), 4000), [Action::Launch(1)]);
    assert_eq!(phase(&s, 0), Phase::Running { since: 4000 });
    assert_eq!(s.step(Event::Ready(0), 4001), []);
}

#[test]
fn readiness_may_be_heard_before_the_report() {
    let mut s = launched(vec![notifying()]);
    s.step(Event::Ready(0), 1);
    assert_eq!(phase(&s, 0), Phase::Running { since: 1 });
    s.step(Event::Executed(0), 2);
    assert_eq!(phase(&s, 0), Phase::Running { since: 1 });
}

#[test]
fn who_never_says_that_it_is_ready_has_failed() {
    let mut s = launched(vec![notifying()]);
    s.step(Event::Executed(0), 10);
    assert_eq!(s.next_deadline(10), Some(5_000));
    assert_eq!(s.step(Event::Tick, 5_000), [Action::Kill(0)]);
    s.step(Event::Exited(0, Exit::Signal(9)), 5_001);
    assert_eq!(phase(&s, 0), Phase::Failed);
    assert_eq!(s.units()[0].reason, Reason::Launch("said not that it is ready within 5 s".into()));

    let mut s = launched(vec![notifying()]);
    s.step(Event::Executed(0), 10);
    s.step(Event::Exited(0, OK), 11);
    assert_eq!((phase(&s, 0), s.units()[0].completed), (Phase::Failed, false));
    assert_eq!(s.units()[0].reason, Reason::Launch("it ended before it said that it is ready".into()));
}

#[test]
fn more_time_can_be_asked_for_but_a_stop_always_ends() {
    let mut s = launched(vec![notifying()]);
    s.step(Event::Executed(0), 10);
    s.step(Event::ExtendTimeout(0, 1), 20);
    assert_eq!(s.next_deadline(20), Some(5_000), "never less");
    s.step(Event::ExtendTimeout(0, 7_000), 4_999);
    assert_eq!(s.next_deadline(4_999), Some(11_999));
    s.step(Event::Ready(0), 11_000);
    assert_eq!(s.step(Event::StopAsked(0), 12_000), [Action::Stop(0)]);
    assert_eq!(s.next_deadline(12_000), Some(22_000));
    s.step(Event::ExtendTimeout(0, 20_000), 12_000);
    assert_eq!(s.next_deadline(12_000), Some(32_000));
    s.step(Event::ExtendTimeout(0, u64::MAX), 31_999);
    assert_eq!(s.next_deadline(31_999), Some(142_000));
    assert_eq!(s.step(Event::Tick, 142_000), [Action::Kill(0)]);
    s.step(Event::ExtendTimeout(0, u64::MAX), 142_001);
    assert_eq!(s.next_deadline(142_001), Some(144_000), "not from one that is being killed");
}

#[test]
fn who_does_not_notify_is_not_heard() {
    let mut s = launched(vec![rules(Restart::No, &[])]);
    let said = |s: &mut State| {
        let before = s.units().to_vec();
        for event in [
            Event::Ready(0),
            Event::ExtendTimeout(0, 1_000_000),
            Event::Alive(0),
            Event::WatchdogSet(0, 5),
            Event::WatchdogTrigger(0),
        ] {
            assert_eq!(s.step(event, 1), []);
        }
        assert_eq!(s.units(), before);
    };
    said(&mut s);
    s.step(Event::Executed(0), 1);
    said(&mut s);
}

#[test]
fn a_missed_watchdog_is_a_failure() {
    let mut rules = notifying();
    (rules.supervision.watchdog_ms, rules.restart) = (Some(300), Restart::OnFailure(Some(0)));
    let ready = || {
        let mut s = launched(vec![rules.clone()]);
        s.step(Event::Executed(0), 0);
        assert_eq!(s.next_deadline(0), Some(5_000), "not before it is ready");
        s.step(Event::Ready(0), 1_000);
        s
    };
    let mut s = ready();
    assert_eq!(s.next_deadline(1_000), Some(1_300));
    s.step(Event::Alive(0), 1_299);
    assert_eq!(s.step(Event::Tick, 1_300), []);
    assert_eq!(s.step(Event::Tick, 1_599), [Action::Kill(0)]);
    s.step(Event::Exited(0, OK), 1_600);
    assert_eq!((phase(&s, 0), &s.units()[0].reason), (Phase::Failed, &Reason::Watchdog));

    let mut s = ready();
    s.step(Event::WatchdogSet(0, 700), 1_100);
    assert_eq!(s.next_deadline(1_100), Some(1_800));
    s.step(Event::WatchdogSet(0, 0), 1_100);
    assert_eq!(s.next_deadline(1_100), Some(2_000), "only until it has settled");
    assert_eq!(s.step(Event::WatchdogTrigger(0), 1_200), [Action::Kill(0)]);
}

#[test]
fn who_says_that_it_stops_is_left_to_it_for_a_while() {
    let mut rules = notifying();
    rules.supervision.watchdog_ms = Some(300);
    rules.supervision.health = Some(HealthCheck { restart: true, retries: 1, ..check() });
    (rules.stop_grace_ms, rules.restart) = (10_000, Restart::OnFailure(Some(0)));
    let leaving = |rules: &Rules| {
        let mut s = launched(vec![rules.clone()]);
        s.step(Event::Executed(0), 0);
        s.step(Event::Ready(0), 0);
        s.step(Event::Leaving(0), 200);
        s
    };
    // Neither its silence nor its health counts any more, and an end by itself is one.
    let mut s = leaving(&rules);
    assert_eq!(s.step(Event::Tick, 10_199), []);
    s.step(Event::Exited(0, OK), 10_199);
    assert_eq!((phase(&s, 0), s.units()[0].completed), (Phase::Exited, true));
    // It has as long as when it is asked to stop, and may ask for more, but not for ever.
    let mut s = leaving(&rules);
    s.step(Event::ExtendTimeout(0, u64::MAX), 300);
    assert_eq!(s.step(Event::Tick, 130_199), []);
    assert_eq!(s.step(Event::Tick, 130_200), [Action::Kill(0)]);
    s.step(Event::Exited(0, Exit::Signal(9)), 130_201);
    assert_eq!((phase(&s, 0), &s.units()[0].reason), (Phase::Failed, &Reason::Lingered));
    // The control: one that has no time for that is watched as before.
    rules.stop_grace_ms = 0;
    assert_eq!(leaving(&rules).step(Event::Tick, 300), [Action::Kill(0)]);
}

#[test]
fn healthy_is_who_answered_well() {
    let mut s = launched(vec![checked(check(), Restart::No), rules(Restart::No, &[(0, Condition::Healthy)])]);
    s.step(Event::Executed(0), 0);
    let mut now = 0;
    assert_eq!((health(&s), s.as_declared(0, 900_000)), (Health::Starting, false));
    assert_eq!(answer(&mut s, &mut now, bad("a")), []);
    assert_eq!((now, health(&s)), (1_000, Health::Starting));
    assert_eq!(answer(&mut s, &mut now, Ok(())), [Action::Launch(1)]);
    assert_eq!((now, health(&s), s.as_declared(0, now)), (2_000, Health::Healthy, true));
    // In a row.
    for good in [false, false, true, false, false] {
        answer(&mut s, &mut now, if good { Ok(()) } else { bad("b") });
        assert_eq!(health(&s), Health::Healthy);
    }
    answer(&mut s, &mut now, bad("last"));
    assert_eq!((health(&s), &s.units()[0].reason), (Health::Unhealthy, &Reason::Unhealthy("last".into())));
    assert!(matches!(phase(&s, 0), Phase::Running { .. }) && !s.as_declared(0, now));
    answer(&mut s, &mut now, Ok(()));
    assert_eq!((health(&s), &s.units()[0].reason), (Health::Healthy, &Reason::None));
}

#[test]
fn bad_answers_do_not_count_while_it_starts_up() {
    let check = HealthCheck { start_period_ms: 1_000, retries: 1, ..check() };
    let mut s = launched(vec![checked(check.clone(), Restart::No)]);
    s.step(Event::Executed(0), 0);
    let mut now = 0;
    for n in 1..10 {
        answer(&mut s, &mut now, bad("x"));
        assert_eq!((now, health(&s)), (n * 100, Health::Starting));
    }
    answer(&mut s, &mut now, bad("x"));
    assert_eq!((now, health(&s)), (1_000, Health::Unhealthy));
    assert_eq!(s.units()[0].watch.probe_at, Some(2_000));

    // A good one ends that time.
    let mut s = launched(vec![checked(check, Restart::No)]);
    s.step(Event::Executed(0), 0);
    answer(&mut s, &mut now, Ok(()));
    assert_eq!(s.units()[0].watch.probe_at, Some(1_100));
    answer(&mut s, &mut now, bad("x"));
    assert_eq!(health(&s), Health::Unhealthy);
}

#[test]
fn the_unhealthy_are_stopped_and_have_failed() {
    let check = HealthCheck { restart: true, retries: 1, ..check() };
    let mut s = launched(vec![checked(check, Restart::OnFailure(Some(1)))]);
    s.step(Event::Executed(0), 0);
    let mut now = 0;
    assert_eq!(answer(&mut s, &mut now, bad("no")), [Action::Stop(0)]);
    s.step(Event::Exited(0, OK), now + 1);
    assert_eq!((s.units()[0].failures, &s.units()[0].reason), (1, &Reason::Unhealthy("no".into())));
    let (_, actions) = wait_out(&mut s, 0, now + 1);
    assert_eq!(actions, [Action::Launch(0)]);
}

/// However long it takes to find out that it doesn't work: only the time in which it did makes up for failures.
#[test]
fn who_never_works_is_given_up_however_long_it_runs() {
    let check = HealthCheck { restart: true, interval_ms: 30_000, ..check() };
    let stable = Policy::default().stable_ms;
    let ends = |works: bool| {
        let mut s = launched(vec![checked(check.clone(), Restart::OnFailure(Some(1)))]);
        let (mut now, mut ends) = (0, 0);
        s.step(Event::Executed(0), now);
        while !phase(&s, 0).last() && ends < 5 {
            let begun = now;
            if works {
                answer(&mut s, &mut now, Ok(()));
                assert!(now - begun >= stable);
            }
            while !matches!(phase(&s, 0), Phase::Stopping { .. }) {
                answer(&mut s, &mut now, bad("no"));
            }
            s.step(Event::Exited(0, OK), now);
            ends += 1;
            if matches!(phase(&s, 0), Phase::Backoff { .. }) {
                now += wait_out(&mut s, 0, now).0;
                up(&mut s, 0, now);
            }
        }
        ends
    };
    assert_eq!(ends(false), 2);
    assert_eq!(ends(true), 5, "one that works for a while is started again and again");
}

#[test]
fn who_never_says_that_it_is_alive_is_given_up() {
    let mut rules = notifying();
    (rules.supervision.watchdog_ms, rules.restart) = (Some(20_000), Restart::OnFailure(Some(1)));
    let ended = |alive: bool| {
        let mut s = launched(vec![rules.clone()]);
        let mut now = 0;
        for second in [false, true] {
            if second {
                now += wait_out(&mut s, 0, now).0;
                s.step(Event::Launched(0), now);
            }
            s.step(Event::Executed(0), now);
            s.step(Event::Ready(0), now);
            if alive {
                now += 15_000;
                s.step(Event::Alive(0), now);
            }
            now += 20_000;
            assert_eq!(s.step(Event::Tick, now), [Action::Kill(0)]);
            s.step(Event::Exited(0, Exit::Signal(9)), now);
        }
        phase(&s, 0)
    };
    assert_eq!(ended(false), Phase::Failed);
    assert!(matches!(ended(true), Phase::Backoff { .. }), "one that said so for a while has begun anew");
}

#[test]
fn answers_of_another_run_and_lost_ones_change_nothing() {
    let check = HealthCheck { restart: true, retries: 1, ..check() };
    let mut s = launched(vec![checked(check, Restart::Always)]);
    s.step(Event::Executed(0), 0);
    assert_eq!(s.step(Event::Probed(0, 1, bad("nobody asked")), 10), []);
    assert_eq!(s.step(Event::Tick, 1_000), [Action::Probe(0)]);
    assert_eq!(s.step(Event::Tick, 90_000), [], "never two at once");
    let run = s.run(0);
    s.step(Event::Exited(0, BAD), 90_001);
    let (delay, _) = wait_out(&mut s, 0, 90_001);
    let now = 90_001 + delay;
    up(&mut s, 0, now);
    assert_eq!(s.step(Event::Tick, now + 1_000), [Action::Probe(0)]);
    assert_eq!(s.step(Event::Probed(0, run, bad("late")), now + 1_001), []);
    assert!(s.probing(0));
    assert_eq!(s.step(Event::ProbeLost(0, s.run(0)), now + 1_100), []);
    assert_eq!((s.probing(0), health(&s), s.next_deadline(now + 1_100)), (false, Health::Starting, Some(now + 2_100)));
}

#[test]
fn texts_are_cut() {
    let mut s = alone(Restart::No);
    s.step(Event::Begin, 0);
    s.step(Event::LaunchFailed(0, Fault { text: "é".repeat(1000), transient: false }), 0);
    let Reason::Launch(text) = &s.units()[0].reason else { panic!() };
    assert_eq!(text.len(), LONGEST_TEXT);
}

#[test]
fn the_time_in_which_nobody_listens_does_not_count() {
    let supervision = Supervision { notify: true, watchdog_ms: Some(400), ..Supervision::default() };
    let mut s = launched(vec![Rules { supervision, ..rules(Restart::Always, &[]) }]);
    s.step(Event::Executed(0), 0);
    s.step(Event::Unheard(0, 900), 0);
    s.step(Event::Ready(0), 0);
    assert_eq!(s.next_deadline(300), Some(400), "before it runs nothing counts");
    s.step(Event::Unheard(0, 500), 300);
    assert_eq!((s.too_late(899), s.too_late(900)), (vec![], vec![0]));
    // Once, until it says that it is alive.
    s.step(Event::Unheard(0, 500), 400);
    assert_eq!(s.too_late(900), [0]);
    s.step(Event::Alive(0), 450);
    s.step(Event::Unheard(0, 50), 460);
    assert_eq!(s.step(Event::Tick, 899), []);
    assert_eq!(s.step(Event::Tick, 900), [Action::Kill(0)]);
}
