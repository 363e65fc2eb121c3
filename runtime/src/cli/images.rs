//! `checkpoint` and `restore`: containers to files and back, by criu.

use std::path::{Path, PathBuf};

use super::args::{Flag, Global, Name, Parsed, Reader};
use super::{create, foreground, log};
use crate::container::checkpoint::{Checkpoint as Wanted, checkpoint};
use crate::container::create::Options;
use crate::container::criu::Images;
use crate::container::restore::{Restore as Anew, restore};
use crate::container::store::Store;
use crate::container::{Result, bundle, life};

/// What both directions have in common.
#[derive(Debug)]
struct Common {
    image_path: PathBuf,
    work_path: Option<PathBuf>,
    tcp_established: bool,
    ext_unix_sk: bool,
    shell_job: bool,
    file_locks: bool,
    manage_cgroups_mode: String,
    empty_ns: Vec<String>,
    auto_dedup: bool,
    lazy_pages: bool,
    network_lock: Option<String>,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            image_path: "checkpoint".into(),
            work_path: None,
            tcp_established: false,
            ext_unix_sk: false,
            shell_job: false,
            file_locks: false,
            manage_cgroups_mode: "soft".to_owned(),
            empty_ns: Vec::new(),
            auto_dedup: false,
            lazy_pages: false,
            network_lock: None,
        }
    }
}

impl Common {
    const FLAGS: &'static [Flag] = &[
        Flag::value("", "image-path", "DIR", "Where the images are [default: checkpoint]"),
        Flag::value("", "work-path", "DIR", "Where criu works and logs [default: beside the images]"),
        Flag::switch("", "tcp-established", "Keep open TCP connections"),
        Flag::switch("", "ext-unix-sk", "Keep Unix sockets that lead outside"),
        Flag::switch("", "shell-job", "Allow processes of a session from outside"),
        Flag::switch("", "file-locks", "Keep file locks"),
        Flag::value("", "manage-cgroups-mode", "MODE", "How cgroups are handled [default: soft]")
            .one_of(&["soft", "full", "strict", "ignore"]),
        Flag::value("", "empty-ns", "NAMESPACE", "Make this namespace, but empty: network").one_of(&["network"]),
        Flag::switch("", "auto-dedup", "Keep equal pages once"),
        Flag::switch("", "lazy-pages", "Fetch memory when it is touched (userfaultfd(2))"),
        Flag::value("", "network-lock", "METHOD", "How packets are held up meanwhile")
            .one_of(&["iptables", "nftables", "skip"]),
    ];

    fn take(&mut self, flag: &str, reader: &mut Reader) -> Parsed<()> {
        match flag {
            "image-path" => self.image_path = reader.path()?,
            "work-path" => self.work_path = Some(reader.path()?),
            "tcp-established" => self.tcp_established = true,
            "ext-unix-sk" => self.ext_unix_sk = true,
            "shell-job" => self.shell_job = true,
            "file-locks" => self.file_locks = true,
            "manage-cgroups-mode" => self.manage_cgroups_mode = reader.text()?,
            "empty-ns" => self.empty_ns.push(reader.text()?),
            "auto-dedup" => self.auto_dedup = true,
            "lazy-pages" => self.lazy_pages = true,
            "network-lock" => self.network_lock = Some(reader.text()?),
            other => return Err(reader.unknown(other)),
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
pub(super) struct Checkpoint {
    common: Common,
    parent_path: Option<PathBuf>,
    leave_running: bool,
    pre_dump: bool,
    link_remap: bool,
    tcp_skip_in_flight: bool,
    status_fd: i32,
    page_server: Option<String>,
    name: Name,
}

impl Checkpoint {
    pub(super) const FLAGS: &'static [&'static [Flag]] = &[
        Common::FLAGS,
        &[
            Flag::value("", "parent-path", "DIR", "The images of an earlier pre-dump, relative to these"),
            Flag::switch("", "leave-running", "Let the container go on afterwards"),
            Flag::switch("", "pre-dump", "Write only the memory, and let the container go on"),
            Flag::switch("", "link-remap", "Keep files that were removed while they are open"),
            Flag::switch("", "tcp-skip-in-flight", "Leave out TCP connections that are only being made"),
            Flag::value(
                "",
                "status-fd",
                "FD",
                "A descriptor that gets a zero byte when memory can be fetched [default: -1]",
            ),
            Flag::value("", "page-server", "ADDRESS:PORT", "Send the memory there"),
        ],
    ];

    pub(super) fn read(reader: &mut Reader) -> Parsed<Self> {
        let mut checkpoint = Self { status_fd: -1, ..Self::default() };
        while let Some(given) = reader.next()? {
            match given {
                "parent-path" => checkpoint.parent_path = Some(reader.path()?),
                "leave-running" => checkpoint.leave_running = true,
                "pre-dump" => checkpoint.pre_dump = true,
                "link-remap" => checkpoint.link_remap = true,
                "tcp-skip-in-flight" => checkpoint.tcp_skip_in_flight = true,
                "status-fd" => checkpoint.status_fd = reader.number()?,
                "page-server" => checkpoint.page_server = Some(reader.text()?),
                "CONTAINER" => checkpoint.name = Name::last(reader)?,
                flag => checkpoint.common.take(flag, reader)?,
            }
        }
        Ok(checkpoint)
    }
}

#[derive(Debug, Default)]
pub(super) struct Restore {
    common: Common,
    bundle: PathBuf,
    detach: bool,
    pid_file: Option<PathBuf>,
    console_socket: Option<PathBuf>,
    no_subreaper: bool,
    no_pivot: bool,
    tcp_close: bool,
    lsm_profile: Option<String>,
    lsm_mount_context: Option<String>,
    name: Name,
}

impl Restore {
    pub(super) const FLAGS: &'static [&'static [Flag]] = &[
        Common::FLAGS,
        &[
            Flag::value(
                "b",
                "bundle",
                "DIR",
                "The directory with the configuration and the root filesystem [default: .]",
            ),
            Flag::switch("d", "detach", "Return when the container runs"),
            Flag::value("", "pid-file", "FILE", "Write the process id to this file"),
            Flag::value("", "console-socket", "SOCKET", "A listening Unix socket that gets the terminal"),
            Flag::switch("", "no-subreaper", "Don't adopt the container's orphans"),
            Flag::switch("", "no-pivot", "Without effect: criu finds out"),
            Flag::switch("", "tcp-close", "Make TCP connections closed"),
            Flag::value("", "lsm-profile", "TYPE:NAME", "Another profile of the security module"),
            Flag::value("", "lsm-mount-context", "CONTEXT", "Another context of mounts"),
        ],
    ];

    pub(super) fn read(reader: &mut Reader) -> Parsed<Self> {
        let mut restore = Self { bundle: ".".into(), ..Self::default() };
        while let Some(given) = reader.next()? {
            match given {
                "bundle" => restore.bundle = reader.path()?,
                "detach" => restore.detach = true,
                "pid-file" => restore.pid_file = Some(reader.path()?),
                "console-socket" => restore.console_socket = Some(reader.path()?),
                "no-subreaper" => restore.no_subreaper = true,
                "no-pivot" => restore.no_pivot = true,
                "tcp-close" => restore.tcp_close = true,
                "lsm-profile" => restore.lsm_profile = Some(reader.text()?),
                "lsm-mount-context" => restore.lsm_mount_context = Some(reader.text()?),
                "CONTAINER" => restore.name = Name::last(reader)?,
                flag => restore.common.take(flag, reader)?,
            }
        }
        Ok(restore)
    }
}

