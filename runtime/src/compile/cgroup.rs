//! `linux.resources` of a spec → files of cgroup v2; what was written for v1 is converted as crun does (its manual page,
//! "CGROUP v2").

use std::path::Path;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxResources, LinuxThrottleDevice, Spec,
};

use super::{device_filter, refuse};
use crate::launch::{Cgroup, Namespace, Namespaces};
use crate::spec::Error;

/// Files of the cgroup core that a container's limits aren't: they move, kill or let in processes.
const NOT_A_LIMIT: [&str; 4] = ["cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.subtree_control"];

/// The settings, in the order in which they are to be written.
pub fn cgroup(resources: &LinuxResources) -> Result<Cgroup, Error> {
    let mut made = Cgroup::default();
    if let Some(network) = resources.network() {
        check_network(network)?;
    }
    if let Some(limits) = resources.memory() {
        memory(limits, &mut made)?;
    }
    if let Some(limits) = resources.cpu() {
        cpu(limits, &mut made)?;
    }
    if let Some(pids) = resources.pids() {
        // "No limit" is what other runtimes take anything below 1 for.
        set(&mut made, "pids.max", at_most(pids.limit()));
    }
    if let Some(limits) = resources.block_io() {
        block_io(limits, &mut made)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        hugepages(limit, &mut made)?;
    }
    let mut rdma: Vec<_> = resources.rdma().iter().flatten().collect();
    rdma.sort_by_key(|(device, _)| *device);
    for (device, limit) in rdma {
        let field = format!("linux.resources.rdma[{device}]");
        if device.is_empty() || device.contains(char::is_whitespace) {
            return Err(Error::new(field, "no name of a device"));
        }
        let handles = limit.hca_handles().map(|n| format!(" hca_handle={n}")).unwrap_or_default();
        let objects = limit.hca_objects().map(|n| format!(" hca_object={n}")).unwrap_or_default();
        if handles.is_empty() && objects.is_empty() {
            return Err(Error::new(field, "needs hcaHandles or hcaObjects"));
        }
        set(&mut made, "rdma.max", format!("{device}{handles}{objects}"));
    }
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        if !file.contains('.') {
            let why = format!("the specified key has not the form CONTROLLER.VALUE `{file}`");
            return Err(Error::new("linux.resources.unified", why));
        }
        let plain = !file.contains(['/', '\0', '\n']) && !file.starts_with('.') && file.len() < 256;
        if !plain || NOT_A_LIMIT.contains(&file.as_str()) {
            return Err(Error::new("linux.resources.unified", format!("{file:?} isn't a controller's file")));
        }
        // One write per line: that is how the kernel takes keyed files.
        for line in value.split('\n').filter(|line| !line.is_empty()) {
            set(&mut made, file, line);
        }
    }
    let rules = resources.devices().as_deref().unwrap_or_default();
    if !rules.is_empty() {
        made.device_filter = device_filter::compile(rules)?;
    }
    Ok(made)
}

fn set(made: &mut Cgroup, file: &str, value: impl Into<String>) {
    made.settings.push((file.to_owned(), value.into()));
}

/// Whether the cgroup is to be given to the container's user (runtime spec, "Cgroup ownership"): it gets a cgroup namespace
/// of its own and mounts its cgroup to write to it.
pub(super) fn owner(spec: &Spec, namespaces: &Namespaces) -> bool {
    let writable = spec.mounts().iter().flatten().any(|mount| {
        mount.source().as_ref().is_some_and(|source| source.as_os_str() == "cgroup")
            && mount.destination() == Path::new("/sys/fs/cgroup")
            && !mount.options().iter().flatten().any(|option| option == "ro")
    });
    writable && namespaces.cgroup == Namespace::New
}

/// `net_cls` and `net_prio` have no successor in cgroup v2.
fn check_network(network: &LinuxNetwork) -> Result<(), Error> {
    refuse("linux.resources.network.classID", network.class_id().is_some_and(|class| class != 0))?;
    refuse("linux.resources.network.priorities", network.priorities().as_ref().is_some_and(|list| !list.is_empty()))
}

