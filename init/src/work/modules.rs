//! The `modules` worker: what the first container could start without.

use super::{emit, report};
use crate::boot::{self, Trace, modules, order};

/// Loads the plan's modules in order. When this worker has ended, however it did, PID 1 forbids loading any more
/// ([`modules::lock`]).
pub fn run() -> i32 {
    let (plan, cmdline) = match (boot::read_plan(), boot::read_cmdline()) {
        (Ok(plan), Ok(cmdline)) => (plan, cmdline),
        (Err(error), _) | (_, Err(error)) => {
            return emit(&report::Modules { failed: vec![error.to_string()], ..report::Modules::default() });
        }
    };
    let mut trace = Trace::default();
    let faults = modules::load(&plan.modules, &cmdline, &mut trace);
    let absent = faults.iter().map(|fault| order::module_name(&fault.object)).collect();
    let failed = faults.iter().map(ToString::to_string).collect();
    let loaded = u32::try_from(trace.steps().len()).unwrap_or(u32::MAX);
    emit(&report::Modules { loaded, failed, absent })
}
