//! Children that ended.

use std::mem::MaybeUninit;

use rustix::process::Pid;

/// A child that ended and is not yet reaped, of any kind (also one that was made to end without a signal); `None`: there is none.
/// The same one is given until it is reaped.
pub fn ended_child() -> Option<Pid> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: the pointer is valid for writing a siginfo.
    if unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), options) } != 0 {
        return None;
    }
    // SAFETY: it was zeroed, which is a valid siginfo, and the kernel wrote to it only what is one.
    let info = unsafe { info.assume_init() };
    // SAFETY: waitid(2) fills the process id in, or leaves the zero of before when no child ended.
    Pid::from_raw(unsafe { info.si_pid() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_child_is_there_until_it_is_reaped() {
        let mut process = std::process::Command::new("true").spawn().unwrap();
        let child = Pid::from_child(&process);
        // Other tests of this process have children too.
        let seen = || std::iter::repeat_with(ended_child).take(100_000).flatten().any(|pid| pid == child);
        assert!(seen());
        assert!(seen());
        process.wait().unwrap();
        assert_ne!(ended_child(), Some(child));
    }
}
