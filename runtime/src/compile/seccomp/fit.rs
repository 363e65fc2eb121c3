//! How much a profile may ask for.

use oci_spec::runtime::{LinuxSeccomp, LinuxSyscall};

use crate::spec::Error;

/// The kernel takes no longer filter (`BPF_MAXINSNS`).
const MOST_STEPS: usize = 4096;
/// A comparison of an argument takes at least so many of them, if it shares what it can with others.
const STEPS_OF_AN_ARGUMENT: usize = 2;

/// Refuses a profile that can't become a filter before libseccomp sees it: that would work on it for minutes, and from 65,536 steps on, which
/// it counts in 16 bits, write beyond its memory.
pub(super) fn expect_profile(profile: &LinuxSeccomp, abis: usize) -> Result<(), Error> {
    // What all calls get makes no steps.
    let rules = profile.syscalls().iter().flatten().filter(|rule| rule.action() != profile.default_action());
    let of_one = |rule: &LinuxSyscall| rule.args().iter().flatten().count().saturating_mul(STEPS_OF_AN_ARGUMENT).max(1);
    let of = |rule: &LinuxSyscall| rule.names().len().saturating_mul(of_one(rule));
    let steps = rules.map(of).fold(0_usize, usize::saturating_add).saturating_mul(abis);
    if steps <= MOST_STEPS { Ok(()) } else { Err(too_long(steps)) }
}

/// Refuses a filter that the kernel wouldn't take, by a better reason than it has (EINVAL).
pub(super) fn expect_filter(bpf: &[u8]) -> Result<(), Error> {
    let steps = bpf.as_chunks::<8>().0.len();
    if steps <= MOST_STEPS { Ok(()) } else { Err(too_long(steps)) }
}

fn too_long(steps: usize) -> Error {
    let why =
        format!("makes a filter of {steps} steps or so; the kernel takes {MOST_STEPS}: name fewer calls and arguments");
    Error::new("linux.seccomp.syscalls", why)
}
