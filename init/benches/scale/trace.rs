//! When the supervisor does what, by its own log: the loop says when it was woken and what it launches.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};
use rustix::time::ClockId;

struct Tracer {
    file: File,
    /// Containers that are started at the beginning.
    count: usize,
    executed: AtomicUsize,
    woken: AtomicU64,
    /// Processor time that it had used then.
    used: AtomicU64,
}

static TRACER: OnceLock<Tracer> = OnceLock::new();

/// Writes to `path` when `count` containers run, and from then on what takes how long.
pub fn install(path: &str, count: usize) {
    let file = File::options().append(true).create(true).open(path).expect("trace file");
    let tracer =
        Tracer { file, count, executed: AtomicUsize::new(0), woken: AtomicU64::new(0), used: AtomicU64::new(0) };
    log::set_logger(TRACER.get_or_init(|| tracer)).expect("the only logger");
    log::set_max_level(LevelFilter::Trace);
}

/// CLOCK_MONOTONIC, the same in all processes.
pub fn now() -> Duration {
    read_clock(ClockId::Monotonic)
}

fn read_clock(clock: ClockId) -> Duration {
    let time = rustix::time::clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

impl Log for Tracer {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let now = now().as_nanos() as u64;
        if record.args().as_str() == Some("woken") {
            self.woken.store(now, Ordering::Relaxed);
            self.used.store(read_clock(ClockId::ProcessCPUTime).as_nanos() as u64, Ordering::Relaxed);
            return;
        }
        let text = record.args().to_string();
        let running = self.executed.load(Ordering::Relaxed) >= self.count;
        if text.starts_with("Executed(") && self.executed.fetch_add(1, Ordering::Relaxed) + 1 == self.count {
            let _ = writeln!(&self.file, "running {now}");
        } else if running && text.starts_with("launch ") {
            let used = read_clock(ClockId::ProcessCPUTime).as_nanos() as u64 - self.used.load(Ordering::Relaxed);
            let _ = writeln!(&self.file, "action {}\nprocessor {used}", now - self.woken.load(Ordering::Relaxed));
        }
    }

    fn flush(&self) {}
}

/// What was written: all numbers after this word, in nanoseconds.
pub fn read(path: &Path, word: &str) -> Vec<Duration> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let numbers = text.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' ')?.parse().ok());
    numbers.map(Duration::from_nanos).collect()
}
