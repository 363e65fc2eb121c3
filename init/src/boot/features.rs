//! The kernel feature check: what this kernel lacks, what that breaks, and whether the appliance can do without.
//!
//! A table ([`TABLE`]) and a judgement; what is present is asked of the running kernel ([`super::probe`]), never of a
//! configuration file.

use garboard_runtime::launch::{IdMapping, Launch, MountSource, Namespace, RootSource};
use garboard_runtime::plan::Plan;
use serde::{Deserialize, Serialize};

use super::order;

/// What a feature's presence or absence means for this appliance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Present.
    Ok,
    /// Absent; the appliance runs without it, as the detail says.
    Degraded,
    /// Absent; the appliance can't run.
    Missing,
}

/// One line of the feature table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// Short name, also used in a plan's `needs`.
    pub name: String,
    /// The kernel option that provides it.
    pub config: String,
    /// What its presence or absence means.
    pub verdict: Verdict,
    /// What it means when it is not `Ok`; empty otherwise.
    pub detail: String,
}

/// What to do without a feature that no plan asks for by name.
#[derive(Debug, Clone, Copy)]
enum Without {
    /// Stop: nothing runs.
    Stop,
    /// Stop if this holds for any container of the plan, else go on.
    StopIf(fn(&Launch) -> bool),
    /// Go on.
    GoOn,
}

/// One row of the table.
struct Row {
    name: &'static str,
    config: &'static str,
    /// What fails, or how the appliance goes on.
    breaks: &'static str,
    without: Without,
}

const fn row(name: &'static str, config: &'static str, without: Without, breaks: &'static str) -> Row {
    Row { name, config, breaks, without }
}

use Without::{GoOn, Stop, StopIf};

/// Every feature that is checked, each with what fails without it.
const TABLE: &[Row] = &[
    row("version", "Linux ≥ 6.1", GoOn, "older than anything Garboard is tested with"),
    row("tmpfs", "CONFIG_TMPFS", Stop, "nowhere to write"),
    row("erofs", "CONFIG_EROFS_FS", Stop, "the system image can't be mounted"),
    row("dm_verity", "CONFIG_DM_VERITY", Stop, "the system image can't be verified"),
    row("cgroup_v2", "CONFIG_CGROUPS", Stop, "containers can't be held together, limited or killed"),
    row("memory", "CONFIG_MEMCG", GoOn, "memory limits are not enforced"),
    row("cpu", "CONFIG_CGROUP_SCHED", GoOn, "cpu limits are not enforced"),
    row("pids", "CONFIG_CGROUP_PIDS", GoOn, "process limits are not enforced: a fork bomb takes the whole machine"),
    row("io", "CONFIG_BLK_CGROUP", GoOn, "disk bandwidth limits are not enforced"),
    row("cpuset", "CONFIG_CPUSETS", GoOn, "containers can't be bound to processors"),
    row("freezer", "Linux ≥ 5.2", GoOn, "containers can't be paused"),
    row("cgroup_kill", "Linux ≥ 5.14", GoOn, "containers are killed process by process"),
    row("device_control", "CONFIG_CGROUP_BPF", StopIf(has_device_rules), "device rules can't be enforced"),
    row("user_ns", "CONFIG_USER_NS", StopIf(has_user_namespaces), "container root would be the machine's root"),
    row("pid_ns", "CONFIG_PID_NS", Stop, "containers would see each other's processes"),
    row("net_ns", "CONFIG_NET_NS", Stop, "containers would share one network"),
    row("ipc_ns", "CONFIG_IPC_NS", Stop, "containers would share memory segments and message queues"),
    row("uts_ns", "CONFIG_UTS_NS", Stop, "containers can't have host names of their own"),
    row(
        "cgroup_ns",
        "Linux ≥ 4.6",
        StopIf(has_cgroup_namespaces),
        "containers can't have control group namespaces of their own",
    ),
    row("seccomp", "CONFIG_SECCOMP", StopIf(has_filters), "system calls can't be filtered"),
    row("seccomp_filter", "CONFIG_SECCOMP_FILTER", StopIf(has_filters), "system calls can't be filtered"),
    row("overlay", "CONFIG_OVERLAY_FS", StopIf(has_layers), "image layers can't be stacked"),
    row("idmapped_mounts", "Linux ≥ 5.19", StopIf(has_user_namespaces), "files can't be given to container users"),
    row(
        "idmapped_tmpfs",
        "Linux ≥ 6.3",
        StopIf(has_memory_volumes),
        "volumes in memory can't be given to container users",
    ),
    row("mount_api", "Linux ≥ 5.2", Stop, "container mounts can't be made by file descriptor"),
    row("openat2", "Linux ≥ 5.6", Stop, "paths in an image can't be resolved safely"),
    row("pidfd", "Linux ≥ 5.3", Stop, "containers can't be watched"),
    row("clone_into_cgroup", "Linux ≥ 5.7", Stop, "containers can't be started inside their control group"),
    row("memfd", "CONFIG_MEMFD_CREATE", Stop, "PID 1's state can't survive a crash"),
    row("ext4", "CONFIG_EXT4_FS", GoOn, "the data partition can't be mounted: volumes are kept in memory only"),
    row("mqueue", "CONFIG_POSIX_MQUEUE", StopIf(has_message_queues), "/dev/mqueue can't be mounted in containers"),
];

