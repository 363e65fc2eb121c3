//! Other limits for a container that lives. What the kernel has now is the truth about it: an update completes itself from
//! there, and is taken back as a whole if one of its limits is refused.

use std::os::fd::{AsFd, BorrowedFd};

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources, Spec};

use super::error::{Error, Result};
use super::record::{Resctrl, Status};
use super::store::{CONFIGURATION, Entry};
use super::{bundle, cgroup, process, systemd};
use crate::cgroup::{AbsentController, apply, read, write};
use crate::compile;
use crate::launch::Cgroup;

/// Changes the limits that `resources` names, and the schemata of the container's class (Intel RDT). The caller holds the lock.
pub fn update(entry: &Entry, mut resources: LinuxResources, schemata: &[String]) -> Result<()> {
    let what = |error: &dyn std::fmt::Display| Error::new(format!("update container {}: {error}", entry.id()));
    let mut record = entry.record()?;
    let (status, _) = entry.status(&record)?;
    if matches!(status, Status::Creating | Status::Stopped) {
        return Err(what(&format!("container not running: it is {}", status.text())));
    }
    let config = entry.read(CONFIGURATION)?.ok_or_else(|| what(&"its config.json is missing"))?;
    let config = bundle::parse(&config)?;
    drop_device_rules(&mut resources, &config).map_err(|error| what(&error))?;
    respect_zero(&mut resources, &config);
    if resources != nothing() {
        let group = cgroup::open(&record)?.ok_or_else(|| what(&"it has no cgroup to set limits in"))?;
        complete(&mut resources, group.as_fd());
        let mut settings = compile::resources(&resources).map_err(|error| what(&error))?;
        burst_last(&mut settings);
        wake(&mut settings, group.as_fd());
        if let Some(path) = &record.cgroup {
            cgroup::enable_for(&settings, group.as_fd(), path)?;
        }
        change(group.as_fd(), &settings, record.scope.as_deref()).map_err(|error| what(&error))?;
    }
    if !schemata.is_empty() {
        if record.resctrl.is_none() {
            // The class that it gets goes with it. One of an older version's container isn't written down.
            let rdt = config.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref());
            let class = rdt.and_then(|rdt| rdt.clos_id().clone()).filter(|class| !class.is_empty());
            record.resctrl = Some(Resctrl { class, monitored: false });
            entry.write_record(&record)?;
        }
        if let Some(resctrl) = &record.resctrl {
            let threads = || process::threads_of(&record);
            resctrl.groups(&record.id).change(schemata, threads).map_err(|error| what(&error))?;
        }
    }
    Ok(())
}

/// The type's own default has device rules.
fn nothing() -> LinuxResources {
    let mut nothing = LinuxResources::default();
    nothing.set_devices(None);
    nothing
}

/// Callers send the container's own device rules along with changed limits. Others can't be put in force: what was attached to
/// the cgroup stays attached.
fn drop_device_rules(resources: &mut LinuxResources, config: &Spec) -> std::result::Result<(), String> {
    let own = config.linux().as_ref().and_then(|linux| linux.resources().as_ref()?.devices().as_ref());
    let rules = resources.devices().as_ref().filter(|rules| !rules.is_empty());
    if rules.is_some_and(|rules| own != Some(rules)) {
        return Err("linux.resources.devices: device rules are fixed when the container is made".to_owned());
    }
    resources.set_devices(None);
    Ok(())
}

/// What a limit of 0 processes means is said by the version of the container's configuration: "as it is", or as few as can be.
fn respect_zero(resources: &mut LinuxResources, config: &Spec) {
    if let Some(pids) = resources.pids_mut().as_mut().filter(|pids| pids.limit() == 0) {
        if compile::zero_processes_are_a_limit(config.version()) {
            pids.set_limit(1);
        } else {
            resources.set_pids(None);
        }
    }
}

