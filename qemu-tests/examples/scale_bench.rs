//! How much longer a machine takes to launch many containers than the system calls that they can't do without, and how long PID 1
//! is away after a crash, with all control group controllers on.
//!
//! ```text
//! cargo run --release -p garboard-qemu --example scale_bench -- [CONTAINERS [RUNS [counted]]]
//! ```
//!
//! The floor (`init/benches/scale/bare/floor.rs`) is `/init` of the same kernel on the same machine with the same memory. Both take the
//! time inside: the floor from when its machine is ready to the last container's exec, Garboard from the beginning of supervision to
//! the last container's start, as its own events say, and of a crash from the fault to when PID 1 supervises again; when it answers is
//! timed from outside. Runs alternate. `counted` counts instructions instead of time, free of the computer's moods and of what
//! translating them costs.

#[path = "../../init/benches/scale/bare.rs"]
mod bare;
#[path = "../tests/support/cpio.rs"]
mod cpio;
#[path = "../tests/support/mod.rs"]
mod support;

use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use garboard_qemu::{Builder, Image, Vm, secs};
use serde_json::{Value, json};
use support::{Project, fixture};

/// Whatever the number of containers on a busy computer.
const LIMIT: Duration = secs(1800);
/// A machine of its own, and what a container takes of it.
const MEMORY_MB: (usize, usize) = (512, 2);
/// Seconds after the last start at which PID 1 is made to crash.
const STRIKES: u64 = 60;
/// A question that the crash has swallowed is asked again.
const AGAIN: Duration = Duration::from_millis(5);

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse());
    let (count, runs) = (numbers.next().unwrap_or(Ok(1000))?, numbers.next().unwrap_or(Ok(1))?);
    let project = Project::new(&declaration(count));
    let image = Image::load(project.build_without_disk())?;
    let scratch = tempfile::tempdir()?;
    let mut floor = Image::bare(&image.kernel, floor_initrd(&image, scratch.path(), count)?, &image.cmdline);
    floor.memory_mb = image.memory_mb;

    println!(
        "{count} containers, microvm, {} MiB, {runs} alternating runs, milliseconds inside the machine",
        image.memory_mb
    );
    let (mut launches, mut returns) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        let least = run_floor(&floor)?;
        let ours = run_ours(&image, count)?;
        let launch = ours.launch / least.launch;
        println!(
            "run {run}: floor {:.0}, garboard {:.0}, ratio {launch:.2}; load {}",
            least.launch,
            ours.launch,
            load()
        );
        println!("run {run}: PID 1 resident {} KiB", ours.resident / 1024);
        launches.push(launch);
        if let Some(back) = ours.back {
            let ratio = back / least.exec;
            println!(
                "run {run}: fork, exec and end {:.2}, back after a crash {back:.1}, ratio {ratio:.1}; answered after {:.1} outside",
                least.exec, ours.answered
            );
            returns.push(ratio);
        }
    }
    print_verdict("launch / floor", &mut launches, 1.3);
    if !returns.is_empty() {
        print_verdict("back / fork and exec", &mut returns, 20.0);
    }
    Ok(())
}

fn print_verdict(what: &str, ratios: &mut [f64], limit: f64) {
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!("{what}: median {median:.2}, limit {limit}: {}", if median <= limit { "holds" } else { "DOESN'T HOLD" });
}

/// So many that do nothing, and one that has PID 1 crash some time after the last of them has started. It executes nothing then,
/// as that would take the processor from PID 1.
fn declaration(count: usize) -> String {
    let image = fixture("oci", "busybox");
    let (machine, each) = MEMORY_MB;
    let mut text = format!("name = \"scale\"\n[system]\nmemory = \"{}m\"\n", machine + each * count);
    for number in 0..count {
        let _ = write!(
            text,
            "[containers.c{number}]\nimage = \"{image}\"\ncommand = [\"sleep\", \"1000000\"]\nrestart = \"always\"\n"
        );
    }
    let _ = write!(
        text,
        "[containers.saboteur]\nimage = \"{image}\"\ncommand = [\"sh\", \"-c\", \"sleep 1000000 & sleep {STRIKES}; kill -SEGV 1; wait\"]\n\
         pid = \"host\"\nuserns_mode = \"host\"\ncap_add = [\"KILL\"]\ndepends_on = [\"c{}\"]\n",
        count - 1
    );
    text
}

/// With the appliance's own module and PID 1, whose start is a measure.
fn floor_initrd(image: &Image, directory: &Path, count: usize) -> Result<PathBuf, Box<dyn Error>> {
    let theirs = std::fs::read(&image.initrd)?;
    let find = |end: &str| file_in(&theirs, end).ok_or_else(|| format!("no {end} in {}", image.initrd.display()));
    let mut archive = Vec::new();
    cpio::entry(&mut archive, "init", 0o100_755, &std::fs::read(bare::build(directory))?);
    cpio::entry(&mut archive, "count", 0o100_644, count.to_string().as_bytes());
    cpio::entry(&mut archive, "overlay.ko", 0o100_644, find("overlay.ko")?);
    cpio::entry(&mut archive, "program", 0o100_755, find("init")?);
    cpio::entry(&mut archive, "sleep", 0o100_755, &std::fs::read("/bin/busybox")?);
    cpio::entry(&mut archive, "TRAILER!!!", 0, &[]);
    let initrd = directory.join("initrd");
    std::fs::write(&initrd, archive)?;
    Ok(initrd)
}

