//! Each rule by itself.

mod conditions;
mod operator;
mod pods;
mod shutdown;
mod table;
mod watched;

use garboard_runtime::plan::{Condition, OnFailure, Restart, Supervision};

use super::*;

const OK: Exit = Exit::Code(0);
const BAD: Exit = Exit::Code(1);

pub(super) fn rules(restart: Restart, needs: &[(usize, Condition)]) -> Rules {
    let needs = needs.iter().map(|(on, condition)| Need { on: *on, condition: *condition }).collect();
    Rules {
        restart,
        needs,
        stop_grace_ms: 10_000,
        needs_data: false,
        needs_record: false,
        needs_devices: false,
        supervision: Supervision::default(),
        pod: None,
    }
}

fn alone(restart: Restart) -> State {
    machine(vec![rules(restart, &[])])
}

fn machine(rules: Vec<Rules>) -> State {
    State::new(rules, Policy::default(), 1)
}

/// Begins, and brings container 0 up at time 0.
fn running(restart: Restart) -> State {
    let mut s = alone(restart);
    assert_eq!(s.step(Event::Begin, 0), [Action::Launch(0)]);
    up(&mut s, 0, 0);
    s
}

fn up(s: &mut State, index: usize, now: u64) -> Vec<Action> {
    assert_eq!(s.step(Event::Launched(index), now), []);
    s.step(Event::Executed(index), now)
}

fn phase(s: &State, index: usize) -> Phase {
    s.units()[index].phase
}

/// Lets the delay of container `index` pass; the delay, and what the tick asked for.
fn wait_out(s: &mut State, index: usize, now: u64) -> (u64, Vec<Action>) {
    let Phase::Backoff { until } = phase(s, index) else { panic!("{:?}", phase(s, index)) };
    assert_eq!(s.next_deadline(now), Some(until));
    assert_eq!(s.step(Event::Tick, until - 1), []);
    let actions = s.step(Event::Tick, until);
    (until - now, actions)
}

#[test]
fn no_means_once() {
    for (exit, last) in [(OK, Phase::Exited), (BAD, Phase::Failed), (Exit::Signal(9), Phase::Failed)] {
        let mut s = running(Restart::No);
        assert_eq!(s.step(Event::Exited(0, exit), 50), []);
        assert_eq!((phase(&s, 0), s.units()[0].exit), (last, Some(exit)));
        assert_eq!(s.as_declared(0, 50), exit.success());
        assert_eq!(s.next_deadline(50), None);
    }
}

#[test]
fn always_and_unless_stopped_start_again_even_after_success() {
    for restart in [Restart::Always, Restart::UnlessStopped] {
        for exit in [OK, BAD, Exit::Signal(11)] {
            let mut s = running(restart);
            assert_eq!(s.step(Event::Exited(0, exit), 50), []);
            let (delay, actions) = wait_out(&mut s, 0, 50);
            assert!((75..=100).contains(&delay), "{delay}");
            assert_eq!(actions, [Action::Launch(0)]);
            assert_eq!((s.units()[0].restarts, s.units()[0].exit), (1, Some(exit)));
        }
    }
}

#[test]
fn on_failure_rests_after_success() {
    let mut s = running(Restart::OnFailure(None));
    s.step(Event::Exited(0, OK), 50);
    assert_eq!(phase(&s, 0), Phase::Exited);
    assert!(s.ready(50));
}

#[test]
fn on_failure_with_a_limit_gives_up_after_so_many_restarts() {
    let mut s = running(Restart::OnFailure(Some(2)));
    let mut now = 1;
    for restart in 1..=2 {
        s.step(Event::Exited(0, BAD), now);
        now += wait_out(&mut s, 0, now).0;
        up(&mut s, 0, now);
        assert_eq!(s.units()[0].restarts, restart);
    }
    assert_eq!(s.attempts_used(0), None);
    s.step(Event::Exited(0, BAD), now);
    assert_eq!((phase(&s, 0), &s.units()[0].reason, s.attempts_used(0)), (Phase::Failed, &Reason::Ended, Some(2)));
}

#[test]
fn the_attempts_of_a_row_are_told_whatever_it_failed_of() {
    let fault = || Fault { text: "exec /bin/x: ENOENT".into(), transient: false };
    let mut s = running(Restart::OnFailure(Some(2)));
    let mut now = 0;
    // Three ends that a long run makes forgotten: they are restarts, but none of this row.
    for _ in 0..3 {
        now += 10_000;
        s.step(Event::Exited(0, BAD), now);
        now += wait_out(&mut s, 0, now).0;
        up(&mut s, 0, now);
    }
    now += 10_000;
    s.step(Event::Exited(0, BAD), now);
    for _ in 0..2 {
        assert_eq!(s.attempts_used(0), None);
        now += wait_out(&mut s, 0, now).0;
        s.step(Event::LaunchFailed(0, fault()), now);
    }
    assert_eq!((phase(&s, 0), &s.units()[0].reason), (Phase::Failed, &Reason::Launch(fault().text)));
    assert_eq!(s.attempts_used(0), Some(2));
    // The controls: one that has none, and one that a person starts anew.
    let mut once = running(Restart::No);
    once.step(Event::Exited(0, BAD), 50);
    assert_eq!((phase(&once, 0), once.attempts_used(0)), (Phase::Failed, None));
    s.step(Event::StartAsked(0), now);
    assert_eq!(s.attempts_used(0), None);
}

