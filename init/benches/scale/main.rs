//! What a thousand containers cost: their launch, PID 1's memory, the way from an exit to its action, idle wake-ups, and a crash of PID 1.
//!
//! `sudo cargo bench -p garboard-init --bench scale [CONTAINERS] [ROUNDS] [launches]`, or the program that `benches/scale/build-static` makes: static
//! as PID 1 is, for figures of memory and crashes that are PID 1's. Containers are as an undemanding declaration has them, with busybox's
//! `sleep`. This executable is also the supervisor, the program being that of `/init` but for its boot. The floor (`bare/floor.rs`) makes
//! the same containers by the system calls that they can't do without. Runs alternate, so that they share the machine's moods.

mod bare;
mod ours;
mod plan;
mod podman;
mod site;
mod supervisor;
mod trace;

use std::time::{Duration, Instant};

use garboard_init::{work, worker};

use ours::Supervised;
use site::{Site, Took};

/// Podman's are so many.
const PODMAN: usize = 50;
/// Containers that end at once, each followed by the next.
const CHAIN: usize = 200;
/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(10);
const EXECS: usize = 50;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [worker::NAME, kind, ..] => std::process::exit(work::run(kind, arguments.get(2..).unwrap_or_default())),
        ["garboard-init", "--resume", state, highest, since, reason] => {
            supervisor::resume(state, highest, since, reason)
        }
        [_, "supervisor", plan, run_dir, cgroup, trace] => supervisor::begin(plan, run_dir, cgroup, trace),
        [_, "nothing"] => return,
        _ => {}
    }
    let mut numbers = arguments.iter().filter_map(|argument| argument.parse().ok());
    let (count, rounds) = (numbers.next().unwrap_or(1000), numbers.next().unwrap_or(3));
    site::enter();
    let site = Site::new();
    if words.contains(&"launches") {
        return only_launches(&site, count, rounds);
    }
    println!("{count} containers, {rounds} rounds; load average {}", site::load());
    // What was before leaves the kernel something to take apart. The first to be measured shall have no less of it than the others.
    site.floor(count, true);
    let results: Vec<Round> = (0..rounds).map(|_| round(&site, count)).collect();
    launches(&results, count);
    follow_ups(&site, &results, count);
    println!("load average {}", site::load());
}

/// For who changes them: as often as asked, and nothing else.
fn only_launches(site: &Site, count: usize, rounds: usize) {
    let (mut floors, mut all) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let floor = site.floor(count, true);
        let mut supervised = Supervised::begin(site, &plan::of(site, count, 0));
        let ours = supervised.wait_running();
        let seen = supervised.look(count);
        drop(supervised);
        site.settle();
        println!("resident {} KiB, of that private {}", seen.resident, seen.private);
        let [a, b, c, d] = [floor.clock, ours.clock, floor.processor, ours.processor].map(millis);
        println!(
            "floor with filters, ours: {a:.0}, {b:.0} ms on the clock ({:.2}); {c:.0}, {d:.0} of processor time ({:.2})",
            b / a,
            d / c
        );
        floors.push(floor.processor);
        all.push(ours.processor);
    }
    print_beside("processor time, median", median(all.into_iter()), median(floors.into_iter()), None);
}

/// One launch of each, and what is seen of ours besides.
struct Round {
    floor: Took,
    floor_with_filters: Took,
    ours: Took,
    seen: ours::Seen,
    /// After a crash, and how much of that was the machine's other work.
    back: Duration,
    waited: Duration,
}

fn round(site: &Site, count: usize) -> Round {
    let floor = site.floor(count, false);
    let floor_with_filters = site.floor(count, true);
    let plan = plan::of(site, count, 0);
    let mut supervised = Supervised::begin(site, &plan);
    let ours = supervised.wait_running();
    let seen = supervised.look(count);
    let (back, waited) = supervised.crash(count);
    drop(supervised);
    site.settle();
    let all = [floor.clock, floor_with_filters.clock, ours.clock, back, waited].map(millis);
    println!(
        "  floor {:.0} ms, with filters {:.0}, garboard {:.0}; back after {:.1}, {:.1} of it waiting; load {}",
        all[0],
        all[1],
        all[2],
        all[3],
        all[4],
        site::load()
    );
    Round { floor, floor_with_filters, ours, seen, back, waited }
}

