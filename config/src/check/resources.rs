//! Limits that must fit each other.

use std::collections::BTreeMap;

use super::value;
use crate::container::{CpuQuota, Io, IoDevice, Limit, Ulimit};
use crate::errors::quote;
use crate::keys::{BlkioKeys, BytesRate, ContainerKeys, CountRate, UlimitKeys, Weighted};
use crate::problems::{Problems, Span};
use crate::read::{At, Field, Int, List, Named, ShortOrLong, Table, nearest};
use crate::syntax::{MOST_CPUS, Rlim, ULIMITS};

/// A tiny static program runs in it; in half of it, none does.
const MIN_MEMORY: u64 = 512 << 10;
/// The kernel's default, in µs.
const DEFAULT_PERIOD: u64 = 100_000;

/// The memory limits of a container.
pub(super) struct Memory {
    pub(super) limit: Option<u64>,
    pub(super) with_swap: Option<Limit>,
    pub(super) reservation: Option<u64>,
}

pub(super) fn memory(keys: &ContainerKeys, problems: &mut Problems) -> Memory {
    let (limit, with_swap, reservation) = (&keys.mem_limit, &keys.memswap_limit, &keys.mem_reservation);
    if let Some(field) = limit.as_ref().filter(|field| field.value.0 < MIN_MEMORY) {
        let bytes = field.value.0;
        let problem =
            problems.error(&field.span, format!("a memory limit of {bytes} bytes is too small for any program"));
        problem.help(match bytes {
            // As many MiB as a machine may have, or else KiB.
            1..=16_384 => format!("a size without a unit is in bytes: did you mean \"{bytes}m\"?"),
            16_385..=524_287 => format!("a size without a unit is in bytes: did you mean \"{bytes}k\"?"),
            _ => "write at least \"512k\"".to_owned(),
        });
    }
    if let Some(field) = with_swap {
        match (limit, field.value.0) {
            (None, _) if !keys.given("mem_limit") => {
                problems
                    .error(&field.key, "`memswap_limit` needs `mem_limit`, on top of which it counts swap")
                    .help("add `mem_limit`");
            }
            (Some(limit), Some(bytes)) if bytes < limit.value.0 => {
                problems
                    .error(&field.span, "`memswap_limit` is smaller than `mem_limit`")
                    .help("it is memory and swap together: write the same as `mem_limit` for no swap")
                    .related(&limit.span, "the memory limit");
            }
            _ => {}
        }
    }
    if let (Some(limit), Some(reservation)) = (limit, reservation)
        && reservation.value.0 > limit.value.0
    {
        problems
            .error(&reservation.span, "`mem_reservation` is larger than `mem_limit`")
            .help("write at most the memory limit")
            .related(&limit.span, "the memory limit");
    }
    Memory {
        limit: limit.as_ref().map(|field| field.value.0),
        with_swap: with_swap.as_ref().map(|field| field.value.0.map_or(Limit::Unlimited, Limit::At)),
        reservation: reservation.as_ref().map(|field| field.value.0),
    }
}

/// The processor time that `cpus`, or `cpu_quota` and `cpu_period`, allow.
pub(super) fn cpu(keys: &ContainerKeys, problems: &mut Problems) -> Option<CpuQuota> {
    let (quota, period) = (&keys.cpu_quota, &keys.cpu_period);
    if let (Some(cpus), Some(other)) = (&keys.cpus, quota.as_ref().or(period.as_ref())) {
        problems
            .error(&other.key, "`cpus` already says how much processor time there is")
            .help("leave out one or the other")
            .related(&cpus.key, "said here");
    }
    if let Some(cpus) = &keys.cpus {
        return Some(CpuQuota { quota_us: cpus.value.0, period_us: DEFAULT_PERIOD });
    }
    if let Some(field) = period.as_ref().filter(|field| !(1_000..=1_000_000).contains(&field.value.0)) {
        problems.error(&field.span, "the period must be from 1 ms to 1 s").help("write \"100ms\" or 100000");
    }
    if let Some(field) = quota.as_ref().filter(|field| field.value.0 < 1_000) {
        problems
            .error(&field.span, "the quota must be at least 1 ms")
            .help("a number without a unit is in microseconds");
    }
    match (quota, period) {
        (Some(quota), period) => {
            let period_us = period.as_ref().map_or(DEFAULT_PERIOD, |field| field.value.0);
            if quota.value.0 > period_us.saturating_mul(MOST_CPUS.into()) {
                problems
                    .error(&quota.span, format!("the quota is more than {MOST_CPUS} processors' time"))
                    .help("a number without a unit is in microseconds; leave it out for no limit");
            }
            Some(CpuQuota { quota_us: quota.value.0, period_us })
        }
        (None, Some(period)) if !keys.given("cpu_quota") => {
            problems
                .error(&period.key, "`cpu_period` alone limits nothing")
                .help("add `cpu_quota`, or write `cpus` instead");
            None
        }
        (None, _) => None,
    }
}

pub(super) fn pids(field: Option<Field<Int<-1, 4_194_304>>>, default: Limit, problems: &mut Problems) -> Limit {
    let Some(field) = field else {
        return default;
    };
    match field.value.get() {
        -1 => Limit::Unlimited,
        0 => {
            problems.error(&field.span, "a container can't run with no process at all").help("write -1 for no limit");
            default
        }
        _ => Limit::At(field.value.unsigned()),
    }
}