#[test]
fn a_stable_run_starts_the_counts_over() {
    for (uptime, longest) in [(9_999, 400), (10_000, 100)] {
        let mut s = running(Restart::OnFailure(Some(9)));
        let mut now = 0;
        for _ in 0..2 {
            s.step(Event::Exited(0, BAD), now);
            now += wait_out(&mut s, 0, now).0;
            up(&mut s, 0, now);
        }
        now += uptime;
        s.step(Event::Exited(0, BAD), now);
        let (delay, _) = wait_out(&mut s, 0, now);
        assert!((longest * 3 / 4..=longest).contains(&delay), "{uptime} {delay}");
        assert_eq!(s.units()[0].failures, if uptime == 10_000 { 1 } else { 3 });
    }
}

#[test]
fn delays_grow_to_a_minute_and_stay_there() {
    let mut s = running(Restart::Always);
    let mut now = 0;
    let mut delays = Vec::new();
    for _ in 0..10_000 {
        s.step(Event::Exited(0, BAD), now);
        let (delay, _) = wait_out(&mut s, 0, now);
        delays.push(delay);
        now += delay;
        up(&mut s, 0, now);
    }
    assert!(delays[0] <= 100 && delays[5] >= 2400 && delays[1000..].iter().all(|d| (45_000..=60_000).contains(d)));
    assert_eq!(s.units()[0].restarts, 10_000);
}

#[test]
fn want_of_resources_is_retried_whatever_the_policy() {
    let fault = |transient| Fault { text: "clone3: EAGAIN".into(), transient };
    let mut s = alone(Restart::No);
    s.step(Event::Begin, 0);
    let mut now = 0;
    for _ in 0..50 {
        s.step(Event::LaunchFailed(0, fault(true)), now);
        assert_eq!(s.units()[0].reason, Reason::Launch("clone3: EAGAIN".into()));
        now += wait_out(&mut s, 0, now).0;
    }
    up(&mut s, 0, now);
    assert_eq!((s.units()[0].failures, &s.units()[0].reason), (0, &Reason::None));

    let mut s = alone(Restart::No);
    s.step(Event::Begin, 0);
    s.step(Event::LaunchFailed(0, fault(false)), 0);
    assert_eq!(phase(&s, 0), Phase::Failed);
}

#[test]
fn a_failed_setup_counts_as_a_failure_with_its_reason() {
    let mut s = alone(Restart::OnFailure(Some(0)));
    s.step(Event::Begin, 0);
    s.step(Event::Launched(0), 0);
    s.step(Event::SetupFailed(0, Fault { text: "exec /bin/x: ENOENT".into(), transient: false }), 1);
    // Were it executed after all, the report was first.
    s.step(Event::Executed(0), 1);
    s.step(Event::Exited(0, OK), 2);
    assert_eq!((phase(&s, 0), &s.units()[0].reason), (Phase::Failed, &Reason::Launch("exec /bin/x: ENOENT".into())));
    assert!(!s.units()[0].started && !s.units()[0].completed);
}

#[test]
fn a_child_that_ends_without_a_word_did_not_start() {
    let mut s = alone(Restart::No);
    s.step(Event::Begin, 0);
    s.step(Event::Launched(0), 0);
    s.step(Event::Exited(0, OK), 2);
    assert_eq!(phase(&s, 0), Phase::Failed);
    assert!(!s.units()[0].started);
}

#[test]
fn a_start_that_takes_too_long_is_killed() {
    let mut s = alone(Restart::No);
    s.step(Event::Begin, 0);
    s.step(Event::Launched(0), 5);
    assert_eq!(s.next_deadline(5), Some(60_005));
    assert_eq!(s.step(Event::Tick, 60_005), [Action::Kill(0)]);
    assert_eq!(s.step(Event::Tick, 62_005), [Action::Kill(0)]);
    s.step(Event::Exited(0, Exit::Signal(9)), 62_010);
    assert_eq!(s.units()[0].reason, Reason::Launch("its program was not executed within 60 s".into()));
}

#[test]
fn ready_waits_until_a_start_has_settled() {
    let mut s = running(Restart::Always);
    assert_eq!(
        (s.ready(999), s.next_deadline(0), s.ready(1000), s.next_deadline(1000)),
        (false, Some(1000), true, None)
    );
    s.step(Event::Exited(0, BAD), 2000);
    assert!(!s.ready(2000));
    let (delay, _) = wait_out(&mut s, 0, 2000);
    up(&mut s, 0, 2000 + delay);
    assert!(!s.ready(2000 + delay + 2_999) && s.ready(2000 + delay + 3000));
}

