use rustix::thread::sched_getaffinity;

use super::*;

#[test]
fn a_helper_that_was_forgotten_ends() {
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
    Work { call: say_x, kinds, tell, done, processors: None, launcher: getpid() }
}

#[test]
fn it_says_when_it_is_done_and_lives_on() {
    let ((told, tell), (done, end)) = (pipe(), pipe());
    let helper = Helper::begin(UnshareFlags::empty(), Some(work(&tell, &end))).unwrap();
    drop(end);
    assert_eq!(rustix::io::read(&done, &mut [0_u8; 1]), Ok(0));
    rustix::io::ioctl_fionbio(&told, true).unwrap();
    assert_eq!(rustix::io::read(&told, &mut [0_u8; 2]), Ok(1));
    let mut ended = [PollFd::new(&helper.child.pidfd, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    assert_eq!(poll(&mut ended, Some(&at_once)), Ok(0));
}

/// Says that it has begun, and is done when its launcher is gone.
fn outlive(tell: c_int, kinds: UnshareFlags) {
    let launcher = getppid();
    say_x(tell, kinds);
    while getppid() == launcher {
        rustix::thread::sched_yield();
    }
}

/// Is done when it may be anywhere again, and not only at one of them.
fn stay(_: c_int, _: UnshareFlags) {
    while sched_getaffinity(None).unwrap().count() == 1 {
        rustix::thread::sched_yield();
    }
}

/// All, and the first of them.
fn processors() -> Processors {
    let all = sched_getaffinity(None).unwrap();
    let mut elsewhere = CpuSet::new();
    elsewhere.set((0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap());
    Processors { elsewhere, all }
}

/// What this gives in a process of its own, as a helper's launcher goes elsewhere, too.
fn apart(launcher: impl FnOnce() -> bool) -> bool {
    let launcher = super::super::clone::fork_into(UnshareFlags::empty(), None, libc::SIGCHLD, || i32::from(!launcher()));
    crate::hook::wait(launcher.unwrap().pidfd.as_fd()).unwrap().exit_status() == Some(0)
}

#[test]
fn whoever_takes_over_from_its_launcher_stays_where_he_is() {
    let processors = processors();
    assert!(apart(|| {
        rustix::process::set_child_subreaper(Some(getpid())).unwrap();
        let ((told, tell), (done, end)) = (pipe(), pipe());
        let launched = apart(|| {
            let work = Work { call: outlive, processors: Some(processors), ..work(&tell, &end) };
            std::mem::forget(Helper::begin(UnshareFlags::empty(), Some(work)).unwrap());
            rustix::io::read(&told, &mut [0_u8; 1]) == Ok(1)
        });
        drop(end);
        // The helper's copy is the last.
        let _ = rustix::io::read(&done, &mut [0_u8; 1]);
        launched && sched_getaffinity(None) == Ok(processors.all)
    }));
}

/// As far as can be seen: on a busy machine its launcher may be back before it has looked.
#[test]
fn it_goes_where_it_is_sent_and_so_does_its_launcher() {
    let given = processors();
    for processors in [Some(given), None] {
        let expected = processors.map_or(given.all, |given| given.elsewhere);
        let goes = || {
            let ((told, tell), (done, end)) = (pipe(), pipe());
            let work = Work { call: say_where, processors, ..work(&tell, &end) };
            let helper = Helper::begin(UnshareFlags::empty(), Some(work)).unwrap();
            drop(end);
            helper.wait(&done, processors);
            let launcher = sched_getaffinity(None);
            let mut count = [0_u8; 1];
            assert_eq!(rustix::io::read(&told, &mut count), Ok(1));
            u32::from(count[0]) == expected.count() && launcher == Ok(expected)
        };
        assert!((0..100).any(|_| apart(goes)));
    }
}

/// Of as many processors as fit into a byte.
fn say_where(tell: c_int, _: UnshareFlags) {
    let count = u8::try_from(sched_getaffinity(None).unwrap().count()).unwrap_or(u8::MAX);
    // SAFETY: the child's copy is open for as long as the child lives.
    let _ = rustix::io::write(unsafe { BorrowedFd::borrow_raw(tell) }, &[count]);
}

#[test]
fn nobody_depends_on_who_is_busy_elsewhere() {
    let given = processors();
    // With one processor there is nowhere else.
    if given.all.count() == 1 {
        return;
    }
    assert!(apart(|| {
        let ((_told, tell), (done, end)) = (pipe(), pipe());
        let work = Work { call: stay, processors: Some(given), ..work(&tell, &end) };
        let helper = Helper::begin(UnshareFlags::empty(), Some(work)).unwrap();
        drop(end);
        helper.wait(&done, Some(given));
        // As one that doesn't come to do so by itself.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while sched_getaffinity(None) != Ok(given.all) && std::time::Instant::now() < until {
            rustix::thread::sched_yield();
        }
        sched_getaffinity(None) == Ok(given.all)
    }));
}
