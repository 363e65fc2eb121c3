//! A bundle: config.json with the directory that it lies in.

use std::path::Path;

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxResources, Spec};

use super::{Base, compile, text};
use crate::launch::{Launch, Root, RootSource};
use crate::spec::Error;

/// Where a spec was found.
#[derive(Debug, Clone, Copy)]
pub struct Bundle<'a> {
    /// The directory of config.json, absolute.
    pub path: &'a str,
    /// The container's id.
    pub id: &'a str,
}

/// What a bundle's spec comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Bundled {
    /// What to start.
    pub launch: Launch,
    /// What a person should know about it.
    pub warnings: Vec<String>,
}

/// The launch of a bundle's spec. Hooks, annotations and `linux.cgroupsPath` are left to whoever starts it.
pub fn bundle(spec: &Spec, bundle: Bundle<'_>) -> Result<Bundled, Error> {
    let mut warnings = Vec::new();
    let root = spec.root().as_ref().ok_or_else(|| Error::new("root", "missing"))?;
    let path = text("root.path", root.path())?;
    if path.is_empty() {
        return Err(Error::new("root.path", "empty"));
    }
    let path = within(bundle.path, &path);
    let mut linux = spec.linux().clone().unwrap_or_else(nothing);
    complete_rules(&mut linux);
    if let Some(size) = spec.process().as_ref().and_then(oci_spec::runtime::Process::console_size)
        && spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal) != Some(true)
        && (size.height() != 0 || size.width() != 0)
    {
        warnings.push("process.consoleSize: ignored, as process.terminal isn't set".to_owned());
    }
    warnings.extend(spec.process().iter().filter_map(super::process::no_ambient));
    warnings.extend(super::mounts::warnings(spec.mounts().as_deref().unwrap_or_default(), &path));
    let base = Base { bundle: Some(bundle), volumes: &[] };
    let source = RootSource::Directory(path);
    let mut launch = compile(spec, &linux, Root { source, ..Root::default() }, &base)?;
    // "In addition to any devices configured, the runtime MUST also supply", whatever `/dev` is, unless it is the machine's.
    launch.populate_dev = true;
    if let Some(rdt) = &mut launch.intel_rdt {
        rdt.name = Some(bundle.id.to_owned());
    }
    Ok(Bundled { launch, warnings })
}

/// `linux` is optional: then there is nothing of it.
pub(crate) fn nothing() -> Linux {
    let mut linux = Linux::default();
    linux.set_namespaces(None).set_resources(None).set_masked_paths(None).set_readonly_paths(None);
    linux
}

/// `path`, or where it lies in the bundle if it is relative.
pub(super) fn within(bundle: &str, path: &str) -> String {
    Path::new(bundle).join(path).to_string_lossy().into_owned()
}

/// The rules for devices, whether there is a list of them or not: "the container MAY NOT access any device node that is not either
/// explicitly referenced in the `devices` array or listed as being part of the default devices".
fn complete_rules(linux: &mut Linux) {
    let declared = linux.devices().clone().unwrap_or_default();
    let resources = linux.resources_mut().get_or_insert_with(|| {
        let mut nothing = LinuxResources::default();
        nothing.set_devices(None);
        nothing
    });
    let rules = resources.devices_mut().get_or_insert_default();
    if rules.is_empty() {
        // What is no device, or has no number, is refused where the nodes are looked at.
        let has_number = |device: &&LinuxDevice| {
            let is_device = !matches!(device.typ(), LinuxDeviceType::A | LinuxDeviceType::P);
            is_device && [device.major(), device.minor()].iter().all(|number| u32::try_from(*number).is_ok())
        };
        rules.extend(declared.iter().filter(has_number).map(LinuxDeviceCgroup::from));
    }
    rules.extend(default_rules());
}

/// What a list of device rules doesn't take away: making any node (to use one is another matter), and using those that every
/// container has.
fn default_rules() -> Vec<LinuxDeviceCgroup> {
    let rule = |kind, major, minor, access: &str| {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(true).set_typ(Some(kind)).set_major(major).set_minor(minor).set_access(Some(access.to_owned()));
        rule
    };
    let character = |major, minor| rule(LinuxDeviceType::C, Some(major), minor, "rwm");
    vec![
        rule(LinuxDeviceType::C, None, None, "m"),
        rule(LinuxDeviceType::B, None, None, "m"),
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

/// What the fuzzer runs: a config.json is a launch or an error, and a launch that is its plan's encoding and back.
pub fn fuzz(bytes: &[u8]) {
    let Ok((spec, _)) = super::read(bytes) else { return };
    if let Some(process) = spec.process() {
        let _ = super::terminal(process);
    }
    let Ok(made) = bundle(&spec, Bundle { path: "/bundle", id: "fuzz" }) else { return };
    let encoded = postcard::to_stdvec(&made.launch).expect("a launch is encoded");
    assert_eq!(postcard::from_bytes::<Launch>(&encoded).as_ref(), Ok(&made.launch));
    // Checked again by whoever obeys; whatever it says, it says.
    let _ = crate::check::launch(&made.launch);
}
