//! bpf(2): load a cgroup device filter and attach it.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// `enum bpf_cmd`, `bpf_prog_type`, `bpf_attach_type` and attach flags of `linux/bpf.h`.
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The part of `union bpf_attr` that BPF_PROG_LOAD needs; the kernel takes what is missing as zero.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The part of `union bpf_attr` that BPF_PROG_ATTACH needs.
#[repr(C)]
struct ProgAttach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// Loads `program` (8-byte eBPF instructions) as a device filter. EINVAL: not whole instructions, or refused by the verifier.
pub(crate) fn load_device_filter(program: &[u8]) -> Result<OwnedFd, Errno> {
    if !program.len().is_multiple_of(8) {
        return Err(Errno::INVAL);
    }
    let attributes = ProgLoad {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len() / 8).map_err(|_| Errno::TOOBIG)?,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    // SAFETY: `attributes` is laid out as bpf(2) says and passed with its size; `insns` and `license` point to `insn_cnt`
    // instructions and a NUL-terminated string that outlive the call, and the kernel only reads them.
    let fd = super::check(unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of::<ProgLoad>())
    })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the successful call returned a new descriptor that nobody else owns (close-on-exec, as bpf(2) makes them).
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a loaded device filter to a cgroup directory, besides those that are there.
pub(crate) fn attach_device_filter(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    let raw = |fd: BorrowedFd<'_>| u32::try_from(fd.as_raw_fd()).map_err(|_| Errno::BADF);
    let attributes = ProgAttach {
        target_fd: raw(cgroup)?,
        attach_bpf_fd: raw(program)?,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: `attributes` is laid out as bpf(2) says and passed with its size; it holds no pointers.
    super::check(unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attributes, size_of::<ProgAttach>())
    })?;
    Ok(())
}
