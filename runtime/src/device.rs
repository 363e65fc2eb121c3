//! Devices that are declared by name: found when a container is started, as most kinds are numbered anew in each boot.

use std::borrow::Cow;

use rustix::fs::FileType;

use crate::device_rule::{self, BLOCK, CHARACTER, MKNOD, READ, Rule, WRITE};
use crate::failure::{Context, Failure, Step};
use crate::launch::{Cgroup, DeviceAccess};

/// A node of the machine.
pub(crate) struct Found {
    pub(crate) block: bool,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    /// Permission bits.
    pub(crate) mode: u32,
}

/// The same with numbers in the place of names: further rules in the device filter, and settings of the single devices.
pub(crate) fn resolve(cgroup: &Cgroup) -> Result<Cow<'_, Cgroup>, Failure> {
    if cgroup.devices.is_empty() && cgroup.device_settings.is_empty() {
        return Ok(Cow::Borrowed(cgroup));
    }
    let mut resolved = cgroup.clone();
    resolved.devices.clear();
    resolved.device_settings.clear();
    let mut rules = Vec::with_capacity(cgroup.devices.len());
    for device in &cgroup.devices {
        rules.push(rule(device, &find(&device.path)?));
    }
    if !cgroup.device_filter.is_empty() {
        resolved.device_filter = in_front(&rules, &cgroup.device_filter)?;
    }
    for setting in &cgroup.device_settings {
        let found = find(&setting.path)?;
        if !found.block {
            return Err(Failure::check(format!("{} of {}, which is no disk", setting.file, setting.path)));
        }
        let value = format!("{}:{} {}", found.major, found.minor, setting.value);
        resolved.settings.push((setting.file.clone(), value));
    }
    Ok(Cow::Owned(resolved))
}

/// The node at `path`.
pub(crate) fn find(path: &str) -> Result<Found, Failure> {
    let stat = rustix::fs::stat(path).at(Step::FindDevice, || path)?;
    let block = match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => true,
        FileType::CharacterDevice => false,
        _ => return Err(Failure::check(format!("{path} on the machine is no device node"))),
    };
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Ok(Found { block, major, minor, mode: stat.st_mode & 0o7777 })
}

fn rule(device: &DeviceAccess, found: &Found) -> Rule {
    let bits = [(device.read, READ), (device.write, WRITE), (device.mknod, MKNOD)];
    let access = bits.iter().filter(|(allowed, _)| *allowed).fold(0, |all, (_, bit)| all | bit);
    let kind = Some(if found.block { BLOCK } else { CHARACTER });
    Rule { allow: true, kind, access, major: Some(found.major), minor: Some(found.minor) }
}

/// The program with `rules` asked before its own.
fn in_front(rules: &[Rule], program: &[u8]) -> Result<Vec<u8>, Failure> {
    let prologue = device_rule::prologue().concat();
    let own = program
        .strip_prefix(prologue.as_slice())
        .ok_or_else(|| Failure::check("the device filter wasn't made for further devices"))?;
    let blocks = device_rule::blocks(rules).into_iter().flatten();
    Ok(prologue.iter().copied().chain(blocks).chain(own.iter().copied()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::DeviceSetting;

    fn access(path: &str) -> DeviceAccess {
        DeviceAccess { path: path.to_owned(), read: true, write: false, mknod: false }
    }

    fn setting(path: &str) -> DeviceSetting {
        DeviceSetting { file: "io.max".to_owned(), path: path.to_owned(), value: "rbps=1".to_owned() }
    }

    /// A filter that denies everything.
    fn closed() -> Vec<u8> {
        [&device_rule::prologue()[..], &device_rule::verdict(false)].concat().concat()
    }

    #[test]
    fn what_names_no_device_is_left_as_it_is() {
        let cgroup = Cgroup { settings: vec![("pids.max".to_owned(), "1".to_owned())], ..Cgroup::default() };
        assert!(matches!(resolve(&cgroup), Ok(Cow::Borrowed(same)) if *same == cgroup));
    }

    #[test]
    fn names_become_rules_in_front() {
        let cgroup = Cgroup { devices: vec![access("/dev/zero")], device_filter: closed(), ..Cgroup::default() };
        let resolved = resolve(&cgroup).unwrap();
        let rule = Rule { allow: true, kind: Some(CHARACTER), access: READ, major: Some(1), minor: Some(5) };
        let expected = [&device_rule::prologue()[..], &device_rule::blocks(&[rule]), &device_rule::verdict(false)].concat().concat();
        assert_eq!(resolved.device_filter, expected);
        assert!(resolved.devices.is_empty());
        // Without a filter everything is allowed already.
        let open = Cgroup { device_filter: Vec::new(), ..cgroup };
        assert!(resolve(&open).unwrap().device_filter.is_empty());
    }

    #[test]
    fn absent_devices_and_other_files_are_named() {
        let refused = |cgroup: Cgroup| resolve(&cgroup).unwrap_err().to_string();
        let absent = refused(Cgroup { devices: vec![access("/dev/garboard-none")], ..Cgroup::default() });
        assert!(absent.starts_with("device /dev/garboard-none: no such file or directory (ENOENT): absent"), "{absent}");
        let absent = refused(Cgroup { device_settings: vec![setting("/dev/garboard-none")], ..Cgroup::default() });
        assert!(absent.starts_with("device /dev/garboard-none: no such file or directory (ENOENT): absent"), "{absent}");
        let file = refused(Cgroup { devices: vec![access("/etc/passwd")], ..Cgroup::default() });
        assert!(file.contains("/etc/passwd on the machine is no device node"), "{file}");
        let no_disk = refused(Cgroup { device_settings: vec![setting("/dev/null")], ..Cgroup::default() });
        assert!(no_disk.contains("io.max of /dev/null, which is no disk"), "{no_disk}");
        let foreign = Cgroup { devices: vec![access("/dev/zero")], device_filter: vec![0; 8], ..Cgroup::default() };
        assert!(refused(foreign).contains("wasn't made for further devices"));
    }
}
