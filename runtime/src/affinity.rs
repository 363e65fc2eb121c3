//! Which processors a process runs on (runtime spec, `execCPUAffinity`): for a process that is executed in a running container,
//! before and after it enters the container's cgroup.

use crate::failure::{Context, Failure, Step};
use crate::sys;

/// Lets process `pid` (0: this one) run on these processors only: a bit mask, the lowest number in the first byte's lowest bit, as
/// in [`crate::launch::ExecAffinity`]. An empty mask changes nothing.
pub fn set(pid: i32, mask: &[u8]) -> Result<(), Failure> {
    if mask.is_empty() {
        return Ok(());
    }
    sys::schedule::set_affinity(pid, mask).at(Step::SetScheduler, || "processors (execCPUAffinity)")
}

/// Lets process `pid` run on whatever its cgroup has. A process that may not is no worse off than before, and runs all the same.
pub fn lift(pid: i32) {
    /// More than any machine has; the kernel takes what there is.
    const ALL: [u8; 1024] = [0xff; 1024];
    let _ = sys::schedule::set_affinity(pid, &ALL);
}

#[cfg(test)]
mod tests {
    use rustix::thread::{CpuSet, sched_getaffinity};

    #[test]
    fn a_thread_stays_on_its_processor() {
        let before = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|cpu| before.is_set(*cpu)).unwrap();
        let mut mask = vec![0_u8; first / 8 + 1];
        mask[first / 8] = 1 << (first % 8);
        super::set(0, &mask).unwrap();
        let after = sched_getaffinity(None).unwrap();
        assert_eq!((after.count(), after.is_set(first)), (1, true));
        super::lift(0);
        assert_eq!(sched_getaffinity(None).unwrap(), before);
        super::set(0, &[]).unwrap();
        // None of these exists.
        let absent = [vec![0; 1000], vec![1]].concat();
        assert!(super::set(0, &absent).unwrap_err().to_string().contains("EINVAL"));
    }
}
