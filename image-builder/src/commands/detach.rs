//! `garboard run --detach`: the machine in a process of its own, and the links by which other commands find it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::commands::{self, port};

/// QEMU takes no longer to begin.
const START: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// Links to a machine's sockets, in its state directory; gone with it.
#[derive(Debug)]
pub struct Links(Vec<(PathBuf, PathBuf)>);

impl Links {
    /// Makes them for `sockets`, each with the link's name. Those of another machine are replaced, unless this one is to `give_way`
    /// and the other is alive.
    pub fn make(sockets: [(&str, PathBuf); 2], state: &Path, give_way: bool) -> Result<Self> {
        fs::create_dir_all(state).with_context(|| format!("make {}", state.display()))?;
        let mut links = Self(Vec::new());
        if give_way && is_alive(state) {
            return Ok(links);
        }
        for (name, socket) in sockets {
            let link = state.join(name);
            unlink(&link)?;
            if socket.exists() {
                symlink(&socket, &link).with_context(|| format!("make {}", link.display()))?;
                links.0.push((link, socket));
            }
        }
        Ok(links)
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        // Another machine may have replaced them.
        for (link, _) in self.0.iter().filter(|(link, socket)| fs::read_link(link).is_ok_and(|to| to == *socket)) {
            let _ = fs::remove_file(link);
        }
    }
}

/// Whether the links lead to a machine that runs. One that was killed left them, and perhaps its sockets, to which nobody listens.
fn is_alive(state: &Path) -> bool {
    let alive = |socket: PathBuf| matches!(port::try_connect(&socket), Ok(_) | Err(rustix::io::Errno::AGAIN));
    fs::read_link(state.join("status")).is_ok_and(alive)
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
    // One that keeps nothing has no lock that would say so.
    if is_alive(state) {
        bail!("a machine of {} runs already: switch it off first", directory.display());
    }
    fs::create_dir_all(state).with_context(|| format!("make {}", state.display()))?;
    let words = std::env::args_os().skip(1).map(|word| if word == "--detach" { "--detached".into() } else { word });
    let path = state.join("run.log");
    let log = File::create(&path).with_context(|| format!("make {}", path.display()))?;
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    // Ctrl-C on this terminal is not for it.
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).process_group(0);
    let mut child = command.spawn().context("start the machine's process")?;
    let said = child.stdout.take().context("hear the machine's process")?;
    match sign_of_life(said).context("wait for the machine's process")? {
        Some(true) => {}
        Some(false) => {
            child.wait().context("wait for the machine's process")?;
            let why = fs::read_to_string(&path).unwrap_or_default();
            bail!("the machine did not start: {}", why.trim().trim_start_matches("garboard: "));
        }
        None => bail!(
            "the machine did not start within {} s; process {} goes on trying, and what it says is in {}: `kill {1}` ends it",
            START.tv_sec,
            child.id(),
            path.display()
        ),
    }
    let log = fs::read_to_string(&path).unwrap_or_default();
    commands::print(&format!(
        "{log}garboard: it runs as process {}; `kill {0}` switches it off, `garboard attach` is its console\n",
        child.id()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Says to whoever started this process in the background that its machine runs.
pub fn give_sign_of_life() -> Result<()> {
    commands::print("\n")
}

/// Whether there is one, or an end without one; `None`: neither in time.
fn sign_of_life(mut said: impl Read + AsFd) -> io::Result<Option<bool>> {
    if poll(&mut [PollFd::new(&said, PollFlags::IN)], Some(&START))? == 0 {
        return Ok(None);
    }
    Ok(Some(said.read(&mut [0])? > 0))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn links_are_whose_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let (state, path) = (directory.path().join("state"), |name: &str| directory.path().join(name));
        let sockets = |name: &str| [("status", path(name)), ("console", path("none"))];
        let to = || fs::read_link(state.join("status")).ok();
        let first = UnixListener::bind(path("first")).unwrap();
        let _second = UnixListener::bind(path("second")).unwrap();
        let of_first = Links::make(sockets("first"), &state, false).unwrap();
        // Beside one that runs, one that keeps nothing has none.
        drop(Links::make(sockets("second"), &state, true).unwrap());
        assert_eq!(to(), Some(path("first")));
        // One that keeps its disks is the one to be found; the end of the other takes nothing from it.
        let of_second = Links::make(sockets("second"), &state, false).unwrap();
        drop(of_first);
        assert_eq!(to(), Some(path("second")));
        drop(of_second);
        assert_eq!(to(), None);
        // One that was killed left its socket, to which nobody listens.
        std::mem::forget(Links::make(sockets("first"), &state, false).unwrap());
        assert!(is_alive(&state));
        drop(first);
        assert!(path("first").exists() && !is_alive(&state));
        let _of_second = Links::make(sockets("second"), &state, true).unwrap();
        assert_eq!(to(), Some(path("second")));
    }

    #[test]
    fn an_end_is_no_sign_of_life() {
        let (ours, theirs) = io::pipe().unwrap();
        drop(theirs);
        assert_eq!(sign_of_life(ours).unwrap(), Some(false));
        let (ours, mut theirs) = io::pipe().unwrap();
        io::Write::write_all(&mut theirs, b"\n").unwrap();
        assert_eq!(sign_of_life(ours).unwrap(), Some(true));
    }
}