fn memory(memory: &LinuxMemory, made: &mut Cgroup) -> Result<(), Error> {
    let kernel = memory.kernel();
    refuse("linux.resources.memory.kernel", kernel.is_some_and(|limit| limit > 0))?;
    refuse("linux.resources.memory.kernelTCP", memory.kernel_tcp().is_some_and(|limit| limit > 0))?;
    refuse("linux.resources.memory.swappiness", memory.swappiness().is_some())?;
    refuse("linux.resources.memory.disableOOMKiller", memory.disable_oom_killer() == Some(true))?;
    refuse("linux.resources.memory.useHierarchy", memory.use_hierarchy() == Some(false))?;
    made.check_memory = memory.check_before_update() == Some(true);
    for (file, limit) in [("memory.max", memory.limit()), ("memory.low", memory.reservation())] {
        match limit {
            None | Some(0) => {}
            // `memory.low` protects; all there is can't be protected.
            Some(..0) if file == "memory.low" => set(made, file, "0"),
            Some(limit) => set(made, file, at_most(limit)),
        }
    }
    match (memory.swap(), memory.limit()) {
        (None | Some(0), _) => Ok(()),
        (Some(..0), _) => {
            set(made, "memory.swap.max", "max");
            Ok(())
        }
        // The spec counts memory and swap together, the kernel swap alone.
        (Some(swap), Some(limit)) if limit > 0 && swap >= limit => {
            set(made, "memory.swap.max", (swap - limit).to_string());
            Ok(())
        }
        (Some(swap), _) => {
            let why = format!("{swap} needs a memory limit that it is at least as large as");
            Err(Error::new("linux.resources.memory.swap", why))
        }
    }
}

fn cpu(cpu: &LinuxCpu, made: &mut Cgroup) -> Result<(), Error> {
    refuse("linux.resources.cpu.realtimeRuntime", cpu.realtime_runtime().is_some_and(|value| value != 0))?;
    refuse("linux.resources.cpu.realtimePeriod", cpu.realtime_period().is_some_and(|value| value != 0))?;
    match cpu.idle() {
        None => {}
        Some(idle @ (0 | 1)) => set(made, "cpu.idle", idle.to_string()),
        Some(other) => return Err(Error::new("linux.resources.cpu.idle", format!("{other} is neither 0 nor 1"))),
    }
    // The kernel refuses a weight beside `cpu.idle`, which is the least weight there is.
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0 && cpu.idle() != Some(1)) {
        set(made, "cpu.weight", weight(shares).to_string());
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if quota.is_some() || period.is_some() {
        let quota = quota.map_or_else(|| "max".to_owned(), at_most);
        set(made, "cpu.max", format!("{quota} {}", period.unwrap_or(100_000)));
    }
    if let Some(burst) = cpu.burst() {
        if let Some(quota) = quota.filter(|quota| *quota > 0)
            && burst > quota.cast_unsigned()
        {
            return Err(Error::new("linux.resources.cpu.burst", format!("{burst} is above the quota {quota}")));
        }
        set(made, "cpu.max.burst", burst.to_string());
    }
    for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            super::list::mask(&format!("linux.resources.cpu.{}", &file["cpuset.".len()..]), list)?;
            set(made, file, list.as_str());
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

/// What Compose's 10…1000 with the default 500 is as the kernel's 1…10000 with the default 100: in proportion, as both are shares.
/// So the default weighs as much as nothing declared, and twice the weight is twice the share. For declarations; a bundle's weights
/// are converted as crun does.
#[must_use]
pub fn io_weight(weight: u16) -> u16 {
    (weight / 5).max(1)
}

fn block_io(io: &LinuxBlockIo, made: &mut Cgroup) -> Result<(), Error> {
    refuse("linux.resources.blockIO.leafWeight", io.leaf_weight().is_some_and(|weight| weight != 0))?;
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        made.choices.push(io_weights("linux.resources.blockIO.weight", "", weight)?);
    }
    for device in io.weight_device().iter().flatten() {
        let id = number("linux.resources.blockIO.weightDevice", device.major(), device.minor())?;
        let field = format!("linux.resources.blockIO.weightDevice[{id}]");
        refuse(&format!("{field}.leafWeight"), device.leaf_weight().is_some_and(|weight| weight != 0))?;
        let weight = device.weight().filter(|weight| *weight != 0);
        let weight = weight.ok_or_else(|| Error::new(field.as_str(), "needs a weight"))?;
        made.choices.push(io_weights(&field, &format!("{id} "), weight)?);
    }
    let throttles: [(&str, &str, &Option<Vec<LinuxThrottleDevice>>); 4] = [
        ("throttleReadBpsDevice", "rbps", io.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", "wbps", io.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", "riops", io.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", "wiops", io.throttle_write_iops_device()),
    ];
    for (field, key, list) in throttles {
        for device in list.iter().flatten() {
            let id = number(&format!("linux.resources.blockIO.{field}"), device.major(), device.minor())?;
            // What v1 takes for "no limit", v2 doesn't take at all.
            let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
            set(made, "io.max", format!("{id} {key}={rate}"));
        }
    }
    Ok(())
}

/// BFQ's own weight has the range of the specification; the generic one is reached linearly: 10…1000 on 1…10000.
fn io_weights(field: &str, device: &str, weight: u16) -> Result<Vec<(String, String)>, Error> {
    if !(10..=1000).contains(&weight) {
        return Err(Error::new(field, format!("{weight} isn't from 10 to 1000")));
    }
    let generic = 1 + (u32::from(weight) - 10) * 9999 / 990;
    let pair = |file: &str, weight: u32| (file.to_owned(), format!("{device}{weight}"));
    Ok(vec![pair("io.bfq.weight", weight.into()), pair("io.weight", generic)])
}

fn number(field: &str, major: i64, minor: i64) -> Result<String, Error> {
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(format!("{major}:{minor}")),
        _ => Err(Error::new(field, format!("{major}:{minor} is no device number"))),
    }
}

