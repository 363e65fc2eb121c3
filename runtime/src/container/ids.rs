//! The ids of a user namespace where the configuration leaves them to the runtime, and mappings that map nothing. The specification
//! says of neither what it means; crun has been run with both for years.

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceType, Spec};

use super::record::name_in;

/// Completes or corrects the mappings of `spec`. Returns what a person should know about it.
pub(super) fn settle(spec: &mut Spec) -> Option<String> {
    let user = spec.process().as_ref().map_or((0, 0, 0), |process| {
        let user = process.user();
        let highest = user.additional_gids().iter().flatten().copied().max().unwrap_or_default();
        (user.uid(), user.gid(), highest)
    });
    let linux = spec.linux_mut().as_mut()?;
    let namespace = linux.namespaces().iter().flatten().find(|namespace| namespace.typ() == LinuxNamespaceType::User);
    let unmapped = is_empty(linux.uid_mappings()) && is_empty(linux.gid_mappings());
    match namespace {
        None if !unmapped => {
            linux.set_uid_mappings(None).set_gid_mappings(None);
            Some("linux.uidMappings, gidMappings: ignored, as there is no user namespace".to_owned())
        }
        Some(namespace) if unmapped && namespace.path().as_deref().is_none_or(|path| path.as_os_str().is_empty()) => {
            Some(complete(linux, user))
        }
        _ => None,
    }
}

fn is_empty(mappings: &Option<Vec<LinuxIdMapping>>) -> bool {
    mappings.as_ref().is_none_or(Vec::is_empty)
}

/// The caller as the container's user, as crun has it: an ordinary user's ranges of ids around that, if there are any and somebody
/// who may map them; root's own ids, up to that of the program.
fn complete(linux: &mut Linux, (uid, gid, highest): (u32, u32, u32)) -> String {
    let (own_uid, own_gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let own = |id: u32, outside: u32| match own_uid {
        0 => vec![(0, outside, id.saturating_add(1))],
        _ => vec![(id, outside, 1)],
    };
    let ranges = if own_uid != 0 && ["newuidmap", "newgidmap"].into_iter().all(is_installed) {
        range_of("/etc/subuid", own_uid).zip(range_of("/etc/subgid", own_uid))
    } else {
        None
    };
    let (uids, gids) = match ranges {
        Some((uids, gids)) => (around(uid, own_uid, uids), around(gid, own_gid, gids)),
        None => (own(uid, own_uid), own(if own_uid == 0 { gid.max(highest) } else { gid }, own_gid)),
    };
    linux.set_uid_mappings(Some(mappings(&uids))).set_gid_mappings(Some(mappings(&gids)));
    let whose = if own_uid == 0 {
        "ids of the container are the machine's".to_owned()
    } else {
        format!("user {uid} of the container is user {own_uid}")
    };
    format!("linux.uidMappings, gidMappings: a user namespace without any: {whose}")
}

/// One id outside in the middle of a range of others: `(inside, outside, size)`.
fn around(inside: u32, outside: u32, (first, count): (u32, u32)) -> Vec<(u32, u32, u32)> {
    let below = inside.min(count);
    let all = [
        (0, first, below),
        (inside, outside, 1),
        (inside.saturating_add(1), first.saturating_add(below), count.saturating_sub(below)),
    ];
    all.into_iter().filter(|(.., size)| *size > 0).collect()
}

fn mappings(ranges: &[(u32, u32, u32)]) -> Vec<LinuxIdMapping> {
    let mapping = |(inside, outside, size): &(u32, u32, u32)| {
        // It fails only without one of the three.
        LinuxIdMappingBuilder::default().container_id(*inside).host_id(*outside).size(*size).build().ok()
    };
    ranges.iter().filter_map(mapping).collect()
}

fn is_installed(program: &str) -> bool {
    let directories = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&directories).any(|directory| directory.join(program).is_file())
}

/// The first range of a user in a file of subuid(5)'s form, by name or number.
fn range_of(file: &str, user: u32) -> Option<(u32, u32)> {
    let read = |path| std::fs::read_to_string(path).ok();
    range_in(&read(file)?, user, &read("/etc/passwd").unwrap_or_default())
}

fn range_in(text: &str, user: u32, passwd: &str) -> Option<(u32, u32)> {
    let number = user.to_string();
    let name = name_in(passwd, user);
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let whose = fields.next()?;
        let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (whose == number || Some(whose) == name).then_some(range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_stands_among_the_ids_of_its_range() {
        assert_eq!(around(0, 1000, (100_000, 65_536)), [(0, 1000, 1), (1, 100_000, 65_536)]);
        assert_eq!(around(5, 1000, (100_000, 10)), [(0, 100_000, 5), (5, 1000, 1), (6, 100_005, 5)]);
        assert_eq!(around(20, 1000, (100_000, 10)), [(0, 100_000, 10), (20, 1000, 1)]);
        assert_eq!(around(u32::MAX - 1, 1000, (1, 1)), [(0, 1, 1), (u32::MAX - 1, 1000, 1)]);
    }

    #[test]
    fn a_range_is_a_user_s_by_name_or_number() {
        let passwd = "root:x:0:0::/:\nann:x:1000:1000::/:\n";
        let ranges = "broken\nbob:1:2\nann:100000:65536\n1001:7:8\nann:1:1\n";
        assert_eq!(range_in(ranges, 1000, passwd), Some((100_000, 65_536)));
        assert_eq!(range_in(ranges, 1001, passwd), Some((7, 8)));
        assert_eq!(range_in(ranges, 0, passwd), None);
    }

    #[test]
    fn mappings_are_completed_or_left_alone() {
        let settled = |linux: &str| {
            let json = format!(r#"{{"ociVersion":"1.0.0","linux":{linux}}}"#);
            let mut spec: Spec = serde_json::from_str(&json).unwrap();
            let warning = settle(&mut spec);
            let linux = spec.linux().clone().unwrap();
            (
                linux.uid_mappings().clone().unwrap_or_default(),
                linux.gid_mappings().clone().unwrap_or_default(),
                warning,
            )
        };
        let mapping = r#"[{"containerID":0,"hostID":7,"size":9}]"#;
        let (uids, gids, warning) = settled(r#"{"namespaces":[{"type":"user"}]}"#);
        assert!(uids.iter().any(|ids| ids.host_id() == rustix::process::geteuid().as_raw()), "{uids:?}");
        assert!(!gids.is_empty() && warning.unwrap().contains("a user namespace without any"));
        let (uids, gids, warning) =
            settled(&format!(r#"{{"namespaces":[],"uidMappings":{mapping},"gidMappings":{mapping}}}"#));
        assert!(uids.is_empty() && gids.is_empty() && warning.unwrap().contains("ignored"));
        // Half of a map is no map: that is refused later.
        let (uids, gids, warning) =
            settled(&format!(r#"{{"namespaces":[{{"type":"user"}}],"uidMappings":{mapping}}}"#));
        assert_eq!((uids.len(), gids.len(), warning), (1, 0, None));
        for untouched in [r#"{"namespaces":[{"type":"user","path":"/proc/1/ns/user"}]}"#, "{}"] {
            let (uids, gids, warning) = settled(untouched);
            assert_eq!((uids.len(), gids.len(), warning), (0, 0, None), "{untouched}");
        }
    }
}
