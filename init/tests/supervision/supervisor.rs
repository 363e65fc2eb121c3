//! PID 1's event loop as an ordinary process: runs the containers of a plan file and supervises them as a subreaper, the console
//! on standard output, the status port on standard input (a socket).
//!
//! SIGRTMIN+8 makes it panic and SIGRTMIN+9 makes it fault, and it goes on as PID 1 would. It ends with status 0 (power off),
//! 10 (reboot), 11 (halt) or 70 (two crashes within a minute).

use std::os::fd::AsFd;
use std::path::PathBuf;

use garboard_init::boot::Trace;
use garboard_init::console::Console;
use garboard_init::event_loop::{Machine, Options, Supervisor};
use garboard_init::last_words::Places;
use garboard_init::supervise::{Goal, Policy};
use garboard_init::sys::fd::Inherited;
use garboard_init::{crash, shutdown};
use garboard_runtime::plan::Plan;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Nowhere on the machine that runs the tests.
fn words() -> Places {
    let nothing = PathBuf::new;
    Places {
        directory: "disk/.garboard".into(),
        pstore: nothing(),
        pmsg: nothing(),
        log: nothing(),
        always_dump: nothing(),
    }
}

/// Goes on after a crash.
pub fn resume(state: &str, highest: &str, since: &str, reason: &str) -> ! {
    match Supervisor::resume(Inherited::take_all(highest), state, since, reason) {
        Ok(supervisor) => shutdown::carry_out(supervisor.run()),
        Err((error, watchdog)) => {
            shutdown::give_up(&format!("PID 1 crashed ({reason}) and can't go on: {error}"), &words(), watchdog)
        }
    }
}

/// Begins; `policy` is `quick` for short delays, `workers` to start workers (those of `workers.rs`), `halting` for workers and
/// a machine that halts when it can't go on. Its `fate` is then to
/// `starve` (it can open no more descriptors) to `crash`, or to be `unmeasured` (readers of the status make what work they like), if anything.
pub fn begin(plan: &str, run_dir: &str, cgroup: &str, policy: &str, fate: &str) -> ! {
    let (workers, halting) = (["workers", "halting"].contains(&policy), policy == "halting");
    let policy = match policy {
        "quick" => {
            Policy { backoff_base_ms: 1, backoff_cap_ms: 4, settle_ms: 50, resettle_ms: 50, ..Policy::default() }
        }
        _ => Policy::default(),
    };
    let trace = Trace::begin();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("become a subreaper");
    crash::install().expect("install crash handlers");
    let bytes = std::fs::read(plan).expect("read the plan");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let cgroup = rustix::fs::open(cgroup, flags, Mode::empty()).expect("open the cgroup");
    let output = std::io::stdout().as_fd().try_clone_to_owned().expect("duplicate standard output");
    rustix::fs::fcntl_setfl(&output, OFlags::NONBLOCK).expect("set standard output up");
    let port = std::io::stdin().as_fd().try_clone_to_owned().expect("duplicate standard input");
    rustix::fs::fcntl_setfl(&port, OFlags::NONBLOCK).expect("set standard input up");
    let machine = Machine {
        plan: Plan::decode(&bytes).expect("decode the plan"),
        features: Vec::new(),
        cgroup: Some(cgroup),
        trace,
        warnings: if fate == "crash" { vec!["something is not as it should be".to_owned()] } else { Vec::new() },
        console: Console::on(Some(output)),
        port: Some(port),
    };
    let options = Options {
        plan: plan.into(),
        run_dir: run_dir.into(),
        data: "disk".into(),
        workers,
        // Not the kernel's own: this machine is not ours.
        modules_lock: "modules_disabled".into(),
        console: "console".into(),
        printk: "printk".into(),
        kmsg: "kmsg".into(),
        watchdog: "watchdog".into(),
        memory_counts: std::fs::exists("counts").is_ok_and(|there| there).then(|| "counts".into()),
        words: words(),
        network_again_ms: 50,
        print_trace: false,
        crash_trigger: true,
        measured: fate != "unmeasured",
        stop: if halting { Goal::Halt } else { Goal::PowerOff },
        policy,
    };
    let supervisor = Supervisor::begin(machine, options).expect("begin to supervise");
    match fate {
        "starve" => {
            let open = std::fs::read_dir("/proc/self/fd").expect("list descriptors").count();
            let limit = Rlimit { current: Some(open.saturating_sub(1) as u64), ..getrlimit(Resource::Nofile) };
            setrlimit(Resource::Nofile, limit).expect("limit descriptors");
        }
        "crash" => garboard_init::sys::fault::segmentation(),
        _ => {}
    }
    shutdown::carry_out(supervisor.run())
}
