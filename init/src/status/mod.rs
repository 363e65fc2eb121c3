//! The status ports: line-JSON over a virtio-serial port named [`PORT_NAME`], over vsock(7) and over sockets in containers.

pub mod meter;
pub mod metrics;
mod outbox;
mod port;
pub mod ports;
pub mod protocol;
pub mod subscription;
mod uevent;

pub use port::{Port, find};
pub use ports::{Ports, Rights};
pub use uevent::Uevents;

/// The port's name, as the hypervisor is told it.
pub const PORT_NAME: &str = "org.garboard.status.0";
