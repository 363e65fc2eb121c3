//! Doing what the automaton says, and telling it what becomes of children.

use std::os::fd::{AsFd, OwnedFd};

use garboard_runtime::cgroup::{self, AbsentController};
use garboard_runtime::report::{self, Report};
use garboard_runtime::start::{NOT_LET_GO, Site, Stages, Started};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, waitid};

use super::signals::CrashPoint;
use super::sources::Source;
use super::{Supervisor, Unit};
use crate::clock::now_ms;
pub(super) use crate::launch::LONGEST_REASON;
use crate::launch::{self, fault, in_short, os_fault, output_pipe};
use crate::supervise::{Event, Exit, Fault, Phase};
use crate::sys::signal;
use crate::sys::wait::ended_child;

/// Children reaped in one turn of the loop.
const REAPED_PER_TURN: usize = 1024;
/// The status with which a reaper or a shell ends when SIGKILL has ended its program.
const OF_SIGKILL: i32 = 128 + libc::SIGKILL;

impl Supervisor {
    pub(super) fn launch(&mut self, index: usize) {
        // One that was ordered, stopped and is wanted again is served by what comes of the order.
        if !self.state.wants_launch(index) || self.launchers.has_order(index) {
            return;
        }
        if self.opens_volumes_first(index) {
            self.persist();
            return;
        }
        log::trace!("launch {index}");
        if self.left.remove(&index) {
            self.remove_cgroup(index);
        }
        if self.entrust(index) {
            return;
        }
        match self.try_launch(index) {
            Ok((started, output)) => {
                let degraded = in_short(&started.degraded);
                self.launched(index, started.pid, started.report, output, degraded);
            }
            Err(fault) => self.launch_failed(index, fault),
        }
        // From here on the child is known to the next incarnation too.
        self.persist();
    }

    /// There is a child, which sets itself up.
    pub(super) fn launched(&mut self, index: usize, pid: i32, report: OwnedFd, output: OwnedFd, degraded: String) {
        // In this order, so that where the program runs already it is told that it does before what it has said.
        self.sources.add_hang_up(&report, Source::Report(index));
        self.sources.add_readable(&output, Source::Output(index));
        if let Some(unit) = self.units.get_mut(index) {
            unit.pid = pid;
            unit.output = Some(output);
            unit.degraded = degraded;
            unit.asked_to_stop = false;
            unit.kills.begin();
        }
        self.reports.insert(index, report);
        self.pids.insert(pid, index);
        let name = format!("launched {}", self.name(index));
        self.trace.mark(name);
        self.tell(Event::Launched(index));
    }

    /// A wanted launch made no child.
    pub(super) fn launch_failed(&mut self, index: usize, fault: Fault) {
        if self.state.wants_launch(index) {
            if fault.transient {
                // Whatever may be left of an earlier one would be in the next one's way, too.
                self.kill_cgroup(index);
            }
            self.tell(Event::LaunchFailed(index, fault));
        }
    }

    fn try_launch(&mut self, index: usize) -> Result<(Started, OwnedFd), Fault> {
        self.listen_to(index).map_err(|e| os_fault("make its notification socket", &e))?;
        let run_dir = self.run_dir();
        let missing = || Fault { text: "no such container".into(), transient: false };
        let packed = self.plan.containers.get(index).map(|container| &container.launch).ok_or_else(missing)?;
        let mut launch = packed.unpack().map_err(|f| fault(&f))?;
        self.put_in_pod(index, &mut launch).map_err(|f| fault(&f))?;
        let container = self.plan.containers.get(index).ok_or_else(missing)?;
        let unit = self.units.get_mut(index).ok_or_else(missing)?;
        let (reader, writer) = output_pipe()?;
        let site = Site {
            cgroup_parent: self.cgroup.as_ref().map(AsFd::as_fd),
            absent_controller: AbsentController::Record,
            device_filters: Some(&self.device_filters),
            volumes: unit.volumes.as_deref().unwrap_or_default(),
            root: None,
        };
        let started = launch::start(container, &launch, &run_dir, &site, &writer, &Stages::default())?;
        Ok((started, reader))
    }

