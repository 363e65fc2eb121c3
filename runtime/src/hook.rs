//! One hook of a container's life (runtime spec, "POSIX-platform Hooks"): run with the state on its standard input, and waited
//! for. The same code serves the launcher and the child.

use std::borrow::Cow;
use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{MemfdFlags, SealFlags, SeekFrom, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, getpid, getppid, set_parent_process_death_signal, waitid,
};
use rustix::thread::UnshareFlags;
use rustix::time::{ClockId, clock_gettime};

use crate::failure::{Context, Failure, Step};
use crate::{hint, sys};
use crate::sys::exec::{Strings, execve};

/// A program to run at one point of a container's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Which list it stands in (`createRuntime`, …), for errors.
    pub kind: &'static str,
    /// Its place there, from 0 on.
    pub number: usize,
    /// Absolute path of the program.
    pub path: String,
    /// Its arguments, the first being its name; empty means just the path.
    pub args: Vec<String>,
    /// Its whole environment, as `NAME=value`; `None`: the usual one.
    pub env: Option<Vec<String>>,
    /// How long it may take; `None`: as long as it likes.
    pub timeout: Option<Duration>,
}

/// The exit status of a hook that couldn't be executed.
const NOT_EXECUTED: i32 = 127;

/// A container's state (JSON) as the standard input of hooks. It is a file, as a pipe would fill up when a hook doesn't read, and is
/// made before there is a limit on the size of files.
#[derive(Debug)]
pub(crate) struct State(OwnedFd);

impl AsFd for State {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl State {
    pub(crate) fn new(state: &[u8]) -> Result<Self, Failure> {
        state_file(state).map(Self).at(Step::RunHook, || "hooks: their state")
    }
}

/// What hooks find themselves in. The default is what this process has.
#[derive(Default, Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    /// The environment of those that have none of their own.
    pub(crate) environment: Option<&'a [String]>,
    /// The working directory.
    pub(crate) directory: Option<&'a str>,
    /// Standard output and error.
    pub(crate) output: Output<'a>,
    /// Takes rights away from whoever calls it; each hook's process does.
    pub(crate) restrict: Option<&'a dyn Fn() -> Result<(), Errno>>,
    /// They go on when this process is killed. Otherwise they end with it: what they wait for may never come, and nobody would know of them.
    /// What a hook has started itself goes on, as services that it leaves behind on purpose do.
    pub(crate) outlive: bool,
}

/// Standard output and error of hooks; `None`: this process's.
pub(crate) type Output<'a> = [Option<BorrowedFd<'a>>; 2];

impl Surroundings<'_> {
    /// What a hook's own process does before it executes the hook.
    fn enter(&self, state: &State, parent: Pid) -> Result<(), Errno> {
        if !self.outlive {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            if getppid() != Some(parent) {
                // It was killed before that.
                return Err(Errno::SRCH);
            }
        }
        self.directory.map_or(Ok(()), rustix::process::chdir)?;
        rustix::stdio::dup2_stdin(&state.0)?;
        let [stdout, stderr] = self.output;
        stdout.map_or(Ok(()), rustix::stdio::dup2_stdout)?;
        stderr.map_or(Ok(()), rustix::stdio::dup2_stderr)?;
        let _ = sys::process::close_on_exec_from(3);
        // From here on there may be no call but exec.
        self.restrict.map_or(Ok(()), |restrict| restrict())
    }
}

/// Runs the hooks in order, up to the first that fails.
pub(crate) fn run_all(surroundings: Surroundings<'_>, hooks: &[Hook], state: &State) -> Result<(), Failure> {
    hooks.iter().try_for_each(|hook| run(surroundings, hook, state))
}

/// Runs `hook` in this process's namespaces with `state` on its standard input. ETIMEDOUT: it was killed at its deadline; ECANCELED: it
/// failed, as the object says; else it couldn't be executed.
pub(crate) fn run(surroundings: Surroundings<'_>, hook: &Hook, state: &State) -> Result<(), Failure> {
    let refuse = |errno, how: &str| {
        Failure::new(Step::RunHook, format!("{} hook #{}: {}{how}", hook.kind, hook.number, hook.path), errno)
    };
    let path = CString::new(hook.path.as_str()).map_err(|_| refuse(Errno::INVAL, ""))?;
    let own_name = [hook.path.clone()];
    let args = Strings::new(if hook.args.is_empty() { &own_name } else { &hook.args }).map_err(|e| refuse(e, ""))?;
    let variables = match hook.env.as_deref().or(surroundings.environment) {
        Some(variables) => Cow::Borrowed(variables),
        None => Cow::Owned(own_environment()),
    };
    let env = Strings::new(&variables).map_err(|e| refuse(e, ""))?;
    rustix::fs::seek(&state.0, SeekFrom::Start(0)).map_err(|e| refuse(e, ""))?;
    // The error of a hook that can't be executed; exec closes it.
    let refusal = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| refuse(e, ""))?;
    let own = getpid();
    let child = sys::clone::fork_into(UnshareFlags::empty(), None, libc::SIGCHLD, || {
        sys::process::reset_signals();
        let errno = match surroundings.enter(state, own) {
            Ok(()) => execve(&path, &args, &env),
            Err(errno) => errno,
        };
        let _ = rustix::io::write(&refusal, &u64::from(errno.raw_os_error().unsigned_abs()).to_ne_bytes());
        NOT_EXECUTED
    })
    .map_err(|e| refuse(e, ""))?;
    if !ends_in_time(child.pidfd.as_fd(), hook.timeout) {
        sys::clone::kill_and_reap(&child);
        return Err(refuse(Errno::TIMEDOUT, ""));
    }
    let status = wait(child.pidfd.as_fd()).map_err(|e| refuse(e, ""))?;
    let mut errno = [0_u8; 8];
    if rustix::io::read(&refusal, &mut errno) == Ok(errno.len()) {
        let errno = i32::try_from(u64::from_ne_bytes(errno)).unwrap_or(libc::EIO);
        return Err(refuse(Errno::from_raw_os_error(errno), ""));
    }
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => Ok(()),
        // runc's callers look for what stands before the path, crun's for this.
        (Some(code), _) => Err(refuse(Errno::CANCELED, &format!(": {} hook failed with exit code {code}", hook.kind))),
        (None, signal) => Err(refuse(Errno::CANCELED, &format!(": signal: {}", hint::signal_text(signal.unwrap_or(0))))),
    }
}

