//! `garboard run --detach`: the machine in a process of its own, and the links by which other commands find it.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use garboard_qemu::Vm;

/// QEMU takes no longer to begin.
const START: Duration = Duration::from_secs(60);

/// Links to a machine's sockets, in its state directory; gone with it.
#[derive(Debug)]
pub struct Links(Vec<PathBuf>);

impl Links {
    /// Makes them. Those of a machine that was killed are replaced.
    pub fn make(vm: &Vm, state: &Path) -> Result<Self> {
        fs::create_dir_all(state).with_context(|| format!("make {}", state.display()))?;
        let mut links = Self(Vec::new());
        for (name, socket) in [("console", vm.console_socket()), ("status", vm.status_socket())] {
            let link = state.join(name);
            unlink(&link)?;
            if socket.exists() {
                symlink(&socket, &link).with_context(|| format!("make {}", link.display()))?;
                links.0.push(link);
            }
        }
        Ok(links)
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for link in &self.0 {
            let _ = fs::remove_file(link);
        }
    }
}

/// Refuses to start beside a machine that runs. One that was killed left its link, and perhaps its socket, to which nobody
/// listens: they would be taken for the new machine's.
fn make_way(state: &Path, directory: &Path) -> Result<()> {
    let link = state.join("status");
    if fs::read_link(&link).is_ok_and(|socket| UnixStream::connect(socket).is_ok()) {
        bail!("a machine of {} runs already: switch it off first", directory.display());
    }
    unlink(&link)
}

/// Removes a link, if it is there.
fn unlink(link: &Path) -> Result<()> {
    if link.is_symlink() {
        fs::remove_file(link).with_context(|| format!("remove {}", link.display()))?;
    }
    Ok(())
}

/// Starts this command again in the background, and waits until its machine runs.
pub fn run(state: &Path, directory: &Path) -> Result<ExitCode> {
    make_way(state, directory)?;
    fs::create_dir_all(state).with_context(|| format!("make {}", state.display()))?;
    let words = std::env::args_os().skip(1).map(|word| if word == "--detach" { "--detached".into() } else { word });
    let path = state.join("run.log");
    let log = File::create(&path).with_context(|| format!("make {}", path.display()))?;
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    // Ctrl-C on this terminal is not for it.
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
    let mut child = command.spawn().context("start the machine's process")?;
    let deadline = Instant::now() + START;
    while !fs::read_link(state.join("status")).is_ok_and(|socket| socket.exists()) {
        if child.try_wait().context("wait for the machine's process")?.is_some() {
            let why = fs::read_to_string(&path).unwrap_or_default();
            bail!("the machine did not start: {}", why.trim().trim_start_matches("garboard: "));
        }
        if Instant::now() >= deadline {
            bail!("the machine did not start within {} s: see {}", START.as_secs(), path.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    print!("{}", fs::read_to_string(&path).unwrap_or_default());
    println!(
        "garboard: it runs as process {}; `kill {0}` switches it off, `garboard attach` is its console",
        child.id()
    );
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_machine_that_runs_is_left_alone_and_one_that_was_killed_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, link) = (directory.path().join("socket"), directory.path().join("status"));
        let way = || make_way(directory.path(), Path::new("out"));
        way().unwrap();
        let machine = UnixListener::bind(&socket).unwrap();
        symlink(&socket, &link).unwrap();
        assert!(way().unwrap_err().to_string().contains("a machine of out runs already"));
        assert!(link.is_symlink());
        drop(machine);
        assert!(socket.exists(), "a socket stays when its listener is gone");
        way().unwrap();
        assert!(!link.is_symlink());
    }
}
