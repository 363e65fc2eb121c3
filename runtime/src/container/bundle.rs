//! A bundle: the directory with `config.json`, read whole and decided before anything is made.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::{Hook as SpecHook, Hooks as SpecHooks, Process as SpecProcess, Spec};

use super::error::{During, Error, Result};
use super::{annotations, ids, storage};
use crate::hook::Hook;
use crate::launch::{Launch, Root, RootSource};
use crate::{compile, spec};

/// No sensible configuration is longer, in bytes.
const MAX_CONFIG: u64 = 16 << 20;

/// What a bundle says.
#[derive(Debug)]
pub struct Bundle {
    /// Its absolute path as it was named, links and all.
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
    /// There is no `process`: it can't be started.
    pub without_program: bool,
    /// What the root is made of, if it isn't just the directory.
    pub layers: Option<storage::Declared>,
    /// What a person should know about it.
    pub warnings: Vec<String>,
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

/// A bundle whose configuration was read and isn't decided yet.
#[derive(Debug)]
pub struct Opened {
    named: PathBuf,
    /// Without links.
    path: PathBuf,
    config: Vec<u8>,
    spec: Spec,
    warnings: Vec<String>,
}

/// Reads the bundle at `path`, its configuration being the file `config`.
pub fn open(path: &Path, config: &Path) -> Result<Opened> {
    let named = std::path::absolute(path).during(|| format!("find the bundle {}", path.display()))?;
    let path = std::fs::canonicalize(path).during(|| format!("open the bundle {}", path.display()))?;
    let config = read(&path.join(config))?;
    let (mut spec, mut warnings) = compile::read(&config)?;
    warnings.extend(ids::settle(&mut spec));
    annotations::apply(&mut spec)?;
    Ok(Opened { named, path, config, spec, warnings })
}

impl Opened {
    /// What can be known of the launch at once: its namespaces, and what is given to them.
    pub fn outline(&self) -> Result<Launch> {
        Ok(compile::outline(&self.spec)?)
    }

    /// What it says for container `id`. One that isn't started at once (`gated`) needs no `process` ("This property is REQUIRED when
    /// `start` is called").
    // Inlined, it would claim its part of the stack, which is large, while the configuration is read, which takes more.
    #[inline(never)]
    pub fn decide(self, id: &str, gated: bool) -> Result<Bundle> {
        let Opened { named, path, config, mut spec, mut warnings } = self;
        let without_program = gated && spec.process().is_none();
        if without_program {
            spec.set_process(Some(stand_in()));
        }
        let terminal = spec.process().as_ref().map(compile::terminal).transpose()?.flatten();
        let hooks = spec.hooks().as_ref().map(hooks).transpose()?.unwrap_or_default();
        let annotations = spec.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        let directory = text("the bundle", &path)?;
        let made = compile::bundle(&spec, compile::Bundle { path: &directory, id })?;
        warnings.extend(made.warnings);
        let mut launch = made.launch;
        if let Some(filter) = annotations::filter(&spec)? {
            launch.seccomp = Some(filter);
        }
        let rootfs = rootfs(&spec, &path)?;
        launch.root.source = RootSource::Directory(text("root.path", &rootfs)?);
        let layers = storage::declared(&annotations, &launch)?;
        Ok(Bundle {
            path: named,
            config,
            oci_version: spec.version().clone(),
            rootfs,
            launch,
            terminal: terminal.is_some(),
            console_size: terminal,
            cgroups_path: cgroups_path(&spec)?,
            annotations,
            hooks,
            without_program,
            layers,
            warnings,
        })
    }
}

/// A process for a configuration that has none. Its program is never executed.
fn stand_in() -> SpecProcess {
    let mut process = SpecProcess::default();
    process.set_capabilities(None).set_rlimits(None);
    process
}

/// A configuration from its bytes.
pub fn parse(config: &[u8]) -> Result<Spec> {
    let (mut spec, _) = compile::read(config)?;
    ids::settle(&mut spec);
    annotations::apply(&mut spec)?;
    Ok(spec)
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
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
    let linux = spec.linux_mut().get_or_insert_with(compile::nothing);
    linux.set_seccomp(None).set_cgroups_path(None).set_resources(None);
    let source = RootSource::Directory("/".to_owned());
    Ok(compile::launch(spec, Root { source, ..Root::default() }, &[])?)
}

fn cgroups_path(spec: &Spec) -> Result<Option<String>> {
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref());
    path.map(|path| text("linux.cgroupsPath", path)).transpose()
}

fn rootfs(spec: &Spec, bundle: &Path) -> Result<PathBuf> {
    let root = spec.root().as_ref().ok_or_else(|| Error::new("config.json: root: missing"))?;
    let path = bundle.join(root.path());
    let path = std::fs::canonicalize(&path).during(|| format!("open the root directory {}", path.display()))?;
    if !path.is_dir() {
        return Err(Error::new(format!("open the root directory {}: not a directory (ENOTDIR)", path.display())));
    }
    Ok(path)
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
        .enumerate()
        .map(|(number, hook)| {
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
                number,
                path: text(&field, hook.path())?,
                args: hook.args().clone().unwrap_or_default(),
                env: hook.env().clone(),
                timeout,
            })
        })
        .collect()
}

fn text(field: &str, path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::new(format!("config.json: {field}: {} isn't UTF-8", path.display())))
}