#[test]
fn who_is_never_given_up_is_started_as_rarely_as_can_be() {
    for restart in [Restart::No, Restart::OnFailure(Some(1))] {
        let supervision = Supervision { on_failure: OnFailure::Restart, ..Supervision::default() };
        let mut s = machine(vec![Rules { supervision, ..rules(restart, &[]) }]);
        s.step(Event::Begin, 0);
        let mut now = 0;
        for n in 0..5 {
            up(&mut s, 0, now);
            s.step(Event::Exited(0, BAD), now);
            let (delay, actions) = wait_out(&mut s, 0, now);
            let policy_s_own = n == 0 && restart != Restart::No;
            assert_eq!((45_000..=60_000).contains(&delay), !policy_s_own, "{delay}");
            assert_eq!(actions, [Action::Launch(0)]);
            now += delay;
        }
    }
    // What it waits for may come.
    let supervision = Supervision { on_failure: OnFailure::Restart, ..Supervision::default() };
    let dependent = Rules { supervision, ..rules(Restart::No, &[(0, Condition::Started)]) };
    let mut s = machine(vec![rules(Restart::No, &[]), dependent]);
    s.step(Event::Begin, 0);
    s.step(Event::LaunchFailed(0, Fault { text: "x".into(), transient: false }), 0);
    assert_eq!([phase(&s, 0), phase(&s, 1)], [Phase::Failed, Phase::Waiting]);
    assert_eq!(s.step(Event::StartAsked(0), 1), [Action::Launch(0)]);
    assert_eq!(up(&mut s, 0, 2), [Action::Launch(1)]);
}

#[test]
fn a_machine_that_is_nothing_without_it_ends_with_it() {
    for (on_failure, goal) in [(OnFailure::Reboot, Goal::Reboot), (OnFailure::PowerOff, Goal::PowerOff)] {
        let supervision = Supervision { on_failure, ..Supervision::default() };
        // The second one can never start when the first one fails.
        for failing in 0..2 {
            let plain = rules(Restart::No, &[]);
            let mut all = vec![plain.clone(), rules(Restart::No, &[(0, Condition::Completed)]), plain];
            all[failing].supervision = supervision.clone();
            let mut s = machine(all);
            s.step(Event::Begin, 0);
            up(&mut s, 0, 0);
            up(&mut s, 2, 0);
            assert_eq!(s.step(Event::Exited(0, BAD), 1), [Action::Stop(2)]);
            assert_eq!((s.common().goal, s.common().because), (Some(goal), Some(failing)));
            assert_eq!(phase(&s, failing), Phase::Failed);
            assert_eq!(s.step(Event::Exited(2, OK), 2), [Action::Finish(goal)]);
        }
    }
}

#[test]
fn what_could_not_be_killed_is_never_there_twice() {
    let mut s = running(Restart::Always);
    s.step(Event::StopAsked(0), 0);
    for at in [10_000, 12_000, 14_000] {
        assert_eq!(s.step(Event::Tick, at), [Action::Kill(0)]);
    }
    assert_eq!(s.step(Event::Tick, 16_000), []);
    // Who wanted it stopped still does: it stays so over a boot, and who waits for it goes on waiting.
    assert_eq!((phase(&s, 0), &s.units()[0].reason, s.units()[0].lingers), (Phase::Exited, &Reason::Asked, true));
    assert_eq!(s.next_deadline(16_000), None);
    assert_eq!(s.step(Event::StartAsked(0), 20_000), [], "it is still there");
    assert_eq!(s.step(Event::Exited(0, Exit::Signal(9)), 30_000), [Action::Launch(0)]);
}

#[test]
fn changes_are_told_once() {
    let mut s = machine(vec![rules(Restart::No, &[]); 3]);
    s.take_changed();
    s.step(Event::Begin, 0);
    assert_eq!(s.take_changed(), (vec![0, 1, 2], true));
    s.step(Event::Launched(1), 0);
    assert_eq!(s.take_changed(), (vec![1], false));
    s.step(Event::Tick, 0);
    assert_eq!(s.take_changed(), (vec![], false));
}

#[test]
fn what_was_kept_goes_on_as_before() {
    let mut s = running(Restart::Always);
    s.step(Event::Exited(0, BAD), 5);
    let bytes = postcard::to_stdvec(&s.units()[0]).unwrap();
    let unit: Unit = postcard::from_bytes(&bytes).unwrap();
    let mut again = State::resume(s.rules().to_vec(), Policy::default(), vec![unit], s.common().clone());
    assert_eq!(again.step(Event::Tick, 200), s.step(Event::Tick, 200));
    assert_eq!(again.units(), s.units());
}
