//! The floor: the system calls without which so many containers of the usual kind can't be, and nothing else.
//!
//! `floor COUNT RUN CGROUPS`: RUN holds the image's one layer, and the filters if they are to be part of it; CGROUPS is the cgroup2
//! directory beneath which the containers' are made. It ends when every container has executed its program, and leaves them running.
//! As process 1 of a machine it gets that ready first, from its initrd, and says how long it took.
//!
//! It knows by heart how the containers are to be, checks nothing, guards nothing and can't say what went wrong but by its exit
//! status. One user namespace for each is also what its layer is mapped by. No C library, no allocation.
#![no_std]
#![no_main]

mod library;
mod machine;
#[path = "../../../../runtime/benches/oci/bare/sys.rs"]
mod sys;
mod words;

use core::ffi::CStr;

use sys::{Arguments, call, memory, must, text};
use words::*;

/// A page more than any filter takes.
const ROOM: usize = 16384;

/// What all containers share.
struct Site {
    run: &'static CStr,
    cgroups: &'static CStr,
    /// Processes that a control group may have, where there is a controller for that.
    limit: bool,
    /// A loaded program; 0: none.
    devices: usize,
    filter: Program,
}

/// struct sock_fprog.
#[repr(C)]
struct Program {
    length: u16,
    instructions: usize,
}

fn main(arguments: &Arguments) -> usize {
    if call(GETPID, []) == 1 {
        machine::main();
    }
    let count = number(arguments.get(1));
    start(count, arguments.get(2), arguments.get(3), false);
    0
}

/// Starts them all, and returns when each has executed its program.
fn start(count: usize, run: &'static CStr, cgroups: &'static CStr, limit: bool) {
    // Standard output of each is kept open, as somebody will want to read it.
    let mut descriptors = [count * 2 + 100, count * 2 + 100];
    must(10, PRLIMIT64, [0, RLIMIT_NOFILE, memory(&mut descriptors), 0]);
    // Every child has its end until it executes its program.
    let mut running = [0_u32; 2];
    must(11, PIPE2, [memory(&mut running), CLOEXEC]);
    let mut filter = core::mem::MaybeUninit::<[u8; ROOM]>::uninit();
    let length = read(Text::new(run).add("/filter"), memory(&mut filter)) / 8;
    let filter = Program { length: length as u16, instructions: memory(&mut filter) };
    let site = Site { run, cgroups, limit, devices: load_devices(run), filter };
    for number in 0..count {
        launch(&site, number);
    }
    must(12, CLOSE, [running[1] as usize]);
    let mut byte = 0_u8;
    must(13, READ, [running[0] as usize, memory(&mut byte), 1]);
}

/// Reads a whole file; 0 if there is none.
fn read(path: Text, into: usize) -> usize {
    let file = call(OPEN, [path.pointer(), CLOEXEC]);
    if file < 0 {
        return 0;
    }
    let length = must(14, READ, [file.cast_unsigned(), into, ROOM]);
    must(15, CLOSE, [file.cast_unsigned()]);
    length
}

/// Loaded once, as it is the same for all.
fn load_devices(run: &'static CStr) -> usize {
    const PROG_LOAD: usize = 5;
    const CGROUP_DEVICE: u64 = 15;
    let mut program = core::mem::MaybeUninit::<[u8; ROOM]>::uninit();
    let length = read(Text::new(run).add("/devices"), memory(&mut program));
    if length == 0 {
        return 0;
    }
    // prog_type and insn_cnt share a word.
    let mut attributes =
        [CGROUP_DEVICE | ((length / 8) as u64) << 32, memory(&mut program) as u64, text(c"") as u64, 0, 0, 0];
    must(16, BPF, [PROG_LOAD, memory(&mut attributes), size_of_val(&attributes)])
}

fn launch(site: &Site, number: usize) {
    let etc = || Text::new(site.run).add("/etc/c").number(number);
    must(20, MKDIR, [etc().pointer(), 0o755]);
    write(etc().add("/hosts"), Text::of("127.0.0.1\tlocalhost\n127.0.1.1\tc").number(number).add("\n"));
    write(etc().add("/hostname"), Text::of("c").number(number).add("\n"));

    let cgroup = || Text::new(site.cgroups).add("/c").number(number);
    must(21, MKDIR, [cgroup().pointer(), 0o755]);
    let group = must(22, OPEN, [cgroup().pointer(), DIRECTORY]);
    if site.limit {
        write(cgroup().add("/pids.max"), Text::of("2048"));
    }
    if site.devices != 0 {
        const PROG_ATTACH: usize = 8;
        // target_fd, attach_bpf_fd, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI.
        let mut attributes = [group as u32, site.devices as u32, 6, 2];
        must(23, BPF, [PROG_ATTACH, memory(&mut attributes), size_of_val(&attributes)]);
    }

    let layer =
        must(24, OPEN_TREE, [FROM_HERE, Text::new(site.run).add("/layer").pointer(), OPEN_TREE_CLONE | CLOEXEC]);
    let (mut output, mut go) = ([0_u32; 2], [0_u32; 2]);
    must(25, PIPE2, [memory(&mut output), CLOEXEC]);
    must(26, PIPE2, [memory(&mut go), CLOEXEC]);
    // struct clone_args: flags, …, exit_signal, …, cgroup.
    let mut clone = [NAMESPACES, 0, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, group];
    let child = must(27, CLONE3, [memory(&mut clone), size_of_val(&clone)]);
    if child == 0 {
        become_container(site, number, layer, output[1] as usize, go[0] as usize);
    }
    let process = || Text::of("/proc/").number(child);
    let outside = 1_000_000 + number * 65_536;
    for map in ["/uid_map", "/gid_map"] {
        write(process().add(map), Text::of("0 ").number(outside).add(" 65536"));
    }
    let user = must(28, OPEN, [process().add("/ns/user").pointer(), CLOEXEC]);
    map(layer, user);
    let mut byte = 1_u8;
    must(29, WRITE, [go[1] as usize, memory(&mut byte), 1]);
    for descriptor in [group, layer, output[1] as usize, go[0] as usize, go[1] as usize, user] {
        must(30, CLOSE, [descriptor]);
    }
}

