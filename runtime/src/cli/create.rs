//! `create`: everything but the program.

use super::args::{CgroupManager, Create, Global, Making};
use super::{log, protect};
use crate::compile::seccomp::FLAG_NEW_LISTENER;
use crate::container::cgroup::Manager;
use crate::container::create::{Made, Options, create};
use crate::container::store::Store;
use crate::container::{Result, bundle};
use crate::start::Beside;

#[inline(never)]
pub(super) fn run(store: &Store, global: &Global, arguments: &Create) -> Result<u8> {
    let options = Options { gated: true, ..options(global, &arguments.making) };
    make(store, &arguments.name.id, &arguments.making, &options)?;
    Ok(0)
}

/// Loads the bundle, makes the container and reports what was left out.
pub(super) fn make(store: &Store, id: &str, making: &Making, options: &Options) -> Result<Made> {
    let opened = bundle::open(&making.bundle, &making.config)?;
    let outline = opened.outline()?;
    protect::from(outline.in_user_namespace());
    // A scope that systemd makes must be there before the child leaves the machine's cgroup namespace.
    let beside = (options.manager != Manager::Systemd).then(|| Beside::begin(&outline)).transpose()?;
    let bundle = opened.decide(id, options.gated)?;
    bundle.warnings.iter().for_each(|warning| log::warn(warning));
    if let Some(seccomp) = &bundle.launch.seccomp {
        log::debug(|| format!("seccomp filter flags: {}", seccomp.flags & !FLAG_NEW_LISTENER));
    }
    let made = create(store, id, bundle, beside, options)?;
    made.warnings.iter().for_each(|warning| log::warn(warning));
    log::debug(|| format!("container {id} is process {}", made.record.pid));
    Ok(made)
}

/// What the flags say.
pub(super) fn options(global: &Global, making: &Making) -> Options {
    Options {
        gated: false,
        console_socket: making.console_socket.clone(),
        holds_terminal: false,
        pid_file: making.pid_file.clone(),
        pidfd_socket: making.pidfd_socket.clone(),
        preserve_fds: making.preserve_fds,
        no_pivot: making.no_pivot,
        no_new_keyring: making.no_new_keyring,
        manager: manager(global),
    }
}

/// Who makes cgroups.
pub(super) fn manager(global: &Global) -> Manager {
    match global.cgroup_manager {
        Some(CgroupManager::Disabled) => Manager::Disabled,
        Some(CgroupManager::Systemd) => Manager::Systemd,
        None if global.systemd_cgroup => Manager::Systemd,
        Some(CgroupManager::Cgroupfs) | None => Manager::Cgroupfs,
    }
}
