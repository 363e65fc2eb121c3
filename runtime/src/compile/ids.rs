//! Whether the container has the ids that its program and what is mounted in it are to have.

use crate::launch::{IdMap, IdRange, Mount, MountSource, Process};
use crate::spec::Error;

/// An error that names the first id which isn't in the container's map.
pub(super) fn check(ids: &IdMap, process: &Process, mounts: &[Mount]) -> Result<(), Error> {
    let IdMap { uids, gids } = ids;
    let program = |what: &str, id, ranges: &[IdRange]| {
        has(ranges, id).map_err(|why| Error::new("process.user", format!("the program's {what} is {id}, {why}")))
    };
    program("user id", process.uid, uids)?;
    program("group id", process.gid, gids)?;
    process.additional_gids.iter().try_for_each(|gid| program("supplementary group id", *gid, gids))?;
    for mount in mounts {
        let (uid, gid) = owner(&mount.source);
        for (what, id, ranges) in [("user", uid, uids), ("group", gid, gids)] {
            let error = |id, why| Error::new("mounts", format!("{} is to belong to {what} {id}, {why}", mount.target));
            id.map_or(Ok(()), |id| has(ranges, id).map_err(|why| error(id, why)))?;
        }
    }
    Ok(())
}

/// Who is to own what is mounted, as far as that is said.
fn owner(source: &MountSource) -> (Option<u32>, Option<u32>) {
    match source {
        MountSource::Bind { create, .. } => (create.map(|create| create.uid), create.map(|create| create.gid)),
        MountSource::Filesystem { options, .. } => {
            let option = |key: &str| options.iter().find_map(|option| option.strip_prefix(key)?.parse().ok());
            (option("uid="), option("gid="))
        }
        MountSource::Inside { .. } | MountSource::Existing { .. } => (None, None),
    }
}

/// Or what to say about it.
fn has(ranges: &[IdRange], id: u32) -> Result<(), String> {
    if ranges.iter().any(|range| id.checked_sub(range.inside).is_some_and(|offset| offset < range.size)) {
        return Ok(());
    }
    let last = |range: &IdRange| u64::from(range.inside) + u64::from(range.size.max(1)) - 1;
    let held: Vec<String> = ranges.iter().map(|range| format!("{} to {}", range.inside, last(range))).collect();
    Err(format!("and the container has the ids {} only", held.join(", ")))
}
