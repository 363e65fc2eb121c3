//! Launch workers: while a crowd waits, they start containers in PID 1's place.
//!
//! Each has one order at a time, so that a container whose set-up hangs holds up nobody else's. What they can't do, PID 1 does itself: pods
//! and volumes, which it holds by descriptor, and whatever there is when none of them is free.
//!
//! The next incarnation of PID 1 doesn't know them and ends them, as it does with all workers that it doesn't know. A child that was let go goes on, if PID 1
//! knew of it. One that it didn't know is ended, too, or is in its container's cgroup, which is killed before another one is made.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use garboard_runtime::plan::Container;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::Supervisor;
use super::containers::of_any_kind;
use crate::clock::now_ms;
use crate::orders::{self, Answer, Heard};
use crate::supervise::{Action, Event, Exit, Fault};
use crate::sys::signal;
use crate::worker::{Kind, Worker};

/// Never more at once, however many processors there are: by then PID 1 is the one that holds them up.
const AT_ONCE: usize = 8;
/// What a child allocates before its program is executed is lost to its launcher, which is replaced after so many.
const ORDERS: u32 = 256;
/// A launcher that has made no child by then, in milliseconds, hangs at something of the kernel's, and another one tries.
const ORDER_MS: u64 = 60_000;
/// One that ends without having done anything is no use: for so many milliseconds PID 1 does without.
const WITHOUT_MS: u64 = 10_000;

/// One of them.
#[derive(Debug, Default)]
struct Launcher {
    order: Option<Order>,
    orders: u32,
    /// It has answered.
    works: bool,
    /// It gets no more orders.
    dismissed: bool,
}

/// What it is at.
#[derive(Debug, Clone, Copy)]
struct Order {
    index: usize,
    /// When it has taken too long to make a child, in milliseconds since boot.
    overdue_at: u64,
    /// Its child is known.
    made: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Launchers {
    by_pid: BTreeMap<i32, Launcher>,
    /// Whose launcher ended before it had made a child: PID 1 does that itself, once.
    left_to_us: BTreeSet<usize>,
    /// Children that nobody wanted, and whose cgroups are left to remove when they have ended.
    strays: BTreeMap<i32, usize>,
    /// None is started earlier, in milliseconds since boot.
    not_before: u64,
}

impl Launchers {
    /// Orders of which there is no child yet, and whose they are.
    fn unmade(&self) -> impl Iterator<Item = (i32, Order)> {
        let orders = self.by_pid.iter().filter_map(|(pid, launcher)| Some((*pid, launcher.order?)));
        orders.filter(|(_, order)| !order.made)
    }

    /// Containers that were ordered and have no child yet.
    pub(super) fn ordered(&self) -> usize {
        self.unmade().count()
    }

    /// It has a child now.
    fn made(&mut self, index: usize) {
        let orders = self.by_pid.values_mut().filter_map(|launcher| launcher.order.as_mut());
        orders.filter(|order| order.index == index).for_each(|order| order.made = true);
    }

    /// The container is set up, or isn't going to be: whoever was at it has time for another. Not before the child has left the launcher's
    /// memory, which its report's end shows: it would have what the launcher does for the next one (`oom_score_adj`).
    pub(super) fn done(&mut self, index: usize) {
        for launcher in
            self.by_pid.values_mut().filter(|launcher| launcher.order.is_some_and(|order| order.index == index))
        {
            launcher.order = None;
        }
    }

    /// A stray child has ended: whose it was.
    pub(super) fn stray(&mut self, pid: i32) -> Option<usize> {
        self.strays.remove(&pid)
    }

    /// When an order has taken too long.
    pub(super) fn due(&self) -> Option<u64> {
        self.unmade().map(|(_, order)| order.overdue_at).min()
    }

    /// Whether it was ordered and has no child yet.
    pub(super) fn has_order(&self, index: usize) -> bool {
        self.unmade().any(|(_, order)| order.index == index)
    }

