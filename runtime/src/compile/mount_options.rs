//! Mount options of a spec (runtime spec, "Linux mount options"; mount(8)): what each means, and what they add up to.

use crate::launch::{Attributes, MountFlags};

/// `MOUNT_ATTR_*` of `linux/mount.h` that the C library's headers don't all have.
pub(super) const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const ATIME: u64 = 0x70;
const RELATIME: u64 = 0;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x20_0000;
/// What a remount doesn't name of these, it takes away (mount(2), `MS_REMOUNT`).
const UNNAMED: u64 = RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC | NOSYMFOLLOW;

/// Says what the kernel does anyway, or what has had no effect since long before the oldest kernel that is supported:
/// `iversion` is each filesystem's own affair, `silent` and `loud` choose what the kernel logs.
const NO_CHANGE: [&str; 6] = ["defaults", "silent", "loud", "iversion", "noiversion", "norelatime"];

/// Flags of a whole filesystem, which every type takes (`vfs_parse_sb_flag` in the kernel). A bind mount has none of its own;
/// there mount(2) leaves them without effect, and so does this.
const FILESYSTEM: [&str; 7] = ["sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"];

/// What the options of one mount add up to.
#[derive(Default)]
pub(super) struct Options {
    pub(super) flags: MountFlags,
    pub(super) bind: bool,
    pub(super) recursive: bool,
    pub(super) remount: bool,
    pub(super) copy_up: bool,
    /// `Some(recursive)`
    pub(super) idmap: Option<bool>,
    /// What follows `idmap=` or `ridmap=`.
    pub(super) own_ids: Option<String>,
    /// Of the filesystem as such.
    pub(super) filesystem: Vec<String>,
    /// The filesystem type's own.
    pub(super) rest: Vec<String>,
}

impl Options {
    /// All options of one mount, the later ones over the earlier.
    pub(super) fn of(options: &[String]) -> Self {
        let mut sum = Self::default();
        for option in options.iter().filter(|option| !option.is_empty()) {
            sum.take(option);
        }
        if sum.remount {
            sum.flags.own.clear |= UNNAMED;
            // These stay, unless one of them is named (`path_mount` in the kernel).
            if sum.flags.own.clear & ATIME != 0 || sum.flags.own.set & NODIRATIME != 0 {
                sum.flags.own.clear |= ATIME | NODIRATIME;
            }
        }
        sum
    }

    fn take(&mut self, option: &str) {
        if attribute(&mut self.flags.own, option) {
            return;
        }
        if let Some(name) = option.strip_prefix('r')
            && attribute(&mut self.flags.tree, name)
        {
            return;
        }
        if let Some(propagation) = propagation(option) {
            self.flags.propagation.push(propagation);
            return;
        }
        if let Some((name @ ("idmap" | "ridmap"), ids)) = option.split_once('=') {
            self.own_ids = Some(ids.to_owned());
            return self.take(name);
        }
        match option {
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive) = (true, true),
            "remount" => self.remount = true,
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.idmap = Some(self.idmap.unwrap_or(false)),
            "ridmap" => self.idmap = Some(true),
            known if NO_CHANGE.contains(&known) || known == "rnorelatime" => {}
            known if FILESYSTEM.contains(&known) => self.filesystem.push(known.to_owned()),
            other => self.rest.push(other.to_owned()),
        }
    }
}

/// Applies an option that is a mount's attribute; false if it is none.
fn attribute(attributes: &mut Attributes, option: &str) -> bool {
    let atime = |attributes: &mut Attributes, how: u64| {
        // The kernel wants all of the old mode cleared for a new one.
        attributes.set = attributes.set & !ATIME | how;
        attributes.clear |= ATIME;
    };
    match option {
        "ro" => attributes.set(RDONLY),
        "rw" => attributes.clear(RDONLY),
        "nosuid" => attributes.set(libc::MOUNT_ATTR_NOSUID),
        "suid" => attributes.clear(libc::MOUNT_ATTR_NOSUID),
        "nodev" => attributes.set(libc::MOUNT_ATTR_NODEV),
        "dev" => attributes.clear(libc::MOUNT_ATTR_NODEV),
        "noexec" => attributes.set(libc::MOUNT_ATTR_NOEXEC),
        "exec" => attributes.clear(libc::MOUNT_ATTR_NOEXEC),
        "nodiratime" => attributes.set(NODIRATIME),
        "diratime" => attributes.clear(NODIRATIME),
        "nosymfollow" => attributes.set(NOSYMFOLLOW),
        "symfollow" => attributes.clear(NOSYMFOLLOW),
        "noatime" => atime(attributes, NOATIME),
        "strictatime" => atime(attributes, STRICTATIME),
        // "Don't use noatime", "don't use strictatime": the kernel's default.
        "relatime" | "atime" | "nostrictatime" => atime(attributes, RELATIME),
        _ => return false,
    }
    true
}

/// `MS_*` of a change of propagation (mount_namespaces(7)).
fn propagation(option: &str) -> Option<u32> {
    let recursive = |name: &str| option.strip_prefix('r') == Some(name);
    let kinds = [
        ("private", libc::MS_PRIVATE),
        ("shared", libc::MS_SHARED),
        ("slave", libc::MS_SLAVE),
        ("unbindable", libc::MS_UNBINDABLE),
    ];
    kinds.iter().find_map(|(name, bits)| {
        let bits = if option == *name {
            *bits
        } else if recursive(name) {
            *bits | libc::MS_REC
        } else {
            return None;
        };
        u32::try_from(bits).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[&str]) -> Options {
        Options::of(&options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn every_option_of_the_specification_is_known() {
        let table = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime noexec \
                     noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime \
                     relatime remount rexec rnoatime rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate \
                     rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime \
                     suid symfollow sync tmpcopyup unbindable idmap ridmap";
        for option in table.split_whitespace() {
            assert_eq!(of(&[option]).rest, Vec::<String>::new(), "{option}");
        }
        assert_eq!(of(&["size=4k", "rnonsense"]).rest, ["size=4k", "rnonsense"]);
    }

    #[test]
    fn the_last_word_counts() {
        let flags = of(&["ro", "nosuid", "rw", "noatime", "strictatime", "rro", "rnoexec", "rrw"]).flags;
        assert_eq!(flags.own, Attributes { set: libc::MOUNT_ATTR_NOSUID | STRICTATIME, clear: RDONLY | ATIME });
        assert_eq!(flags.tree, Attributes { set: libc::MOUNT_ATTR_NOEXEC, clear: RDONLY });
        // A remount says all but how times of access are kept.
        let flags = of(&["remount", "nodev"]).flags;
        assert_eq!(flags.own.set, libc::MOUNT_ATTR_NODEV);
        assert_eq!((flags.own.clear & RDONLY, flags.own.clear & (ATIME | NODIRATIME)), (RDONLY, 0));
        for named in ["noatime", "relatime", "nodiratime"] {
            let clear = of(&["remount", named]).flags.own.clear;
            assert_eq!(clear & (ATIME | NODIRATIME), ATIME | NODIRATIME, "{named}");
        }
    }

    #[test]
    fn propagation_is_kept_in_order() {
        let flags = of(&["slave", "rshared"]).flags;
        let bits: Vec<u64> = flags.propagation.iter().map(|bits| u64::from(*bits)).collect();
        assert_eq!(bits, [libc::MS_SLAVE, libc::MS_SHARED | libc::MS_REC]);
        let binds = of(&["rbind", "ridmap", "sync"]);
        assert!(binds.bind && binds.recursive && binds.idmap == Some(true) && binds.filesystem == ["sync"]);
    }
}
