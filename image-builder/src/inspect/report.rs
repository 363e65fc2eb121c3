//! What an image holds, as data.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek};

use anyhow::{Result, anyhow, bail, ensure};
use garboard_images::erofs::{BLOCK_SIZE, FileKind, Inode, Reader};
use garboard_runtime::launch::{DeviceAccess, Launch, Mount, MountSource, RootSource, Upper};
use garboard_runtime::plan::{self, Container, Plan, PlanError, Restart};
use serde::Serialize;

use super::seal::Seal;
use super::watched;
use crate::kernel::modinfo;
use crate::verity::uuid_text;

/// Directories in a layer are followed so deep.
const MAX_DEPTH: usize = 4096;
/// No module is read that is larger, in bytes.
const MODULE_LIMIT: u64 = 128 << 20;

/// What an image holds. Sizes are in bytes.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Version of this format.
    pub v: u32,
    /// The appliance's name.
    pub appliance: String,
    /// The machine's host name.
    pub hostname: String,
    /// Release of the kernel it was built for, if anything in the image tells.
    pub kernel: Option<String>,
    /// Root hash of the system image.
    pub root_hash: String,
    /// Size of the filesystem.
    pub system_bytes: u64,
    /// Size of its hash tree.
    pub hash_bytes: u64,
    /// How files of the layers are compressed, if any is.
    pub compression: Option<Compression>,
    /// UUID of the data filesystem, if anything is kept.
    pub data_uuid: Option<String>,
    /// Kernel modules in the system image, in load order.
    pub modules: Vec<String>,
    /// The layers, by digest.
    pub layers: Vec<Layer>,
    /// The containers, each after those it depends on.
    pub containers: Vec<Summary>,
}

/// The files that are compressed; of files with one content, one.
#[derive(Debug, Serialize)]
pub struct Compression {
    /// The algorithm, as a declaration writes it.
    pub algorithm: &'static str,
    /// What they hold.
    pub bytes: u64,
    /// What that takes in the image.
    pub stored_bytes: u64,
}

/// A layer directory.
#[derive(Debug, Serialize)]
pub struct Layer {
    /// Its diff id, 64 hexadecimal digits; with `-2` and so on behind them where one layer lies on different ones.
    pub diff_id: String,
    /// Size of its files.
    pub bytes: u64,
    /// Number of its regular files.
    pub files: u64,
}

/// A container.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// The image as the declaration named it.
    pub image: String,
    /// Program and arguments.
    pub args: Vec<String>,
    /// User and group, inside the container.
    pub user: String,
    /// First id outside, unless it has the machine's ids.
    pub ids_from: Option<u32>,
    /// Diff ids of its layers, the topmost first.
    pub layers: Vec<String>,
    /// Bytes it may write to its root, in memory; 0: the root is read-only.
    pub writable_bytes: u64,
    /// Resource limits: cgroup file and value.
    pub limits: BTreeMap<String, String>,
    /// What is mounted over its root, in order.
    pub mounts: Vec<Mounted>,
    /// The machine's devices that it may use: path of the machine, and what for (`r`, `w`, `m`).
    pub devices: BTreeMap<String, String>,
    /// Resource limits of single devices: cgroup file, path of the device, value.
    pub device_limits: Vec<[String; 3]>,
    /// When it is started again, as Compose writes it.
    pub restart: String,
    /// Names of the containers it waits for.
    pub depends_on: Vec<String>,
    /// How it is watched, in the declaration's words.
    pub watched: Vec<String>,
    /// The pod that it is in.
    pub pod: Option<String>,
    /// What weakens its isolation, in the declaration's words.
    pub weakened: Vec<String>,
    /// Ports on which it is to be reached, declared or exposed by its image: `80/tcp`, `8000-8003/udp`.
    pub ports: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// How much of its output is kept on the data partition.
    pub kept_log: Option<KeptLog>,
}

/// A log that outlives the machine.
#[derive(Debug, Serialize)]
pub struct KeptLog {
    /// Size of a file, at most.
    pub file_bytes: u64,
    /// How many there are.
    pub files: u32,
}

