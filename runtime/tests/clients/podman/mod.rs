//! Podman, of three kinds of users.

mod inside;
mod life;
mod network;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use libtest_mimic::Trial;
use rustix::process::{Pid, Resource, Signal};
use serde_json::Value;

use crate::command::{Done, finish};
use crate::site::{CGROUPS, USER, runtime, site};

/// Whose Podman.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Root's.
    Root,
    /// An account's with ids for containers, by newuidmap.
    Ranges,
    /// That of whoever runs the tests, who is nobody special: one id.
    Alone,
}

pub static ROOT: Podman = Podman::new(Who::Root);
pub static RANGES: Podman = Podman::new(Who::Ranges);
pub static ALONE: Podman = Podman::new(Who::Alone);

/// One user's Podman with storage, configuration and state of its own.
pub struct Podman {
    who: Who,
    directory: OnceLock<PathBuf>,
    runtime_directory: OnceLock<PathBuf>,
    next: AtomicUsize,
}

/// The name of the image.
pub const IMAGE: &str = "localhost/box";

pub fn for_everybody(podman: &'static Podman) -> Vec<Trial> {
    [life::for_everybody(podman), inside::for_everybody(podman), network::for_everybody(podman)].concat_all()
}

pub fn with_ids(podman: &'static Podman) -> Vec<Trial> {
    [inside::with_ids(podman), network::with_ids(podman)].concat_all()
}

pub fn for_root(podman: &'static Podman) -> Vec<Trial> {
    [life::for_root(podman), inside::for_root(podman)].concat_all()
}

/// What takes little time on an emulated machine.
pub fn in_short(podman: &'static Podman) -> Vec<Trial> {
    life::in_short(podman)
}

pub fn without_root(podman: &'static Podman) -> Vec<Trial> {
    inside::without_root(podman)
}

trait ConcatAll {
    fn concat_all(self) -> Vec<Trial>;
}

impl<const N: usize> ConcatAll for [Vec<Trial>; N] {
    fn concat_all(self) -> Vec<Trial> {
        self.into_iter().flatten().collect()
    }
}

/// Ends what every Podman left running, also after failed tests, and has it remove what others may not.
pub fn leave_all() {
    for podman in [&ROOT, &RANGES, &ALONE] {
        podman.leave();
    }
}

impl Podman {
    const fn new(who: Who) -> Self {
        Self { who, directory: OnceLock::new(), runtime_directory: OnceLock::new(), next: AtomicUsize::new(0) }
    }

