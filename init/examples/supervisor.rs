//! PID 1's event loop as an ordinary process: `supervisor PLAN RUN-DIRECTORY CGROUP-DIRECTORY|- [POLICY]` runs the containers of
//! a plan file and supervises them as a subreaper, the console on standard output, the status port on standard input (a socket).
//!
//! SIGRTMIN+8 makes it panic and SIGRTMIN+9 makes it fault, and it goes on as PID 1 would. POLICY `quick` shortens all delays.
//! It ends with status 0 (power off), 10 (reboot), 11 (halt) or 70 (two crashes within a minute).

use std::os::fd::AsFd;
use std::path::Path;

use garboard_init::boot::Trace;
use garboard_init::console::Console;
use garboard_init::event_loop::{Machine, Options, Supervisor};
use garboard_init::supervise::Policy;
use garboard_init::{crash, shutdown};
use garboard_runtime::plan::Plan;
use rustix::fs::{Mode, OFlags};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        [_, "--resume", state, reason] => match Supervisor::resume(state, reason) {
            Ok(supervisor) => shutdown::carry_out(supervisor.run()),
            Err(error) => shutdown::give_up(&error.to_string()),
        },
        [_, plan, run_dir, cgroup] => begin(plan, run_dir, cgroup, Policy::default()),
        [_, plan, run_dir, cgroup, "quick"] => {
            let quick =
                Policy { backoff_base_ms: 1, backoff_cap_ms: 4, settle_ms: 50, resettle_ms: 50, ..Policy::default() };
            begin(plan, run_dir, cgroup, quick)
        }
        _ => {
            eprintln!("usage: supervisor PLAN RUN-DIRECTORY CGROUP-DIRECTORY|- [quick]");
            std::process::exit(2);
        }
    }
}

fn begin(plan: &str, run_dir: &str, cgroup: &str, policy: Policy) -> ! {
    let trace = Trace::begin();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("become a subreaper");
    crash::install().expect("install crash handlers");
    let bytes = std::fs::read(plan).expect("read the plan");
    let directory = |path: &Path| {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .expect("open cgroup")
    };
    let output = std::io::stdout().as_fd().try_clone_to_owned().expect("duplicate standard output");
    rustix::fs::fcntl_setfl(&output, OFlags::NONBLOCK).expect("set standard output up");
    let port = std::io::stdin().as_fd().try_clone_to_owned().expect("duplicate standard input");
    rustix::fs::fcntl_setfl(&port, OFlags::NONBLOCK).expect("set standard input up");
    let machine = Machine {
        plan: Plan::decode(&bytes).expect("decode the plan"),
        features: Vec::new(),
        cgroup: (cgroup != "-").then(|| directory(Path::new(cgroup))),
        trace,
        warnings: Vec::new(),
        console: Console::on(Some(output)),
        port: Some(port),
    };
    let options = Options { plan: plan.into(), run_dir: run_dir.into(), workers: false, crash_trigger: true, policy };
    let supervisor = Supervisor::begin(machine, options).expect("begin to supervise");
    shutdown::carry_out(supervisor.run())
}
