//! PID 1's event loop as an ordinary process: as in the native tests, and measured.

use std::os::fd::AsFd;

use garboard_init::boot::Trace;
use garboard_init::console::Console;
use garboard_init::event_loop::{Machine, Options, Supervisor};
use garboard_init::last_words::Places;
use garboard_init::sys::fd::Inherited;
use garboard_init::{crash, shutdown};
use garboard_runtime::plan::Plan;
use rustix::fs::{Mode, OFlags};

use crate::trace;

/// Goes on after a crash.
pub fn resume(state: &str, highest: &str, since: &str, reason: &str) -> ! {
    match Supervisor::resume(Inherited::take_all(highest), state, since, reason) {
        Ok(supervisor) => shutdown::carry_out(supervisor.run()),
        Err((error, watchdog)) => shutdown::give_up(&error.to_string(), &nowhere(), watchdog),
    }
}

/// Begins; what is of interest is written to `trace`.
pub fn begin(plan: &str, run_dir: &str, cgroup: &str, trace: &str) -> ! {
    let begun = Trace::begin();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("become a subreaper");
    crash::install().expect("install crash handlers");
    let bytes = std::fs::read(plan).expect("read the plan");
    let decoded = Plan::decode(&bytes).expect("decode the plan");
    drop(bytes);
    trace::install(trace, decoded.containers.iter().filter(|c| c.depends_on.is_empty()).count());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let cgroup = rustix::fs::open(cgroup, flags, Mode::empty()).expect("open the cgroup");
    let port = std::io::stdin().as_fd().try_clone_to_owned().expect("duplicate standard input");
    rustix::fs::fcntl_setfl(&port, OFlags::NONBLOCK).expect("set standard input up");
    let output = std::io::stdout().as_fd().try_clone_to_owned().expect("duplicate standard output");
    let machine = Machine {
        plan: decoded,
        features: Vec::new(),
        cgroup: Some(cgroup),
        trace: begun,
        warnings: Vec::new(),
        console: Console::on(Some(output)),
        port: Some(port),
    };
    let options = Options {
        plan: plan.into(),
        run_dir: run_dir.into(),
        workers: false,
        // Not the kernel's own: this machine is not ours.
        modules_lock: "modules_disabled".into(),
        watchdog: "watchdog".into(),
        words: nowhere(),
        crash_trigger: true,
        ..Options::default()
    };
    let supervisor = Supervisor::begin(machine, options).expect("begin to supervise");
    shutdown::carry_out(supervisor.run())
}

/// How this ends is nobody's business afterwards.
fn nowhere() -> Places {
    let nothing = || "nowhere".into();
    Places { directory: nothing(), pstore: nothing(), pmsg: nothing(), log: nothing(), always_dump: nothing() }
}
