//! Cgroups beneath the one that systemd or this runtime has made for a container, by crun's annotations:
//!
//! | annotation | value | effect |
//! |---|---|---|
//! | `run.oci.systemd.subgroup` | path in the scope | this is the container's cgroup, not the scope's own, which stays systemd's |
//! | `run.oci.delegate-cgroup` | path in the container's cgroup | the process begins there, so that the program may make others beside it |

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::cgroup;
use super::error::{During, Result};
use super::record::Record;
use crate::cgroup as own;
use crate::launch::Launch;
use crate::spec::Error;

const SUBGROUP: &str = "run.oci.systemd.subgroup";
const DELEGATED: &str = "run.oci.delegate-cgroup";

/// Whether the process is to begin in a cgroup beneath the container's.
pub(super) fn delegates(record: &Record) -> Result<bool> {
    // Both are looked at, as neither may be wrong when there is something to be undone.
    names(record, SUBGROUP)?;
    names(record, DELEGATED).map(|names| !names.is_empty())
}

/// Where the process of a container with the cgroup `path` begins.
pub(super) fn beginning(record: &Record, path: &str) -> Result<String> {
    Ok(names(record, DELEGATED)?.iter().fold(path.to_owned(), |path, name| format!("{path}/{name}")))
}

/// Moves the process from its scope, whose cgroup is the record's, to the cgroup in it that it is to have, if any: the record's then.
pub(super) fn enter(record: &mut Record) -> Result<()> {
    let names = names(record, SUBGROUP)?;
    let (false, Some(scope)) = (names.is_empty(), record.cgroup.clone()) else { return Ok(()) };
    let path = format!("{scope}/{}", names.join("/"));
    let Some(group) = cgroup::open(record)? else { return Ok(()) };
    descend(group, &names, record.pid).during(|| format!("move the process to the cgroup {path}"))?;
    record.cgroup = Some(path);
    Ok(())
}

/// Moves the process, which has its cgroup namespace by now, to where it is to begin, if that isn't the container's cgroup itself. What
/// limits the container isn't in its reach there; whoever owns the container's cgroup owns that one.
pub(super) fn delegate(record: &Record, launch: &Launch) -> Result<()> {
    let names = names(record, DELEGATED)?;
    if names.is_empty() {
        return Ok(());
    }
    let Some(group) = cgroup::open(record)? else { return Ok(()) };
    let moved = descend(group, &names, record.pid);
    let made = moved.during(|| format!("move the process to the cgroup {} of the container", names.join("/")))?;
    made.iter().try_for_each(|made| Ok(crate::launcher::give_cgroup(launch, record.pid, made.as_fd())?))
}

/// The cgroup `beneath` the container's, or where its processes are, as systemd is told: a path from that of the scope `unit` on.
pub(super) fn in_scope(record: &Record, unit: &str, beneath: Option<&str>) -> Result<String> {
    let own = record.cgroup.clone().unwrap_or_default();
    let path = match beneath {
        Some(beneath) => format!("{own}/{beneath}"),
        None if delegates(record)? => cgroup::of_process(record.pid)?,
        None => own,
    };
    let inside = path.split_once(&format!("/{unit}/")).map(|(_, inside)| format!("/{inside}"));
    Ok(inside.unwrap_or_default())
}

/// Makes cgroups of these names in each other, moves the process to the last and returns them. Those above pass their controllers on when
/// no process is in them any more (cgroup-v2.rst, "No Internal Process Constraint").
fn descend(group: OwnedFd, names: &[String], pid: i32) -> std::result::Result<Vec<OwnedFd>, Errno> {
    let mut made: Vec<OwnedFd> = Vec::with_capacity(names.len());
    for name in names {
        let above = made.last().unwrap_or(&group).as_fd();
        made.push(cgroup::child(above, name)?);
    }
    own::write(made.last().unwrap_or(&group).as_fd(), "cgroup.procs", &pid.to_string())?;
    let above = made.len().saturating_sub(1);
    std::iter::once(&group).chain(made.iter().take(above)).for_each(|group| cgroup::enable_controllers(group.as_fd()));
    Ok(made)
}

/// The names of an annotation's path; none without it.
fn names(record: &Record, annotation: &str) -> Result<Vec<String>> {
    let path = record.annotations.get(annotation).map(String::as_str).unwrap_or_default();
    let names: Vec<String> = path.split('/').filter(|name| !matches!(*name, "" | ".")).map(str::to_owned).collect();
    if names.iter().any(|name| name == ".." || name.contains('\n')) {
        let why = format!("{path:?} isn't a path in the container's cgroup");
        return Err(Error::new(format!("annotations[{annotation}]"), why).into());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(annotation: &str, path: &str) -> Record {
        let annotations = [(annotation.to_owned(), path.to_owned())].into();
        Record { cgroup: Some("/a.slice/b.scope/c".to_owned()), annotations, ..Record::default() }
    }

    #[test]
    fn a_path_stays_in_the_container_s_cgroup() {
        for (path, expected) in [("init", &["init"][..]), ("/a//./b/", &["a", "b"]), ("", &[]), ("/", &[])] {
            assert_eq!(names(&record(DELEGATED, path), DELEGATED).unwrap(), expected, "{path:?}");
            assert_eq!(delegates(&record(DELEGATED, path)).unwrap(), !expected.is_empty());
            let beginning = beginning(&record(DELEGATED, path), "/one").unwrap();
            assert_eq!(beginning, ["/one"].iter().chain(expected).copied().collect::<Vec<_>>().join("/"));
        }
        for annotation in [SUBGROUP, DELEGATED] {
            for wrong in ["..", "a/../b", "a\nb"] {
                let error = delegates(&record(annotation, wrong)).unwrap_err().to_string();
                assert!(error.contains(&format!("annotations[{annotation}]: {wrong:?}")), "{error}");
            }
        }
    }

    #[test]
    fn systemd_is_told_of_the_cgroup_in_the_scope() {
        let in_scope = |record: &Record, beneath| in_scope(record, "b.scope", beneath).unwrap();
        assert_eq!(in_scope(&record(SUBGROUP, "c"), None), "/c");
        assert_eq!(in_scope(&record(SUBGROUP, "c"), Some("d/e")), "/c/d/e");
        let plain = Record { cgroup: Some("/a.slice/b.scope".to_owned()), ..Record::default() };
        assert_eq!((in_scope(&plain, None), in_scope(&plain, Some("d"))), (String::new(), "/d".to_owned()));
    }
}
