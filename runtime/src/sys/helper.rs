//! A child that shares its launcher's memory for all its life, and makes or holds namespaces for it.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::c_int;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, getpid, getppid};
use rustix::thread::{CpuSet, UnshareFlags, sched_setaffinity};

use super::clone::{Child, kill_and_reap, own, with_signals_blocked};

/// Few calls, and none that goes deep.
const HELPER_STACK: usize = 16 << 10;

/// How long somebody has for coming to work where he was sent, if others are busy there: the work itself takes a tenth of that.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// Stack memory, aligned as the ABI wants a stack to be.
#[repr(align(16))]
#[derive(Debug)]
struct Stack([MaybeUninit<u8>; HELPER_STACK]);

/// A child that makes namespaces, or holds its own open; killed and reaped when dropped. One whose launcher ends, or executes
/// another program without the launcher's descriptors, ends by itself.
///
/// It shares the launcher's memory, as copying that for a child that needs none of it would be most of the work. Copied it would also
/// have the launcher copy each page that it writes to meanwhile.
#[derive(Debug)]
pub(crate) struct Helper {
    child: Child,
    /// Both ends of a pipe; the child waits for the second one's close.
    _pipe: (OwnedFd, OwnedFd),
    // Freed after `drop` has reaped the child that uses them.
    _task: Box<Task>,
    _stack: Box<Stack>,
}

/// What a helper does besides: plain system calls by rustix, which keeps no accounts of them, and nothing in the launcher's memory.
#[derive(Debug)]
struct Work {
    call: fn(tell: c_int, kinds: UnshareFlags),
    /// The namespaces that it makes.
    kinds: UnshareFlags,
    /// Where it tells how that goes.
    tell: c_int,
    /// What it closes when it is done.
    done: c_int,
    /// Where it goes first. When it is done it sends its launcher there, too, which may have nowhere else to go on.
    processors: Option<Processors>,
    /// Who that is.
    launcher: Pid,
}

/// Where a helper works, and where it and its launcher might before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Processors {
    pub(crate) elsewhere: CpuSet,
    pub(crate) all: CpuSet,
}

#[derive(Debug)]
struct Task {
    ends: [c_int; 2],
    work: Option<Work>,
}

impl Helper {
    /// Starts one in new `namespaces` that only holds them.
    pub(crate) fn start(namespaces: UnshareFlags) -> Result<Self, Errno> {
        Self::begin(namespaces, None)
    }

    /// Starts one that makes a network namespace and others of `kinds`, and brings its loopback interface up, and tells on `tell` how
    /// either went: an error number of four bytes, or 0. Then it closes its copy of `done`. It does so elsewhere,
    /// if other `processors` are given, and then has its launcher go there.
    pub(crate) fn make_network(
        kinds: UnshareFlags,
        tell: BorrowedFd<'_>,
        done: BorrowedFd<'_>,
        processors: Option<Processors>,
    ) -> Result<Self, Errno> {
        let (tell, done, launcher) = (tell.as_raw_fd(), done.as_raw_fd(), getpid());
        Self::begin(UnshareFlags::empty(), Some(Work { call: network, kinds, tell, done, processors, launcher }))
    }

    /// Waits until it has closed `done`. If it doesn't come to that where it was sent, it may do so anywhere: who is busy there may be so for
    /// long, and more urgently.
    pub(crate) fn wait(&self, done: &OwnedFd, processors: Option<Processors>) {
        loop {
            match poll(&mut [PollFd::new(done, PollFlags::empty())], Some(&PATIENCE)) {
                // More than once, as it may begin after that, and go there itself.
                Ok(0) => {
                    let _ = processors.map(|Processors { all, .. }| sched_setaffinity(Pid::from_raw(self.pid()), &all));
                }
                Err(Errno::INTR) => {}
                // If it can't be waited for, both go on at the same time.
                _ => return,
            }
        }
    }

