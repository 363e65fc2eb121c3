//! `linux.devices` of a spec.

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use super::text;
use crate::launch::{Device, DeviceNode, Node, NodeKind};
use crate::spec::Error;

/// Permission bits of a node that says nothing.
const MODE: u32 = 0o666;

pub(super) fn devices(devices: &[LinuxDevice]) -> Result<Vec<Device>, Error> {
    devices.iter().map(device).collect()
}

fn device(device: &LinuxDevice) -> Result<Device, Error> {
    let given = text("linux.devices.path", device.path())?;
    let target = super::without_upwards(given.trim_end_matches('/'));
    let field = format!("linux.devices[{target}]");
    if !target.starts_with('/') || target == "/" {
        return Err(Error::new(field, "the path must be absolute"));
    }
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => NodeKind::Character,
        LinuxDeviceType::B => NodeKind::Block,
        LinuxDeviceType::P => NodeKind::Fifo,
        LinuxDeviceType::A => return Err(Error::new(field, "type \"a\" is none of c, b, u and p")),
    };
    let number = |name: &str, value: i64, bits: u32| {
        let value = if kind == NodeKind::Fifo { 0 } else { value };
        u32::try_from(value)
            .ok()
            .filter(|value| *value < 1 << bits)
            .ok_or_else(|| Error::new(format!("{field}.{name}"), format!("{value} is no device number")))
    };
    Ok(Device {
        node: DeviceNode::Numbered(Node {
            kind,
            major: number("major", device.major(), 12)?,
            minor: number("minor", device.minor(), 20)?,
            // Some callers leave the file type in.
            mode: device.file_mode().unwrap_or(MODE) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        }),
        target: target.into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(json: &str) -> Result<Device, Error> {
        device(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_node_is_as_it_says() {
        let made = one(r#"{"path":"/dev/fuse","type":"c","major":10,"minor":229,"fileMode":8630,"uid":3,"gid":4}"#);
        let node = Node { kind: NodeKind::Character, major: 10, minor: 229, mode: 0o666, uid: 3, gid: 4 };
        assert_eq!(made.unwrap(), Device { target: "/dev/fuse".to_owned(), node: DeviceNode::Numbered(node) });
        let fifo = one(r#"{"path":"/p","type":"p"}"#).unwrap().node;
        assert!(
            matches!(fifo, DeviceNode::Numbered(Node { kind: NodeKind::Fifo, major: 0, minor: 0, .. })),
            "{fifo:?}"
        );
    }

    #[test]
    fn a_slash_at_the_end_means_nothing() {
        assert_eq!(one(r#"{"path":"/dev/x/","type":"c","major":1,"minor":3}"#).unwrap().target, "/dev/x");
        assert!(one(r#"{"path":"/","type":"c","major":1,"minor":3}"#).is_err());
        assert_eq!(one(r#"{"path":"/dev/../dev/x","type":"c","major":1,"minor":3}"#).unwrap().target, "/dev/x");
    }

    #[test]
    fn what_is_no_node_is_named() {
        for json in [
            r#"{"path":"/dev/x","type":"a","major":1,"minor":1}"#,
            r#"{"path":"/dev/x","type":"c","major":4096,"minor":1}"#,
            r#"{"path":"/dev/x","type":"c","major":1,"minor":-1}"#,
            r#"{"path":"dev/x","type":"c","major":1,"minor":1}"#,
            r#"{"path":"/dev/..","type":"c","major":1,"minor":1}"#,
        ] {
            assert!(one(json).unwrap_err().to_string().contains("linux.devices["), "{json}");
        }
    }
}