fn has_user_namespaces(launch: &Launch) -> bool {
    launch.ids.is_some()
}

/// Volumes in memory are directories of PID 1's own tmpfs.
fn has_memory_volumes(launch: &Launch) -> bool {
    let mapped = |source: &MountSource| match source {
        MountSource::Bind { path, idmap, .. } => *idmap != IdMapping::None && path.starts_with("/run/"),
        MountSource::Filesystem { .. } | MountSource::Inside { .. } | MountSource::Existing { .. } => false,
    };
    launch.ids.is_some() && launch.mounts.iter().any(|mount| mapped(&mount.source))
}

fn has_cgroup_namespaces(launch: &Launch) -> bool {
    launch.namespaces.cgroup == Namespace::New
}

fn has_message_queues(launch: &Launch) -> bool {
    let queues = |source: &MountSource| matches!(source, MountSource::Filesystem { fstype, .. } if fstype == "mqueue");
    launch.mounts.iter().any(|mount| queues(&mount.source))
}

fn has_filters(launch: &Launch) -> bool {
    launch.seccomp.is_some()
}

fn has_device_rules(launch: &Launch) -> bool {
    !launch.cgroup.device_filter.is_empty()
}

fn has_layers(launch: &Launch) -> bool {
    matches!(launch.root.source, RootSource::Layers { .. })
}

/// Answers whether the running kernel has a feature of the table.
pub trait Kernel {
    /// Whether the feature of that name is there.
    fn has(&self, feature: &str) -> bool;

    /// Its release, such as `6.12.1-amd64`.
    fn release(&self) -> &str;
}

/// The whole table with its verdicts. Without a plan (it lies on the disk that some features are needed to reach), only what
/// every appliance needs can be missing.
pub fn check(kernel: &dyn Kernel, plan: Option<&Plan>) -> Vec<Feature> {
    let mut features: Vec<Feature> = TABLE.iter().map(|row| judge(row, kernel.has(row.name), plan)).collect();
    if let Some(version) = features.iter_mut().find(|feature| feature.name == "version") {
        version.config = format!("{}, is {}", version.config, kernel.release());
    }
    features
}

