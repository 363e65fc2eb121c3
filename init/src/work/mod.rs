//! Bodies of the workers: what may block, done in a child process of the same binary.
//!
//! A worker reads the plan itself, writes lines of JSON ([`report`]) on its standard output and ends with status 0 when it did
//! what it could (a report of a fault counts), 1 when it could not even report.
//!
//! | kind | does | lines | ends |
//! |---|---|---|---|
//! | `modules` | loads the plan's modules, then locks module loading | one [`report::Modules`] | by itself |
//! | `data` | finds, grows and mounts the data filesystem on `/data`, in PID 1's own mount namespace | one [`report::Data`] | by itself |
//! | `network` | configures the uplink, keeps the DHCP lease, writes `/run/garboard/resolv.conf` | one [`report::Network`] per change | static or none: by itself; DHCP: never |
//!
//! `data` and `network` want the modules of `modules`: start them when it has ended.

pub mod report;

/// Runs the body of the worker `kind`; the result is the process's exit status.
pub fn run(kind: &str, _args: &[String]) -> i32 {
    let _ = kind;
    1
}
