//! Where the tests run the program: a root filesystem with busybox, bundles of it, and state directories of their own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, MountPropagationFlags};
use serde_json::{Value, json};

/// Nothing in a test takes longer.
pub const DEADLINE: Duration = Duration::from_secs(60);
const CGROUPS: &str = "/sys/fs/cgroup";

pub struct Place {
    scratch: tempfile::TempDir,
}

static PLACE: OnceLock<Place> = OnceLock::new();
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// The program under test: a copy that this user can reach, or the one that was built.
pub fn runtime() -> PathBuf {
    std::env::var_os("GARBOARD_RUNTIME").unwrap_or_else(|| env!("CARGO_BIN_EXE_garboard-runtime").into()).into()
}

/// Copies a program to execute it. Another process does so: a fork of this one, made by another test meanwhile, would hold the copy
/// open for writing for a moment, and what is open for writing can't be executed.
pub fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").args([from, to]).status().expect("start cp");
    assert!(copied.success(), "copy {} to {}: {copied}", from.display(), to.display());
}

pub fn place() -> &'static Place {
    PLACE.get().expect("entered by main")
}

/// Enters the mount namespace (as root) and lays out the root filesystem.
pub fn enter() -> &'static Place {
    if rustix::process::geteuid().is_root() {
        crate::sys::unshare_mounts();
        let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", flags).expect("private mounts");
        rustix::mount::mount("cgroup2", CGROUPS, "cgroup2", MountFlags::empty(), None).expect("mount cgroup2");
    }
    let scratch = tempfile::tempdir().expect("scratch directory");
    std::fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let rootfs = scratch.path().join("rootfs");
    for directory in ["bin", "etc", "tmp", "proc", "sys", "dev", "run"] {
        std::fs::create_dir_all(rootfs.join(directory)).unwrap();
    }
    std::fs::copy("/bin/busybox", rootfs.join("bin/busybox")).expect("busybox-static is installed");
    for applet in [
        "sh", "cat", "ls", "id", "stat", "sleep", "echo", "kill", "touch", "true", "env", "tty", "stty", "readlink",
        "grep", "wc", "chown", "mkdir", "find", "sort", "md5sum", "mount", "head", "rm",
    ] {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
    }
    PLACE.set(Place { scratch }).ok().expect("entered once");
    place()
}

impl Place {
    pub fn leave(&self) {
        std::fs::remove_dir_all(self.scratch.path()).expect("remove scratch");
    }

    pub fn rootfs(&self) -> PathBuf {
        self.scratch.path().join("rootfs")
    }
}

/// One test's bundle, state directory and container name.
pub struct Site {
    pub directory: PathBuf,
    pub id: String,
    pub config: Value,
    /// Program and arguments in front of the runtime's own: who it is run as, and where.
    pub before: Vec<String>,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Done {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A bundle whose program is this shell script.
pub fn shell(script: &str) -> Site {
    program(&["/bin/sh", "-c", script])
}

/// A bundle with this program, and with what `spec` writes otherwise.
pub fn program(arguments: &[&str]) -> Site {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let directory = place().scratch.path().join(format!("test-{number}"));
    std::fs::create_dir(&directory).unwrap();
    let mut command = Command::new(runtime());
    command.args(["spec", "--bundle"]).arg(&directory);
    if !rustix::process::geteuid().is_root() {
        command.arg("--rootless");
    }
    assert!(command.status().unwrap().success());
    let mut config: Value = serde_json::from_slice(&std::fs::read(directory.join("config.json")).unwrap()).unwrap();
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = json!(arguments);
    config["root"]["path"] = json!(place().rootfs());
    Site { directory, id: format!("garboard-cli-{}-{number}", std::process::id()), config, before: Vec::new() }
}

impl Site {
    pub fn change(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    /// With a user namespace of its own, whose ids are another million's outside.
    pub fn with_user_namespace(self) -> Self {
        self.change(|c| {
            c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            for side in ["uidMappings", "gidMappings"] {
                c["linux"][side] = json!([{"containerID": 0, "hostID": 1_000_000, "size": 65536}]);
            }
        })
    }

    /// The program with its state directory, and the bundle written.
    pub fn command(&self, arguments: &[&str]) -> Command {
        std::fs::write(self.directory.join("config.json"), self.config.to_string()).unwrap();
        self.plain_command(arguments)
    }

    /// The same, the bundle left as it is.
    pub fn plain_command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.before.split_first() {
            None => Command::new(runtime()),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments);
                command
            }
        };
        command.arg("--root").arg(self.directory.join("state")).args(arguments).current_dir(&self.directory);
        command.env_remove("NOTIFY_SOCKET").env_remove("LISTEN_FDS").stdin(Stdio::null());
        command
    }

    /// Runs it to its end; output goes by files, which no container can hold up.
    pub fn run(&self, arguments: &[&str]) -> Done {
        finish(self.command(arguments))
    }

    /// What it printed; it must succeed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments);
        assert_eq!(done.status, 0, "{arguments:?}: {done:?}");
        done.stdout
    }

    /// What it complained; it must fail with exit status 1, or `exec` with 255.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments);
        let expected = if arguments.contains(&"exec") { 255 } else { 1 };
        assert_eq!(done.status, expected, "{arguments:?}: {done:?}");
        assert!(done.stderr.starts_with("garboard-runtime: ") && done.stderr.contains(": error: "), "{done:?}");
        done.stderr
    }

    /// Its state as JSON.
    pub fn state(&self) -> Value {
        serde_json::from_str(&self.ok(&["state", &self.id])).unwrap()
    }

    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// Waits until its state is this.
    pub fn wait_for(&self, status: &str) {
        until(&format!("{} is {status}", self.id), || self.status() == status);
    }

    /// `create` with its output in a file, which is returned.
    pub fn create(&self, more: &[&str]) -> PathBuf {
        let output = self.directory.join("output");
        let file = std::fs::File::create(&output).unwrap();
        let arguments = [&["create"], more, &[self.id.as_str()]].concat();
        let mut command = self.command(&arguments);
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let status = command.status().unwrap();
        assert!(status.success(), "{}", std::fs::read_to_string(&output).unwrap());
        output
    }

    pub fn cgroup(&self) -> PathBuf {
        Path::new(CGROUPS).join(&self.id)
    }

    /// Nothing of the container is left.
    pub fn assert_gone(&self) {
        let state = self.directory.join("state");
        let left: Vec<_> = std::fs::read_dir(state).map(|d| d.map(|e| e.unwrap().path()).collect()).unwrap_or_default();
        assert!(left.is_empty(), "{left:?}");
        assert!(!self.cgroup().exists(), "{}", self.cgroup().display());
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Also when the test has failed.
        let _ = self.plain_command(&["delete", "--force", &self.id]).stderr(Stdio::null()).status();
    }
}

pub fn finish(mut command: Command) -> Done {
    let (mut stdout, mut stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let child = command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap()).spawn().unwrap();
    let status = wait(child);
    let read = |file: &mut std::fs::File| {
        use std::io::{Read, Seek};
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Done { status, stdout: read(&mut stdout), stderr: read(&mut stderr) }
}

/// Its exit status, or 128 + signal; killed at the deadline.
pub fn wait(mut child: Child) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        }
        if Instant::now() > end {
            let _ = child.kill();
            panic!("nothing happened for {DEADLINE:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until `condition` holds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "it never came to be: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
