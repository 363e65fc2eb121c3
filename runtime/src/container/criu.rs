//! criu(8), which writes processes to files and makes them anew: how it is called. By its command line, which is documented and
//! the same from version to version; by its own protocol only for what it has no other way for: handing a terminal over, having something
//! done while all stands still, and a file of options that counts more than others.

mod message;
mod talk;

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, move_mount};
use rustix::process::WaitIdStatus;
use rustix::thread::UnshareFlags;

pub(crate) use talk::{Beside, Outcome, ask};

use super::error::{During, Error, Result};
use crate::hook;
use crate::sys::clone::{Child, fork_into};
use crate::sys::exec::{Strings, execve};
use crate::sys::process::reset_signals;

/// What both directions have in common.
#[derive(Debug, Clone, Default)]
pub struct Images {
    /// The program, by name or path.
    pub criu: PathBuf,
    /// Where the images are.
    pub directory: PathBuf,
    /// Where criu logs and works; `None`: beside the images.
    pub work: Option<PathBuf>,
    /// Open TCP connections are kept.
    pub tcp_established: bool,
    /// Unix sockets to processes outside are kept.
    pub ext_unix_sk: bool,
    /// Processes of a session outside are allowed.
    pub shell_job: bool,
    /// File locks are kept.
    pub file_locks: bool,
    /// How cgroups are handled (criu(8), `--manage-cgroups`).
    pub manage_cgroups: String,
    /// Namespaces that are made empty.
    pub empty_ns: Vec<String>,
    /// Equal pages are kept once.
    pub auto_dedup: bool,
    /// Memory is fetched when it is touched.
    pub lazy_pages: bool,
    /// How packets are kept from connections meanwhile (criu(8), `--network-lock`).
    pub network_lock: Option<String>,
}

/// What criu can't find out by itself: mounts whose sources are outside, as `(place in the container, source)`.
pub(crate) type Externals = Vec<(String, String)>;

impl Images {
    /// The arguments that both directions have.
    pub(crate) fn arguments(&self, work: &Path, log: &str) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["-v4".into(), "--log-file".into(), log.into()];
        arguments.extend(["--images-dir".into(), self.directory.clone().into()]);
        arguments.extend(["--work-dir".into(), work.into()]);
        arguments.push(format!("--manage-cgroups={}", self.manage_cgroups).into());
        for (flag, on) in [
            ("--tcp-established", self.tcp_established),
            ("--ext-unix-sk", self.ext_unix_sk),
            ("--shell-job", self.shell_job),
            ("--file-locks", self.file_locks),
            ("--auto-dedup", self.auto_dedup),
            ("--lazy-pages", self.lazy_pages),
        ] {
            arguments.extend(on.then(|| flag.into()));
        }
        arguments.extend(self.network_lock.iter().flat_map(|method| ["--network-lock".into(), method.into()]));
        arguments.extend(self.empty_ns.iter().flat_map(|kind| ["--empty-ns".into(), kind.into()]));
        arguments
    }
}

/// Where criu runs.
#[derive(Debug, Default)]
pub(crate) struct Surroundings<'a> {
    /// In this cgroup, which what it makes inherits.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// In a mount namespace of its own in which this directory is a mount, as the root of what it makes must be.
    pub(crate) root: Option<&'a Path>,
    /// That mount, if it isn't the directory itself.
    pub(crate) mount: Option<BorrowedFd<'a>>,
}

/// The annotation that names a file with more options for criu, and the file that is taken without one, both runc's.
const CONFIGURED: &str = "org.criu.config";
const CONFIGURATION: &str = "/etc/criu/runc.conf";

/// The file with more options for criu. What it says counts more than what this runtime does.
pub(crate) fn configuration(spec: &Spec) -> Option<String> {
    match spec.annotations().as_ref().and_then(|annotations| annotations.get(CONFIGURED)) {
        Some(path) => Some(path.clone()).filter(|path| !path.is_empty()),
        None => Path::new(CONFIGURATION).exists().then(|| CONFIGURATION.to_owned()),
    }
}

/// Refuses what criu can't do without the machine's root, before anything is made for it. Its own error would be some feature
/// of the kernel that it couldn't look at.
pub(crate) fn expect_root(what: impl FnOnce() -> String) -> Result<()> {
    if !super::is_ordinary_user() {
        return Ok(());
    }
    let why = "criu needs root of the machine: an ordinary user's container can't be written down or made anew";
    Err(Error::new(format!("{}: {why}", what())))
}

/// Runs criu to its end. What it logs says why it failed.
pub(crate) fn run(program: &Path, arguments: Vec<OsString>, log: &Path, place: &Surroundings<'_>) -> Result<()> {
    Running::start(program, arguments, place, || Ok(()))?.finish(log)
}

/// criu, as this process's child.
struct Running {
    path: PathBuf,
    child: Child,
}

