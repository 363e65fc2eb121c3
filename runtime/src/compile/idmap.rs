//! The mapping that a mount option gives: `idmap=uids=0-1000-10#10-2000-5;gids=@0-0-10` (crun(1), "idmap mount options").

use super::namespaces;
use crate::launch::{IdMap, IdRange};
use crate::spec::Error;

/// The mapping `text`: ranges of a first id on disk, the first one outside, and how many. After `@` the second is one of `container`'s.
pub(super) fn parse(field: &str, text: &str, container: &IdMap) -> Result<IdMap, Error> {
    let mut ids = IdMap::default();
    for part in text.split(';') {
        let (ranges, of_container, text) = match part.split_once('=') {
            Some(("uids", text)) => (&mut ids.uids, &container.uids, text),
            Some(("gids", text)) => (&mut ids.gids, &container.gids, text),
            _ => return Err(wrong(field, part, "begins with neither `uids=` nor `gids=`")),
        };
        if !ranges.is_empty() {
            return Err(wrong(field, part, "is given twice"));
        }
        let given = text.split('#').map(|range| one(field, range, of_container)).collect::<Result<_, _>>()?;
        *ranges = namespaces::checked(field, given)?;
    }
    if ids.uids.is_empty() || ids.gids.is_empty() {
        return Err(wrong(field, text, "lacks `uids=` or `gids=`, which belong together"));
    }
    Ok(ids)
}

fn one(field: &str, text: &str, of_container: &[IdRange]) -> Result<IdRange, Error> {
    let numbers = text.strip_prefix('@').unwrap_or(text);
    let numbers: Option<Vec<u32>> = numbers.split('-').map(|number| number.parse().ok()).collect();
    let Some(&[inside, outside, size]) = numbers.as_deref() else {
        return Err(wrong(field, text, "isn't three numbers: first id on disk, first id outside, how many"));
    };
    if !text.starts_with('@') {
        return Ok(IdRange { inside, outside, size });
    }
    let why = "isn't within one range of the container's ids: split it as those are";
    let outside = beyond(of_container, outside, size).ok_or_else(|| wrong(field, text, why))?;
    Ok(IdRange { inside, outside, size })
}

/// What `size` ids of the container from `first` are outside.
fn beyond(of_container: &[IdRange], first: u32, size: u32) -> Option<u32> {
    of_container.iter().find_map(|range| {
        let offset = first.checked_sub(range.inside)?;
        let fits = offset.checked_add(size).is_some_and(|end| end <= range.size);
        range.outside.checked_add(offset).filter(|_| fits)
    })
}

fn wrong(field: &str, what: &str, why: &str) -> Error {
    Error::new(field, format!("the mapping {what:?} {why} (idmap=uids=0-1000-10;gids=0-1000-10)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(inside: u32, outside: u32, size: u32) -> IdRange {
        IdRange { inside, outside, size }
    }

    fn container() -> IdMap {
        let ranges = vec![range(0, 0, 1), range(1, 2, 1000)];
        IdMap { uids: ranges.clone(), gids: ranges }
    }

    #[test]
    fn ranges_are_from_disk_to_outside() {
        let ids = parse("x", "uids=0-1-10#10-11-10;gids=0-100-10", &container()).unwrap();
        assert_eq!(ids, IdMap { uids: vec![range(0, 1, 10), range(10, 11, 10)], gids: vec![range(0, 100, 10)] });
    }

    #[test]
    fn relative_ids_are_the_container_s() {
        let ids = parse("x", "gids=@0-0-1#7-7-1;uids=@1-3-10", &container()).unwrap();
        assert_eq!(ids, IdMap { uids: vec![range(1, 4, 10)], gids: vec![range(0, 0, 1), range(7, 7, 1)] });
    }

    #[test]
    fn what_can_t_be_read_is_an_error() {
        for (text, word) in [
            ("", "neither"),
            ("uids=0-1-1", "belong together"),
            ("uids=0-1-1;gids=", "three numbers"),
            ("uids=0-1-1;gids=0-1", "three numbers"),
            ("uids=0-1-1;gids=0-1-1-1", "three numbers"),
            ("uids=0-1-1;gids=0:1:1", "three numbers"),
            ("uids=0-1-1;gids=0-1-4294967296", "three numbers"),
            ("uids=0-1-1;gids=0-1-1#", "three numbers"),
            ("uids=0-1-1;uids=0-1-1;gids=0-1-1", "twice"),
            ("uids=0-1-1;gids=0-1-1;users=0-1-1", "neither"),
            ("uids=0-1-0;gids=0-1-1", "maps nothing"),
            ("uids=0-1-2#1-9-2;gids=0-1-1", "overlaps"),
            // 0 and 1 of the container aren't neighbours outside.
            ("uids=@0-0-2;gids=0-0-1", "one range"),
            ("uids=@0-1001-1;gids=0-0-1", "one range"),
        ] {
            let error = parse("mounts[/x]", text, &container()).unwrap_err().to_string();
            assert!(error.contains("mounts[/x]") && error.contains(word), "{text}: {error}");
        }
        assert!(parse("x", "uids=@0-0-1;gids=0-0-1", &IdMap::default()).is_err());
    }
}
