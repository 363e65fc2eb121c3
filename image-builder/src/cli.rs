//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand};
use garboard_qemu::{Accel, Machine};

/// Where each command's help shows its examples: first.
const TEMPLATE: &str = "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";
const EXIT_STATUS: &str = "Exit status: 0 done, 1 failed (the reason is on stderr), 2 wrong usage.";

const RUN_STATUS: &str = "\
Declared ports are forwarded from the same port of 127.0.0.1 if it is free, else from another, which is printed.
Volumes are kept in DIR.state beside the built files' directory, also when you build again (for uefi on the disk itself, from which
the next build's disk takes them over); remove DIR.state, or use --fresh, to begin anew.

On a terminal Ctrl-a x quits QEMU at once, as if the power were cut. Otherwise SIGINT (Ctrl-C) and SIGTERM switch the appliance off.

Exit status: 0 the appliance became ready (--until-ready), or switched itself off, or you quit; 1 it failed or wasn't ready in
time (the reason is on stderr); 2 wrong usage.";

const PORT_STATUS: &str = "\
An appliance is found by DIR.state beside the built files' directory, where `garboard run` leaves links to the sockets of its status port
(status) and, with --detach, of its console (console). QEMU serves one program at a time on each; the next one waits.

Exit status: 0 done, 1 failed (the reason is on stderr), 2 wrong usage.";

/// Builds, runs and inspects appliances: containers baked with a kernel into one sealed, bootable image.
#[derive(Debug, Parser)]
#[command(name = "garboard", version, help_template = TEMPLATE, after_help = EXIT_STATUS, disable_help_subcommand = true)]
#[command(before_help = "\
Examples:
  garboard new --demo demo && cd demo    a small appliance to look at
  garboard check                         is appliance.toml right?
  garboard build                         bake it: kernel, initrd, system image and disk in out/
  garboard run                           boot it in QEMU, on this terminal
  garboard status                        how it is, from another terminal
  garboard inspect out                   what is in the image, read from the image
")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a commented appliance.toml to start from
    #[command(help_template = TEMPLATE, after_help = EXIT_STATUS, before_help = "\
Examples:
  garboard new              appliance.toml here
  garboard new web          the same in the new directory web
  garboard new --demo demo  the demo appliance, with its container image: ready to build
")]
    New(New),

    /// Say whether a declaration and its images are right, without building
    #[command(help_template = TEMPLATE, after_help = EXIT_STATUS, before_help = "\
Examples:
  garboard check                  ./appliance.toml
  garboard check -f web/a.toml    another
  garboard check --json           errors with line and column, for an editor
")]
    Check(Check),

    /// Bake an appliance into bootable files
    #[command(help_template = TEMPLATE, after_help = EXIT_STATUS, before_help = "\
Examples:
  garboard build                    ./appliance.toml into ./out
  garboard build --no-disk          without the disk image for UEFI machines
  garboard build --kernel vmlinuz --modules lib/modules/6.12.1
                                    with an own kernel
  garboard build --json | jq -r .root_hash
")]
    Build(Build),

    /// Boot a built appliance in QEMU, on this terminal
    #[command(help_template = TEMPLATE, after_help = RUN_STATUS, before_help = "\
Examples:
  garboard run                          ./out on this terminal; Ctrl-a x quits
  garboard run --port 8080:80           port 80 of the appliance as 127.0.0.1:8080
  garboard run --machine uefi           the disk image, from firmware on
  garboard run --detach                 in the background; `garboard attach` is its console
  garboard run --until-ready            for scripts: boot, wait until all containers are as declared, switch off
")]
    Run(Run),

    /// Show how a running appliance is
    #[command(help_template = TEMPLATE, after_help = PORT_STATUS, before_help = "\
Examples:
  garboard status                       the appliance that `garboard run` runs from ./out
  garboard status --directory web/out   another
  garboard status --vsock 7:9000        a virtual machine of another program
  garboard status --json | jq .ready
")]
    Status(Status),

    /// Show what a container printed
    #[command(help_template = TEMPLATE, after_help = PORT_STATUS, before_help = "\
Examples:
  garboard logs web           its newest 100 lines
  garboard logs -f -n 10 web  the newest 10, and what follows, until Ctrl-C
  garboard logs -p web        what it printed before the machine started, if that is kept
  garboard logs --kernel      the kernel's warnings
")]
    Logs(Logs),

    /// Show what happened in a running appliance
    #[command(help_template = TEMPLATE, after_help = PORT_STATUS, before_help = "\
