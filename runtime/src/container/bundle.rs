//! A bundle: the directory with `config.json`, read whole and decided before anything is made.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::{
    Hook as SpecHook, Hooks as SpecHooks, LinuxDeviceCgroup, LinuxDeviceType, Process as SpecProcess, Spec,
};

use super::error::{During, Error, Result};
use crate::hook::Hook;
use crate::launch::{Launch, Root, RootSource};
use crate::{compile, spec};

/// No sensible configuration is longer, in bytes.
const MAX_CONFIG: u64 = 16 << 20;

/// What a bundle says.
#[derive(Debug)]
pub struct Bundle {
    /// Its absolute path.
    pub path: PathBuf,
    /// `config.json` as it was read.
    pub config: Vec<u8>,
    /// The version that it names.
    pub oci_version: String,
    /// Absolute path of the root directory.
    pub rootfs: PathBuf,
    /// What is launched.
    pub launch: Launch,
    /// The program gets a terminal.
    pub terminal: bool,
    /// The terminal's rows and columns.
    pub console_size: Option<(u16, u16)>,
    /// Where the cgroup is to be.
    pub cgroups_path: Option<String>,
    /// The configuration's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Hooks by kind.
    pub hooks: Hooks,
}

/// The hooks of a configuration. Those that are run later stay as they were written, for the record.
#[derive(Debug, Default)]
pub struct Hooks {
    /// `prestart`, then `createRuntime`.
    pub runtime: Vec<Hook>,
    /// `createContainer`
    pub create_container: Vec<Hook>,
    /// `startContainer`
    pub start_container: Vec<Hook>,
    /// `poststart`
    pub poststart: Vec<SpecHook>,
    /// `poststop`
    pub poststop: Vec<SpecHook>,
}

/// Reads the bundle at `path`, its configuration being the file `config`.
pub fn load(path: &Path, config: &Path) -> Result<Bundle> {
    let path = std::fs::canonicalize(path).during(|| format!("open the bundle {}", path.display()))?;
    let config = read(&path.join(config))?;
    let mut spec = parse(&config)?;
    let oci_version = spec.version().clone();
    let terminal = spec.process().as_ref().and_then(SpecProcess::terminal).unwrap_or(false);
    let console_size = spec.process().as_ref().and_then(console_size);
    let hooks = spec.hooks().as_ref().map(hooks).transpose()?.unwrap_or_default();
    let annotations = spec.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    let cgroups_path = take_cgroups_path(&mut spec)?;
    resolve_sources(&mut spec, &path);
    allow_default_devices(&mut spec);
    // The rest of the configuration is the launch's; these are the command's.
    spec.set_hooks(None);
    if let Some(process) = spec.process_mut() {
        process.set_terminal(None);
    }
    let (rootfs, readonly) = rootfs(&spec, &path)?;
    let source = RootSource::Directory(text("root.path", &rootfs)?);
    let launch = compile::launch(&spec, Root { source, readonly }, &[])?;
    Ok(Bundle { path, config, oci_version, rootfs, launch, terminal, console_size, cgroups_path, annotations, hooks })
}

/// A configuration from its bytes.
pub fn parse(config: &[u8]) -> Result<Spec> {
    serde_json::from_slice(config).map_err(|error| Error::new(format!("parse config.json: {error}")))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let what = || format!("read {}", path.display());
    let file = std::fs::File::open(path).during(what)?;
    let length = file.metadata().map_or(0, |metadata| metadata.len().min(MAX_CONFIG));
    let mut bytes = Vec::with_capacity(usize::try_from(length + 1).unwrap_or(0));
    file.take(MAX_CONFIG + 1).read_to_end(&mut bytes).during(what)?;
    if bytes.len() as u64 > MAX_CONFIG {
        return Err(Error::new(format!("{}: it is longer than {MAX_CONFIG} bytes", what())));
    }
    Ok(bytes)
}

/// Rows and columns of the process's terminal.
pub(crate) fn console_size(process: &SpecProcess) -> Option<(u16, u16)> {
    let size = process.console_size()?;
    let cut = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
    Some((cut(size.height()), cut(size.width())))
}

/// The launch of `process` in a container that runs already: what else the configuration says has happened.
pub(crate) fn process_alone(spec: &mut Spec, mut process: SpecProcess) -> Result<Launch> {
    process.set_terminal(None);
    spec.set_process(Some(process)).set_hooks(None).set_mounts(None);
    if let Some(linux) = spec.linux_mut() {
        linux.set_seccomp(None).set_cgroups_path(None).set_resources(None);
    }
    let source = RootSource::Directory("/".to_owned());
    Ok(compile::launch(spec, Root { source, readonly: false }, &[])?)
}

