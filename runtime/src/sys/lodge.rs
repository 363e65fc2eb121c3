//! A child that lives in its launcher's memory until it executes its program (clone3(2) with `CLONE_VM`).
//!
//! A fork copies page tables, and whatever either side then writes to. For a launcher that starts many children and does nothing
//! else, that is most of what a start costs besides what the kernel makes. What two processes write to at the same time is
//! a data race, so one of them runs at a time: the child waits for a byte before it does anything, and after that byte the
//! launcher waits until the kernel says that the child has left the memory, by executing its program or by its end.

use std::arch::asm;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{c_int, c_void};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::UnshareFlags;
use rustix::thread::futex;

use crate::start::NOT_LET_GO;

use super::clone::{CLONE_CLEAR_SIGHAND, CLONE_INTO_CGROUP, CLONE_PIDFD, Child, CloneArgs, exit, own, with_signals_blocked};

/// As much as a process begins with is never used; what isn't touched costs nothing.
const STACK: usize = 1 << 20;
/// What lies below it can't be touched.
const GUARD: usize = 1 << 16;

/// The stack of one child at a time.
#[derive(Debug)]
pub(crate) struct Stack(*mut c_void);

impl Stack {
    pub(crate) fn new() -> Result<Self, Errno> {
        // SAFETY: a new mapping wherever the kernel has room, which nothing else refers to.
        let memory = unsafe {
            mmap_anonymous(ptr::null_mut(), GUARD + STACK, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }?;
        let stack = Self(memory);
        // SAFETY: the lowest part of the mapping just made, which holds nothing.
        unsafe { mprotect(memory, GUARD, MprotectFlags::empty()) }?;
        Ok(stack)
    }

    /// Its lowest address.
    fn bottom(&self) -> u64 {
        self.0.wrapping_byte_add(GUARD) as u64
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is as long as this, and `share` doesn't return while a child uses it.
        let _ = unsafe { munmap(self.0, GUARD + STACK) };
    }
}

/// Why there is no child.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault<E> {
    /// It could not be made.
    Clone(Errno),
    /// What is done while it waits failed.
    Meanwhile(E),
}

/// What the child is given.
struct Task<'a> {
    go: c_int,
    not_go: c_int,
    theirs: c_int,
    body: &'a mut dyn FnMut(BorrowedFd<'_>) -> i32,
}

