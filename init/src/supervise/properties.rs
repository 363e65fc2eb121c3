//! Random machines, random events, a clock of their own: what must hold whatever happens.

use garboard_runtime::plan::{Condition, Restart};
use proptest::prelude::*;

use super::backoff::next_random;
use super::*;

/// The world as it really is, which the automaton only hears of.
struct World {
    state: State,
    seed: u64,
    now: u64,
    /// A child exists.
    alive: Vec<bool>,
    /// Its program was executed, in this run.
    executed: Vec<bool>,
    ever_executed: Vec<bool>,
    ever_launched: Vec<bool>,
    completed: Vec<bool>,
    ended_at: Vec<Option<u64>>,
    data: bool,
    devices: bool,
    queue: Vec<Action>,
    finished: u32,
    shutdown: bool,
    stopped: Vec<bool>,
}

fn restart() -> impl Strategy<Value = Restart> {
    prop_oneof![
        Just(Restart::No),
        Just(Restart::Always),
        Just(Restart::UnlessStopped),
        proptest::option::of(0..4u32).prop_map(Restart::OnFailure)
    ]
}

fn machine() -> impl Strategy<Value = Vec<Rules>> {
    let condition = prop_oneof![Just(Condition::Started), Just(Condition::Healthy), Just(Condition::Completed)];
    let one = (
        restart(),
        proptest::collection::vec((any::<prop::sample::Index>(), condition), 0..3),
        prop_oneof![Just(0_u64), 1..20_000_u64],
        any::<bool>(),
        any::<bool>(),
    );
    proptest::collection::vec(one, 0..8).prop_map(|all| {
        let one = |(i, (restart, needs, stop_grace_ms, needs_data, needs_devices)): (
            usize,
            (_, Vec<(prop::sample::Index, _)>, _, _, _),
        )| {
            let needs =
                needs.iter().filter(|_| i > 0).map(|(on, condition)| Need { on: on.index(i), condition: *condition });
            Rules { restart, needs: needs.collect(), stop_grace_ms, needs_data, needs_devices }
        };
        all.into_iter().enumerate().map(one).collect()
    })
}