/// Adds what a limit needs to be understood and the caller left as it is.
fn complete(resources: &mut LinuxResources, group: BorrowedFd<'_>) {
    let mut memory: LinuxMemory = resources.memory().unwrap_or_default();
    // Swap is told together with memory, whose limit must be known to tell them apart.
    if memory.swap().is_some_and(|swap| swap > 0) && memory.limit().is_none_or(|limit| limit == 0) {
        memory.set_limit(read(group, "memory.max").ok().and_then(|text| text.trim().parse().ok()));
        resources.set_memory(Some(memory));
    }
    // Of memory without a limit swap is a part, as with runc.
    if memory.limit() == Some(-1) && memory.swap().is_none_or(|swap| swap == 0) {
        memory.set_swap(Some(-1));
        resources.set_memory(Some(memory));
    }
    let mut cpu: LinuxCpu = resources.cpu().clone().unwrap_or_default();
    let (quota, period) = (cpu.quota().filter(|n| *n != 0), cpu.period().filter(|n| *n != 0));
    if quota.is_some() != period.is_some() {
        let (now_quota, now_period) = cpu_max(&read(group, "cpu.max").unwrap_or_default());
        cpu.set_quota(quota.or(now_quota)).set_period(period.or(now_period));
        resources.set_cpu(Some(cpu));
    }
}

/// Quota and period in `cpu.max`.
fn cpu_max(text: &str) -> (Option<i64>, Option<u64>) {
    let mut words = text.split_whitespace();
    let quota = words.next().and_then(|quota| quota.parse().ok());
    (quota, words.next().and_then(|period| period.parse().ok()))
}

/// The kernel never has a burst above the quota, so with both given the old burst goes first.
fn burst_last(settings: &mut Cgroup) {
    let has = |name: &str| settings.settings.iter().any(|(file, _)| file == name);
    if has("cpu.max") && has("cpu.max.burst") {
        settings.settings.insert(0, ("cpu.max.burst".to_owned(), "0".to_owned()));
    }
}

/// A weight is for who isn't idle: beside `cpu.idle` the kernel refuses it, and systemd takes that back for it.
fn wake(settings: &mut Cgroup, group: BorrowedFd<'_>) {
    let has = |name: &str| settings.settings.iter().any(|(file, _)| file == name);
    let idle = || read(group, "cpu.idle").is_ok_and(|text| text.trim() == "1");
    if has("cpu.weight") && !has("cpu.idle") && idle() {
        settings.settings.insert(0, ("cpu.idle".to_owned(), "0".to_owned()));
    }
}

/// Applies the settings, or none of them; by systemd's unit `scope` first, as systemd rounds some.
fn change(group: BorrowedFd<'_>, settings: &Cgroup, scope: Option<&str>) -> Result<()> {
    // What the kernel has no file for is refused below, and systemd would keep it.
    let (mut present, mut before) = (Cgroup::default(), Cgroup::default());
    for (file, value) in &settings.settings {
        let Ok(text) = read(group, file) else { continue };
        if file == "cpu.idle" && text.trim() == value {
            // To the kernel that says nothing, but systemd would take the weight back to its default.
            continue;
        }
        present.settings.push((file.clone(), value.clone()));
        before.settings.push((file.clone(), undo(file, value, &text)));
    }
    for (file, value) in settings.choices.iter().flatten() {
        let Ok(text) = read(group, file) else { continue };
        present.settings.push((file.clone(), value.clone()));
        before.choices.push(vec![(file.clone(), undo(file, value, &text))]);
    }
    let tell = |settings: &Cgroup| scope.map_or(Ok(()), |unit| systemd::change(unit, settings));
    tell(&present)?;
    let Err(failure) = apply(group, settings, AbsentController::Fail) else { return Ok(()) };
    // The failure of the update is the one to report.
    let _ = tell(&before);
    // BFQ forgets the weights of devices whenever it gets one for all.
    for (file, value) in before.settings.iter().rev().chain(before.choices.iter().flatten()) {
        let _ = write(group, file, value);
    }
    Err(failure.into())
}

