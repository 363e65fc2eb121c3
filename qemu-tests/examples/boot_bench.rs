//! How much longer an appliance takes to a container's first line than the least possible PID 1 to its own.
//!
//! ```text
//! cargo run --release -p garboard-qemu --example boot_bench -- out [--runs 11] [--machine microvm|q35]
//! ```
//!
//! Both boot the same kernel on the same machine with the same memory. Runs alternate, so that what else the computer does
//! strikes both alike. Prints every run, both medians and their ratio.

#[path = "../tests/support/bare.rs"]
mod bare;

use std::error::Error;
use std::time::Duration;

use garboard_qemu::{Image, Machine, Vm, secs};

const USAGE: &str = "usage: boot_bench DIRECTORY [--runs N] [--machine microvm|q35]";
const LIMIT: Duration = secs(120);

fn main() -> Result<(), Box<dyn Error>> {
    let (mut directory, mut runs, mut machine) = (None, 11u32, Machine::Microvm);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--runs" => runs = arguments.next().ok_or(USAGE)?.parse::<u32>()?.max(1),
            "--machine" => machine = arguments.next().ok_or(USAGE)?.parse()?,
            _ => directory = Some(argument),
        }
    }
    let image = Image::load(directory.ok_or(USAGE)?)?;
    let scratch = tempfile::tempdir()?;
    let mut bare = Image::bare(&image.kernel, bare::initrd(scratch.path())?, &image.cmdline);
    bare.memory_mb = image.memory_mb;

    println!("{machine}, {} MiB, {runs} alternating runs", image.memory_mb);
    println!("milliseconds from the start of QEMU, and of processor time that QEMU used for it");
    println!("{:>6} {:>10} {:>10} {:>14} {:>14}", "run", "bare init", "container", "bare init cpu", "container cpu");
    let (mut least, mut ours) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        let a = first_line(&bare, machine, |line| line == "bare init")?;
        let b = first_line(&image, machine, |line| is_container_line(line, &image.containers))?;
        print_row(&run.to_string(), a, b);
        least.push(a);
        ours.push(b);
    }
    let (least, ours) = (medians(&least), medians(&ours));
    print_row("median", least, ours);
    let ratio = |a: Duration, b: Duration| b.as_secs_f64() / a.as_secs_f64();
    println!("ratio {:.3}, by processor time {:.3}", ratio(least.0, ours.0), ratio(least.1, ours.1));
    Ok(())
}

/// Time on the clock and on the processor.
type Times = (Duration, Duration);

fn print_row(name: &str, least: Times, ours: Times) {
    let [a, b, c, d] = [least.0, ours.0, least.1, ours.1].map(|time| time.as_millis());
    println!("{name:>6} {a:>10} {b:>10} {c:>14} {d:>14}");
}

fn first_line(
    image: &Image,
    machine: Machine,
    wanted: impl FnMut(&str) -> bool,
) -> Result<Times, garboard_qemu::Error> {
    let vm = Vm::builder(image).machine(machine).boot()?;
    let time = vm.wait_line(LIMIT, wanted)?;
    Ok((time, vm.cpu_time()))
}

/// `name | text`, the name padded.
fn is_container_line(line: &str, containers: &[String]) -> bool {
    line.split_once(" | ").is_some_and(|(name, _)| containers.iter().any(|container| container == name.trim_end()))
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
