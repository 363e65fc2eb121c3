//! The values that are written as one string: each module turns text into one kind of value, without places or context.

mod address;
mod capability;
mod cpu;
mod device;
mod digits;
mod duration;
mod id;
mod image;
mod mount;
mod name;
mod passphrase;
mod path;
mod policy;
mod port;
mod signal;
mod size;
mod ulimit;

pub(crate) use address::{AddressEntry, HostAddress, Ip, host_entry};
pub(crate) use capability::Capability;
pub(crate) use cpu::{CpuSet, Cpus, MOST_CPUS, Micros};
pub(crate) use device::{DeviceEntry, DevicePath, Permissions};
pub(crate) use digits::decimal;
pub(crate) use duration::Period;
pub(crate) use id::{IdEntry, UserEntry};
pub(crate) use image::ImageName;
pub(crate) use mount::{Mode, TmpfsEntry, VolumeShort, device_target, mount_target, no_room};
pub(crate) use name::{
    AnyHostName, ContainerName, HostName, InterfaceName, MachineName, PodName, VolumeName, cgroup_fault, sysctl_fault,
};
pub(crate) use passphrase::PassphraseHash;
pub(crate) use path::{AbsolutePath, FilePath};
pub(crate) use policy::{RestartPolicy, SecurityOption};
pub(crate) use port::{PortNumbers, PortShort, check_published};
pub(crate) use signal::Signal;
pub(crate) use size::{Bytes, BytesOrUnlimited};
pub(crate) use ulimit::{Rlim, ULIMITS};