/// What undoes writing `value` to `file`, which reads `text` before.
fn undo(file: &str, value: &str, text: &str) -> String {
    let flat = file == "cpu.max" || !value.contains(' ');
    let Some((key, _)) = value.split_once(' ').filter(|_| !flat) else {
        // Of `io.weight` it is the first line. An empty list is written as an empty line.
        return format!("{}\n", text.lines().next().unwrap_or_default());
    };
    match text.lines().find(|line| line.split(' ').next() == Some(key)) {
        Some(line) => line.to_owned(),
        None if file == "io.max" => format!("{key} rbps=max wbps=max riops=max wiops=max"),
        None => format!("{key} default"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use super::*;

    /// A directory that looks like a cgroup. Its files keep what is written to them; nobody checks it.
    fn fake(files: &[(&str, &str)]) -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        for (file, text) in files {
            std::fs::write(directory.path().join(file), text).unwrap();
        }
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        let fd = rustix::fs::open(directory.path(), flags, rustix::fs::Mode::empty()).unwrap();
        (directory, fd)
    }

    fn settings_of(group: &OwnedFd, json: &str) -> Vec<(String, String)> {
        let mut resources: LinuxResources = serde_json::from_str(json).unwrap();
        complete(&mut resources, group.as_fd());
        let mut settings = compile::resources(&resources).unwrap();
        burst_last(&mut settings);
        wake(&mut settings, group.as_fd());
        settings.settings
    }

    fn text(directory: &Path, file: &str) -> String {
        std::fs::read_to_string(directory.join(file)).unwrap().trim_end().to_owned()
    }

    #[test]
    fn an_update_completes_itself_from_the_cgroup() {
        let (_directory, group) = fake(&[("cpu.max", "50000 200000\n"), ("memory.max", "4194304\n")]);
        let pairs = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect()
        };
        for (json, expected) in [
            (r#"{"cpu":{"quota":10000}}"#, pairs(&[("cpu.max", "10000 200000")])),
            (r#"{"cpu":{"quota":-1}}"#, pairs(&[("cpu.max", "max 200000")])),
            (r#"{"cpu":{"period":100000}}"#, pairs(&[("cpu.max", "50000 100000")])),
            (r#"{"cpu":{"quota":0,"period":0}}"#, pairs(&[])),
            (r#"{"memory":{"swap":5242880}}"#, pairs(&[("memory.max", "4194304"), ("memory.swap.max", "1048576")])),
            (r#"{"memory":{"swap":-1}}"#, pairs(&[("memory.swap.max", "max")])),
            (r#"{"memory":{"limit":-1}}"#, pairs(&[("memory.max", "max"), ("memory.swap.max", "max")])),
            (r#"{"memory":{"limit":-1,"swap":0}}"#, pairs(&[("memory.max", "max"), ("memory.swap.max", "max")])),
            (r#"{"memory":{"limit":1048576}}"#, pairs(&[("memory.max", "1048576")])),
            (r#"{"pids":{"limit":-1}}"#, pairs(&[("pids.max", "max")])),
            (
                r#"{"cpu":{"quota":3000,"burst":2000}}"#,
                pairs(&[("cpu.max.burst", "0"), ("cpu.max", "3000 200000"), ("cpu.max.burst", "2000")]),
            ),
        ] {
            assert_eq!(settings_of(&group, json), expected, "{json}");
        }
        let (_directory, unlimited) = fake(&[("memory.max", "max\n")]);
        let mut resources: LinuxResources = serde_json::from_str(r#"{"memory":{"swap":5242880}}"#).unwrap();
        complete(&mut resources, unlimited.as_fd());
        assert!(compile::resources(&resources).unwrap_err().to_string().contains("needs a memory limit"));
    }

    #[test]
    fn a_weight_wakes_who_is_idle() {
        let (_directory, idle) = fake(&[("cpu.idle", "1\n")]);
        let (_directory, awake) = fake(&[("cpu.idle", "0\n")]);
        let file = |(file, value): &(String, String)| format!("{file}={value}");
        let files = |group, json| settings_of(group, json).iter().map(file).collect::<Vec<_>>();
        assert_eq!(files(&idle, r#"{"cpu":{"shares":1024}}"#), ["cpu.idle=0", "cpu.weight=100"]);
        assert_eq!(files(&idle, r#"{"unified":{"cpu.weight":"8"}}"#), ["cpu.idle=0", "cpu.weight=8"]);
        assert_eq!(files(&awake, r#"{"cpu":{"shares":1024}}"#), ["cpu.weight=100"]);
        assert_eq!(files(&idle, r#"{"cpu":{"shares":1024,"idle":1}}"#), ["cpu.idle=1"]);
        assert_eq!(files(&idle, r#"{"cpu":{"quota":-1}}"#), ["cpu.max=max 100000"]);
    }

    #[test]
    fn what_no_processes_are_is_said_by_the_configuration() {
        for (version, limit, expected) in
            [("1.2.1", 0, None), ("1.3.0", 0, Some(1)), ("1.2.1", -1, Some(-1)), ("1.3.0", 7, Some(7))]
        {
            let config = serde_json::from_value(serde_json::json!({"ociVersion": version})).unwrap();
            let json = serde_json::json!({"pids": {"limit": limit}});
            let mut resources: LinuxResources = serde_json::from_value(json).unwrap();
            respect_zero(&mut resources, &config);
            let found = resources.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit);
            assert_eq!(found, expected, "{version} {limit}");
        }
    }

    #[test]
    fn a_refused_limit_takes_the_others_back() {
        let files = [
            ("memory.max", "max\n"),
            ("cpu.max", "max 100000\n"),
            ("cpuset.cpus", "\n"),
            ("io.max", "8:0 rbps=1 wbps=max riops=max wiops=max\n"),
        ];
        let settings = |last: &str| Cgroup {
            settings: [
                ("memory.max", "4096"),
                ("cpu.max", "1 2"),
                ("cpuset.cpus", "0"),
                ("io.max", "8:0 rbps=5"),
                (last, "1"),
            ]
            .map(|(file, value)| (file.to_owned(), value.to_owned()))
            .to_vec(),
            ..Cgroup::default()
        };
        let (directory, group) = fake(&files);
        let error = change(group.as_fd(), &settings("pids.max"), None).unwrap_err().to_string();
        assert!(error.contains("pids.max=1: no such file or directory (ENOENT)"), "{error}");
        assert!(text(directory.path(), "memory.max").starts_with("max"));
        assert!(text(directory.path(), "cpu.max").starts_with("max 100000"));
        assert!(text(directory.path(), "io.max").starts_with("8:0 rbps=1 wbps=max"));
        // The control: without the refusal all of them are in force.
        std::fs::write(directory.path().join("pids.max"), "max\n").unwrap();
        change(group.as_fd(), &settings("pids.max"), None).unwrap();
        assert!(text(directory.path(), "memory.max").starts_with("4096"));
        assert!(text(directory.path(), "pids.max").starts_with('1'));
    }

    #[test]
    fn a_refused_update_leaves_devices_their_weights() {
        let files = [("io.bfq.weight", "default 100\n8:0 20\n"), ("io.weight", "default 100\n")];
        let (directory, group) = fake(&files);
        let json =
            r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":50}]},"unified":{"no.max":"1"}}"#;
        let settings = compile::resources(&serde_json::from_str(json).unwrap()).unwrap();
        let error = change(group.as_fd(), &settings, None).unwrap_err().to_string();
        assert!(error.contains("no.max=1: no such file or directory (ENOENT)"), "{error}");
        // What was written last.
        assert!(text(directory.path(), "io.bfq.weight").starts_with("8:0 20"));
    }

    #[test]
    fn every_kind_of_file_has_its_undoing() {
        for (file, value, text, expected) in [
            ("memory.max", "4096", "max\n", "max\n"),
            ("cpuset.cpus", "0", "\n", "\n"),
            ("cpu.max", "1 2", "max 100000\n", "max 100000\n"),
            ("io.weight", "50", "default 100\n8:0 20\n", "default 100\n"),
            ("io.weight", "8:0 50", "default 100\n8:0 20\n", "8:0 20"),
            ("io.weight", "8:1 50", "default 100\n8:0 20\n", "8:1 default"),
            ("io.max", "8:1 rbps=5", "8:0 rbps=1\n", "8:1 rbps=max wbps=max riops=max wiops=max"),
            (
                "rdma.max",
                "mlx hca_handle=3",
                "mlx hca_handle=max hca_object=max\n",
                "mlx hca_handle=max hca_object=max",
            ),
        ] {
            assert_eq!(undo(file, value, text), expected, "{file} {value}");
        }
    }

    #[test]
    fn device_rules_are_the_container_s_or_an_error() {
        let config: Spec = serde_json::from_str(
            r#"{"ociVersion":"1.3.0","linux":{"resources":{"devices":[{"allow":false,"access":"rwm"}]}}}"#,
        )
        .unwrap();
        let mut own: LinuxResources = serde_json::from_str(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#).unwrap();
        drop_device_rules(&mut own, &config).unwrap();
        assert_eq!(own, nothing());
        let mut other: LinuxResources = serde_json::from_str(r#"{"devices":[{"allow":true,"access":"rwm"}]}"#).unwrap();
        assert!(drop_device_rules(&mut other, &config).unwrap_err().contains("linux.resources.devices"));
    }
}
