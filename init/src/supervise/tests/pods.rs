//! Containers that start and stop together.

use super::*;

fn member(restart: Restart, needs: &[(usize, Condition)]) -> Rules {
    Rules { pod: Some(0), ..rules(restart, needs) }
}

/// 1 and 2 are a pod; 2 depends on 1, 3 on 2, and 2 on 0.
fn four(restart: Restart) -> State {
    machine(vec![
        rules(restart, &[]),
        member(restart, &[]),
        member(restart, &[(0, Condition::Started), (1, Condition::Started)]),
        rules(restart, &[(2, Condition::Started)]),
    ])
}

fn all_up(restart: Restart) -> State {
    let mut s = four(restart);
    s.step(Event::Begin, 0);
    (0..4).for_each(|index| drop(up(&mut s, index, 0)));
    s
}

#[test]
fn a_pod_starts_when_all_of_it_can() {
    let mut s = four(Restart::Always);
    assert_eq!(s.step(Event::Begin, 0), [Action::Launch(0)], "1 waits for what 2 waits for");
    assert_eq!(up(&mut s, 0, 1), [Action::Launch(1)]);
    assert_eq!(up(&mut s, 1, 2), [Action::Launch(2)], "and within, each for its own");
    assert_eq!(up(&mut s, 2, 3), [Action::Launch(3)]);
}

#[test]
fn one_that_restarts_disturbs_nobody() {
    let mut s = all_up(Restart::Always);
    assert_eq!(s.step(Event::Exited(1, BAD), 1), []);
    assert_eq!(wait_out(&mut s, 1, 1).1, [Action::Launch(1)]);
    assert!(matches!(phase(&s, 2), Phase::Running { .. }));
}

#[test]
fn a_pod_stops_in_one_breath_at_shutdown() {
    let mut s = all_up(Restart::Always);
    assert_eq!(s.step(Event::Shutdown(Goal::Halt), 1), [Action::Stop(3)]);
    assert_eq!(s.step(Event::Exited(3, OK), 2), [Action::Stop(2), Action::Stop(1)]);
    assert_eq!(s.step(Event::Exited(1, OK), 3), []);
    assert_eq!(s.step(Event::Exited(2, OK), 4), [Action::Stop(0)]);
    assert_eq!(s.step(Event::Exited(0, OK), 5), [Action::Finish(Goal::Halt)]);
}

#[test]
fn pods_that_depend_on_each_other_stop_all_the_same() {
    // 0 and 2 are a pod, 1 and 3 another; 1 depends on 0 and 2 on 1.
    let pod = |pod, needs: &[_]| Rules { pod: Some(pod), ..rules(Restart::No, needs) };
    let on = |index| [(index, Condition::Started)];
    let units = vec![Unit { phase: Phase::Running { since: 0 }, ..Unit::new() }; 4];
    let rules = vec![pod(0, &[]), pod(1, &on(0)), pod(0, &on(1)), pod(1, &on(2))];
    let common = Common { begun: true, ..alone(Restart::No).common().clone() };
    let mut s = State::resume(rules, Policy::default(), units, common);
    assert_eq!(s.step(Event::Shutdown(Goal::Halt), 1), [Action::Stop(3)]);
    assert_eq!(s.step(Event::Exited(3, OK), 2), [Action::Stop(2)]);
    assert_eq!(s.step(Event::Exited(2, OK), 2), [Action::Stop(1)]);
    assert_eq!(s.step(Event::Exited(1, OK), 2), [Action::Stop(0)]);
}

#[test]
fn asking_one_member_asks_all() {
    let mut s = all_up(Restart::Always);
    assert_eq!(s.step(Event::StopAsked(1), 1), [Action::Stop(2), Action::Stop(1)]);
    s.step(Event::Exited(1, OK), 2);
    s.step(Event::Exited(2, OK), 2);
    assert_eq!([phase(&s, 1), phase(&s, 2)], [Phase::Exited; 2]);
    assert_eq!(s.step(Event::StartAsked(2), 3), [Action::Launch(1)], "in order again");
    assert_eq!(up(&mut s, 1, 4), [Action::Launch(2)]);
    up(&mut s, 2, 5);
    assert_eq!(s.step(Event::RestartAsked(2), 6), [Action::Stop(2), Action::Stop(1)]);
    assert_eq!(s.step(Event::Exited(1, OK), 7), [], "together");
    assert_eq!(s.step(Event::Exited(2, OK), 8), [Action::Launch(1)]);
    assert_eq!(up(&mut s, 1, 9), [Action::Launch(2)]);
}

#[test]
fn one_that_is_given_up_takes_the_others_down() {
    let mut s = all_up(Restart::No);
    assert_eq!(s.step(Event::Exited(2, BAD), 1), [Action::Stop(1)]);
    s.step(Event::Exited(1, OK), 2);
    assert_eq!([phase(&s, 1), phase(&s, 2)], [Phase::Failed; 2]);
    assert_eq!([&s.units()[1].reason, &s.units()[2].reason], [&Reason::Pod(2), &Reason::Ended]);
    assert!(matches!(phase(&s, 3), Phase::Running { .. }));
    assert_eq!(s.step(Event::StartAsked(1), 3), [Action::Launch(1)]);

    // Also before it was ever started, and those who waited for it.
    let mut s = four(Restart::No);
    s.step(Event::Begin, 0);
    s.step(Event::LaunchFailed(0, Fault { text: "x".into(), transient: false }), 1);
    assert_eq!([1, 2, 3].map(|index| phase(&s, index)), [Phase::Failed; 3]);
    assert_eq!([1, 2, 3].map(|i| s.units()[i].reason.clone()), [Reason::Pod(2), Reason::Need(0), Reason::Need(0)]);
}

#[test]
fn who_waited_for_a_member_that_went_down_is_told() {
    // 0 and 2 are a pod; 1 waits for 0 and 2 for what fails.
    let mut s = machine(vec![
        member(Restart::No, &[]),
        rules(Restart::No, &[(0, Condition::Started)]),
        Rules { needs_data: true, ..member(Restart::No, &[]) },
    ]);
    s.step(Event::Begin, 0);
    assert_eq!(s.step(Event::DataUnavailable("no disk".into()), 1), []);
    assert_eq!([0, 1, 2].map(|index| phase(&s, index)), [Phase::Failed; 3]);
}

#[test]
fn one_that_failed_too_often_and_is_never_given_up_goes_down_with_its_pod() {
    let mut forever = member(Restart::OnFailure(Some(0)), &[]);
    forever.supervision.on_failure = OnFailure::Restart;
    let mut s = machine(vec![forever, member(Restart::No, &[])]);
    s.step(Event::Begin, 0);
    (0..2).for_each(|index| drop(up(&mut s, index, 0)));
    s.step(Event::Exited(0, BAD), 1);
    assert!(matches!(phase(&s, 0), Phase::Backoff { .. }));
    s.step(Event::Exited(1, BAD), 2);
    assert_eq!((phase(&s, 0), &s.units()[0].reason), (Phase::Failed, &Reason::Pod(1)));
    assert_eq!(s.attempts_used(0), None, "that is not what it failed of");
}
