//! Resource limits, device rules and process limits of a spec.

use std::collections::HashMap;

use oci_spec::runtime::{
    LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxPids, LinuxResources, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType,
};

use super::{Device, Error, Limits, Options, Ulimit};
use crate::launch::DeviceAccess;

/// The `linux.resources` of `options`.
pub(super) fn resources(options: &Options) -> Result<LinuxResources, Error> {
    let limits = &options.limits;
    let mut resources = LinuxResources::default();
    resources.set_devices(Some(device_rules()));
    resources.set_memory(memory(limits)?);
    resources.set_cpu(cpu(limits)?);
    if let Some(most) = limits.pids {
        let mut pids = LinuxPids::default();
        pids.set_limit(signed("pids_limit", most)?);
        resources.set_pids(Some(pids));
    }
    // Files of cgroup v2 as they are: the declaration's numbers are the kernel's.
    let mut unified: HashMap<String, String> = HashMap::new();
    if let Some(weight) = limits.io_weight {
        unified.insert("io.weight".to_owned(), crate::compile::cgroup::io_weight(weight).to_string());
    }
    if limits.memory.is_some_and(|limit| limit > 0) {
        // One process killed for memory leaves a container half alive; its restart policy should decide instead.
        unified.insert("memory.oom.group".to_owned(), "1".to_owned());
    }
    resources.set_unified(Some(unified).filter(|unified| !unified.is_empty()));
    Ok(resources)
}

fn memory(limits: &Limits) -> Result<Option<LinuxMemory>, Error> {
    if limits.memory.is_none() && limits.memory_reservation.is_none() && limits.memory_and_swap.is_none() {
        return Ok(None);
    }
    let mut memory = LinuxMemory::default();
    memory.set_limit(limits.memory.map(|bytes| signed("mem_limit", bytes)).transpose()?);
    memory.set_reservation(limits.memory_reservation.map(|bytes| signed("mem_reservation", bytes)).transpose()?);
    memory.set_swap(limits.memory_and_swap.map(|bytes| signed("memswap_limit", bytes)).transpose()?);
    Ok(Some(memory))
}

fn cpu(limits: &Limits) -> Result<Option<LinuxCpu>, Error> {
    if limits.cpu.is_none() && limits.cpu_shares.is_none() && limits.cpuset.is_none() {
        return Ok(None);
    }
    let mut cpu = LinuxCpu::default();
    if let Some((quota, period)) = limits.cpu {
        cpu.set_quota(Some(signed("cpus", quota)?));
        cpu.set_period(Some(period));
    }
    cpu.set_shares(limits.cpu_shares);
    cpu.set_cpus(limits.cpuset.clone());
    Ok(Some(cpu))
}

/// Nothing but the nodes of every `/dev` and terminals. Later rules win.
fn device_rules() -> Vec<LinuxDeviceCgroup> {
    let character = |major, minor| rule(true, LinuxDeviceType::C, Some(major), minor, "rw");
    vec![
        rule(false, LinuxDeviceType::A, None, None, "rwm"),
        character(1, Some(3)), // null
        character(1, Some(5)), // zero
        character(1, Some(7)), // full
        character(1, Some(8)), // random
        character(1, Some(9)), // urandom
        character(5, Some(0)), // tty
        character(5, Some(2)), // ptmx
        character(136, None),  // pts/*
    ]
}

/// What may be done with the declared devices. The spec has numbers only, and those are the machine's to say.
pub(super) fn device_access(devices: &[Device]) -> Result<Vec<DeviceAccess>, Error> {
    let access = |device: &Device| {
        let valid = |c| matches!(c, 'r' | 'w' | 'm');
        if device.access.is_empty() || !device.access.chars().all(valid) {
            let reason = format!("{}: access {:?} must be of the letters r, w and m", device.source, device.access);
            return Err(Error::new("devices", reason));
        }
        let has = |letter| device.access.contains(letter);
        Ok(DeviceAccess { path: device.source.clone(), read: has('r'), write: has('w'), mknod: has('m') })
    };
    devices.iter().map(access).collect()
}

fn rule(allow: bool, kind: LinuxDeviceType, major: Option<i64>, minor: Option<i64>, access: &str) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow).set_typ(Some(kind)).set_major(major).set_minor(minor).set_access(Some(access.to_owned()));
    rule
}

/// The `process.rlimits` of the declared ulimits.
pub(super) fn rlimits(ulimits: &[Ulimit]) -> Result<Vec<PosixRlimit>, Error> {
    ulimits
        .iter()
        .map(|ulimit| {
            let name = format!("RLIMIT_{}", ulimit.name.to_ascii_uppercase());
            let kind: PosixRlimitType = name.parse().map_err(|_| {
                Error::new("ulimits", format!("{:?} is no resource limit (see getrlimit(2))", ulimit.name))
            })?;
            if ulimit.soft > ulimit.hard {
                let reason = format!("{}: soft limit {} above hard limit {}", ulimit.name, ulimit.soft, ulimit.hard);
                return Err(Error::new("ulimits", reason));
            }
            let limit = PosixRlimitBuilder::default().typ(kind).soft(ulimit.soft).hard(ulimit.hard).build();
            limit.map_err(|e| Error::new("ulimits", e.to_string()))
        })
        .collect()
}

fn signed(field: &str, value: u64) -> Result<i64, Error> {
    i64::try_from(value).map_err(|_| Error::new(field, format!("{value} is too large")))
}
