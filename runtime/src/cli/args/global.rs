//! Flags before the command.

use std::path::PathBuf;

use super::page::{Argument, Flag, Page, Place};
use super::{Instead, Parsed, Reader};

const VERSION: &str = concat!(
    "garboard-runtime version ",
    env!("CARGO_PKG_VERSION"),
    "\nspec: 1.3.0\n+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF +CRIU\n"
);

pub(super) static PAGE: Page = Page {
    name: "",
    about: "Run containers as the OCI runtime specification describes them",
    flags: &[&[
        Flag::switch("vV", "version", "Print the version"),
        Flag::value(
            "",
            "root",
            "DIR",
            "Where containers are written down [default: /run/garboard-runtime, for ordinary users $XDG_RUNTIME_DIR/garboard-runtime]",
        ),
        Flag::value("", "log", "FILE", "Also write errors and warnings to this file"),
        Flag::value("", "log-format", "FORMAT", "How that file is written [default: text]").one_of(&["text", "json"]),
        Flag::switch("", "debug", "Log more"),
        Flag::switch("", "systemd-cgroup", "Have systemd make cgroups"),
        Flag::value("", "cgroup-manager", "MANAGER", "Who makes cgroups").one_of(&["cgroupfs", "systemd", "disabled"]),
        Flag::value("", "criu", "PROGRAM", "The criu program that checkpoint and restore call [default: criu]"),
        Flag::optional("", "rootless", "VALUE", "Whether to behave as for an ordinary user: true, false or auto"),
    ]],
    arguments: &[Argument::new("COMMAND", Place::Needed, false, "")],
};

#[derive(Debug)]
pub(in crate::cli) struct Global {
    pub(in crate::cli) root: Option<PathBuf>,
    pub(in crate::cli) log: Option<PathBuf>,
    pub(in crate::cli) log_format: LogFormat,
    pub(in crate::cli) debug: bool,
    pub(in crate::cli) systemd_cgroup: bool,
    pub(in crate::cli) cgroup_manager: Option<CgroupManager>,
    pub(in crate::cli) criu: PathBuf,
    pub(in crate::cli) rootless: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum CgroupManager {
    Cgroupfs,
    Systemd,
    Disabled,
}

impl Default for Global {
    fn default() -> Self {
        Self {
            root: None,
            log: None,
            log_format: LogFormat::Text,
            debug: false,
            systemd_cgroup: false,
            cgroup_manager: None,
            criu: "criu".into(),
            rootless: None,
        }
    }
}

impl Global {
    pub(super) fn take(&mut self, flag: &str, reader: &mut Reader) -> Parsed<()> {
        match flag {
            "version" => return Err(Instead::Print(VERSION.to_owned())),
            "root" => self.root = Some(reader.path()?),
            "log" => self.log = Some(reader.path()?),
            "log-format" => {
                self.log_format = if reader.text()? == "json" { LogFormat::Json } else { LogFormat::Text };
            }
            "debug" => self.debug = true,
            "systemd-cgroup" => self.systemd_cgroup = true,
            "cgroup-manager" => {
                self.cgroup_manager = Some(match reader.text()?.as_str() {
                    "disabled" => CgroupManager::Disabled,
                    "systemd" => CgroupManager::Systemd,
                    _ => CgroupManager::Cgroupfs,
                });
            }
            "criu" => self.criu = reader.path()?,
            "rootless" => self.rootless = Some(reader.text()?),
            other => return Err(reader.unknown(other)),
        }
        Ok(())
    }
}
