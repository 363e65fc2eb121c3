//! What a cgroup is set to: one file after the other, and what it means if one isn't there.

use std::os::fd::BorrowedFd;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::{AbsentController, PROCESSES, check_name, memory_current, number, read, write};
use crate::failure::{Context, Failure, Step};
use crate::launch::Cgroup;

/// Writes the settings in order, but for the limit of processes.
pub(super) fn configure(dir: BorrowedFd<'_>, settings: &Cgroup, absent: AbsentController) -> Result<Vec<String>, Failure> {
    if settings.check_memory {
        check_memory(dir, settings)?;
    }
    let mut left_out = write_settings(dir, settings.settings.iter().filter(|(file, _)| file != PROCESSES), absent)?;
    for choice in &settings.choices {
        left_out.extend(write_one_of(dir, choice, absent)?);
    }
    Ok(left_out)
}

pub(super) fn write_settings<'a>(
    dir: BorrowedFd<'_>,
    settings: impl Iterator<Item = &'a (String, String)>,
    absent: AbsentController,
) -> Result<Vec<String>, Failure> {
    let mut left_out = Vec::new();
    for (file, value) in settings {
        check_name(file)?;
        match write(dir, file, value) {
            Err(Errno::NOENT) if changes_nothing(file, value) => {}
            // The kernel has the controller, but no swap, so none is what there is.
            Err(Errno::NOENT) if (file.as_str(), value.as_str()) == ("memory.swap.max", "0") && has(dir, "memory.max") => {}
            Err(Errno::NOENT) if absent == AbsentController::Record => {
                left_out.push(format!("{file}={value}: the controller is absent"));
            }
            Err(errno) => {
                let missing = missing(dir, file);
                // Callers take "no such file" for a program that isn't there.
                let errno = if missing.is_some() { Errno::OPNOTSUPP } else { errno };
                let object = format!("{file}={value}{}", missing.unwrap_or_default());
                return Err(Failure::new(Step::SetCgroup, object, errno));
            }
            Ok(()) => {}
        }
    }
    Ok(left_out)
}

/// The controller that the file belongs to and the cgroup hasn't, in words that callers know.
fn missing(dir: BorrowedFd<'_>, file: &str) -> Option<String> {
    let wanted = file.split('.').next().unwrap_or(file);
    let present = read(dir, "cgroup.controllers").ok()?;
    let absent = wanted != "cgroup" && !present.split_whitespace().any(|name| name == wanted);
    absent.then(|| format!(": the requested cgroup controller `{wanted}` is not available"))
}

