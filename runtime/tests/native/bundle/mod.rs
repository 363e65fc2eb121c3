//! What a config.json promises (runtime specification 1.3), as root: read, compiled, started, and seen from inside.

mod binds;
mod links;
mod machine;
mod mounts;
mod namespaces;
mod process;

use std::path::{Path, PathBuf};
use std::process::Command;

use garboard_runtime::compile::{self, Bundle};
use garboard_runtime::failure::Failure;
use garboard_runtime::launch::Launch;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::site::{Ended, place, run_launch, scratch};

pub use machine::agent;

pub fn tests() -> Vec<Trial> {
    [namespaces::tests(), mounts::tests(), binds::tests(), links::tests(), process::tests(), machine::tests()]
        .into_iter()
        .flatten()
        .collect()
}

/// First id of the containers that have a user namespace.
const BASE: u32 = 1_000_000;

/// A bundle under test.
struct Config {
    config: Value,
    directory: PathBuf,
}

/// A bundle of this name whose container runs a shell script, as root of the machine, in namespaces of its own, with the
/// filesystems that a container should have.
fn bundle(name: &str, script: &str) -> Config {
    let directory = scratch(&format!("bundle-{name}"));
    let rootfs = directory.join("rootfs");
    let _ = std::fs::remove_dir_all(&rootfs);
    let base = scratch("base");
    let copied = Command::new("cp").arg("-al").arg(&base).arg(&rootfs).status().unwrap();
    assert!(copied.success());
    let capabilities: Vec<&str> =
        ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_MKNOD", "CAP_KILL"]
            .to_vec();
    let config = json!({
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/bin/sh", "-c", script], "env": ["PATH=/bin"],
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities}
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}
        ],
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"}
            ]
        }
    });
    Config { config, directory }
}

impl Config {
    /// With something changed or added; the parent must be there.
    fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        self.config.pointer_mut(parent).unwrap()[key] = value;
        self
    }

    /// With one more entry in a list, which is made if it isn't there.
    fn push(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let list = &mut self.config.pointer_mut(parent).unwrap()[key];
        if list.is_null() {
            *list = json!([]);
        }
        list.as_array_mut().unwrap().push(value);
        self
    }

    fn mount(self, mount: Value) -> Self {
        self.push("/mounts", mount)
    }

    /// In a user namespace of its own.
    fn in_user_namespace(self) -> Self {
        // Its root is the container's, as an engine would have made it.
        for directory in [self.rootfs(), self.rootfs().join("dev")] {
            std::os::unix::fs::chown(directory, Some(BASE), Some(BASE)).unwrap();
        }
        let map = json!([{"containerID": 0, "hostID": BASE, "size": 65_536}]);
        self.push("/linux/namespaces", json!({"type": "user"}))
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map)
    }

    /// With the namespace of this kind changed or, by null, left out.
    fn namespace(mut self, kind: &str, entry: Value) -> Self {
        let list = self.config["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|namespace| namespace["type"] != kind);
        if !entry.is_null() {
            list.push(entry);
        }
        self
    }

    fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    fn launch(&self) -> Launch {
        let (spec, warnings) = compile::read(self.config.to_string().as_bytes()).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        let bundle = Bundle { path: self.directory.to_str().unwrap(), id: "bundle" };
        compile::bundle(&spec, bundle).unwrap_or_else(|error| panic!("{error}")).launch
    }

    fn run(&self) -> Result<Ended, Failure> {
        run_launch(&self.launch(), "bundle")
    }

    /// What it printed; it must have ended well.
    fn output(&self) -> String {
        let ended = self.run().unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(ended.status, 0, "{}", ended.output);
        ended.output
    }

    /// Why it doesn't start.
    fn refusal(&self) -> String {
        match self.run() {
            Err(failure) => failure.to_string(),
            Ok(ended) => panic!("it ran: {ended:?}"),
        }
    }
}

/// A tmpfs of this test's own, shared with whoever clones it, with another one on its directory `beneath`.
fn mounted(name: &str) -> PathBuf {
    let directory = scratch(name);
    let mount = |path: &Path| {
        rustix::mount::mount("tmpfs", path, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        rustix::mount::mount_change(path, rustix::mount::MountPropagationFlags::SHARED).unwrap();
    };
    mount(&directory);
    std::fs::create_dir(directory.join("beneath")).unwrap();
    mount(&directory.join("beneath"));
    directory
}

fn unmount(directory: &Path) {
    rustix::mount::unmount(directory, rustix::mount::UnmountFlags::DETACH).unwrap();
}

/// The line of mountinfo text about what is mounted on `target`.
fn line<'a>(mountinfo: &'a str, target: &str) -> &'a str {
    let found = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some(target));
    found.unwrap_or_else(|| panic!("nothing on {target}: {mountinfo}"))
}

/// The options of the mount on `target`.
fn options(mountinfo: &str, target: &str) -> Vec<String> {
    line(mountinfo, target).split(' ').nth(5).unwrap().split(',').map(str::to_owned).collect()
}

/// The tests' cgroup directory of the container, seen from outside.
fn cgroup() -> PathBuf {
    place().cgroup_path().join("bundle")
}
