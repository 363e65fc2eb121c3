//! Launches as a plan has them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{DATA, PlanError};
use crate::failure::Failure;
use crate::launch::{Launch, MountSource, RootSource, Seccomp, Upper};
use crate::volumes;

/// A launch, encoded: PID 1 has one for each container, perhaps a thousand, and needs one at a time. Encoded they take a quarter of the
/// memory, which the kernel goes through whenever PID 1 makes a child.
///
/// What PID 1 wants to know of all of them at once stands beside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedLaunch {
    uses_data: bool,
    uses_devices: bool,
    has_volumes: bool,
    /// Beside the rest, as most containers have the same one, which then is in memory once. The plan's file has it elsewhere, too.
    #[serde(skip)]
    seccomp: Option<Seccomp>,
    /// All but that, in postcard's wire format.
    #[serde(serialize_with = "serialize", deserialize_with = "deserialize")]
    rest: Box<[u8]>,
}

impl PackedLaunch {
    /// Encodes a launch.
    pub fn of(mut launch: Launch) -> Result<Self, PlanError> {
        let seccomp = launch.seccomp.take();
        let rest = postcard::to_stdvec(&launch).map_err(PlanError::Malformed)?.into();
        let has_volumes = volumes::of(&launch).next().is_some();
        Ok(Self { uses_data: uses_data(&launch), uses_devices: uses_devices(&launch), has_volumes, seccomp, rest })
    }

    /// The launch. It fails only where no builder has made it.
    pub fn unpack(&self) -> Result<Launch, Failure> {
        match postcard::take_from_bytes(&self.rest) {
            Ok((launch, [])) => Ok(Launch { seccomp: self.seccomp.clone(), ..launch }),
            Ok(_) => Err(Failure::check("its launch in the plan is followed by something else")),
            Err(error) => Err(Failure::check(format!("its launch in the plan can't be read: {error}"))),
        }
    }

    /// Replaces it by a changed one.
    pub fn change(&mut self, change: impl FnOnce(&mut Launch)) -> Result<(), PlanError> {
        let mut launch = self.unpack().map_err(|_| PlanError::Malformed(postcard::Error::DeserializeBadEncoding))?;
        change(&mut launch);
        *self = Self::of(launch)?;
        Ok(())
    }

    pub(super) fn seccomp(&self) -> Option<&Seccomp> {
        self.seccomp.as_ref()
    }

    pub(super) fn set_seccomp(&mut self, filter: Seccomp) {
        self.seccomp = Some(filter);
    }

    /// Whether anything of the container lies on the data filesystem.
    #[must_use]
    pub fn uses_data(&self) -> bool {
        self.uses_data
    }

    /// Whether the container names devices besides those that every machine has.
    #[must_use]
    pub fn uses_devices(&self) -> bool {
        self.uses_devices
    }

    /// Whether it has [`volumes`].
    #[must_use]
    pub fn has_volumes(&self) -> bool {
        self.has_volumes
    }
}

fn uses_data(launch: &Launch) -> bool {
    let is_data = |path: &str| std::path::Path::new(path).starts_with(DATA);
    let upper = match &launch.root.source {
        RootSource::Layers { upper: Upper::Directory(path), .. } | RootSource::Directory(path) => is_data(path),
        RootSource::Layers { .. } => false,
    };
    let bound = launch.mounts.iter().any(|m| matches!(&m.source, MountSource::Bind { path, .. } if is_data(path)));
    upper || bound
}

fn uses_devices(launch: &Launch) -> bool {
    !launch.cgroup.devices.is_empty() || !launch.cgroup.device_settings.is_empty()
}

fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// All at once, where a sequence would be read byte by byte.
fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<[u8]>, D::Error> {
    <&[u8]>::deserialize(deserializer).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::{CreateDir, EndLinks, IdMapping, Mount, MountFlags, Root};

    fn with_bind(path: &str, create: Option<CreateDir>) -> PackedLaunch {
        let source = MountSource::Bind { path: path.into(), recursive: false, idmap: IdMapping::None, links: EndLinks::Followed, create };
        let mount = Mount { target: "/there".into(), source, flags: MountFlags::default() };
        PackedLaunch::of(Launch { mounts: vec![mount], ..Launch::bare(Root::default()) }).unwrap()
    }

    #[test]
    fn a_launch_comes_back_with_its_filter() {
        let seccomp = Some(Seccomp { bpf: vec![6; 80].into(), flags: 1, listener: None });
        let launch = Launch { seccomp, hostname: Some("shop".into()), ..Launch::bare(Root::default()) };
        let packed = PackedLaunch::of(launch.clone()).unwrap();
        assert_eq!(packed.unpack(), Ok(launch));
    }

    #[test]
    fn what_no_builder_made_is_a_failure() {
        let good = PackedLaunch::of(Launch::bare(Root::default())).unwrap();
        let of = |rest: &[u8]| PackedLaunch { rest: rest.into(), ..good.clone() }.unpack().unwrap_err().to_string();
        let short = of(&good.rest[..good.rest.len() - 1]);
        assert!(short.contains("its launch in the plan can't be read: "), "{short}");
        let long = of(&[&good.rest[..], &[0]].concat());
        assert!(long.contains("followed by something else"), "{long}");
    }

    #[test]
    fn what_is_asked_of_all_follows_from_the_launch() {
        let asked = |packed: &PackedLaunch| (packed.uses_data(), packed.has_volumes(), packed.uses_devices());
        assert_eq!(asked(&with_bind("/data/volumes/db", Some(CreateDir { uid: 0, gid: 0, mode: 0o755 }))), (true, true, false));
        assert_eq!(asked(&with_bind("/data/volumes/db", None)), (true, false, false));
        let mut other = with_bind("/database", None);
        assert_eq!(asked(&other), (false, false, false));
        other.change(|launch| launch.root.source = RootSource::Directory("/data/root".into())).unwrap();
        assert_eq!(asked(&other), (true, false, false));
        let setting = crate::launch::DeviceSetting { file: "io.max".into(), path: "/dev/vda".into(), value: "rbps=1".into() };
        other.change(|launch| launch.cgroup.device_settings.push(setting)).unwrap();
        assert_eq!(asked(&other), (true, false, true));
    }
}