Examples:
  garboard events          starts, ends, failures and why
  garboard events -f       and what follows, until Ctrl-C
  garboard events --json   an object a line
")]
    Events(Events),

    /// Use the serial console of an appliance that runs detached
    #[command(help_template = TEMPLATE, after_help = PORT_STATUS, before_help = "\
Examples:
  garboard run --detach && garboard attach   Ctrl-] leaves, the appliance runs on

Ctrl-] pressed twice is one for the appliance, where it leaves a shell. A dashboard that was open
before shows what changes only, until Ctrl-L draws it anew.
")]
    Attach(Attach),

    /// Show what is in a built image, from the image alone
    #[command(help_template = TEMPLATE, after_help = EXIT_STATUS, before_help = "\
Examples:
  garboard inspect out                 a build's output directory
  garboard inspect out/system.erofs    a system image
  garboard inspect out/disk.raw        a disk image
  garboard inspect --json out | jq '.containers[].weakened'
")]
    Inspect(Inspect),

    /// Print the JSON Schema of appliance.toml, for editors
    #[command(help_template = TEMPLATE, after_help = EXIT_STATUS, before_help = "\
Examples:
  garboard schema > appliance.schema.json
")]
    Schema,
}

/// `garboard new`
#[derive(Debug, Args)]
pub struct New {
    /// Directory to write to; made if it doesn't exist
    #[arg(default_value = ".")]
    pub directory: PathBuf,
    /// Write the demo appliance and its container image
    #[arg(long)]
    pub demo: bool,
}

/// `garboard check`
#[derive(Debug, Args)]
pub struct Check {
    /// The declaration
    #[arg(short, long, value_name = "FILE", default_value = "appliance.toml")]
    pub file: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// `garboard build`
#[derive(Debug, Args)]
pub struct Build {
    /// The declaration
    #[arg(short, long, value_name = "FILE", default_value = "appliance.toml")]
    pub file: PathBuf,
    /// Directory for the built files; made if it doesn't exist
    #[arg(short, long, value_name = "DIR", default_value = "out")]
    pub output: PathBuf,
    /// Leave out disk.raw, the image for machines that boot by UEFI
    #[arg(long)]
    pub no_disk: bool,
    /// Kernel image (bzImage) instead of the declared or the distribution's
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Modules of that kernel, a directory such as lib/modules/6.12.1; without it the kernel needs none
    #[arg(long, value_name = "DIR", requires = "kernel")]
    pub modules: Option<PathBuf>,
    /// Print image.json, and no progress
    #[arg(long)]
    pub json: bool,
}

/// `garboard run`
#[derive(Debug, Args)]
pub struct Run {
    /// What `garboard build` made
    #[arg(value_name = "DIR", default_value = "out")]
    pub directory: PathBuf,
    /// Kind of computer: microvm boots fastest, q35 is a PC, uefi is that PC booting disk.raw
    #[arg(long, value_name = "KIND", default_value = "microvm", value_parser = clap::builder::PossibleValuesParser::new(["microvm", "q35", "uefi"]).try_map(|text| text.parse::<Machine>()))]
    pub machine: Machine,
    /// How to execute its instructions: kvm or tcg; without it kvm is tried
    #[arg(long, value_name = "HOW", value_parser = clap::builder::PossibleValuesParser::new(["kvm", "tcg"]).try_map(|text| text.parse::<Accel>()))]
    pub accel: Option<Accel>,
    /// Memory in MiB instead of what is declared; with less than 88 a distribution's kernel doesn't get far enough to complain
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(88..))]
    pub memory: Option<u32>,
    /// Processors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub cpus: u32,
    /// Forward a port of 127.0.0.1 to one of the appliance; may be repeated
    #[arg(long = "port", value_name = "HOST:GUEST[/udp]")]
    pub ports: Vec<Forwarding>,
    /// Room for volumes in MiB, 1024 if nothing is said; the appliance grows into it, and what it has stays
    #[arg(long, value_name = "MIB")]
    pub data_size: Option<u64>,
    /// Begin with empty volumes and forget them at the end
    #[arg(long)]
    pub fresh: bool,
    /// Wait until every container is as declared, print the status, switch off
    #[arg(long)]
    pub until_ready: bool,
    /// Leave it running in the background; see `garboard attach`, `status`, `logs` and `events`
    #[arg(long, conflicts_with = "until_ready")]
    pub detach: bool,
    /// This process is the one in the background
    #[arg(long, hide = true, conflicts_with_all = ["detach", "until_ready"])]
    pub detached: bool,
    /// How long --until-ready waits, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120, requires = "until_ready")]
    pub timeout: u64,
}