    fn free(&self) -> Option<i32> {
        self.by_pid.iter().find(|(_, launcher)| launcher.order.is_none() && !launcher.dismissed).map(|(pid, _)| *pid)
    }
}

impl Supervisor {
    /// Has a launcher start this container, if there is a crowd, or one is left of it. Otherwise it is PID 1's to do.
    pub(super) fn entrust(&mut self, index: usize) -> bool {
        let is_plain = |c: &Container| c.pod.is_none() && !c.launch.has_volumes();
        if !self.plan.containers.get(index).is_some_and(is_plain) || self.state.common().goal.is_some() {
            return false;
        }
        if self.launchers.left_to_us.remove(&index) {
            return false;
        }
        let Some(pid) = self.launchers.free().or_else(|| self.one_launcher_more()) else { return false };
        // What fails here fails again, and is told.
        if self.listen_to(index).is_err() {
            return false;
        }
        let given = self.socket_of(pid).is_some_and(|socket| orders::give(socket, index).is_ok());
        let Some(launcher) = self.launchers.by_pid.get_mut(&pid) else { return false };
        if given {
            launcher.order = Some(Order { index, overdue_at: now_ms().saturating_add(ORDER_MS), made: false });
            launcher.orders = launcher.orders.saturating_add(1);
        }
        if !given || launcher.orders == ORDERS {
            self.dismiss(pid);
        }
        given
    }

    /// Starts another one, if enough wait for it to be worth while.
    fn one_launcher_more(&mut self) -> Option<i32> {
        let most = self.launches.at_once_in_a_crowd().min(AT_ONCE);
        // A child of which nobody knows any more is found by its cgroup.
        if self.cgroup.is_none()
            || !self.launches.is_crowd()
            || self.launchers.by_pid.len() >= most
            || now_ms() < self.launchers.not_before
        {
            return None;
        }
        let worker = self.spawn_launcher().inspect_err(|e| log::warn!("start a launch worker: {e}")).ok()?;
        let pid = worker.pid;
        self.add_worker(worker);
        self.launchers.by_pid.insert(pid, Launcher::default());
        Some(pid)
    }

    fn spawn_launcher(&self) -> io::Result<Worker> {
        let (ours, theirs) = orders::pair()?;
        let cgroup = self.cgroup.as_ref().map(OwnedFd::try_clone).transpose()?;
        let has_cgroups = cgroup.is_some().to_string();
        let arguments = [self.options.plan.as_os_str(), self.options.run_dir.as_os_str(), OsStr::new(&has_cgroups)];
        let stdout = cgroup.map_or_else(Stdio::null, Stdio::from);
        let mut worker = Worker::spawn_between(Kind::Launch, &arguments, theirs.into(), stdout, now_ms())?;
        worker.output = Some(ours);
        Ok(worker)
    }

    fn socket_of(&self, pid: i32) -> Option<&OwnedFd> {
        self.workers.iter().find(|worker| worker.pid == pid)?.output.as_ref()
    }

    fn dismiss(&mut self, pid: i32) {
        if let Some(socket) = self.socket_of(pid) {
            orders::end(socket);
        }
        if let Some(launcher) = self.launchers.by_pid.get_mut(&pid) {
            launcher.dismissed = true;
        }
    }

    /// Nothing waits to be launched any more: they end when they have done what they are at.
    pub(super) fn dismiss_launchers(&mut self) {
        if !self.launches.is_empty() {
            return;
        }
        let idle: Vec<i32> =
            self.launchers.by_pid.iter().filter(|(_, launcher)| !launcher.dismissed).map(|(pid, _)| *pid).collect();
        idle.into_iter().for_each(|pid| self.dismiss(pid));
    }

    /// Hears what all of them have to say: a child that is one of theirs may have ended already.
    pub(super) fn hear_launchers(&mut self) {
        let all: Vec<i32> = self.launchers.by_pid.keys().copied().collect();
        all.into_iter().for_each(|pid| self.hear_launcher(pid));
    }

