//! What a container uses, from its cgroup's files, in the shape that runc's `events` has and its callers read. What a kernel or
//! its configuration doesn't count is left out, or 0 where the shape always has it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use serde::Serialize;

use crate::cgroup::read;

/// All of it. Times are in nanoseconds, sizes in bytes; 2⁶⁴ − 1 is no limit.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    cpu: Cpu,
    cpuset: Cpuset,
    memory: Memory,
    pids: Pids,
    blkio: Blkio,
    hugetlb: BTreeMap<String, Hugetlb>,
    intel_rdt: Empty,
    network_interfaces: Option<Empty>,
}

/// What has no part here.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Empty {}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Cpu {
    usage: CpuUsage,
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct CpuUsage {
    total: u64,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    periods: u64,
    throttled_periods: u64,
    throttled_time: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Cpuset {
    cpus: Vec<u16>,
    mems: Vec<u16>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Memory {
    cache: u64,
    usage: MemoryEntry,
    swap: MemoryEntry,
    kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: MemoryEntry,
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct MemoryEntry {
    limit: u64,
    usage: u64,
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Pids {
    current: u64,
    /// 0 is no limit.
    limit: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Blkio {
    io_service_bytes_recursive: Vec<BlkioEntry>,
    io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

#[derive(Debug, PartialEq, Serialize)]
struct BlkioEntry {
    major: u32,
    minor: u32,
    op: &'static str,
    value: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Hugetlb {
    usage: u64,
    failcnt: u64,
}

/// Pressure stall information (Documentation/accounting/psi.rst); times in microseconds as the kernel has them.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Pressure {
    some: Stall,
    full: Stall,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Stall {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    total: u64,
}

/// Reads them from the cgroup `group`.
#[must_use]
pub fn stats(group: impl AsFd) -> Stats {
    let group = group.as_fd();
    Stats {
        cpu: cpu(group),
        cpuset: Cpuset {
            cpus: list(&text(group, "cpuset.cpus.effective")),
            mems: list(&text(group, "cpuset.mems.effective")),
        },
        memory: memory(group),
        pids: Pids { current: number(group, "pids.current"), limit: limit(group, "pids.max").unwrap_or(0) },
        blkio: blkio(group),
        hugetlb: hugetlb(group),
        ..Stats::default()
    }
}

fn cpu(group: BorrowedFd<'_>) -> Cpu {
    let stat = keyed(&text(group, "cpu.stat"));
    let count = |key: &str| stat.get(key).copied().unwrap_or(0);
    let time = |key: &str| count(key).saturating_mul(1000);
    Cpu {
        usage: CpuUsage { total: time("usage_usec"), kernel: time("system_usec"), user: time("user_usec") },
        throttling: Throttling {
            periods: count("nr_periods"),
            throttled_periods: count("nr_throttled"),
            throttled_time: time("throttled_usec"),
        },
        psi: pressure(group, "cpu.pressure"),
    }
}

/// Swap is told together with memory, as it was in cgroup version 1.
fn memory(group: BorrowedFd<'_>) -> Memory {
    let raw = keyed(&text(group, "memory.stat"));
    let count = |key: &str| raw.get(key).copied().unwrap_or(0);
    let events = keyed(&text(group, "memory.events"));
    let (used, swapped) = (number(group, "memory.current"), number(group, "memory.swap.current"));
    let (most, swap_most) = (limit(group, "memory.max"), limit(group, "memory.swap.max"));
    // Without the controller there is no limit either.
    let both = most.zip(swap_most).map_or(u64::MAX, |(memory, swap)| memory.saturating_add(swap));
    let swap_events = keyed(&text(group, "memory.swap.events"));
    Memory {
        cache: count("file"),
        usage: MemoryEntry {
            limit: most.unwrap_or(u64::MAX),
            usage: used,
            max: number(group, "memory.peak"),
            failcnt: events.get("max").copied().unwrap_or(0),
        },
        swap: MemoryEntry {
            limit: both,
            usage: used.saturating_add(swapped),
            max: 0,
            failcnt: swap_events.get("max").copied().unwrap_or(0),
        },
        kernel: MemoryEntry { usage: count("kernel"), ..MemoryEntry::default() },
        kernel_tcp: MemoryEntry { usage: count("sock"), ..MemoryEntry::default() },
        psi: pressure(group, "memory.pressure"),
        raw,
    }
}

/// Reads and writes of every disk. Discards have no place in the shape.
fn blkio(group: BorrowedFd<'_>) -> Blkio {
    let mut blkio = Blkio { psi: pressure(group, "io.pressure"), ..Blkio::default() };
    for line in text(group, "io.stat").lines() {
        let mut words = line.split_whitespace();
        let device = words.next().and_then(|device| device.split_once(':'));
        let Some((Ok(major), Ok(minor))) = device.map(|(major, minor)| (major.parse(), minor.parse())) else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (table, op) = match key {
                "rbytes" => (&mut blkio.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut blkio.io_service_bytes_recursive, "Write"),
                "rios" => (&mut blkio.io_serviced_recursive, "Read"),
                "wios" => (&mut blkio.io_serviced_recursive, "Write"),
                _ => continue,
            };
            table.push(BlkioEntry { major, minor, op, value: value.parse().unwrap_or(0) });
        }
    }
    blkio
}

/// Sizes of pages are found by their files. Reservations count where the kernel counts them, as they are what is limited.
fn hugetlb(group: BorrowedFd<'_>) -> BTreeMap<String, Hugetlb> {
    let mut sizes = BTreeMap::new();
    let Ok(entries) = rustix::fs::Dir::read_from(group) else { return sizes };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy();
        let size = name.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(".current"));
        let Some(size) = size.filter(|size| !size.contains('.')) else { continue };
        let reserved = read(group, &format!("hugetlb.{size}.rsvd.current")).ok();
        let usage = reserved.map_or_else(|| number(group, &name), |text| text.trim().parse().unwrap_or(0));
        let events = keyed(&text(group, &format!("hugetlb.{size}.events")));
        sizes.insert(size.to_owned(), Hugetlb { usage, failcnt: events.get("max").copied().unwrap_or(0) });
    }
    sizes
}

fn pressure(group: BorrowedFd<'_>, file: &str) -> Option<Pressure> {
    // EOPNOTSUPP where it is switched off.
    let text = read(group, file).ok()?;
    let stall = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)).unwrap_or_default();
        let mut stall = Stall::default();
        for (key, value) in line.split_whitespace().filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => stall.avg10 = value.parse().unwrap_or(0.0),
                "avg60" => stall.avg60 = value.parse().unwrap_or(0.0),
                "avg300" => stall.avg300 = value.parse().unwrap_or(0.0),
                "total" => stall.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        stall
    };
    Some(Pressure { some: stall("some "), full: stall("full ") })
}

fn text(group: BorrowedFd<'_>, file: &str) -> String {
    read(group, file).unwrap_or_default()
}

fn number(group: BorrowedFd<'_>, file: &str) -> u64 {
    text(group, file).trim().parse().unwrap_or(0)
}

/// `None`: no limit, or nobody to hold it.
fn limit(group: BorrowedFd<'_>, file: &str) -> Option<u64> {
    text(group, file).trim().parse().ok()
}

fn keyed(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| line.split_once(' ').and_then(|(key, value)| Some((key.to_owned(), value.parse().ok()?)));
    text.lines().filter_map(pair).collect()
}

/// `0-2,4` in full.
fn list(text: &str) -> Vec<u16> {
    let range = |part: &str| -> Option<std::ops::RangeInclusive<u16>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_fake(files: &[(&str, &str)]) -> serde_json::Value {
        let directory = tempfile::tempdir().unwrap();
        for (file, text) in files {
            std::fs::write(directory.path().join(file), text).unwrap();
        }
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        let fd = rustix::fs::open(directory.path(), flags, rustix::fs::Mode::empty()).unwrap();
        serde_json::to_value(stats(&fd)).unwrap()
    }

    #[test]
    fn files_become_the_shape_that_callers_know() {
        let found = read_fake(&[
            (
                "cpu.stat",
                "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\nnr_periods 7\nnr_throttled 2\nthrottled_usec 9\n",
            ),
            (
                "cpu.pressure",
                "some avg10=1.50 avg60=0.25 avg300=0.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
            ),
            ("cpuset.cpus.effective", "0-2,4\n"),
            ("cpuset.mems.effective", "0\n"),
            ("memory.current", "8192\n"),
            ("memory.peak", "16384\n"),
            ("memory.max", "65536\n"),
            ("memory.swap.current", "100\n"),
            ("memory.swap.max", "1000\n"),
            ("memory.stat", "anon 4096\nfile 2048\nkernel 512\nsock 16\n"),
            ("memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n"),
            ("pids.current", "5\n"),
            ("pids.max", "64\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n253:1 rbytes=9\n"),
            ("hugetlb.2MB.current", "0\n"),
            ("hugetlb.2MB.rsvd.current", "2097152\n"),
            ("hugetlb.2MB.events", "max 8\n"),
        ]);
        assert_eq!(
            found["cpu"]["usage"],
            serde_json::json!({"total": 5_000_000, "kernel": 2_000_000, "user": 3_000_000})
        );
        let throttling = serde_json::json!({"periods": 7, "throttledPeriods": 2, "throttledTime": 9000});
        assert_eq!(found["cpu"]["throttling"], throttling);
        assert_eq!(found["cpu"]["psi"]["some"]["avg10"], 1.5);
        assert_eq!(found["cpu"]["psi"]["full"]["total"], 7);
        assert_eq!(found["cpuset"], serde_json::json!({"cpus": [0, 1, 2, 4], "mems": [0]}));
        let usage = serde_json::json!({"limit": 65536, "usage": 8192, "max": 16384, "failcnt": 3});
        assert_eq!(found["memory"]["usage"], usage);
        assert_eq!(found["memory"]["swap"]["limit"], 66536);
        assert_eq!(found["memory"]["swap"]["usage"], 8292);
        assert_eq!((&found["memory"]["cache"], &found["memory"]["raw"]["anon"]), (&2048.into(), &4096.into()));
        assert_eq!(found["memory"]["kernelTCP"]["usage"], 16);
        assert_eq!(found["pids"], serde_json::json!({"current": 5, "limit": 64}));
        let bytes = &found["blkio"]["ioServiceBytesRecursive"];
        assert_eq!(bytes[0], serde_json::json!({"major": 8, "minor": 0, "op": "Read", "value": 1}));
        assert_eq!((bytes[1]["op"].as_str(), bytes[2]["major"].as_u64()), (Some("Write"), Some(253)));
        assert_eq!(found["blkio"]["ioServicedRecursive"][1]["value"], 4);
        assert_eq!(found["hugetlb"], serde_json::json!({"2MB": {"usage": 2_097_152, "failcnt": 8}}));
    }

    #[test]
    fn what_isn_t_counted_is_zero_and_no_limit_is_the_greatest_number() {
        let found =
            read_fake(&[("pids.max", "max\n"), ("memory.max", "max\n"), ("io.stat", "junk\n:\n8:x rbytes=1\n")]);
        assert_eq!(found["memory"]["usage"]["limit"], u64::MAX);
        assert_eq!(found["memory"]["swap"]["limit"], u64::MAX);
        assert_eq!(found["pids"], serde_json::json!({"current": 0, "limit": 0}));
        assert_eq!(found["blkio"]["ioServiceBytesRecursive"], serde_json::json!([]));
        assert_eq!(found["cpu"].get("psi"), None);
    }
}
