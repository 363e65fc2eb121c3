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

    println!("{machine}, {} MiB, {runs} alternating runs; milliseconds from the start of QEMU", image.memory_mb);
    println!("{:>4} {:>10} {:>10}", "run", "bare init", "container");
    let (mut least, mut ours) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        least.push(first_line(&bare, machine, |line| line == "bare init")?);
        ours.push(first_line(&image, machine, |line| is_container_line(line, &image.containers))?);
        println!("{run:>4} {:>10} {:>10}", least[least.len() - 1].as_millis(), ours[ours.len() - 1].as_millis());
    }
    let (least, ours) = (median(least), median(ours));
    println!("median {:>8} {:>10}", least.as_millis(), ours.as_millis());
    println!("ratio {:.3}", ours.as_secs_f64() / least.as_secs_f64());
    Ok(())
}

fn first_line(
    image: &Image,
    machine: Machine,
    wanted: impl FnMut(&str) -> bool,
) -> Result<Duration, garboard_qemu::Error> {
    Vm::builder(image).machine(machine).boot()?.wait_line(LIMIT, wanted)
}

/// `name | text`, the name padded.
fn is_container_line(line: &str, containers: &[String]) -> bool {
    line.split_once(" | ").is_some_and(|(name, _)| containers.iter().any(|container| container == name.trim_end()))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
