//! The default system call profile, an allow-list.
//!
//! Everything that isn't allowed gives EPERM; calls newer than the list gives ENOSYS (see [`crate::compile`]), so that programs
//! fall back. Left out on purpose, each a way into the kernel that servers don't need: `keyctl` and its like (keys have no
//! namespace), `bpf`, `userfaultfd`, `io_uring_*`, `perf_event_open`, the mount family, `unshare` and `setns` and `clone` into
//! namespaces, `kexec_*`, modules, `ptrace` and `process_vm_*` and `pidfd_getfd` (a debugger needs `cap_add: [SYS_PTRACE]`),
//! `open_by_handle_at`, clocks, `swapon`, `reboot`, `acct`, `quotactl`, `syslog`, sockets of unusual families (`AF_ALG`,
//! `AF_VSOCK`, …).

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall,
};

/// What allows a group of calls.
enum Needs {
    /// Nothing.
    Nothing,
    /// Any of these capabilities, by number.
    Capability(u32),
}

const CAP_DAC_READ_SEARCH: u32 = 2;
const CAP_SYS_MODULE: u32 = 16;
const CAP_SYS_RAWIO: u32 = 17;
const CAP_SYS_CHROOT: u32 = 18;
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_PACCT: u32 = 20;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_BOOT: u32 = 22;
const CAP_SYS_NICE: u32 = 23;
const CAP_SYS_TIME: u32 = 25;
const CAP_SYS_TTY_CONFIG: u32 = 26;
const CAP_SYSLOG: u32 = 34;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// The allowed calls, by what uses them.
const GROUPS: &[(Needs, &str)] = &[
    // Files by name and descriptor: every program.
    (
        Needs::Nothing,
        "access faccessat faccessat2 open openat openat2 creat close close_range read readv pread64 preadv preadv2 write \
         writev pwrite64 pwritev pwritev2 lseek _llseek stat fstat lstat newfstatat statx statfs fstatfs ftruncate truncate \
         fallocate fadvise64 readahead fsync fdatasync sync syncfs sync_file_range flock fcntl dup dup2 dup3 ioctl pipe pipe2 \
         sendfile copy_file_range splice tee vmsplice getdents getdents64 readlink readlinkat umask utime utimes futimesat \
         utimensat name_to_handle_at memfd_create memfd_secret",
    ),
    // Directories and links; chdir and its like for shells.
    (
        Needs::Nothing,
        "chdir fchdir getcwd mkdir mkdirat rmdir rename renameat renameat2 link linkat unlink unlinkat symlink symlinkat \
         mknod mknodat",
    ),
    // Ownership and attributes: package set-up, tar, cp -a.
    (
        Needs::Nothing,
        "chmod fchmod fchmodat chown fchown lchown fchownat getxattr lgetxattr fgetxattr setxattr lsetxattr fsetxattr \
         listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr",
    ),
    // Memory: the C library, JITs (mprotect, pkey_*), databases (mlock*, madvise).
    (
        Needs::Nothing,
        "brk mmap munmap mremap mprotect madvise mincore mlock mlock2 mlockall munlock munlockall msync membarrier \
         pkey_alloc pkey_free pkey_mprotect remap_file_pages process_mrelease",
    ),
    // Processes and threads. clone has a rule of its own.
    (
        Needs::Nothing,
        "fork vfork execve execveat exit exit_group wait4 waitid getpid getppid gettid getpgid getpgrp setpgid getsid setsid \
         set_tid_address set_robust_list get_robust_list futex futex_waitv rseq arch_prctl prctl seccomp capget capset \
         getpriority setpriority ioprio_get ioprio_set nice times getrusage getrlimit setrlimit prlimit64 getcpu sysinfo uname \
         getrandom restart_syscall pidfd_open pidfd_send_signal",
    ),
    // Scheduling: thread pools, databases.
    (
        Needs::Nothing,
        "sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam \
         sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval",
    ),
    // Users and groups: servers that start as root.
    (
        Needs::Nothing,
        "getuid geteuid getgid getegid getgroups getresuid getresgid setuid setgid setreuid setregid setresuid setresgid \
         setfsuid setfsgid setgroups",
    ),
    // Signals.
    (
        Needs::Nothing,
        "rt_sigaction rt_sigprocmask rt_sigpending rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
         rt_tgsigqueueinfo sigaltstack kill tkill tgkill pause signalfd signalfd4",
    ),
    // Time, read only, and timers.
    (
        Needs::Nothing,
        "time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep alarm getitimer setitimer timer_create \
         timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime",
    ),
    // Waiting for events.
    (
        Needs::Nothing,
        "poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait \
         epoll_pwait2 eventfd eventfd2 inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark io_setup \
         io_destroy io_submit io_getevents io_pgetevents io_cancel",
    ),
    // Sockets. socket and socketpair have rules of their own.
    (
        Needs::Nothing,
        "bind connect listen accept accept4 getsockname getpeername getsockopt setsockopt shutdown send sendto sendmsg \
         sendmmsg recv recvfrom recvmsg recvmmsg socketcall",
    ),
    // System V and POSIX IPC, in the container's own namespace: PostgreSQL, PHP.
    (
        Needs::Nothing,
        "ipc shmget shmat shmdt shmctl semget semop semtimedop semctl msgget msgsnd msgrcv msgctl mq_open mq_unlink \
         mq_timedsend mq_timedreceive mq_notify mq_getsetattr",
    ),
    // Unprivileged sandboxing by the program itself: only takes rights away.
    (Needs::Nothing, "landlock_create_ruleset landlock_add_rule landlock_restrict_self"),
    // Servers that confine themselves; the capability is in the default list.
    (Needs::Capability(CAP_SYS_CHROOT), "chroot"),
    // Debuggers: `cap_add: [SYS_PTRACE]`.
    (Needs::Capability(CAP_SYS_PTRACE), "ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd"),
    // Containers in the container, mounts: `cap_add: [SYS_ADMIN]`.
    (
        Needs::Capability(CAP_SYS_ADMIN),
        "mount umount umount2 pivot_root move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr unshare setns \
         clone clone3 sethostname setdomainname quotactl quotactl_fd fanotify_init swapon swapoff",
    ),
    (Needs::Capability(CAP_DAC_READ_SEARCH), "open_by_handle_at"),
    (Needs::Capability(CAP_SYS_MODULE), "init_module finit_module delete_module"),
    (Needs::Capability(CAP_SYS_RAWIO), "iopl ioperm"),
    (Needs::Capability(CAP_SYS_PACCT), "acct"),
    (Needs::Capability(CAP_SYS_BOOT), "reboot kexec_load kexec_file_load"),
    (
        Needs::Capability(CAP_SYS_NICE),
        "mbind set_mempolicy get_mempolicy migrate_pages move_pages set_mempolicy_home_node",
    ),
    (Needs::Capability(CAP_SYS_TIME), "settimeofday stime clock_settime clock_adjtime adjtimex"),
    (Needs::Capability(CAP_SYS_TTY_CONFIG), "vhangup"),
    (Needs::Capability(CAP_SYSLOG), "syslog"),
    (Needs::Capability(CAP_PERFMON), "perf_event_open"),
    (Needs::Capability(CAP_BPF), "bpf"),
];

