//! Mount options of a spec (runtime spec, "Linux mount options"; mount(8)): what each means, and what they add up to.

use crate::launch::{Attributes, EndLinks, MountFlags};

/// `MOUNT_ATTR_*` of `linux/mount.h` that the C library's headers don't all have.
pub(super) const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const ATIME: u64 = 0x70;
const RELATIME: u64 = 0;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x20_0000;
/// What a remount doesn't name of these, it takes away (mount(2), `MS_REMOUNT`).
const UNNAMED: u64 = LOCKABLE | NOSYMFOLLOW;
/// What a user namespace can't take away from mounts that were there before it (mount_namespaces(7)). How times of access are kept
/// is locked, too.
const LOCKABLE: u64 = RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

/// Says what the kernel does anyway, or what has had no effect since long before the oldest kernel that is supported:
/// `iversion` is each filesystem's own affair, `silent` and `loud` choose what the kernel logs.
const NO_CHANGE: [&str; 4] = ["silent", "loud", "iversion", "noiversion"];

/// Flags of a whole filesystem, which every type takes (`vfs_parse_sb_flag` in the kernel). A bind mount has none of its own;
/// there mount(2) leaves them without effect, and so does this.
const FILESYSTEM: [&str; 7] = ["sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"];

/// What the options of one mount add up to.
#[derive(Default)]
pub(super) struct Options {
    pub(super) flags: MountFlags,
    /// One of them is about the mount or its filesystem.
    named: bool,
    pub(super) bind: bool,
    pub(super) recursive: bool,
    pub(super) remount: bool,
    pub(super) copy_up: bool,
    copy_link: bool,
    keep_source_link: bool,
    keep_target_link: bool,
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
            sum.replace_times();
        }
        sum
    }

    /// How times of access are kept stays, unless one of the ways is named (`path_mount` in the kernel).
    fn replace_times(&mut self) {
        let own = &mut self.flags.own;
        if own.clear & ATIME != 0 || own.set & NODIRATIME != 0 {
            own.clear |= ATIME | NODIRATIME;
        }
    }

    /// What a new bind mount has of its source. Without any option of its own, everything; with one, it is remounted, and has
    /// nothing of it that isn't named. A user namespace keeps what it couldn't take away: naming the opposite is an error there.
    pub(super) fn replace_those_of_source(&mut self, in_user_namespace: bool) {
        if !self.named {
            return;
        }
        self.replace_times();
        let own = &mut self.flags.own;
        own.clear |= NOSYMFOLLOW;
        if in_user_namespace {
            self.flags.keeps = own.clear & (LOCKABLE | ATIME) != 0;
        } else {
            self.flags.unnamed = LOCKABLE & !(own.set | own.clear);
        }
    }

    /// What becomes of symbolic links at the ends of its paths (crun(1)); `None`: the options exclude each other.
    pub(super) fn links(&self) -> Option<EndLinks> {
        match (self.copy_link, self.keep_source_link, self.keep_target_link) {
            (false, false, false) => Some(EndLinks::Followed),
            (true, false, false) => Some(EndLinks::Copied),
            (false, source, target) => Some(EndLinks::Kept { source, target }),
            (true, _, _) => None,
        }
    }

    fn take(&mut self, option: &str) {
        if take_back(&mut self.flags.own, option)
            || attribute(&mut self.flags.own, option)
            || NO_CHANGE.contains(&option)
        {
            self.named = true;
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
            "copy-symlink" => self.copy_link = true,
            "src-nofollow" => self.keep_source_link = true,
            "dest-nofollow" => self.keep_target_link = true,
            "idmap" => self.idmap = Some(self.idmap.unwrap_or(false)),
            "ridmap" => self.idmap = Some(true),
            "defaults" | "rnorelatime" => {}
            known if FILESYSTEM.contains(&known) => {
                self.named = true;
                self.filesystem.push(known.to_owned());
            }
            other => self.rest.push(other.to_owned()),
        }
    }
}

/// Applies an option that takes back an earlier one about times of access, and says no more (mount(2) has no flags for them); false
/// if it is none.
fn take_back(attributes: &mut Attributes, option: &str) -> bool {
    let how = match option {
        "atime" => NOATIME,
        "norelatime" => RELATIME,
        "nostrictatime" => STRICTATIME,
        "diratime" => {
            attributes.set &= !NODIRATIME;
            return true;
        }
        _ => return false,
    };
    if attributes.clear & ATIME != 0 && attributes.set & ATIME == how {
        attributes.set &= !ATIME;
        attributes.clear &= !ATIME;
    }
    true
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
        // "Don't use noatime", "don't use strictatime": the kernel's default. (Of the recursive ones; the others were taken back.)
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
        let binds = of(&["rbind", "ridmap", "sync", "src-nofollow"]);
        assert_eq!(binds.links(), Some(EndLinks::Kept { source: true, target: false }));
        assert!(binds.bind && binds.recursive && binds.idmap == Some(true) && binds.filesystem == ["sync"]);
    }
}
