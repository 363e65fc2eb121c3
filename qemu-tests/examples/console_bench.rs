//! How much longer an appliance takes to be ready when nobody reads its serial line, or who reads it stalls.
//!
//! ```text
//! cargo run --release -p garboard-qemu --example console_bench -- out [--runs 9]
//! ```
//!
//! Readiness is asked for on the status port. Runs alternate, so that what else the computer does strikes all alike. Prints every
//! run, the medians and their ratios to that of a line that is read.

use std::error::Error;
use std::time::Duration;

use garboard_qemu::{Image, Vm, secs};

const USAGE: &str = "usage: console_bench DIRECTORY [--runs N]";
const LIMIT: Duration = secs(120);

/// What becomes of the line.
#[derive(Clone, Copy)]
enum Reader {
    Reads,
    Absent,
    /// After the first piece that came.
    Stalls,
}

const READERS: [(&str, Reader); 3] = [("read", Reader::Reads), ("unread", Reader::Absent), ("stalled", Reader::Stalls)];

/// Time on the clock and on the processor.
type Times = (Duration, Duration);

fn main() -> Result<(), Box<dyn Error>> {
    let (mut directory, mut runs) = (None, 9u32);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--runs" => runs = arguments.next().ok_or(USAGE)?.parse::<u32>()?.max(1),
            _ => directory = Some(argument),
        }
    }
    let image = Image::load(directory.ok_or(USAGE)?)?;
    println!("microvm, {} MiB, {runs} alternating runs", image.memory_mb);
    println!("milliseconds from the start of QEMU until it is ready, and of processor time that QEMU used for it");
    println!("{:>8} {:>8} {:>8}", "line", "clock", "cpu");
    let mut all: [Vec<Times>; 3] = Default::default();
    for _ in 0..runs {
        for ((name, reader), times) in READERS.into_iter().zip(&mut all) {
            let time = ready(&image, reader)?;
            println!("{name:>8} {:>8} {:>8}", time.0.as_millis(), time.1.as_millis());
            times.push(time);
        }
    }
    println!("medians, and their ratios to that of a line that is read");
    let read = medians(&all[0]);
    for ((name, _), times) in READERS.into_iter().zip(&all) {
        let (clock, cpu) = medians(times);
        let ratio = |time: Duration, of: Duration| time.as_secs_f64() / of.as_secs_f64();
        let (clock_ratio, cpu_ratio) = (ratio(clock, read.0), ratio(cpu, read.1));
        println!("{name:>8} {:>8} {:>8} {clock_ratio:8.3} {cpu_ratio:8.3}", clock.as_millis(), cpu.as_millis());
    }
    Ok(())
}

fn ready(image: &Image, reader: Reader) -> Result<Times, garboard_qemu::Error> {
    let builder = Vm::builder(image);
    let vm = match reader {
        Reader::Absent => builder.unread_console().boot()?,
        Reader::Reads | Reader::Stalls => builder.boot()?,
    };
    if matches!(reader, Reader::Stalls) {
        vm.console().hold();
    }
    vm.wait_ready(LIMIT)?;
    Ok((vm.elapsed(), vm.cpu_time()))
}

/// The median of each.
fn medians(times: &[Times]) -> Times {
    let median = |of: fn(&Times) -> Duration| {
        let mut all: Vec<Duration> = times.iter().map(of).collect();
        all.sort();
        all[all.len() / 2]
    };
    (median(|times| times.0), median(|times| times.1))
}
