//! What the image configuration and the options make together: program, environment, user, ports, volumes.

use std::collections::BTreeMap;

use oci_spec::image::ImageConfiguration;

use super::user::{self, Identity};
use super::{Error, ImageFiles, Options};

/// `PATH` of a container whose image sets none; Docker's.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// No passwd or group file is larger, in bytes.
const MAX_FILE: usize = 1 << 20;

/// The program and its arguments.
///
/// As Docker: a declared entrypoint also drops the image's command; a declared command replaces only the image's command.
pub(super) fn arguments(config: &ImageConfiguration, options: &Options) -> Result<Vec<String>, Error> {
    let image = config.config().as_ref();
    let of_image = |list: Option<&Option<Vec<String>>>| list.cloned().flatten().unwrap_or_default();
    let image_command = of_image(image.map(oci_spec::image::Config::cmd));
    let (entrypoint, command) = match (&options.entrypoint, &options.command) {
        (Some(entrypoint), Some(command)) => (entrypoint.clone(), command.clone()),
        (Some(entrypoint), None) => (entrypoint.clone(), Vec::new()),
        (None, Some(command)) => (of_image(image.map(oci_spec::image::Config::entrypoint)), command.clone()),
        (None, None) => (of_image(image.map(oci_spec::image::Config::entrypoint)), image_command),
    };
    let arguments: Vec<String> = entrypoint.into_iter().chain(command).collect();
    match arguments.first() {
        None => Err(Error::new("command", "the image names no program: declare `command` or `entrypoint`")),
        Some(program) if program.is_empty() => Err(Error::new("command", "the program's name is empty")),
        Some(_) => Ok(options.init.iter().cloned().chain(arguments).collect()),
    }
}

/// The environment: the image's, then the declaration's over it, `PATH` and `HOME` where neither sets them. Sorted by name.
pub(super) fn environment(
    config: &ImageConfiguration,
    options: &Options,
    identity: &Identity,
) -> Result<Vec<String>, Error> {
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    variables.insert("PATH".to_owned(), DEFAULT_PATH.to_owned());
    variables.insert("HOME".to_owned(), identity.home.clone().unwrap_or_else(|| "/".to_owned()));
    if let Some(hostname) = &options.hostname {
        variables.insert("HOSTNAME".to_owned(), hostname.clone());
    }
    let image = config.config().as_ref().and_then(|c| c.env().clone()).unwrap_or_default();
    for entry in image {
        // A name alone has no value to set; Docker skips it, too.
        if let Some((name, value)) = entry.split_once('=') {
            variables.insert(name.to_owned(), value.to_owned());
        }
    }
    for (name, value) in &options.env {
        match value {
            Some(value) => variables.insert(name.clone(), value.clone()),
            None => variables.remove(name),
        };
    }
    for (name, value) in &variables {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(Error::new("environment", format!("{name:?} can't be an environment variable")));
        }
    }
    Ok(variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
}

/// The user, resolved in the image's files.
pub(super) fn identity(
    config: &ImageConfiguration,
    options: &Options,
    files: &dyn ImageFiles,
) -> Result<Identity, Error> {
    let of_image = config.config().as_ref().and_then(|c| c.user().clone());
    let spec = options.user.clone().or(of_image).unwrap_or_default();
    let read = |path: &str| -> Result<String, Error> {
        let bytes = files.read(path, MAX_FILE).map_err(|e| Error::new("user", format!("{path} in the image: {e}")))?;
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    };
    user::resolve(&spec, &options.group_add, &read("/etc/passwd")?, &read("/etc/group")?)
}

/// The working directory.
pub(super) fn working_dir(config: &ImageConfiguration, options: &Options) -> Result<String, Error> {
    let of_image = config.config().as_ref().and_then(|c| c.working_dir().clone());
    let dir = options.working_dir.clone().or(of_image).filter(|dir| !dir.is_empty()).unwrap_or_else(|| "/".to_owned());
    if !dir.starts_with('/') || dir.split('/').any(|name| name == "..") {
        return Err(Error::new("working_dir", format!("{dir:?} must be an absolute path without '..'")));
    }
    Ok(dir)
}

/// The exposed ports as `port/protocol` or `port-port/protocol`, in order, and the entries that are neither.
pub(super) fn exposed_ports(config: &ImageConfiguration) -> (Vec<String>, Vec<String>) {
    let entries = config.config().as_ref().and_then(|c| c.exposed_ports().clone()).unwrap_or_default();
    let (mut ports, mut odd) = (Vec::new(), Vec::new());
    for entry in entries {
        match port(&entry) {
            Some(port) => ports.push(port),
            None => odd.push(entry),
        }
    }
    ports.sort();
    ports.dedup();
    let text = |(first, last, protocol): (u16, u16, String)| match first == last {
        true => format!("{first}/{protocol}"),
        false => format!("{first}-{last}/{protocol}"),
    };
    (ports.into_iter().map(text).collect(), odd)
}

/// First and last port and the protocol of `port[-port][/tcp|udp|sctp]`.
fn port(entry: &str) -> Option<(u16, u16, String)> {
    let (numbers, protocol) = entry.split_once('/').unwrap_or((entry, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    let known = matches!(protocol, "tcp" | "udp" | "sctp") && first != 0 && first <= last;
    known.then(|| (first, last, protocol.to_owned()))
}

/// Paths of the volumes that the image declares, sorted.
pub(super) fn volumes(config: &ImageConfiguration) -> Vec<String> {
    let mut volumes = config.config().as_ref().and_then(|c| c.volumes().clone()).unwrap_or_default();
    volumes.sort();
    volumes.dedup();
    volumes
}
