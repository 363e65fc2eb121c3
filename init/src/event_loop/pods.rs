//! The namespaces that a pod's containers share: made before the first of them is launched, kept until none is left.

use std::os::fd::OwnedFd;

use garboard_runtime::failure::Failure;
use garboard_runtime::launch::Launch;
use garboard_runtime::shared::Shared;

use super::Supervisor;
use super::persist::Descriptors;
use crate::sys::fd::number;

impl Supervisor {
    /// Puts a launch into its container's pod, if it has one.
    pub(super) fn put_in_pod(&mut self, index: usize, launch: &mut Launch) -> Result<(), Failure> {
        let Some(container) = self.plan.containers.get(index) else { return Ok(()) };
        let Some(pod) = container.pod else { return Ok(()) };
        let members = || self.plan.containers.iter().zip(&self.units).filter(move |(other, _)| other.pod == Some(pod));
        let Some(founder) = self.plan.containers.iter().position(|other| other.pod == Some(pod)) else {
            return Ok(());
        };
        // One that begins anew has nothing of the one before, as a container begins anew.
        let lives = members().any(|(_, unit)| unit.pid != 0);
        let Some(holder) = self.units.get_mut(founder) else { return Ok(()) };
        if !lives || holder.shared.is_none() {
            holder.shared = Some(Shared::of(launch)?);
            self.dirty.push(founder);
        }
        if let Some(shared) = &holder.shared {
            shared.join(launch);
        }
        Ok(())
    }
}

/// For the next incarnation.
pub(super) fn descriptors(shared: Option<&Shared>) -> Descriptors {
    let number = |pick: fn(&Shared) -> Option<&OwnedFd>| number(shared.and_then(pick));
    [
        number(|s| s.user.as_ref()),
        number(|s| s.network.as_ref()),
        number(|s| s.ipc.as_ref()),
        number(|s| s.uts.as_ref()),
    ]
}

/// From the one before; `None`: there were none.
pub(super) fn adopt(numbers: Descriptors, take: impl FnMut(i32) -> Option<OwnedFd>) -> Option<Shared> {
    let [user, network, ipc, uts] = numbers.map(take);
    let shared = Shared { user, network, ipc, uts };
    let any = shared.user.is_some() || shared.network.is_some() || shared.ipc.is_some() || shared.uts.is_some();
    any.then_some(shared)
}
