//! The plan's file: [`MAGIC`], a little-endian [`VERSION`], then in postcard's wire format the seccomp filters, which of them each
//! container has, and the [`Plan`] without them.
//!
//! Most containers have the same filter. A thousand of them would be two thirds of the file, which PID 1 waits for at every boot and after every
//! crash, and most of its memory, which the kernel goes through at every launch: those that are equal are one piece of memory.

use super::Plan;
use crate::launch::Seccomp;

/// First bytes of a plan file.
pub const MAGIC: [u8; 8] = *b"GARBPLAN";
/// Version of the encoding; PID 1 and its plan are baked together, so only the same version is accepted.
pub const VERSION: u32 = 6;
/// No plan is larger, in bytes.
pub const MAX_SIZE: usize = 64 << 20;

/// Why bytes are not a plan.
#[derive(Debug, PartialEq, Eq)]
pub enum PlanError {
    /// No [`MAGIC`].
    NotAPlan,
    /// Made for another version of PID 1.
    Version(u32),
    /// Larger than [`MAX_SIZE`].
    TooLarge(usize),
    /// Truncated, followed by more, or not a plan after the header.
    Malformed(postcard::Error),
}

impl std::fmt::Display for PlanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotAPlan => write!(f, "not a plan: it does not begin with {:?}", String::from_utf8_lossy(&MAGIC)),
            Self::Version(v) => {
                write!(
                    f,
                    "plan of version {v}, this PID 1 obeys version {VERSION}: build initrd and system image together"
                )
            }
            Self::TooLarge(n) => write!(f, "plan of {n} bytes; the limit is {MAX_SIZE}"),
            Self::Malformed(e) => write!(f, "malformed plan: {e}"),
        }
    }
}

impl std::error::Error for PlanError {}

impl Plan {
    /// The plan file's bytes. Equal plans give equal bytes.
    pub fn encode(&self) -> Result<Vec<u8>, PlanError> {
        let header = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
        let mut filters: Vec<&Seccomp> = Vec::new();
        let launches = self.containers.iter().map(|container| &container.launch);
        let which: Vec<Option<u32>> = launches.map(|launch| launch.seccomp().map(|s| place(&mut filters, s))).collect();
        let bytes = postcard::to_extend(&(filters, which, self), header).map_err(PlanError::Malformed)?;
        if bytes.len() > MAX_SIZE { Err(PlanError::TooLarge(bytes.len())) } else { Ok(bytes) }
    }

    /// The plan in a plan file's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, PlanError> {
        if bytes.len() > MAX_SIZE {
            return Err(PlanError::TooLarge(bytes.len()));
        }
        let rest = bytes.strip_prefix(&MAGIC).ok_or(PlanError::NotAPlan)?;
        let (version, body) = rest.split_first_chunk::<4>().ok_or(PlanError::NotAPlan)?;
        match u32::from_le_bytes(*version) {
            VERSION => {}
            other => return Err(PlanError::Version(other)),
        }
        let unclear = || PlanError::Malformed(postcard::Error::DeserializeBadEncoding);
        let (contents, rest) = postcard::take_from_bytes(body).map_err(PlanError::Malformed)?;
        let (filters, which, mut plan): (Vec<Seccomp>, Vec<Option<u32>>, Self) = contents;
        if !rest.is_empty() || which.len() != plan.containers.len() {
            return Err(unclear());
        }
        for (container, which) in plan.containers.iter_mut().zip(which) {
            let Some(which) = which else { continue };
            let filter = usize::try_from(which).ok().and_then(|which| filters.get(which)).ok_or_else(unclear)?;
            container.launch.set_seccomp(filter.clone());
        }
        Ok(plan)
    }
}

