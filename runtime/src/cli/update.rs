//! `update`: other limits for a container that lives, from a file or from flags.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::args::Name;
use super::log;
use crate::compile;
use crate::container::error::During;
use crate::container::store::Store;
use crate::container::update::update;
use crate::container::{Error, Result};

/// What isn't named stays as it is. Of a number, 0 names nothing and -1 means no limit.
#[derive(Debug, Default, PartialEq, Args)]
pub(super) struct Update {
    /// Limits as JSON (runtime spec, "Control groups": the value of linux.resources), `-` for standard input; flags don't count then.
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Share of input and output, from 10 to 1000.
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Length of a period in which processor time is counted, in microseconds.
    #[arg(long, value_name = "US")]
    cpu_period: Option<u64>,
    /// Processor time in each period, in microseconds.
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// What of it may be saved up, in microseconds.
    #[arg(long, value_name = "US")]
    cpu_burst: Option<u64>,
    /// Share of processor time; 1024 is everybody's.
    #[arg(long, value_name = "SHARES")]
    cpu_share: Option<u64>,
    /// 1: run only when nobody else wants to.
    #[arg(long, value_name = "0|1")]
    cpu_idle: Option<i64>,
    /// Real-time period; cgroup version 2 has none.
    #[arg(long, value_name = "US")]
    cpu_rt_period: Option<u64>,
    /// Real-time runtime; cgroup version 2 has none.
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    cpu_rt_runtime: Option<i64>,
    /// Processors, such as 0-2,4.
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes.
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Memory, in bytes or such as 64m.
    #[arg(long, value_name = "BYTES", value_parser = bytes, allow_negative_numbers = true)]
    memory: Option<i64>,
    /// Memory that is only taken away when the machine is short of it.
    #[arg(long, value_name = "BYTES", value_parser = bytes, allow_negative_numbers = true)]
    memory_reservation: Option<i64>,
    /// Memory and swap together.
    #[arg(long, value_name = "BYTES", value_parser = bytes, allow_negative_numbers = true)]
    memory_swap: Option<i64>,
    /// Kernel memory; cgroup version 2 counts it with the rest.
    #[arg(long, value_name = "BYTES", value_parser = bytes, allow_negative_numbers = true)]
    kernel_memory: Option<i64>,
    /// Kernel memory for TCP buffers; likewise.
    #[arg(long, value_name = "BYTES", value_parser = bytes, allow_negative_numbers = true)]
    kernel_memory_tcp: Option<i64>,
    /// Number of processes.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Cache of the container's class (Intel RDT), such as L3:0=f.
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// Memory bandwidth of the container's class (Intel RDT), such as MB:0=50.
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
    #[command(flatten)]
    name: Name,
}

pub(super) fn run(store: &Store, arguments: &Update) -> Result<u8> {
    let entry = store.find(&arguments.name.id)?;
    let resources = match &arguments.resources {
        Some(path) => {
            if resources_of(arguments) != LinuxResources::default() {
                log::warn("flags beside --resources have no effect");
            }
            read(path)?
        }
        None => resources_of(arguments),
    };
    let schemata = [&arguments.l3_cache_schema, &arguments.mem_bw_schema];
    let schemata: Vec<String> = schemata.into_iter().flatten().filter(|line| !line.is_empty()).cloned().collect();
    let _lock = entry.lock()?;
    update(&entry, resources, &schemata)?;
    Ok(0)
}

fn read(path: &Path) -> Result<LinuxResources> {
    let what = || format!("read {}", path.display());
    let mut json = Vec::new();
    let limit = compile::MAX_CONFIG as u64 + 1;
    if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut json).during(what)?;
    } else {
        std::fs::File::open(path).during(what)?.take(limit).read_to_end(&mut json).during(what)?;
    }
    compile::read_resources(&json).map_err(|error| Error::new(format!("{}: {error}", what())))
}

/// The flags as a configuration would say them.
fn resources_of(flags: &Update) -> LinuxResources {
    let mut memory = LinuxMemory::default();
    memory
        .set_limit(flags.memory)
        .set_reservation(flags.memory_reservation)
        .set_swap(flags.memory_swap)
        .set_kernel(flags.kernel_memory)
        .set_kernel_tcp(flags.kernel_memory_tcp);
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(flags.cpu_share)
        .set_quota(flags.cpu_quota)
        .set_period(flags.cpu_period)
        .set_burst(flags.cpu_burst)
        .set_idle(flags.cpu_idle)
        .set_realtime_period(flags.cpu_rt_period)
        .set_realtime_runtime(flags.cpu_rt_runtime)
        .set_cpus(flags.cpuset_cpus.clone())
        .set_mems(flags.cpuset_mems.clone());
    let mut pids = LinuxPids::default();
    pids.set_limit(flags.pids_limit.unwrap_or(0));
    let mut block_io = LinuxBlockIo::default();
    block_io.set_weight(flags.blkio_weight);

    let mut resources = LinuxResources::default();
    resources
        .set_memory(named(memory))
        .set_cpu(named(cpu))
        .set_pids(named(pids))
        .set_block_io(named(block_io))
        // The type's own default isn't empty.
        .set_devices(None);
    resources
}

fn named<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

/// Whole bytes, with `k`, `m`, `g` or `t` in multiples of 1024, as runc takes them; -1 for no limit.
fn bytes(text: &str) -> std::result::Result<i64, String> {
    let wrong = || format!("{text:?} is no number of bytes such as 67108864 or 64m, nor -1");
    if text == "-1" {
        return Ok(-1);
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let number: i64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_bytes() {
        for (text, value) in [("0", 0), ("-1", -1), ("4096", 4096), ("64m", 64 << 20), ("1G", 1 << 30), ("2KiB", 2048)]
        {
            assert_eq!(bytes(text), Ok(value), "{text}");
        }
        for wrong in ["", "-", "-2", "m", "1.5g", "+1", " 1", "1 m", "0x10", "1x", "9223372036854775808", "8388608t"] {
            assert!(bytes(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn no_flag_names_nothing() {
        let none = resources_of(&Update { pids_limit: Some(0), ..Update::default() });
        assert_eq!(serde_json::to_value(&none).unwrap(), serde_json::json!({}));
        let some = resources_of(&Update { memory: Some(-1), cpu_share: Some(2), ..Update::default() });
        let expected = serde_json::json!({"memory": {"limit": -1}, "cpu": {"shares": 2}});
        assert_eq!(serde_json::to_value(&some).unwrap(), expected);
    }
}