fn take_cgroups_path(spec: &mut Spec) -> Result<Option<String>> {
    let Some(linux) = spec.linux_mut() else { return Ok(None) };
    let path = linux.cgroups_path().as_ref().map(|path| text("linux.cgroupsPath", path)).transpose()?;
    linux.set_cgroups_path(None);
    Ok(path)
}

/// What a list of device rules doesn't take away: making any node, and using those of every container.
fn allow_default_devices(spec: &mut Spec) {
    let resources = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut());
    let Some(rules) =
        resources.and_then(|resources| resources.devices_mut().as_mut()).filter(|rules| !rules.is_empty())
    else {
        return;
    };
    let rule = |kind, major, minor, access: &str| {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(true).set_typ(Some(kind)).set_major(major).set_minor(minor).set_access(Some(access.to_owned()));
        rule
    };
    rules.push(rule(LinuxDeviceType::C, None, None, "m"));
    rules.push(rule(LinuxDeviceType::B, None, None, "m"));
    // null, zero, full, random, urandom, tty, ptmx, pts/*
    for (major, minor) in
        [(1, Some(3)), (1, Some(5)), (1, Some(7)), (1, Some(8)), (1, Some(9)), (5, Some(0)), (5, Some(2)), (136, None)]
    {
        rules.push(rule(LinuxDeviceType::C, Some(major), minor, "rwm"));
    }
}

/// Sources of bind mounts are relative to the bundle (runtime spec, "Mounts").
fn resolve_sources(spec: &mut Spec, bundle: &Path) {
    for mount in spec.mounts_mut().iter_mut().flatten() {
        let option = |name: &str| mount.options().iter().flatten().any(|option| option == name);
        let bind = mount.typ().as_deref() == Some("bind") || option("bind") || option("rbind");
        if bind && let Some(source) = mount.source().as_ref().filter(|source| source.is_relative()) {
            let source = normal(&bundle.join(source));
            mount.set_source(Some(source));
        }
    }
}

/// Without `.` and `..`, which the shell's user wrote.
fn normal(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

fn rootfs(spec: &Spec, bundle: &Path) -> Result<(PathBuf, bool)> {
    let root = spec.root().as_ref().ok_or_else(|| Error::new("config.json: root: missing"))?;
    let path = bundle.join(root.path());
    let path = std::fs::canonicalize(&path).during(|| format!("open the root directory {}", path.display()))?;
    if !path.is_dir() {
        return Err(Error::new(format!("open the root directory {}: ENOTDIR", path.display())));
    }
    Ok((path, root.readonly().unwrap_or(false)))
}

fn hooks(hooks: &SpecHooks) -> Result<Hooks> {
    // Deprecated by the specification, and still what many callers give.
    #[allow(deprecated)]
    let prestart = hooks.prestart();
    let mut runtime = decided("prestart", prestart.as_deref())?;
    runtime.extend(decided("createRuntime", hooks.create_runtime().as_deref())?);
    let later =
        |kind, list: &Option<Vec<SpecHook>>| decided(kind, list.as_deref()).map(|_| list.clone().unwrap_or_default());
    Ok(Hooks {
        runtime,
        create_container: decided("createContainer", hooks.create_container().as_deref())?,
        start_container: decided("startContainer", hooks.start_container().as_deref())?,
        poststart: later("poststart", hooks.poststart())?,
        poststop: later("poststop", hooks.poststop())?,
    })
}

/// Hooks in the form in which they are run. Wrong ones are an error before anything is made.
pub(crate) fn decided(kind: &'static str, hooks: Option<&[SpecHook]>) -> Result<Vec<Hook>> {
    let field = format!("hooks.{kind}");
    hooks
        .unwrap_or_default()
        .iter()
        .map(|hook| {
            if !hook.path().is_absolute() {
                return Err(spec::Error::new(&field, format!("{} isn't absolute", hook.path().display())).into());
            }
            let timeout = match hook.timeout() {
                None => None,
                Some(seconds) => match u64::try_from(seconds) {
                    Ok(seconds) if seconds > 0 => Some(Duration::from_secs(seconds)),
                    _ => return Err(spec::Error::new(&field, "the timeout must be greater than zero").into()),
                },
            };
            Ok(Hook {
                kind,
                path: text(&field, hook.path())?,
                args: hook.args().clone().unwrap_or_default(),
                env: hook.env().clone().unwrap_or_default(),
                timeout,
            })
        })
        .collect()
}

fn text(field: &str, path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::new(format!("config.json: {field}: {} isn't UTF-8", path.display())))
}
