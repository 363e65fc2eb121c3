//! The floor: the system calls that a run of the benchmark's config.json can't do without, and nothing else.
//!
//! `floor STATE CGROUP`, in the bundle's directory. It knows by heart what the configuration says, so it reads but doesn't parse it;
//! it checks nothing, guards nothing and can't say what went wrong but by its exit status. No C library, no allocation.
#![no_std]
#![no_main]

mod sys;

use core::ffi::CStr;

use sys::{Arguments, call, memory, must, text};

// Numbers of asm/unistd_64.h.
const READ: usize = 0;
const WRITE: usize = 1;
const OPEN: usize = 2;
const CLOSE: usize = 3;
const IOCTL: usize = 16;
const SOCKET: usize = 41;
const EXECVE: usize = 59;
const WAIT4: usize = 61;
const CHDIR: usize = 80;
const MKDIR: usize = 83;
const RMDIR: usize = 84;
const UNLINK: usize = 87;
const SYMLINK: usize = 88;
const UMASK: usize = 95;
const SETGROUPS: usize = 116;
const CAPSET: usize = 126;
const MKNOD: usize = 133;
const PIVOT_ROOT: usize = 155;
const PRCTL: usize = 157;
const MOUNT: usize = 165;
const UMOUNT2: usize = 166;
const SETHOSTNAME: usize = 170;
const KEYCTL: usize = 250;
const UNSHARE: usize = 272;
const CLONE3: usize = 435;
const CLOSE_RANGE: usize = 436;

const DIRECTORY: usize = 0o200_000 | CLOEXEC;
const CLOEXEC: usize = 0o2_000_000;
const NEW_FILE: usize = 0o1 | 0o100 | CLOEXEC;

const RDONLY: usize = 1;
const NOSUID: usize = 2;
const NODEV: usize = 4;
const NOEXEC: usize = 8;
const REMOUNT: usize = 32;
const BIND: usize = 4096;
const REC: usize = 1 << 14;
const PRIVATE: usize = 1 << 18;
const RELATIME: usize = 1 << 21;
const STRICTATIME: usize = 1 << 24;

const NEWCGROUP: usize = 0x200_0000;
/// CLONE_NEWNS, NEWUTS, NEWIPC, NEWPID, NEWNET and CLONE_INTO_CGROUP.
const CLONE: usize = 0x2_0000 | 0x400_0000 | 0x800_0000 | 0x2000_0000 | 0x4000_0000 | 0x2_0000_0000;
const SIGCHLD: usize = 17;

/// CAP_KILL, CAP_NET_BIND_SERVICE, CAP_AUDIT_WRITE.
const CAPABILITIES: u32 = 1 << 5 | 1 << 10 | 1 << 29;
const LAST_CAPABILITY: usize = 40;

const STATE: &[u8] = br#"{"ociVersion":"1.0.2","id":"floor","status":"running","pid":0000000000,"bundle":"."}"#;
const PID_AT: usize = 60;

fn main(arguments: &Arguments) -> usize {
    let (state, cgroup) = (arguments.get(1), arguments.get(2));
    let mut config = core::mem::MaybeUninit::<[u8; 8192]>::uninit();
    let file = must(10, OPEN, [text(c"config.json"), CLOEXEC]);
    must(11, READ, [file, memory(&mut config), size_of_val(&config)]);
    must(12, CLOSE, [file]);
    must(13, MKDIR, [text(state), 0o700]);
    must(14, MKDIR, [text(cgroup), 0o755]);
    let group = must(15, OPEN, [text(cgroup), DIRECTORY]);
    // struct clone_args: flags, …, exit_signal, …, cgroup.
    let mut clone = [CLONE, 0, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, group];
    let child = must(16, CLONE3, [memory(&mut clone), size_of_val(&clone)]);
    if child == 0 {
        become_container();
    }
    must(17, CHDIR, [text(state)]);
    write_state(child);
    let mut status = 0_u32;
    must(18, WAIT4, [child, memory(&mut status), 0, 0]);
    must(19, UNLINK, [text(c"state.json")]);
    must(20, RMDIR, [text(state)]);
    must(21, RMDIR, [text(cgroup)]);
    usize::from(status != 0)
}

