//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Where each command's help shows its examples: first.
const TEMPLATE: &str = "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";
const EXIT_STATUS: &str = "Exit status: 0 done, 1 failed (the reason is on stderr), 2 wrong usage.";

/// Builds, runs and inspects appliances: containers baked with a kernel into one sealed, bootable image.
#[derive(Debug, Parser)]
#[command(name = "garboard", version, help_template = TEMPLATE, after_help = EXIT_STATUS, disable_help_subcommand = true)]
#[command(before_help = "\
Examples:
  garboard new --demo demo && cd demo    a small appliance to look at
  garboard check                         is appliance.toml right?
  garboard build                         bake it: kernel, initrd, system image and disk in out/
  garboard run                           boot it in QEMU, on this terminal
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

/// `garboard inspect`
#[derive(Debug, Args)]
pub struct Inspect {
    /// A system image, a disk image, or a build's output directory
    pub image: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}
