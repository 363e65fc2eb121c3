//! What can be asked for: flags and arguments of every command; those of commands that are mostly flags stand with them.

use std::path::PathBuf;

use clap::{Args, FromArgMatches, Parser, Subcommand, ValueEnum};

use super::events::Events;
use super::images::{Checkpoint, Restore};
use super::update::Update;

const NAME: &str = "garboard-runtime";
const VERSION: &str = concat!(
    "version ",
    env!("CARGO_PKG_VERSION"),
    "\nspec: 1.3.0\n+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF +CRIU"
);

/// Run containers as the OCI runtime specification describes them.
#[derive(Debug, Parser)]
#[command(
    name = NAME,
    version = VERSION,
    disable_version_flag = true,
    subcommand_required = true,
    after_help = "Exit status: 0 done, 1 failed; run and exec give the program's own, or 128 + the signal that ended it."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

impl Arguments {
    /// What this process was called with. An error is also what help and version are.
    pub(super) fn of_process() -> clap::error::Result<Self> {
        // To describe every command takes longer than all else until the container is made, so what is called often is tried by
        // itself. Whatever isn't right then is explained by the whole.
        match std::env::args_os().find_map(|argument| description_of_one(argument.to_str()?)) {
            Some(one) => {
                let matches = one.try_get_matches().and_then(|mut matches| Self::from_arg_matches_mut(&mut matches));
                matches.or_else(|_| Self::try_parse())
            }
            None => Self::try_parse(),
        }
    }
}

/// The command line if `name` were the only command, for those that make processes.
fn description_of_one(name: &str) -> Option<clap::Command> {
    let one = match name {
        "create" => Create::augment_args(clap::Command::new("create")),
        "run" => Run::augment_args(clap::Command::new("run")),
        "exec" => Exec::augment_args(clap::Command::new("exec")),
        _ => return None,
    };
    let all = clap::Command::new(NAME).version(VERSION).disable_version_flag(true).subcommand_required(true);
    Some(Global::augment_args(all).subcommand(one))
}

/// Flags before the command.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// Print the version.
    #[arg(short, long, short_alias = 'V', action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// Where containers are written down [default: /run/garboard-runtime, for ordinary users $XDG_RUNTIME_DIR/garboard-runtime].
    #[arg(long, value_name = "DIR")]
    pub(super) root: Option<PathBuf>,
    /// Also write errors and warnings to this file.
    #[arg(long, value_name = "FILE")]
    pub(super) log: Option<PathBuf>,
    /// How that file is written.
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    pub(super) log_format: LogFormat,
    /// Log more.
    #[arg(long)]
    pub(super) debug: bool,
    /// Have systemd make cgroups.
    #[arg(long)]
    pub(super) systemd_cgroup: bool,
    /// Who makes cgroups.
    #[arg(long, value_name = "MANAGER", value_enum)]
    pub(super) cgroup_manager: Option<CgroupManager>,
    /// The criu program that checkpoint and restore call.
    #[arg(long, value_name = "PROGRAM", default_value = "criu")]
    pub(super) criu: PathBuf,
    /// Whether to behave as for an ordinary user: true, false or auto.
    #[arg(long, value_name = "VALUE", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) rootless: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum CgroupManager {
    Cgroupfs,
    Systemd,
    Disabled,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a container and leave it right before its program.
    Create(Create),
    /// Execute the program of a created container.
    Start(Name),
    /// Print a container's state as JSON.
    State(Name),
    /// Send a signal to a container.
    Kill(Kill),
    /// Remove a stopped container.
    Delete(Delete),
    /// Make a container, start it, wait for its end and remove it.
    Run(Run),
    /// Run another process in a container.
    Exec(Exec),
    /// List containers.
    List(List),
    /// List a container's processes.
    Ps(Ps),
    /// Stop all processes of a container where they stand.
    Pause(Name),
    /// Let them go on.
    Resume(Name),
    /// Change a container's limits.
    Update(Update),
    /// Print what a container uses, and when it runs out of memory, as JSON.
    Events(Events),
    /// Write a running container to files (needs criu).
    Checkpoint(Checkpoint),
    /// Make a container anew from such files (needs criu).
    Restore(Restore),
    /// Write a config.json to begin with.
    Spec(Spec),
    /// Print what this runtime knows as JSON (runtime spec, "Features Document").
    Features,
}

