//! A declared container and its image → how PID 1 starts it.

use anyhow::{Context, Result};
use garboard_config::{self as config, Fault, MountSource};
use garboard_images::source::Image;
use garboard_images::store::Store;
use garboard_images::view::{Kind, View};
use garboard_runtime::compile;
use garboard_runtime::launch::{DeviceSetting, IdMap, IdRange, Root, RootSource, Upper};
use garboard_runtime::plan::{NOTIFY, NOTIFY_TARGET, RUN};
use garboard_runtime::spec::{self, Limits, Mount, MountKind, NamespaceChoice, Options, SeccompChoice, Ulimit};

use super::plan::Compiled;
use super::sources::Sources;
use super::{faults, health, plan, system, volumes};
use crate::declaration::Declaration;

/// Where the reaper is seen in a container. `/dev` is a tmpfs of the container's own, so nothing of the image is covered.
const REAPER_TARGET: &str = "/dev/.garboard-init";
/// What a container may write to its root, in bytes, unless declared or half of the memory is less.
const ROOT_SIZE: u64 = 256 << 20;
/// Room above a read-only root for mount points that the image lacks. The root is made read-only once they are there.
const MOUNT_POINTS: u64 = 1 << 20;

/// Compiles the launch of every container, in order; else all faults at once. The images' layers must be in the store.
/// `release` is the kernel's, if it is known.
pub fn all(
    declaration: &Declaration,
    sources: &Sources,
    store: &Store,
    release: Option<&str>,
) -> Result<Vec<Compiled>, Vec<Fault>> {
    let kernel = release.and_then(spec::seccomp::kernel_version);
    let (mut compiled, mut found) = (Vec::new(), Vec::new());
    for container in &declaration.appliance.containers {
        match sources.get(&container.image).and_then(|image| one(declaration, container, image, store, kernel)) {
            Ok(one) => compiled.push(one),
            Err(error) => found.push(faults::of_container(container, &error)),
        }
    }
    if found.is_empty() {
        found = health::waited_for_in_vain(&declaration.appliance, &compiled);
    }
    if found.is_empty() { Ok(compiled) } else { Err(found) }
}

fn one(
    declaration: &Declaration,
    container: &config::Container,
    image: &Image,
    store: &Store,
    kernel: Option<(u32, u32)>,
) -> Result<Compiled> {
    let seccomp = seccomp(declaration, container)?;
    let options = Options { kernel, ..options(&declaration.appliance, container, seccomp)? };
    let files = Files(store.view(image)?);
    let made = spec::from_image(&image.config, &options, &files)?;
    let root = root(&declaration.appliance, container, store.lowers(image)?);
    let mut launch = compile::launch(&made.spec, root, &made.volumes)?;
    launch.devices = made.nodes;
    launch.cgroup.devices = made.devices;
    launch.cgroup.device_settings = device_limits(&container.resources.io);
    let health = health::of(container, &image.config_json)?;
    let warnings = made.warnings.into_iter().chain(volumes::hidden(image, &options, &files.0)?);
    let warnings = warnings.map(|warning| format!("container {}: {warning}", container.name)).collect();
    Ok(Compiled { launch, stop_signal: made.stop_signal, exposed_ports: made.exposed_ports, health, warnings })
}

/// The overlay over the image's layers.
fn root(appliance: &config::Appliance, container: &config::Container, layers: Vec<String>) -> Root {
    let size = match container.rootfs_size {
        _ if container.read_only => MOUNT_POINTS,
        Some(size) => size,
        None => default_root_size(appliance),
    };
    let source = RootSource::Layers { layers, upper: Upper::Tmpfs { size } };
    Root { source, readonly: container.read_only, ..Root::default() }
}

fn default_root_size(appliance: &config::Appliance) -> u64 {
    ROOT_SIZE.min((u64::from(appliance.system.memory_mb) << 20) / 2)
}

