//! A declared container and its image → how PID 1 starts it.

use anyhow::{Context, Result, bail};
use garboard_config::{self as config, MountSource, Volume};
use garboard_images::source::Image;
use garboard_images::store::Store;
use garboard_images::view::{Kind, View};
use garboard_runtime::compile;
use garboard_runtime::launch::{IdMap, IdRange, Launch, Root, RootSource, Upper};
use garboard_runtime::spec::{self, Limits, Mount, MountKind, NamespaceChoice, Options, SeccompChoice, Ulimit};

use super::plan::Compiled;
use super::sources::Sources;
use super::{devices, system};
use crate::declaration::Declaration;

/// Where the reaper is seen in a container. `/dev` is a tmpfs of the container's own, so nothing of the image is covered.
const REAPER_TARGET: &str = "/dev/.garboard-init";
/// Directory of volumes that are kept.
const DATA_VOLUMES: &str = "/data/volumes";
/// Directory of volumes in memory.
const MEMORY_VOLUMES: &str = "/run/garboard/volumes";
/// What a container may write to its root, in bytes, unless declared or half of the memory is less.
const ROOT_SIZE: u64 = 256 << 20;

/// Compiles the launch of every container, in order. The images' layers must be in the store.
pub fn all(declaration: &Declaration, sources: &Sources, store: &Store) -> Result<Vec<Compiled>> {
    let containers = declaration.appliance.containers.iter();
    containers
        .map(|container| {
            let image = sources.get(&container.image)?;
            one(declaration, container, image, store).with_context(|| format!("container {}", container.name))
        })
        .collect()
}

fn one(declaration: &Declaration, container: &config::Container, image: &Image, store: &Store) -> Result<Compiled> {
    let seccomp = seccomp(declaration, container)?;
    let options = options(&declaration.appliance, container, seccomp)?;
    let files = Files(store.view(image)?);
    let made = spec::from_image(&image.config, &options, &files)?;
    let root = root(&declaration.appliance, container, store.lowers(image)?);
    let mut launch = compile::launch(&made.spec, root, &made.volumes)?;
    add_device_limits(&mut launch, &container.resources.io)?;
    Ok(Compiled { launch, stop_signal: made.stop_signal })
}

/// The overlay over the image's layers.
fn root(appliance: &config::Appliance, container: &config::Container, layers: Vec<String>) -> Root {
    let upper = if container.read_only {
        Upper::None
    } else {
        Upper::Tmpfs { size: container.rootfs_size.unwrap_or_else(|| default_root_size(appliance)) }
    };
    Root { source: RootSource::Layers { layers, upper }, readonly: container.read_only }
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
            SeccompChoice::Profile(text.with_context(|| format!("read seccomp profile {}", path.display()))?)
        }
    })
}

/// What the declaration says, in the runtime's terms. Pure.
fn options(appliance: &config::Appliance, container: &config::Container, seccomp: SeccompChoice) -> Result<Options> {
    let devices = container.devices.iter().map(device).collect::<Result<_>>()?;
    Ok(Options {
        entrypoint: container.entrypoint.clone(),
        command: container.command.clone(),
        init: container.init.then(|| REAPER_TARGET.to_owned()),
        env: container.environment.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect(),
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
        devices,
        limits: limits(&container.resources),
        ulimits: container.ulimits.iter().map(ulimit).collect(),
        oom_score_adj: container.oom_score_adj,
        seccomp,
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
    if container.init {
        let kind = MountKind::Bind { source: system::REAPER.to_owned(), recursive: false };
        mounts.push(Mount { target: REAPER_TARGET.to_owned(), kind, read_only: true, noexec: false });
    }
    Ok(mounts)
}

fn declared_mount(appliance: &config::Appliance, mount: &config::Mount) -> Result<Mount> {
    let (kind, noexec) = match &mount.source {
        MountSource::Volume(name) => (volume(appliance, name)?, false),
        MountSource::Tmpfs(tmpfs) => {
            (MountKind::Tmpfs { size: tmpfs.size, mode: tmpfs.mode, uid: tmpfs.uid, gid: tmpfs.gid }, tmpfs.noexec)
        }
    };
    Ok(Mount { target: mount.target.clone(), kind, read_only: mount.read_only, noexec })
}

fn volume(appliance: &config::Appliance, name: &str) -> Result<MountKind> {
    let source = match appliance.volumes.get(name) {
        Some(Volume::Data) => format!("{DATA_VOLUMES}/{name}"),
        Some(Volume::Tmpfs { size: None }) => format!("{MEMORY_VOLUMES}/{name}"),
        Some(Volume::Tmpfs { size: Some(_) }) => bail!(
            "volume {name}: a size limit on a volume in memory isn't supported yet: leave `size` out, or use the \
             container's own `tmpfs`, which can have one"
        ),
        None => bail!("volume {name} is not declared"),
    };
    Ok(MountKind::Volume { source })
}

fn limits(resources: &config::Resources) -> Limits {
    // Both values are the kernel's own file, so a declared period is kept as it is.
    let cpu = resources.cpu.map(|cpu| ("cpu.max".to_owned(), format!("{} {}", cpu.quota_us, cpu.period_us)));
    Limits {
        memory: resources.memory,
        memory_reservation: resources.memory_reservation,
        memory_and_swap: resources.memory_and_swap.and_then(at_most),
        cpu_millis: None,
        cpu_shares: resources.cpu_shares,
        cpuset: resources.cpuset.clone(),
        pids: at_most(resources.pids),
        io_weight: resources.io.weight,
        unified: cpu.into_iter().collect(),
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

fn device(device: &config::Device) -> Result<spec::Device> {
    let number = devices::number(&device.source)?;
    let letters = [(device.read, 'r'), (device.write, 'w'), (device.mknod, 'm')];
    Ok(spec::Device {
        source: device.source.clone(),
        target: device.target.clone(),
        kind: number.kind,
        major: number.major,
        minor: Some(number.minor),
        access: letters.into_iter().filter(|(allowed, _)| *allowed).map(|(_, letter)| letter).collect(),
    })
}

/// Limits for single disks: one write to `io.max` or `io.weight` for each (Documentation/admin-guide/cgroup-v2.rst, "IO").
fn add_device_limits(launch: &mut Launch, io: &config::Io) -> Result<()> {
    for device in &io.devices {
        let number = devices::number(&device.path)?;
        let id = format!("{}:{}", number.major, number.minor);
        let limits = [
            ("rbps", device.read_bps),
            ("wbps", device.write_bps),
            ("riops", device.read_iops),
            ("wiops", device.write_iops),
        ];
        let limits = limits.iter().filter_map(|(key, value)| value.map(|value| format!(" {key}={value}")));
        let limits: String = limits.collect();
        if !limits.is_empty() {
            launch.cgroup.settings.push(("io.max".to_owned(), format!("{id}{limits}")));
        }
        if let Some(weight) = device.weight {
            launch.cgroup.settings.push(("io.weight".to_owned(), format!("{id} {weight}")));
        }
    }
    Ok(())
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