/// What this process was given; variables that are no text are left out.
fn own_environment() -> Vec<String> {
    let text = |(name, value): (OsString, OsString)| Some(format!("{}={}", name.to_str()?, value.to_str()?));
    std::env::vars_os().filter_map(text).collect()
}

/// No hook can change it for the next.
fn state_file(state: &[u8]) -> Result<OwnedFd, Errno> {
    let file = memfd_create("state", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut rest = state;
    while !rest.is_empty() {
        let n = rustix::io::write(&file, rest)?;
        rest = rest.get(n..).unwrap_or(&[]);
    }
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file)
}

/// Whether the process ends before the deadline.
pub(crate) fn ends_in_time(pidfd: BorrowedFd<'_>, timeout: Option<Duration>) -> bool {
    let now = || {
        let time = clock_gettime(ClockId::Monotonic);
        Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
    };
    let deadline = timeout.map(|timeout| now().saturating_add(timeout));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_sub(now()));
        let limit = left.map(|left| Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)], limit.as_ref()) {
            Err(Errno::INTR) => {}
            Ok(0) => return false,
            // What else could be wrong the wait that follows will say.
            _ => return true,
        }
    }
}

/// Waits for a child of this process and reaps it.
pub(crate) fn wait(pidfd: BorrowedFd<'_>) -> Result<WaitIdStatus, Errno> {
    loop {
        match waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            Ok(Some(status)) => return Ok(status),
            Ok(None) => return Err(Errno::CHILD),
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Hook {
        Hook {
            kind: "poststop",
            number: 1,
            path: "/bin/sh".to_owned(),
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: Some(vec!["NAME=value".to_owned()]),
            timeout: None,
        }
    }

    fn run_plainly(hook: &Hook, state: &[u8]) -> Result<(), Failure> {
        run(Surroundings::default(), hook, &State::new(state)?)
    }

    #[test]
    fn a_hook_has_the_state_and_its_own_environment() {
        let large = "x".repeat(300_000);
        run_plainly(&shell(&format!("read -r state; test \"$state\" = {}; test $? = 0 && test \"$NAME\" = value", "{}")), b"{}").unwrap();
        run_plainly(&shell("test $(wc -c) = 300000"), large.as_bytes()).unwrap();
        // One that never reads holds nobody up.
        run_plainly(&shell("exit 0"), large.as_bytes()).unwrap();
    }

    #[test]
    fn a_hook_without_an_environment_has_this_process_s() {
        let path = std::env::var("PATH").unwrap();
        let inherits = Hook { env: None, ..shell(&format!("test \"$PATH\" = '{path}'")) };
        run_plainly(&inherits, b"").unwrap();
        let none = Hook { env: Some(Vec::new()), ..inherits };
        assert_eq!(run_plainly(&none, b"").unwrap_err().errno, Errno::CANCELED.raw_os_error());
    }

    #[test]
    fn a_failing_or_slow_hook_is_named() {
        let text = run_plainly(&shell("exit 3"), b"").unwrap_err().to_string();
        assert_eq!(text, "error running poststop hook #1: /bin/sh: poststop hook failed with exit code 3");
        for (signal, words) in [(9, "killed (9)"), (31, "bad system call (31)"), (64, "signal 64")] {
            let text = run_plainly(&shell(&format!("kill -{signal} $$")), b"").unwrap_err().to_string();
            assert_eq!(text, format!("error running poststop hook #1: /bin/sh: signal: {words}"));
        }
        let slow = Hook { timeout: Some(Duration::from_millis(50)), ..shell("sleep 60") };
        assert_eq!(run_plainly(&slow, b"").unwrap_err().errno, Errno::TIMEDOUT.raw_os_error());
        let absent = Hook { path: "/absent".to_owned(), ..shell("") };
        assert_eq!(run_plainly(&absent, b"").unwrap_err().to_string(), "error running poststop hook #1: /absent: no such file or directory (ENOENT): there is no such program");
        let no_program = Hook { path: "/etc/passwd".to_owned(), ..shell("") };
        assert_eq!(run_plainly(&no_program, b"").unwrap_err().errno, Errno::ACCESS.raw_os_error());
    }
}
