//! `linux.resources` of a spec → files of cgroup v2, by the conversions of the runtime specification ("cgroup v2").

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::{device_filter, refuse};
use crate::launch::Cgroup;
use crate::spec::Error;

/// The settings, in the order in which they are to be written.
pub(super) fn cgroup(resources: &LinuxResources) -> Result<Cgroup, Error> {
    refuse("linux.resources.network", resources.network().is_some())?;
    refuse("linux.resources.rdma", resources.rdma().as_ref().is_some_and(|map| !map.is_empty()))?;
    let mut settings: Vec<(String, String)> = Vec::new();
    if let Some(limits) = resources.memory() {
        memory(limits, &mut settings)?;
    }
    if let Some(limits) = resources.cpu() {
        cpu(limits, &mut settings)?;
    }
    if let Some(pids) = resources.pids() {
        // Docker's and the spec's "no limit" is anything below 1.
        settings.push(("pids.max".to_owned(), at_most(pids.limit()).unwrap_or_else(|| "max".to_owned())));
    }
    if let Some(limits) = resources.block_io() {
        block_io(limits, &mut settings)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        settings.push((format!("hugetlb.{}.max", limit.page_size()), limit.limit().to_string()));
    }
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        if file.contains('/') || file.starts_with("cgroup.") || !file.contains('.') {
            return Err(Error::new("linux.resources.unified", format!("{file:?} isn't a controller's file")));
        }
        settings.push((file.clone(), value.clone()));
    }
    let rules = resources.devices().as_deref().unwrap_or_default();
    let device_filter = if rules.is_empty() { Vec::new() } else { device_filter::compile(rules)? };
    Ok(Cgroup { settings, device_filter, ..Cgroup::default() })
}

fn memory(memory: &LinuxMemory, settings: &mut Vec<(String, String)>) -> Result<(), Error> {
    refuse("linux.resources.memory.kernel", memory.kernel().is_some_and(|limit| limit > 0))?;
    refuse("linux.resources.memory.kernelTCP", memory.kernel_tcp().is_some_and(|limit| limit > 0))?;
    refuse("linux.resources.memory.swappiness", memory.swappiness().is_some())?;
    refuse("linux.resources.memory.disableOOMKiller", memory.disable_oom_killer() == Some(true))?;
    refuse("linux.resources.memory.useHierarchy", memory.use_hierarchy() == Some(false))?;
    if let Some(limit) = memory.limit().and_then(at_most) {
        settings.push(("memory.max".to_owned(), limit));
    }
    // One process killed for memory leaves a container half alive; its restart policy should decide instead.
    if memory.limit().is_some_and(|limit| limit > 0) {
        settings.push(("memory.oom.group".to_owned(), "1".to_owned()));
    }
    if let Some(reservation) = memory.reservation().and_then(at_most) {
        settings.push(("memory.low".to_owned(), reservation));
    }
    match (memory.swap(), memory.limit()) {
        (None, _) => {}
        (Some(swap), _) if swap < 1 => settings.push(("memory.swap.max".to_owned(), "max".to_owned())),
        // The spec counts memory and swap together, the kernel swap alone.
        (Some(swap), Some(limit)) if limit > 0 && swap >= limit => {
            settings.push(("memory.swap.max".to_owned(), swap.saturating_sub(limit).to_string()));
        }
        (Some(_), _) => {
            return Err(Error::new(
                "linux.resources.memory.swap",
                "needs a memory limit that it is at least as large as",
            ));
        }
    }
    Ok(())
}

fn cpu(cpu: &LinuxCpu, settings: &mut Vec<(String, String)>) -> Result<(), Error> {
    refuse("linux.resources.cpu.realtimeRuntime", cpu.realtime_runtime().is_some_and(|value| value != 0))?;
    refuse("linux.resources.cpu.realtimePeriod", cpu.realtime_period().is_some_and(|value| value != 0))?;
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        settings.push(("cpu.weight".to_owned(), weight(shares).to_string()));
    }
    if let Some(idle) = cpu.idle() {
        settings.push(("cpu.idle".to_owned(), idle.to_string()));
    }
    let quota = cpu.quota().filter(|quota| *quota > 0);
    if quota.is_some() || cpu.period().is_some() {
        let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        settings.push(("cpu.max".to_owned(), format!("{quota} {}", cpu.period().unwrap_or(100_000))));
    }
    if let Some(burst) = cpu.burst() {
        settings.push(("cpu.max.burst".to_owned(), burst.to_string()));
    }
    for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            settings.push((file.to_owned(), list.clone()));
        }
    }
    Ok(())
}

