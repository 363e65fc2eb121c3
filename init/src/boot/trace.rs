//! When each step of the boot was reached.

use std::borrow::Cow;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A boot has far fewer steps; more are dropped, so that a trace can't grow without bound.
const MAX_STEPS: usize = 512;

/// One step that was finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What was finished.
    pub name: Cow<'static, str>,
    /// When, in microseconds of `CLOCK_BOOTTIME`: since the kernel started its clock.
    pub at_us: u64,
}

/// The steps, in the order they were finished.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    steps: Vec<Step>,
}

impl Trace {
    /// A trace whose first step is this moment. Call it first thing in `main`: what lies before is the kernel's.
    pub fn begin() -> Self {
        let mut trace = Self { steps: Vec::with_capacity(64) };
        trace.mark("exec");
        trace
    }

    /// Notes that a step was finished just now.
    pub fn mark(&mut self, name: impl Into<Cow<'static, str>>) {
        if self.steps.len() < MAX_STEPS {
            self.steps.push(Step { name: name.into(), at_us: now_us() });
        }
    }

    /// The steps so far.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// `CLOCK_BOOTTIME` in microseconds.
pub fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let micros = u64::try_from(now.tv_nsec).unwrap_or(0).checked_div(1000).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_keep_order_and_time() {
        let mut trace = Trace::begin();
        trace.mark("modules");
        let [first, second] = trace.steps() else { panic!("two steps") };
        assert_eq!((first.name.as_ref(), second.name.as_ref()), ("exec", "modules"));
        assert!(second.at_us >= first.at_us && first.at_us > 0);
    }

    #[test]
    fn is_bounded() {
        let mut trace = Trace::begin();
        (0..2 * MAX_STEPS).for_each(|_| trace.mark("again"));
        assert_eq!(trace.steps().len(), MAX_STEPS);
    }
}