/// Both what is reserved and what is used, as with runc: a mapping without reservation is used only. The kernels that start processes in
/// a cgroup (Linux 5.7) count both.
fn hugepages(limit: &LinuxHugepageLimit, made: &mut Cgroup) -> Result<(), Error> {
    let size = limit.page_size();
    let digits = size.len() - size.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    if digits == 0 || !matches!(&size[digits..], "KB" | "MB" | "GB") {
        let field = "linux.resources.hugepageLimits.pageSize";
        return Err(Error::new(field, format!("{size:?} is no size such as 2MB or 1GB")));
    }
    let value = if limit.limit() < 0 { "max".to_owned() } else { limit.limit().to_string() };
    for file in [format!("hugetlb.{size}.max"), format!("hugetlb.{size}.rsvd.max")] {
        set(made, &file, value.as_str());
    }
    Ok(())
}

/// Up to 1.2 a limit of 0 processes is the default, "no limit". Since 1.3 it is what it says, as far as that goes: the first process.
/// To the kernel 1 is the same, as the first one counts and isn't refused, and systemd knows no 0.
pub(super) fn respect_zero(spec: &Spec, made: &mut Cgroup) {
    let limit = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()?.pids().map(|pids| pids.limit()));
    if limit != Some(0) || !super::zero_processes_are_a_limit(spec.version()) {
        return;
    }
    // What comes later, from `unified`, counts.
    if let Some((_, value)) = made.settings.iter_mut().find(|(file, _)| file == "pids.max") {
        *value = "1".to_owned();
    }
}