impl Command {
    /// As it was called.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Start(_) => "start",
            Self::State(_) => "state",
            Self::Kill(_) => "kill",
            Self::Delete(_) => "delete",
            Self::Run(_) => "run",
            Self::Exec(_) => "exec",
            Self::List(_) => "list",
            Self::Ps(_) => "ps",
            Self::Pause(_) => "pause",
            Self::Resume(_) => "resume",
            Self::Update(_) => "update",
            Self::Events(_) => "events",
            Self::Checkpoint(_) => "checkpoint",
            Self::Restore(_) => "restore",
            Self::Spec(_) => "spec",
            Self::Features => "features",
        }
    }
}

#[derive(Debug, Default, PartialEq, Args)]
pub(super) struct Name {
    /// The container.
    #[arg(value_name = "CONTAINER", allow_hyphen_values = true)]
    pub(super) id: String,
}

/// What `create` and `run` have in common.
#[derive(Debug, Args)]
pub(super) struct Making {
    /// The directory with the configuration and the root filesystem.
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(super) bundle: PathBuf,
    /// The configuration's name in it.
    #[arg(short = 'f', long, value_name = "FILE", default_value = "config.json")]
    pub(super) config: PathBuf,
    /// A listening Unix socket that gets the terminal.
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// Write the process id to this file.
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// A listening Unix socket that gets the process's pid descriptor.
    #[arg(long, value_name = "SOCKET")]
    pub(super) pidfd_socket: Option<PathBuf>,
    /// Pass this many more descriptors, from 3 up, to the program.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) preserve_fds: u32,
    /// Move the root over / instead of calling pivot_root (needed on an initramfs, and weaker).
    #[arg(long)]
    pub(super) no_pivot: bool,
    /// Keep the caller's session keyring.
    #[arg(long)]
    pub(super) no_new_keyring: bool,
    /// Don't adopt the container's orphans.
    #[arg(long)]
    pub(super) no_subreaper: bool,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    pub(super) making: Making,
    #[command(flatten)]
    pub(super) name: Name,
}

#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) making: Making,
    /// Return when the program runs.
    #[arg(short, long)]
    pub(super) detach: bool,
    /// Leave the stopped container for `delete`.
    #[arg(long)]
    pub(super) keep: bool,
    #[command(flatten)]
    pub(super) name: Name,
}

