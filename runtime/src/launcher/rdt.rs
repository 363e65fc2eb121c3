//! Intel's Resource Director Technology: the container's class of service in the `resctrl` filesystem.

#[cfg(feature = "cli")]
mod groups;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::failure::{Context, Failure, Step};
use crate::launch::IntelRdt;
use crate::small_file;

#[cfg(feature = "cli")]
pub(crate) use groups::Groups;

/// Puts process `pid` into its class, as container `name`.
pub(super) fn assign(rdt: &IntelRdt, name: &str, pid: i32) -> Result<(), Failure> {
    let root = root()?.ok_or_else(not_mounted)?;
    assign_in(root.as_fd(), rdt, rdt.name.as_deref().unwrap_or(name), pid)
}

/// The root of the `resctrl` filesystem; `None`: the machine has none mounted.
fn root() -> Result<Option<OwnedFd>, Failure> {
    let mounts = read_file(None, "/proc/self/mountinfo").at(Step::AssignRdt, || "/proc/self/mountinfo")?;
    let Some(root) = mount_point(&mounts) else { return Ok(None) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(root, flags, Mode::empty()).at(Step::AssignRdt, || root).map(Some)
}

fn not_mounted() -> Failure {
    Failure::new(Step::AssignRdt, "no resctrl filesystem is mounted on the machine", Errno::NODEV)
}

/// Where `resctrl` is mounted, by the text of a mountinfo file (proc(5)).
fn mount_point(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        (filesystem.split(' ').next() == Some("resctrl")).then(|| mount.split(' ').nth(4))?
    })
}

/// The same beneath a `resctrl` root, or what stands for one.
fn assign_in(root: BorrowedFd<'_>, rdt: &IntelRdt, name: &str, pid: i32) -> Result<(), Failure> {
    let class = rdt.class.as_deref().unwrap_or(name);
    let directory = class_in(root, rdt, class)?;
    write_file(directory.as_fd(), "tasks", &pid.to_string()).at(Step::AssignRdt, || format!("tasks of {class}"))?;
    if rdt.monitor {
        monitor(directory.as_fd(), name, pid).at(Step::AssignRdt, || format!("monitoring of {class}"))?;
    }
    Ok(())
}

/// The class, made if need be, with the schemata that are asked for.
fn class_in(root: BorrowedFd<'_>, rdt: &IntelRdt, class: &str) -> Result<OwnedFd, Failure> {
    let (directory, made) = match open(root, class) {
        Ok(directory) => (directory, false),
        // A class of no schemata must have been made by somebody who knows them.
        Err(Errno::NOENT) if rdt.class.is_none() || !rdt.schemata.is_empty() => {
            rustix::fs::mkdirat(root, class, Mode::from_raw_mode(0o755)).at(Step::AssignRdt, || class)?;
            (open(root, class).at(Step::AssignRdt, || class)?, true)
        }
        Err(errno) => return Err(Failure::new(Step::AssignRdt, format!("class {class}"), errno)),
    };
    if !rdt.schemata.is_empty() {
        if made || rdt.class.is_none() {
            let text: String = rdt.schemata.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
            write_file(directory.as_fd(), "schemata", &text).at(Step::AssignRdt, || format!("{class}: {text:?}"))?;
        } else {
            expect_schemata(directory.as_fd(), class, &rdt.schemata)?;
        }
    }
    Ok(directory)
}

/// Puts it into a group of the container's own, to be measured apart.
fn monitor(class: BorrowedFd<'_>, name: &str, pid: i32) -> Result<(), Errno> {
    write_file(monitoring(class, name)?.as_fd(), "tasks", &pid.to_string())
}

/// That group, made if need be.
fn monitoring(class: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let groups = open(class, "mon_groups")?;
    match rustix::fs::mkdirat(&groups, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => open(groups.as_fd(), name),
        Err(errno) => Err(errno),
    }
}

/// A class that somebody else made must have all the schemata that this container asks for.
fn expect_schemata(directory: BorrowedFd<'_>, class: &str, wanted: &[String]) -> Result<(), Failure> {
    let present = read_file(Some(directory), "schemata").at(Step::AssignRdt, || format!("schemata of {class}"))?;
    for line in wanted {
        if !present.lines().any(|has| covers(has, line)) {
            let object = format!("class {class}, whose schemata aren't {line:?}");
            return Err(Failure::new(Step::AssignRdt, object, Errno::INVAL));
        }
    }
    Ok(())
}

/// Whether a line of `schemata` (`L3:0=7ff;1=7ff`) says everything that `wanted` does. Hexadecimal masks may have zeroes in front.
fn covers(present: &str, wanted: &str) -> bool {
    let parts = |line: &str| -> Option<(String, Vec<(String, String)>)> {
        let (resource, domains) = line.trim().split_once(':')?;
        let domains = domains.split(';').filter_map(|domain| domain.trim().split_once('='));
        let plain = |text: &str| text.trim().trim_start_matches('0').to_ascii_lowercase();
        Some((resource.trim().to_owned(), domains.map(|(id, mask)| (id.trim().to_owned(), plain(mask))).collect()))
    };
    match (parts(present), parts(wanted)) {
        (Some((one, has)), Some((other, wants))) => one == other && wants.iter().all(|domain| has.contains(domain)),
        _ => false,
    }
}