/// Read-only, private, and with the ids of a user namespace.
fn map(mount: usize, user: usize) {
    const RDONLY_IDMAP: usize = 0x1 | 0x10_0000;
    // struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
    let mut attributes = [RDONLY_IDMAP, 0, PRIVATE, user];
    must(31, MOUNT_SETATTR, [mount, text(c""), EMPTY_PATH, memory(&mut attributes), size_of_val(&attributes)]);
}

fn write(path: Text, what: Text) {
    let file = must(32, OPEN, [path.pointer(), NEW_FILE, 0o644]);
    must(33, WRITE, [file, what.pointer(), what.length()]);
    must(34, CLOSE, [file]);
}

/// Every step in the order in which it can be done.
fn become_container(site: &Site, number: usize, layer: usize, output: usize, go: usize) -> ! {
    let mut byte = 0_u8;
    must(40, READ, [go, memory(&mut byte), 1]);
    must(41, SETRESGID, [0, 0, 0]);
    must(42, SETRESUID, [0, 0, 0]);
    must(43, SETGROUPS, [0, 0]);
    const JOIN_SESSION_KEYRING: usize = 1;
    call(KEYCTL, [JOIN_SESSION_KEYRING, 0]);
    must(44, UNSHARE, [NEWCGROUP]);
    mount(45, None, c"/", None, REC | PRIVATE, None);
    must(46, CHDIR, [Text::new(site.run).add("/work").pointer()]);
    mount(47, Some(c"tmpfs"), c".", Some(c"tmpfs"), NODEV, Some(c"size=256m,mode=755"));
    must(48, CHDIR, [Text::new(site.run).add("/work").pointer()]);
    for directory in [c"layer", c"upper", c"work", c"root"] {
        must(49, MKDIR, [text(directory), 0o755]);
    }
    must(50, MOVE_MOUNT, [layer, text(c""), FROM_HERE, text(c"layer"), MOVE_MOUNT_EMPTY_PATH]);
    let options = c"lowerdir=layer,upperdir=upper,workdir=work,userxattr";
    mount(51, Some(c"overlay"), c"root", Some(c"overlay"), 0, Some(options));
    must(52, CHDIR, [text(c"root")]);
    fill();
    bind_files(site, number);
    sysctl(c"proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    sysctl(c"proc/sys/net/ipv4/ping_group_range", "0 65535");
    hide();
    must(53, PIVOT_ROOT, [text(c"."), text(c".")]);
    must(54, UMOUNT2, [text(c"."), DETACH]);
    must(55, CHDIR, [text(c"/")]);
    must(56, SETHOSTNAME, [text(c"container"), 9]);
    loopback_up();
    must(57, SETSID, []);
    for stream in [1, 2] {
        must(58, DUP2, [output, stream]);
    }
    give_up_rights(site);
    let mut arguments = [text(c"/bin/sleep"), text(c"1000000"), 0];
    let mut environment = [text(c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), 0];
    must(59, EXECVE, [text(c"/bin/sleep"), memory(&mut arguments), memory(&mut environment)]);
    unreachable!()
}

/// The kernel's filesystems, and what every `/dev` has.
fn fill() {
    const STRICT: usize = NOSUID | NOEXEC | NODEV;
    mount(60, Some(c"proc"), c"proc", Some(c"proc"), STRICT, None);
    mount(61, Some(c"tmpfs"), c"dev", Some(c"tmpfs"), NOSUID | NOEXEC, Some(c"mode=755,size=65536k,nr_inodes=16384"));
    for directory in [c"dev/pts", c"dev/shm", c"dev/mqueue"] {
        must(62, MKDIR, [text(directory), 0o755]);
    }
    let options = c"newinstance,ptmxmode=0666,mode=0620,gid=5";
    mount(63, Some(c"devpts"), c"dev/pts", Some(c"devpts"), NOSUID | NOEXEC, Some(options));
    mount(64, Some(c"shm"), c"dev/shm", Some(c"tmpfs"), STRICT, Some(c"mode=1777,size=65536k,nr_inodes=16384"));
    mount(65, Some(c"mqueue"), c"dev/mqueue", Some(c"mqueue"), STRICT, None);
    mount(66, Some(c"sysfs"), c"sys", Some(c"sysfs"), STRICT | RDONLY, None);
    mount(67, Some(c"cgroup"), c"sys/fs/cgroup", Some(c"cgroup2"), STRICT | RDONLY, None);
    for (node, path) in [
        (c"/dev/null", c"dev/null"),
        (c"/dev/zero", c"dev/zero"),
        (c"/dev/full", c"dev/full"),
        (c"/dev/random", c"dev/random"),
        (c"/dev/urandom", c"dev/urandom"),
        (c"/dev/tty", c"dev/tty"),
    ] {
        const FILE: usize = 0o100_644;
        must(68, MKNOD, [text(path), FILE, 0]);
        mount(69, Some(node), path, None, BIND, None);
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

/// What a container finds in `/etc` that is its own, read-only.
fn bind_files(site: &Site, number: usize) {
    let of_container = || Text::new(site.run).add("/etc/c").number(number);
    let files = [
        (of_container().add("/hosts"), c"etc/hosts"),
        (of_container().add("/hostname"), c"etc/hostname"),
        (Text::new(site.run).add("/resolv.conf"), c"etc/resolv.conf"),
    ];
    for (file, target) in files {
        must(71, MOUNT, [file.pointer(), text(target), 0, BIND, 0]);
        mount(72, None, target, None, BIND | REMOUNT | RDONLY | NOSUID | NODEV, None);
    }
}

fn sysctl(path: &CStr, value: &str) {
    let file = must(73, OPEN, [text(path), 1 | CLOEXEC]);
    must(74, WRITE, [file, value.as_ptr() as usize, value.len()]);
    must(75, CLOSE, [file]);
}

/// Files and directories, as far as they are there. The wrong kind of cover would fail late, when the kernel has made most of it.
fn hide() {
    for path in [c"proc/bus", c"proc/fs", c"proc/irq", c"proc/sys", c"proc/sysrq-trigger", c"proc/pressure"] {
        if call(MOUNT, [text(path), text(path), 0, BIND | REC, 0]) == 0 {
            mount(76, None, path, None, BIND | REMOUNT | RDONLY | NOSUID | NODEV | NOEXEC, None);
        }
    }
    for path in [
        c"proc/interrupts",
        c"proc/kcore",
        c"proc/keys",
        c"proc/latency_stats",
        c"proc/sched_debug",
        c"proc/timer_list",
        c"proc/timer_stats",
    ] {
        call(MOUNT, [text(c"dev/null"), text(path), 0, BIND, 0]);
    }
    for path in [
        c"proc/acpi",
        c"proc/asound",
        c"proc/scsi",
        c"sys/devices/virtual/powercap",
        c"sys/firmware",
        c"sys/kernel/debug",
    ] {
        call(MOUNT, [text(c"tmpfs"), text(path), text(c"tmpfs"), RDONLY, text(c"size=4k,nr_inodes=1")]);
    }
}

fn mount(status: usize, from: Option<&CStr>, to: &CStr, kind: Option<&CStr>, flags: usize, options: Option<&CStr>) {
    let pointer = |string: Option<&CStr>| string.map_or(0, text);
    must(status, MOUNT, [pointer(from), text(to), pointer(kind), flags, pointer(options)]);
}

fn loopback_up() {
    const SIOCSIFFLAGS: usize = 0x8914;
    // struct ifreq: a name of 16 bytes, then flags, of which IFF_UP is the lowest.
    let mut request = [0_usize; 5];
    (request[0], request[2]) = (usize::from(b'l') | usize::from(b'o') << 8, 1);
    let socket = must(80, SOCKET, [1, 2 | CLOEXEC, 0]);
    must(81, IOCTL, [socket, SIOCSIFFLAGS, memory(&mut request)]);
    must(82, CLOSE, [socket]);
}

fn give_up_rights(site: &Site) {
    const CAPBSET_DROP: usize = 24;
    const SET_NO_NEW_PRIVS: usize = 38;
    const SECCOMP_SET_MODE_FILTER: usize = 1;
    const VERSION_3: u32 = 0x2008_0522;
    for capability in (0..=LAST_CAPABILITY).filter(|number| *number > 31 || CAPABILITIES & 1 << number == 0) {
        must(90, PRCTL, [CAPBSET_DROP, capability]);
    }
    let mut header = [VERSION_3, 0];
    // Effective, permitted and inheritable, first the lower 32 of each.
    let mut sets = [CAPABILITIES, CAPABILITIES, 0, 0, 0, 0];
    must(92, CAPSET, [memory(&mut header), memory(&mut sets)]);
    must(93, PRCTL, [SET_NO_NEW_PRIVS, 1]);
    if site.filter.length != 0 {
        must(94, SECCOMP, [SECCOMP_SET_MODE_FILTER, 0, core::ptr::from_ref(&site.filter) as usize]);
    }
}
