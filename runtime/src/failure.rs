//! Why a container didn't start: the step, the object and the system's error, and what to do about it where that is known.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::hint;

/// The longest object text that is kept, in bytes; a failure must fit one atomic pipe write (`PIPE_BUF`, 4096).
pub const MAX_OBJECT: usize = 1024;

/// A failed step of a launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What was being done.
    pub step: Step,
    /// To what: a path, a name, an option. At most [`MAX_OBJECT`] bytes.
    pub object: String,
    /// The system's error number (`errno.h`).
    pub errno: i32,
}

/// One kind of step in a launch. The text is a phrase which the object completes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// The launch description itself can't be obeyed.
    Check,
    /// Make the user namespace that mounts are mapped by.
    CreateUserNamespace,
    /// Write `uid_map`, `gid_map` or `setgroups`.
    WriteIdMap,
    /// Have a setuid helper write `uid_map` or `gid_map`.
    MapIds,
    /// Make the container's cgroup.
    CreateCgroup,
    /// Write a cgroup setting.
    SetCgroup,
    /// Find a declared device.
    FindDevice,
    /// Make the container's node of a declared device.
    MakeDevice,
    /// Load the device filter.
    LoadDeviceFilter,
    /// Attach the device filter to the cgroup.
    AttachDeviceFilter,
    /// Make an absent volume directory.
    CreateVolume,
    /// Fill a new volume with what the image has there.
    FillVolume,
    /// Open something of the machine for the container.
    Open,
    /// Clone a mount of the machine.
    OpenTree,
    /// Map a mount's ids.
    IdMapMount,
    /// Join an existing namespace.
    JoinNamespace,
    /// Make a pipe.
    Pipe,
    /// Make the child process.
    Clone,
    /// Set a resource limit.
    SetResourceLimit,
    /// Set the OOM score adjustment.
    SetOomScore,
    /// Become root of the user namespace.
    BecomeRoot,
    /// Leave the launcher's session keyring.
    JoinKeyring,
    /// Make a namespace.
    Unshare,
    /// Keep mounts from spreading.
    MakePrivate,
    /// Mount something.
    Mount,
    /// Set a mount option.
    MountOption,
    /// Resolve or make a mount's target beneath the root.
    MountTarget,
    /// Change a mount's attributes.
    MountAttributes,
    /// Make a directory, file or link beneath the root.
    Create,
    /// Hide a path.
    MaskPath,
    /// Make a path read-only.
    ReadonlyPath,
    /// Set a sysctl.
    SetSysctl,
    /// Change the root.
    PivotRoot,
    /// Set the host or domain name.
    SetHostname,
    /// Bring the loopback interface up.
    LoopbackUp,
    /// Enter the working directory.
    ChangeDirectory,
    /// Place standard input, output and error.
    PlaceStdio,
    /// Start a session.
    CreateSession,
    /// Set capabilities.
    SetCapabilities,
    /// Set user, group or supplementary groups.
    SetUser,
    /// Give up new privileges.
    NoNewPrivileges,
    /// Load the system call filter.
    LoadSeccomp,
    /// Keep descriptors from the program.
    CloseDescriptors,
    /// Connect to the seccomp agent, or hand the listener to it.
    ReachAgent,
    /// Set how it is scheduled.
    SetScheduler,
    /// Set its I/O priority.
    SetIoPriority,
    /// Set where its memory comes from.
    SetMemoryPolicy,
    /// Set its execution domain.
    SetPersonality,
    /// Set the security label of the program.
    SetLabel,
    /// Put Landlock rules in force.
    Landlock,
    /// Set the clocks of a time namespace.
    SetClock,
    /// Assign an RDT class.
    AssignRdt,
    /// Move an interface of the machine.
    MoveInterface,
    /// Copy what a tmpfs covers.
    CopyUp,
    /// Execute the program.
    Execute,
    /// Run a hook.
    RunHook,
    /// Make or hand over the container's terminal.
    OpenTerminal,
    /// Write down what was started.
    Record,
    /// Make the directory of what a container with layers writes.
    MakeStorage,
    /// Remove it.
    RemoveStorage,
    /// Run the program that puts layers together.
    RunStorage,
    /// Copy layers.
    CopyLayers,
}