/// A directory of one; the class of all that are in no other, `/`, is the root itself.
fn open(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let name = if name == "/" { "." } else { name };
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(parent, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), how)
}

fn write_file(directory: BorrowedFd<'_>, name: &str, text: &str) -> Result<(), Errno> {
    let file = rustix::fs::openat(directory, name, OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text.as_bytes()).and_then(|n| if n == text.len() { Ok(()) } else { Err(Errno::IO) })
}

/// A file as text, at most 1 MiB of it.
fn read_file(directory: Option<BorrowedFd<'_>>, name: &str) -> Result<String, Errno> {
    let directory = directory.unwrap_or(rustix::fs::CWD);
    let file = rustix::fs::openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    small_file::read(&file, 1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn schemata(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    fn rdt(class: Option<&str>, lines: &[&str]) -> IntelRdt {
        IntelRdt { class: class.map(str::to_owned), name: None, monitor: false, schemata: schemata(lines) }
    }

    pub(super) fn place(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    /// A directory that looks like a class; the kernel's fills itself, this one is made whole.
    pub(super) fn class(root: &Path, name: &str, schemata: &str) {
        std::fs::create_dir_all(root.join(name).join("mon_groups")).unwrap();
        std::fs::write(root.join(name).join("schemata"), schemata).unwrap();
        std::fs::write(root.join(name).join("tasks"), "").unwrap();
    }

    #[test]
    fn the_mount_is_found_by_its_type() {
        let mounts = "30 1 0:5 / /proc rw - proc proc rw\n31 1 0:27 / /sys/fs/resctrl rw,nosuid shared:9 - resctrl resctrl rw\n";
        assert_eq!(mount_point(mounts), Some("/sys/fs/resctrl"));
        assert_eq!(mount_point("30 1 0:5 / /resctrl rw - proc resctrl rw\n"), None);
    }

    #[test]
    fn the_root_is_a_class_that_is_there() {
        let fake = tempfile::tempdir().unwrap();
        class(fake.path(), ".", "L3:0=fff\n");
        std::fs::create_dir(fake.path().join("mon_groups/c")).unwrap();
        std::fs::write(fake.path().join("mon_groups/c/tasks"), "").unwrap();
        let fd = place(fake.path());
        let rdt = IntelRdt { monitor: true, ..rdt(Some("/"), &[]) };
        assign_in(fd.as_fd(), &rdt, "c", 42).unwrap();
        for tasks in ["tasks", "mon_groups/c/tasks"] {
            assert_eq!(std::fs::read_to_string(fake.path().join(tasks)).unwrap(), "42");
        }
        assert!(assign_in(fd.as_fd(), &IntelRdt { schemata: schemata(&["L3:0=1"]), ..rdt }, "c", 42).is_err());
    }

    #[test]
    fn a_class_of_somebody_else_must_match() {
        let fake = tempfile::tempdir().unwrap();
        class(fake.path(), "gold", "MB:0=100\nL3:0=007f0;1=1f\n");
        let fd = place(fake.path());
        assign_in(fd.as_fd(), &rdt(Some("gold"), &["L3:0=7f0"]), "c", 42).unwrap();
        assert_eq!(std::fs::read_to_string(fake.path().join("gold/tasks")).unwrap(), "42");
        let refused = assign_in(fd.as_fd(), &rdt(Some("gold"), &["L3:0=7ff"]), "c", 42).unwrap_err().to_string();
        assert!(refused.contains("gold") && refused.contains("L3:0=7ff"), "{refused}");
        // Its schemata are left alone.
        assert!(std::fs::read_to_string(fake.path().join("gold/schemata")).unwrap().starts_with("MB:0=100"));
    }

    #[test]
    fn a_named_class_without_schemata_must_exist() {
        let fake = tempfile::tempdir().unwrap();
        let fd = place(fake.path());
        let refused = assign_in(fd.as_fd(), &rdt(Some("gold"), &[]), "c", 42).unwrap_err().to_string();
        assert!(refused.contains("class gold: no such file or directory (ENOENT)"), "{refused}");
        class(fake.path(), "gold", "");
        assign_in(fd.as_fd(), &rdt(Some("gold"), &[]), "c", 42).unwrap();
    }

    #[test]
    fn its_own_class_is_made_and_written() {
        let fake = tempfile::tempdir().unwrap();
        let fd = place(fake.path());
        // What isn't the kernel's has no files in a new directory.
        assert!(assign_in(fd.as_fd(), &rdt(None, &["L3:0=1"]), "c", 42).is_err());
        assert!(fake.path().join("c").is_dir());
        class(fake.path(), "c", "");
        let wanted = IntelRdt { monitor: true, ..rdt(None, &["L3:0=1", "MB:0=10"]) };
        std::fs::create_dir(fake.path().join("c/mon_groups/c")).unwrap();
        std::fs::write(fake.path().join("c/mon_groups/c/tasks"), "").unwrap();
        assign_in(fd.as_fd(), &wanted, "c", 42).unwrap();
        assert_eq!(std::fs::read_to_string(fake.path().join("c/schemata")).unwrap(), "L3:0=1\nMB:0=10\n");
        assert_eq!(std::fs::read_to_string(fake.path().join("c/mon_groups/c/tasks")).unwrap(), "42");
    }
}