impl World {
    fn new(rules: Vec<Rules>, seed: u64) -> Self {
        let n = rules.len();
        Self {
            state: State::new(rules, Policy::default(), seed),
            seed,
            now: 1000,
            alive: vec![false; n],
            executed: vec![false; n],
            ever_executed: vec![false; n],
            ever_launched: vec![false; n],
            completed: vec![false; n],
            ended_at: vec![None; n],
            data: false,
            devices: false,
            queue: Vec::new(),
            finished: 0,
            shutdown: false,
            stopped: vec![false; n],
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        next_random(&mut self.seed) % below
    }

    fn tell(&mut self, event: Event) {
        let actions = self.state.step(event, self.now);
        for action in &actions {
            self.check(*action);
        }
        self.queue.extend(actions);
    }

    /// Invariants at the moment an action is issued.
    fn check(&mut self, action: Action) {
        match action {
            Action::Launch(i) => {
                assert!(!self.shutdown, "launch {i} during shutdown");
                assert!(!self.alive[i], "two instances of {i}");
                let rules = &self.state.rules()[i];
                assert!(!rules.needs_data || self.data, "{i} without data");
                assert!(!rules.needs_devices || self.devices, "{i} without devices");
                if !self.ever_launched[i] {
                    for need in &rules.needs {
                        let met = match need.condition {
                            Condition::Started => self.ever_executed[need.on],
                            Condition::Healthy => self.alive[need.on] && self.executed[need.on],
                            Condition::Completed => self.completed[need.on],
                        };
                        assert!(met, "{i} before {need:?}");
                    }
                }
                if let Some(ended) = self.ended_at[i] {
                    assert!((75..=65_000).contains(&(self.now - ended)), "delay of {}", self.now - ended);
                }
                self.ever_launched[i] = true;
            }
            Action::Stop(i) => {
                assert!(self.shutdown && self.alive[i]);
                for (j, rules) in self.state.rules().iter().enumerate() {
                    // One that survives every attempt to kill it is not waited for.
                    let waits = self.alive[j] && self.state.units()[j].reason != Reason::Unkillable;
                    assert!(!waits || !rules.needs.iter().any(|n| n.on == i), "{i} stopped before its dependent {j}");
                }
                assert!(!std::mem::replace(&mut self.stopped[i], true), "{i} asked to stop twice");
            }
            Action::Kill(_) => {}
            Action::Finish(_) => {
                assert!(self.shutdown);
                self.finished += 1;
            }
        }
    }

    /// Carries out what is queued; launches may fail, kills may fail when `faulty`.
    fn act(&mut self, faulty: bool) {
        while !self.queue.is_empty() {
            match self.queue.remove(0) {
                Action::Launch(i) => {
                    if !self.state.wants_launch(i) {
                        continue;
                    }
                    if faulty && self.random(4) == 0 {
                        self.ended_at[i] = Some(self.now);
                        let transient = self.random(2) == 0;
                        self.tell(Event::LaunchFailed(i, Fault { text: "fault".into(), transient }));
                    } else {
                        (self.alive[i], self.executed[i]) = (true, false);
                        self.tell(Event::Launched(i));
                    }
                }
                Action::Stop(i) => {
                    if self.random(2) == 0 {
                        self.exit(i, Exit::Signal(15));
                    }
                }
                Action::Kill(i) => {
                    if !faulty || self.random(3) > 0 {
                        self.exit(i, Exit::Signal(9));
                    }
                }
                Action::Finish(_) => {}
            }
        }
    }

    fn exit(&mut self, i: usize, exit: Exit) {
        if self.alive[i] {
            self.alive[i] = false;
            self.ended_at[i] = Some(self.now);
            self.completed[i] |= self.executed[i] && exit.success();
            self.tell(Event::Exited(i, exit));
        }
    }

    /// Something happens somewhere.
    fn chance(&mut self, faulty: bool) {
        let n = self.alive.len() as u64;
        let i = if n == 0 { 0 } else { self.random(n) as usize };
        match self.random(12) {
            0..=3 if n > 0 => {
                if self.alive[i] && !self.executed[i] {
                    if self.random(5) == 0 {
                        let transient = self.random(2) == 0;
                        self.tell(Event::SetupFailed(i, Fault { text: "setup".into(), transient }));
                        self.exit(i, Exit::Code(1));
                    } else {
                        (self.executed[i], self.ever_executed[i]) = (true, true);
                        self.tell(Event::Executed(i));
                    }
                }
            }
            4..=5 if n > 0 => {
                let code = self.random(3) as i32;
                self.exit(i, if code == 2 { Exit::Signal(11) } else { Exit::Code(code) });
            }
            6 if !self.data => {
                self.data = true;
                self.tell(Event::DataReady);
            }
            8 if !self.devices => {
                self.devices = true;
                self.tell(Event::DevicesReady);
            }
            // Nonsense: events about containers that are not there, or in no state for them.
            7 => {
                let stray = self.random(20) as usize + self.alive.len();
                self.tell(Event::Exited(stray, Exit::Code(0)));
                self.tell(Event::Launched(stray));
            }
            _ => {
                let until = self.now + [0, 1, 40, 200, 3000, 70_000][self.random(6) as usize];
                self.pass(until, faulty);
            }
        }
    }

    /// Time passes at the pace of the deadlines, as the timerfd has it.
    fn pass(&mut self, until: u64, faulty: bool) {
        while let Some(at) = self.state.next_deadline(self.now).filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.tell(Event::Tick);
            self.act(faulty);
        }
        self.now = until;
        self.tell(Event::Tick);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_and_shutdown_ends(rules in machine(), seed in any::<u64>(), steps in 0..300_u32, faulty in any::<bool>()) {
        let longest: u64 = rules.iter().map(|r| r.stop_grace_ms + 20_000).sum();
        let mut world = World::new(rules, seed);
        world.tell(Event::Begin);
        world.act(faulty);
        for _ in 0..steps {
            world.chance(faulty);
            world.act(faulty);
            if world.random(40) == 0 {
                // What is kept in the memfd is all there is to know.
                let units = postcard::from_bytes(&postcard::to_stdvec(world.state.units()).unwrap()).unwrap();
                let common = postcard::from_bytes(&postcard::to_stdvec(world.state.common()).unwrap()).unwrap();
                world.state = State::resume(world.state.rules().to_vec(), Policy::default(), units, common);
            }
            for (i, unit) in world.state.units().iter().enumerate() {
                prop_assert_eq!(unit.phase.active(), world.alive[i], "{} {:?}", i, unit);
            }
        }
        let begun = world.now;
        world.shutdown = true;
        world.tell(Event::Shutdown(Goal::PowerOff));
        world.act(faulty);
        while world.finished == 0 {
            let next = world.state.next_deadline(world.now);
            prop_assert!(next.is_some(), "shutdown waits for nothing: {:?}", world.state.units());
            let next = next.unwrap().max(world.now);
            prop_assert!(next - begun <= longest, "shutdown takes too long");
            world.pass(next, faulty);
            world.act(faulty);
        }
        world.tell(Event::Tick);
        prop_assert_eq!(world.finished, 1);
        prop_assert!(world.state.units().iter().all(|u| u.phase.last()));
    }
}
