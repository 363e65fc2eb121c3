//! What an error of the system most likely means in a launch, and what helps. Pure; shown to people only.

use rustix::io::Errno;

use crate::failure::Step;

/// The likely cause or fix for `errno` in `step` on `object`.
pub(crate) fn of(step: Step, errno: Errno, object: &str) -> Option<&'static str> {
    let text = match (step, errno) {
        (Step::Clone | Step::CreateUserNamespace, Errno::AGAIN) => {
            "the pids limit, RLIMIT_NPROC, or the machine's own limit (kernel.pid_max, kernel.threads-max) is reached"
        }
        (Step::Clone | Step::CreateUserNamespace, Errno::NOSPC) => "too many namespaces: raise user.max_user_namespaces and its like",
        (Step::Clone | Step::CreateUserNamespace, Errno::INVAL) => {
            "the kernel lacks a namespace (CONFIG_USER_NS, CONFIG_PID_NS, CONFIG_NET_NS, CONFIG_IPC_NS, CONFIG_UTS_NS) or is older than 5.7"
        }
        (Step::Clone | Step::CreateUserNamespace, Errno::PERM) => {
            "user namespaces are forbidden here (after chroot, by a sysctl or by the security module)"
        }
        (Step::Clone, Errno::OPNOTSUPP) => "the cgroup is threaded or frozen",
        (Step::Clone, Errno::ACCESS) => {
            "this process is in no cgroup of the same delegated tree: run it in one (systemd-run --user --scope)"
        }
        (Step::Clone, Errno::BUSY) => "the cgroup above it has controllers enabled and processes of its own",
        (Step::WriteIdMap, Errno::PERM) => "the ids aren't this user's to map",
        (Step::MapIds, Errno::NOENT) => {
            "it isn't installed (Debian: uidmap); without it a user can map one id only, the own one, by mappings of size 1"
        }
        (Step::MapIds, _) if object.starts_with("newgidmap") => {
            "the ids aren't this user's: /etc/subgid must give them (usermod --add-subgids), and nothing may forbid setuid programs"
        }
        (Step::MapIds, _) => {
            "the ids aren't this user's: /etc/subuid must give them (usermod --add-subuids), and nothing may forbid setuid programs"
        }
        (Step::WriteIdMap, Errno::INVAL) => "the ranges overlap or are empty",
        (Step::CreateCgroup, Errno::BUSY) => "container's cgroup is not empty: processes of an earlier start still live in it",
        (Step::CreateCgroup, Errno::NOENT) => "the parent cgroup was removed",
        (Step::FindDevice, Errno::NOENT) => {
            "absent: it isn't attached, its module isn't loaded (`extra_modules`), or this machine has it under another name"
        }
        (Step::SetCgroup, Errno::NODEV) => "the device is gone, or it is a partition: limits are for whole disks",
        (Step::SetCgroup, Errno::NOENT | Errno::OPNOTSUPP) => {
            "the controller isn't enabled in the parent's cgroup.subtree_control or not in the kernel"
        }
        (Step::LoadDeviceFilter | Step::AttachDeviceFilter, Errno::INVAL | Errno::NOSYS) => "the kernel lacks CONFIG_CGROUP_BPF",
        (Step::LoadDeviceFilter, Errno::PERM) => "loading BPF needs CAP_BPF or CAP_SYS_ADMIN",
        (Step::CreateVolume, Errno::LOOP) => "its path leads through a symbolic link",
        (Step::CreateVolume | Step::FillVolume, Errno::ROFS) => "the data filesystem is read-only",
        (Step::CreateVolume, Errno::NOSPC) => "the data filesystem is full",
        (Step::FillVolume, Errno::NOSPC) => "it has no room for what the image has there: make it larger, or mount it with `nocopy`",
        (Step::FillVolume, Errno::NAMETOOLONG) => "directories in it lie deeper than 256",
        (Step::IdMapMount, Errno::INVAL) => "this filesystem can't be mounted with mapped ids by this kernel",
        (Step::IdMapMount, Errno::PERM) => "the mount is mapped already, or this needs CAP_SYS_ADMIN over its filesystem",
        (Step::OpenTree, Errno::PERM) => "this needs CAP_SYS_ADMIN: an ordinary user can't map the ids of mounts",
        (Step::JoinNamespace, Errno::INVAL) => "the file is a namespace of another kind",
        (Step::JoinKeyring, Errno::DQUOT) => "the launcher's quota of keys is used up: kernel.keys.maxkeys and its like",
        (Step::BecomeRoot, Errno::INVAL) => "id 0 isn't in the map",
        (Step::Mount, Errno::NODEV) => match object.split(' ').next() {
            Some("overlay") => "the kernel lacks CONFIG_OVERLAY_FS (module overlay)",
            Some("mqueue") => "the kernel lacks CONFIG_POSIX_MQUEUE",
            Some("devpts") => "the kernel lacks CONFIG_UNIX98_PTYS",
            Some("cgroup2") => "the kernel lacks CONFIG_CGROUPS",
            _ => "the kernel lacks this filesystem",
        },
        (Step::Mount, Errno::PERM) => match object.split(' ').next() {
            Some("sysfs") => "sysfs needs a network namespace of the container's own; bind /sys read-only instead",
            Some("proc") => "the launcher's own /proc is partly covered, or the pid namespace isn't the container's own",
            _ => "not allowed in this user namespace",
        },
        (Step::MountTarget, Errno::LOOP) => {
            "it must be mounted on ordinary directory: the image ships it as a symbolic link, or links form a loop"
        }
        (Step::MountTarget, Errno::NOTDIR) if matches!(object, "/proc" | "/sys") => {
            "it must be mounted on ordinary directory: the image ships it as something else"
        }
        (Step::MountTarget, Errno::PERM) if object.ends_with("which is of /proc") => {
            "nothing may be mounted on /proc but a procfs, and in it only on what LXCFS has files for (/proc/meminfo and its like)"
        }
        (Step::MountAttributes, Errno::PERM) => {
            "a user namespace can't have the opposite of how something is mounted on the machine: leave `rw`, `suid`, `dev`, \
             `exec` or what is about times of access out"
        }
        (Step::MountTarget | Step::Create, Errno::ROFS) => "the image lacks it, and a read-only root can't be added to",
        (Step::MountTarget, Errno::NOTDIR) => "a directory can't be mounted over a file, nor a file over a directory",
        (Step::SetSysctl, Errno::NOENT) => "there is no such sysctl in the container's namespaces",
        (Step::SetSysctl, Errno::ACCESS | Errno::PERM) => "this sysctl isn't the container's to set",
        (Step::LoadSeccomp, Errno::INVAL) => "the kernel lacks CONFIG_SECCOMP_FILTER, or the filter was compiled for other flags",
        (Step::SetUser, Errno::PERM) if object.starts_with("supplementary") => {
            "with a user's single mapping setgroups(2) is given up: map more ids (Debian: uidmap), or ask for no groups"
        }
        (Step::SetUser, Errno::INVAL) => "the id isn't in the container's id map",
        (Step::SetResourceLimit, Errno::PERM) => "raising a hard limit needs CAP_SYS_RESOURCE",
        (Step::ReachAgent, Errno::NOENT | Errno::CONNREFUSED) => "no seccomp agent listens on linux.seccomp.listenerPath",
        (Step::ReachAgent, Errno::PERM) => "the filter itself forbids sendmsg, by which the listener is handed over",
        (Step::SetScheduler | Step::SetIoPriority, Errno::PERM) => "real-time priorities and negative nice values need CAP_SYS_NICE on the machine",
        (Step::SetScheduler, Errno::INVAL) => "these values don't go together (sched_setattr(2))",
        (Step::SetScheduler, Errno::BUSY) => "no processor time is left for SCHED_DEADLINE",
        (Step::SetMemoryPolicy, Errno::INVAL) => "the nodes don't exist or aren't the container's (linux.resources.cpu.mems)",
        (Step::SetMemoryPolicy, Errno::NOSYS) => "the kernel lacks CONFIG_NUMA",
        (Step::SetLabel, Errno::NOENT | Errno::INVAL) => "the security module isn't active, or doesn't know this profile or label",
        (Step::Landlock, Errno::NOSYS | Errno::OPNOTSUPP) => "the kernel lacks Landlock, or this kind of rule",
        (Step::SetClock, Errno::RANGE) => "the clock would be negative or overflow",
        (Step::AssignRdt, Errno::NODEV) => "the processor has no RDT, or nobody mounted /sys/fs/resctrl",
        (Step::AssignRdt, Errno::NOENT) => "a class without schemata must exist",
        (Step::MoveInterface, Errno::EXIST) => "the container has an interface of that name",
        (Step::MoveInterface, Errno::NODEV) => "the machine has no such interface",
        (Step::Execute, Errno::NOENT) if object.contains(" (in PATH ") => "executable file not found in $PATH",
        (Step::Execute, Errno::NOENT) => "there is no such program in the image, or its interpreter is missing",
        (Step::Execute, Errno::ACCESS) => "the file isn't executable by the container's user",
        (Step::Execute, Errno::NOEXEC) => "not a program for this machine, or a script without #!",
        (Step::MakeStorage, Errno::PERM) => "the container's root must be this user: map the own id to 0",
        (Step::MakeStorage, Errno::NOTDIR | Errno::LOOP) => "root.path must be a directory in which containers' own ones are made",
        (Step::RunStorage, Errno::NOENT) => "it isn't installed (Debian: fuse-overlayfs)",
        (Step::RunStorage, Errno::TIMEDOUT) => {
            "it was killed: a layer's filesystem may not answer, or it isn't that program; \
             org.garboard.layers.driver = copy does without it"
        }
        (Step::RemoveStorage, Errno::XDEV | Errno::BUSY) => "something is mounted in it: unmount that first",
        (Step::RemoveStorage, Errno::TIMEDOUT) => "there is too much of it for a second: the next container with layers there goes on",
        (Step::CopyLayers, Errno::NOSPC | Errno::DQUOT) => "the filesystem of root.path has no room for a copy",
        (Step::CopyLayers, Errno::PERM) => "device nodes can be copied by root of the machine only",
        (Step::CopyLayers, Errno::INVAL) => "its owner isn't in the container's id map",
        (Step::CopyLayers, Errno::OPNOTSUPP) => "it was renamed or left without contents by an overlay: only the kernel's can read that",
        (Step::CopyLayers, Errno::NAMETOOLONG) => "directories in it lie deeper than 256",
        (Step::RunHook, Errno::NOENT) => "there is no such program",
        (Step::RunHook, Errno::TIMEDOUT) => "it took longer than its timeout",
        (Step::OpenTerminal, Errno::NOENT) => "a terminal needs a devpts mounted on /dev/pts",
        (Step::Open | Step::OpenTree, Errno::NOENT) => "it doesn't exist on the machine",
        _ => return None,
    };
    Some(text)
}

