//! How a supervisor comes to be.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use garboard_runtime::plan::{self, Plan};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::launchers::Launchers;
use super::launches::Launches;
use super::persist::Context;
use super::sources::{Source, Sources};
use super::words::Words;
use super::{Supervisor, Unit, kernel_log, kernel_quiet, persist, signals};
use crate::boot::cmdline::Stop;
use crate::boot::{Feature, Trace, modules};
use crate::console::{self, Console};
use crate::etc_files;
use crate::events::Kind;
use crate::last_words::Places;
use crate::logs::{Journal, Rings};
use crate::status::{Port, Ports, Uevents};
use crate::store::Store;
use crate::supervise::{Event, Goal, Policy, Rules, State};
use crate::sys::signal::SignalFd;
use crate::work::report;

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
    /// Where the console is looked for when its line has hung up.
    pub console: PathBuf,
    /// What the level of the kernel's console is read from, and written to.
    pub printk: PathBuf,
    /// What the kernel's log is read from.
    pub kmsg: PathBuf,
    /// The watchdog that the plan may want.
    pub watchdog: PathBuf,
    /// Where `memory.events` is read and watched, if not in the cgroups. For tests only.
    pub memory_counts: Option<PathBuf>,
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
            console: console::PATH.into(),
            printk: kernel_quiet::LEVEL.into(),
            kmsg: kernel_log::PATH.into(),
            watchdog: "/dev/watchdog0".into(),
            memory_counts: None,
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

impl Supervisor {
    /// Begins: the first containers are launched in the first turn of [`Supervisor::run`].
    ///
    /// From here on a crash of this process makes it execute itself, if [`crate::crash::install`] was called.
    pub fn begin(machine: Machine, options: Options) -> io::Result<Self> {
        let Machine { plan, features, cgroup, trace, warnings, console, port } = machine;
        let count = plan.containers.len();
        raise_descriptor_limit(&plan, 0);
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
        new.speak_for_kernel();
        // Whatever is still to be done is kept by now: what follows may crash.
        new.persist();
        crate::sys::crash::arm(new.store.as_fd().as_raw_fd());
        // The first containers, before anything else is done.
        new.act();
        new.hear_of_devices();
        new.watch_memory();
        Ok(new)
    }

    pub(super) fn assemble(
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
        ports.meter.measured = context.options.measured;
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
            data_doubt: 0,
            kept_logs,
            keeper: Default::default(),
            previous: Default::default(),
            stops: Default::default(),
            memory: Default::default(),
            state,
            units,
            pids: Default::default(),
            reports: Default::default(),
            deaf: Default::default(),
            workers: Vec::new(),
            due: Default::default(),
            patience: None,
            actions: Default::default(),
            questions: Default::default(),
            watchdog: None,
            launchers: Launchers::default(),
            launches: Launches::new(),
            unopened: Default::default(),
            left: Default::default(),
            device_filters: Default::default(),
            store,
            rings,
            console,
            console_waits: false,
            session: None,
            keyboard: None,
            line_at: None,
            shell: None,
            journal,
            ports,
            listeners: Default::default(),
            uevents: None,
            kernel_log: None,
            kernel_next: 0,
            kernel_left: None,
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
            rehearsed: Some(0),
            crash_at: None,
        })
    }

    /// All modules are loaded that will be.
    pub(super) fn devices_ready(&mut self) {
        self.start_watchdog();
        self.read_kernel_log();
        self.listen_on_vsock();
        self.look_for_port();
    }

    /// Hears of devices that come and go: the port, and the uplink's interface. Looks for the port if there is none.
    pub(super) fn hear_of_devices(&mut self) {
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

pub(super) fn rules(plan: &Plan) -> Vec<Rules> {
    plan.containers.iter().enumerate().map(|(i, c)| Rules::of(c, i, plan.data.is_some())).collect()
}

/// A thousand containers need more descriptors than the kernel's default allows PID 1. It is raised only if need be, as
/// containers inherit it.
///
/// `volumes` are those that are open.
pub(super) fn raise_descriptor_limit(plan: &Plan, volumes: usize) {
    let wanted = descriptors(plan, volumes);
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let maximum = limit.maximum.map(|m| m.max(wanted));
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}

/// How many PID 1 may need.
fn descriptors(plan: &Plan, volumes: usize) -> u64 {
    let (own, each) = DESCRIPTORS;
    // Those who may read the status have a socket, and connections.
    let readers = plan.containers.iter().filter(|container| container.reads_status).count();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let shares = each.saturating_mul(count(plan.containers.len().saturating_add(readers)));
    own.saturating_add(shares).saturating_add(count(volumes))
}

/// The first event's.
fn boot_text() -> String {
    let system = rustix::system::uname();
    format!("{} {} began", system.sysname().to_string_lossy(), system.release().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_volumes_count_among_the_descriptors() {
        let mut plan = crate::boot::features::tests::plan();
        let container = plan.containers.remove(0);
        plan.containers = vec![container; 60];
        assert_eq!(descriptors(&plan, 60 * 16), 256 + 60 * (8 + 16));
        plan.containers.iter_mut().for_each(|container| container.reads_status = true);
        assert_eq!(descriptors(&plan, 0), 256 + 60 * 16);
    }
}
