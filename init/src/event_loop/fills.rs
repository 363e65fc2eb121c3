//! New volumes get what an image has before the first start of a container that uses them.

use std::ffi::OsStr;

use garboard_runtime::fill;

use super::Supervisor;
use super::containers::LONGEST_REASON;
use crate::supervise::{Action, Exit, Fault};
use crate::work::report;
use crate::worker::Kind;

impl Supervisor {
    /// Whether the launch has to wait for a worker, which is started if need be. Once in a boot at most: what a container makes
    /// of its volume later, emptiness included, is its own business.
    pub(super) fn fills_first(&mut self, index: usize) -> bool {
        let Some((container, unit)) = self.plan.containers.get(index).zip(self.units.get_mut(index)) else {
            return false;
        };
        if unit.filled || container.fills.is_empty() {
            return false;
        }
        if self.workers.iter().any(|worker| worker.kind == Kind::Fill(index)) {
            return true;
        }
        if !container.fills.iter().any(fill::is_needed) {
            unit.filled = true;
            self.dirty.push(index);
            return false;
        }
        let (number, plan) = (index.to_string(), self.options.plan.clone());
        self.start_worker(Kind::Fill(index), &[OsStr::new(&number), plan.as_os_str()]);
        true
    }

    /// Why the worker will have failed when it ends.
    pub(super) fn fill_failed(&mut self, index: usize, report: report::Fill) {
        if let Some(unit) = self.units.get_mut(index) {
            unit.fill_fault = report.fault;
        }
    }

    /// The launch goes on, or has failed.
    pub(super) fn fill_ended(&mut self, index: usize, exit: Exit) {
        let Some(unit) = self.units.get_mut(index) else { return };
        let mut text = std::mem::take(&mut unit.fill_fault);
        if exit.success() {
            unit.filled = true;
            self.dirty.push(index);
            self.actions.push_back(Action::Launch(index));
            return;
        }
        if text.is_empty() {
            text = format!("fill its volumes: the worker {}", super::view::ending(exit));
        }
        text.truncate(text.floor_char_boundary(LONGEST_REASON));
        self.launch_failed(index, Fault { text, transient: false });
    }
}