/// A positive limit; anything else means none.
fn at_most(limit: i64) -> String {
    if limit > 0 { limit.to_string() } else { "max".to_owned() }
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
            "cpu":{"shares":1024,"quota":50000,"period":100000,"cpus":"0-1:1/2"},"pids":{"limit":64}}"#;
        let expected = pairs(&[
            ("memory.max", "1048576"),
            ("memory.low", "4096"),
            ("memory.swap.max", "1048576"),
            ("cpu.weight", "100"),
            ("cpu.max", "50000 100000"),
            ("cpuset.cpus", "0-1:1/2"),
            ("pids.max", "64"),
        ]);
        assert_eq!(settings(json).unwrap(), expected);
    }

    #[test]
    fn no_limit_is_written_too() {
        let json = r#"{"memory":{"limit":-1,"swap":-1,"reservation":-1},"cpu":{"quota":-1},"pids":{"limit":0},
            "blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":0}]}}"#;
        let expected = pairs(&[
            ("memory.max", "max"),
            ("memory.low", "0"),
            ("memory.swap.max", "max"),
            ("cpu.max", "max 100000"),
            ("pids.max", "max"),
            ("io.max", "8:0 rbps=max"),
        ]);
        assert_eq!(settings(json).unwrap(), expected);
    }

    #[test]
    fn controllers_of_every_kind_have_their_files() {
        let json = r#"{"cpu":{"idle":1,"shares":500,"quota":50000,"burst":100,"mems":"0"},
            "blockIO":{"weight":10,"weightDevice":[{"major":8,"minor":0,"weight":1000}],
                "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":7}]},
            "hugepageLimits":[{"pageSize":"2MB","limit":4194304}],"rdma":{"mlx":{"hcaHandles":3,"hcaObjects":4}},
            "unified":{"misc.max":"res_a 1\nres_b 2","cgroup.max.depth":"5"}}"#;
        let made = cgroup(&serde_json::from_str(json).unwrap()).unwrap();
        let expected = pairs(&[
            ("cpu.idle", "1"),
            ("cpu.max", "50000 100000"),
            ("cpu.max.burst", "100"),
            ("cpuset.mems", "0"),
            ("io.max", "8:0 wiops=7"),
            ("hugetlb.2MB.max", "4194304"),
            ("hugetlb.2MB.rsvd.max", "4194304"),
            ("rdma.max", "mlx hca_handle=3 hca_object=4"),
            ("cgroup.max.depth", "5"),
            ("misc.max", "res_a 1"),
            ("misc.max", "res_b 2"),
        ]);
        assert_eq!(made.settings, expected);
        let choices = [
            pairs(&[("io.bfq.weight", "10"), ("io.weight", "1")]),
            pairs(&[("io.bfq.weight", "8:0 1000"), ("io.weight", "8:0 10000")]),
        ];
        assert_eq!(made.choices, choices);
    }

    #[test]
    fn a_cgroup_is_given_to_who_can_write_to_it_wherever_a_slash_is() {
        let namespaces = Namespaces { cgroup: Namespace::New, ..Namespaces::default() };
        let owned = |destination: &str| {
            let mount = serde_json::json!({"destination": destination, "type": "cgroup", "source": "cgroup"});
            let spec = serde_json::json!({"ociVersion": "1.3.0", "mounts": [mount]});
            owner(&serde_json::from_value(spec).unwrap(), &namespaces)
        };
        assert!(owned("/sys/fs/cgroup") && owned("/sys/fs/cgroup/") && owned("//sys/fs/./cgroup"));
        assert!(!owned("/sys/fs/cgroup/unified") && !owned("/sys/fs"));
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
    }

    #[test]
    fn what_cgroup_v2_has_not_is_refused_by_name() {
        for (json, field) in [
            (r#"{"memory":{"swappiness":60}}"#, "swappiness"),
            (r#"{"memory":{"swap":100}}"#, "swap"),
            (r#"{"memory":{"limit":200,"swap":100}}"#, "swap"),
            (r#"{"cpu":{"realtimeRuntime":1}}"#, "realtimeRuntime"),
            (r#"{"blockIO":{"leafWeight":1}}"#, "leafWeight"),
            (r#"{"network":{"classID":1}}"#, "network.classID"),
            (r#"{"memory":{"disableOOMKiller":true}}"#, "disableOOMKiller"),
            (r#"{"cpu":{"quota":5,"burst":6}}"#, "burst"),
            (r#"{"cpu":{"idle":2}}"#, "idle"),
            (r#"{"cpu":{"cpus":"0-x"}}"#, "linux.resources.cpu.cpus"),
            (r#"{"blockIO":{"weight":5000}}"#, "blockIO.weight"),
            (r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0}]}}"#, "weightDevice[8:0]"),
            (r#"{"hugepageLimits":[{"pageSize":"2M","limit":1}]}"#, "pageSize"),
            (r#"{"rdma":{"x":{}}}"#, "rdma[x]"),
            (r#"{"unified":{"memory":"1"}}"#, "unified: the specified key has not the form CONTROLLER.VALUE `memory`"),
            (r#"{"unified":{"../escape.max":"1"}}"#, "escape"),
            (r#"{"unified":{"cgroup.procs":"1"}}"#, "cgroup.procs"),
        ] {
            let error = settings(json).unwrap_err().to_string();
            assert!(error.contains(field), "{json}: {error}");
        }
    }
}