    /// Asks the container's first process to stop.
    pub(super) fn stop(&mut self, index: usize) {
        let number = self.plan.containers.get(index).map_or(libc::SIGTERM, |c| i32::from(c.stop_signal));
        self.signal(index, number);
        if let Some(unit) = self.units.get_mut(index) {
            unit.asked_to_stop = true;
            self.dirty.push(index);
        }
    }

    /// Kills every process of the container.
    pub(super) fn kill(&mut self, index: usize) {
        self.kill_cgroup(index);
        self.signal(index, libc::SIGKILL);
    }

    fn signal(&self, index: usize, number: i32) {
        // It may be gone in this moment; its exit is on its way then.
        let _ = self.units.get(index).map(|unit| signal::kill(unit.pid, number));
    }

    pub(super) fn kill_cgroup(&self, index: usize) {
        if let Some(parent) = &self.cgroup
            && let Ok(dir) = cgroup::open(parent, self.name(index))
            && let Err(failure) = cgroup::kill(&dir)
        {
            log::warn!("kill {}: {failure}", self.name(index));
        }
    }

    /// Takes every child that ended: containers, workers, and strangers whose parents left them to us.
    ///
    /// It is reaped when what follows from its end is kept: should PID 1 crash before that, the next incarnation finds it.
    pub(super) fn reap(&mut self) {
        for _ in 0..REAPED_PER_TURN {
            let Some(pid) = ended_child() else { return };
            if let Some(exit) =
                waitid(WaitId::Pid(pid), of_any_kind(WaitIdOptions::NOWAIT)).ok().flatten().and_then(exit_of)
            {
                if !self.pids.contains_key(&pid.as_raw_pid()) {
                    self.hear_launchers();
                }
                match self.pids.get(&pid.as_raw_pid()).copied() {
                    Some(index) => self.ended(index, exit),
                    None => {
                        if let Some(index) = self.launchers.stray(pid.as_raw_pid())
                            && self.units.get(index).is_some_and(|unit| unit.pid == 0)
                        {
                            self.left.insert(index);
                        }
                        self.worker_ended(pid.as_raw_pid(), exit);
                    }
                }
                self.crash_if_asked(CrashPoint::Reaping);
                self.persist();
                self.crash_if_asked(CrashPoint::Reaped);
            }
            let _ = waitid(WaitId::Pid(pid), of_any_kind(WaitIdOptions::empty()));
        }
        self.reap_again = true;
    }

    fn ended(&mut self, index: usize, exit: Exit) {
        // What it had to say of its launch and on its output comes first.
        self.take_report(index);
        self.take_notifications(index);
        self.drain_output(index);
        self.forget_questions(index);
        let phase = self.state.units().get(index).map(|unit| unit.phase);
        let now = now_ms();
        self.count_kills(index, now);
        let report = self.reports.remove(&index);
        self.launchers.done(index);
        let Some(unit) = self.units.get_mut(index) else { return };
        for fd in [unit.output.take(), report].into_iter().flatten() {
            self.sources.remove(&fd);
        }
        self.pids.remove(&std::mem::take(&mut unit.pid));
        unit.out_of_memory = may_lack_memory(phase, exit) && unit.kills.are_recent(now);
        self.tell_kills_of(index, now);
        // Unless it has said otherwise.
        let text = format!("it {} before its program was executed", self.ending_of(index, exit));
        // It has done nothing if its launcher, a worker, had gone.
        let transient = exit == Exit::Code(NOT_LET_GO);
        self.tell(Event::SetupFailed(index, Fault { text, transient }));
        self.left.insert(index);
        self.tell(Event::Exited(index, exit));
    }

    /// Removes the cgroups of those that have ended. That takes its time, so what follows from their ends is done first.
    pub(super) fn remove_cgroups(&mut self) {
        while let Some(index) = self.left.pop_first() {
            // What was ordered begins with its removal.
            let ordered = self.launchers.has_order(index);
            if self.units.get(index).is_some_and(|unit| unit.is_over(ordered)) {
                self.remove_cgroup(index);
            }
        }
    }

