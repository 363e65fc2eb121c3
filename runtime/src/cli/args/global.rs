//! Flags before the command.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::super::log::SystemKind;
use super::page::{Argument, Flag, Page, Place};
use super::{Instead, Parsed, Reader};

/// The lines that callers of OCI runtimes read. Who builds from a known commit names it in the environment, as `runtime/build-static` says.
fn version(commit: Option<&str>) -> String {
    let commit = commit.map_or(String::new(), |commit| format!("commit: {commit}\n"));
    format!(
        "{} version {}\n{commit}spec: 1.3.0\n+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF +CRIU\n",
        super::NAME,
        env!("CARGO_PKG_VERSION")
    )
}

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
        Flag::value(
            "",
            "log",
            "FILE",
            "Also write errors and warnings to this file, or as `syslog:NAME` or `journald:NAME` to the machine's log",
        ),
        Flag::value("", "log-format", "FORMAT", "How that file is written [default: text]").one_of(&["text", "json"]),
        Flag::switch("", "debug", "Log more"),
        Flag::switch("", "systemd-cgroup", "Have systemd make cgroups"),
        Flag::value("", "cgroup-manager", "MANAGER", "Who makes cgroups").one_of(&["cgroupfs", "systemd", "disabled"]),
        Flag::value("", "criu", "PROGRAM", "The criu program that checkpoint and restore call [default: criu]"),
        Flag::optional("", "rootless", "VALUE", "Whether to behave as for an ordinary user: true, false or auto")
            .apart(&["true", "false", "auto", "1", "0"]),
    ]],
    arguments: &[Argument::new("COMMAND", Place::Needed, false, "")],
};

#[derive(Debug)]
pub(in crate::cli) struct Global {
    pub(in crate::cli) root: Option<PathBuf>,
    pub(in crate::cli) log: Option<LogPlace>,
    pub(in crate::cli) log_format: LogFormat,
    pub(in crate::cli) debug: bool,
    pub(in crate::cli) systemd_cgroup: bool,
    pub(in crate::cli) cgroup_manager: Option<CgroupManager>,
    pub(in crate::cli) criu: PathBuf,
    pub(in crate::cli) rootless: Option<String>,
}

/// Where the log is.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) enum LogPlace {
    File(PathBuf),
    /// One of the machine's, and by what name.
    System(SystemKind, String),
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

/// Marked as with crun, or a path.
fn log_place(given: PathBuf) -> LogPlace {
    let marked = |mark: &[u8]| given.as_os_str().as_bytes().strip_prefix(mark).map(OsStr::from_bytes);
    let system = |kind, name: &OsStr| {
        let name = if name.is_empty() { super::NAME.into() } else { name.to_string_lossy() };
        LogPlace::System(kind, name.into_owned())
    };
    if let Some(name) = marked(b"syslog:") {
        system(SystemKind::Syslog, name)
    } else if let Some(name) = marked(b"journald:") {
        system(SystemKind::Journal, name)
    } else {
        LogPlace::File(marked(b"file:").map(PathBuf::from).unwrap_or(given))
    }
}

impl Global {
    pub(super) fn take(&mut self, flag: &str, reader: &mut Reader) -> Parsed<()> {
        match flag {
            "version" => return Err(Instead::Print(version(option_env!("GARBOARD_COMMIT")))),
            "root" => self.root = Some(reader.path()?),
            "log" => self.log = Some(log_place(reader.path()?)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_named_where_it_is_known() {
        let lines = |commit| version(commit).lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines(Some("abc"))[1..3], ["commit: abc", "spec: 1.3.0"]);
        assert_eq!(lines(None)[1], "spec: 1.3.0");
    }

    #[test]
    fn a_log_is_a_file_or_the_machine_s() {
        for (given, path) in
            [("/l", "/l"), ("file:/l", "/l"), ("file:l", "l"), ("/file:l", "/file:l"), ("file:syslog:l", "syslog:l")]
        {
            assert_eq!(log_place(given.into()), LogPlace::File(path.into()), "{given}");
        }
        for (given, kind, name) in [
            ("syslog:a", SystemKind::Syslog, "a"),
            ("journald:a:b", SystemKind::Journal, "a:b"),
            ("syslog:", SystemKind::Syslog, "garboard-runtime"),
        ] {
            assert_eq!(log_place(given.into()), LogPlace::System(kind, name.to_owned()), "{given}");
        }
    }
}