/// Makes a child of this process's parent in new `namespaces` and, if given, in `cgroup`; `body` runs in it and returns its exit status.
/// It is given `theirs`, which only the child has from then on.
///
/// While it waits, `meanwhile` is done here. If that fails the child is killed, otherwise it is let go; in either case this returns when
/// the child has nothing to do with this memory any more. What `body` allocates and hasn't freed by then is lost.
///
/// The caller must have no other thread. It must not go on using its memory if the child was killed while it ran: `body` may have been
/// anywhere.
pub(crate) fn share<E>(
    stack: &mut Stack,
    namespaces: UnshareFlags,
    cgroup: Option<BorrowedFd<'_>>,
    theirs: OwnedFd,
    body: &mut dyn FnMut(BorrowedFd<'_>) -> i32,
    meanwhile: impl FnOnce(&Child) -> Result<(), E>,
) -> Result<Child, Fault<E>> {
    let (go, not_go) = pipe_with(PipeFlags::CLOEXEC).map_err(Fault::Clone)?;
    let task = Task { go: go.as_raw_fd(), not_go: not_go.as_raw_fd(), theirs: theirs.as_raw_fd(), body };
    // The kernel clears it.
    let here = AtomicU32::new(1);
    let mut pidfd: i32 = -1;
    let shared = (libc::CLONE_VM | libc::CLONE_PARENT | libc::CLONE_CHILD_CLEARTID) as u64;
    let mut arguments = CloneArgs {
        flags: u64::from(namespaces.bits()) | shared | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: here.as_ptr() as u64,
        stack: stack.bottom(),
        stack_size: STACK as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(|_| Fault::Clone(Errno::BADF))?;
    }
    // A handler in the child would be one in here.
    // SAFETY: `task`, `here` and the stack outlive the child's stay, as this returns only when `here` says so; `arguments` and `pidfd`
    // outlive the call.
    let pid = with_signals_blocked(|| unsafe { clone_onto(&arguments, &raw const task) });
    let pid = i32::try_from(pid).map_err(|_| Fault::Clone(Errno::OVERFLOW))?;
    if pid < 0 {
        return Err(Fault::Clone(Errno::from_raw_os_error(pid.wrapping_neg())));
    }
    // SAFETY: with CLONE_PIDFD a successful clone3 has stored a new descriptor there that nobody else owns.
    let child = unsafe { own(pid, pidfd) };
    drop((go, theirs));
    let done = meanwhile(&child).map_err(Fault::Meanwhile);
    let let_go = done.and_then(|()| match rustix::io::write(&not_go, &[1]) {
        // One that is gone shows below, and to its parent.
        Ok(_) | Err(Errno::PIPE) => Ok(()),
        Err(errno) => Err(Fault::Clone(errno)),
    });
    if let_go.is_err() {
        let _ = rustix::process::pidfd_send_signal(&child.pidfd, rustix::process::Signal::KILL);
    }
    while here.load(Ordering::Acquire) != 0 {
        // Whatever ends the wait, the word is what counts.
        let _ = futex::wait(&here, futex::Flags::empty(), 1, None);
    }
    if let_go.is_err() {
        // It still is in its cgroup for a moment, which the caller is going to remove.
        let _ = poll(&mut [PollFd::new(&child.pidfd, PollFlags::IN)], None);
    }
    let_go.map(|()| child)
}

/// clone3(2) whose child begins in [`live`] with `task`; in the parent, its result: a process id, or an error number negated.
///
/// # Safety
///
/// `arguments` must name a stack that nobody else uses, and it and `task` must stay where they are for as long as the child is in this memory.
unsafe fn clone_onto(arguments: &CloneArgs, task: *const Task<'_>) -> libc::c_long {
    let mut result = libc::SYS_clone3;
    // SAFETY: the child has all registers but the result's and the stack pointer, which is the end of its own stack, so it pushes
    // nothing onto this one; it never comes back from `live`. The parent goes on as after any system call.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call {live}",
            "ud2",
            "2:",
            live = sym live,
            inout("rax") result,
            in("rdi") arguments,
            in("rsi") size_of::<CloneArgs>(),
            in("r12") task,
            out("rcx") _,
            out("r11") _,
        );
    }
    result
}