    fn begin(namespaces: UnshareFlags, work: Option<Work>) -> Result<Self, Errno> {
        let mut stack = Box::new(Stack([MaybeUninit::uninit(); HELPER_STACK]));
        let pipe = pipe_with(PipeFlags::CLOEXEC)?;
        let mut task = Box::new(Task { ends: [pipe.0.as_raw_fd(), pipe.1.as_raw_fd()], work });
        let mut pidfd: i32 = -1;
        // Without a signal at its end, so that nobody takes it for a container.
        let flags = i32::try_from(namespaces.bits()).map_err(|_| Errno::INVAL)? | libc::CLONE_VM | libc::CLONE_PIDFD;
        let pid = with_signals_blocked(|| {
            // SAFETY: `stack` is memory of that size that nothing else uses, kept until the child is reaped; its end is aligned.
            // So is `task`, which it reads. `help` touches no other memory of the launcher: it has every signal blocked, so no
            // handler runs in it, and it makes its calls without the C library, whose errno it shares. CLONE_PIDFD stores the
            // descriptor in `pidfd`, which outlives the call.
            super::check(
                unsafe {
                    let top = stack.0.as_mut_ptr_range().end;
                    libc::clone(help, top.cast(), flags, (&raw mut *task).cast(), &raw mut pidfd)
                }
                .into(),
            )
        })?;
        let pid = i32::try_from(pid).map_err(|_| Errno::OVERFLOW)?;
        // SAFETY: with CLONE_PIDFD a successful clone has stored a new descriptor there that nobody else owns.
        let child = unsafe { own(pid, pidfd) };
        Ok(Self { child, _pipe: pipe, _task: task, _stack: stack })
    }

    /// Its process id here.
    pub(crate) fn pid(&self) -> i32 {
        self.child.pid
    }

    /// Its process.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        kill_and_reap(&self.child);
    }
}

/// Does its work, then waits until nobody has the second end any more. The child's descriptors are copies of its own.
extern "C" fn help(task: *mut libc::c_void) -> c_int {
    // SAFETY: `begin` passes this and keeps it until the child is reaped; nobody writes to it.
    let Task { ends: [reader, writer], work } = unsafe { &*task.cast::<Task>() };
    // SAFETY: the descriptor is the child's copy, and nothing in the child uses it.
    unsafe { rustix::io::close(*writer) };
    // SAFETY: the child's copy is open for as long as the child lives.
    let reader = unsafe { BorrowedFd::borrow_raw(*reader) };
    if let Some(work) = work {
        do_work(work);
        if let Some(Processors { all, .. }) = &work.processors
            && poll(&mut [PollFd::from_borrowed_fd(reader, PollFlags::empty())], Some(&PATIENCE)) == Ok(0)
        {
            // It may not have come to go on where it was sent.
            work.send_launcher(all);
        }
    }
    // Who reads nothing has nobody to wait for.
    let _ = rustix::io::read(reader, &mut [0_u8; 1]);
    0
}

fn do_work(work: &Work) {
    if let Some(Processors { elsewhere, .. }) = &work.processors {
        // It may have begun in its launcher's place, which waits. If it can't go, it had better begin at once.
        let _ = sched_setaffinity(None, elsewhere);
    }
    (work.call)(work.tell, work.kinds);
    if let Some(Processors { elsewhere, all }) = &work.processors {
        let _ = sched_setaffinity(None, all);
        work.send_launcher(elsewhere);
    }
    // SAFETY: the descriptor is the child's copy, and nothing in the child uses it.
    unsafe { rustix::io::close(work.done) };
}

impl Work {
    /// Nobody else is sent anywhere: not who takes over the children of a launcher that was killed, such as the machine's PID 1.
    fn send_launcher(&self, processors: &CpuSet) {
        if getppid() == Some(self.launcher) {
            let _ = sched_setaffinity(Some(self.launcher), processors);
        }
    }
}

/// The work of [`Helper::make_network`].
fn network(tell: c_int, kinds: UnshareFlags) {
    // SAFETY: the child's copy is open for as long as the child lives.
    let tell = unsafe { BorrowedFd::borrow_raw(tell) };
    let say = |done: Result<(), Errno>| {
        let errno = done.map_or_else(Errno::raw_os_error, |()| 0);
        rustix::io::write(tell, &errno.to_ne_bytes()).map(drop)
    };
    let made = super::process::unshare(kinds | UnshareFlags::NEWNET);
    // Who doesn't listen has ended, and so does this.
    let _ = say(made).and(made).and_then(|()| say(super::net::loopback_up()));
}

#[cfg(test)]
mod tests;
