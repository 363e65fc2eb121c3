//! Labels of the security modules, which take effect when the program is executed (apparmor(7), SELinux).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::hide::expect_procfs;
use crate::failure::{Context, Failure, Step};
use crate::launch::Process;

/// Sets the labels, through the machine's own `/proc`, before the root is changed: nothing of the image can stand in its way.
pub(crate) fn set(process: &Process) -> Result<(), Failure> {
    if process.apparmor_profile.is_none() && process.selinux_label.is_none() {
        return Ok(());
    }
    let proc = super::open_directory("/proc")?;
    expect_procfs(proc.as_fd(), "/proc", Step::SetLabel)?;
    // A magic link to this thread's directory, which follows it.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let attributes = rustix::fs::openat(&proc, "thread-self/attr", flags, Mode::empty())
        .at(Step::SetLabel, || "/proc/thread-self/attr")?;
    set_in(attributes.as_fd(), process)
}

/// The same in `attr`, or what stands for it.
fn set_in(attributes: BorrowedFd<'_>, process: &Process) -> Result<(), Failure> {
    if let Some(profile) = &process.apparmor_profile {
        let object = || format!("AppArmor profile {profile}");
        // Its own directory since Linux 5.8, as another module may have the common file.
        let file = match open(attributes, "apparmor/exec") {
            Err(Errno::NOENT) => open(attributes, "exec"),
            other => other,
        };
        let file = file.at(Step::SetLabel, object)?;
        write(&file, &format!("exec {profile}")).at(Step::SetLabel, object)?;
    }
    if let Some(label) = &process.selinux_label {
        let object = || format!("SELinux label {label}");
        let file = open(attributes, "exec").at(Step::SetLabel, object)?;
        write(&file, label).at(Step::SetLabel, object)?;
    }
    Ok(())
}

fn open(attributes: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
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
        set_in(fd.as_fd(), &process(Some("docker-default"), Some("a:b:c:s0"))).unwrap();
        let read = |file: &str| std::fs::read_to_string(directory.path().join(file)).unwrap();
        assert_eq!((read("apparmor/exec").as_str(), read("exec").as_str()), ("exec docker-default", "a:b:c:s0"));
        let (directory, fd) = fake(&["exec"]);
        set_in(fd.as_fd(), &process(Some("docker-default"), None)).unwrap();
        assert_eq!(std::fs::read_to_string(directory.path().join("exec")).unwrap(), "exec docker-default");
    }

    #[test]
    fn without_a_security_module_a_label_is_an_error() {
        let (_directory, fd) = fake(&[]);
        for process in [process(Some("p"), None), process(None, Some("p"))] {
            let failure = set_in(fd.as_fd(), &process).unwrap_err().to_string();
            assert!(failure.contains("p: ENOENT: the security module isn't active"), "{failure}");
        }
    }
}
