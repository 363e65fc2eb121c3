//! Bodies of the workers: what may block, done in a child process of the same binary.
//!
//! A worker reads the plan itself, writes lines of JSON ([`report`]) on its standard output and ends with status 0 when it did
//! what it could (a report of a fault counts), 1 when it could not even report.
//!
//! | kind | does | lines | ends |
//! |---|---|---|---|
//! | `modules` | loads the plan's modules | one [`report::Modules`] | by itself |
//! | `data` | finds, grows and mounts the data filesystem on `/data`, in PID 1's own mount namespace | one [`report::Mounted`] | by itself |
//! | `network` | configures the uplink, keeps the DHCP lease, writes `/run/garboard/resolv.conf` | one [`report::Network`] per change | static or none: by itself; DHCP: never |
//! | `volumes` WHAT INDEX PLAN | makes and opens the volumes of a container, filled with what its image has there if WHAT is `fill` | one [`report::Volumes`] | when PID 1 has what it opened, by its hand |
//! | `health` INDEX PID PLAN | asks a container, whose first process's pid descriptor is standard input, whether it works | one [`report::Health`]; none if the machine was short of something | by itself, in the time that the check has |
//! | `passphrase` | says whether what it reads is a passphrase and its hash | one [`report::Passphrase`] | by itself |
//! | `shell` INDEX PLAN PID CGROUPS COLUMNS ROWS | a shell in a container, on the console | one [`report::Shell`] | with the shell |
//! | `launch` PLAN RUN CGROUPS | starts containers in PID 1's place; standard input is [`crate::orders`]'s | none | when nothing more is ordered |
//! | `stopped` PLAN INDEX … | keeps on the data filesystem that these containers were stopped by hand | one [`report::Stopped`] if it can't | by itself |
//! | `words` DIRECTORY PSTORE WATCHDOG | says how the boot before ended, keeps that this one is under way ([`crate::last_words`]) | [`report::Words`] | by itself |
//! | `stop` DIRECTORY PMSG LOG DUMP END | writes everything back, keeps how this boot ends and unmounts the data filesystem | none | by itself |
//! | `keep` DATA PLAN | writes the logs that are kept, which it reads from PID 1's rings; standard input is [`crate::kept::socket`]'s | one [`report::Keep`] when it begins, one if it can't go on | when PID 1 closes its end |
//! | `previous` DATA NAME COUNT | reads a kept log's lines of earlier boots | a [`report::KeptLine`] for each line | by itself |
//!
//! Each keeps only the capabilities that its work takes ([`privileges`]).
//!
//! `data` and `network` want the modules of `modules`: start them when it has ended.

pub mod address;
mod cgroup;
pub mod data;
pub mod dhcp;
pub mod ext4;
pub mod health;
pub mod keep;
pub mod launch;
pub mod lease;
pub mod modules;
pub mod network;
mod own_file;
pub mod passphrase;
pub mod privileges;
pub mod pstore;
pub mod report;
pub mod shell;
pub mod stopped;
mod trouble;
pub mod volumes;
pub mod words;

use std::io::Write;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::shutdown;

/// Runs the body of the worker `kind` with the privileges that it needs; the result is the process's exit status.
pub fn run(kind: &str, arguments: &[String]) -> i32 {
    if privileges::keep(kind).is_err() {
        return 1;
    }
    match kind {
        "modules" => modules::run(),
        "data" => data::run(),
        "network" => network::run(),
        "volumes" => volumes::run(arguments),
        "health" => health::run(arguments),
        "passphrase" => passphrase::run(),
        "shell" => shell::run(arguments),
        "words" => words::run(arguments),
        "stop" => shutdown::unmount(arguments),
        "launch" => launch::run(arguments),
        "keep" => keep::run(arguments),
        "previous" => keep::previous(arguments),
        "stopped" => stopped::run(arguments),
        _ => 1,
    }
}

/// Whether a process has ended, by its pid descriptor.
fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let mut end = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    poll(&mut end, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) != Ok(0)
}

/// Writes a report; the result is the exit status of a worker that has nothing else to do.
fn emit<T: Serialize>(report: &T) -> i32 {
    let Ok(mut line) = serde_json::to_vec(report) else { return 1 };
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    if out.write_all(&line).and_then(|()| out.flush()).is_ok() { 0 } else { 1 }
}
