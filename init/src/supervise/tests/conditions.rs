//! What a container waits for before its first start.

use super::*;

#[test]
fn started_is_remembered() {
    let mut s = machine(vec![rules(Restart::No, &[]), rules(Restart::No, &[(0, Condition::Started)])]);
    assert_eq!(s.step(Event::Begin, 0), [Action::Launch(0)]);
    assert_eq!(s.step(Event::Launched(0), 0), []);
    assert_eq!(s.step(Event::Executed(0), 1), [Action::Launch(1)]);
}

#[test]
fn completed_waits_for_status_0() {
    let mut s = machine(vec![rules(Restart::OnFailure(None), &[]), rules(Restart::No, &[(0, Condition::Completed)])]);
    s.step(Event::Begin, 0);
    assert_eq!(up(&mut s, 0, 0), []);
    assert_eq!(s.step(Event::Exited(0, BAD), 1), []);
    let (delay, _) = wait_out(&mut s, 0, 1);
    up(&mut s, 0, 1 + delay);
    assert_eq!(s.step(Event::Exited(0, OK), 500), [Action::Launch(1)]);
}

#[test]
fn healthy_wants_it_running_at_that_moment() {
    // 2 needs 0 started (it did) and 1 healthy.
    let needs = [(0, Condition::Healthy), (1, Condition::Started)];
    let mut s = machine(vec![rules(Restart::Always, &[]), rules(Restart::No, &[]), rules(Restart::No, &needs)]);
    assert_eq!(s.step(Event::Begin, 0), [Action::Launch(0), Action::Launch(1)]);
    assert_eq!(up(&mut s, 0, 0), []);
    s.step(Event::Exited(0, BAD), 1);
    assert_eq!(up(&mut s, 1, 1), [], "0 is not running now");
    let (delay, _) = wait_out(&mut s, 0, 1);
    assert_eq!(up(&mut s, 0, 1 + delay), [Action::Launch(2)]);
}

#[test]
fn a_failure_is_carried_on_to_dependents_of_dependents() {
    for condition in [Condition::Started, Condition::Healthy, Condition::Completed] {
        let mut s = machine(vec![
            rules(Restart::No, &[]),
            rules(Restart::Always, &[(0, condition)]),
            rules(Restart::Always, &[(1, Condition::Started)]),
            rules(Restart::Always, &[]),
        ]);
        s.step(Event::Begin, 0);
        s.step(Event::Launched(0), 0);
        s.step(Event::SetupFailed(0, Fault { text: "x".into(), transient: false }), 0);
        s.step(Event::Exited(0, BAD), 0);
        assert_eq!([phase(&s, 0), phase(&s, 1), phase(&s, 2)], [Phase::Failed; 3]);
        assert_eq!([&s.units()[1].reason, &s.units()[2].reason], [&Reason::Need(0); 2]);
        assert_eq!(phase(&s, 3), Phase::Launching);
    }
}

#[test]
fn data_is_waited_for_by_those_who_need_it() {
    let data = Rules { needs_data: true, ..rules(Restart::Always, &[]) };
    let mut s = machine(vec![data.clone(), rules(Restart::Always, &[])]);
    assert_eq!(s.step(Event::Begin, 0), [Action::Launch(1)]);
    assert_eq!(s.step(Event::DataReady, 5), [Action::Launch(0)]);

    let mut s = machine(vec![data]);
    s.step(Event::Begin, 0);
    assert_eq!(s.step(Event::DataUnavailable("no disk".into()), 5), []);
    assert_eq!((phase(&s, 0), &s.units()[0].reason), (Phase::Failed, &Reason::Data("no disk".into())));
}

#[test]
fn who_may_have_been_stopped_before_waits_until_that_is_known() {
    let record = Rules { needs_record: true, ..rules(Restart::UnlessStopped, &[]) };
    for answer in [Event::DataReady, Event::DataUnavailable("no disk".into())] {
        let mut s = machine(vec![record.clone(), rules(Restart::UnlessStopped, &[])]);
        assert_eq!(s.step(Event::Begin, 0), [Action::Launch(1)]);
        assert_eq!(s.step(answer.clone(), 5), [Action::Launch(0)]);
        // One that was.
        let mut s = machine(vec![record.clone()]);
        s.step(Event::Begin, 0);
        assert_eq!(s.step(Event::StopAsked(0), 4), []);
        assert_eq!(s.step(answer, 5), []);
        assert_eq!((phase(&s, 0), &s.units()[0].reason), (Phase::Exited, &Reason::Asked));
        assert_eq!(s.step(Event::StartAsked(0), 6), [Action::Launch(0)]);
    }
}

#[test]
fn devices_are_waited_for_by_those_who_need_them() {
    let devices = Rules { needs_devices: true, ..rules(Restart::Always, &[]) };
    let both = Rules { needs_data: true, ..devices.clone() };
    let mut s = machine(vec![devices, rules(Restart::Always, &[]), both]);
    assert_eq!(s.step(Event::Begin, 0), [Action::Launch(1)]);
    assert_eq!(s.step(Event::DevicesReady, 5), [Action::Launch(0)]);
    assert_eq!(s.step(Event::DataReady, 6), [Action::Launch(2)]);
}