/// The error in the system's words, by which people search and other programs tell it, and its symbolic name. One that no launch meets
/// is its number.
pub(crate) fn errno_text(errno: Errno) -> String {
    let (words, name) = match errno {
        Errno::PERM => ("operation not permitted", "EPERM"),
        Errno::NOENT => ("no such file or directory", "ENOENT"),
        Errno::INTR => ("interrupted system call", "EINTR"),
        Errno::IO => ("input/output error", "EIO"),
        Errno::NXIO => ("no such device or address", "ENXIO"),
        Errno::TOOBIG => ("argument list too long", "E2BIG"),
        Errno::NOEXEC => ("exec format error", "ENOEXEC"),
        Errno::BADF => ("bad file descriptor", "EBADF"),
        Errno::AGAIN => ("resource temporarily unavailable", "EAGAIN"),
        Errno::NOMEM => ("cannot allocate memory", "ENOMEM"),
        Errno::ACCESS => ("permission denied", "EACCES"),
        Errno::FAULT => ("bad address", "EFAULT"),
        Errno::BUSY => ("device or resource busy", "EBUSY"),
        Errno::EXIST => ("file exists", "EEXIST"),
        Errno::XDEV => ("invalid cross-device link", "EXDEV"),
        Errno::NODEV => ("no such device", "ENODEV"),
        Errno::NOTDIR => ("not a directory", "ENOTDIR"),
        Errno::ISDIR => ("is a directory", "EISDIR"),
        Errno::INVAL => ("invalid argument", "EINVAL"),
        Errno::NFILE => ("too many open files in system", "ENFILE"),
        Errno::MFILE => ("too many open files", "EMFILE"),
        Errno::NOTTY => ("inappropriate ioctl for device", "ENOTTY"),
        Errno::TXTBSY => ("text file busy", "ETXTBSY"),
        Errno::FBIG => ("file too large", "EFBIG"),
        Errno::NOSPC => ("no space left on device", "ENOSPC"),
        Errno::ROFS => ("read-only file system", "EROFS"),
        Errno::MLINK => ("too many links", "EMLINK"),
        Errno::PIPE => ("broken pipe", "EPIPE"),
        Errno::RANGE => ("numerical result out of range", "ERANGE"),
        Errno::NAMETOOLONG => ("file name too long", "ENAMETOOLONG"),
        Errno::NOSYS => ("function not implemented", "ENOSYS"),
        Errno::BADMSG => ("bad message", "EBADMSG"),
        Errno::MSGSIZE => ("message too long", "EMSGSIZE"),
        Errno::CONNREFUSED => ("connection refused", "ECONNREFUSED"),
        Errno::CONNRESET => ("connection reset by peer", "ECONNRESET"),
        Errno::NOTEMPTY => ("directory not empty", "ENOTEMPTY"),
        Errno::LOOP => ("too many levels of symbolic links", "ELOOP"),
        Errno::OVERFLOW => ("value too large for defined data type", "EOVERFLOW"),
        Errno::USERS => ("too many users", "EUSERS"),
        Errno::OPNOTSUPP => ("operation not supported", "EOPNOTSUPP"),
        Errno::STALE => ("stale file handle", "ESTALE"),
        Errno::SRCH => ("no such process", "ESRCH"),
        Errno::CANCELED => ("operation canceled", "ECANCELED"),
        Errno::TIMEDOUT => ("timed out", "ETIMEDOUT"),
        Errno::NOTSOCK => ("socket operation on non-socket", "ENOTSOCK"),
        Errno::NOTCONN => ("transport endpoint is not connected", "ENOTCONN"),
        Errno::DQUOT => ("disk quota exceeded", "EDQUOT"),
        other => return format!("errno {}", other.raw_os_error()),
    };
    format!("{words} ({name})")
}

/// A signal that has ended a process, in the usual words, and its number.
pub(crate) fn signal_text(signal: i32) -> String {
    let words = match signal {
        libc::SIGHUP => "hangup",
        libc::SIGINT => "interrupt",
        libc::SIGQUIT => "quit",
        libc::SIGILL => "illegal instruction",
        libc::SIGTRAP => "trace/breakpoint trap",
        libc::SIGABRT => "aborted",
        libc::SIGBUS => "bus error",
        libc::SIGFPE => "floating point exception",
        libc::SIGKILL => "killed",
        libc::SIGUSR1 => "user defined signal 1",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGUSR2 => "user defined signal 2",
        libc::SIGPIPE => "broken pipe",
        libc::SIGALRM => "alarm clock",
        libc::SIGTERM => "terminated",
        libc::SIGXCPU => "CPU time limit exceeded",
        libc::SIGXFSZ => "file size limit exceeded",
        libc::SIGSYS => "bad system call",
        other => return format!("signal {other}"),
    };
    format!("{words} ({signal})")
}
