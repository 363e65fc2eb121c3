//! What is written down about a container (`state.json` of its state directory), and what is shown of it.

use std::collections::BTreeMap;

use oci_spec::runtime::Hook;
use serde::{Deserialize, Serialize};

use crate::launcher::rdt::Groups;

/// The contents of `state.json`. Written whole, by rename, before the container's process does anything, and again
/// when an update gives it a class of its own. Before it has a process it is there only if it has something else to be given back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// Version of the runtime specification that the configuration names.
    pub oci_version: String,
    /// The container's name.
    pub id: String,
    /// The first process as this pid namespace sees it; 0 until there is one.
    pub pid: i32,
    /// When that process started (`/proc/PID/stat`, field 22), so that a process that got its id later isn't taken for it.
    pub start_time: u64,
    /// Absolute path of the bundle.
    pub bundle: String,
    /// Absolute path of the root directory.
    pub rootfs: String,
    /// RFC 3339, UTC.
    pub created: String,
    /// User id of whoever made it.
    pub owner: u32,
    /// Its cgroup, from the cgroup mount on; `None`: it has none of its own.
    pub cgroup: Option<String>,
    /// The unit of systemd that this cgroup belongs to; `None`: it was made without systemd.
    pub scope: Option<String>,
    /// What it has in the `resctrl` filesystem; `None`: nothing.
    pub resctrl: Option<Resctrl>,
    /// It has a pid namespace of its own, so its processes end with the first.
    pub own_pids: bool,
    /// The `SECCOMP_FILTER_FLAG_*` of its filter, which is the file `seccomp.bpf`; `None`: it has no filter.
    pub seccomp_flags: Option<u32>,
    /// Its processes have the session keyring of whoever started them.
    pub keep_keyring: bool,
    /// Its configuration has no `process`, so that it can't be started.
    pub without_program: bool,
    /// The configuration's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Hooks to run after the program was executed.
    pub poststart: Vec<Hook>,
    /// Hooks to run after the container was deleted.
    pub poststop: Vec<Hook>,
}

/// A container's groups in the `resctrl` filesystem, which go with it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Resctrl {
    /// The class of service, if it isn't the container's own; its own has the container's name.
    pub class: Option<String>,
    /// It is measured in a group of its own.
    pub monitored: bool,
}

impl Resctrl {
    /// What container `id` has.
    pub(crate) fn groups<'a>(&'a self, id: &'a str) -> Groups<'a> {
        Groups { class: self.class.as_deref(), name: id, monitored: self.monitored }
    }
}

/// Where in its life a container is (runtime spec, "State").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being made.
    Creating,
    /// Made; the program isn't executed yet.
    Created,
    /// The program runs.
    Running,
    /// The program is frozen.
    Paused,
    /// The program has ended, or never came to be.
    Stopped,
}

impl Status {
    /// As it is written in a state.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// What hooks and callers get to see: the runtime spec's state, and what other runtimes' callers expect besides.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View<'a> {
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: &'a str,
    bundle: &'a str,
    rootfs: &'a str,
    created: &'a str,
    owner: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

impl Record {
    /// Whether its processes keep the supplementary groups of whoever starts them: crun's annotation, which Podman's
    /// `--group-add keep-groups` is. Rights by a group that a user namespace can't map can't be had otherwise.
    #[must_use]
    pub fn keeps_groups(&self) -> bool {
        self.annotations.get("run.oci.keep_original_groups").is_some_and(|value| value != "0")
    }

    /// What is shown at `status`, the process being `pid` for whoever looks.
    #[must_use]
    pub fn view<'a>(&'a self, status: &'a str, pid: i32) -> View<'a> {
        View {
            oci_version: &self.oci_version,
            id: &self.id,
            pid,
            status,
            bundle: &self.bundle,
            rootfs: &self.rootfs,
            created: &self.created,
            owner: self.owner_name(),
            annotations: &self.annotations,
        }
    }

    /// Who made it: the user's name, or the number where the machine has no name for it.
    #[must_use]
    pub fn owner_name(&self) -> String {
        user_name(self.owner)
    }

    /// The same as JSON, for a hook.
    #[must_use]
    pub fn state(&self, status: &str, pid: i32) -> Vec<u8> {
        serde_json::to_vec(&self.view(status, pid)).unwrap_or_default()
    }
}

fn user_name(uid: u32) -> String {
    if uid == 0 {
        return "root".to_owned();
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_in(&passwd, uid).map_or_else(|| uid.to_string(), str::to_owned)
}

/// A user's name in a text of passwd(5)'s form.
pub(super) fn name_in(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        (id.parse() == Ok(uid)).then_some(name)
    })
}
