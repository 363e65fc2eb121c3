//! Landlock rules (landlock(7)), put in force before the program is executed and after the root is changed.

use std::os::fd::AsFd;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::failure::{Context, Failure, Step};
use crate::launch::Landlock;
use crate::sys::landlock::{Ruleset, version};

/// Access rights of `linux/landlock.h`: execute, read file, read directory.
const READ: u64 = 0b1101;
/// Those among all rights that a file has, too: execute, write, read, truncate, ioctl.
const OF_A_FILE: u64 = 0b111 | 1 << 14 | 1 << 15;
/// The rights that each version of the interface has: 13 at first, then refer, truncate, and since the fifth ioctl.
const RIGHTS: [u32; 5] = [13, 14, 15, 15, 16];
const BIND: u64 = 1;
const CONNECT: u64 = 2;
const ABSTRACT_SOCKETS: u64 = 1;
const SIGNALS: u64 = 2;
/// The versions that brought TCP ports (Linux 6.7) and scopes (6.12).
const WITH_PORTS: i64 = 4;
const WITH_SCOPES: i64 = 6;

/// Builds the rules from paths as the container has them now. They aren't in force yet.
pub(crate) fn prepare(rules: &Landlock) -> Result<Ruleset, Failure> {
    let version = version().at(Step::Landlock, || "the program")?;
    let handles_files = rules.read.is_some() || rules.write.is_some();
    let handled = if handles_files { all_rights(version) } else { 0 };
    let bit = |set: bool, bit: u64| if set { bit } else { 0 };
    let net = bit(rules.bind.is_some(), BIND) | bit(rules.connect.is_some(), CONNECT);
    let scoped = bit(rules.scope_abstract_sockets, ABSTRACT_SOCKETS) | bit(rules.scope_signals, SIGNALS);
    for (needed, minimum, what) in [(net, WITH_PORTS, "TCP ports"), (scoped, WITH_SCOPES, "scopes")] {
        if needed != 0 && version < minimum {
            return Err(Failure::new(Step::Landlock, what, Errno::OPNOTSUPP));
        }
    }
    let set = Ruleset::new(handled, net, scoped).at(Step::Landlock, || "the program")?;
    let trees = rules.read.iter().flatten().map(|path| (path, READ));
    for (path, access) in trees.chain(rules.write.iter().flatten().map(|path| (path, handled))) {
        allow(&set, path, access & handled)?;
    }
    let ports = rules.bind.iter().flatten().map(|port| (*port, BIND));
    for (port, access) in ports.chain(rules.connect.iter().flatten().map(|port| (*port, CONNECT))) {
        set.allow_port(port, access).at(Step::Landlock, || format!("port {port}"))?;
    }
    Ok(set)
}

/// A path that doesn't exist can't be opened by anybody: nothing to allow.
fn allow(set: &Ruleset, path: &str, access: u64) -> Result<(), Failure> {
    let place = match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.at(Step::Landlock, || path)?,
    };
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&place).at(Step::Landlock, || path)?.st_mode);
    let access = if kind == FileType::Directory { access } else { access & OF_A_FILE };
    set.allow_path(place.as_fd(), access).at(Step::Landlock, || path)
}

/// Every right to files that this version of the interface knows, so that what isn't allowed is denied.
fn all_rights(version: i64) -> u64 {
    let index = usize::try_from(version.saturating_sub(1)).unwrap_or_default();
    let count = RIGHTS.get(index).or(RIGHTS.last()).copied().unwrap_or_default();
    1_u64.checked_shl(count).unwrap_or_default().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_version_has_its_rights() {
        assert_eq!([1, 2, 3, 4, 5, 9].map(super::all_rights), [0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff, 0xffff]);
    }
}
