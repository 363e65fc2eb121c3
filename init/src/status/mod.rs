//! The status port: line-JSON over a virtio-serial port named [`PORT_NAME`].

mod port;
pub mod protocol;
mod uevent;

pub use port::{Port, find};
pub use uevent::Uevents;

/// The port's name, as the hypervisor is told it.
pub const PORT_NAME: &str = "org.garboard.status.0";
