//! A machine of the floor's own: what must be there before the first container, and what its times are compared with.

use core::ffi::CStr;

use super::sys::{call, memory, must, text};
use super::words::*;

/// Programs are executed so many times.
const ROUNDS: usize = 20;
/// In the initrd: how many containers, the module for their roots, and the program whose start is a measure.
const COUNT: &CStr = c"/count";
const OVERLAY: &CStr = c"/overlay.ko";
const PROGRAM: &CStr = c"/program";
/// Those that an appliance's containers get.
const CONTROLLERS: [&str; 5] = ["+cpuset", "+cpu", "+io", "+memory", "+pids"];

pub fn main() -> ! {
    let mut count = [0_u8; 16];
    let file = must(110, OPEN, [text(COUNT), CLOEXEC]);
    must(111, READ, [file, memory(&mut count), count.len() - 1]);
    let count = CStr::from_bytes_until_nul(&count).map_or(0, number);
    let program = must(112, OPEN, [text(PROGRAM), CLOEXEC]);
    set_up();
    let begun = now();
    super::start(count, c"/run", c"/sys/fs/cgroup/containers", true);
    say("floor microseconds ", (now() - begun) / 1000);
    let (mut least, mut sum) = (usize::MAX, 0);
    for _ in 0..ROUNDS {
        let took = execute(program);
        (least, sum) = (least.min(took), sum + took);
    }
    say("exec microseconds, least ", least / 1000);
    say("exec microseconds, mean ", sum / ROUNDS / 1000);
    loop {
        call(PAUSE, []);
    }
}

/// pivot_root(2) can't leave the first root, so all of it moves to another.
fn set_up() {
    let module = must(120, OPEN, [text(OVERLAY), CLOEXEC]);
    must(121, FINIT_MODULE, [module, text(c""), 0]);
    must(122, MKDIR, [text(c"/new"), 0o755]);
    must(123, MOUNT, [text(c"tmpfs"), text(c"/new"), text(c"tmpfs"), 0, text(c"mode=755")]);
    for directory in [
        c"/new/proc",
        c"/new/sys",
        c"/new/dev",
        c"/new/run",
        c"/new/run/etc",
        c"/new/run/work",
        c"/new/run/layer",
        c"/new/run/layer/bin",
        c"/new/run/layer/proc",
        c"/new/run/layer/sys",
        c"/new/run/layer/dev",
        c"/new/run/layer/etc",
    ] {
        must(124, MKDIR, [text(directory), 0o755]);
    }
    for file in [
        c"/new/run/layer/etc/hosts",
        c"/new/run/layer/etc/hostname",
        c"/new/run/layer/etc/resolv.conf",
        c"/new/run/resolv.conf",
    ] {
        let file = must(125, OPEN, [text(file), NEW_FILE, 0o644]);
        must(126, CLOSE, [file]);
    }
    copy(c"/sleep", c"/new/run/layer/bin/sleep");
    must(127, CHDIR, [text(c"/new")]);
    must(128, MOUNT, [text(c"."), text(c"/"), 0, MOVE, 0]);
    must(129, CHROOT, [text(c".")]);
    for (kind, path) in
        [(c"proc", c"/proc"), (c"sysfs", c"/sys"), (c"devtmpfs", c"/dev"), (c"cgroup2", c"/sys/fs/cgroup")]
    {
        must(130, MOUNT, [text(kind), text(path), text(kind), 0, 0]);
    }
    must(131, MKDIR, [text(c"/sys/fs/cgroup/containers"), 0o755]);
    for directory in [c"/sys/fs/cgroup/cgroup.subtree_control", c"/sys/fs/cgroup/containers/cgroup.subtree_control"] {
        let file = must(132, OPEN, [text(directory), 1 | CLOEXEC]);
        for controller in CONTROLLERS {
            // One that isn't there is refused.
            call(WRITE, [file, controller.as_ptr() as usize, controller.len()]);
        }
        must(133, CLOSE, [file]);
    }
}

fn copy(from: &CStr, to: &CStr) {
    let mut piece = core::mem::MaybeUninit::<[u8; 16384]>::uninit();
    let from = must(140, OPEN, [text(from), CLOEXEC]);
    let to = must(141, OPEN, [text(to), NEW_FILE, 0o755]);
    loop {
        let length = must(142, READ, [from, memory(&mut piece), 16384]);
        if length == 0 {
            break;
        }
        must(143, WRITE, [to, memory(&mut piece), length]);
    }
    must(144, CLOSE, [from]);
    must(145, CLOSE, [to]);
}

/// From the fork to the end of a program that has nothing to do, in nanoseconds.
fn execute(program: usize) -> usize {
    let begun = now();
    let child = must(150, FORK, []);
    if child == 0 {
        let (mut arguments, mut environment) = ([text(c"garboard-init"), 0], [0]);
        must(151, CLOSE, [2]);
        must(151, EXECVEAT, [program, text(c""), memory(&mut arguments), memory(&mut environment), EMPTY_PATH]);
    }
    let mut status = 0_u32;
    must(152, WAIT4, [child, memory(&mut status), 0, 0]);
    now() - begun
}

fn now() -> usize {
    let mut time = [0_usize; 2];
    must(153, CLOCK_GETTIME, [1, memory(&mut time)]);
    time[0] * 1_000_000_000 + time[1]
}

fn say(what: &str, number: usize) {
    let line = Text::of(what).number(number).add("\n");
    must(154, WRITE, [1, line.pointer(), line.length()]);
}
