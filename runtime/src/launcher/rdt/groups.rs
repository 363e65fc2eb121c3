//! What a container that is there has in the `resctrl` filesystem: who belongs to it, other schemata, and its end.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::{class_in, monitoring, open, read_file, root, write_file};
use crate::failure::{Context, Failure, Step};
use crate::launch::IntelRdt;

/// A container's class, and its group to be measured in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Groups<'a> {
    /// The class; `None`: the container's own.
    pub(crate) class: Option<&'a str>,
    /// The container's name.
    pub(crate) name: &'a str,
    /// It is measured apart.
    pub(crate) monitored: bool,
}

impl Groups<'_> {
    fn class(&self) -> &str {
        self.class.unwrap_or(self.name)
    }

    /// Puts process `pid`, which has one thread yet, where the container's are: it is in its maker's class. Somebody may have removed that of
    /// the container, whose processes are in none any more then.
    pub(crate) fn enter(&self, pid: i32) -> Result<(), Failure> {
        let Some(root) = root()? else { return Ok(()) };
        match self.enter_in(root.as_fd(), pid) {
            Err(Errno::NOENT) => Ok(()),
            other => other.at(Step::AssignRdt, || format!("tasks of {}", self.class())),
        }
    }

    /// The same beneath a `resctrl` root, or what stands for one.
    fn enter_in(&self, root: BorrowedFd<'_>, thread: i32) -> Result<(), Errno> {
        let class = open(root, self.class())?;
        write_file(class.as_fd(), "tasks", &thread.to_string())?;
        if !self.monitored {
            return Ok(());
        }
        let group = open(class.as_fd(), "mon_groups").and_then(|groups| open(groups.as_fd(), self.name))?;
        write_file(group.as_fd(), "tasks", &thread.to_string())
    }

    /// Changes the class's schemata. It is made if there is none, and then all `threads` of the container belong to it.
    pub(crate) fn change(&self, schemata: &[String], threads: impl Fn() -> BTreeSet<i32>) -> Result<(), Failure> {
        self.adopt(&IntelRdt { schemata: schemata.to_vec(), ..IntelRdt::default() }, threads)
    }

    /// Puts all `threads` of a container that is there where its configuration has them.
    pub(crate) fn adopt(&self, rdt: &IntelRdt, threads: impl Fn() -> BTreeSet<i32>) -> Result<(), Failure> {
        let root = root()?.ok_or_else(super::not_mounted)?;
        self.gather_in(root.as_fd(), rdt, threads)
    }

    fn gather_in(
        &self,
        root: BorrowedFd<'_>,
        wanted: &IntelRdt,
        threads: impl Fn() -> BTreeSet<i32>,
    ) -> Result<(), Failure> {
        let class = class_in(root, wanted, self.class())?;
        if self.monitored {
            monitoring(class.as_fd(), self.name).at(Step::AssignRdt, || format!("monitoring of {}", self.class()))?;
        }
        let tasks = || format!("tasks of {}", self.class());
        let present = read_file(Some(class.as_fd()), "tasks").at(Step::AssignRdt, tasks)?;
        // Who is there already is left alone: written once more it would lose its group to be measured in.
        let mut inside: BTreeSet<i32> = present.lines().filter_map(|line| line.parse().ok()).collect();
        loop {
            // What those make that are inside is inside. Those that weren't yet may have made others meanwhile.
            let outside: Vec<i32> = threads().difference(&inside).copied().collect();
            if outside.is_empty() {
                return Ok(());
            }
            for thread in outside {
                match self.enter_in(root, thread) {
                    // It has ended.
                    Ok(()) | Err(Errno::SRCH) => inside.insert(thread),
                    Err(errno) => return Err(Failure::new(Step::AssignRdt, tasks(), errno)),
                };
            }
        }
    }

    /// Gives back what the container had: its group to be measured in, and its class, unless that is another's. There are as few of them
    /// as the processor has.
    pub(crate) fn remove(&self) -> Result<(), Failure> {
        let Some(root) = root()? else { return Ok(()) };
        self.remove_in(root.as_fd()).at(Step::AssignRdt, || format!("the removal of class {}", self.name))
    }

    fn remove_in(&self, root: BorrowedFd<'_>) -> Result<(), Errno> {
        let gone = |result| if result == Err(Errno::NOENT) { Ok(()) } else { result };
        if self.monitored {
            let groups = open(root, self.class()).and_then(|class| open(class.as_fd(), "mon_groups"));
            gone(groups.and_then(|groups| rustix::fs::unlinkat(groups, self.name, AtFlags::REMOVEDIR)))?;
        }
        match self.class {
            Some(_) => Ok(()),
            None => gone(rustix::fs::unlinkat(root, self.name, AtFlags::REMOVEDIR)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::tests::{class, place};
    use super::*;

    fn of(class: Option<&str>) -> Groups<'_> {
        Groups { class, name: "c", monitored: true }
    }

    #[test]
    fn what_a_container_had_goes_with_it() {
        let fake = tempfile::tempdir().unwrap();
        let fd = place(fake.path());
        for made in ["c/mon_groups/c", "gold/mon_groups/c", "gold/mon_groups/other"] {
            std::fs::create_dir_all(fake.path().join(made)).unwrap();
        }
        of(Some("gold")).remove_in(fd.as_fd()).unwrap();
        assert!(!fake.path().join("gold/mon_groups/c").exists());
        assert!(fake.path().join("gold/mon_groups/other").exists(), "another's");
        assert!(fake.path().join("c").exists(), "not of this container, which has another's class");
        // The kernel's directories hold files that vanish with them; this one is empty when its group is gone.
        assert!(of(None).remove_in(fd.as_fd()).is_err());
        std::fs::remove_dir(fake.path().join("c/mon_groups")).unwrap();
        of(None).remove_in(fd.as_fd()).unwrap();
        assert!(!fake.path().join("c").exists() && fake.path().join("gold").exists());
        of(None).remove_in(fd.as_fd()).unwrap();
    }

    #[test]
    fn the_root_is_no_container_s_to_remove() {
        let fake = tempfile::tempdir().unwrap();
        class(fake.path(), ".", "L3:0=fff\n");
        // The kernel removes a group with all that is in it; this one is empty.
        std::fs::create_dir(fake.path().join("mon_groups/c")).unwrap();
        of(Some("/")).remove_in(place(fake.path()).as_fd()).unwrap();
        assert!(!fake.path().join("mon_groups/c").exists() && fake.path().join("tasks").exists());
    }

    #[test]
    fn who_comes_later_is_in_the_same_groups() {
        let fake = tempfile::tempdir().unwrap();
        let fd = place(fake.path());
        assert_eq!(of(None).enter_in(fd.as_fd(), 42), Err(Errno::NOENT), "gone");
        for (groups, directory) in [(of(None), "c"), (of(Some("gold")), "gold"), (of(Some("/")), ".")] {
            class(fake.path(), directory, "");
            let monitored = fake.path().join(directory).join("mon_groups/c");
            std::fs::create_dir(&monitored).unwrap();
            std::fs::write(monitored.join("tasks"), "").unwrap();
            let tasks = fake.path().join(directory).join("tasks");
            let read = || [&tasks, &monitored.join("tasks")].map(|file| std::fs::read_to_string(file).unwrap());
            Groups { monitored: false, ..groups }.enter_in(fd.as_fd(), 41).unwrap();
            assert_eq!(read(), ["41", ""]);
            groups.enter_in(fd.as_fd(), 42).unwrap();
            assert_eq!(read(), ["42", "42"]);
        }
    }

    #[test]
    fn other_schemata_are_for_all_threads_and_move_none_twice() {
        let fake = tempfile::tempdir().unwrap();
        class(fake.path(), "c", "L3:0=fff\n");
        std::fs::write(fake.path().join("c/tasks"), "7\n8\n").unwrap();
        let fd = place(fake.path());
        let groups = Groups { monitored: false, ..of(None) };
        let wanted = IntelRdt { schemata: vec!["L3:0=1".to_owned()], ..IntelRdt::default() };
        let looks = Cell::new(0);
        // One that is there, and at the second look another one.
        let threads = |late: i32| {
            let looks = &looks;
            move || {
                looks.set(looks.get() + 1);
                if looks.get() == 1 { BTreeSet::from([7, 8]) } else { BTreeSet::from([7, 8, late]) }
            }
        };
        groups.gather_in(fd.as_fd(), &wanted, threads(9)).unwrap();
        let read = |file: &str| std::fs::read_to_string(fake.path().join("c").join(file)).unwrap();
        assert!(read("schemata").starts_with("L3:0=1\n"));
        assert_eq!((read("tasks").as_str(), looks.get()), ("7\n8\n", 1));
        // Of what isn't the kernel's the last that was written is left.
        std::fs::write(fake.path().join("c/tasks"), "7\n").unwrap();
        looks.set(0);
        groups.gather_in(fd.as_fd(), &wanted, threads(9)).unwrap();
        assert!(read("tasks").starts_with('9'), "{}", read("tasks"));
        assert_eq!(looks.get(), 3);
    }

    #[test]
    fn a_container_that_is_there_already_is_put_where_it_belongs() {
        let fake = tempfile::tempdir().unwrap();
        class(fake.path(), "gold", "L3:0=f\n");
        let group = fake.path().join("gold/mon_groups/c");
        let (fd, threads) = (place(fake.path()), || BTreeSet::from([7]));
        let wanted = |line: &str| IntelRdt {
            class: Some("gold".to_owned()),
            monitor: true,
            schemata: vec![line.to_owned()],
            ..IntelRdt::default()
        };
        assert!(of(Some("gold")).gather_in(fd.as_fd(), &wanted("L3:0=1"), threads).is_err(), "another's schemata");
        assert!(!group.exists());
        // The kernel's groups have their files from the beginning.
        assert!(of(Some("gold")).gather_in(fd.as_fd(), &wanted("L3:0=f"), threads).is_err());
        std::fs::write(group.join("tasks"), "").unwrap();
        std::fs::write(fake.path().join("gold/tasks"), "").unwrap();
        of(Some("gold")).gather_in(fd.as_fd(), &wanted("L3:0=f"), threads).unwrap();
        for tasks in [group.join("tasks"), fake.path().join("gold/tasks")] {
            assert_eq!(std::fs::read_to_string(tasks).unwrap(), "7");
        }
    }
}