/// The file that `seccomp=FILE` names.
fn seccomp(declaration: &Declaration, container: &config::Container) -> Result<SeccompChoice> {
    Ok(match &container.seccomp {
        config::Seccomp::Default => SeccompChoice::Default,
        config::Seccomp::Unconfined => SeccompChoice::Unconfined,
        config::Seccomp::Profile(path) => {
            let path = declaration.path(path);
            let text = std::fs::read_to_string(&path);
            let unread = |error| spec::Error::new("security_opt", format!("read {}: {error}", path.display()));
            SeccompChoice::Profile(text.map_err(unread)?)
        }
    })
}

/// What the declaration says, in the runtime's terms. Pure.
fn options(appliance: &config::Appliance, container: &config::Container, seccomp: SeccompChoice) -> Result<Options> {
    Ok(Options {
        entrypoint: container.entrypoint.clone(),
        command: container.command.clone(),
        init: container.init.then(|| REAPER_TARGET.to_owned()),
        env: environment(container).map(|(name, value)| (name, Some(value))).collect(),
        user: container.user.as_ref().map(ToString::to_string),
        group_add: container.group_add.iter().map(ToString::to_string).collect(),
        working_dir: container.working_dir.clone(),
        hostname: container.hostname.clone(),
        domainname: container.domainname.clone(),
        cap_add: container.cap_add.clone(),
        cap_drop: container.cap_drop.clone(),
        mounts: mounts(appliance, container)?,
        // A volume that only the image declares is a place to write to: on a read-only root it has to be something else.
        image_volumes: container.read_only.then(|| default_root_size(appliance)),
        devices: container.devices.iter().map(device).collect(),
        limits: limits(&container.resources),
        ulimits: container.ulimits.iter().map(ulimit).collect(),
        oom_score_adj: container.oom_score_adj,
        seccomp,
        kernel: None,
        no_new_privileges: container.no_new_privileges,
        masked_paths: None,
        readonly_paths: None,
        pid: namespace(container.host_pid),
        network: namespace(container.network == config::NetworkMode::Host),
        ipc: namespace(container.host_ipc),
        uts: namespace(container.host_uts),
        cgroup: namespace(container.host_cgroup),
        ids: container.ids.map(ids),
        read_only: container.read_only,
        sysctls: container.sysctls.iter().cloned().collect(),
        shm_size: container.shm_size,
        stop_signal: container.stop_signal.map(|number| number.to_string()),
        annotations: container.labels.clone(),
    })
}

/// What is declared, and how the program says that it is ready and alive (sd_notify(3), sd_watchdog_enabled(3)).
fn environment(container: &config::Container) -> impl Iterator<Item = (String, String)> {
    let supervision = &container.supervision;
    let socket = supervision.notify.then(|| ("NOTIFY_SOCKET", NOTIFY_TARGET.to_owned()));
    let watchdog = supervision.watchdog.map(|longest| ("WATCHDOG_USEC", longest.as_micros().to_string()));
    let ours = [socket, watchdog].into_iter().flatten().map(|(name, value)| (name.to_owned(), value));
    container.environment.iter().cloned().chain(ours)
}

fn namespace(host: bool) -> NamespaceChoice {
    if host { NamespaceChoice::Host } else { NamespaceChoice::New }
}

/// The same range for users and groups.
fn ids(range: config::IdRange) -> IdMap {
    let range = vec![IdRange { inside: 0, outside: range.base, size: range.size }];
    IdMap { uids: range.clone(), gids: range }
}

fn mounts(appliance: &config::Appliance, container: &config::Container) -> Result<Vec<Mount>> {
    let mut mounts =
        container.mounts.iter().map(|mount| declared_mount(appliance, mount)).collect::<Result<Vec<_>>>()?;
    let etc = plan::etc(appliance, container);
    let of_container = |name: &str| format!("{RUN}/etc/{}/{name}", container.name);
    let generated = [
        etc.hosts.map(|_| ("/etc/hosts", of_container("hosts"))),
        etc.hostname.map(|_| ("/etc/hostname", of_container("hostname"))),
        etc.resolv_conf.then(|| ("/etc/resolv.conf", format!("{RUN}/resolv.conf"))),
        container.init.then(|| (REAPER_TARGET, system::REAPER.to_owned())),
        container.supervision.notify.then(|| (NOTIFY_TARGET, format!("{RUN}/{NOTIFY}/{}.sock", container.name))),
    ];
    for (target, source) in generated.into_iter().flatten() {
        // What a person mounts there is what they want there.
        if !mounts.iter().any(|mount| mount.target == target) {
            let kind = MountKind::Bind { source, recursive: false };
            mounts.push(Mount { target: target.to_owned(), kind, read_only: true, noexec: false });
        }
    }
    Ok(mounts)
}

