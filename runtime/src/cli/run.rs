//! `run`: create and start in one, and unless detached, wait and delete.

use std::os::fd::AsFd;

use super::args::{Global, Run};
use super::{create, foreground};
use crate::container::create::Options;
use crate::container::store::Store;
use crate::container::{Result, life};

#[inline(never)]
pub(super) fn run(store: &Store, global: &Global, arguments: &Run) -> Result<u8> {
    let options = Options { holds_terminal: !arguments.detach, ..create::options(global, &arguments.making) };
    if arguments.detach {
        let made = create::make(store, &arguments.name.id, &arguments.making, &options)?;
        life::started(&made.entry, made.lock, &made.record, made.pidfd.as_fd(), made.notify.as_ref())?;
        return Ok(0);
    }
    // Before the container is there, so that no signal is lost.
    let signals = foreground::take_signals(!arguments.making.no_subreaper)?;
    let made = create::make(store, &arguments.name.id, &arguments.making, &options)?;
    life::started(&made.entry, made.lock, &made.record, made.pidfd.as_fd(), None)?;
    let status = foreground::wait(&signals, &made.pidfd, made.terminal, made.notify, made.record.pid);
    if arguments.keep { status } else { foreground::finish(&made.entry, &made.record, status) }
}
