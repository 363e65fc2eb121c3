//! `linux.namespaces`, the id mappings and the time offsets of a spec.

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};

use super::text;
use crate::launch::{IdMap, IdRange, Namespace, Namespaces, TimeNamespace, TimeOffset};
use crate::spec::Error;

/// The kernel takes no more lines in a map (user_namespaces(7)).
const MAX_RANGES: usize = 340;

/// The namespaces, and the ids of a new user namespace.
pub(super) fn namespaces(linux: &Linux) -> Result<(Namespaces, Option<IdMap>), Error> {
    let mut namespaces = Namespaces::of_launcher();
    let mut seen = Vec::new();
    let mut new_user = false;
    for entry in linux.namespaces().iter().flatten() {
        let kind = entry.typ();
        let field = format!("linux.namespaces[{kind}]");
        if seen.contains(&kind) {
            return Err(Error::new(field, "given twice"));
        }
        seen.push(kind);
        let path = entry.path().as_ref().map(|path| text(&field, path)).transpose()?.filter(|path| !path.is_empty());
        if let Some(path) = path.as_ref().filter(|path| !path.starts_with('/')) {
            return Err(Error::new(field, format!("path {path:?} isn't absolute")));
        }
        let namespace = path.clone().map_or(Namespace::New, Namespace::Path);
        match kind {
            LinuxNamespaceType::Pid => namespaces.pid = namespace,
            LinuxNamespaceType::Network => namespaces.network = namespace,
            LinuxNamespaceType::Ipc => namespaces.ipc = namespace,
            LinuxNamespaceType::Uts => namespaces.uts = namespace,
            LinuxNamespaceType::Cgroup => namespaces.cgroup = namespace,
            LinuxNamespaceType::Time => namespaces.time = path.map_or(TimeNamespace::New, TimeNamespace::Path),
            LinuxNamespaceType::Mount => namespaces.mount = namespace,
            LinuxNamespaceType::User => (new_user, namespaces.user) = (path.is_none(), path),
        }
    }
    if namespaces.mount == Namespace::Host && seen.contains(&LinuxNamespaceType::User) {
        let why = "a user namespace has no right to mount anything in the caller's mount namespace: add {\"type\": \"mount\"}";
        return Err(Error::new("linux.namespaces", why));
    }
    let ids = ids(linux, new_user, namespaces.user.is_some())?;
    Ok((namespaces, ids))
}

/// The id map; there is one exactly when a new user namespace is asked for. A joined one has its maps.
fn ids(linux: &Linux, new: bool, joined: bool) -> Result<Option<IdMap>, Error> {
    let ids = mappings(linux)?;
    let missing = ids.uids.is_empty() || ids.gids.is_empty();
    match (new, joined, missing, ids.uids.is_empty() && ids.gids.is_empty()) {
        (true, _, false, _) => Ok(Some(ids)),
        (true, _, true, _) => Err(Error::new("linux.uidMappings", "a user namespace needs uid and gid mappings")),
        (false, true, _, _) | (false, false, _, true) => Ok(None),
        (false, false, _, false) => Err(Error::new("linux.uidMappings", "mappings without a user namespace")),
    }
}

/// `linux.uidMappings` and `linux.gidMappings`, which may also be told of a user namespace that is joined.
pub(super) fn mappings(linux: &Linux) -> Result<IdMap, Error> {
    Ok(IdMap {
        uids: ranges("linux.uidMappings", linux.uid_mappings().as_deref().unwrap_or_default())?,
        gids: ranges("linux.gidMappings", linux.gid_mappings().as_deref().unwrap_or_default())?,
    })
}

/// The ranges of a list of mappings.
pub(super) fn ranges(field: &str, mappings: &[LinuxIdMapping]) -> Result<Vec<IdRange>, Error> {
    let range = |m: &LinuxIdMapping| IdRange { inside: m.container_id(), outside: m.host_id(), size: m.size() };
    checked(field, mappings.iter().map(range).collect())
}

/// Ranges checked as the kernel will.
pub(super) fn checked(field: &str, ranges: Vec<IdRange>) -> Result<Vec<IdRange>, Error> {
    if ranges.len() > MAX_RANGES {
        return Err(Error::new(field, format!("{} mappings; the kernel takes {MAX_RANGES}", ranges.len())));
    }
    for (position, range) in ranges.iter().enumerate() {
        let wrong = |why: &str| {
            Err(Error::new(field, format!("{} → {} (size {}) {why}", range.inside, range.outside, range.size)))
        };
        if range.size == 0 {
            return wrong("maps nothing");
        }
        if range.inside.checked_add(range.size).is_none() || range.outside.checked_add(range.size).is_none() {
            return wrong("goes beyond the last id");
        }
        let overlap = |a: u32, a_size: u32, b: u32, b_size: u32| a < b + b_size && b < a + a_size;
        let clash = ranges[..position].iter().any(|other| {
            overlap(range.inside, range.size, other.inside, other.size)
                || overlap(range.outside, range.size, other.outside, other.size)
        });
        if clash {
            return wrong("overlaps an earlier mapping");
        }
    }
    Ok(ranges)
}

/// `linux.timeOffsets`, by the names of time_namespaces(7).
pub(super) fn time_offsets(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<TimeOffset>, Error> {
    let mut offsets = Vec::new();
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        let field = format!("linux.timeOffsets.{clock}");
        if namespaces.time != TimeNamespace::New {
            return Err(Error::new(field, "needs a new time namespace"));
        }
        let boottime = match clock.as_str() {
            "boottime" => true,
            "monotonic" => false,
            _ => return Err(Error::new(field, "no such clock: monotonic and boottime have offsets")),
        };
        let nanoseconds = offset.nanosecs().unwrap_or(0);
        if nanoseconds >= 1_000_000_000 {
            return Err(Error::new(field, format!("nanosecs {nanoseconds} is a second or more")));
        }
        offsets.push(TimeOffset { boottime, seconds: offset.secs().unwrap_or(0), nanoseconds });
    }
    offsets.sort_by_key(|offset| offset.boottime);
    Ok(offsets)
}