#[inline(never)]
pub(super) fn write(store: &Store, global: &Global, arguments: &Checkpoint) -> Result<u8> {
    let entry = store.find(&arguments.name.id)?;
    let wanted = Wanted {
        images: images(global, &arguments.common),
        leave_running: arguments.leave_running,
        pre_dump: arguments.pre_dump,
        link_remap: arguments.link_remap,
        skip_in_flight: arguments.tcp_skip_in_flight,
        parent: arguments.parent_path.clone(),
        page_server: arguments.page_server.clone(),
        status_fd: Some(arguments.status_fd).filter(|fd| *fd >= 0),
    };
    let lock = entry.lock()?;
    checkpoint(&entry, &lock, &wanted)?;
    Ok(0)
}

#[inline(never)]
pub(super) fn read(store: &Store, global: &Global, arguments: &Restore) -> Result<u8> {
    let id = &arguments.name.id;
    let options = Options {
        pid_file: arguments.pid_file.clone(),
        console_socket: arguments.console_socket.clone(),
        holds_terminal: !arguments.detach,
        manager: create::manager(global),
        ..Options::default()
    };
    let wanted = Anew {
        images: images(global, &arguments.common),
        tcp_close: arguments.tcp_close,
        lsm_profile: arguments.lsm_profile.clone(),
        lsm_mount_context: arguments.lsm_mount_context.clone(),
    };
    let bundle = bundle::open(&arguments.bundle, Path::new("config.json"))?.decide(id, false)?;
    bundle.warnings.iter().for_each(|warning| log::warn(warning));
    // What criu makes becomes its nearest reaper's child, which must be this process if it is to wait for it.
    let signals = (!arguments.detach).then(|| foreground::take_signals(true)).transpose()?;
    let made = restore(store, id, bundle, &options, &wanted)?;
    life::started(&made.entry, made.lock, &made.record, std::os::fd::AsFd::as_fd(&made.pidfd), None)?;
    let Some(signals) = signals else { return Ok(0) };
    let status = foreground::wait(&signals, &made.pidfd, made.terminal, None, made.record.pid);
    foreground::finish(&made.entry, &made.record, status)
}

fn images(global: &Global, common: &Common) -> Images {
    Images {
        criu: global.criu.clone(),
        directory: common.image_path.clone(),
        work: common.work_path.clone(),
        tcp_established: common.tcp_established,
        ext_unix_sk: common.ext_unix_sk,
        shell_job: common.shell_job,
        file_locks: common.file_locks,
        manage_cgroups: common.manage_cgroups_mode.clone(),
        // As criu calls it.
        empty_ns: common.empty_ns.iter().map(|_| "net".to_owned()).collect(),
        auto_dedup: common.auto_dedup,
        lazy_pages: common.lazy_pages,
        network_lock: common.network_lock.clone(),
    }
}
