//! Worlds in which anything may happen, against the automaton.
//!
//! One number decides a whole run: the machine, every event, when it comes, and what is carried out how. So a run that breaks an
//! invariant can be repeated by its number, and made shorter: what happens is drawn up first, each happening with its own luck, and
//! those without which it breaks all the same are left out. [`expect`] works out a second time what ought to follow, from what is
//! true in the world; [`check`] compares after every event.
//!
//! `cargo test supervise::simulate` runs a few hundred thousand events; for many more:
//!
//! ```text
//! GARBOARD_SIMULATE=5000000 cargo test --release --lib supervise::simulate::as_long_as_asked -- --ignored --nocapture
//! ```

mod check;
mod expect;
mod happen;
mod machine;
mod real;
mod world;

use happen::Happening;
use machine::Luck;
use world::{Verdict, World};

use super::{Event, Goal, Policy, Rules};

/// What happens in a run, in order, each with its luck.
type Story = Vec<(Happening, u64)>;

/// The machine and the story of a seed.
fn draw(seed: u64) -> (Vec<Rules>, Story) {
    let mut luck = Luck(seed);
    let rules = machine::machine(&mut luck);
    let happenings = 1 + luck.below(400);
    (rules, (0..happenings).map(|_| (Happening::any(&mut luck), luck.next())).collect())
}

/// Runs a story, and then lets the machine stop.
fn tell(rules: &[Rules], seed: u64, story: &Story, traced: bool) -> (World, Verdict) {
    let mut world = World::new(rules.to_vec(), seed, traced);
    let verdict = live(&mut world, seed, story);
    (world, verdict)
}

fn live(world: &mut World, seed: u64, story: &Story) -> Verdict {
    let mut luck = Luck(seed ^ 1);
    world.tell(Event::Begin)?;
    world.act(&mut luck)?;
    for (happening, luck) in story {
        happening.befall(world, &mut Luck(*luck))?;
    }
    let policy = Policy::default();
    let kills = u64::from(policy.kill_attempts) * policy.kill_retry_ms;
    let longest = |r: &Rules| r.stop_grace_ms + policy.stop_extension_ms + kills;
    let bound: u64 = world.state.rules().iter().map(longest).sum();
    let crashes = seed % 2 == 1;
    world.tell(Event::Shutdown(Goal::PowerOff))?;
    if crashes {
        world.resume()?;
    }
    world.act(&mut luck)?;
    // It may have begun in the story, where ticks may be late.
    let end = world.now + bound;
    while !world.ended {
        let Some(next) = world.state.next_deadline(world.now) else {
            return Err(format!("shutdown waits for nothing: {:?}", world.state.units()));
        };
        if next > end {
            return Err("shutdown takes too long".to_owned());
        }
        world.pass(next, false, &mut luck)?;
        if crashes {
            world.resume()?;
        }
        world.act(&mut luck)?;
    }
    match world.state.units().iter().find(|u| !u.phase.last()) {
        Some(unit) => Err(format!("finished, and one is {unit:?}")),
        None => Ok(()),
    }
}

/// The shortest story that still breaks something, as far as leaving out parts of it finds it.
fn shorten(rules: &[Rules], seed: u64, mut story: Story) -> Story {
    let mut part = story.len().div_ceil(2);
    while part > 0 {
        let mut from = 0;
        while from < story.len() {
            let mut shorter = story.clone();
            shorter.drain(from..(from + part).min(story.len()));
            if tell(rules, seed, &shorter, false).1.is_err() {
                story = shorter;
            } else {
                from += part;
            }
        }
        part /= 2;
    }
    story
}

/// Everything there is to know of a seed that breaks something.
fn report(seed: u64) -> String {
    let (rules, story) = draw(seed);
    let story = shorten(&rules, seed, story);
    let (world, verdict) = tell(&rules, seed, &story, true);
    let mut text = format!("seed {seed:#x}: {}\n", verdict.err().unwrap_or_default());
    for (index, rules) in rules.iter().enumerate() {
        text.push_str(&format!("  {index}: {rules:?}\n"));
    }
    for line in world.trace.unwrap_or_default() {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

/// Runs seed after seed from `first` until so many events were told; runs and events, or what broke.
fn simulate(first: u64, events: u64) -> Result<(u64, u64), String> {
    let (mut runs, mut told) = (0, 0);
    while told < events {
        let seed = first.wrapping_add(runs);
        let (rules, story) = draw(seed);
        let (world, verdict) = tell(&rules, seed, &story, false);
        (runs, told) = (runs + 1, told + world.steps);
        if verdict.is_err() {
            return Err(format!("after {runs} runs and {told} events: {}", report(seed)));
        }
    }
    Ok((runs, told))
}

/// Seeds that once broke something.
const ONCE_BROKEN: &[u64] = &[
    0x1,
    0xa,
    0xf_4289,
    0xf_4b2b,
    0x18ec_21ea_c3f0_7493,
    0x18ec_2240_bc3c_705b,
    0x18ec_e4bd_5ef0_116a,
    0x18ec_e4dd_53e7_414f,
];

#[test]
fn invariants_hold_whatever_happens_and_shutdown_ends() {
    if let Err(text) = simulate(0, 1_000_000) {
        panic!("{text}");
    }
}

#[test]
fn what_once_broke_holds() {
    for seed in ONCE_BROKEN {
        let (rules, story) = draw(*seed);
        assert!(tell(&rules, *seed, &story, false).1.is_ok(), "{}", report(*seed));
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..50 {
        let (rules, story) = draw(seed);
        let run = || tell(&rules, seed, &draw(seed).1, true).0.trace.unwrap();
        let first = run();
        assert!(first.len() > 2 && first == run());
        assert_ne!(first, tell(&rules, seed, &story[..story.len() / 2].to_vec(), true).0.trace.unwrap());
    }
}

/// As many events as `GARBOARD_SIMULATE` says, from a seed of its own each time unless `GARBOARD_SEED` says which.
#[test]
#[ignore = "takes as long as it is told to"]
fn as_long_as_asked() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let by_time = || std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_nanos() as u64);
    let first = number("GARBOARD_SEED").unwrap_or_else(by_time);
    match simulate(first, number("GARBOARD_SIMULATE").unwrap_or(5_000_000)) {
        Ok((runs, events)) => println!("{runs} runs, {events} events, from seed {first}"),
        Err(text) => panic!("{text}"),
    }
}