/// `CLONE_NEWTIME | NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET` of `linux/sched.h`.
const CLONE_NAMESPACES: u64 = 0x7e02_0080;

/// Socket families that servers use: local, IPv4, IPv6, netlink (interface lists), packet (only with CAP_NET_RAW).
const SOCKET_FAMILIES: [u64; 5] = [1, 2, 10, 16, 17];

/// Execution domains that are harmless: Linux, Linux with 32-bit `uname`, with short inode numbers, both, and asking.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// ENOSYS of `asm-generic/errno.h`.
const ENOSYS: u32 = 38;

/// The default profile for a container whose bounding set is `capabilities` (a mask by number).
#[must_use]
pub fn default_profile(capabilities: u64) -> LinuxSeccomp {
    let admin = capabilities & (1 << CAP_SYS_ADMIN) != 0;
    let mut names: Vec<String> = Vec::new();
    for (needs, group) in GROUPS {
        let allowed = match needs {
            Needs::Nothing => true,
            Needs::Capability(number) => capabilities & (1 << number) != 0,
        };
        if allowed {
            names.extend(group.split_whitespace().map(str::to_owned));
        }
    }
    let mut rules = vec![rule(names, LinuxSeccompAction::ScmpActAllow, None, None)];
    if !admin {
        // A new thread or process, in no new namespace.
        let no_namespace = argument(0, CLONE_NAMESPACES, Some(0), LinuxSeccompOperator::ScmpCmpMaskedEq);
        rules.push(allow_if("clone", no_namespace));
        // Its flags lie in memory, where a filter can't look. The C library then falls back to clone.
        rules.push(rule(vec!["clone3".to_owned()], LinuxSeccompAction::ScmpActErrno, Some(ENOSYS), None));
    }
    for name in ["socket", "socketpair"] {
        for family in SOCKET_FAMILIES {
            rules.push(allow_if(name, argument(0, family, None, LinuxSeccompOperator::ScmpCmpEq)));
        }
    }
    for domain in PERSONALITIES {
        rules.push(allow_if("personality", argument(0, domain, None, LinuxSeccompOperator::ScmpCmpEq)));
    }
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(LinuxSeccompAction::ScmpActErrno);
    profile.set_default_errno_ret(None).set_architectures(None).set_flags(None).set_syscalls(Some(rules));
    profile
}

pub(super) fn rule(
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno: Option<u32>,
    args: Option<Vec<LinuxSeccompArg>>,
) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names).set_action(action).set_errno_ret(errno).set_args(args);
    rule
}

fn allow_if(name: &str, condition: LinuxSeccompArg) -> LinuxSyscall {
    rule(vec![name.to_owned()], LinuxSeccompAction::ScmpActAllow, None, Some(vec![condition]))
}

pub(super) fn argument(index: usize, value: u64, value_two: Option<u64>, op: LinuxSeccompOperator) -> LinuxSeccompArg {
    // The type's only way in is its JSON or a builder; that can't fail, as every field has a default.
    let mut builder = LinuxSeccompArgBuilder::default().index(index).value(value).op(op);
    if let Some(value_two) = value_two {
        builder = builder.value_two(value_two);
    }
    builder.build().unwrap_or_default()
}

/// The first two numbers of a kernel's release, `6.12.117+deb12-cloud-amd64`.
#[must_use]
pub fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_begin_with_a_version() {
        assert_eq!(kernel_version("6.12.117+deb12-cloud-amd64"), Some((6, 12)));
        assert_eq!(kernel_version("6.1"), Some((6, 1)));
        assert_eq!([kernel_version(""), kernel_version("6"), kernel_version("linux-6.1")], [None; 3]);
    }

    #[test]
    fn no_call_is_listed_twice() {
        let mut names: Vec<&str> = GROUPS.iter().flat_map(|(_, group)| group.split_whitespace()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
