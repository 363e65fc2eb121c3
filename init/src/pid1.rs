//! The story of process 1, from its exec to the machine's end.

use crate::boot::{self, BootError, Trace};
use crate::console::{self, Console};
use crate::event_loop::{Machine, Options, Supervisor};
use crate::last_words::Places;
use crate::sys::fd::Inherited;
use crate::{crash, kmsg_logger, shutdown, work, worker};
use rustix::system::RebootCommand;

/// What `/init` does. `crash_trigger`: signals make it crash, for tests.
pub fn run(crash_trigger: bool) {
    // Words of the kernel command line are among them, and may be any bytes.
    let args: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        [worker::NAME, kind, ..] => std::process::exit(work::run(kind, args.get(2..).unwrap_or_default())),
        [_, "--resume", state, highest, since, reason] => resume(state, highest, since, reason),
        _ if rustix::process::getpid().is_init() => begin(crash_trigger),
        _ => {
            eprintln!("garboard-init is process 1 of an appliance; see `garboard build`");
            std::process::exit(2);
        }
    }
}

/// From the kernel's exec of `/init` to the end of the machine.
fn begin(crash_trigger: bool) -> ! {
    let mut trace = Trace::begin();
    // The kernel gives PID 1 the console.
    console::ignore_input(std::io::stdin());
    // Ctrl-Alt-Del sends SIGINT from here on, and no longer resets the machine at once.
    let _ = rustix::system::reboot(RebootCommand::CadOff);
    let supervisor = crash::install()
        .map_err(|e| BootError::new("install crash handlers", "", e))
        .and_then(|()| boot::stage_one(&mut trace))
        .and_then(|one| {
            kmsg_logger::install();
            boot::stage_two(one, &mut trace)
        })
        .and_then(|booted| {
            let machine = Machine {
                plan: booted.plan,
                features: booted.features,
                cgroup: Some(booted.cgroup),
                trace,
                warnings: booted.warnings,
                console: Console::open(),
                port: None,
            };
            let options = Options {
                print_trace: booted.cmdline.trace,
                stop: boot::stop::action(booted.cmdline.stop).into(),
                crash_trigger,
                ..Options::default()
            };
            Supervisor::begin(machine, options).map_err(|e| BootError::new("begin to supervise", "", e))
        });
    match supervisor {
        Ok(supervisor) => shutdown::carry_out(supervisor.run()),
        Err(error) => boot::stop(&error),
    }
}

/// The incarnation before crashed: its containers are our children now.
fn resume(state: &str, highest: &str, since: &str, reason: &str) -> ! {
    // Before anything is opened: what is not taken from it is closed.
    let inherited = Inherited::take_all(highest);
    kmsg_logger::install();
    match Supervisor::resume(inherited, state, since, reason) {
        Ok(supervisor) => shutdown::carry_out(supervisor.run()),
        Err((error, watchdog)) => {
            let why = format!("PID 1 crashed ({reason}) and can't go on: {error}");
            shutdown::give_up(&why, &Places::default(), watchdog)
        }
    }
}