/// Whether the cgroup has such a file: its controller is there.
pub(crate) fn has(dir: BorrowedFd<'_>, file: &str) -> bool {
    rustix::fs::statat(dir, file, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Whether a setting is what there is without its controller: no limit, and every cgroup's share alike (cgroup-v2.rst).
pub(crate) fn changes_nothing(file: &str, value: &str) -> bool {
    let default = matches!((file, value), ("cpu.weight", "100") | ("cpu.idle" | "cpu.max.burst" | "memory.low", "0"));
    default || value == "max" || (file == "cpu.max" && value.starts_with("max "))
}

/// Writes the first file that exists; returns what is left out if none does.
fn write_one_of(
    dir: BorrowedFd<'_>,
    choice: &[(String, String)],
    absent: AbsentController,
) -> Result<Option<String>, Failure> {
    let mut last = None;
    for (file, value) in choice {
        check_name(file)?;
        match write(dir, file, value) {
            Err(Errno::NOENT) => last = Some(format!("{file}={value}")),
            other => return other.map(|()| None).at(Step::SetCgroup, || format!("{file}={value}")),
        }
    }
    match (last, absent) {
        (Some(setting), AbsentController::Fail) => Err(Failure::new(Step::SetCgroup, setting, Errno::NOENT)),
        (Some(setting), AbsentController::Record) => Ok(Some(format!("{setting}: the controller is absent"))),
        (None, _) => Ok(None),
    }
}

/// Refuses limits that the kernel would enforce by killing (`checkBeforeUpdate`).
fn check_memory(dir: BorrowedFd<'_>, settings: &Cgroup) -> Result<(), Failure> {
    let limit = |name: &str| -> Option<u64> {
        settings.settings.iter().find(|(file, _)| file == name).and_then(|(_, value)| value.parse().ok())
    };
    let (Some(memory), Some(used)) = (limit("memory.max"), memory_current(dir)) else { return Ok(()) };
    let refuse = |what: &str, limit: u64, used: u64| {
        let object = format!("memory.max={memory}: rejecting {what} limit {limit}: {used} bytes are in use");
        Err(Failure::new(Step::SetCgroup, object, Errno::BUSY))
    };
    if let Some(swap) = limit("memory.swap.max") {
        let both = (memory.saturating_add(swap), used.saturating_add(number(dir, "memory.swap.current").unwrap_or(0)));
        if both.0 < both.1 {
            return refuse("memory+swap", both.0, both.1);
        }
    }
    if memory < used { refuse("memory", memory, used) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::apply;
    use super::super::tests::fake;
    use super::*;

    fn pair(file: &str, value: &str) -> (String, String) {
        (file.to_owned(), value.to_owned())
    }

    #[test]
    fn without_swap_there_is_none_to_be_forbidden() {
        let settings = Cgroup {
            settings: vec![pair("memory.max", "67108864"), pair("memory.swap.max", "0")],
            ..Cgroup::default()
        };
        let (_directory, fd) = fake(&[("memory.max", "")]);
        assert_eq!(apply(&fd, &settings, AbsentController::Fail), Ok(Vec::new()));
        // Without the controller it would hold no memory back.
        let (_directory, fd) = fake(&[]);
        assert!(apply(&fd, &settings, AbsentController::Fail).is_err());
        let some = Cgroup { settings: vec![pair("memory.swap.max", "4096")], ..Cgroup::default() };
        let (_directory, fd) = fake(&[("memory.max", "")]);
        assert!(apply(&fd, &some, AbsentController::Fail).is_err());
    }

    #[test]
    fn of_a_choice_the_first_file_that_exists_is_written() {
        let choices = vec![vec![pair("io.bfq.weight", "10"), pair("io.weight", "1")]];
        let settings = Cgroup { choices, ..Cgroup::default() };
        let (directory, fd) = fake(&[("io.weight", "")]);
        assert_eq!(apply(&fd, &settings, AbsentController::Fail), Ok(Vec::new()));
        assert_eq!(std::fs::read_to_string(directory.path().join("io.weight")).unwrap(), "1");
        let (directory, fd) = fake(&[("io.weight", ""), ("io.bfq.weight", "")]);
        apply(&fd, &settings, AbsentController::Fail).unwrap();
        assert_eq!(std::fs::read_to_string(directory.path().join("io.bfq.weight")).unwrap(), "10");
        assert_eq!(std::fs::read_to_string(directory.path().join("io.weight")).unwrap(), "");
        let (_directory, fd) = fake(&[]);
        assert!(apply(&fd, &settings, AbsentController::Fail).unwrap_err().to_string().contains("io.weight=1: no such file or directory (ENOENT)"));
        assert_eq!(apply(&fd, &settings, AbsentController::Record).unwrap().len(), 1);
    }

    #[test]
    fn a_limit_below_what_is_in_use_is_refused_where_asked() {
        let (directory, fd) = fake(&[("memory.current", "5000\n"), ("memory.max", "max")]);
        let settings = |check_memory| {
            Cgroup { settings: vec![pair("memory.max", "4096")], check_memory, ..Cgroup::default() }
        };
        let refused = apply(&fd, &settings(true), AbsentController::Fail).unwrap_err().to_string();
        assert!(refused.contains("memory.max=4096: rejecting memory limit 4096: 5000 bytes are in use"), "{refused}");
        assert_eq!(std::fs::read_to_string(directory.path().join("memory.max")).unwrap(), "max");
        apply(&fd, &settings(false), AbsentController::Fail).unwrap();
        assert!(std::fs::read_to_string(directory.path().join("memory.max")).unwrap().starts_with("4096"));
        // With swap they are looked at together first.
        let files = [("memory.current", "5000\n"), ("memory.swap.current", "1000\n"), ("memory.max", "max"), ("memory.swap.max", "max")];
        let (_directory, fd) = fake(&files);
        let apply = |memory: &str, swap: &str| {
            let settings = vec![pair("memory.max", memory), pair("memory.swap.max", swap)];
            apply(&fd, &Cgroup { settings, check_memory: true, ..Cgroup::default() }, AbsentController::Fail)
        };
        let refused = apply("4096", "1024").unwrap_err().to_string();
        assert!(refused.contains("rejecting memory+swap limit 5120: 6000 bytes are in use"), "{refused}");
        let refused = apply("4096", "8192").unwrap_err().to_string();
        assert!(refused.contains("rejecting memory limit 4096: 5000 bytes are in use"), "{refused}");
        assert_eq!(apply("5000", "1000"), Ok(Vec::new()));
    }

    #[test]
    fn an_absent_controller_is_named() {
        let settings = Cgroup { settings: vec![pair("memory.absent", "1")], ..Cgroup::default() };
        let refused = |controllers: &str| {
            let (_directory, fd) = fake(&[("cgroup.controllers", controllers)]);
            apply(&fd, &settings, AbsentController::Fail).unwrap_err().to_string()
        };
        assert!(refused("cpu pids\n").contains("memory.absent=1: the requested cgroup controller `memory` is not available: operation not supported"));
        assert!(refused("cpu memory\n").contains("memory.absent=1: no such file or directory"));
    }

    #[test]
    fn only_what_is_so_anyway_changes_nothing() {
        for (file, value) in [("pids.max", "max"), ("cpu.max", "max 100000"), ("cpu.weight", "100")] {
            assert!(changes_nothing(file, value), "{file}={value}");
        }
        for (file, value) in [("pids.max", "1"), ("cpu.max", "1 100000"), ("cpu.weight", "101"), ("io.weight", "100")] {
            assert!(!changes_nothing(file, value), "{file}={value}");
        }
    }
}
