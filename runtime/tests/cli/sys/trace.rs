//! Commands that are traced (ptrace(2)), so that one of their processes is killed right before one system call.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use libc::{c_int, pid_t};

/// How a stop at a system call is told apart (`PTRACE_O_TRACESYSGOOD`).
const CALL: c_int = libc::SIGTRAP | 0x80;
/// Nobody is left stopped should the test fail.
const PLAINLY: c_int = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
const WITH_CHILDREN: c_int = PLAINLY | libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEVFORK | libc::PTRACE_O_TRACECLONE;

/// Runs `command` and kills it right before its `n`th system call. Returns whether it came that far.
pub fn kill_before_call(command: Command, n: usize) -> bool {
    let (pid, mut calls) = (spawn(command, PLAINLY), Calls::default());
    go_on(pid, libc::PTRACE_SYSCALL, 0);
    loop {
        let Some((_, status)) = wait(pid) else { return false };
        if ended(status) {
            return false;
        }
        if calls.count(status) == Some(n) {
            break;
        }
        go_on(pid, libc::PTRACE_SYSCALL, signal_of(status));
    }
    kill(pid);
    wait(pid);
    true
}

/// Runs `command` and kills whichever of its children comes to the `n`th system call of them all, right before that. Returns the
/// command's status, or `None` if they came to their end, or to a stand, before.
pub fn kill_child_before_call(command: Command, n: usize) -> Option<ExitStatus> {
    let own = spawn(command, WITH_CHILDREN);
    go_on(own, libc::PTRACE_CONT, 0);
    let (mut children, mut counted, mut killed, mut end) = (HashMap::<pid_t, Calls>::new(), 0, false, None);
    // To the last, as nobody else can reap them.
    while let Some((pid, status)) = wait(-1) {
        if ended(status) {
            children.remove(&pid);
            if pid == own {
                end = Some(ExitStatus::from_raw(status));
                children.keys().copied().for_each(kill);
            }
            continue;
        }
        if pid == own {
            go_on(pid, libc::PTRACE_CONT, signal_of(status));
            continue;
        }
        // It begins by a stop of its own.
        let is_new = !children.contains_key(&pid);
        let entered = children.entry(pid).or_default().count(status).is_some();
        counted += usize::from(entered);
        if end.is_some() || entered && counted == n {
            killed |= end.is_none();
            kill(pid);
        }
        let how = if killed { libc::PTRACE_CONT } else { libc::PTRACE_SYSCALL };
        go_on(pid, how, if is_new { 0 } else { signal_of(status) });
    }
    end.filter(|_| killed)
}

/// The system calls of a process.
#[derive(Default)]
struct Calls {
    begun: usize,
    inside: bool,
}

impl Calls {
    /// Its number, if this stop is the beginning of one; each stops twice.
    fn count(&mut self, status: c_int) -> Option<usize> {
        if libc::WSTOPSIG(status) != CALL {
            return None;
        }
        self.inside = !self.inside;
        self.begun += usize::from(self.inside);
        self.inside.then_some(self.begun)
    }
}

fn ended(status: c_int) -> bool {
    libc::WIFEXITED(status) || libc::WIFSIGNALED(status)
}

/// The signal that a process stopped for, which it is to get. Other stops are those of calls, children, and another program.
fn signal_of(status: c_int) -> c_int {
    match libc::WSTOPSIG(status) {
        libc::SIGTRAP | CALL => 0,
        signal => signal,
    }
}

/// Starts it, stopped at its program's beginning.
#[allow(clippy::zombie_processes, reason = "reaped by waitpid")]
fn spawn(mut command: Command, options: c_int) -> pid_t {
    // SAFETY: between fork and exec only ptrace(2) is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            Ok(())
        });
    }
    let pid = command.spawn().expect("spawn").id().cast_signed();
    wait(pid);
    // SAFETY: the call takes plain numbers.
    unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options) };
    pid
}

/// Waits for a change of this thread's own child, or of whichever (-1).
fn wait(pid: pid_t) -> Option<(pid_t, c_int)> {
    let mut status = 0;
    // SAFETY: waitpid(2) writes to a valid integer.
    let pid = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    (pid > 0).then_some((pid, status))
}

fn go_on(pid: pid_t, how: libc::c_uint, signal: c_int) {
    // SAFETY: the call takes plain numbers. One that was killed meanwhile is an error that the wait tells.
    unsafe { libc::ptrace(how, pid, 0, signal) };
}

fn kill(pid: pid_t) {
    // SAFETY: kill(2) takes plain numbers; nobody but this thread reaps it, so the number is its own.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}