pub(super) fn io(keys: BlkioKeys, problems: &mut Problems) -> Io {
    let mut devices = Devices { found: Vec::new(), places: BTreeMap::new(), problems };
    for Weighted { path, weight, .. } in entries(keys.weight_device, &mut devices) {
        devices.set(path, weight, |device| &mut device.weight, |weight| u16::try_from(weight.unsigned()).ok());
    }
    type Slot = fn(&mut IoDevice) -> &mut Option<u64>;
    let bytes: [(_, Slot); 2] = [
        (keys.device_read_bps, |device| &mut device.read_bps),
        (keys.device_write_bps, |device| &mut device.write_bps),
    ];
    for (list, slot) in bytes {
        for BytesRate { path, rate, .. } in entries(list, &mut devices) {
            devices.set(path, rate, slot, |rate| (rate.0 > 0).then_some(rate.0));
        }
    }
    let counts: [(_, Slot); 2] = [
        (keys.device_read_iops, |device| &mut device.read_iops),
        (keys.device_write_iops, |device| &mut device.write_iops),
    ];
    for (list, slot) in counts {
        for CountRate { path, rate, .. } in entries(list, &mut devices) {
            devices.set(path, rate, slot, |rate| Some(rate.unsigned()));
        }
    }
    Io { weight: keys.weight.and_then(|field| u16::try_from(field.value.unsigned()).ok()), devices: devices.found }
}

/// The entries of one list of `blkio_config` that have both their keys.
fn entries<T: Rated>(list: Option<Field<List<T>>>, devices: &mut Devices<'_>) -> Vec<T> {
    let list = value(list).map(|list| list.0).unwrap_or_default();
    list.into_iter().filter_map(|entry| entry.value.complete(&entry.span, devices.problems)).collect()
}

/// An entry that names a device and one setting.
trait Rated: Sized {
    /// Itself, if nothing is missing.
    fn complete(self, span: &Span, problems: &mut Problems) -> Option<Self>;
}

macro_rules! rated {
    ($($type:ident: $setting:ident;)*) => { $(
        impl Rated for $type {
            fn complete(self, span: &Span, problems: &mut Problems) -> Option<Self> {
                if self.given("path") && self.given(stringify!($setting)) {
                    return Some(self);
                }
                problems.error(span, concat!("the entry needs `path` and `", stringify!($setting), "`"));
                None
            }
        }
    )* };
}
rated! { Weighted: weight; BytesRate: rate; CountRate: rate; }

/// Settings by device, collected from lists by setting.
struct Devices<'a> {
    found: Vec<IoDevice>,
    /// Where each path is in `found`.
    places: BTreeMap<String, usize>,
    problems: &'a mut Problems,
}

impl Devices<'_> {
    fn set<T, V>(
        &mut self,
        path: Option<Field<crate::syntax::DevicePath>>,
        setting: Option<Field<T>>,
        slot: impl Fn(&mut IoDevice) -> &mut Option<V>,
        read: impl Fn(&T) -> Option<V>,
    ) {
        let (Some(path), Some(setting)) = (path, setting) else { return };
        let Some(setting_value) = read(&setting.value) else {
            self.problems
                .error(&setting.span, "a rate of 0 would stop the container's I/O")
                .help("write a rate such as \"10m\"");
            return;
        };
        let index = *self.places.entry(path.value.0.clone()).or_insert_with(|| {
            self.found.push(IoDevice { path: path.value.0.clone(), ..IoDevice::default() });
            self.found.len() - 1
        });
        let Some(device) = self.found.get_mut(index) else { return };
        if slot(device).replace(setting_value).is_some() {
            self.problems
                .error(&path.span, format!("{} is given twice", quote(&path.value.0)))
                .help("leave out one of them");
        }
    }
}

pub(super) fn ulimits(
    field: Option<Field<Named<ShortOrLong<Rlim, UlimitKeys>>>>,
    most_files: u64,
    problems: &mut Problems,
) -> Vec<Ulimit> {
    let mut found: BTreeMap<u32, Ulimit> = BTreeMap::new();
    for (name, limit) in value(field).map(|named| named.0).unwrap_or_default() {
        let Some((known, resource)) = ULIMITS.iter().find(|(known, _)| *known == name.value) else {
            unknown_ulimit(&name, problems);
            continue;
        };
        let (soft, hard, place) = match limit.value {
            ShortOrLong::Short(both) => (both, both, limit.span),
            ShortOrLong::Long(UlimitKeys { soft: Some(soft), hard: Some(hard), .. }) => {
                if soft.value.0 > hard.value.0 {
                    problems
                        .error(&soft.span, "the soft limit is above the hard limit")
                        .help("write at most the hard limit")
                        .related(&hard.span, "the hard limit");
                }
                (soft.value, hard.value, hard.span)
            }
            ShortOrLong::Long(keys) if keys.given("soft") && keys.given("hard") => continue,
            ShortOrLong::Long(_) => {
                problems
                    .error(&name.span, "the limit needs both `soft` and `hard`")
                    .help("or write one number for both");
                continue;
            }
        };
        if *known == "nofile" && hard.0 > most_files {
            problems
                .error(&place, format!("the kernel lets no program have more than {most_files} open files"))
                .help(format!("write at most {most_files}, or raise \"fs.nr_open\" in [system] `sysctls`"));
        }
        found.insert(*resource, Ulimit { name: known, resource: *resource, soft: soft.0, hard: hard.0 });
    }
    found.into_values().collect()
}

fn unknown_ulimit(name: &At<String>, problems: &mut Problems) {
    let names = ULIMITS.map(|(name, _)| name);
    let problem = problems.error(&name.span, format!("{} isn't a resource limit", quote(&name.value)));
    match nearest(&name.value, names) {
        Some(meant) => problem.help(format!("did you mean `{meant}`?")),
        None => problem.help(format!("the limits are: {}", names.join(", "))),
    };
}