fn declared_mount(appliance: &config::Appliance, mount: &config::Mount) -> Result<Mount> {
    let (kind, noexec) = match &mount.source {
        MountSource::Volume(name) => {
            let source = volumes::directory(appliance, name);
            (MountKind::Volume { source: source.with_context(|| format!("volume {name} is not declared"))? }, false)
        }
        MountSource::Tmpfs(tmpfs) => {
            (MountKind::Tmpfs { size: tmpfs.size, mode: tmpfs.mode, uid: tmpfs.uid, gid: tmpfs.gid }, !tmpfs.exec)
        }
    };
    Ok(Mount { target: mount.target.clone(), kind, read_only: mount.read_only, noexec })
}

fn limits(resources: &config::Resources) -> Limits {
    Limits {
        memory: resources.memory,
        memory_reservation: resources.memory_reservation,
        memory_and_swap: resources.memory_and_swap.and_then(at_most),
        cpu: resources.cpu.map(|cpu| (cpu.quota_us, cpu.period_us)),
        cpu_shares: resources.cpu_shares,
        cpuset: resources.cpuset.clone(),
        pids: at_most(resources.pids),
        io_weight: resources.io.weight,
    }
}

fn at_most(limit: config::Limit) -> Option<u64> {
    match limit {
        config::Limit::At(most) => Some(most),
        config::Limit::Unlimited => None,
    }
}

fn ulimit(ulimit: &config::Ulimit) -> Ulimit {
    Ulimit { name: ulimit.name.to_owned(), soft: ulimit.soft, hard: ulimit.hard }
}

fn device(device: &config::Device) -> spec::Device {
    let letters = [(device.read, 'r'), (device.write, 'w'), (device.mknod, 'm')];
    let access = letters.into_iter().filter(|(allowed, _)| *allowed).map(|(_, letter)| letter).collect();
    spec::Device { source: device.source.clone(), target: device.target.clone(), access }
}

/// Limits for single disks: one write to `io.max` or `io.weight` for each (Documentation/admin-guide/cgroup-v2.rst, "IO").
fn device_limits(io: &config::Io) -> Vec<DeviceSetting> {
    let mut settings = Vec::new();
    for device in &io.devices {
        let mut set = |file: &str, value: String| {
            settings.push(DeviceSetting { file: file.to_owned(), path: device.path.clone(), value });
        };
        let limits = [
            ("rbps", device.read_bps),
            ("wbps", device.write_bps),
            ("riops", device.read_iops),
            ("wiops", device.write_iops),
        ];
        let limits = limits.iter().filter_map(|(key, value)| value.map(|value| format!("{key}={value}")));
        let limits: Vec<String> = limits.collect();
        if !limits.is_empty() {
            set("io.max", limits.join(" "));
        }
        if let Some(weight) = device.weight {
            set("io.weight", compile::cgroup::io_weight(weight).to_string());
        }
    }
    settings
}

/// An image's files, for the runtime's look-ups of users and volumes.
struct Files<'a>(View<'a>);

