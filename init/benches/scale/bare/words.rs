//! Numbers of system calls and their flags, and texts put together without an allocator.

use core::ffi::CStr;

// Numbers of asm/unistd_64.h.
pub const READ: usize = 0;
pub const WRITE: usize = 1;
pub const OPEN: usize = 2;
pub const CLOSE: usize = 3;
pub const IOCTL: usize = 16;
pub const DUP2: usize = 33;
pub const PAUSE: usize = 34;
pub const GETPID: usize = 39;
pub const SOCKET: usize = 41;
pub const FORK: usize = 57;
pub const EXECVE: usize = 59;
pub const WAIT4: usize = 61;
pub const CHDIR: usize = 80;
pub const MKDIR: usize = 83;
pub const SYMLINK: usize = 88;
pub const SETSID: usize = 112;
pub const SETGROUPS: usize = 116;
pub const SETRESUID: usize = 117;
pub const SETRESGID: usize = 119;
pub const CAPSET: usize = 126;
pub const MKNOD: usize = 133;
pub const PIVOT_ROOT: usize = 155;
pub const PRCTL: usize = 157;
pub const CHROOT: usize = 161;
pub const MOUNT: usize = 165;
pub const UMOUNT2: usize = 166;
pub const SETHOSTNAME: usize = 170;
pub const CLOCK_GETTIME: usize = 228;
pub const KEYCTL: usize = 250;
pub const UNSHARE: usize = 272;
pub const PIPE2: usize = 293;
pub const PRLIMIT64: usize = 302;
pub const FINIT_MODULE: usize = 313;
pub const SECCOMP: usize = 317;
pub const BPF: usize = 321;
pub const EXECVEAT: usize = 322;
pub const OPEN_TREE: usize = 428;
pub const MOVE_MOUNT: usize = 429;
pub const CLONE3: usize = 435;
pub const MOUNT_SETATTR: usize = 442;

pub const DIRECTORY: usize = 0o200_000 | CLOEXEC;
pub const CLOEXEC: usize = 0o2_000_000;
/// Also for files that are there.
pub const NEW_FILE: usize = 0o1 | 0o100 | CLOEXEC;
pub const RLIMIT_NOFILE: usize = 7;
/// AT_FDCWD.
pub const FROM_HERE: usize = (-100_isize).cast_unsigned();
pub const EMPTY_PATH: usize = 0x1000;
pub const OPEN_TREE_CLONE: usize = 1;
pub const MOVE_MOUNT_EMPTY_PATH: usize = 4;

pub const RDONLY: usize = 1;
pub const NOSUID: usize = 2;
pub const NODEV: usize = 4;
pub const NOEXEC: usize = 8;
pub const REMOUNT: usize = 32;
pub const BIND: usize = 4096;
pub const MOVE: usize = 8192;
pub const REC: usize = 1 << 14;
pub const PRIVATE: usize = 1 << 18;
pub const DETACH: usize = 2;

pub const NEWCGROUP: usize = 0x200_0000;
/// CLONE_NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET and CLONE_INTO_CGROUP.
pub const NAMESPACES: usize =
    0x2_0000 | 0x400_0000 | 0x800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000 | 0x2_0000_0000;
pub const SIGCHLD: usize = 17;

/// CAP_CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, SYS_CHROOT.
pub const CAPABILITIES: u32 = 1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 18;
pub const LAST_CAPABILITY: usize = 40;

/// A short text that ends with a NUL.
pub struct Text([u8; 160], usize);

impl Text {
    /// A copy.
    pub fn new(text: &CStr) -> Self {
        Self([0; 160], 0).bytes(text.to_bytes())
    }

    /// The same of another kind.
    pub fn of(text: &str) -> Self {
        Self([0; 160], 0).bytes(text.as_bytes())
    }

    /// With more at its end.
    pub fn add(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// With a number at its end, in decimal.
    pub fn number(self, number: usize) -> Self {
        let rest = if number > 9 { self.number(number / 10) } else { self };
        rest.bytes(&[b'0' + (number % 10) as u8])
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        for byte in bytes {
            self.0[self.1] = *byte;
            self.1 += 1;
        }
        self
    }

    /// As a call takes it.
    pub fn pointer(&self) -> usize {
        self.0.as_ptr() as usize
    }

    /// In bytes, without the NUL.
    pub fn length(&self) -> usize {
        self.1
    }
}

/// A number in decimal.
pub fn number(text: &CStr) -> usize {
    text.to_bytes().iter().fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}