    pub fn name(&self) -> &'static str {
        match self.who {
            Who::Root => "root",
            Who::Ranges => "ranges",
            Who::Alone => "alone",
        }
    }

    pub fn is_root(&self) -> bool {
        self.who == Who::Root
    }

    /// The cgroup beneath which this user may make others, where there are controllers to delegate.
    pub fn delegated(&self) -> Option<&'static Path> {
        (self.who == Who::Ranges && site().machine).then_some(Path::new("/sys/fs/cgroup/clients"))
    }

    /// Where it keeps everything; made, with the image in its storage, when it is first asked for.
    pub fn directory(&self) -> &Path {
        self.directory.get_or_init(|| {
            let directory = site().directory(&format!("podman-{}", self.name()));
            std::fs::create_dir(&directory).unwrap();
            self.write_configuration(&directory);
            for name in ["home", "hooks"] {
                std::fs::create_dir(directory.join(name)).unwrap();
            }
            if self.who == Who::Ranges {
                for path in [&directory, &directory.join("home"), self.runtime_directory()] {
                    std::os::unix::fs::chown(path, Some(USER), Some(USER)).unwrap();
                }
            }
            if let Some(cgroup) = self.delegated() {
                delegate(cgroup);
            }
            let mut import = self.in_directory(&directory, &["import", "--quiet"]);
            import.arg(site().image()).arg(IMAGE);
            let done = finish(import, "");
            assert_eq!(done.status, 0, "import: {done:?}");
            directory
        })
    }

    /// `XDG_RUNTIME_DIR`. Podman wants its path short: 50 characters with what it adds.
    fn runtime_directory(&self) -> &Path {
        self.runtime_directory.get_or_init(|| {
            if self.who == Who::Alone {
                return tempfile::Builder::new().prefix("xdg-").tempdir_in("/tmp").unwrap().keep();
            }
            let directory = Path::new("/run").join(self.name());
            std::fs::create_dir(&directory).unwrap();
            directory
        })
    }

    /// A name that no other container of this Podman has.
    pub fn fresh(&self) -> String {
        format!("c{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        self.in_directory(self.directory(), arguments)
    }

    fn in_directory(&self, directory: &Path, arguments: &[&str]) -> Command {
        let mut words: Vec<String> = Vec::new();
        if let Some(cgroup) = self.delegated() {
            let into = format!("echo $$ > {}/caller/cgroup.procs && exec \"$@\"", cgroup.display());
            // Busybox's shell would take its own setpriv.
            words.extend(["bash", "-c", &into, "bash"].map(str::to_owned));
        }
        if self.who == Who::Ranges {
            let user = USER.to_string();
            let setpriv = ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups", "--inh-caps=-all", "--"];
            words.extend(setpriv.map(str::to_owned));
        }
        words.push("podman".to_owned());
        words.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(directory).env_clear().stdin(Stdio::null());
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", directory.join("home")).env("XDG_RUNTIME_DIR", self.runtime_directory());
        command.env("CONTAINERS_CONF", directory.join("containers.conf"));
        command.env("CONTAINERS_STORAGE_CONF", directory.join("storage.conf"));
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Done {
        finish(self.command(arguments), "")
    }

    /// What it printed; it must succeed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments);
        assert_eq!(done.status, 0, "podman {arguments:?}: {done:?}");
        done.stdout.trim_end().to_owned()
    }

    /// What a shell printed in a container that was removed after it; it must succeed.
    pub fn shell(&self, options: &[&str], script: &str) -> String {
        let arguments = [&["run", "--rm"], options, &[IMAGE, "sh", "-ec", script]].concat();
        // Unless something else is said: the quickest network.
        if options.iter().any(|option| option.starts_with("--network") || *option == "-p") {
            return self.ok(&arguments);
        }
        self.ok(&[&["run", "--rm", "--network=none"], options, &[IMAGE, "sh", "-ec", script]].concat())
    }

    /// A container that runs this script until it is removed at the end of the test.
    pub fn start(&'static self, options: &[&str], script: &str) -> Container {
        let (container, done) = self.try_start(options, script);
        // Once in some hundred starts a user's Podman doesn't find the directory that it has just made for the container, before
        // it has called any runtime.
        let (container, done) = if done.stderr.contains("unable to determine if") {
            drop(container);
            self.try_start(options, script)
        } else {
            (container, done)
        };
        assert_eq!(done.status, 0, "podman run {options:?} {script:?}: {done:?}");
        container
    }

    fn try_start(&'static self, options: &[&str], script: &str) -> (Container, Done) {
        let container = Container { podman: self, name: self.fresh() };
        let mut arguments = vec!["run", "--detach", "--name", &container.name];
        if !options.iter().any(|option| option.starts_with("--network") || *option == "-p") {
            arguments.push("--network=none");
        }
        // Podman would take a directory at the top, which is root's to make.
        if self.delegated().is_some() {
            arguments.push("--cgroup-parent=/clients/libpod");
        }
        let done = self.run(&[&arguments, options, &[IMAGE, "sh", "-c", script]].concat());
        (container, done)
    }

    /// What every user would have by default, but for what the machine may lack: controllers, the right to raise limits, systemd.
    fn write_configuration(&self, directory: &Path) {
        let limit = |resource| rustix::process::getrlimit(resource).maximum.map_or(MOST, |most| most.min(MOST));
        let (files, processes) = (limit(Resource::Nofile), limit(Resource::Nproc));
        let pids = if site().machine { "" } else { "pids_limit = 0\n" };
        let at = directory.display();
        let text = format!(
            "[containers]\n{pids}default_ulimits = [\"nofile={files}:{files}\", \"nproc={processes}:{processes}\"]\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
             runtime = \"garboard-runtime\"\nhooks_dir = [\"{at}/hooks\"]\n\
             runtime_supports_json = [\"garboard-runtime\"]\nruntime_supports_nocgroup = [\"garboard-runtime\"]\n\
             [engine.runtimes]\ngarboard-runtime = [\"{}\"]\n\
             [network]\nnetwork_backend = \"netavark\"\nnetwork_config_dir = \"{at}/networks\"\n",
            runtime().display()
        );
        std::fs::write(directory.join("containers.conf"), text).unwrap();
        // Without root Podman derives them from where the user's home and runtime directory are.
        let run = self.runtime_directory().display();
        let places = format!("graphroot = \"{at}/storage\"\nrunroot = \"{run}\"\n");
        let places = if self.is_root() { places } else { String::new() };
        // Made machines have their files in memory, which an ordinary user's overlay takes a newer kernel for.
        let driver = if site().machine { "vfs" } else { "overlay" };
        std::fs::write(directory.join("storage.conf"), format!("[storage]\ndriver = \"{driver}\"\n{places}")).unwrap();
    }

    fn leave(&self) {
        let Some(directory) = self.directory.get() else { return };
        self.run(&["rm", "--all", "--force", "--time=0"]);
        if self.is_root() {
            // Podman makes them once and keeps them. Not empty: another Podman of this machine is at work.
            for left in ["libpod_parent/conmon", "libpod_parent"] {
                let _ = std::fs::remove_dir(Path::new(CGROUPS).join(left));
            }
        } else {
            let pid =
                std::fs::read_to_string(self.runtime_directory().join("libpod/tmp/pause.pid")).unwrap_or_default();
            if let Some(pid) = pid.trim().parse().ok().and_then(Pid::from_raw) {
                rustix::process::kill_process(pid, Signal::KILL).expect("end Podman's pause process");
            }
        }
        if self.who == Who::Alone {
            // Directories of overlay that even their owner may not look into, only root of a user namespace.
            let remove = || {
                let mut remove = Command::new("unshare");
                remove.args(["--user", "--map-root-user", "rm", "-rf"]).arg(directory.join("home"));
                finish(remove, "")
            };
            // Podman's last processes may still be at work there.
            let done = (0..50).find_map(|_| {
                let done = remove();
                if done.status == 0 {
                    return Some(done);
                }
                std::thread::sleep(std::time::Duration::from_millis(100));
                None
            });
            assert!(done.is_some(), "{:?}", remove());
            std::fs::remove_dir_all(self.runtime_directory()).expect("remove the runtime directory");
            let _ =
                std::fs::remove_file(format!("/dev/shm/libpod_rootless_lock_{}", rustix::process::geteuid().as_raw()));
        }
        if let Some(cgroup) = self.delegated() {
            let left: Vec<_> = std::fs::read_dir(cgroup.join("libpod")).into_iter().flatten().flatten().collect();
            assert!(left.iter().all(|entry| !entry.path().is_dir()), "{left:?}");
        }
    }
}

