//! The loop around the automaton: one thread, one epoll, no waiting anywhere else.
//!
//! Each turn: what changed is kept in the [`Store`], the console and the timer are brought up to date, events are taken, and
//! what the automaton asked for is done, a few launches at a time so that nobody waits long for an answer. Who asks on a port comes after
//! that, as an end waits for no answer. What has ended is cleared away last.

mod containers;
mod dashboard;
mod data;
mod health;
mod invariants;
mod keep;
mod kernel_log;
mod kernel_quiet;
mod launchers;
mod launches;
mod memory;
mod notify;
mod output;
mod persist;
mod pods;
mod ports;
mod previous;
mod readings;
mod record;
mod rehearsal;
mod requests;
mod resume;
mod setup;
mod signals;
mod sources;
mod stops;
mod telling;
mod view;
mod volumes;
mod watchdog;
mod words;
mod workers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use garboard_runtime::device_filter::DeviceFilters;
use garboard_runtime::plan::Plan;
use garboard_runtime::shared::Shared;

use crate::boot::{Feature, Trace};
use crate::clock::now_ms;
use crate::console::Console;
use crate::console::session::Session;
use crate::logs::{Journal, Lines, Rings};
use crate::shutdown::Patience;
use crate::status::{Ports, Uevents};
use crate::store::Store;
use crate::supervise::{Action, Event, Fault, Goal, Health, Phase, State};
use crate::sys::signal::SignalFd;
use crate::work::report;
use crate::worker::{Kind, Worker};
use launchers::Launchers;
use launches::Launches;
pub use resume::ResumeError;
pub use setup::{Machine, Options};
use sources::{Ready, Source, Sources};

/// Launches in one turn of the loop: each takes about a millisecond.
const LAUNCHES_PER_TURN: usize = 4;

/// What a container is to the loop, besides its state in the automaton.
#[derive(Debug, Default)]
struct Unit {
    /// Its first process; 0: none. Whoever ended is set to 0 before it is reaped, so that the number is nobody else's.
    pid: i32,
    /// Read end of its standard output and error.
    output: Option<OwnedFd>,
    /// What its pod's containers share, if it is the pod's first.
    shared: Option<Shared>,
    lines: Lines,
    /// When its unfinished line is shown as it is.
    flush_at: Option<u64>,
    flood: output::Flood,
    /// Its new volumes hold what its image has for them.
    filled: bool,
    /// They are open, by their paths: once in each incarnation of PID 1, for all its starts.
    volumes: Option<Vec<(String, OwnedFd)>>,
    /// Why they could not be opened, from their worker.
    volumes_fault: Option<Fault>,
    /// It printed something already, ever.
    heard: bool,
    /// Its last run ended because it, or the machine, was out of memory.
    out_of_memory: bool,
    /// What the kernel has killed of it for that.
    kills: memory::Kills,
    /// This run was sent its stop signal.
    asked_to_stop: bool,
    /// Limits that could not be set.
    degraded: String,
    /// Where it says how it is.
    notify: Option<OwnedFd>,
    said: notify::Said,
    /// What it said last, in words.
    says: String,
    /// Where in its life the newest event of it has it.
    seen: Option<Phase>,
    /// What the newest event says of its health.
    health: Health,
    /// Its last answer took a while, or never came.
    slow: bool,
    /// What it was found to use.
    readings: readings::Readings,
}

/// Everything PID 1 has.
#[derive(Debug)]
pub struct Supervisor {
    plan: Plan,
    options: Options,
    cgroup: Option<OwnedFd>,
    features: Vec<Feature>,
    trace: Trace,
    notes: Vec<String>,
    network: report::Network,
    data: report::Data,
    /// How the boot before ended, and what this one will have ended for.
    words: words::Words,
    data_errors: Option<data::Errors>,
    /// When the data filesystem is next looked at.
    data_check: Option<u64>,
    /// When it is looked at for the last time after a warning of the kernel.
    data_doubt: u64,
    kept_logs: report::KeptLogs,
    keeper: keep::Keeper,
    previous: previous::Askers,
    stops: stops::Stops,
    memory: memory::Watch,

