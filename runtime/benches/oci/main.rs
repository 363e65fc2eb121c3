//! What `garboard-runtime run` and `exec` take of time and memory, against crun, runc and the least possible with the same
//! config.json, and whether that is within the limits that we have set ourselves.
//!
//! `sudo cargo bench -p garboard-runtime --bench oci [ROUNDS]`; `GARBOARD_RUNTIME` names the build of the program that is meant, the static
//! one. The program in the container is busybox's `true`. Runs alternate, so that they share the machine's moods, and each round in another
//! order: the kernel takes a container apart for a while after its end, at the expense of whatever runs next.

mod bare;
mod memory;
mod site;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use memory::Limits;
use site::{Runtime, Site, succeed};

fn main() {
    let rounds = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(100);
    site::enter();
    let site = Site::new();
    println!("times in milliseconds: median and least of {rounds} rounds; ratio of medians (of leasts)");
    time_run(&site, rounds);
    time_exec(&site, rounds);
    println!("memory in KiB");
    weigh(&site);
}

fn time_run(site: &Site, rounds: usize) {
    site.write_config(false, &["/bin/true"]);
    let all = [Runtime::Own, Runtime::Floor, Runtime::Crun, Runtime::Runc];
    let [own, floor, crun, runc] = time(rounds, all, |runtime| succeed(site.run(runtime)));
    own.print("run", all[0]);
    floor.print_beside("run", all[1], &own, Some(1.3));
    crun.print_beside("run", all[2], &own, Some(0.4));
    runc.print_beside("run", all[3], &own, Some(0.12));
    site.write_config(true, &["/bin/true"]);
    let both = [Runtime::Own, Runtime::Crun];
    let [own, crun] = time(rounds, both, |runtime| succeed(site.run(runtime)));
    own.print("run, user namespace", both[0]);
    crun.print_beside("run, user namespace", both[1], &own, None);
}

fn time_exec(site: &Site, rounds: usize) {
    let both = [Runtime::Own, Runtime::Crun];
    for (user_namespace, what, limit) in [(false, "exec", Some(0.5)), (true, "exec, user namespace", None)] {
        site.write_config(user_namespace, &["/bin/sleep", "100000"]);
        both.iter().for_each(|runtime| succeed(site.command(*runtime, &["run", "--detach", &site.id(*runtime)])));
        let exec = |runtime| succeed(site.command(runtime, &["exec", &site.id(runtime), "/bin/true"]));
        let [own, crun] = time(rounds, both, exec);
        own.print(what, both[0]);
        crun.print_beside(what, both[1], &own, limit);
        both.iter().for_each(|runtime| succeed(site.command(*runtime, &["delete", "--force", &site.id(*runtime)])));
    }
}

fn weigh(site: &Site) {
    site.write_config(false, &["/bin/true"]);
    let all = [Runtime::Own, Runtime::Floor, Runtime::Crun, Runtime::Runc];
    let [own, floor, crun, runc] = all.map(|runtime| memory::resident(site, runtime));
    print_memory("resident at most", all[0], own, None);
    print_memory("resident at most", all[1], floor, Some((own, None)));
    print_memory("resident at most", all[2], crun, Some((own, Some(1.0))));
    print_memory("resident at most", all[3], runc, Some((own, None)));
    let Some(limits) = Limits::open(site) else {
        println!("lowest limit: not found, as this machine has no memory controller of version 1");
        return;
    };
    let [own, floor, crun] = [all[0], all[1], all[2]].map(|runtime| limits.lowest(site, runtime) >> 10);
    print_memory("lowest limit", all[0], own, None);
    print_memory("lowest limit", all[1], floor, Some((own, None)));
    print_memory("lowest limit", all[2], crun, Some((own, Some(1.0))));
}

/// Milliseconds.
struct Times {
    median: f64,
    least: f64,
}

fn time<const N: usize>(rounds: usize, runtimes: [Runtime; N], call: impl Fn(Runtime)) -> [Times; N] {
    let mut times = [const { Vec::new() }; N];
    for round in 0..rounds {
        for which in order::<N>(round) {
            let begin = Instant::now();
            call(runtimes[which]);
            times[which].push(begin.elapsed());
        }
    }
    times.map(|mut times| {
        times.sort();
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        Times { median: milliseconds(times[times.len() / 2]), least: milliseconds(times[0]) }
    })
}

/// The order of a round, the same in every run of the benchmark.
fn order<const N: usize>(round: usize) -> [usize; N] {
    let mut order = std::array::from_fn(|which| which);
    order.sort_by_cached_key(|which| {
        let mut hasher = DefaultHasher::new();
        (round, which).hash(&mut hasher);
        hasher.finish()
    });
    order
}

impl Times {
    fn print(&self, what: &str, runtime: Runtime) {
        println!("{what:<22} {:<10} {:7.2} ({:.2})", runtime.name(), self.median, self.least);
    }

    /// With what ours is of it.
    fn print_beside(&self, what: &str, runtime: Runtime, own: &Self, limit: Option<f64>) {
        let (ratio, of_leasts) = (own.median / self.median, own.least / self.least);
        println!(
            "{what:<22} {:<10} {:7.2} ({:.2})   ratio {ratio:.2} ({of_leasts:.2}){}",
            runtime.name(),
            self.median,
            self.least,
            verdict(ratio, limit)
        );
    }
}

fn print_memory(what: &str, runtime: Runtime, kib: u64, own: Option<(u64, Option<f64>)>) {
    print!("{what:<22} {:<10} {kib:7}", runtime.name());
    if let Some((own, limit)) = own {
        let ratio = own as f64 / kib as f64;
        print!("   ratio {ratio:.2}{}", verdict(ratio, limit));
    }
    println!();
}

fn verdict(ratio: f64, limit: Option<f64>) -> String {
    limit.map_or_else(String::new, |limit| {
        format!(", limit {limit}: {}", if ratio <= limit { "holds" } else { "DOESN'T HOLD" })
    })
}