    /// Takes the answers that are there.
    pub(super) fn hear_launcher(&mut self, pid: i32) {
        loop {
            let Some(socket) = self.socket_of(pid) else { return };
            match orders::hear(socket) {
                Ok(Some(heard)) => self.answered(pid, heard),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(None) | Err(_) => break,
            }
        }
        if let Some(output) = self.workers.iter_mut().find(|worker| worker.pid == pid).and_then(|w| w.output.take()) {
            self.sources.remove(&output);
            self.common_dirty = true;
        }
    }

    fn answered(&mut self, launcher: i32, heard: Heard) {
        if let Some(launcher) = self.launchers.by_pid.get_mut(&launcher) {
            launcher.works = true;
        }
        match heard.answer {
            Answer::Made { index, pid, degraded } => {
                self.made(index, pid, degraded, heard.descriptors);
            }
            Answer::Failed { index, text, transient } => self.order_failed(index, Fault { text, transient }),
        }
        // The socket has it no more.
        self.persist();
    }

    /// A child, with the read ends of its report pipe and of its output. One that isn't wanted any more is killed.
    fn made(&mut self, index: usize, pid: i32, degraded: String, descriptors: Vec<OwnedFd>) {
        let is_known = self.pids.contains_key(&pid) || self.workers.iter().any(|worker| worker.pid == pid);
        let is_ours = !is_known
            && Pid::from_raw(pid)
                .is_some_and(|pid| waitid(WaitId::Pid(pid), of_any_kind(WaitIdOptions::NOWAIT)).is_ok());
        let has_another = self.units.get(index).is_none_or(|unit| unit.pid != 0);
        let wanted = self.state.wants_launch(index) && !has_another;
        let (Ok([report, output]), true, true) = (<[OwnedFd; 2]>::try_from(descriptors), is_ours, wanted) else {
            self.launchers.done(index);
            if is_ours {
                let _ = signal::kill(pid, libc::SIGKILL);
                self.launchers.strays.insert(pid, index);
            }
            if !has_another {
                self.kill_cgroup(index);
                let text = "its launcher made a child that can't be used".to_owned();
                self.launch_failed(index, Fault { text, transient: true });
            }
            return;
        };
        self.launchers.made(index);
        self.launched(index, pid, report, output, degraded);
    }

    fn order_failed(&mut self, index: usize, fault: Fault) {
        self.launchers.done(index);
        if self.reports.contains_key(&index) {
            // Its child is killed, and the end of that tells less.
            self.tell(Event::SetupFailed(index, fault));
        } else {
            self.launch_failed(index, fault);
            if self.units.get(index).is_some_and(|unit| unit.pid == 0) {
                self.left.insert(index);
            }
        }
    }

    /// It ended, by itself or not.
    pub(super) fn launcher_ended(&mut self, pid: i32, exit: Exit) {
        let Some(launcher) = self.launchers.by_pid.remove(&pid) else { return };
        if !launcher.works && !launcher.dismissed {
            log::warn!("a launch worker {} and had done nothing", super::telling::ending(exit));
            self.launchers.not_before = now_ms().saturating_add(WITHOUT_MS);
        }
        // A child that is known tells more by its report, or its end.
        if let Some(order) = launcher.order.filter(|order| !order.made) {
            self.launchers.left_to_us.insert(order.index);
            self.actions.push_back(Action::Launch(order.index));
        }
    }

    /// Orders that take too long are taken back.
    pub(super) fn check_launchers(&mut self, now: u64) {
        if self.launchers.due().is_none_or(|due| now < due) {
            return;
        }
        // A machine that was suspended may find the answer and the end of its patience at once.
        self.hear_launchers();
        let late: Vec<(i32, Order)> = self.launchers.unmade().filter(|(_, order)| now >= order.overdue_at).collect();
        for (pid, Order { index, .. }) in late {
            self.launchers.done(index);
            self.dismiss(pid);
            if let Some(worker) = self.workers.iter().find(|worker| worker.pid == pid) {
                worker.kill();
            }
            let text = format!("its launch worker has made no child of it within {} s", ORDER_MS / 1000);
            self.launch_failed(index, Fault { text, transient: true });
        }
    }
}
