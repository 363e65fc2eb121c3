//! `checkpoint` and `restore`: containers to files and back, by criu.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::args::{Global, Name};
use super::{create, foreground, log};
use crate::container::checkpoint::{Checkpoint as Wanted, checkpoint};
use crate::container::create::Options;
use crate::container::criu::Images;
use crate::container::restore::{Restore as Anew, restore};
use crate::container::store::Store;
use crate::container::{Result, bundle, life};

/// What both directions have in common.
#[derive(Debug, Args)]
struct Common {
    /// Where the images are.
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    image_path: PathBuf,
    /// Where criu works and logs [default: beside the images].
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// Keep open TCP connections.
    #[arg(long)]
    tcp_established: bool,
    /// Keep Unix sockets that lead outside.
    #[arg(long)]
    ext_unix_sk: bool,
    /// Allow processes of a session from outside.
    #[arg(long)]
    shell_job: bool,
    /// Keep file locks.
    #[arg(long)]
    file_locks: bool,
    /// How cgroups are handled.
    #[arg(long, value_name = "MODE", value_enum, default_value = "soft")]
    manage_cgroups_mode: Cgroups,
    /// Make this namespace, but empty: network.
    #[arg(long, value_name = "NAMESPACE", value_parser = ["network"])]
    empty_ns: Vec<String>,
    /// Keep equal pages once.
    #[arg(long)]
    auto_dedup: bool,
    /// Fetch memory when it is touched (userfaultfd(2)).
    #[arg(long)]
    lazy_pages: bool,
}

/// criu(8), `--manage-cgroups`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Cgroups {
    Soft,
    Full,
    Strict,
    Ignore,
}

#[derive(Debug, Args)]
pub(super) struct Checkpoint {
    #[command(flatten)]
    common: Common,
    /// The images of an earlier pre-dump, relative to these.
    #[arg(long, value_name = "DIR")]
    parent_path: Option<PathBuf>,
    /// Let the container go on afterwards.
    #[arg(long)]
    leave_running: bool,
    /// Write only the memory, and let the container go on.
    #[arg(long)]
    pre_dump: bool,
    /// A descriptor that gets a zero byte when memory can be fetched.
    #[arg(long, value_name = "FD", default_value_t = -1, allow_negative_numbers = true)]
    status_fd: i32,
    /// Send the memory there.
    #[arg(long, value_name = "ADDRESS:PORT")]
    page_server: Option<String>,
    #[command(flatten)]
    name: Name,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    #[command(flatten)]
    common: Common,
    /// The directory with the configuration and the root filesystem.
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// Return when the container runs.
    #[arg(short, long)]
    detach: bool,
    /// Write the process id to this file.
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Without effect, as no terminal can be made anew.
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Don't adopt the container's orphans.
    #[arg(long)]
    no_subreaper: bool,
    /// Without effect: criu finds out.
    #[arg(long)]
    no_pivot: bool,
    /// Another profile of the security module.
    #[arg(long, value_name = "TYPE:NAME")]
    lsm_profile: Option<String>,
    /// Another context of mounts.
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<String>,
    #[command(flatten)]
    name: Name,
}

pub(super) fn write(store: &Store, global: &Global, arguments: &Checkpoint) -> Result<u8> {
    let entry = store.find(&arguments.name.id)?;
    let wanted = Wanted {
        images: images(global, &arguments.common),
        leave_running: arguments.leave_running,
        pre_dump: arguments.pre_dump,
        parent: arguments.parent_path.clone(),
        page_server: arguments.page_server.clone(),
        status_fd: Some(arguments.status_fd).filter(|fd| *fd >= 0),
    };
    let lock = entry.lock()?;
    checkpoint(&entry, &lock, &wanted)?;
    Ok(0)
}

pub(super) fn read(store: &Store, global: &Global, arguments: &Restore) -> Result<u8> {
    let id = &arguments.name.id;
    let options =
        Options { pid_file: arguments.pid_file.clone(), manager: create::manager(global), ..Options::default() };
    let wanted = Anew {
        images: images(global, &arguments.common),
        lsm_profile: arguments.lsm_profile.clone(),
        lsm_mount_context: arguments.lsm_mount_context.clone(),
    };
    let bundle = bundle::load(&arguments.bundle, Path::new("config.json"), id, false)?;
    bundle.warnings.iter().for_each(|warning| log::warn(warning));
    // What criu makes becomes its nearest reaper's child, which must be this process if it is to wait for it.
    let signals = (!arguments.detach).then(|| foreground::take_signals(true)).transpose()?;
    let made = restore(store, id, bundle, &options, &wanted)?;
    life::started(&made.entry, made.lock, &made.record, std::os::fd::AsFd::as_fd(&made.pidfd), None)?;
    let Some(signals) = signals else { return Ok(0) };
    let status = foreground::wait(&signals, &made.pidfd, None, None, made.record.pid)?;
    if let Ok(_lock) = made.entry.lock() {
        life::destroy(&made.entry, &made.record)?;
    }
    Ok(status)
}

fn images(global: &Global, common: &Common) -> Images {
    let mode = match common.manage_cgroups_mode {
        Cgroups::Soft => "soft",
        Cgroups::Full => "full",
        Cgroups::Strict => "strict",
        Cgroups::Ignore => "ignore",
    };
    Images {
        criu: global.criu.clone(),
        directory: common.image_path.clone(),
        work: common.work_path.clone(),
        tcp_established: common.tcp_established,
        ext_unix_sk: common.ext_unix_sk,
        shell_job: common.shell_job,
        file_locks: common.file_locks,
        manage_cgroups: mode.to_owned(),
        // As criu calls it.
        empty_ns: common.empty_ns.iter().map(|_| "net".to_owned()).collect(),
        auto_dedup: common.auto_dedup,
        lazy_pages: common.lazy_pages,
    }
}
