//! What a container sees besides its image.

use std::collections::BTreeMap;

use super::container::check_id;
use super::{undeclared, value};
use crate::appliance::Volume;
use crate::container::{Device, IdRange, Mount, MountSource, Tmpfs};
use crate::errors::quote;
use crate::keys::{DeviceKeys, MountType, VolumeMountKeys};
use crate::problems::{Problems, Span};
use crate::read::{Field, List, OneOrMany, ShortOrLong, Table};
use crate::syntax::{DeviceEntry, Permissions, TmpfsEntry, VolumeShort, device_target, mount_target, no_room};

type Volumes = Option<Field<List<ShortOrLong<VolumeShort, VolumeMountKeys>>>>;

/// The mounts in the order of declaration, each with its place.
pub(super) fn mounts(
    volumes: Volumes,
    tmpfs: Option<Field<OneOrMany<TmpfsEntry>>>,
    declared: &BTreeMap<String, Volume>,
    ids: Option<IdRange>,
    problems: &mut Problems,
) -> Vec<(Span, Mount)> {
    let mut mounts: Vec<(Span, Mount)> = Vec::new();
    for entry in value(volumes).map(|list| list.0).unwrap_or_default() {
        let mount = match entry.value {
            ShortOrLong::Short(VolumeShort { name, target, read_only, nocopy }) => {
                Some(Mount { target, source: MountSource::Volume(name), read_only, nocopy })
            }
            ShortOrLong::Long(keys) => long(keys, &entry.span, problems),
        };
        if let Some(mount) = mount {
            if let MountSource::Volume(name) = &mount.source
                && !declared.contains_key(name)
            {
                undeclared("volume", name, declared.keys().map(String::as_str), &entry.span, problems);
            }
            mounts.push((entry.span, mount));
        }
    }
    for entry in value(tmpfs).map(|list| list.0).unwrap_or_default() {
        let TmpfsEntry { target, options, read_only } = entry.value;
        for id in [options.uid, options.gid].into_iter().flatten() {
            if let Some(ids) = ids {
                check_id(id, ids, &entry.span, problems);
            }
        }
        mounts.push((entry.span, Mount { target, source: MountSource::Tmpfs(options), read_only, nocopy: false }));
    }
    mounts
}

fn long(keys: VolumeMountKeys, span: &Span, problems: &mut Problems) -> Option<Mount> {
    // What can't be read has had its complaint, and nothing can be said about the rest.
    if [keys.given("type") && keys.r#type.is_none(), keys.given("source") && keys.source.is_none()].contains(&true) {
        return None;
    }
    let kind = keys.r#type.as_ref().map(|field| field.value).unwrap_or_default();
    let target = match &keys.target {
        Some(field) => match mount_target(&field.value.0) {
            Ok(target) => target,
            Err(fault) => {
                fault.report(&field.span, problems);
                return None;
            }
        },
        None if keys.given("target") => return None,
        None => {
            problems.error(span, "`target` of the mount is missing").help("add: target = \"/path/in/the/container\"");
            return None;
        }
    };
    let read_only = keys.read_only.is_some_and(|field| field.value.0);
    if let Some(volume) = keys.volume.as_ref().filter(|_| kind != MountType::Volume) {
        problems
            .error(&volume.key, "`volume` are the options of another type of mount")
            .help("leave it out: what a tmpfs begins with is nothing");
    }
    let nocopy = value(keys.volume).and_then(|options| options.nocopy).is_some_and(|field| field.value.0);
    let source = match (kind, keys.source) {
        (MountType::Volume, Some(field)) => {
            if let Some(tmpfs) = keys.tmpfs {
                problems
                    .error(&tmpfs.key, "`tmpfs` are the options of another type of mount")
                    .help("add: type = \"tmpfs\"");
            }
            MountSource::Volume(field.value.0)
        }
        (MountType::Volume, None) => {
            problems
                .error(span, "`source` of the mount is missing")
                .help("add: source = \"NAME\", the name of a volume; or type = \"tmpfs\", if nothing is to be kept");
            return None;
        }
        (MountType::Tmpfs, Some(field)) => {
            problems.error(&field.key, "a tmpfs has no source").help("leave it out");
            return None;
        }
        (MountType::Tmpfs, None) => {
            let options = value(keys.tmpfs).unwrap_or_default();
            if let Some(size) = options.size.as_ref().filter(|size| size.value.0 == 0) {
                no_room().report(&size.span, problems);
            }
            MountSource::Tmpfs(Tmpfs {
                size: options.size.map(|field| field.value.0),
                mode: options.mode.map(|field| field.value.0),
                ..Tmpfs::default()
            })
        }
    };
    Some(Mount { target, source, read_only, nocopy })
}