/// Limits of files and processes that any machine has room for.
const MOST: u64 = 4096;

/// Gives a cgroup to the account, as systemd gives every user one.
fn delegate(cgroup: &Path) {
    let controllers = "+cpu +memory +pids +io";
    std::fs::write(Path::new(CGROUPS).join("cgroup.subtree_control"), controllers).unwrap();
    std::fs::create_dir_all(cgroup.join("caller")).unwrap();
    for directory in [cgroup, &cgroup.join("caller")] {
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            std::os::unix::fs::chown(directory.join(file), Some(USER), Some(USER)).unwrap();
        }
    }
}

/// A container, removed when the test is over.
pub struct Container {
    podman: &'static Podman,
    pub name: String,
}

impl Container {
    /// A Podman command with the container's name after its options.
    pub fn ok(&self, command: &[&str]) -> String {
        self.podman.ok(&[command, &[self.name.as_str()]].concat())
    }

    /// What a program in it printed; it must succeed.
    pub fn exec(&self, options: &[&str], program: &[&str]) -> String {
        self.podman.ok(&[&["exec"], options, &[self.name.as_str()], program].concat())
    }

    pub fn inspect(&self) -> Value {
        let all: Value = serde_json::from_str(&self.ok(&["inspect"])).unwrap();
        all[0].clone()
    }

    pub fn state(&self) -> String {
        self.inspect()["State"]["Status"].as_str().unwrap().to_owned()
    }

    pub fn logs(&self) -> BTreeMap<&'static str, String> {
        let done = self.podman.run(&["logs", &self.name]);
        BTreeMap::from([("out", done.stdout), ("err", done.stderr)])
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.podman.directory.get().is_none() {
            return;
        }
        // Also when the test has failed, and when it has removed it itself.
        let done = self.podman.run(&["rm", "--force", "--ignore", "--time=0", &self.name]);
        if done.status != 0 && !std::thread::panicking() {
            panic!("{done:?}");
        }
    }
}
