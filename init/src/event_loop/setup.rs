//! How a supervisor comes to be: new, or as the next incarnation of one that crashed.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use garboard_runtime::plan::{self, Plan};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::launches::Launches;
use super::persist::{CommonRecord, Context, UnitRecord};
use super::sources::{Source, Sources};
use super::words::Words;
use super::{Supervisor, Unit, kernel_quiet, persist, pods, signals};
use crate::boot::cmdline::Stop;
use crate::boot::{self, Feature, Trace, modules};
use crate::clock::now_ms;
use crate::console::Console;
use crate::crash::{self, History};
use crate::etc_files;
use crate::events::Kind;
use crate::kept::progress::Progress;
use crate::last_words::Places;
use crate::logs::{Journal, Rings};
use crate::status::{Port, Ports, Uevents};
use crate::store::{self, Store};
use crate::supervise::{Event, Fault, Goal, Policy, Rules, State};
use crate::sys::fd::Inherited;
use crate::sys::signal::SignalFd;
use crate::work::report;
use crate::worker::Worker;

/// Bytes read at once, from anything.
const BUFFER: usize = 16 << 10;
/// Descriptors of PID 1 itself, and of one container.
const DESCRIPTORS: (u64, u64) = (256, 8);

/// What may differ between a machine and a test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Where the plan is read again after a crash.
    pub plan: PathBuf,
    /// Where files for containers are written.
    pub run_dir: PathBuf,
    /// Where the data filesystem is, for logs.
    pub data: PathBuf,
    /// Start the workers: modules, data, network. Without them `/data` counts as ready.
    pub workers: bool,
    /// What is written to when the `modules` worker has ended; see [`modules::lock`].
    pub modules_lock: PathBuf,
    /// What the level of the kernel's console is read from, and written to.
    pub printk: PathBuf,
    /// The watchdog that the plan may want.
    pub watchdog: PathBuf,
    /// Where last words are kept.
    pub words: Places,
    /// The network worker is started again after so many milliseconds when it has failed.
    pub network_again_ms: u64,
    /// Print the boot trace once every container has started or settled otherwise.
    pub print_trace: bool,
    /// Let signals make PID 1 crash. For tests only.
    pub crash_trigger: bool,
    /// Measure the work that those make who may only read the status. Without it, for tests only, they have as much as they ask for.
    pub measured: bool,
    /// What to do when what the declaration requires is not there.
    pub stop: Goal,
    /// The automaton's constants.
    pub policy: Policy,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            plan: plan::PATH.into(),
            run_dir: plan::RUN.into(),
            data: plan::DATA.into(),
            workers: true,
            modules_lock: modules::LOCK.into(),
            printk: kernel_quiet::LEVEL.into(),
            watchdog: "/dev/watchdog0".into(),
            words: Places::default(),
            network_again_ms: 10_000,
            print_trace: false,
            crash_trigger: false,
            measured: true,
            stop: Goal::PowerOff,
            policy: Policy::default(),
        }
    }
}

impl From<Stop> for Goal {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::PowerOff => Self::PowerOff,
            Stop::Reboot => Self::Reboot,
            Stop::Halt => Self::Halt,
        }
    }
}

/// A machine that is ready for containers.
#[derive(Debug)]
pub struct Machine {
    /// What is to run on it.
    pub plan: Plan,
    /// What its kernel can do.
    pub features: Vec<Feature>,
    /// Directory of the containers' cgroups; `None`: they stay in ours.
    pub cgroup: Option<OwnedFd>,
    /// How the boot went so far.
    pub trace: Trace,
    /// What went wrong and stops nothing.
    pub warnings: Vec<String>,
    /// Where to print.
    pub console: Console,
    /// A status port that is open already; `None`: it is looked for by name.
    pub port: Option<OwnedFd>,
}

/// Why a crashed supervisor can't go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResumeError {
    /// What it left can't be used.
    State(String),
    /// It crashed twice within a minute.
    Again(History),
}

impl fmt::Display for ResumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(why) => write!(f, "its state can't be resumed: {why}"),
            Self::Again(history) => {
                let History { count, before, .. } = history;
                write!(f, "crash number {count} came within a minute of the one before ({before})")
            }
        }
    }
}

