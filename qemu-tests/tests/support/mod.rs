//! What the test groups share: the built tool, the test images, and a project directory per test.
//!
//! `qemu-tests/verify` builds the tool and the images and names them in `GARBOARD` and `GARBOARD_FIXTURES`; without it the
//! usual places are looked at, and a test that finds nothing there fails with the command that makes it.
// Each test group compiles this module for itself and none uses all of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use garboard_qemu::{Exit, Vm, secs};
use tempfile::TempDir;

/// What an emulated machine may need from its start until its containers have done their work.
pub const BOOT: Duration = secs(120);

/// The `garboard` command line tool.
pub fn tool() -> PathBuf {
    let path = match env::var_os("GARBOARD") {
        Some(path) => PathBuf::from(path),
        // A test executable is in TARGET/PROFILE/deps.
        None => env::current_exe().unwrap().ancestors().nth(3).unwrap().join("tool/garboard"),
    };
    assert!(path.exists(), "{} is missing: run cargo build --profile tool -p garboard", path.display());
    path
}

/// The directory of the test images, which `fixtures/build` makes.
pub fn fixtures() -> PathBuf {
    let path = match env::var_os("GARBOARD_FIXTURES") {
        Some(path) => PathBuf::from(path),
        None => {
            let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/build");
            let output = Command::new(&build).arg("--path").output().unwrap();
            PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
        }
    };
    assert!(path.exists(), "{} is missing: run qemu-tests/fixtures/build", path.display());
    path
}

/// A real kernel that is older than the one the tool bakes: image and modules. `lib/older-kernel` fetches it.
pub fn older_kernel() -> (PathBuf, PathBuf) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lib/older-kernel");
    let output = Command::new(script).output().unwrap();
    assert!(output.status.success(), "lib/older-kernel: {}", text(&output.stderr));
    let printed = text(&output.stdout);
    let (image, modules) = printed.trim().split_once('\n').unwrap();
    (image.into(), modules.into())
}

/// `/init` that crashes when it is asked to. `lib/crash-test-init` builds it.
pub fn crash_test_init() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lib/crash-test-init");
    let output = Command::new(script).output().unwrap();
    assert!(output.status.success(), "lib/crash-test-init: {}", text(&output.stderr));
    PathBuf::from(text(&output.stdout).trim())
}

/// The user's cache directory (XDG Base Directory Specification).
pub fn cache() -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").expect("HOME")).join(".cache");
    env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from)
}

/// The reference of a test image in a declaration, for example `fixture("oci", "nginx")`.
pub fn fixture(transport: &str, name: &str) -> String {
    format!("{transport}:{}", fixtures().join(name).display())
}

/// A directory with an `appliance.toml` in it.
pub struct Project {
    dir: TempDir,
}

impl Project {
    /// Writes the declaration into a fresh directory.
    pub fn new(declaration: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("garboard-test-").tempdir().unwrap();
        fs::write(dir.path().join("appliance.toml"), declaration).unwrap();
        Self { dir }
    }

    /// The same for all tests of this process, and gone with it: what a static holds is never dropped.
    pub fn shared(self) -> Self {
        remove_at_exit(self.dir.path());
        self
    }

    /// A path in the project.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs the tool in the project.
    pub fn garboard<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Output {
        Command::new(tool()).args(arguments).current_dir(self.dir.path()).output().unwrap()
    }

    /// Bakes the declaration into `out`, which must succeed, and says where that is.
    pub fn build(&self) -> PathBuf {
        self.build_with(&["build", "-o", "out"])
    }

    /// [`Project::build`] for tests that boot kernel and initrd directly.
    pub fn build_without_disk(&self) -> PathBuf {
        self.build_with(&["build", "-o", "out", "--no-disk"])
    }

    fn build_with(&self, arguments: &[&str]) -> PathBuf {
        let output = self.garboard(arguments);
        assert!(output.status.success(), "garboard build: {}\n{}", output.status, text(&output.stderr));
        self.path("out")
    }

    /// Bakes the declaration, which must be refused: exit status 1, nothing left in `out`, no panic, one error that holds all of
    /// `words`.
    pub fn refused(&self, words: &[&str]) {
        let output = self.garboard(["build", "-o", "out", "--no-disk"]);
        assert_refused(&output, words);
        assert!(!self.path("out").join("image.json").exists(), "a refused build left an image behind");
    }
}

/// Removes a directory once this process has ended, however it ends: a shell waits for the end of a pipe.
pub fn remove_at_exit(directory: &Path) {
    let script = "trap '' HUP INT TERM; read -r never; exec rm -rf \"$1\"";
    let mut remover = Command::new("sh");
    remover.args(["-c", script, "sh"]).arg(directory).process_group(0);
    remover.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // With it the pipe's other end would be closed.
    std::mem::forget(remover.spawn().unwrap());
}

/// Checks that the tool ended with one clear sentence that holds all of `words`. One about the declaration shows its place there.
pub fn assert_refused(output: &Output, words: &[&str]) {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(!message.contains("panicked"), "{message}");
    let sentences = match message.strip_prefix("garboard: the declaration is wrong\n") {
        Some(errors) => errors.lines().filter(|line| line.starts_with("error: ")).count(),
        None => message.lines().count(),
    };
    assert_eq!(sentences, 1, "not one clear sentence: {message}");
    for word in words {
        assert!(message.contains(word), "'{word}' is not in: {message}");
    }
}

/// Runs one of the distribution's own tools, which must succeed, and returns what it printed.
pub fn judge<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> String {
    let output = command(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{program}: {}: {printed}", output.status);
    printed
}

/// A command that is also looked for where administrators' programs are.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default()));
    command
}

/// Output as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Copies a directory with everything in it.
pub fn copy_tree(from: &Path, to: &Path) {
    judge("cp", [OsStr::new("-rT"), from.as_os_str(), to.as_os_str()]);
}

/// Flips one bit of a file.
pub fn flip_bit(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Waits until the container has ended for good; how, and the `key value` lines it printed.
pub fn finished(vm: &Vm, name: &str) -> (Exit, BTreeMap<String, String>) {
    vm.wait_status(&format!("end of {name}"), BOOT, |status| {
        Ok(status.container(name).is_some_and(|container| container.exit.is_some()))
    })
    .unwrap();
    let lines = vm.logs(name, 200).unwrap();
    let pairs = lines.iter().map(|line| line.split_once(' ').unwrap_or((line.as_str(), "")));
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect();
    (vm.status().unwrap().container(name).unwrap().exit.unwrap(), pairs)
}

/// Checks some of the lines that [`finished`] found.
pub fn expect(found: &BTreeMap<String, String>, wanted: &[(&str, &str)]) {
    for (key, value) in wanted {
        assert_eq!(found.get(*key).map(String::as_str), Some(*value), "{key} in {found:#?}");
    }
}
