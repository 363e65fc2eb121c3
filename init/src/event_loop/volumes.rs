//! A container's volumes are made, filled and opened by a worker: their disk may take its time, and PID 1 never waits for one.

use std::ffi::OsStr;

use garboard_runtime::volumes;
use rustix::io::Errno;
use rustix::process::PidfdGetfdFlags;

use super::Supervisor;
use super::containers::LONGEST_REASON;
use super::setup::raise_descriptor_limit;
use crate::escape::one_line;
use crate::supervise::{Action, Exit, Fault};
use crate::work::report;
use crate::worker::{Kind, Worker};

/// So many work at once on the data filesystem, and as many where there is memory: one that doesn't answer holds up its own. The record that
/// keeps who is at work has an end.
pub(super) const AT_ONCE: usize = 4;

impl Supervisor {
    /// Whether the launch has to wait for a worker, which is started if there is room. What it opens is kept for every later start.
    pub(super) fn opens_volumes_first(&mut self, index: usize) -> bool {
        let Some((container, unit)) = self.plan.containers.get(index).zip(self.units.get(index)) else {
            return false;
        };
        if unit.volumes.is_some() || !container.launch.has_volumes() {
            return false;
        }
        if self.workers.iter().any(|worker| worker.kind == Kind::Volumes(index)) {
            return true;
        }
        if self.opens_many(container.launch.uses_data()) {
            if !self.unopened.contains(&index) {
                self.unopened.push_back(index);
            }
            return true;
        }
        // Filled once in a boot at most: what a container makes of its volume later, emptiness included, is its own business, and that of
        // all who share it. It may be mounted there.
        let filled = |directory: &str| {
            let mut all = self.plan.containers.iter().zip(&self.units).filter(|(_, unit)| unit.filled);
            all.any(|(container, _)| container.fills.iter().any(|fill| fill.directory == directory))
        };
        let fills = container.fills.iter().enumerate().filter(|(_, fill)| !unit.filled && !filled(&fill.directory));
        let fills: Vec<String> = fills.map(|(number, _)| number.to_string()).collect();
        let (fills, number, plan) = (fills.join(","), index.to_string(), self.options.plan.clone());
        self.start_worker(Kind::Volumes(index), &[OsStr::new(&fills), OsStr::new(&number), plan.as_os_str()]);
        true
    }

    /// Whether there is no room for a worker more, on the data filesystem or elsewhere.
    fn opens_many(&self, on_data: bool) -> bool {
        let there = |index: usize| self.plan.containers.get(index).is_some_and(|c| c.launch.uses_data() == on_data);
        self.at_work(|kind| matches!(kind, Kind::Volumes(index) if there(index))) >= AT_ONCE
    }

    /// Lets those go on that wait for room, as far as there is some.
    pub(super) fn open_more(&mut self) {
        for index in std::mem::take(&mut self.unopened) {
            // Who still finds no room waits again.
            if self.state.wants_launch(index) && !self.opens_volumes_first(index) {
                self.actions.push_back(Action::Launch(index));
            }
        }
    }

    /// Takes the opened directories out of the worker, which waits for that; or keeps why it will have failed when it ends.
    pub(super) fn take_volumes(&mut self, index: usize, report: report::Volumes) {
        let open = self.units.iter().flat_map(|unit| &unit.volumes).map(Vec::len).fold(0, usize::saturating_add);
        raise_descriptor_limit(&self.plan, open.saturating_add(report.opened.len()));
        let Some((container, unit)) = self.plan.containers.get(index).zip(self.units.get_mut(index)) else { return };
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.kind == Kind::Volumes(index)) else { return };
        if let Some(text) = report.fault {
            unit.volumes_fault = Some(Fault { text: one_line(&text), transient: report.transient });
            return;
        }
        let launch = container.launch.unpack().unwrap_or_default();
        let paths = volumes::of(&launch).map(|(path, _)| path.to_owned());
        let taken = worker.pidfd.as_ref().ok_or(Errno::SRCH).and_then(|pidfd| {
            let take = |number: &i32| rustix::process::pidfd_getfd(pidfd, *number, PidfdGetfdFlags::empty());
            report.opened.iter().map(take).collect::<Result<Vec<_>, _>>()
        });
        match taken {
            Ok(taken) => {
                unit.volumes = Some(paths.zip(taken).collect());
                unit.filled = true;
            }
            Err(errno) => {
                let text = format!("take its volumes from their worker: {errno}");
                unit.volumes_fault = Some(Fault { text, transient: true });
            }
        }
        // It has nothing more to do. That nobody hears it any more is not seen by it for as long as a child that sets itself up has a copy
        // of our end.
        worker.kill();
        if unit.volumes.is_some() {
            self.actions.push_back(Action::Launch(index));
        }
        self.dirty.push(index);
        if let Some(output) = worker.output.take() {
            self.sources.remove(&output);
            self.common_dirty = true;
        }
    }

    /// The launch goes on already, or has failed.
    pub(super) fn volumes_ended(&mut self, index: usize, worker: &Worker, exit: Exit) {
        self.open_more();
        let Some(unit) = self.units.get_mut(index) else { return };
        let fault = unit.volumes_fault.take();
        if unit.volumes.is_some() {
            return;
        }
        let unsaid = || format!("open its volumes: the worker {}", super::telling::ending(exit));
        // What the process before was told, or opened, is lost with it.
        let mut fault = fault.unwrap_or_else(|| Fault { text: unsaid(), transient: exit.success() || worker.adopted });
        fault.text.truncate(fault.text.floor_char_boundary(LONGEST_REASON));
        self.launch_failed(index, fault);
    }
}
