//! System calls without a safe wrapper elsewhere, each behind a safe function.
#![allow(unsafe_code)]

pub mod block;
pub mod crash;
pub mod dm;
pub mod fault;
pub mod fd;
pub mod map;
pub mod module;
pub mod net;
pub mod probe;
pub mod signal;
pub mod vsock;
pub mod wait;
pub mod watchdog;
