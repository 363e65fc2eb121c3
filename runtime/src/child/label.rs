//! Labels of the security modules, which take effect when the program is executed (apparmor(7), SELinux). A process that is forked before that
//! would execute its program with them, too: hooks that are the machine's are not the container's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::hide::expect_procfs;
use crate::failure::{Context, Failure, Step};
use crate::launch::Process;

/// Labels that are about to be set.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    /// Of the next program.
    program: Vec<Label>,
    /// Of keys that are made meanwhile.
    keys: Option<Label>,
}

#[derive(Debug)]
struct Label {
    file: OwnedFd,
    text: String,
    /// What it is, for errors.
    object: String,
}

impl Labels {
    /// Sets them, for this thread's next program.
    pub(crate) fn set(self) -> Result<(), Failure> {
        self.program.iter().try_for_each(Label::set)
    }

    /// Has `make` make a keyring with the label that the program will have, which couldn't use its launcher's. Others that this process makes are
    /// as ever.
    pub(crate) fn on_keys(&self, make: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        let Some(label) = &self.keys else { return make() };
        label.set()?;
        make()?;
        write(&label.file, NONE).at(Step::SetLabel, || label.object.clone())
    }
}

/// What takes a label back, as far as the kernel's SELinux is concerned (`selinux_setprocattr`).
const NONE: &str = "\n";

impl Label {
    fn set(&self) -> Result<(), Failure> {
        write(&self.file, &self.text).at(Step::SetLabel, || self.object.clone())
    }
}

/// Opens where the labels are set, through the machine's own `/proc`, before the root is changed: nothing of the image can stand in the way.
pub(crate) fn open(process: &Process) -> Result<Labels, Failure> {
    if process.apparmor_profile.is_none() && process.selinux_label.is_none() {
        return Ok(Labels::default());
    }
    let proc = super::open_directory("/proc")?;
    expect_procfs(proc.as_fd(), "/proc", Step::SetLabel)?;
    // A magic link to this thread's directory, which follows it.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let attributes = rustix::fs::openat(&proc, "thread-self/attr", flags, Mode::empty())
        .at(Step::SetLabel, || "/proc/thread-self/attr")?;
    open_in(attributes.as_fd(), process)
}

/// The same in `attr`, or what stands for it.
fn open_in(attributes: BorrowedFd<'_>, process: &Process) -> Result<Labels, Failure> {
    let mut labels = Labels::default();
    if let Some(profile) = &process.apparmor_profile {
        let object = format!("apparmor profile {profile}");
        // Its own directory since Linux 5.8, as another module may have the common file.
        let file = match open_file(attributes, "apparmor/exec") {
            Err(Errno::NOENT) => open_file(attributes, "exec"),
            other => other,
        };
        let file = file.at(Step::SetLabel, || object.clone())?;
        labels.program.push(Label { file, text: format!("exec {profile}"), object });
    }
    if let Some(label) = &process.selinux_label {
        let object = format!("SELinux label {label}");
        let file = open_file(attributes, "exec").at(Step::SetLabel, || object.clone())?;
        labels.program.push(Label { file, text: label.clone(), object: object.clone() });
        labels.keys = match open_file(attributes, "keycreate") {
            // A kernel without keys.
            Err(Errno::NOENT) => None,
            file => Some(Label { file: file.at(Step::SetLabel, || object.clone())?, text: label.clone(), object }),
        };
    }
    Ok(labels)
}

fn open_file(attributes: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(attributes, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), how)
}

fn write(file: &OwnedFd, text: &str) -> Result<(), Errno> {
    rustix::io::write(file, text.as_bytes()).and_then(|n| if n == text.len() { Ok(()) } else { Err(Errno::IO) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the modules' files look like from here.
    fn fake(files: &[&str]) -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("apparmor")).unwrap();
        for file in files {
            std::fs::write(directory.path().join(file), "").unwrap();
        }
        let fd = rustix::fs::open(directory.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        (directory, fd)
    }

    fn process(apparmor: Option<&str>, selinux: Option<&str>) -> Process {
        Process {
            apparmor_profile: apparmor.map(str::to_owned),
            selinux_label: selinux.map(str::to_owned),
            ..Process::default()
        }
    }

    #[test]
    fn a_profile_goes_to_apparmor_s_own_file_or_the_common_one() {
        let (directory, fd) = fake(&["exec", "apparmor/exec"]);
        let labels = open_in(fd.as_fd(), &process(Some("docker-default"), Some("a:b:c:s0"))).unwrap();
        let read = |file: &str| std::fs::read_to_string(directory.path().join(file)).unwrap();
        assert_eq!(read("exec"), "", "not before it is said");
        labels.set().unwrap();
        assert_eq!((read("apparmor/exec").as_str(), read("exec").as_str()), ("exec docker-default", "a:b:c:s0"));
        let (directory, fd) = fake(&["exec"]);
        open_in(fd.as_fd(), &process(Some("docker-default"), None)).unwrap().set().unwrap();
        assert_eq!(std::fs::read_to_string(directory.path().join("exec")).unwrap(), "exec docker-default");
    }

    #[test]
    fn keys_have_the_program_s_label_and_later_ones_none() {
        let (directory, fd) = fake(&["exec", "keycreate"]);
        let keys = || std::fs::read_to_string(directory.path().join("keycreate")).unwrap();
        let labels = open_in(fd.as_fd(), &process(None, Some("a:b:c:s0"))).unwrap();
        let mut seen = String::new();
        let look = || {
            seen = keys();
            Ok(())
        };
        labels.on_keys(look).unwrap();
        assert_eq!((seen.as_str(), keys().as_str()), ("a:b:c:s0", "a:b:c:s0\n"));
        // Neither where nobody asks for a label, nor for a profile, nor where the kernel has no keys.
        let (directory, fd) = fake(&["exec", "keycreate"]);
        for process in [process(None, None), process(Some("p"), None)] {
            open_in(fd.as_fd(), &process).unwrap().on_keys(|| Ok(())).unwrap();
            assert_eq!(std::fs::read_to_string(directory.path().join("keycreate")).unwrap(), "");
        }
        let (_directory, fd) = fake(&["exec"]);
        let mut made = false;
        let make = || {
            made = true;
            Ok(())
        };
        open_in(fd.as_fd(), &process(None, Some("a"))).unwrap().on_keys(make).unwrap();
        assert!(made);
    }

    #[test]
    fn without_a_security_module_a_label_is_an_error() {
        let (_directory, fd) = fake(&[]);
        for process in [process(Some("p"), None), process(None, Some("p"))] {
            let failure = open_in(fd.as_fd(), &process).unwrap_err().to_string();
            assert!(failure.contains("p: no such file or directory (ENOENT): the security module isn't active"), "{failure}");
        }
    }
}
