//! PID 1 of a Garboard appliance.
//!
//! [`pid1`] tells the story: [`boot`] makes a machine of a kernel, [`event_loop`] launches the plan's containers and keeps
//! them as the pure automaton in [`supervise`] says, until it says to stop. What may block runs in a [`work`]er.
//!
//! A library, so that the same loop can be driven by tests as an ordinary process.

// PID 1 can't die: what could panic is an error here.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::arithmetic_side_effects,
        clippy::unreachable
    )
)]

pub mod boot;
pub mod clock;
pub mod console;
pub mod crash;
pub mod escape;
pub mod etc_files;
pub mod event_loop;
pub mod events;
pub mod kept;
pub mod kmsg_logger;
pub mod last_words;
pub mod launch;
pub mod logs;
pub mod notify;
pub mod orders;
pub mod passing;
pub mod pid1;
pub mod shutdown;
pub mod snapshot;
pub mod status;
pub mod store;
pub mod supervise;
pub mod sys;
pub mod work;
pub mod worker;
