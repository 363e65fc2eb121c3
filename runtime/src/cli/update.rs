//! `update`: other limits for a container that lives, from a file or from flags.

use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::args::{Flag, Name, Parsed, Reader};
use super::log;
use crate::compile;
use crate::container::error::During;
use crate::container::store::Store;
use crate::container::update::update;
use crate::container::{Error, Result};

/// What isn't named stays as it is. Of a number, 0 names nothing (but of processes since version 1.3) and -1 means no limit.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Update {
    resources: Option<PathBuf>,
    blkio_weight: Option<u16>,
    cpu_period: Option<u64>,
    cpu_quota: Option<i64>,
    cpu_burst: Option<u64>,
    cpu_share: Option<u64>,
    cpu_idle: Option<i64>,
    cpu_rt_period: Option<u64>,
    cpu_rt_runtime: Option<i64>,
    cpuset_cpus: Option<String>,
    cpuset_mems: Option<String>,
    memory: Option<i64>,
    memory_reservation: Option<i64>,
    memory_swap: Option<i64>,
    kernel_memory: Option<i64>,
    kernel_memory_tcp: Option<i64>,
    pids_limit: Option<i64>,
    l3_cache_schema: Option<String>,
    mem_bw_schema: Option<String>,
    name: Name,
}

impl Update {
    pub(super) const FLAGS: &'static [Flag] = &[
        Flag::value(
            "r",
            "resources",
            "FILE",
            r#"Limits as JSON (runtime spec, "Control groups": the value of linux.resources), `-` for standard input; flags don't count then"#,
        ),
        Flag::value("", "blkio-weight", "WEIGHT", "Share of input and output, from 10 to 1000"),
        Flag::value("", "cpu-period", "US", "Length of a period in which processor time is counted, in microseconds"),
        Flag::value("", "cpu-quota", "US", "Processor time in each period, in microseconds"),
        Flag::value("", "cpu-burst", "US", "What of it may be saved up, in microseconds"),
        Flag::value("", "cpu-share", "SHARES", "Share of processor time; 1024 is everybody's"),
        Flag::value("", "cpu-idle", "0|1", "1: run only when nobody else wants to"),
        Flag::value("", "cpu-rt-period", "US", "Real-time period; cgroup version 2 has none"),
        Flag::value("", "cpu-rt-runtime", "US", "Real-time runtime; cgroup version 2 has none"),
        Flag::value("", "cpuset-cpus", "LIST", "Processors, such as 0-2,4"),
        Flag::value("", "cpuset-mems", "LIST", "Memory nodes"),
        Flag::value("", "memory", "BYTES", "Memory, in bytes or such as 64m"),
        Flag::value(
            "",
            "memory-reservation",
            "BYTES",
            "Memory that is only taken away when the machine is short of it",
        ),
        Flag::value("", "memory-swap", "BYTES", "Memory and swap together"),
        Flag::value("", "kernel-memory", "BYTES", "Kernel memory; cgroup version 2 counts it with the rest"),
        Flag::value("", "kernel-memory-tcp", "BYTES", "Kernel memory for TCP buffers; likewise"),
        Flag::value("", "pids-limit", "N", "Number of processes"),
        Flag::value("", "l3-cache-schema", "SCHEMA", "Cache of the container's class (Intel RDT), such as L3:0=f"),
        Flag::value(
            "",
            "mem-bw-schema",
            "SCHEMA",
            "Memory bandwidth of the container's class (Intel RDT), such as MB:0=50",
        ),
    ];

    pub(super) fn read(reader: &mut Reader) -> Parsed<Self> {
        let mut update = Self::default();
        while let Some(given) = reader.next()? {
            match given {
                "resources" => update.resources = Some(reader.path()?),
                "blkio-weight" => update.blkio_weight = Some(reader.number()?),
                "cpu-period" => update.cpu_period = Some(reader.number()?),
                "cpu-quota" => update.cpu_quota = Some(reader.number()?),
                "cpu-burst" => update.cpu_burst = Some(reader.number()?),
                "cpu-share" => update.cpu_share = Some(reader.number()?),
                "cpu-idle" => update.cpu_idle = Some(reader.number()?),
                "cpu-rt-period" => update.cpu_rt_period = Some(reader.number()?),
                "cpu-rt-runtime" => update.cpu_rt_runtime = Some(reader.number()?),
                "cpuset-cpus" => update.cpuset_cpus = Some(reader.text()?),
                "cpuset-mems" => update.cpuset_mems = Some(reader.text()?),
                "memory" => update.memory = Some(reader.parsed(bytes)?),
                "memory-reservation" => update.memory_reservation = Some(reader.parsed(bytes)?),
                "memory-swap" => update.memory_swap = Some(reader.parsed(bytes)?),
                "kernel-memory" => update.kernel_memory = Some(reader.parsed(bytes)?),
                "kernel-memory-tcp" => update.kernel_memory_tcp = Some(reader.parsed(bytes)?),
                "pids-limit" => update.pids_limit = Some(reader.number()?),
                "l3-cache-schema" => update.l3_cache_schema = Some(reader.text()?),
                "mem-bw-schema" => update.mem_bw_schema = Some(reader.text()?),
                "CONTAINER" => update.name = Name::last(reader)?,
                other => return Err(reader.unknown(other)),
            }
        }
        Ok(update)
    }
}

#[inline(never)]
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
    let pids = flags.pids_limit.map(|limit| {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        pids
    });
    let mut block_io = LinuxBlockIo::default();
    block_io.set_weight(flags.blkio_weight);

    let mut resources = LinuxResources::default();
    resources
        .set_memory(named(memory))
        .set_cpu(named(cpu))
        .set_pids(pids)
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
        let none = resources_of(&Update::default());
        assert_eq!(serde_json::to_value(&none).unwrap(), serde_json::json!({}));
        // What that means is for the container's configuration to say.
        let zero = resources_of(&Update { pids_limit: Some(0), ..Update::default() });
        assert_eq!(serde_json::to_value(&zero).unwrap(), serde_json::json!({"pids": {"limit": 0}}));
        let some = resources_of(&Update { memory: Some(-1), cpu_share: Some(2), ..Update::default() });
        let expected = serde_json::json!({"memory": {"limit": -1}, "cpu": {"shares": 2}});
        assert_eq!(serde_json::to_value(&some).unwrap(), expected);
    }
}