impl Step {
    /// A phrase for people, in lower case, and where other programs look for one, theirs.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Check => "obey",
            Self::CreateUserNamespace => "create user namespace",
            Self::WriteIdMap => "write",
            Self::MapIds => "map ids by",
            Self::CreateCgroup => "create cgroup",
            Self::SetCgroup => "set cgroup",
            Self::FindDevice => "device",
            Self::MakeDevice => "device node",
            Self::LoadDeviceFilter => "load device filter",
            Self::AttachDeviceFilter => "attach device filter to cgroup",
            Self::CreateVolume => "create volume directory",
            Self::FillVolume => "fill volume",
            Self::Open => "open",
            Self::OpenTree => "clone mount of",
            Self::IdMapMount => "map ids of mount",
            Self::JoinNamespace => "join namespace",
            Self::Pipe => "create pipe",
            Self::Clone => "clone3",
            Self::SetResourceLimit => "set resource limit",
            Self::SetOomScore => "set",
            Self::BecomeRoot => "become root of the user namespace",
            Self::JoinKeyring => "join session keyring",
            Self::Unshare => "unshare",
            Self::MakePrivate => "make private",
            Self::Mount => "mount",
            Self::MountOption => "set mount option",
            Self::MountTarget => "prepare mount target",
            Self::MountAttributes => "set attributes of mount",
            Self::Create => "create",
            Self::MaskPath => "mask",
            Self::ReadonlyPath => "make read-only",
            Self::SetSysctl => "set sysctl",
            Self::PivotRoot => "pivot_root",
            Self::SetHostname => "set host name",
            Self::LoopbackUp => "bring up",
            Self::ChangeDirectory => "enter working directory",
            Self::PlaceStdio => "place standard stream",
            Self::CreateSession => "create session",
            Self::SetCapabilities => "set capabilities",
            Self::SetUser => "set",
            Self::NoNewPrivileges => "set no_new_privs",
            Self::LoadSeccomp => "load seccomp filter",
            Self::CloseDescriptors => "close descriptors",
            Self::ReachAgent => "failed to connect with seccomp agent",
            Self::SetScheduler => "set scheduler",
            Self::SetIoPriority => "set I/O priority",
            Self::SetMemoryPolicy => "set_mempolicy",
            Self::SetPersonality => "set personality",
            Self::SetLabel => "set security label",
            Self::Landlock => "restrict by Landlock",
            Self::SetClock => "set clock",
            Self::AssignRdt => "assign RDT class:",
            Self::MoveInterface => "move network interface",
            Self::CopyUp => "copy up",
            Self::Execute => "exec",
            Self::RunHook => "error running",
            Self::OpenTerminal => "open terminal",
            Self::Record => "record",
            Self::MakeStorage => "make the storage directory",
            Self::RemoveStorage => "remove the storage",
            Self::RunStorage => "run",
            Self::CopyLayers => "copy of the layers",
        }
    }
}

impl Failure {
    /// A failure of `step` on `object`.
    #[must_use]
    pub fn new(step: Step, object: impl Into<String>, errno: Errno) -> Self {
        let mut object: String = object.into();
        let mut end = MAX_OBJECT.min(object.len());
        while !object.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        object.truncate(end);
        Self { step, object, errno: errno.raw_os_error() }
    }

    /// The launch description is wrong in itself.
    #[must_use]
    pub fn check(object: impl Into<String>) -> Self {
        Self::new(Step::Check, object, Errno::INVAL)
    }

    /// Whether the same launch may succeed a little later: the machine was short of something, nothing is wrong with it.
    ///
    /// Covers clone3's EAGAIN (pids limit), ENOMEM and ENOSPC (too many namespaces), and their like in other steps.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        let errno = Errno::from_raw_os_error(self.errno);
        matches!(errno, Errno::AGAIN | Errno::NOMEM | Errno::NFILE | Errno::MFILE | Errno::NOBUFS)
            || (errno == Errno::NOSPC && matches!(self.step, Step::Clone | Step::CreateUserNamespace))
            || (errno == Errno::BUSY && self.step == Step::CreateCgroup)
            // Keyrings of containers that ended are freed a little later.
            || (errno == Errno::DQUOT && self.step == Step::JoinKeyring)
    }

    /// The fix or the likely cause, where one is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        hint::of(self.step, Errno::from_raw_os_error(self.errno), &self.object)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.step == Step::Check {
            return write!(f, "launch description: {}", self.object);
        }
        // A hook that has failed by itself: no call did.
        if self.step == Step::RunHook && self.errno == Errno::CANCELED.raw_os_error() {
            return write!(f, "{} {}", self.step.text(), self.object);
        }
        write!(f, "{} {}: {}", self.step.text(), self.object, hint::errno_text(Errno::from_raw_os_error(self.errno)))?;
        match self.hint() {
            Some(hint) => write!(f, ": {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// Gives a system error its step and object.
pub(crate) trait Context<T> {
    /// `object` is only built on failure.
    fn at<O: Into<String>>(self, step: Step, object: impl FnOnce() -> O) -> Result<T, Failure>;
}

impl<T> Context<T> for Result<T, Errno> {
    fn at<O: Into<String>>(self, step: Step, object: impl FnOnce() -> O) -> Result<T, Failure> {
        self.map_err(|errno| Failure::new(step, object(), errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_step_object_cause_and_fix() {
        let failure = Failure::new(Step::Mount, "overlay on /", Errno::NODEV);
        assert_eq!(failure.to_string(), "mount overlay on /: no such device (ENODEV): the kernel lacks CONFIG_OVERLAY_FS (module overlay)");
    }

    #[test]
    fn a_long_object_is_cut_at_a_character() {
        let failure = Failure::new(Step::Open, "é".repeat(2000), Errno::NOENT);
        assert!(failure.object.len() <= MAX_OBJECT);
        assert!(failure.object.chars().all(|c| c == 'é'));
    }

    #[test]
    fn only_shortages_are_temporary() {
        assert!(Failure::new(Step::Clone, "x", Errno::AGAIN).is_temporary());
        assert!(Failure::new(Step::Clone, "x", Errno::NOMEM).is_temporary());
        assert!(Failure::new(Step::JoinKeyring, "x", Errno::DQUOT).is_temporary());
        assert!(!Failure::new(Step::Execute, "x", Errno::NOENT).is_temporary());
        assert!(!Failure::new(Step::Mount, "x", Errno::NOSPC).is_temporary());
    }
}