/// Docker's 2…262144 on the kernel's 1…10000, the default of the one (1024) on that of the other (100), so that a container
/// that declares the default weighs as much as one that declares nothing. The exponent is the parabola through these three
/// points, as runc (from 1.3.2) and crun (from 1.23) have it.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "1 to 10000")]
fn weight(shares: u64) -> u64 {
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (log * log + 125.0 * log - 126.0) / 612.0;
    10_f64.powf(exponent).ceil() as u64
}

/// Docker's 10…1000 with the default 500 as the kernel's 1…10000 with the default 100: in proportion, as both are shares. So the
/// default weighs as much as nothing declared, and twice the weight is twice the share.
#[must_use]
pub fn io_weight(weight: u16) -> u16 {
    (weight / 5).max(1)
}

fn block_io(io: &LinuxBlockIo, settings: &mut Vec<(String, String)>) -> Result<(), Error> {
    refuse("linux.resources.blockIO.leafWeight", io.leaf_weight().is_some())?;
    let devices = io.weight_device().as_ref().is_some_and(|list| !list.is_empty());
    refuse("linux.resources.blockIO.weightDevice", devices)?;
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        settings.push(("io.weight".to_owned(), io_weight(weight).to_string()));
    }
    let throttles = [
        ("rbps", io.throttle_read_bps_device()),
        ("wbps", io.throttle_write_bps_device()),
        ("riops", io.throttle_read_iops_device()),
        ("wiops", io.throttle_write_iops_device()),
    ];
    for (key, list) in throttles {
        for device in list.iter().flatten() {
            let value = format!("{}:{} {key}={}", device.major(), device.minor(), device.rate());
            settings.push(("io.max".to_owned(), value));
        }
    }
    Ok(())
}

/// A positive limit; anything else means none.
fn at_most(limit: i64) -> Option<String> {
    (limit > 0).then(|| limit.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(json: &str) -> Result<Vec<(String, String)>, Error> {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        cgroup(&resources).map(|made| made.settings)
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn limits_become_files() {
        let json = r#"{"memory":{"limit":1048576,"reservation":4096,"swap":2097152},
            "cpu":{"shares":1024,"quota":50000,"period":100000,"cpus":"0-1"},"pids":{"limit":64}}"#;
        let expected = pairs(&[
            ("memory.max", "1048576"),
            ("memory.oom.group", "1"),
            ("memory.low", "4096"),
            ("memory.swap.max", "1048576"),
            ("cpu.weight", "100"),
            ("cpu.max", "50000 100000"),
            ("cpuset.cpus", "0-1"),
            ("pids.max", "64"),
        ]);
        assert_eq!(settings(json).unwrap(), expected);
    }

    #[test]
    fn shares_become_weights_and_the_default_the_default() {
        let weights = [0, 2, 512, 1024, 2048, 262_144, u64::MAX].map(weight);
        assert_eq!(weights, [1, 1, 59, 100, 174, 10_000, 10_000]);
        assert!((2..5000).all(|shares| weight(shares) <= weight(shares + 1)), "more shares never weigh less");
    }

    #[test]
    fn disk_shares_keep_their_proportion_and_their_default() {
        assert_eq!([10, 100, 500, 1000].map(io_weight), [2, 20, 100, 200]);
        assert_eq!(settings(r#"{"blockIO":{"weight":500}}"#).unwrap(), pairs(&[("io.weight", "100")]));
    }

    #[test]
    fn what_cgroup_v2_has_not_is_refused_by_name() {
        for (json, field) in [
            (r#"{"memory":{"swappiness":60}}"#, "swappiness"),
            (r#"{"memory":{"swap":100}}"#, "swap"),
            (r#"{"memory":{"limit":200,"swap":100}}"#, "swap"),
            (r#"{"cpu":{"realtimeRuntime":1}}"#, "realtimeRuntime"),
            (r#"{"blockIO":{"leafWeight":1}}"#, "leafWeight"),
            (r#"{"network":{"classID":1}}"#, "network"),
            (r#"{"unified":{"../escape.max":"1"}}"#, "escape"),
            (r#"{"unified":{"cgroup.procs":"1"}}"#, "cgroup.procs"),
        ] {
            let error = settings(json).unwrap_err().to_string();
            assert!(error.contains(field), "{json}: {error}");
        }
    }
}