impl spec::ImageFiles for Files<'_> {
    fn read(&self, path: &str, limit: usize) -> std::io::Result<Option<Vec<u8>>> {
        self.0.read(path, limit as u64).map_err(std::io::Error::other)
    }

    fn metadata(&self, path: &str) -> std::io::Result<Option<spec::FileMetadata>> {
        let found = self.0.metadata(path).map_err(std::io::Error::other)?;
        Ok(found.map(|found| spec::FileMetadata {
            directory: found.kind == Kind::Directory,
            uid: found.uid,
            gid: found.gid,
            mode: found.mode,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn options_of(keys: &str) -> Result<Options> {
        let volumes = "[volumes.kept]\n[volumes.quick]\nkind = \"tmpfs\"\n";
        let text = format!("name = \"x\"\n[containers.a]\nimage = \"i\"\n{keys}\n{volumes}");
        let appliance = testing::appliance(&text);
        options(&appliance, &appliance.containers[0], SeccompChoice::Default)
    }

    fn sources(options: &Options) -> Vec<(&str, String)> {
        let of = |kind: &MountKind| match kind {
            MountKind::Bind { source, .. } => format!("bind {source}"),
            MountKind::Volume { source } => format!("volume {source}"),
            MountKind::Tmpfs { .. } => "tmpfs".to_owned(),
        };
        options.mounts.iter().map(|mount| (mount.target.as_str(), of(&mount.kind))).collect()
    }

    #[test]
    fn mounts_are_volumes_then_generated_files() {
        let made = options_of("init = true\nvolumes = [\"kept:/k\", \"quick:/q\"]\ntmpfs = \"/t\"").unwrap();
        let expected = [
            ("/k", "volume /data/volumes/kept"),
            ("/q", "volume /run/garboard/volumes/quick/files"),
            ("/t", "tmpfs"),
            ("/etc/hosts", "bind /run/garboard/etc/a/hosts"),
            ("/etc/hostname", "bind /run/garboard/etc/a/hostname"),
            ("/dev/.garboard-init", "bind /garboard/reaper"),
        ];
        let expected: Vec<(&str, String)> = expected.into_iter().map(|(t, s)| (t, s.to_owned())).collect();
        assert_eq!(sources(&made), expected);
        assert!(made.mounts.iter().filter(|m| matches!(m.kind, MountKind::Bind { .. })).all(|m| m.read_only));
        assert_eq!(made.init.as_deref(), Some("/dev/.garboard-init"));
    }

    #[test]
    fn a_mount_of_ones_own_wins_over_a_generated_file() {
        let made = options_of("volumes = [\"kept:/etc/hosts\"]").unwrap();
        let hosts: Vec<_> = sources(&made).into_iter().filter(|(target, _)| *target == "/etc/hosts").collect();
        assert_eq!(hosts, [("/etc/hosts", "volume /data/volumes/kept".to_owned())]);
    }

    #[test]
    fn safe_unless_declared_otherwise() {
        let made = options_of("").unwrap();
        let own = [&made.pid, &made.network, &made.ipc, &made.uts, &made.cgroup];
        assert!(own.into_iter().all(|choice| *choice == NamespaceChoice::New));
        assert!(made.ids.is_some() && made.no_new_privileges && made.seccomp == SeccompChoice::Default);
        assert_eq!(made.limits.pids, Some(2048));
        let open = options_of("network_mode = \"host\"\npid = \"host\"\nuserns_mode = \"host\"").unwrap();
        assert_eq!((open.network, open.pid, open.ids), (NamespaceChoice::Host, NamespaceChoice::Host, None));
    }

    #[test]
    fn processor_time_keeps_its_period() {
        let made = options_of("cpu_quota = 5000\ncpu_period = 20000").unwrap();
        assert_eq!(made.limits.cpu, Some((5000, 20000)));
    }

    #[test]
    fn limits_of_single_disks_are_written_one_by_one() {
        let text = "name = \"x\"\n[containers.a]\nimage = \"i\"\n[containers.a.blkio_config]\n\
            device_read_bps = [{ path = \"/dev/vda\", rate = \"1m\" }, { path = \"/dev/nvme0n1\", rate = 5 }]\n\
            device_write_iops = [{ path = \"/dev/vda\", rate = 7 }]\n\
            weight_device = [{ path = \"/dev/vda\", weight = 400 }]\n";
        let appliance = testing::appliance(text);
        let settings = device_limits(&appliance.containers[0].resources.io);
        let mut settings: Vec<_> = settings.iter().map(|s| format!("{} {} {}", s.file, s.path, s.value)).collect();
        settings.sort();
        let expected = ["io.max /dev/nvme0n1 rbps=5", "io.max /dev/vda rbps=1048576 wiops=7", "io.weight /dev/vda 80"];
        assert_eq!(settings, expected);
    }
}
