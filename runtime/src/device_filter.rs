//! Device filters that are loaded already. The kernel checks each program for longer than a cgroup takes to make, and containers that
//! declare no devices all have the same.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::failure::{Context, Failure, Step};
use crate::sys;

/// Different programs that are kept: each takes a descriptor.
const KEPT: usize = 16;

/// Programs by what they are made of, for every start of a launcher that lives on.
#[derive(Default)]
pub struct DeviceFilters(Cell<Vec<(Vec<u8>, OwnedFd)>>);

impl DeviceFilters {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn attach(&self, dir: BorrowedFd<'_>, program: &[u8]) -> Result<(), Failure> {
        let mut kept = self.0.take();
        let attached = match kept.iter().find(|(of, _)| of == program) {
            Some((_, loaded)) => attach(dir, loaded.as_fd()),
            None => load(program).and_then(|loaded| {
                let attached = attach(dir, loaded.as_fd());
                if kept.len() < KEPT {
                    kept.push((program.to_owned(), loaded));
                }
                attached
            }),
        };
        self.0.set(kept);
        attached
    }
}

impl std::fmt::Debug for DeviceFilters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceFilters").finish_non_exhaustive()
    }
}

/// Attaches the filter that `program` is to the cgroup `dir`, by way of those that are loaded if there are any to be kept.
pub(crate) fn apply(loaded: Option<&DeviceFilters>, dir: BorrowedFd<'_>, program: &[u8]) -> Result<(), Failure> {
    match loaded {
        Some(loaded) => loaded.attach(dir, program),
        None => attach(dir, load(program)?.as_fd()),
    }
}

/// Whether the kernel takes this filter from this process.
#[cfg(feature = "cli")]
pub(crate) fn can_load(program: &[u8]) -> bool {
    load(program).is_ok()
}

fn load(program: &[u8]) -> Result<OwnedFd, Failure> {
    sys::bpf::load_device_filter(program).at(Step::LoadDeviceFilter, || "program")
}

fn attach(dir: BorrowedFd<'_>, loaded: BorrowedFd<'_>) -> Result<(), Failure> {
    sys::bpf::attach_device_filter(dir, loaded).at(Step::AttachDeviceFilter, || "program")
}
