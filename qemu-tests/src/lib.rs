//! Boots appliances in QEMU from a test: console and status readers, port forwards, power off and hard stop.
//!
//! Build the appliance first (`garboard build -o out`); this crate takes the output directory and needs nothing else of Garboard.
//!
//! ```no_run
//! use garboard_qemu::{Image, Vm, secs};
//! use std::io::{Read, Write};
//! use std::net::TcpStream;
//!
//! # fn main() -> Result<(), garboard_qemu::Error> {
//! let image = Image::load("out")?;
//! let vm = Vm::boot(&image)?;
//! vm.wait_healthy("web", secs(20))?;
//!
//! // Every port that the appliance declares is forwarded from a free port of 127.0.0.1.
//! let mut web = TcpStream::connect(vm.address(80)?).unwrap();
//! web.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
//! let mut page = String::new();
//! web.read_to_string(&mut page).unwrap();
//! assert!(page.starts_with("HTTP/1.1 200"));
//!
//! assert!(vm.status()?.container("web").is_some_and(|web| web.restarts == 0));
//! vm.power_off(secs(20))?;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Vm`] never writes to the image: writable disks are copies that vanish with it, unless [`Builder::state`] names a directory
//! to keep them in. A machine ends with its `Vm`, and with the process that made it.
//!
//! Errors carry the end of the console, so a failed test says what the machine last said.
//!
//! # Environment
//!
//! * `GARBOARD_ACCEL=kvm|tcg`: don't find out by trying which of the two works.
//! * `GARBOARD_TIME_SCALE=3`: wait three times as long everywhere, for a slow or busy machine.
//! * `GARBOARD_QEMU=/path/to/qemu-system-x86_64`: another QEMU.

/// The README's example is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod accel;
mod builder;
mod carry;
mod console;
mod copy;
mod error;
mod image;
mod machine;
mod ports;
mod process;
mod qmp;
mod state;
mod status;
mod sys;
mod vm;

pub use accel::Accel;
pub use builder::Builder;
pub use console::Console;
pub use error::{Error, Result};
pub use image::{Image, Port};
pub use machine::{Disk, DiskFault, Firmware, Forward, Hardware, Kernel, Machine, SerialConsole};
pub use qmp::Ending;
pub use status::{ContainerStatus, DataStatus, Exit, Feature, NetworkStatus, Previous, Snapshot};
pub use vm::Vm;

use std::time::Duration;

/// The example in the read-me is compiled, so that it stays right.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;

/// So many seconds. Read aloud: `vm.wait_ready(secs(20))`.
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// No wait is longer: so long that nobody tells it from for ever, and short enough to be added to any time.
const LONGEST: Duration = secs(10 * 365 * 24 * 60 * 60);

/// `timeout`, made longer by `GARBOARD_TIME_SCALE` (1 to 100), as every wait of this library is: for a test's own.
pub fn scaled(timeout: Duration) -> Duration {
    let scale = std::env::var("GARBOARD_TIME_SCALE").ok().and_then(|text| text.parse::<f64>().ok());
    timeout.min(LONGEST).mul_f64(scale.unwrap_or(1.0).clamp(1.0, 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_timeout_is_too_long() {
        assert!(scaled(Duration::MAX) >= LONGEST);
        assert_eq!(scaled(secs(0)), secs(0));
    }
}
