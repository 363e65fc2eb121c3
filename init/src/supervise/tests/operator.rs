//! What a person asks for.

use super::*;

fn exited(s: &mut State, index: usize, now: u64) -> Vec<Action> {
    s.step(Event::Exited(index, OK), now)
}

#[test]
fn who_was_stopped_by_hand_rests_until_asked() {
    for restart in [Restart::Always, Restart::UnlessStopped, Restart::No, Restart::OnFailure(None)] {
        let mut s = running(restart);
        assert_eq!(s.step(Event::StopAsked(0), 10), [Action::Stop(0)]);
        assert_eq!(s.step(Event::StopAsked(0), 11), [], "asked once");
        assert_eq!(exited(&mut s, 0, 20), []);
        assert_eq!((phase(&s, 0), &s.units()[0].reason), (Phase::Exited, &Reason::Asked));
        assert_eq!((s.next_deadline(20), s.as_declared(0, 20), s.units()[0].completed), (None, false, false));
        assert_eq!(s.step(Event::StartAsked(0), 1_000), [Action::Launch(0)]);
        assert_eq!(s.step(Event::StartAsked(0), 1_000), []);
        up(&mut s, 0, 1_001);
        assert_eq!(s.step(Event::StartAsked(0), 1_002), []);
    }
}

#[test]
fn a_stop_by_hand_has_an_end() {
    let mut s = running(Restart::Always);
    s.step(Event::StopAsked(0), 10);
    assert_eq!(s.step(Event::Tick, 10_010), [Action::Kill(0)]);
    exited(&mut s, 0, 10_011);
    assert_eq!((phase(&s, 0), &s.units()[0].reason), (Phase::Exited, &Reason::Asked));
}

#[test]
fn who_does_not_run_yet_need_not_be_stopped() {
    let mut s = machine(vec![rules(Restart::Always, &[]), rules(Restart::Always, &[(0, Condition::Started)])]);
    s.step(Event::Begin, 0);
    assert_eq!(s.step(Event::StopAsked(1), 1), []);
    assert_eq!(s.step(Event::StopAsked(0), 1), []);
    assert!(!s.wants_launch(0));
    assert_eq!([phase(&s, 0), phase(&s, 1)], [Phase::Exited; 2]);
    // It waits for what a person stopped, since a person may start it.
    assert_eq!(s.step(Event::StartAsked(1), 2), []);
    assert_eq!(phase(&s, 1), Phase::Waiting);
    assert_eq!(s.step(Event::StartAsked(0), 3), [Action::Launch(0)]);
    assert_eq!(up(&mut s, 0, 4), [Action::Launch(1)]);
}

#[test]
fn those_who_depend_on_a_stopped_one_are_left_alone() {
    let mut s = machine(vec![rules(Restart::Always, &[]), rules(Restart::Always, &[(0, Condition::Healthy)])]);
    s.step(Event::Begin, 0);
    up(&mut s, 0, 0);
    up(&mut s, 1, 0);
    assert_eq!(s.step(Event::StopAsked(0), 1), [Action::Stop(0)]);
    exited(&mut s, 0, 2);
    assert!(matches!(phase(&s, 1), Phase::Running { .. }));
    s.step(Event::Exited(1, BAD), 3);
    assert_eq!(wait_out(&mut s, 1, 3).1, [Action::Launch(1)]);
}

#[test]
fn a_start_by_hand_starts_the_counts_over() {
    let mut s = running(Restart::OnFailure(Some(1)));
    s.step(Event::Exited(0, BAD), 1);
    assert!(matches!(phase(&s, 0), Phase::Backoff { .. }));
    assert_eq!(s.step(Event::StartAsked(0), 2), [Action::Launch(0)]);
    assert_eq!((s.units()[0].streak, s.units()[0].failures, s.units()[0].restarts), (0, 0, 0));
    up(&mut s, 0, 2);
    s.step(Event::Exited(0, BAD), 3);
    let (delay, _) = wait_out(&mut s, 0, 3);
    up(&mut s, 0, 3 + delay);
    s.step(Event::Exited(0, BAD), 500);
    assert_eq!(phase(&s, 0), Phase::Failed);
    assert_eq!(s.step(Event::StartAsked(0), 600), [Action::Launch(0)]);
}

#[test]
fn a_restart_by_hand_is_no_failure() {
    let mut s = running(Restart::OnFailure(Some(0)));
    for now in [100, 200, 300] {
        assert_eq!(s.step(Event::RestartAsked(0), now), [Action::Stop(0)]);
        assert_eq!(s.step(Event::Exited(0, BAD), now + 1), [Action::Launch(0)]);
        assert_eq!((s.units()[0].streak, s.units()[0].failures), (0, 0));
        up(&mut s, 0, now + 2);
    }
    s.step(Event::Exited(0, BAD), 400);
    assert_eq!(phase(&s, 0), Phase::Failed);
    assert_eq!(s.step(Event::RestartAsked(0), 500), [Action::Launch(0)], "of one that rests it is a start");
}

#[test]
fn a_restart_looks_at_no_condition_again() {
    let mut s = machine(vec![rules(Restart::Always, &[]), rules(Restart::Always, &[(0, Condition::Healthy)])]);
    s.step(Event::Begin, 0);
    up(&mut s, 0, 0);
    up(&mut s, 1, 0);
    s.step(Event::Exited(0, BAD), 1);
    assert_eq!(s.step(Event::RestartAsked(1), 2), [Action::Stop(1)]);
    assert_eq!(exited(&mut s, 1, 3), [Action::Launch(1)]);
}

#[test]
fn the_last_word_counts() {
    let mut s = running(Restart::Always);
    assert_eq!(s.step(Event::RestartAsked(0), 1), [Action::Stop(0)]);
    assert_eq!(s.step(Event::StopAsked(0), 2), []);
    assert_eq!(s.step(Event::StartAsked(0), 3), []);
    assert_eq!(exited(&mut s, 0, 4), [Action::Launch(0)]);
    up(&mut s, 0, 5);
    s.step(Event::StopAsked(0), 6);
    s.step(Event::RestartAsked(0), 6);
    s.step(Event::StopAsked(0), 6);
    assert_eq!(exited(&mut s, 0, 7), []);
    assert_eq!(phase(&s, 0), Phase::Exited);
}

#[test]
fn nobody_is_heard_once_the_machine_is_stopping() {
    let mut s = machine(vec![rules(Restart::Always, &[]), rules(Restart::Always, &[])]);
    s.step(Event::Begin, 0);
    up(&mut s, 0, 0);
    s.step(Event::Shutdown(Goal::Reboot), 1);
    let before = s.units().to_vec();
    for index in 0..2 {
        for event in [Event::StopAsked(index), Event::StartAsked(index), Event::RestartAsked(index)] {
            assert_eq!(s.step(event, 2), []);
        }
    }
    assert_eq!(s.units(), before);
    assert_eq!(exited(&mut s, 0, 3), [Action::Finish(Goal::Reboot)]);
}
