//! The same with Podman, for as many containers as there is patience for.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Limits that every root may set, and of no controller that may be absent.
const RUN: [&str; 13] = [
    "run",
    "-d",
    "--network",
    "none",
    "--pids-limit",
    "0",
    "--ulimit",
    "nofile=1024:1024",
    "--ulimit",
    "nproc=4096:4096",
    "box",
    "/bin/sleep",
    "1000000",
];

/// Runs so many of busybox's `sleep`, one command after the other as a person or a script does, and removes them.
pub fn run(count: usize) -> Result<Duration, String> {
    let scratch = tempfile::tempdir_in("/dev/shm").map_err(|e| e.to_string())?;
    let layer = scratch.path().join("layer");
    std::fs::create_dir_all(layer.join("bin")).map_err(|e| e.to_string())?;
    std::fs::copy("/bin/busybox", layer.join("bin/sleep")).map_err(|e| e.to_string())?;
    let archive = scratch.path().join("image.tar");
    succeed(Command::new("tar").arg("-C").arg(&layer).arg("-cf").arg(&archive).arg("."))?;
    let _removed = Removed(scratch.path());
    succeed(podman(scratch.path()).arg("import").arg(&archive).arg("box"))?;
    let begun = Instant::now();
    for _ in 0..count {
        succeed(podman(scratch.path()).args(RUN))?;
    }
    Ok(begun.elapsed())
}

fn podman(scratch: &Path) -> Command {
    let mut podman = Command::new("podman");
    podman.arg("--root").arg(scratch.join("root")).arg("--runroot").arg(scratch.join("runroot"));
    podman.args(["--cgroup-manager", "cgroupfs", "--storage-driver", "overlay", "--log-level", "error"]);
    // Older versions of crun raise a limit that not every root may.
    podman.args(["--runtime", "/usr/sbin/runc"]);
    podman.env("XDG_RUNTIME_DIR", scratch);
    podman
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim_end()))
}

/// Whatever happens, nothing stays.
struct Removed<'a>(&'a Path);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        let _ = podman(self.0).args(["rm", "--all", "--force", "--time", "0"]).output();
    }
}