fn write_state(pid: usize) {
    let mut state = [0_u8; STATE.len()];
    let mut rest = pid;
    for (at, (to, from)) in state.iter_mut().zip(STATE).enumerate().rev() {
        *to = *from;
        if (PID_AT..PID_AT + 10).contains(&at) {
            *to = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
    let file = must(30, OPEN, [text(c"state.json"), NEW_FILE, 0o600]);
    must(31, WRITE, [file, memory(&mut state), size_of_val(&state)]);
    must(32, CLOSE, [file]);
}

/// Every line of the configuration, in the order in which it can be done.
fn become_container() -> ! {
    mount(40, None, c"/", None, REC | PRIVATE, None);
    mount(41, Some(c"rootfs"), c"rootfs", None, BIND | REC, None);
    must(42, CHDIR, [text(c"rootfs")]);
    must(43, UMASK, [0]);
    fill();
    must(44, UMASK, [0o022]);
    for path in [c"proc/bus", c"proc/fs", c"proc/irq", c"proc/sys", c"proc/sysrq-trigger"] {
        if call(MOUNT, [text(path), text(path), 0, BIND | REC, 0]) == 0 {
            mount(45, None, path, None, BIND | REMOUNT | RDONLY | NOSUID | NODEV | NOEXEC, None);
        }
    }
    // Files and directories, as far as they are there. The wrong kind of cover would fail late, when the kernel has made most of it.
    for path in [
        c"proc/interrupts",
        c"proc/kcore",
        c"proc/keys",
        c"proc/latency_stats",
        c"proc/timer_list",
        c"proc/timer_stats",
        c"proc/sched_debug",
    ] {
        call(MOUNT, [text(c"dev/null"), text(path), 0, BIND, 0]);
    }
    for path in [c"proc/acpi", c"proc/asound", c"proc/scsi", c"sys/firmware", c"sys/devices/virtual/powercap"] {
        call(MOUNT, [text(c"tmpfs"), text(path), text(c"tmpfs"), RDONLY, text(c"size=0k")]);
    }
    mount(47, None, c".", None, BIND | REMOUNT | RDONLY, None);
    must(48, PIVOT_ROOT, [text(c"."), text(c".")]);
    must(49, UMOUNT2, [text(c"."), 2]);
    must(50, CHDIR, [text(c"/")]);
    must(51, SETHOSTNAME, [text(c"garboard"), 8]);
    loopback_up();
    const JOIN_SESSION_KEYRING: usize = 1;
    call(KEYCTL, [JOIN_SESSION_KEYRING, 0]);
    give_up_rights();
    must(52, CLOSE_RANGE, [3, u32::MAX as usize, 0]);
    let mut arguments = [text(c"/bin/true"), 0];
    let mut environment =
        [text(c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), text(c"TERM=xterm"), 0];
    must(53, EXECVE, [text(c"/bin/true"), memory(&mut arguments), memory(&mut environment)]);
    unreachable!()
}

/// `mounts`, and what the specification wants in `/dev` besides.
fn fill() {
    const STRICT: usize = NOSUID | NOEXEC | NODEV;
    mount(60, Some(c"proc"), c"proc", Some(c"proc"), 0, None);
    mount(61, Some(c"tmpfs"), c"dev", Some(c"tmpfs"), NOSUID | STRICTATIME, Some(c"mode=755,size=65536k"));
    for directory in [c"dev/pts", c"dev/shm", c"dev/mqueue"] {
        must(62, MKDIR, [text(directory), 0o755]);
    }
    let options = c"newinstance,ptmxmode=0666,mode=0620,gid=5";
    mount(63, Some(c"devpts"), c"dev/pts", Some(c"devpts"), NOSUID | NOEXEC, Some(options));
    mount(64, Some(c"shm"), c"dev/shm", Some(c"tmpfs"), STRICT, Some(c"mode=1777,size=65536k"));
    mount(65, Some(c"mqueue"), c"dev/mqueue", Some(c"mqueue"), STRICT, None);
    mount(66, Some(c"sysfs"), c"sys", Some(c"sysfs"), STRICT | RDONLY, None);
    must(67, UNSHARE, [NEWCGROUP]);
    mount(68, Some(c"cgroup"), c"sys/fs/cgroup", Some(c"cgroup2"), STRICT | RELATIME | RDONLY, None);
    for (path, major, minor) in [
        (c"dev/null", 1, 3),
        (c"dev/zero", 1, 5),
        (c"dev/full", 1, 7),
        (c"dev/random", 1, 8),
        (c"dev/urandom", 1, 9),
        (c"dev/tty", 5, 0),
    ] {
        const CHARACTER: usize = 0o020_666;
        must(69, MKNOD, [text(path), CHARACTER, major << 8 | minor]);
    }
    for (to, path) in [
        (c"/proc/self/fd", c"dev/fd"),
        (c"/proc/self/fd/0", c"dev/stdin"),
        (c"/proc/self/fd/1", c"dev/stdout"),
        (c"/proc/self/fd/2", c"dev/stderr"),
        (c"pts/ptmx", c"dev/ptmx"),
    ] {
        must(70, SYMLINK, [text(to), text(path)]);
    }
}

fn mount(status: usize, from: Option<&CStr>, to: &CStr, kind: Option<&CStr>, flags: usize, options: Option<&CStr>) {
    let pointer = |string: Option<&CStr>| string.map_or(0, text);
    must(status, MOUNT, [pointer(from), text(to), pointer(kind), flags, pointer(options)]);
}

fn loopback_up() {
    const SIOCSIFFLAGS: usize = 0x8914;
    // struct ifreq: a name of 16 bytes, then flags, of which IFF_UP is the lowest.
    let mut request = [0_u8; 40];
    (request[0], request[1], request[16]) = (b'l', b'o', 1);
    let socket = must(80, SOCKET, [1, 2 | CLOEXEC, 0]);
    must(81, IOCTL, [socket, SIOCSIFFLAGS, memory(&mut request)]);
}

fn give_up_rights() {
    const CAPBSET_DROP: usize = 24;
    const SET_NO_NEW_PRIVS: usize = 38;
    const VERSION_3: u32 = 0x2008_0522;
    for capability in (0..=LAST_CAPABILITY).filter(|number| *number > 31 || CAPABILITIES & 1 << number == 0) {
        must(90, PRCTL, [CAPBSET_DROP, capability]);
    }
    must(91, SETGROUPS, [0, 0]);
    let mut header = [VERSION_3, 0];
    // Effective, permitted and inheritable, first the lower 32 of each.
    let mut sets = [CAPABILITIES, CAPABILITIES, 0, 0, 0, 0];
    must(92, CAPSET, [memory(&mut header), memory(&mut sets)]);
    must(93, PRCTL, [SET_NO_NEW_PRIVS, 1]);
}
