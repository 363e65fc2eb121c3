//! What runs inside a container where a shell isn't enough. Prints `name: errno` lines.

use crate::sys;

pub fn run(arguments: &[String]) -> i32 {
    match arguments.first().map(String::as_str) {
        Some("calls") => {
            for (name, number, arguments) in CALLS {
                println!("{name}: {}", sys::call(*number, *arguments));
            }
            0
        }
        Some("abstract") => match connect_abstract(&arguments[1]) {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or(255),
        },
        Some("status") => {
            print!("{}", std::fs::read_to_string("/proc/self/status").unwrap());
            0
        }
        Some("swap") => swap(&arguments[1]),
        Some("victim") => victim(&arguments[1], arguments.get(2).map(String::as_str)),
        Some("posix-shm") => {
            errno(rustix::shm::open(&arguments[1], rustix::shm::OFlags::RDWR, rustix::fs::Mode::empty()).map(drop))
        }
        Some("getfd") => errno(other_s_descriptor(arguments[1].parse().unwrap())),
        Some("key") => {
            let description = std::ffi::CString::new(arguments[1].as_str()).unwrap();
            sys::find_session_key(&description).err().unwrap_or(0)
        }
        Some("i386") => {
            let calls = [sys::I386::Getpid, sys::I386::Vhangup, sys::I386::Newer];
            println!("{:?}", calls.map(sys::i386_call));
            0
        }
        Some("shm") => sys::find_shared_memory(arguments[1].parse().unwrap()).err().unwrap_or(0),
        Some("kill") => sys::call(libc::SYS_kill, [arguments[1].parse().unwrap(), 0, 0, 0, 0, 0]),
        Some("ptrace") => {
            let pid = arguments[1].parse().unwrap();
            sys::call(libc::SYS_ptrace, [libc::PTRACE_SEIZE.into(), pid, 0, 0, 0, 0])
        }
        _ => 255,
    }
}

/// Calls with arguments that do no harm even where they are allowed.
const CALLS: &[(&str, libc::c_long, [libc::c_long; 6])] = &[
    ("keyctl", libc::SYS_keyctl, [0, -3, 0, 0, 0, 0]),
    ("add_key", libc::SYS_add_key, [0; 6]),
    // BPF_PROG_GET_NEXT_ID, which asks for the capability first.
    ("bpf", libc::SYS_bpf, [11, 0, 0, 0, 0, 0]),
    ("userfaultfd", libc::SYS_userfaultfd, [1, 0, 0, 0, 0, 0]),
    ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0, 0, 0, 0]),
    ("perf_event_open", libc::SYS_perf_event_open, [0; 6]),
    ("ptrace", libc::SYS_ptrace, [0; 6]),
    ("process_vm_readv", libc::SYS_process_vm_readv, [1, 0, 0, 0, 0, 0]),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, [-1, 0, 0, 0, 0, 0]),
    ("mount", libc::SYS_mount, [0; 6]),
    ("umount2", libc::SYS_umount2, [0; 6]),
    ("open_tree", libc::SYS_open_tree, [-1, 0, 0, 0, 0, 0]),
    ("fsopen", libc::SYS_fsopen, [0; 6]),
    ("mount_setattr", libc::SYS_mount_setattr, [-1, 0, 0, 0, 0, 0]),
    ("pivot_root", libc::SYS_pivot_root, [0; 6]),
    ("setns", libc::SYS_setns, [-1, 0, 0, 0, 0, 0]),
    ("clone3", libc::SYS_clone3, [0; 6]),
    ("kexec_load", libc::SYS_kexec_load, [0, 0, 0, 0xffff, 0, 0]),
    ("init_module", libc::SYS_init_module, [0; 6]),
    ("reboot", libc::SYS_reboot, [0; 6]),
    ("swapon", libc::SYS_swapon, [0; 6]),
    ("syslog", libc::SYS_syslog, [3, 0, -1, 0, 0, 0]),
    ("clock_settime", libc::SYS_clock_settime, [0; 6]),
    ("move_mount", libc::SYS_move_mount, [-1, 0, -1, 0, 0, 0]),
    ("request_key", libc::SYS_request_key, [0; 6]),
    ("io_uring_enter", libc::SYS_io_uring_enter, [-1, 0, 0, 0, 0, 0]),
    ("io_uring_register", libc::SYS_io_uring_register, [-1, 0, 0, 0, 0, 0]),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, [-1, 0, 0, 0, 0, 0]),
    ("socket-alg", libc::SYS_socket, [38, 5, 0, 0, 0, 0]),
    ("socket-inet", libc::SYS_socket, [2, 1, 0, 0, 0, 0]),
    ("futex_wake (6.7)", 454, [0; 6]),
    ("getpid", libc::SYS_getpid, [0; 6]),
    // The last, as it changes what this process may do.
    ("unshare-user", libc::SYS_unshare, [libc::CLONE_NEWUSER as libc::c_long, 0, 0, 0, 0, 0]),
];

fn errno(result: rustix::io::Result<()>) -> i32 {
    result.err().map_or(0, rustix::io::Errno::raw_os_error)
}

/// Takes standard input away from process `pid`.
fn other_s_descriptor(pid: i32) -> rustix::io::Result<()> {
    use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
    let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty())?;
    pidfd_getfd(&pidfd, 0, PidfdGetfdFlags::empty()).map(drop)
}

/// Has an abstract socket, POSIX and (with a key) System V shared memory, says so, and waits to be killed.
fn victim(name: &str, key: Option<&str>) -> i32 {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    if let Some(key) = key {
        sys::create_shared_memory(key.parse().unwrap()).unwrap();
    }
    let flags = rustix::shm::OFlags::CREATE | rustix::shm::OFlags::RDWR;
    let memory = rustix::shm::open(name, flags, rustix::fs::Mode::empty()).unwrap();
    // Whatever the file mode creation mask is: modes aren't what should keep others out.
    rustix::fs::fchmod(&memory, rustix::fs::Mode::from_raw_mode(0o666)).unwrap();
    println!("ready");
    loop {
        std::thread::park();
    }
}

fn connect_abstract(name: &str) -> std::io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    std::os::unix::net::UnixStream::connect_addr(&address).map(drop)
}

/// Exchanges `dir` and `link` in a directory until killed, or for two minutes.
fn swap(directory: &str) -> i32 {
    let directory = rustix::fs::open(directory, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while std::time::Instant::now() < until {
        for _ in 0..1000 {
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            rustix::fs::renameat_with(&directory, "dir", &directory, "link", exchange).unwrap();
        }
    }
    0
}
