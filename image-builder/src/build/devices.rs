//! Numbers of device nodes, by name.
//!
//! The device filter of a container is compiled here, on a machine that doesn't have the appliance's devices. So only nodes
//! whose number the kernel assigns once and for all (Documentation/admin-guide/devices.txt) can be named.

use anyhow::{Result, bail};

/// A device node's type and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    /// `c` or `b`.
    pub kind: char,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// Nodes with a number of their own.
const SINGLE: [(&str, char, u32, u32); 17] = [
    ("null", 'c', 1, 3),
    ("zero", 'c', 1, 5),
    ("full", 'c', 1, 7),
    ("random", 'c', 1, 8),
    ("urandom", 'c', 1, 9),
    ("kmsg", 'c', 1, 11),
    ("tty", 'c', 5, 0),
    ("console", 'c', 5, 1),
    ("watchdog", 'c', 10, 130),
    ("hwrng", 'c', 10, 183),
    ("net/tun", 'c', 10, 200),
    ("fuse", 'c', 10, 229),
    ("kvm", 'c', 10, 232),
    ("loop-control", 'c', 10, 237),
    ("vhost-net", 'c', 10, 238),
    ("uinput", 'c', 10, 223),
    ("vhost-vsock", 'c', 10, 241),
];

/// Rows of nodes: the name before the index, type, major, minor of index 0, and how many there are.
const ROWS: [(&str, char, u32, u32, u32); 12] = [
    ("ttyS", 'c', 4, 64, 192),
    ("tty", 'c', 4, 0, 64),
    ("loop", 'b', 7, 0, 256),
    ("input/event", 'c', 13, 64, 32),
    ("video", 'c', 81, 0, 64),
    ("i2c-", 'c', 89, 0, 256),
    ("ttyACM", 'c', 166, 0, 256),
    ("ttyUSB", 'c', 188, 0, 256),
    ("ttyAMA", 'c', 204, 64, 16),
    ("dri/card", 'c', 226, 0, 64),
    ("dri/renderD", 'c', 226, 0, 256),
    ("sr", 'b', 11, 0, 256),
];

/// The number of the node at `path`, which lies under `/dev/`.
pub fn number(path: &str) -> Result<Number> {
    let name = path.strip_prefix("/dev/").unwrap_or(path);
    if let Some((_, kind, major, minor)) = SINGLE.iter().find(|(single, ..)| *single == name) {
        return Ok(Number { kind: *kind, major: *major, minor: *minor });
    }
    for (prefix, kind, major, first, count) in ROWS {
        let index = name.strip_prefix(prefix).and_then(|index| index.parse::<u32>().ok());
        if let Some(index) = index.filter(|index| *index < count) {
            return Ok(Number { kind, major, minor: first + index });
        }
    }
    scsi_disk(name).map_or_else(
        || bail!("device {path}: the kernel numbers it anew in each boot, or its name isn't known here, so access to it can't be limited to it"),
        Ok,
    )
}

/// `sda` to `sdp` and their partitions: 16 minor numbers each.
fn scsi_disk(name: &str) -> Option<Number> {
    let mut rest = name.strip_prefix("sd")?.chars();
    let disk = u32::from(rest.next().filter(|letter| ('a'..='p').contains(letter))?) - u32::from('a');
    let partition = match rest.as_str() {
        "" => 0,
        digits => digits.parse::<u32>().ok().filter(|partition| (1..16).contains(partition))?,
    };
    Some(Number { kind: 'b', major: 8, minor: disk * 16 + partition })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        let of = |path: &str| number(path).map(|n| (n.kind, n.major, n.minor)).unwrap();
        assert_eq!(of("/dev/kvm"), ('c', 10, 232));
        assert_eq!(of("/dev/ttyS1"), ('c', 4, 65));
        assert_eq!(of("/dev/tty1"), ('c', 4, 1));
        assert_eq!(of("/dev/tty"), ('c', 5, 0));
        assert_eq!(of("/dev/dri/renderD128"), ('c', 226, 128));
        assert_eq!(of("/dev/sda"), ('b', 8, 0));
        assert_eq!(of("/dev/sdb3"), ('b', 8, 19));
    }

    #[test]
    fn a_node_of_this_machine_has_the_number_in_the_table() {
        use std::os::unix::fs::MetadataExt;
        for path in ["/dev/null", "/dev/zero", "/dev/full", "/dev/urandom"] {
            let device = std::fs::metadata(path).unwrap().rdev();
            let found = number(path).unwrap();
            assert_eq!((device >> 8 & 0xfff, device & 0xff), (found.major.into(), found.minor.into()), "{path}");
        }
    }

    #[test]
    fn what_has_no_fixed_number_is_refused() {
        for path in ["/dev/vda", "/dev/nvme0n1", "/dev/ttyS999", "/dev/sdz", "/dev/sda16", "/dev/sd"] {
            assert!(number(path).unwrap_err().to_string().contains(path), "{path}");
        }
    }
}
