//! A child that shares its launcher's memory for all its life, and makes or holds namespaces for it.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::c_int;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, getpid, getppid};
use rustix::thread::{CpuSet, UnshareFlags};

use super::clone::{Child, kill_and_reap, own, with_signals_blocked};

/// Few calls, and none that goes deep.
const HELPER_STACK: usize = 16 << 10;

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
    /// What it closes first.
    unneeded: Option<c_int>,
    /// The processors that it goes to first. When it is done it sends its launcher there, too, which may have nowhere else to go on.
    elsewhere: Option<CpuSet>,
    /// Who that is.
    launcher: Pid,
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
    /// either went: an error number of four bytes, or 0. Then it closes its copy of `done`; of `unneeded` at once. It does so on the processors `elsewhere`, if
    /// any are given, and then has its launcher go there.
    pub(crate) fn make_network(
        kinds: UnshareFlags,
        tell: BorrowedFd<'_>,
        done: BorrowedFd<'_>,
        unneeded: Option<BorrowedFd<'_>>,
        elsewhere: Option<CpuSet>,
    ) -> Result<Self, Errno> {
        let unneeded = unneeded.map(|fd| fd.as_raw_fd());
        let (tell, done) = (tell.as_raw_fd(), done.as_raw_fd());
        let launcher = getpid();
        Self::begin(UnshareFlags::empty(), Some(Work { call: network, kinds, tell, done, unneeded, elsewhere, launcher }))
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
    if let Some(work) = work {
        do_work(work);
    }
    // SAFETY: the child's copy is open for as long as the child lives.
    let reader = unsafe { BorrowedFd::borrow_raw(*reader) };
    // Who reads nothing has nobody to wait for.
    let _ = rustix::io::read(reader, &mut [0_u8; 1]);
    0
}

