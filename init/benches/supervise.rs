//! How long the automaton takes for one event, with a thousand containers: an exit has its action issued within a millisecond.
//!
//!     cargo bench -p garboard-init --bench supervise

use std::time::Instant;

use garboard_init::supervise::{Event, Exit, Policy, Rules, State};
use garboard_runtime::plan::{Restart, Supervision};

const CONTAINERS: usize = 1000;
const ROUNDS: u64 = 2000;

fn main() {
    let rules = |_| Rules {
        restart: Restart::Always,
        needs: Vec::new(),
        stop_grace_ms: 10_000,
        needs_data: false,
        needs_record: false,
        needs_devices: false,
        supervision: Supervision::default(),
        pod: None,
    };
    let mut state = State::new((0..CONTAINERS).map(rules).collect(), Policy::default(), 1);
    state.step(Event::Begin, 0);
    for index in 0..CONTAINERS {
        state.step(Event::Launched(index), 0);
        state.step(Event::Executed(index), 0);
    }
    let mut exits = Vec::new();
    let mut turns = Vec::new();
    let mut now = 100_000;
    for round in 0..ROUNDS {
        let index = usize::try_from(round).unwrap_or(0) % CONTAINERS;
        now += 20_000;
        let begun = Instant::now();
        state.step(Event::Exited(index, Exit::Code(1)), now);
        exits.push(begun.elapsed());
        // What the loop does besides in such a turn.
        state.take_changed();
        let due = state.next_deadline(now);
        turns.push(begun.elapsed());
        let actions = state.step(Event::Tick, due.unwrap_or(now));
        assert_eq!(actions.len(), 1, "{actions:?}");
        state.step(Event::Launched(index), now + 100);
        state.step(Event::Executed(index), now + 100);
    }
    for (name, mut times) in [("step of an exit", exits), ("with the next deadline", turns)] {
        times.sort_unstable();
        let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
        println!("{name}, {CONTAINERS} containers: median {:?}, 99 of 100 within {:?}", at(50), at(99));
    }
}
