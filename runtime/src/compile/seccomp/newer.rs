//! Calls that are newer than the profile: a program that tries one should take the kernel for an older one (ENOSYS) and fall back, not
//! give up (EPERM).
//!
//! Newer is what has a higher number than any call that the profile names, whatever it says of it: runc's rule. Each ABI counts for
//! itself, as the same call has other numbers there. Where the profile names no call of an ABI, none is newer.

use libseccomp::{ScmpArch, ScmpSyscall};
use oci_spec::runtime::LinuxSeccomp;

use super::super::bpf::{ARCHITECTURE, IF_EQUAL, IF_GREATER, LOAD, NUMBER, RETURN, Step};
use super::ENOSYS;

/// `AUDIT_ARCH_X86_64`, `AUDIT_ARCH_I386` of `linux/audit.h`.
pub(super) const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
pub(super) const AUDIT_ARCH_I386: u32 = 0x4000_0003;
/// Marks calls of the x32 ABI, which is x86-64's otherwise.
pub(super) const X32_BIT: u32 = 0x4000_0000;
const SECCOMP_RET_ERRNO: u32 = 0x0005_0000;

/// Steps that answer those of x86-64 and of the ABIs `besides` it, and go on at their end with all others: they stand before the filter as
/// they are.
pub(super) fn do_not_exist(profile: &LinuxSeccomp, besides: &[ScmpArch]) -> Vec<u8> {
    let x32 = besides.contains(&ScmpArch::X32);
    let abis = [
        // Without rules for x32 its calls are as absent as newer ones.
        (ScmpArch::X8664, AUDIT_ARCH_X86_64, if x32 { X32_BIT - 1 } else { u32::MAX }),
        (ScmpArch::X32, AUDIT_ARCH_X86_64, u32::MAX),
        (ScmpArch::X86, AUDIT_ARCH_I386, u32::MAX),
    ];
    let filtered = |abi: &ScmpArch| *abi == ScmpArch::X8664 || besides.contains(abi);
    let steps = abis.into_iter().filter(|(abi, ..)| filtered(abi)).filter_map(|(abi, architecture, last)| {
        let newest = newest(profile, abi)?;
        Some([
            Step::plain(LOAD, ARCHITECTURE),
            Step::new(IF_EQUAL, 0, 4, architecture),
            Step::plain(LOAD, NUMBER),
            Step::new(IF_GREATER, 0, 2, newest),
            Step::new(IF_GREATER, 1, 0, last),
            Step::plain(RETURN, SECCOMP_RET_ERRNO | ENOSYS),
        ])
    });
    steps.flatten().flat_map(Step::to_bytes).collect()
}

/// The highest number of the calls named, as far as libseccomp knows them. Those that are others' only have negative ones there.
fn newest(profile: &LinuxSeccomp, abi: ScmpArch) -> Option<u32> {
    let names = profile.syscalls().iter().flatten().flat_map(|rule| rule.names());
    let known = names.filter_map(|name| ScmpSyscall::from_name_by_arch(name, abi).ok());
    known.filter_map(|call| u32::try_from(call.as_raw_syscall()).ok()).max()
}