fn judge(row: &Row, present: bool, plan: Option<&Plan>) -> Feature {
    // What the first container can do without may still be among the modules that are loaded after it.
    let comes_later = |plan: &Plan| plan.modules.iter().any(|module| order::module_name(&module.path) == row.name);
    let present = present || matches!(row.without, GoOn) && plan.is_some_and(comes_later);
    let needed = plan.is_some_and(|plan| plan.needs.iter().any(|need| need == row.name));
    let stop = || match row.without {
        Stop => true,
        StopIf(holds) => {
            plan.is_some_and(|plan| plan.containers.iter().any(|c| c.launch.unpack().as_ref().map_or(true, holds)))
        }
        GoOn => false,
    };
    let (verdict, detail) = if present {
        (Verdict::Ok, String::new())
    } else if needed {
        (Verdict::Missing, format!("{}; the declaration needs it", row.breaks))
    } else if stop() {
        (Verdict::Missing, row.breaks.to_owned())
    } else {
        (Verdict::Degraded, row.breaks.to_owned())
    };
    Feature { name: row.name.to_owned(), config: row.config.to_owned(), verdict, detail }
}

/// Takes back that a feature will come with a module that is loaded later: the module could not be loaded.
pub fn withdraw(features: &mut [Feature], name: &str) {
    let row = TABLE.iter().find(|row| row.name == name);
    let feature = features.iter_mut().find(|f| f.name == name && f.verdict == Verdict::Ok);
    if let Some((feature, row)) = feature.zip(row) {
        feature.verdict = Verdict::Degraded;
        row.breaks.clone_into(&mut feature.detail);
    }
}