impl std::error::Error for ResumeError {}

impl Supervisor {
    /// Begins: the first containers are launched in the first turn of [`Supervisor::run`].
    ///
    /// From here on a crash of this process makes it execute itself, if [`crash::install`] was called.
    pub fn begin(machine: Machine, options: Options) -> io::Result<Self> {
        let Machine { plan, features, cgroup, trace, warnings, console, port } = machine;
        let count = plan.containers.len();
        raise_descriptor_limit(&plan);
        let signals = SignalFd::replace_mask(&signals::wanted())?;
        let mut seed = [0_u8; 8];
        let _ = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::INSECURE);
        let state = State::new(rules(&plan), options.policy, u64::from_ne_bytes(seed));
        let store = Store::create(persist::records(count))?;
        let rings = (Rings::create(count, plan.log_budget)?, Journal::create()?);
        let context = Context {
            options,
            features,
            trace,
            notes: Vec::new(),
            network: report::Network::default(),
            data: report::Data { state: report::DataState::None, detail: String::new(), bytes: 0 },
            words: Words::default(),
            kept_logs: Self::kept_at_first(&plan),
        };
        let mut new = Self::assemble(plan, context, state, store, rings, console, signals)?;
        new.cgroup = cgroup;
        new.record(Kind::Boot, None, &boot_text());
        new.listen_for_containers();
        if let Err(e) = etc_files::prepare_resolv_conf(&new.options.run_dir, &new.plan.network) {
            new.note(format!("write resolv.conf: {e}"));
        }
        for warning in warnings {
            new.note(warning);
        }
        new.listen(false);
        new.tell(Event::Begin);
        new.hold_work();
        if let Some(fd) = port {
            new.use_port(Port::on(fd));
        }
        // Whatever is still to be done is kept by now: what follows may crash.
        new.persist();
        crate::sys::crash::arm(new.store.as_fd().as_raw_fd());
        // The first containers, before anything else is done.
        new.act();
        new.await_port();
        Ok(new)
    }

    /// Goes on where the process before crashed with `reason`. `state` is the descriptor of its state, from the command line;
    /// `inherited` is what [`Inherited::take_all`] found before anything else was opened.
    pub fn resume(mut inherited: Inherited, state: &str, reason: &str) -> Result<Self, ResumeError> {
        let fault = |what: &str| ResumeError::State(what.to_owned());
        let os = |what: &'static str| move |e: io::Error| ResumeError::State(format!("{what}: {e}"));
        // The signal of the fault is still blocked; the next one must get through.
        let signals = SignalFd::replace_mask(&signals::wanted()).map_err(os("signalfd"))?;
        let memory = state.parse().ok().and_then(|n| inherited.take(n)).ok_or_else(|| fault("no state descriptor"))?;
        let number = memory.as_raw_fd();
        let records = store::records_in(&memory).ok_or_else(|| fault("not a state"))?;
        let mut store = Store::adopt(memory, records).map_err(os("open it"))?;
        let mut history = persist::history(&store);
        let bearable = history.note(reason, now_ms());
        persist::save(&mut store, persist::HISTORY, &history);
        crash::install().map_err(os("install handlers"))?;
        crate::sys::crash::arm(number);
        if !bearable {
            return Err(ResumeError::Again(history));
        }

        let context: Context = persist::load(&store, persist::CONTEXT).ok_or_else(|| fault("no context"))?;
        let common: CommonRecord = persist::load(&store, persist::COMMON).ok_or_else(|| fault("no common record"))?;
        let plan = boot::read_plan_at(&context.options.plan).map_err(|e| ResumeError::State(e.to_string()))?;
        let count = plan.containers.len();
        if persist::records(count) != records {
            return Err(fault("made for another plan"));
        }
        let unit = |i: usize| persist::load::<UnitRecord>(&store, persist::FIRST_UNIT.saturating_add(i));
        let units: Vec<Option<UnitRecord>> = (0..count).map(unit).collect();
        let memories = units.iter().map(|u| u.as_ref().map(|u| u.unit.clone()).unwrap_or_default()).collect();
        let state = State::resume(rules(&plan), context.options.policy, memories, common.common.clone());
        let rings = inherited.take(common.rings).ok_or_else(|| fault("no log rings"))?;
        let journal = inherited.take(common.journal).ok_or_else(|| fault("no events"))?;
        let rings = (Rings::adopt(rings, count, plan.log_budget), Journal::adopt(journal));
        let console = Console::adopt(inherited.take(common.console));
        let mut again = Self::assemble(plan, context, state, store, rings, console, signals).map_err(os("epoll"))?;
        again.cgroup = inherited.take(common.cgroup);
        again.stop_told = again.state.common().goal.is_some();
        again.listen(true);
        again.kernel_level = common.kernel_level;
        again.let_kernel_speak();
        if let Some(session) = &mut again.session {
            *session.attempts() = common.attempts;
        }
        // Workers first: a container that one works for isn't lost.
        again.adopt_workers(common, &mut inherited);
        again.end_console_workers();
        again.adopt_units(units, &mut inherited);
        again.miss_questions();
        again.watch_data(now_ms());
        again.stops_may_have_changed(&(0..count).collect::<Vec<_>>());
        let text = format!("PID 1 crashed and goes on, nothing was lost: {reason}");
        again.record(Kind::Crash, None, &text);
        again.remember(text);
        Ok(again)
    }

    fn assemble(
        plan: Plan,
        context: Context,
        state: State,
        store: Store,
        (rings, journal): (Rings, Journal),
        mut console: Console,
        signals: SignalFd,
    ) -> io::Result<Self> {
        let sources = Sources::new()?;
        sources.add_readable(&signals, Source::Signals);
        let null = rustix::fs::open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        console.align(plan.containers.iter().map(|c| c.name.len()));
        let units = plan.containers.iter().map(|_| Unit::default()).collect();
        let mut ports = Ports::default();
        ports.measured = context.options.measured;
        let Context { options, features, trace, notes, network, data, words, kept_logs } = context;
        Ok(Self {
            plan,
            options,
            cgroup: None,
            features,
            trace,
            notes,
            network,
            data,
            words,
            data_errors: None,
            data_check: None,
            kept_logs,
            keeper: Default::default(),
            previous: Default::default(),
            stops: Default::default(),
            state,
            units,
            pids: Default::default(),
            workers: Vec::new(),
            due: Default::default(),
            patience: None,
            actions: Default::default(),
            questions: Default::default(),
            watchdog: None,
            launches: Launches::new(),
            store,
            rings,
            console,
            console_waits: false,
            session: None,
            keyboard: None,
            shell: None,
            journal,
            ports,
            listeners: Default::default(),
            uevents: None,
            kernel_log: None,
            kernel_seen: 0,
            kernel_level: None,
            stop_told: false,
            // A child may have ended before the signalfd was there.
            reap_again: true,
            launch_again: false,
            sources,
            signals,
            null,
            buffer: vec![0; BUFFER],
            flush_at: None,
            announced: Default::default(),
            outcome: None,
            context_changed: true,
            common_dirty: true,
            dirty: Vec::new(),
            crash_at: None,
        })
    }

    fn adopt_units(&mut self, records: Vec<Option<UnitRecord>>, inherited: &mut Inherited) {
        let mut lost = Vec::new();
        let opening: Vec<usize> = self.workers.iter().filter_map(|worker| worker.kind.container()).collect();
        let mut listeners = Vec::new();
        for (index, (unit, record)) in self.units.iter_mut().zip(records).enumerate() {
            let Some(record) = record else { continue };
            unit.seen = Some(record.unit.phase);
            unit.health = record.unit.watch.health;
            listeners.extend(inherited.take(record.status).map(|fd| (index, fd)));
            unit.userns = inherited.take(record.userns);
            unit.filled = record.filled;
            unit.heard = record.heard;
            unit.out_of_memory = record.out_of_memory;
            unit.degraded = record.degraded;
            unit.says = record.says;
            unit.shared = pods::adopt(record.shared, inherited);
            unit.notify = inherited.take(record.notify);
            if let Some(socket) = &unit.notify {
                self.sources.add_readable(socket, Source::Notify(index));
            }
            if record.pid != 0 {
                unit.pid = record.pid;
                unit.pidfd = inherited.take(record.pidfd);
                unit.output = inherited.take(record.output);
                unit.report = inherited.take(record.report);
                self.pids.insert(record.pid, index);
                if let Some(output) = &unit.output {
                    self.sources.add_readable(output, Source::Output(index));
                }
                if let Some(report) = &unit.report {
                    self.sources.add_hang_up(report, Source::Report(index));
                }
            } else if self.state.wants_launch(index) && !opening.contains(&index) {
                lost.push(index);
            }
            self.dirty.push(index);
        }
        for (index, fd) in listeners {
            self.use_listener(u32::try_from(index).unwrap_or(u32::MAX), fd);
        }
        for index in lost {
            // A child may have been made that nobody knows; its cgroup does.
            self.kill_cgroup(index);
            let text = "PID 1 crashed while launching it".to_owned();
            self.tell(Event::LaunchFailed(index, Fault { text, transient: true }));
        }
    }

    fn adopt_workers(&mut self, common: CommonRecord, inherited: &mut Inherited) {
        for w in common.workers {
            let worker = Worker::adopt(w.kind, w.pid, inherited.take(w.pidfd), inherited.take(w.output), w.deadline);
            if let Some(output) = &worker.output {
                self.sources.add_readable(output, Source::Worker(worker.pid));
            }
            self.workers.push(worker);
        }
        self.due = common.due;
        self.keeper.progress = inherited.take(common.keep_progress).map(Progress::adopt);
        self.keeper.socket = inherited.take(common.keep_socket);
        // Who asked for what these read has not heard that PID 1 goes on.
        self.forget_previous(u32::MAX);
        self.announced = common.announced;
        if let (Some(goal), true) = (common.common.goal, common.common.finished) {
            // It crashed on its last steps, whichever of them it had made.
            self.finish(goal);
        }
        if let Some((device, seconds)) = inherited.take(common.watchdog).zip(self.plan.watchdog_seconds) {
            self.use_watchdog(device, seconds);
        }
        if let Some(fd) = inherited.take(common.port) {
            let number = self.use_port(Port::adopt(fd));
            if let Some(entry) = self.ports.get_mut(number) {
                entry.told = common.subscription.events;
                entry.subscription = common.subscription;
            }
        }
        if let Some(fd) = inherited.take(common.vsock) {
            self.use_listener(super::ports::VSOCK, fd);
        }
        if self.state.common().devices {
            self.devices_ready();
        }
        self.await_port();
    }

    /// All modules are loaded that will be.
    pub(super) fn devices_ready(&mut self) {
        self.start_watchdog();
        self.read_kernel_log();
        self.listen_on_vsock();
        self.look_for_port();
    }

    /// Without a port, looks for one whenever a device comes.
    fn await_port(&mut self) {
        if self.ports.lasting().is_some() {
            return;
        }
        match Uevents::subscribe() {
            Ok(uevents) => {
                self.sources.add_readable(&uevents, Source::Uevents);
                self.uevents = Some(uevents);
            }
            Err(e) => log::warn!("subscribe to devices: {e}"),
        }
        self.look_for_port();
    }
}

fn rules(plan: &Plan) -> Vec<Rules> {
    plan.containers.iter().enumerate().map(|(i, c)| Rules::of(c, i, plan.data.is_some())).collect()
}

/// A thousand containers need more descriptors than the kernel's default allows PID 1. It is raised only if need be, as
/// containers inherit it.
fn raise_descriptor_limit(plan: &Plan) {
    let (own, each) = DESCRIPTORS;
    // Those who may read the status have a socket, and connections.
    let readers = plan.containers.iter().filter(|container| container.reads_status).count();
    let shares = u64::try_from(plan.containers.len().saturating_add(readers)).unwrap_or(0);
    let wanted = own.saturating_add(each.saturating_mul(shares));
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let maximum = limit.maximum.map(|m| m.max(wanted));
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}

/// The first event's.
fn boot_text() -> String {
    let system = rustix::system::uname();
    format!("{} {} began", system.sysname().to_string_lossy(), system.release().to_string_lossy())
}
