//! Where everything is measured: a mount namespace of its own, one bundle, state directories on a tmpfs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::MountFlags;
use serde_json::{Value, json};

use crate::bare;

const CGROUPS: &str = "/sys/fs/cgroup";
/// State directories are on a tmpfs, as /run is elsewhere.
const STATE: &str = "/dev/shm";
const FLOOR: &str = "floor";

/// Enters a mount namespace with the cgroup2 mount that all expect, by executing this program in one. Returns in there.
pub fn enter() {
    if std::env::var_os("IN_OWN_MOUNTS").is_none() {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().expect("own path"));
        unshare.args(std::env::args_os().skip(1)).env("IN_OWN_MOUNTS", "1");
        std::process::exit(unshare.status().expect("run unshare").code().unwrap_or(1));
    }
    let mounted = rustix::mount::mount("cgroup2", CGROUPS, "cgroup2", MountFlags::empty(), None);
    mounted.expect("mount cgroup2 as root");
}

pub struct Site {
    scratch: tempfile::TempDir,
    state: tempfile::TempDir,
    own: PathBuf,
    floor: PathBuf,
    measured: PathBuf,
}

/// What can be asked to run a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    Own,
    Crun,
    Runc,
    /// The program that makes the unavoidable calls and nothing else.
    Floor,
}

impl Runtime {
    pub fn name(self) -> &'static str {
        match self {
            Self::Own => "garboard",
            Self::Crun => "crun",
            Self::Runc => "runc",
            Self::Floor => FLOOR,
        }
    }
}

impl Site {
    pub fn new() -> Self {
        let scratch = tempfile::tempdir().expect("scratch directory");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(scratch.path(), open).expect("permissions");
        let rootfs = scratch.path().join("rootfs");
        for directory in ["bin", "proc", "sys", "dev"] {
            std::fs::create_dir_all(rootfs.join(directory)).expect("rootfs");
        }
        for applet in ["true", "sleep"] {
            std::fs::copy("/bin/busybox", rootfs.join("bin").join(applet)).expect("busybox-static is installed");
        }
        let own =
            std::env::var("GARBOARD_RUNTIME").unwrap_or_else(|_| env!("CARGO_BIN_EXE_garboard-runtime").to_owned());
        Self {
            floor: bare::build(FLOOR, scratch.path()),
            measured: bare::build("measured", scratch.path()),
            state: tempfile::tempdir_in(STATE).expect("state directory"),
            own: std::fs::canonicalize(&own).unwrap_or_else(|error| panic!("{own}: {error}")),
            scratch,
        }
    }

    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Runs `/bin/true` in a container that is gone afterwards.
    pub fn run(&self, runtime: Runtime) -> Command {
        if runtime == Runtime::Floor {
            let mut command = self.quiet(&self.floor);
            command.arg(self.state.path().join(FLOOR)).arg(Path::new(CGROUPS).join(self.id(runtime)));
            return command;
        }
        self.command(runtime, &["run", &self.id(runtime)])
    }

    /// Any command of a runtime.
    pub fn command(&self, runtime: Runtime, arguments: &[&str]) -> Command {
        let program = match runtime {
            Runtime::Own => self.own.clone(),
            Runtime::Crun => "/usr/bin/crun".into(),
            Runtime::Runc => "/usr/sbin/runc".into(),
            Runtime::Floor => panic!("the floor has no commands"),
        };
        let mut command = self.quiet(&program);
        command.arg("--root").arg(self.state.path().join(runtime.name())).args(arguments);
        command
    }

    fn quiet(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.scratch()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// The same command by way of `bare/measured.rs`, in the control group whose members are in the file `procs`.
    pub fn measured(&self, command: &Command, procs: &Path) -> Command {
        let mut measured = self.quiet(&self.measured);
        measured.arg(procs).arg(command.get_program()).args(command.get_args()).stderr(Stdio::piped());
        measured
    }

    /// The container's name, and its cgroup's.
    pub fn id(&self, runtime: Runtime) -> String {
        format!("bench-{}-{}", runtime.name(), std::process::id())
    }

    /// Removes whatever a runtime that was killed has left.
    pub fn clear(&self, runtime: Runtime) {
        let cgroup = Path::new(CGROUPS).join(self.id(runtime));
        while cgroup.exists() {
            let _ = std::fs::write(cgroup.join("cgroup.kill"), "1");
            let _ = std::fs::remove_dir(&cgroup);
        }
        let _ = std::fs::remove_dir_all(self.state.path().join(runtime.name()));
    }

    /// What `spec` writes, without what not every machine's crun can do.
    pub fn write_config(&self, user_namespace: bool, arguments: &[&str]) {
        let path = self.scratch().join("config.json");
        let _ = std::fs::remove_file(&path);
        succeed(self.command(Runtime::Own, &["spec"]));
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).expect("config.json")).expect("JSON");
        config["ociVersion"] = "1.0.2".into();
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = json!(arguments);
        config["process"]["rlimits"] = json!([]);
        config["linux"].as_object_mut().expect("linux").remove("resources");
        if user_namespace {
            config["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "user"}));
            for side in ["uidMappings", "gidMappings"] {
                config["linux"][side] = json!([{"containerID": 0, "hostID": 1_000_000, "size": 65536}]);
            }
        }
        std::fs::write(path, config.to_string()).expect("config.json");
    }
}

pub fn succeed(mut command: Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