/// The table for people: only what is not there, a line each. Before the plan is known (`planned` is false) some verdicts are
/// open.
pub fn table(features: &[Feature], planned: bool) -> String {
    let open = |name: &str| !planned && TABLE.iter().any(|r| r.name == name && matches!(r.without, StopIf(_)));
    let lines = features.iter().filter(|f| f.verdict != Verdict::Ok).map(|f| {
        let verdict = match f.verdict {
            Verdict::Missing => "STOP",
            _ if open(&f.name) => "may stop",
            _ => "goes on",
        };
        format!("  {:<18} {:<24} {:<8} {}\n", f.name, f.config, verdict, f.detail)
    });
    lines.collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A kernel that has everything except those.
    struct Without(Vec<&'static str>);

    impl Kernel for Without {
        fn has(&self, feature: &str) -> bool {
            !self.0.contains(&feature)
        }

        fn release(&self) -> &str {
            "5.19.17-test"
        }
    }

    /// A plan with one ordinary container: user namespace, filter, device rules, layers, a volume in memory.
    pub(crate) fn plan() -> Plan {
        use garboard_runtime::{launch, plan};
        let source = RootSource::Layers { layers: vec!["/layers/a".into()], upper: launch::Upper::None };
        let mut launch = Launch::bare(launch::Root { source, readonly: true, ..launch::Root::default() });
        launch.process.args = vec!["/app".into()];
        launch.ids = Some(launch::IdMap { uids: vec![], gids: vec![] });
        launch.cgroup.device_filter = vec![0; 8];
        launch.seccomp = Some(launch::Seccomp { bpf: [].into(), flags: 0, listener: None });
        launch.mounts.push(launch::Mount {
            target: "/dev/mqueue".into(),
            source: MountSource::Filesystem { fstype: "mqueue".into(), device: None, options: vec![], copy_up: false },
            flags: launch::MountFlags::default(),
        });
        launch.mounts.push(launch::Mount {
            target: "/brief".into(),
            source: MountSource::Bind {
                path: "/run/garboard/volumes/brief".into(),
                recursive: false,
                idmap: IdMapping::Container { recursive: false },
                links: launch::EndLinks::Followed,
                create: None,
            },
            flags: launch::MountFlags::default(),
        });
        Plan {
            appliance: "demo".into(),
            hostname: "demo".into(),
            modules: vec![],
            needs: vec![],
            sysctls: vec![],
            network: plan::Network { address: plan::Addressing::None, interface: None, dns: vec![] },
            data: None,
            memory_volumes: vec![],
            console: plan::Console { logs: true, status: true, access: plan::Access::Off },
            log_budget: 0,
            watchdog_seconds: None,
            status_vsock: None,
            pods: vec![],
            containers: vec![plan::Container::bare("web", plan::PackedLaunch::of(launch).unwrap())],
        }
    }

    fn verdict(missing: &'static str, plan: Option<&Plan>) -> Verdict {
        let features = check(&Without(vec![missing]), plan);
        assert!(features.iter().all(|f| f.name == missing || f.verdict == Verdict::Ok), "only {missing} is affected");
        features.iter().find(|f| f.name == missing).unwrap().verdict
    }

    #[test]
    fn each_missing_feature_has_its_verdict() {
        let plan = plan();
        for row in TABLE {
            let expected = if matches!(row.without, GoOn) { Verdict::Degraded } else { Verdict::Missing };
            assert_eq!(verdict(row.name, Some(&plan)), expected, "{}", row.name);
        }
    }

    #[test]
    fn a_need_of_the_declaration_stops() {
        let mut plan = plan();
        plan.needs = vec!["memory".into()];
        assert_eq!(verdict("memory", Some(&plan)), Verdict::Missing);
        assert_eq!(verdict("pids", Some(&plan)), Verdict::Degraded);
    }

    #[test]
    fn a_filesystem_that_is_loaded_later_is_not_missing() {
        let mut plan = plan();
        let module = |name: &str| garboard_runtime::plan::Module {
            path: format!("/garboard/modules/{name}.ko"),
            aliases: vec![],
            parameters: String::new(),
        };
        plan.modules = vec![module("ext4"), module("overlay")];
        assert_eq!(verdict("ext4", Some(&plan)), Verdict::Ok);
        assert_eq!(verdict("overlay", Some(&plan)), Verdict::Missing, "the first container needs it at once");
    }

    #[test]
    fn what_no_container_uses_does_not_stop() {
        let mut plan = plan();
        plan.containers.clear();
        for name in [
            "user_ns",
            "cgroup_ns",
            "seccomp",
            "seccomp_filter",
            "overlay",
            "device_control",
            "idmapped_mounts",
            "mqueue",
        ] {
            assert_eq!(verdict(name, Some(&plan)), Verdict::Degraded, "{name}");
            assert_eq!(verdict(name, None), Verdict::Degraded, "{name}");
        }
        assert_eq!(verdict("dm_verity", None), Verdict::Missing);
    }

    #[test]
    fn the_table_names_option_and_consequence() {
        let text = table(&check(&Without(vec!["erofs", "io"]), None), false);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(
            lines[0].contains("CONFIG_EROFS_FS") && lines[0].contains("STOP") && lines[0].contains("can't be mounted")
        );
        assert!(lines[1].contains("CONFIG_BLK_CGROUP") && lines[1].contains("goes on"));
    }

    #[test]
    fn a_launch_is_not_begun_that_can_not_succeed() {
        let plan = plan();
        for name in ["mqueue", "cgroup_ns"] {
            assert_eq!(verdict(name, Some(&plan)), Verdict::Missing, "{name}: each launch would fail");
        }
    }

    #[test]
    fn the_running_kernel_is_named() {
        let text = table(&check(&Without(vec!["version"]), Some(&plan())), true);
        assert!(text.contains("Linux ≥ 6.1, is 5.19.17-test") && text.contains("goes on"), "{text}");
    }

    #[test]
    fn what_only_the_plan_decides_is_open_without_it() {
        let kernel = Without(vec!["overlay"]);
        assert!(table(&check(&kernel, None), false).contains("may stop"));
        assert!(table(&check(&kernel, Some(&plan())), true).contains("STOP"));
    }

    #[test]
    fn a_module_that_fails_later_takes_its_feature_back() {
        let mut features = check(&Without(vec!["io"]), Some(&plan()));
        let before = features.clone();
        withdraw(&mut features, "io");
        withdraw(&mut features, "virtio_rng");
        assert_eq!(features, before, "no feature that counts as present");
        withdraw(&mut features, "ext4");
        let ext4 = features.iter().find(|f| f.name == "ext4").unwrap();
        assert!(ext4.verdict == Verdict::Degraded && ext4.detail.contains("in memory only"), "{ext4:?}");
    }
}