impl Running {
    /// Starts it. `before` is done in its place first.
    fn start(
        program: &Path,
        arguments: Vec<OsString>,
        place: &Surroundings<'_>,
        before: impl FnOnce() -> rustix::io::Result<()>,
    ) -> Result<Self> {
        let path = find(program)?;
        let what = || format!("run {}", path.display());
        let text = |text: OsString| CString::new(text.into_vec()).map_err(|_| Errno::INVAL);
        let file = text(path.clone().into()).during(what)?;
        let all = std::iter::once(OsString::from("criu")).chain(arguments).map(text);
        let arguments = Strings::from(all.collect::<std::result::Result<Vec<_>, _>>().during(what)?);
        let environment = std::env::vars_os().map(|(name, value)| {
            let separated = [name, value].join(std::ffi::OsStr::new("="));
            text(separated)
        });
        let environment = Strings::from(environment.collect::<std::result::Result<Vec<_>, _>>().during(what)?);
        let namespaces = if place.root.is_some() { UnshareFlags::NEWNS } else { UnshareFlags::empty() };
        let child = fork_into(namespaces, place.cgroup, libc::SIGCHLD, || {
            reset_signals();
            if place.root.is_some_and(|root| mount_root(root, place.mount).is_err()) {
                return NO_ROOT;
            }
            if before().is_err() {
                return NO_DIRECTORY;
            }
            execve(&file, &arguments, &environment);
            NOT_EXECUTED
        })
        .during(what)?;
        Ok(Self { path, child })
    }

    fn wait(&self) -> Result<WaitIdStatus> {
        hook::wait(self.child.pidfd.as_fd()).during(|| format!("run {}", self.path.display()))
    }

    /// Waits for its end, which says whether it has done what it should.
    fn finish(&self, log: &Path) -> Result<()> {
        let what = || format!("run {}", self.path.display());
        let status = self.wait()?;
        match status.exit_status() {
            Some(0) => Ok(()),
            Some(NO_ROOT) => Err(Error::new(format!("{}: the container's root can't be mounted for it", what()))),
            Some(NO_DIRECTORY) => Err(Error::new(format!("{}: its directories can't be opened for it", what()))),
            Some(NOT_EXECUTED) => Err(Error::new(format!("{}: it can't be executed", what()))),
            status => {
                let status = status.map_or("a signal".to_owned(), |status| format!("exit status {status}"));
                Err(Error::new(format!("{}: {status}: {}", what(), complaint(log))))
            }
        }
    }
}

/// Exit statuses of what never became criu, which has others.
const NOT_EXECUTED: i32 = 127;
const NO_ROOT: i32 = 126;
const NO_DIRECTORY: i32 = 125;

fn mount_root(root: &Path, mount: Option<BorrowedFd<'_>>) -> rustix::io::Result<()> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    match mount {
        Some(mount) => move_mount(mount, "", CWD, root, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH),
        None => rustix::mount::mount_bind_recursive(root, root),
    }
}

/// The program, looked for as a shell would.
fn find(program: &Path) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where administrators' programs are, which ordinary users' paths may not have.
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let candidates: Vec<PathBuf> = if program.components().count() > 1 {
        vec![program.to_owned()]
    } else {
        directories.map(|directory| directory.join(program)).collect()
    };
    candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        let install = "criu isn't installed: install it (Debian's package criu), or say where it is (--criu PROGRAM)";
        Error::new(format!("run {}: no such program: {install}", program.display()))
    })
}

/// The last complaints in criu's log, shortened. Not all of them are marked as errors: that nobody serves pages isn't.
fn complaint(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let errors: Vec<&str> =
        text.lines().filter(|line| line.contains("Error (") || line.contains(") Can't ")).map(str::trim).collect();
    let last = errors.iter().skip(errors.len().saturating_sub(3)).copied().collect::<Vec<_>>().join("; ");
    let last: String = last.chars().take(500).collect();
    if last.is_empty() { format!("see {}", log.display()) } else { format!("{last}: see {}", log.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_criu_s() {
        let images = Images {
            directory: "/images".into(),
            tcp_established: true,
            lazy_pages: true,
            manage_cgroups: "soft".into(),
            empty_ns: vec!["net".into()],
            ..Images::default()
        };
        let expected = [
            "-v4",
            "--log-file",
            "dump.log",
            "--images-dir",
            "/images",
            "--work-dir",
            "/logs",
            "--manage-cgroups=soft",
            "--tcp-established",
            "--lazy-pages",
            "--empty-ns",
            "net",
        ];
        assert_eq!(images.arguments(Path::new("/logs"), "dump.log"), expected);
    }

    #[test]
    fn a_complaint_is_the_log_s_last_errors() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("dump.log");
        assert_eq!(complaint(&log), format!("see {}", log.display()));
        std::fs::write(
            &log,
            "(00.1) Error (a.c:1): first\n(00.2) fine\n(00.3) Can't connect to server\n(00.4) Error (b.c:2): second\n\
             (00.5) Error (c.c:3): third\n",
        )
        .unwrap();
        let said = complaint(&log);
        let last = "(00.3) Can't connect to server; (00.4) Error (b.c:2): second; (00.5) Error (c.c:3): third: see ";
        assert!(said.starts_with(last), "{said}");
        std::fs::write(&log, format!("Error ({}", "x".repeat(5000))).unwrap();
        assert!(complaint(&log).len() < 600);
    }

    #[test]
    fn an_absent_criu_is_named() {
        for program in ["no-such-criu", "/absent/criu"] {
            let error = find(Path::new(program)).unwrap_err().to_string();
            assert!(error.contains(program) && error.contains("criu isn't installed"), "{error}");
        }
        assert!(find(Path::new("sh")).unwrap().is_absolute());
    }
}