/// A mount.
#[derive(Debug, Serialize)]
pub struct Mounted {
    /// Where, inside the container.
    pub target: String,
    /// A path of the machine, or the kind of a new filesystem with its options.
    pub source: String,
    /// Nothing can be written there.
    pub readonly: bool,
}

/// Reads plan and layers. `kernel`: the release of the kernel beside the image, which must be the one that its modules are for.
pub fn make<R: Read + Seek>(mut reader: Reader<R>, seal: &Seal, kernel: Option<String>) -> Result<Report> {
    let plan = read_plan(&mut reader)?;
    let sealed = kernel_of_modules(&mut reader, &plan)?;
    if let (Some(beside), Some(sealed)) = (&kernel, &sealed) {
        ensure!(
            beside == sealed,
            "the kernel beside the system image is of release {beside}, but its modules are for {sealed}: it is from another build"
        );
    }
    let kernel = kernel.or(sealed);
    let containers: Vec<Summary> =
        plan.containers.iter().map(|container| summary(&plan, container)).collect::<Result<_>>()?;
    let diff_ids: BTreeSet<String> = containers.iter().flat_map(|summary| summary.layers.clone()).collect();
    let mut compressed = BTreeMap::new();
    let layers = diff_ids.into_iter().map(|diff_id| measure(&mut reader, diff_id, &mut compressed));
    let layers = layers.collect::<Result<_>>()?;
    Ok(Report {
        v: 1,
        compression: reader.compression().map(|algorithm| Compression {
            algorithm: algorithm.name(),
            bytes: compressed.values().fold(0, |sum: u64, (bytes, _)| sum.saturating_add(*bytes)),
            stored_bytes: compressed.values().fold(0, |sum: u64, (_, blocks)| sum.saturating_add(blocks * BLOCK_SIZE)),
        }),
        kernel,
        root_hash: seal.root_hash.clone(),
        system_bytes: reader.blocks().saturating_mul(BLOCK_SIZE),
        hash_bytes: seal.size,
        data_uuid: plan.data.as_ref().map(|data| uuid_text(&data.uuid)),
        modules: plan.modules.iter().map(|module| module_name(&module.path).to_owned()).collect(),
        layers,
        containers,
        appliance: plan.appliance,
        hostname: plan.hostname,
    })
}

fn read_plan<R: Read + Seek>(reader: &mut Reader<R>) -> Result<Plan> {
    let Some(inode) = reader.lookup(plan::PATH.as_bytes())? else {
        bail!("no {} in the filesystem: not a system image of Garboard", plan::PATH);
    };
    let bytes = reader.read(&inode, plan::MAX_SIZE as u64)?;
    Plan::decode(&bytes).map_err(|error| match error {
        PlanError::Version(version) => anyhow!(
            "{} is of version {version}, and this garboard reads version {}: look at the image with the one that made it, or build it again",
            plan::PATH,
            plan::VERSION
        ),
        other => anyhow::Error::from(other).context(format!("read {}", plan::PATH)),
    })
}

/// The kernel that the first module is for.
fn kernel_of_modules<R: Read + Seek>(reader: &mut Reader<R>, plan: &Plan) -> Result<Option<String>> {
    let Some(module) = plan.modules.first() else { return Ok(None) };
    let Some(inode) = reader.lookup(module.path.as_bytes())? else {
        bail!("the plan names module {}, which isn't in the filesystem", module.path);
    };
    let info = modinfo::parse(&reader.read(&inode, MODULE_LIMIT)?)?;
    Ok(info.vermagic.split(' ').next().map(str::to_owned))
}

fn module_name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.strip_suffix(".ko").unwrap_or(file)
}

/// Diff ids of a container's layers, the topmost first.
fn layers_of(launch: &Launch) -> Vec<String> {
    match &launch.root.source {
        RootSource::Directory(_) => Vec::new(),
        RootSource::Layers { layers, .. } => {
            layers.iter().map(|path| path.rsplit('/').next().unwrap_or(path).to_owned()).collect()
        }
    }
}