fn launches(rounds: &[Round], count: usize) {
    println!("launch of {count}, milliseconds, on the clock and of processor time, median");
    let of = |field: fn(&Round) -> Took| Took {
        clock: median(rounds.iter().map(|round| field(round).clock)),
        processor: median(rounds.iter().map(|round| field(round).processor)),
    };
    let ours = of(|round| round.ours);
    println!("{:<28} {:9.0} {:9.0}", "garboard", millis(ours.clock), millis(ours.processor));
    for (what, floor, limit) in [
        ("floor", of(|round| round.floor), Some(1.3)),
        ("floor, with filters", of(|round| round.floor_with_filters), None),
    ] {
        print_beside(what, ours.clock, floor.clock, limit);
        print_beside("  of processor time", ours.processor, floor.processor, None);
    }
    match podman::run(PODMAN) {
        Ok(took) => {
            let all = took.mul_f64(count as f64 / PODMAN as f64);
            print_beside(&format!("podman, from {PODMAN}"), ours.clock, all, None);
        }
        Err(why) => println!("podman: not measured: {why}"),
    }
    println!("memory of the supervisor, KiB");
    let of = |field: fn(&ours::Seen) -> usize| middle(rounds.iter().map(|round| field(&round.seen)).collect());
    let limit = 3072 + 24 * count;
    println!("{:<28} {:9}   limit {limit}: {}", "resident", of(|s| s.resident), verdict(of(|s| s.resident) <= limit));
    println!("{:<28} {:9}", "of that private", of(|s| s.private));
    println!("{:<28} {:9}   of {} for logs", "log rings, not mapped", of(|s| s.rings), plan::LOG_BUDGET >> 10);
    println!("{:<28} {:9}", "state, not mapped", of(|s| s.state));
    println!("{:<28} {:9.1}", "descriptors per container", of(|s| s.descriptors) as f64 / count as f64);
    let others = of(|s| s.others);
    println!("{:<28} {:9}   limit 0: {}", "other processes", others, verdict(others == 0));
}

/// What takes a supervisor of its own, once.
fn follow_ups(site: &Site, rounds: &[Round], count: usize) {
    let back = median(rounds.iter().map(|round| round.back));
    println!("after a crash, milliseconds until a question is answered, median");
    println!("{:<28} {:9.1}   limit 50: {}", "garboard", millis(back), verdict(back <= Duration::from_millis(50)));
    let exec = median((0..EXECS).map(|_| {
        let begun = Instant::now();
        let own = std::env::current_exe().expect("own path");
        assert!(std::process::Command::new(own).arg("nothing").status().expect("start itself").success());
        begun.elapsed()
    }));
    println!("{:<28} {:9.1}", "of that for a processor", millis(median(rounds.iter().map(|round| round.waited))));
    print_beside("its program, doing nothing", back, exec, None);

    let plan = plan::of(site, count, CHAIN);
    let mut supervised = Supervised::begin(site, &plan);
    supervised.wait_running();
    println!("from the wake-up by an exit to its action, {} exits, microseconds", CHAIN - 1);
    for (what, mut times) in ["on the clock", "of processor time"].into_iter().zip(supervised.wait_actions(CHAIN - 1)) {
        times.sort_unstable();
        let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e6;
        let limit = verdict(at(100) <= 1000.0);
        println!("{what:<28} {:9.0}   99 of 100: {:.0}, most: {:.0}, limit 1000: {limit}", at(50), at(99), at(100));
    }
    let (wakes, ticks) = supervised.idle(IDLE);
    println!(
        "{:<28} {wakes:9}   in {IDLE:?}, and {ticks} ticks of processor time; limit 0: {}",
        "idle wake-ups",
        verdict(wakes == 0)
    );
    drop(supervised);
    site.settle();
}

fn print_beside(what: &str, ours: Duration, other: Duration, limit: Option<f64>) {
    let ratio = ours.as_secs_f64() / other.as_secs_f64();
    let limit = limit.map_or_else(String::new, |limit| format!(", limit {limit}: {}", verdict(ratio <= limit)));
    println!("{what:<28} {:9.1}   ratio {ratio:.3}{limit}", millis(other));
}

fn verdict(holds: bool) -> &'static str {
    if holds { "holds" } else { "DOESN'T HOLD" }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    middle(times.collect())
}

fn middle<T: Ord + Copy>(mut all: Vec<T>) -> T {
    all.sort_unstable();
    all[all.len() / 2]
}