    state: State,
    units: Vec<Unit>,
    /// Whose exit is whose: process ids of containers.
    pids: BTreeMap<i32, usize>,
    /// Read ends of report pipes, until the report is in: of those that are being set up.
    reports: BTreeMap<usize, OwnedFd>,
    /// Who said too much, and when each is listened to again.
    deaf: BTreeMap<usize, u64>,
    workers: Vec<Worker>,
    /// When which worker is started: the first, while containers that can start without have the machine to themselves for a
    /// moment; one that failed or could not be started, again.
    due: BTreeMap<Kind, u64>,
    /// How long the end may still take, once it has begun.
    patience: Option<Patience>,
    actions: VecDeque<Action>,
    /// Containers that are to be asked how they are, and which runs of them.
    questions: VecDeque<(usize, u32)>,
    watchdog: Option<watchdog::Watchdog>,
    launches: Launches,
    launchers: Launchers,
    /// Containers whose volumes are opened when there is room for a worker more.
    unopened: VecDeque<usize>,
    /// Whose cgroups are left to remove: each once, as the second time it would be the next run's.
    left: BTreeSet<usize>,
    device_filters: DeviceFilters,

    store: Store,
    rings: Rings,
    console: Console,
    /// The console is in the epoll.
    console_waits: bool,
    /// Who reads what is typed at the console, if the plan lets anybody type.
    session: Option<Session>,
    /// Where that is read.
    keyboard: Option<OwnedFd>,
    /// When it is next looked for, after the line has hung up.
    line_at: Option<u64>,
    /// The container in which a shell is wanted, once the line has taken what waits for it.
    shell: Option<usize>,
    journal: Journal,
    ports: Ports,
    /// Where ports are opened: by the container's index, or [`ports::VSOCK`].
    listeners: BTreeMap<u32, ports::Listener>,
    uevents: Option<Uevents>,
    kernel_log: Option<OwnedFd>,
    /// Messages of the kernel before this one were read already.
    kernel_next: u64,
    /// Since when it leaves its errors to us, if it does.
    kernel_left: Option<u64>,
    /// How much the kernel printed before the dashboard was opened.
    kernel_level: Option<u32>,
    /// Why the machine stops was told.
    stop_told: bool,
    /// A child may be left to reap.
    reap_again: bool,
    /// A launch may have its turn at once.
    launch_again: bool,
    sources: Sources,
    signals: SignalFd,
    null: OwnedFd,
    buffer: Vec<u8>,

    /// When the next unfinished line is shown.
    flush_at: Option<u64>,
    announced: view::Announced,
    outcome: Option<Goal>,
    /// The part of what is kept that seldom changes did.
    context_changed: bool,
    /// So did what is not one container's.
    common_dirty: bool,
    /// Units whose descriptors changed since they were kept.
    dirty: Vec<usize>,
    /// The first container whose record was not read back yet; `None`: all were.
    rehearsed: Option<usize>,
    /// For tests.
    crash_at: Option<signals::CrashPoint>,
}

impl Supervisor {
    /// Runs until everything has ended, and says what is to be done with the machine.
    pub fn run(mut self) -> Goal {
        loop {
            let now = now_ms();
            self.write_stops();
            self.persist();
            let rehearsing = self.rehearse();
            self.announce(now);
            self.pass_dashboard(now);
            self.tell_subscribers();
            self.flush_console();
            self.feed_watchdog(now);
            if let Some(goal) = self.outcome {
                self.close_dashboard();
                self.drain_console();
                self.stop_watchdog(goal);
                return goal;
            }
            let deadline = self.next_deadline(now);
            self.sources.arm(deadline);
            let more = self.ports.waits(now) || self.ports.events_wait(self.journal.last());
            // What somebody asked for on a port, or at the console, is still to be done.
            let asked = !self.actions.is_empty();
            let busy = rehearsing || more || asked || self.reap_again || self.launch_again;
            let (askers, others) =
                self.sources.wait(busy).into_iter().partition::<Vec<_>, _>(|ready| ready.source.asks());
            self.take(others);
            self.crash_if_asked(signals::CrashPoint::Taken);
            if std::mem::take(&mut self.reap_again) {
                self.reap();
            }
            self.act();
            // An answer may take its time.
            self.take(askers);
            if self.serve_again(now_ms()) {
                self.persist();
            }
            self.dismiss_launchers();
            self.remove_cgroups();
        }
    }