/// `HOST:GUEST[/tcp|/udp]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarding {
    /// Port of 127.0.0.1.
    pub host: u16,
    /// Port of the appliance.
    pub guest: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
}

impl FromStr for Forwarding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not HOST:GUEST with two port numbers, such as 8080:80 or 5353:53/udp");
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (host, guest) = ports.split_once(':').ok_or_else(wrong)?;
        let port = |text: &str| text.parse::<u16>().ok().filter(|&port| port != 0).ok_or_else(wrong);
        if !matches!(protocol, "tcp" | "udp") {
            return Err(wrong());
        }
        Ok(Self { host: port(host)?, guest: port(guest)?, protocol: protocol.to_owned() })
    }
}

/// Which running appliance is meant.
#[derive(Debug, Args)]
pub struct Target {
    /// What `garboard run` runs
    #[arg(long = "directory", value_name = "DIR", default_value = "out")]
    pub directory: PathBuf,
    /// A status port's Unix socket instead
    #[arg(long, value_name = "PATH", conflicts_with = "vsock")]
    pub socket: Option<PathBuf>,
    /// A virtual machine's address and status port instead
    #[arg(long, value_name = "CID:PORT", value_parser = vsock_address)]
    pub vsock: Option<(u32, u32)>,
    /// Print JSON, an object a line
    #[arg(long)]
    pub json: bool,
}

/// `CID:PORT`
fn vsock_address(text: &str) -> Result<(u32, u32), String> {
    let parts = text.split_once(':').and_then(|(cid, port)| Some((cid.parse().ok()?, port.parse().ok()?)));
    parts.ok_or_else(|| format!("'{text}' is not CID:PORT with two numbers, such as 7:9000"))
}

/// `garboard status`
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    pub target: Target,
}

/// `garboard logs`
#[derive(Debug, Args)]
pub struct Logs {
    /// The container
    #[arg(required_unless_present = "kernel")]
    pub container: Option<String>,
    /// The kernel's warnings instead
    #[arg(long, conflicts_with = "container")]
    pub kernel: bool,
    /// Also what follows, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// Of earlier boots, as far as the declaration has the log kept (`logging`)
    #[arg(short, long, conflicts_with_all = ["follow", "kernel"])]
    pub previous: bool,
    /// At most so many lines of what was printed before
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 100)]
    pub lines: usize,
    #[command(flatten)]
    pub target: Target,
}

/// `garboard events`
#[derive(Debug, Args)]
pub struct Events {
    /// Also what follows, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// At most so many of those before
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 100)]
    pub lines: usize,
    #[command(flatten)]
    pub target: Target,
}

/// `garboard attach`
#[derive(Debug, Args)]
pub struct Attach {
    /// What `garboard run --detach` runs
    #[arg(long = "directory", value_name = "DIR", default_value = "out")]
    pub directory: PathBuf,
    /// A console's Unix socket instead
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// `garboard inspect`
#[derive(Debug, Args)]
pub struct Inspect {
    /// A system image, a disk image, or a build's output directory
    pub image: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn forwardings_are_two_ports() {
        let of = |host, guest, protocol: &str| Ok(Forwarding { host, guest, protocol: protocol.into() });
        assert_eq!("8080:80".parse(), of(8080, 80, "tcp"));
        assert_eq!("5353:53/udp".parse(), of(5353, 53, "udp"));
        for wrong in ["80", "0:80", "80:65536", "a:b", "80:80/icmp", ":", "1:2:3"] {
            assert!(wrong.parse::<Forwarding>().unwrap_err().contains("8080:80"), "{wrong}");
        }
    }

    #[test]
    fn addresses_of_virtual_machines_are_two_numbers() {
        assert_eq!(vsock_address("7:9000"), Ok((7, 9000)));
        for wrong in ["7", "7:", ":1", "a:b", "7:1:2", "-1:3"] {
            assert!(vsock_address(wrong).unwrap_err().contains("7:9000"), "{wrong}");
        }
    }

    #[test]
    fn a_timeout_is_for_waiting() {
        assert!(Cli::try_parse_from(["garboard", "run", "--timeout", "5"]).is_err());
        assert!(
            Cli::try_parse_from(["garboard", "run", "--until-ready", "--timeout", "5", "--machine", "uefi"]).is_ok()
        );
        assert!(Cli::try_parse_from(["garboard", "run", "--machine", "vax"]).is_err());
    }
}