/// A file of a cpio archive ("newc") by the end of its name.
fn file_in<'a>(archive: &'a [u8], end: &str) -> Option<&'a [u8]> {
    let mut at = archive;
    loop {
        let field = |number: usize| {
            let digits = at.get(6 + number * 8..14 + number * 8)?;
            usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
        };
        let (size, name_size) = (field(6)?, field(11)?);
        let name = std::str::from_utf8(at.get(110..110 + name_size - 1)?).ok()?;
        let content = (110 + name_size).next_multiple_of(4);
        if name.ends_with(end) {
            return at.get(content..content + size);
        }
        at = at.get((content + size).next_multiple_of(4)..)?;
    }
}

/// Milliseconds.
struct Least {
    launch: f64,
    exec: f64,
}

/// A machine that counts, if that is asked for: time in it is then what it executes, a nanosecond for each instruction, and what it waits for.
fn machine(image: &Image) -> Builder {
    let builder = Vm::builder(image);
    if counted() {
        return builder.qemu_argument("-icount").qemu_argument("shift=0,sleep=off").cmdline("tsc_early_khz=1000000");
    }
    builder
}

fn counted() -> bool {
    std::env::args().any(|argument| argument == "counted")
}

fn run_floor(image: &Image) -> Result<Least, Box<dyn Error>> {
    let vm = machine(image).boot()?;
    const LAST: &str = "exec microseconds, mean ";
    vm.wait_console(LAST, LIMIT)?;
    // To the end of the line.
    let mut text = vm.console().transcript();
    while !text.rsplit(LAST).next().is_some_and(|rest| rest.contains('\n')) {
        std::thread::sleep(Duration::from_millis(10));
        text = vm.console().transcript();
    }
    let number = |what: &str| -> Result<f64, Box<dyn Error>> {
        let line =
            text.lines().find_map(|line| line.trim().strip_prefix(what)).ok_or_else(|| format!("no {what}: {text}"))?;
        Ok(line.trim().parse::<f64>()? / 1000.0)
    };
    Ok(Least { launch: number("floor microseconds ")?, exec: number("exec microseconds, mean ")? })
}

struct Ours {
    launch: f64,
    /// How long nobody supervised, as PID 1 says.
    back: Option<f64>,
    /// From the last question before the crash to its answer, outside.
    answered: f64,
    resident: u64,
}

fn run_ours(image: &Image, count: usize) -> Result<Ours, Box<dyn Error>> {
    let vm = machine(image).boot()?;
    vm.wait_console("all containers are as declared", LIMIT)?;
    let mut port = Port::open(&vm.status_socket())?;
    let events = port.ask(json!({"request": "events", "since": 0, "count": 100_000}))?;
    let events = events["events"].as_array().ok_or("no events")?;
    let times = |kind: &str, name: &str| -> Vec<u64> {
        let of =
            |event: &&Value| event["kind"] == kind && event["container"].as_str().unwrap_or_default().starts_with(name);
        events.iter().filter(of).filter_map(|event| event["time_ms"].as_u64()).collect()
    };
    let (begun, started) = (times("boot", ""), times("started", "c"));
    if started.len() != count {
        return Err(format!("{} of {count} starts among the events", started.len()).into());
    }
    let launch = started.iter().max().zip(begun.first()).map_or(0, |(last, first)| last - first);
    let before = port.ask(json!({"request": "status"}))?;
    let resident = before["snapshot"]["pid1_rss_bytes"].as_u64().unwrap_or(0);
    let until = Instant::now() + LIMIT;
    // The first answer that knows of the crash is the one that took so long for it.
    let (back, answered) = loop {
        let asked = Instant::now();
        let answer = port.ask(json!({"request": "events", "count": 1}))?;
        if answer["events"][0]["kind"] == "crash" {
            let answered = asked.elapsed().as_secs_f64() * 1000.0;
            let text = answer["events"][0]["text"].as_str().unwrap_or_default();
            let back = text.rsplit_once("; back after ").and_then(|(_, rest)| rest.strip_suffix(" ms")?.parse().ok());
            break (back, answered);
        }
        if Instant::now() > until {
            return Err("PID 1 was not made to crash".into());
        }
    };
    let after = port.ask(json!({"request": "status"}))?;
    let lives = |status: &Value| -> Vec<(Value, Value)> {
        let all = status["snapshot"]["containers"].as_array().cloned().unwrap_or_default();
        all.iter().map(|c| (c["pid"].clone(), c["restarts"].clone())).collect()
    };
    if lives(&before) != lives(&after) || lives(&after).len() != count + 1 {
        return Err("containers were lost in the crash".into());
    }
    vm.hard_stop();
    Ok(Ours { launch: launch as f64, back, answered, resident })
}

/// The status port, asked without a pause.
struct Port {
    stream: BufReader<UnixStream>,
    next_id: u64,
    line: Vec<u8>,
}

impl Port {
    fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self { stream: BufReader::new(UnixStream::connect(path)?), next_id: 0, line: Vec::new() })
    }

    /// Asks until it is answered.
    fn ask(&mut self, mut request: Value) -> Result<Value, Box<dyn Error>> {
        let first = self.next_id + 1;
        // A long answer takes its time.
        let patience = if request["count"] == 1 { AGAIN } else { secs(20) };
        loop {
            self.next_id += 1;
            request["id"] = self.next_id.into();
            self.stream.get_mut().write_all(format!("\n{request}\n").as_bytes())?;
            let until = Instant::now() + patience;
            while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
                self.stream.get_ref().set_read_timeout(Some(left))?;
                match self.stream.read_until(b'\n', &mut self.line) {
                    Ok(0) => return Err("the status port was closed".into()),
                    Ok(_) => {
                        let value =
                            serde_json::from_slice::<Value>(&std::mem::take(&mut self.line)).unwrap_or(Value::Null);
                        if value["id"].as_u64().is_some_and(|id| id >= first) {
                            return Ok(value);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