    fn remove_cgroup(&self, index: usize) {
        if let Some(parent) = &self.cgroup
            && cgroup::remove(parent, self.name(index)).is_err()
        {
            // Processes outlived the first one (`pid: host`). The next launch finds the cgroup empty, or tries again later.
            self.kill_cgroup(index);
        }
    }

    /// Reads what became of a launch.
    pub(super) fn take_report(&mut self, index: usize) {
        let Some(pipe) = self.reports.get(&index) else { return };
        let event = match report::read(pipe) {
            Report::Pending => return,
            Report::Executed => Some(Event::Executed(index)),
            Report::Failed(failure) => Some(Event::SetupFailed(index, fault(&failure))),
            // Its exit, which is on its way, tells more.
            Report::Died => None,
        };
        let pipe = self.reports.remove(&index);
        self.launchers.done(index);
        if let Some(pipe) = &pipe {
            self.sources.remove(pipe);
        }
        self.dirty.push(index);
        if event == Some(Event::Executed(index)) {
            let name = format!("executed {}", self.name(index));
            self.trace.mark(name);
            self.hasten_work(super::workers::HOLD_EXECUTED_MS);
        }
        if let Some(event) = event {
            self.tell(event);
        }
        // The pipe has it no more; and its number may be another one's as soon as it is closed.
        self.persist();
        drop(pipe);
    }
}

impl Unit {
    /// Whether what is in its cgroup is of a run that is over: it has no process, nor is one being made by order.
    fn is_over(&self, ordered: bool) -> bool {
        self.pid == 0 && !ordered
    }

    /// Its first process. PID 1 keeps no descriptor of it, as every child begins with copies of all that PID 1 has open.
    pub(super) fn open(&self) -> std::io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        Ok(Some(pidfd_open(pid, PidfdFlags::empty())?))
    }
}

/// Options for a child that ended, also for one that was made to end without a signal.
pub(super) fn of_any_kind(more: WaitIdOptions) -> WaitIdOptions {
    WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::from_bits_retain(libc::__WALL.cast_unsigned()) | more
}

fn exit_of(status: WaitIdStatus) -> Option<Exit> {
    status.exit_status().map(Exit::Code).or_else(|| status.terminating_signal().map(Exit::Signal))
}

/// Whether an end is one that the kernel may have made for want of memory: by SIGKILL, of which a reaper or a shell tells by its status. One
/// that PID 1 kills ends of that, whatever became of its other processes before.
fn may_lack_memory(phase: Option<Phase>, exit: Exit) -> bool {
    let killed = matches!(exit, Exit::Signal(libc::SIGKILL) | Exit::Code(OF_SIGKILL));
    killed && !matches!(phase, Some(Phase::Stopping { kills: 1.., .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::Purpose;

    #[test]
    fn the_cgroup_of_one_that_runs_again_is_left_alone() {
        let (gone, runs) = (Unit::default(), Unit { pid: 7, ..Unit::default() });
        assert_eq!([gone.is_over(false), gone.is_over(true), runs.is_over(false)], [true, false, false]);
    }

    #[test]
    fn who_was_killed_by_pid_1_did_not_end_for_want_of_memory() {
        let stopping = |kills| Phase::Stopping { purpose: Purpose::Asked, deadline: 9, latest: 9, kills };
        let killed = Exit::Signal(libc::SIGKILL);
        let may = |phase, exit| may_lack_memory(Some(phase), exit);
        let running = Phase::Running { since: 1 };
        assert_eq!(
            [running, stopping(0), stopping(1), stopping(3)].map(|p| may(p, killed)),
            [true, true, false, false]
        );
        let ends = [Exit::Code(137), Exit::Code(9), Exit::Code(0), Exit::Signal(15)];
        assert_eq!(ends.map(|exit| may(running, exit)), [true, false, false, false]);
    }
}