/// The child's life in the launcher's memory. Until it was let go it makes bare system calls, which touch none of it.
unsafe extern "C" fn live(task: *mut Task<'_>) -> ! {
    // SAFETY: `share` keeps it, and doesn't touch it any more.
    let task = unsafe { &mut *task };
    let mut byte = 0_u8;
    // SAFETY: the descriptor is the child's copy; the buffer is writable for the one byte. Every signal is blocked, so that the calls
    // succeed, and errno, which is the launcher's, isn't written.
    let read = unsafe {
        libc::syscall(libc::SYS_close, task.not_go);
        libc::syscall(libc::SYS_read, task.go, &raw mut byte, 1_usize)
    };
    // The launcher is gone, and with it the reason to start.
    if read != 1 {
        exit(NOT_LET_GO);
    }
    // SAFETY: `share` had it open when the child got copies of all descriptors, and nothing else in the child closes it.
    exit((task.body)(unsafe { BorrowedFd::borrow_raw(task.theirs) }));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a process of its own, as the test's has threads; its children are this process's.
    fn alone(body: impl FnOnce() -> i32) -> i32 {
        let child = super::super::clone::fork_into(UnshareFlags::empty(), None, libc::SIGCHLD, body).unwrap();
        let mut status = 0;
        // SAFETY: the status pointer is valid.
        unsafe { libc::waitpid(child.pid, &raw mut status, libc::__WALL) };
        assert!(libc::WIFEXITED(status), "{status:#x}");
        libc::WEXITSTATUS(status)
    }

    fn nothing(_: &Child) -> Result<(), Errno> {
        Ok(())
    }

    fn other() -> OwnedFd {
        pipe_with(PipeFlags::CLOEXEC).unwrap().0
    }

    fn has_ended(child: &Child) -> bool {
        poll(&mut [PollFd::new(&child.pidfd, PollFlags::IN)], Some(&rustix::time::Timespec { tv_sec: 60, tv_nsec: 0 })) == Ok(1)
    }

    #[test]
    fn what_the_child_writes_is_seen_here_and_in_order() {
        let status = alone(|| {
            let mut stack = Stack::new().unwrap();
            let mut written = Vec::new();
            for round in 0..100 {
                // SAFETY: as above; only for the check.
                let text = std::cell::Cell::new(false);
                let mut body = |_: BorrowedFd<'_>| {
                    written.push(format!("{round}, after {}", text.get()));
                    0
                };
                let child = share::<Errno>(&mut stack, UnshareFlags::empty(), None, other(), &mut body, |_| {
                    text.set(true);
                    Ok(())
                });
                if !has_ended(&child.unwrap()) {
                    return 1;
                }
            }
            i32::from(written != (0..100).map(|round| format!("{round}, after true")).collect::<Vec<_>>()) * 2
        });
        assert_eq!(status, 0);
    }

    #[test]
    fn it_is_over_when_the_program_is_executed() {
        let status = alone(|| {
            let (reader, writer) = pipe_with(PipeFlags::empty()).unwrap();
            let mut body = |_: BorrowedFd<'_>| {
                let arguments = super::super::exec::Strings::new(&["sleep".into(), "1000".into()]).unwrap();
                super::super::exec::execve(c"/bin/sleep", &arguments, &super::super::exec::Strings::new(&[]).unwrap());
                1
            };
            let child = share::<Errno>(&mut Stack::new().unwrap(), UnshareFlags::empty(), None, other(), &mut body, nothing).unwrap();
            drop((reader, writer));
            let runs = poll(&mut [PollFd::new(&child.pidfd, PollFlags::IN)], Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 }));
            let _ = rustix::process::pidfd_send_signal(&child.pidfd, rustix::process::Signal::KILL);
            i32::from(runs != Ok(0)) + 2 * i32::from(!has_ended(&child))
        });
        assert_eq!(status, 0);
    }

    #[test]
    fn a_child_whose_launcher_fails_does_nothing() {
        let status = alone(|| {
            let mut ran = false;
            let mut body = |_: BorrowedFd<'_>| {
                ran = true;
                0
            };
            let failed = share(&mut Stack::new().unwrap(), UnshareFlags::empty(), None, other(), &mut body, |_| Err(Errno::NOSPC));
            i32::from(failed.err() != Some(Fault::Meanwhile(Errno::NOSPC))) + 2 * i32::from(ran)
        });
        assert_eq!(status, 0);
    }

    #[test]
    fn what_is_theirs_is_only_theirs() {
        let status = alone(|| {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
            let mut body = |theirs: BorrowedFd<'_>| i32::from(rustix::io::write(theirs, b"x") != Ok(1));
            let child =
                share::<Errno>(&mut Stack::new().unwrap(), UnshareFlags::empty(), None, writer, &mut body, nothing);
            let bytes = [0; 2].map(|mut byte| rustix::io::read(&reader, std::slice::from_mut(&mut byte)));
            i32::from(!has_ended(&child.unwrap())) + 2 * i32::from(bytes != [Ok(1), Ok(0)])
        });
        assert_eq!(status, 0);
    }

    #[test]
    fn it_is_the_parent_s_child() {
        let parent = rustix::process::getpid();
        let status = alone(|| {
            let mut its = None;
            let mut body = |_: BorrowedFd<'_>| {
                its = rustix::process::getppid();
                0
            };
            let child = share::<Errno>(&mut Stack::new().unwrap(), UnshareFlags::empty(), None, other(), &mut body, nothing);
            i32::from(child.is_err()) + 2 * i32::from(its != Some(parent))
        });
        assert_eq!(status, 0);
    }
}