    fn take(&mut self, events: Vec<Ready>) {
        for ready in events {
            self.dispatch(ready);
            // What was read is nowhere else.
            self.persist();
        }
    }

    fn dispatch(&mut self, ready: Ready) {
        match ready.source {
            Source::Signals => self.take_signals(),
            Source::Timer => {
                self.sources.disarm();
                self.on_time(now_ms());
            }
            Source::Console => self.flush_console(),
            Source::Keys => self.take_keys(),
            Source::Port(number) => self.port_ready(number, ready),
            Source::Listener(number) => self.accept(number),
            Source::KernelLog => self.take_kernel_log(),
            Source::Uevents => {
                let changes = self.uevents.as_ref().map(Uevents::drain).unwrap_or_default();
                if changes.ports {
                    self.look_for_port();
                }
                if changes.network {
                    self.look_at_network();
                }
            }
            Source::Output(index) => self.take_output(index),
            Source::Report(index) => self.take_report(index),
            Source::Worker(pid) => self.take_worker_output(pid),
            Source::Notify(index) => self.take_notifications(index),
            Source::Memory => self.hear_of_memory(),
        }
    }

    /// Tells the automaton, and queues what it asks for.
    fn tell(&mut self, event: Event) {
        self.tell_at(event, now_ms());
    }

    fn tell_at(&mut self, event: Event, now: u64) {
        log::debug!("{event:?}");
        if event != Event::Tick {
            self.stir_dashboard();
        }
        let ended = record::ended_by(&event);
        self.actions.extend(self.state.step(event, now));
        self.record_changes(ended);
    }

    /// Does what is queued, but only a few launches.
    fn act(&mut self) {
        let mut launched = 0_usize;
        loop {
            if let Some(action) = self.actions.pop_front() {
                match action {
                    Action::Launch(index) => self.launches.push(index),
                    Action::Stop(index) => self.stop(index),
                    Action::Kill(index) => self.kill(index),
                    Action::Probe(index) => self.probe(index),
                    Action::Finish(goal) => self.finish(goal),
                }
            } else if launched == LAUNCHES_PER_TURN {
                self.launch_again = !self.launches.is_empty();
                return;
            } else if let Some(index) = self.next_launch() {
                launched = launched.saturating_add(1);
                self.launch(index);
            } else {
                self.launch_again = false;
                return;
            }
        }
    }

    fn next_launch(&mut self) -> Option<usize> {
        if self.launches.is_empty() {
            return None;
        }
        let setting_up = self.reports.len().saturating_add(self.launchers.ordered());
        self.launches.next(setting_up, now_ms())
    }

    fn on_time(&mut self, now: u64) {
        self.hear_the_late(now);
        // At the same moment: whoever is late by now only was not heard, and has the next one.
        self.tell_at(Event::Tick, now);
        self.flush_partial_lines(now);
        self.check_workers(now);
        self.ask(now);
        self.close_stalled(now);
        self.check_launchers(now);
        self.check_data(now);
        self.check_memory(now);
        self.hear_again(now);
        self.find_line(now);
    }

    fn next_deadline(&self, now: u64) -> Option<u64> {
        let workers = self.workers.iter().filter_map(|w| w.deadline);
        let others = [
            self.state.next_deadline(now),
            self.flush_at,
            self.data_check,
            self.line_at,
            self.patience.as_ref().map(Patience::until),
            self.announced.due(),
            self.launches.due(),
            self.launchers.due(),
            self.hearing_due(),
            self.watchdog_due(),
            self.dashboard_due(),
            self.ports_due(),
            self.questions_due(now),
            self.memory.due(),
        ];
        others.into_iter().flatten().chain(workers).chain(self.due.values().copied()).min()
    }

    fn name(&self, index: usize) -> &str {
        self.plan.containers.get(index).map_or("?", |c| &c.name)
    }

    fn run_dir(&self) -> PathBuf {
        self.options.run_dir.clone()
    }
}