/// The devices in the order of declaration, each with its place.
pub(super) fn devices(
    field: Option<Field<List<ShortOrLong<DeviceEntry, DeviceKeys>>>>,
    problems: &mut Problems,
) -> Vec<(Span, Device)> {
    let mut devices: Vec<(Span, Device)> = Vec::new();
    for entry in value(field).map(|list| list.0).unwrap_or_default() {
        let device = match entry.value {
            ShortOrLong::Short(device) => Some(device.0),
            ShortOrLong::Long(keys) => long_device(keys, &entry.span, problems),
        };
        devices.extend(device.map(|device| (entry.span, device)));
    }
    devices
}

fn long_device(keys: DeviceKeys, span: &Span, problems: &mut Problems) -> Option<Device> {
    if !keys.given("source") {
        problems.error(span, "`source` of the device is missing").help("add: source = \"/dev/NAME\"");
    }
    if keys.given("target") && keys.target.is_none() {
        return None;
    }
    let source = keys.source?;
    let (place, target) = match keys.target {
        Some(field) => (field.span, field.value.0),
        None => (source.span, source.value.0.clone()),
    };
    if let Err(fault) = device_target(&target) {
        fault.report(&place, problems);
    }
    let Permissions { read, write, mknod } = value(keys.permissions).unwrap_or_default();
    Some(Device { source: source.value.0, target, read, write, mknod })
}

/// Mounts and devices without their places, a directory before what is mounted beneath it. Notes paths at which two things would be, and
/// those that would lie in a device.
pub(super) fn apart(
    mut mounts: Vec<(Span, Mount)>,
    devices: Vec<(Span, Device)>,
    problems: &mut Problems,
) -> (Vec<Mount>, Vec<Device>) {
    let nodes: BTreeMap<&str, &Span> = devices.iter().map(|(span, device)| (device.target.as_str(), span)).collect();
    let mut seen: BTreeMap<&str, &Span> = BTreeMap::new();
    let of_mounts = mounts.iter().map(|(span, mount)| (span, mount.target.as_str()));
    let of_devices = devices.iter().map(|(span, device)| (span, device.target.as_str()));
    for (span, target) in of_mounts.chain(of_devices) {
        if let Some(first) = inside(target, &nodes) {
            problems
                .error(span, format!("{} would lie in a device", quote(target)))
                .help("choose another path inside the container")
                .related(first, "the device");
        }
        match seen.get(target) {
            Some(first) => {
                problems
                    .error(span, format!("{} is already taken", quote(target)))
                    .help("choose another path inside the container")
                    .related(first, "first used here");
            }
            None => {
                seen.insert(target, span);
            }
        }
    }
    mounts.sort_by_key(|(_, mount)| mount.target.matches('/').count());
    (mounts.into_iter().map(|(_, mount)| mount).collect(), devices.into_iter().map(|(_, device)| device).collect())
}

/// The place of the device beneath which `target` is.
fn inside<'a>(target: &str, nodes: &BTreeMap<&str, &'a Span>) -> Option<&'a Span> {
    if nodes.is_empty() {
        return None;
    }
    target.match_indices('/').find_map(|(at, _)| nodes.get(target.get(..at)?).copied())
}