fn do_work(Work { call, kinds, tell, done, unneeded, elsewhere, launcher }: &Work) {
    if let Some(unneeded) = unneeded {
        // SAFETY: the descriptor is the child's copy, and nothing in the child uses it.
        unsafe { rustix::io::close(*unneeded) };
    }
    if let Some(processors) = elsewhere {
        // It may have begun in its launcher's place, which waits. If it can't go, it had better begin at once.
        let _ = rustix::thread::sched_setaffinity(None, processors);
    }
    call(*tell, *kinds);
    // Nobody else is sent anywhere: not who takes over the children of a launcher that was killed, such as the machine's PID 1.
    if let Some(processors) = elsewhere
        && getppid() == Some(*launcher)
    {
        let _ = rustix::thread::sched_setaffinity(Some(*launcher), processors);
    }
    // SAFETY: the descriptor is the child's copy, and nothing in the child uses it.
    unsafe { rustix::io::close(*done) };
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
mod tests {
    use super::*;

    #[test]
    fn a_helper_that_was_forgotten_ends() {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let ended = |helper: &Helper, seconds| {
            let mut ended = [PollFd::new(&helper.child.pidfd, PollFlags::IN)];
            poll(&mut ended, Some(&Timespec { tv_sec: seconds, tv_nsec: 0 })) == Ok(1)
        };
        let mut helper = Helper::start(UnshareFlags::empty()).unwrap();
        assert!(!ended(&helper, 0));
        // As an exec closes them.
        let elsewhere = pipe_with(PipeFlags::CLOEXEC).unwrap();
        drop(std::mem::replace(&mut helper._pipe, elsewhere));
        assert!(ended(&helper, 60));
    }

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe_with(PipeFlags::CLOEXEC).unwrap()
    }

    fn say_x(tell: c_int, _: UnshareFlags) {
        // SAFETY: the child's copy is open for as long as the child lives.
        let _ = rustix::io::write(unsafe { BorrowedFd::borrow_raw(tell) }, b"x");
    }

    fn work(tell: &OwnedFd, done: &OwnedFd) -> Work {
        let kinds = UnshareFlags::empty();
        let (tell, done) = (tell.as_raw_fd(), done.as_raw_fd());
        Work { call: say_x, kinds, tell, done, unneeded: None, elsewhere: None, launcher: getpid() }
    }

    #[test]
    fn it_says_when_it_is_done_and_lives_on() {
        let ((told, tell), (done, end), (kept, unneeded)) = (pipe(), pipe(), pipe());
        let work = Work { unneeded: Some(unneeded.as_raw_fd()), ..work(&tell, &end) };
        let helper = Helper::begin(UnshareFlags::empty(), Some(work)).unwrap();
        drop((end, unneeded));
        for ended in [&done, &kept] {
            assert_eq!(rustix::io::read(ended, &mut [0_u8; 1]), Ok(0));
        }
        rustix::io::ioctl_fionbio(&told, true).unwrap();
        assert_eq!(rustix::io::read(&told, &mut [0_u8; 2]), Ok(1));
        let mut ended = [rustix::event::PollFd::new(&helper.child.pidfd, rustix::event::PollFlags::IN)];
        let at_once = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut ended, Some(&at_once)), Ok(0));
    }

    /// Says that it has begun, and is done when its launcher is gone.
    fn outlive(tell: c_int, kinds: UnshareFlags) {
        let launcher = getppid();
        say_x(tell, kinds);
        while getppid() == launcher {
            rustix::thread::sched_yield();
        }
    }

    #[test]
    fn whoever_takes_over_from_its_launcher_stays_where_he_is() {
        use rustix::thread::sched_getaffinity;
        let all = sched_getaffinity(None).unwrap();
        let mut one = CpuSet::new();
        one.set((0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap());
        let heir = super::super::clone::fork_into(UnshareFlags::empty(), None, libc::SIGCHLD, || {
            rustix::process::set_child_subreaper(Some(getpid())).unwrap();
            let ((told, tell), (done, end)) = (pipe(), pipe());
            let launcher = super::super::clone::fork_into(UnshareFlags::empty(), None, libc::SIGCHLD, || {
                let work = Work { call: outlive, elsewhere: Some(one), ..work(&tell, &end) };
                std::mem::forget(Helper::begin(UnshareFlags::empty(), Some(work)).unwrap());
                i32::from(rustix::io::read(&told, &mut [0_u8; 1]) != Ok(1))
            });
            let ended = crate::hook::wait(launcher.unwrap().pidfd.as_fd()).unwrap();
            drop(end);
            // The helper's copy is the last.
            let _ = rustix::io::read(&done, &mut [0_u8; 1]);
            i32::from(ended.exit_status() != Some(0) || sched_getaffinity(None) != Ok(all))
        });
        let status = crate::hook::wait(heir.unwrap().pidfd.as_fd()).unwrap();
        assert_eq!(status.exit_status(), Some(0));
    }

    /// In a process of its own, as its launcher goes there, too.
    #[test]
    fn it_goes_where_it_is_sent() {
        use rustix::thread::sched_getaffinity;
        let all = sched_getaffinity(None).unwrap();
        let mut one = CpuSet::new();
        one.set((0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap());
        for (elsewhere, expected) in [(Some(one), one), (None, all)] {
            let launcher = super::super::clone::fork_into(UnshareFlags::empty(), None, libc::SIGCHLD, || {
                let ((_told, tell), (done, end)) = (pipe(), pipe());
                let work = Work { elsewhere, ..work(&tell, &end) };
                let helper = Helper::begin(UnshareFlags::empty(), Some(work)).unwrap();
                drop(end);
                let _ = rustix::io::read(&done, &mut [0_u8; 1]);
                let there = [Pid::from_raw(helper.pid()), None].map(|pid| sched_getaffinity(pid) == Ok(expected));
                i32::from(there != [true; 2])
            });
            let status = crate::hook::wait(launcher.unwrap().pidfd.as_fd()).unwrap();
            assert_eq!(status.exit_status(), Some(0));
        }
    }
}