/// The place of a filter among those that there are; it is added if it isn't one of them.
fn place<'a>(filters: &mut Vec<&'a Seccomp>, filter: &'a Seccomp) -> u32 {
    // A neighbour's is the likeliest. Plans have few that differ.
    let place = filters.iter().rposition(|other| *other == filter).unwrap_or_else(|| {
        filters.push(filter);
        filters.len().saturating_sub(1)
    });
    u32::try_from(place).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{
        Access, Addressing, Console, Container, Data, MemoryVolume, Module, Network, PackedLaunch, Pod,
    };
    use super::*;
    use crate::launch::{Launch, Root};

    /// A plan of everything but containers.
    fn plan() -> Plan {
        Plan {
            appliance: "shop".to_owned(),
            hostname: "shop".to_owned(),
            modules: vec![Module {
                path: "/garboard/modules/virtio_net.ko".to_owned(),
                aliases: vec!["virtio:d00000001v*".to_owned()],
                parameters: String::new(),
            }],
            needs: vec!["memory".to_owned()],
            sysctls: vec![("vm.swappiness".to_owned(), "0".to_owned())],
            network: Network { address: Addressing::Dhcp, interface: None, dns: vec!["192.0.2.1".to_owned()] },
            data: Some(Data { uuid: [7; 16], required: true }),
            memory_volumes: vec![MemoryVolume { path: "/run/garboard/volumes/cache".to_owned(), size: Some(1 << 20) }],
            console: Console { logs: true, status: true, access: Access::Status },
            log_budget: 8 << 20,
            watchdog_seconds: Some(30),
            status_vsock: Some(1024),
            pods: vec![Pod { name: "shop".to_owned() }],
            containers: Vec::new(),
        }
    }

    #[test]
    fn a_plan_comes_back() {
        assert_eq!(Plan::decode(&plan().encode().unwrap()), Ok(plan()));
    }

    #[test]
    fn what_is_no_plan_is_named() {
        let good = plan().encode().unwrap();
        assert_eq!(Plan::decode(b"GARB"), Err(PlanError::NotAPlan));
        assert_eq!(Plan::decode(&MAGIC), Err(PlanError::NotAPlan));
        let mut other = good.clone();
        other[MAGIC.len()] ^= 0xff;
        assert!(matches!(Plan::decode(&other), Err(PlanError::Version(_))));
        assert!(matches!(Plan::decode(&good[..good.len() - 1]), Err(PlanError::Malformed(_))));
        assert!(matches!(Plan::decode(&[&good[..], &[0]].concat()), Err(PlanError::Malformed(_))));
        assert_eq!(Plan::decode(&vec![0; MAX_SIZE + 1]), Err(PlanError::TooLarge(MAX_SIZE + 1)));
    }

    /// Its filter's bytes are all this one.
    fn container(filter: Option<u8>) -> Container {
        let seccomp = filter.map(|byte| Seccomp { bpf: vec![byte; 800].into(), flags: 0, listener: None });
        let launch = Launch { seccomp, ..Launch::bare(Root::default()) };
        Container::bare("web", PackedLaunch::of(launch).unwrap())
    }

    fn with_filters(filters: &[Option<u8>]) -> Plan {
        Plan { containers: filters.iter().copied().map(container).collect(), ..plan() }
    }

    #[test]
    fn filters_that_are_alike_are_there_once() {
        let plan = with_filters(&[Some(1), Some(1), None, Some(2), Some(1)]);
        let bytes = plan.encode().unwrap();
        let again = Plan::decode(&bytes).unwrap();
        assert_eq!(again, plan);
        assert_eq!(bytes.windows(800).filter(|window| window.iter().all(|byte| *byte == 1)).count(), 1);
        let filter = |index: usize| &again.containers[index].launch.seccomp().unwrap().bpf;
        let same = |a, b| std::sync::Arc::ptr_eq(filter(a), filter(b));
        assert_eq!((same(0, 1), same(0, 4), same(0, 3)), (true, true, false));
    }

    #[test]
    fn a_container_whose_filter_is_not_there_is_no_container() {
        let plan = with_filters(&[Some(1)]);
        let filters = vec![plan.containers[0].launch.seccomp().unwrap()];
        let decoded = |which: &[Option<u32>]| {
            let header = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
            Plan::decode(&postcard::to_extend(&(&filters, which, &plan), header).unwrap())
        };
        assert_eq!(decoded(&[Some(0)]).as_ref(), Ok(&plan));
        for wrong in [&[Some(1)][..], &[], &[Some(0), None]] {
            assert!(matches!(decoded(wrong), Err(PlanError::Malformed(_))), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_plan_or_an_error(body in proptest::collection::vec(any::<u8>(), 0..512)) {
            let bytes = [&MAGIC[..], &VERSION.to_le_bytes(), &body].concat();
            if let Ok(plan) = Plan::decode(&bytes) {
                prop_assert_eq!(Plan::decode(&plan.encode().unwrap()), Ok(plan));
            }
        }

        #[test]
        fn one_changed_byte_never_panics(at in any::<proptest::sample::Index>(), flip in 1_u8..) {
            let mut bytes = with_filters(&[Some(1), None]).encode().unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let _ = Plan::decode(&bytes);
        }
    }
}
