//! How a process is scheduled, where its memory comes from, and as what kind of machine it runs.

use rustix::io::Errno;

use crate::launch::{MemoryPolicy, Scheduler};

/// `struct sched_attr` of `linux/sched/types.h`, version 1.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    util_min: u32,
    util_max: u32,
}

/// Sets how process `pid` (0: this one) is scheduled. Real-time policies need CAP_SYS_NICE on the machine.
pub(crate) fn set_scheduler(pid: i32, scheduler: &Scheduler) -> Result<(), Errno> {
    let attributes = SchedAttr {
        size: u32::try_from(size_of::<SchedAttr>()).map_err(|_| Errno::INVAL)?,
        policy: scheduler.policy,
        flags: scheduler.flags,
        nice: scheduler.nice,
        priority: scheduler.priority,
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
        util_min: 0,
        util_max: 0,
    };
    // SAFETY: `attributes` is a sched_attr that carries its own size and outlives the call, which only reads it.
    super::check(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const attributes, 0) })?;
    Ok(())
}

/// Sets the I/O priority of process `pid` (0: this one), class and level as in [`crate::launch::Process::io_priority`].
pub(crate) fn set_io_priority(pid: i32, priority: u16) -> Result<(), Errno> {
    /// `IOPRIO_WHO_PROCESS` of `linux/ioprio.h`.
    const PROCESS: i32 = 1;
    // SAFETY: ioprio_set(2) takes integers only.
    super::check(unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS, pid, i32::from(priority)) })?;
    Ok(())
}

/// Lets process `pid` (0: this one) run on these processors only; the mask as in [`crate::launch::ExecAffinity`].
pub(crate) fn set_affinity(pid: i32, mask: &[u8]) -> Result<(), Errno> {
    let words = words(mask);
    // SAFETY: the mask is whole words of the length passed, which the call only reads.
    super::check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(words.as_slice()), words.as_ptr()) })?;
    Ok(())
}

/// Sets where this thread's memory comes from; exec keeps it.
pub(crate) fn set_memory_policy(policy: &MemoryPolicy) -> Result<(), Errno> {
    let words = words(&policy.nodes);
    let (mask, bits) = if policy.nodes.is_empty() {
        (std::ptr::null(), 0)
    } else {
        // The kernel takes one bit less than it is told.
        (words.as_ptr(), size_of_val(words.as_slice()).saturating_mul(8).saturating_add(1))
    };
    // SAFETY: the mask is null with no bits, or holds at least `bits - 1` of them and outlives the call, which only reads it.
    super::check(unsafe { libc::syscall(libc::SYS_set_mempolicy, policy.mode, mask, bits) })?;
    Ok(())
}

/// Sets the execution domain of this process.
pub(crate) fn set_personality(domain: u32) -> Result<(), Errno> {
    // SAFETY: personality(2) takes an integer only.
    super::check(unsafe { libc::personality(libc::c_ulong::from(domain)) }.into())?;
    Ok(())
}

/// A bit mask of bytes as the kernel's whole words.
fn words(mask: &[u8]) -> Vec<u64> {
    mask.chunks(8)
        .map(|chunk| chunk.iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte)))
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_become_words() {
        assert_eq!(super::words(&[1, 0, 0, 0, 0, 0, 0, 0x80, 2]), [0x8000_0000_0000_0001, 2]);
    }
}
