//! Every key of `appliance.toml`: its name, its type, what it means, and what it must not be mistaken for.
//!
//! The documentation of a field here is the key's description in the JSON Schema.

mod compound;
mod container;
mod health;
mod logging;
mod long;
mod machine;

pub(crate) use compound::{DependsOn, Hosts};
pub(crate) use container::{ContainerKeys, HostOrPrivate};
pub(crate) use health::{HealthKeys, HealthWords, OnUnhealthy, ReadStatus};
pub(crate) use logging::LoggingKeys;
pub(crate) use long::{
    BlkioKeys, BytesRate, CountRate, DeviceKeys, MountType, PortKeys, StorageKeys, UlimitKeys, VolumeMountKeys,
    Weighted,
};
pub(crate) use machine::{
    Access, ApplianceKeys, ConsoleKeys, DataKeys, KernelKeys, NetworkKeys, SystemKeys, VolumeKeys, VolumeKind,
};
