//! The end: disks, then the machine.

use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::WaitOptions;
use rustix::system::RebootCommand;

use crate::supervise::Goal;
use crate::sys::signal;
use crate::worker::{Kind, Worker};

/// Where the data filesystem is mounted.
const DATA: &str = "/data";

/// The body of the `stop` worker: writes everything back and unmounts the data filesystem. May take as long as the disk does.
pub fn unmount() -> i32 {
    rustix::fs::sync();
    let unmounted = match unmount_when_free() {
        Ok(()) => true,
        // Not a mount point: nothing is kept.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => true,
        // Somebody holds on to it: read-only is as good, its journal is closed then.
        Err(_) => rustix::mount::mount_remount(DATA, MountFlags::RDONLY, "").is_ok(),
    };
    rustix::fs::sync();
    i32::from(!unmounted)
}

/// Unmounts the data filesystem. Whoever used it has been killed, but may not be gone this moment.
fn unmount_when_free() -> rustix::io::Result<()> {
    for _ in 0..20 {
        match rustix::mount::unmount(DATA, UnmountFlags::empty()) {
            Err(rustix::io::Errno::BUSY) => std::thread::sleep(Duration::from_millis(50)),
            other => return other,
        }
    }
    Err(rustix::io::Errno::BUSY)
}

/// Switches off, starts over or halts. A process that isn't PID 1 ends with status 0, 10 or 11 instead.
pub fn carry_out(goal: Goal) -> ! {
    if !rustix::process::getpid().is_init() {
        std::process::exit(match goal {
            Goal::PowerOff => 0,
            Goal::Reboot => 10,
            Goal::Halt => 11,
        });
    }
    let command = match goal {
        Goal::PowerOff => RebootCommand::PowerOff,
        Goal::Reboot => RebootCommand::Restart,
        Goal::Halt => RebootCommand::Halt,
    };
    let _ = rustix::system::reboot(command);
    // It can't be switched off (or halted: the call doesn't return then). PID 1 must not end.
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Starts the machine over when supervision can't go on: says why, gives the disks a moment to be written back, and never hangs.
/// A process that isn't PID 1 ends with status 70.
pub fn give_up(why: &str) -> ! {
    crate::boot::stop::say(&format!("\r\ngarboard: {why}\r\n"));
    if !rustix::process::getpid().is_init() {
        eprintln!("{why}");
        std::process::exit(70);
    }
    // Kills whatever runs, ourselves excepted; what was written is then written back by a child, as a disk may hang.
    signal::kill_all_others();
    let worker = Worker::spawn(Kind::Stop, &[], 0);
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(100));
        match (&worker, rustix::process::wait(WaitOptions::NOHANG)) {
            (Ok(worker), Ok(Some((pid, _)))) if pid.as_raw_pid() == worker.pid => break,
            (Ok(_), _) => {}
            (Err(_), _) => break,
        }
    }
    carry_out(Goal::Reboot)
}
