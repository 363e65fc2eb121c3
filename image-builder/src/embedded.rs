//! The static programs that the build script made (see `build.rs`).

/// PID 1.
pub const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/garboard-init"));
/// The first process of containers with `init: true`.
pub const REAPER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/garboard-reaper"));
/// The program in the demo appliance's containers.
pub const DEMO: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/garboard-demo"));
