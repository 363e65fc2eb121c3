//! Capability names, the default list, and what adding and dropping makes of it.

use std::collections::BTreeSet;

use oci_spec::runtime::Capability;

use super::Error;

/// What a container's root may do by default. In a user namespace each counts only for what the container owns.
///
/// - `CHOWN DAC_OVERRIDE FOWNER FSETID`: packages and entrypoints set up files of other users of the container.
/// - `SETUID SETGID SETPCAP`: servers start as root and give it up.
/// - `KILL`: supervisors signal workers that run as another user.
/// - `NET_BIND_SERVICE`: ports below 1024.
/// - `SYS_CHROOT`: servers that confine themselves (sshd, postfix).
///
/// Docker's list has four more, left out: `MKNOD` (no effect in a user namespace), `NET_RAW` (forged packets; ping works
/// through `net.ipv4.ping_group_range`), `AUDIT_WRITE` (the machine's audit log), `SETFCAP` (only package managers use it).
pub const DEFAULT: [Capability; 10] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
];

/// All capabilities in the order of their numbers (`linux/capability.h`): number N is at index N.
pub(crate) const BY_NUMBER: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// A capability's number.
#[must_use]
pub fn number(capability: Capability) -> Option<u32> {
    BY_NUMBER.iter().position(|c| *c == capability).and_then(|n| u32::try_from(n).ok())
}

/// A capability by its name, with or without `CAP_`, in any case.
#[must_use]
pub fn parse(name: &str) -> Option<Capability> {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).parse().ok()
}

/// The capability mask of a set.
pub(crate) fn mask<'a>(set: impl IntoIterator<Item = &'a Capability>) -> u64 {
    set.into_iter().filter_map(|c| number(*c)).fold(0, |mask, n| mask | (1 << n))
}

/// The default list with `add` and `drop` applied: `ALL` first, names after, a name dropped stays dropped.
pub(crate) fn resolve(add: &[String], drop: &[String]) -> Result<Vec<Capability>, Error> {
    let all = |list: &[String]| list.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let mut set: BTreeSet<u32> = match (all(add), all(drop)) {
        (true, _) => BY_NUMBER.iter().filter_map(|c| number(*c)).collect(),
        (false, true) => BTreeSet::new(),
        (false, false) => DEFAULT.iter().filter_map(|c| number(*c)).collect(),
    };
    set.extend(named("cap_add", add)?);
    for n in named("cap_drop", drop)? {
        set.remove(&n);
    }
    Ok(set.into_iter().filter_map(|n| BY_NUMBER.get(n as usize).copied()).collect())
}

/// The numbers of the names in `list` other than `ALL`.
pub(super) fn named(field: &str, list: &[String]) -> Result<Vec<u32>, Error> {
    list.iter()
        .filter(|name| !name.eq_ignore_ascii_case("ALL"))
        .map(|name| {
            parse(name)
                .and_then(number)
                .ok_or_else(|| Error::new(field, format!("{name:?} is no capability (see capabilities(7))")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn numbers_are_the_kernel_s() {
        let text = std::fs::read_to_string("/usr/include/linux/capability.h").unwrap();
        let mut found = 0;
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["#define", name, value] = words[..]
                && let (Some(name), Ok(value)) = (name.strip_prefix("CAP_"), value.parse::<u32>())
                && let Ok(capability) = name.parse::<Capability>()
            {
                assert_eq!(number(capability), Some(value), "{name}");
                found += 1;
            }
        }
        assert_eq!(found, BY_NUMBER.len());
    }

    #[test]
    fn all_comes_first_and_a_dropped_name_stays_dropped() {
        assert_eq!(resolve(&[], &[]).unwrap().len(), DEFAULT.len());
        assert_eq!(resolve(&strings(&["cap_net_raw"]), &strings(&["ALL"])).unwrap(), [Capability::NetRaw]);
        assert!(!resolve(&strings(&["ALL"]), &strings(&["SYS_ADMIN"])).unwrap().contains(&Capability::SysAdmin));
        assert!(resolve(&strings(&["NET_ROW"]), &[]).unwrap_err().to_string().contains("NET_ROW"));
    }
}