/// Counts a layer's files. Those that are compressed are noted by their first block, with their size and number of blocks.
fn measure<R: Read + Seek>(
    reader: &mut Reader<R>,
    diff_id: String,
    compressed: &mut BTreeMap<u64, (u64, u64)>,
) -> Result<Layer> {
    let path = format!("/layers/{diff_id}");
    let Some(root) = reader.lookup(path.as_bytes())? else {
        bail!("the plan names layer {path}, which isn't in the filesystem");
    };
    let mut layer = Layer { diff_id, bytes: 0, files: 0 };
    let mut seen = BTreeSet::new();
    let mut open: Vec<(Inode, usize)> = vec![(root, 0)];
    while let Some((directory, depth)) = open.pop() {
        for entry in reader.list(&directory)? {
            // Hard links are one file. And directories are visited once, so that a circle ends.
            if matches!(entry.name.as_slice(), b"." | b"..") || !seen.insert(entry.nid) {
                continue;
            }
            let inode = reader.inode(entry.nid)?;
            match inode.kind {
                FileKind::Directory if depth < MAX_DEPTH => open.push((inode, depth + 1)),
                FileKind::File => {
                    layer.files += 1;
                    layer.bytes = layer.bytes.saturating_add(inode.size);
                    if let Some((first, blocks)) = reader.compressed_blocks(&inode)? {
                        compressed.insert(first, (inode.size, blocks));
                    }
                }
                _ => {}
            }
        }
    }
    Ok(layer)
}

fn summary(plan: &Plan, container: &Container) -> Result<Summary> {
    let launch = container.launch.unpack()?;
    let upper = match &launch.root.source {
        RootSource::Layers { upper: Upper::Tmpfs { size }, .. } if !launch.root.readonly => *size,
        _ => 0,
    };
    let name_of = |index: u32| plan.containers.get(index as usize).map(|other| other.name.clone());
    Ok(Summary {
        name: container.name.clone(),
        image: container.image.clone(),
        args: launch.process.args.clone(),
        user: format!("{}:{}", launch.process.uid, launch.process.gid),
        ids_from: launch.ids.as_ref().and_then(|ids| ids.uids.first()).map(|range| range.outside),
        layers: layers_of(&launch),
        writable_bytes: upper,
        limits: launch.cgroup.settings.iter().cloned().collect(),
        mounts: launch.mounts.iter().map(mounted).collect(),
        devices: launch.cgroup.devices.iter().map(|device| (device.path.clone(), access(device))).collect(),
        device_limits: launch.cgroup.device_settings.iter().cloned().map(|s| [s.file, s.path, s.value]).collect(),
        restart: restart(container.restart),
        depends_on: container.depends_on.iter().filter_map(|dependency| name_of(dependency.container)).collect(),
        watched: watched::words(&container.supervision),
        pod: container.pod.and_then(|pod| plan.pods.get(pod as usize)).map(|pod| pod.name.clone()),
        weakened: container.weakened.clone(),
        ports: container.ports.clone(),
        labels: container.labels.iter().cloned().collect(),
        kept_log: container.kept_log.map(|kept| KeptLog { file_bytes: kept.file_size, files: kept.files }),
    })
}

fn mounted(mount: &Mount) -> Mounted {
    let source = match &mount.source {
        MountSource::Bind { path, .. } => path.clone(),
        MountSource::Filesystem { fstype, options, .. } if options.is_empty() => fstype.clone(),
        MountSource::Filesystem { fstype, options, .. } => format!("{fstype} ({})", options.join(",")),
        // No declaration makes one of these.
        MountSource::Inside { path, .. } => format!("{path} of the container"),
        MountSource::Existing { .. } => "the mount that is there".to_owned(),
    };
    Mounted { target: mount.target.clone(), source, readonly: mount.flags.is_readonly() }
}

fn access(device: &DeviceAccess) -> String {
    let letters = [(device.read, 'r'), (device.write, 'w'), (device.mknod, 'm')];
    letters.into_iter().filter_map(|(allowed, letter)| allowed.then_some(letter)).collect()
}

fn restart(restart: Restart) -> String {
    match restart {
        Restart::No => "no".to_owned(),
        Restart::Always => "always".to_owned(),
        Restart::OnFailure(None) => "on-failure".to_owned(),
        Restart::OnFailure(Some(most)) => format!("on-failure:{most}"),
        Restart::UnlessStopped => "unless-stopped".to_owned(),
    }
}
