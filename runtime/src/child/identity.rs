//! Who the process is: ids, groups, capabilities.

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use crate::failure::{Context, Failure, Step};
use crate::launch::{Capabilities, Process};

/// Ids 0 of the new user namespace, or those of `process` where it has none 0, with all its capabilities, which whoever is in it first has. And none of the
/// launcher's groups unless they are to be kept.
pub(crate) fn become_root(process: &Process, keep_groups: bool) -> Result<(), Failure> {
    let root_or = |id: u32, set: &dyn Fn(u32) -> Result<(), Errno>| match set(0) {
        Err(Errno::INVAL) if id != 0 => set(id),
        other => other,
    };
    root_or(process.gid, &set_gid).at(Step::BecomeRoot, || "gid 0")?;
    root_or(process.uid, &set_uid).at(Step::BecomeRoot, || "uid 0")?;
    if keep_groups {
        return Ok(());
    }
    match set_thread_groups(&[]) {
        // Given up for good in a namespace that an ordinary user mapped; the launcher's groups stay, unmapped.
        Err(Errno::PERM) => Ok(()),
        other => other.at(Step::SetUser, || "supplementary groups to none"),
    }
}

/// Gives up the bounding set and whatever a change of user would silently keep or lose.
pub(crate) fn limit_bounding_set(capabilities: &Capabilities) -> Result<(), Failure> {
    for number in 0..64 {
        let bit = 1_u64.checked_shl(number).unwrap_or(0);
        if capabilities.bounding & bit != 0 {
            continue;
        }
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(bit)) {
            Ok(()) => {}
            // Past the kernel's last capability.
            Err(Errno::INVAL) => break,
            Err(errno) => {
                return Err(Failure::new(Step::SetCapabilities, format!("bounding set without {number}"), errno));
            }
        }
    }
    Ok(())
}

/// `CAP_SYS_ADMIN` as a mask: without no_new_privs, only who has it may restrict itself for good.
pub(crate) const MAY_RESTRICT_ITSELF: u64 = 1 << 21;

/// Becomes the program's user, then holds exactly the capabilities given, and `retained` until it executes the program: exec
/// computes the sets anew and asks for the inheritable, the ambient and the bounding one only (capabilities(7)).
pub(crate) fn become_user(process: &Process, keep_groups: bool, retained: u64) -> Result<(), Failure> {
    set_keep_capabilities(true).at(Step::SetCapabilities, || "keep over setuid")?;
    if !keep_groups {
        set_groups(process)?;
    }
    set_gid(process.gid).at(Step::SetUser, || format!("gid to {}", process.gid))?;
    set_uid(process.uid).at(Step::SetUser, || format!("uid to {}", process.uid))?;
    set_keep_capabilities(false).at(Step::SetCapabilities, || "not kept any more")?;
    set_sets(&process.capabilities, retained)
}

fn set_groups(process: &Process) -> Result<(), Failure> {
    // One that is named twice, as callers do, is there once.
    let unique: std::collections::BTreeSet<u32> = process.additional_gids.iter().copied().collect();
    let groups: Vec<Gid> = unique.into_iter().map(Gid::from_raw).collect();
    match set_thread_groups(&groups) {
        // Given up with a user's single mapping, in which there is no group but one.
        Err(Errno::PERM) if process.additional_gids.iter().all(|gid| *gid == process.gid) => Ok(()),
        other => other.at(Step::SetUser, || format!("supplementary groups to {:?}", process.additional_gids)),
    }
}

/// Those of the sets that this process has to give: "Runtimes SHOULD NOT fail if the container configuration requests capabilities
/// that cannot be granted."
fn set_sets(wanted: &Capabilities, retained: u64) -> Result<(), Failure> {
    let held = held().at(Step::SetCapabilities, || "held")?;
    let granted = |set: u64| CapabilitySet::from_bits_retain(set & held);
    let sets = CapabilitySets {
        effective: granted(wanted.effective | retained),
        permitted: granted(wanted.permitted | retained),
        // Nor are those inheritable that are out of bounds (capabilities(7), "Programmatically adjusting capability sets").
        inheritable: granted(wanted.inheritable & wanted.bounding),
    };
    set_capabilities(None, sets).at(Step::SetCapabilities, || format!("permitted {:#x}", wanted.permitted))?;
    clear_ambient_capability_set().at(Step::SetCapabilities, || "ambient none")?;
    // The kernel grants none that isn't in the other two sets.
    let ambient = wanted.ambient & wanted.permitted & wanted.inheritable & wanted.bounding & held;
    for number in 0..64 {
        let bit = 1_u64.checked_shl(number).unwrap_or(0);
        if ambient & bit != 0 {
            configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(bit), true)
                .at(Step::SetCapabilities, || format!("ambient {number}"))?;
        }
    }
    Ok(())
}

/// The capabilities that this process may put in force, as a mask by number.
pub(crate) fn held() -> Result<u64, Errno> {
    capabilities(None).map(|sets| sets.permitted.bits())
}

fn set_uid(id: u32) -> Result<(), Errno> {
    let uid = Uid::from_raw(id);
    set_thread_res_uid(uid, uid, uid)
}

fn set_gid(id: u32) -> Result<(), Errno> {
    let gid = Gid::from_raw(id);
    set_thread_res_gid(gid, gid, gid)
}