#[derive(Debug, Args)]
pub(super) struct Exec {
    /// A file with the whole process as JSON (runtime spec, "Process"); the flags about the process don't count then.
    #[arg(short, long, value_name = "FILE")]
    pub(super) process: Option<PathBuf>,
    /// Working directory.
    #[arg(long, value_name = "DIR")]
    pub(super) cwd: Option<String>,
    /// One more environment variable, as NAME=value.
    #[arg(short, long, value_name = "ENV")]
    pub(super) env: Vec<String>,
    /// With a terminal.
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub(super) tty: bool,
    /// User, and group, in numbers.
    #[arg(short, long, value_name = "UID[:GID]")]
    pub(super) user: Option<String>,
    /// One more group, in numbers.
    #[arg(short = 'g', long, value_name = "GID")]
    pub(super) additional_gids: Vec<u32>,
    /// Return when the program runs.
    #[arg(short, long)]
    pub(super) detach: bool,
    /// Write the process id to this file.
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// A listening Unix socket that gets the process's pid descriptor.
    #[arg(long, value_name = "SOCKET")]
    pub(super) pidfd_socket: Option<PathBuf>,
    /// A listening Unix socket that gets the terminal.
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// Its SELinux label.
    #[arg(long, value_name = "LABEL")]
    pub(super) process_label: Option<String>,
    /// Its AppArmor profile.
    #[arg(long, value_name = "PROFILE")]
    pub(super) apparmor: Option<String>,
    /// No new privileges.
    #[arg(long)]
    pub(super) no_new_privs: bool,
    /// One more capability.
    #[arg(short, long, value_name = "CAP")]
    pub(super) cap: Vec<String>,
    /// Pass this many more descriptors, from 3 up, to the program.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) preserve_fds: u32,
    /// Also in a paused container, where it starts when that is resumed.
    #[arg(long)]
    pub(super) ignore_paused: bool,
    /// A cgroup beneath the container's.
    #[arg(long, value_name = "PATH")]
    pub(super) cgroup: Option<String>,
    /// Don't adopt the container's orphans.
    #[arg(long)]
    pub(super) no_subreaper: bool,
    #[command(flatten)]
    pub(super) name: Name,
    /// Program and arguments.
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Kill {
    /// To all processes, not only the first.
    #[arg(short, long)]
    pub(super) all: bool,
    /// CONTAINER is a regular expression: to all containers that it matches.
    #[arg(short, long)]
    pub(super) regex: bool,
    #[command(flatten)]
    pub(super) name: Name,
    /// Name or number of the signal.
    #[arg(value_name = "SIGNAL", default_value = "TERM")]
    pub(super) signal: String,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Kill it first if it still runs; do nothing if there is none.
    #[arg(short, long)]
    pub(super) force: bool,
    /// CONTAINER is a regular expression: delete all containers that it matches.
    #[arg(short, long)]
    pub(super) regex: bool,
    #[command(flatten)]
    pub(super) name: Name,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    pub(super) format: Format,
    /// Only the names.
    #[arg(short, long)]
    pub(super) quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct Ps {
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    pub(super) format: Format,
    #[command(flatten)]
    pub(super) name: Name,
    /// Options of ps(1) for the table [default: -ef].
    #[arg(value_name = "PS-OPTION", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) options: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Spec {
    /// The directory to write it in.
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(super) bundle: PathBuf,
    /// Its name there.
    #[arg(short, long, value_name = "FILE", default_value = "config.json")]
    pub(super) file: PathBuf,
    /// For an ordinary user: a user namespace with this user as root.
    #[arg(long)]
    pub(super) rootless: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_described_alone_is_understood_as_among_all() {
        let lines: [&[&str]; 6] = [
            &["run", "a"],
            &["--root", "/r", "--log-format=json", "--debug", "run", "-d", "-b", "/b", "--pid-file", "p", "a"],
            &["create", "--bundle", "/b", "--no-pivot", "--preserve-fds", "2", "-x"],
            &["exec", "-t", "-u", "1:2", "-e", "A=b", "--cap", "CAP_KILL", "a", "run", "--help"],
            &["--rootless=true", "exec", "--process", "p.json", "a"],
            &["--cgroup-manager", "disabled", "run", "--keep", "a"],
        ];
        for line in lines {
            let line = || std::iter::once("garboard-runtime").chain(line.iter().copied());
            let one = line().find_map(description_of_one).unwrap().try_get_matches_from(line()).unwrap();
            let one = Arguments::from_arg_matches(&one).unwrap();
            let whole = Arguments::try_parse_from(line()).unwrap();
            assert_eq!(format!("{one:?}"), format!("{whole:?}"));
        }
        // A value that looks like a command is none: the whole is asked then.
        let line = ["garboard-runtime", "--root", "run", "state", "a"];
        assert!(line.into_iter().find_map(description_of_one).unwrap().try_get_matches_from(line).is_err());
        assert!(Arguments::try_parse_from(line).is_ok());
    }
}
