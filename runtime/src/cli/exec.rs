//! `exec`: another process in a container.

use super::args::Exec;
use super::{foreground, log, protect};
use crate::container::Result;
use crate::container::exec::{Request, decide, exec};
use crate::container::store::Store;

pub(super) fn run(store: &Store, arguments: &Exec) -> Result<u8> {
    let entry = store.find(&arguments.name.id)?;
    let request = request(arguments);
    let decided = decide(&entry, &request)?;
    decided.warnings.iter().for_each(|warning| log::warn(warning));
    protect::from(decided.in_user_namespace);
    if arguments.detach {
        exec(&entry, &decided, &request)?;
        return Ok(0);
    }
    // Before the process is there, so that no signal is lost.
    let signals = foreground::take_signals(false)?;
    let entered = exec(&entry, &decided, &request)?;
    foreground::wait(&signals, &entered.pidfd, entered.terminal, None, entered.pid)
}

fn request(arguments: &Exec) -> Request {
    Request {
        process: arguments.process.clone(),
        args: arguments.command.clone(),
        cwd: arguments.cwd.clone(),
        env: arguments.env.clone(),
        user: arguments.user.clone(),
        additional_gids: arguments.additional_gids.clone(),
        caps: arguments.cap.clone(),
        tty: arguments.tty,
        no_new_privs: arguments.no_new_privs,
        apparmor: arguments.apparmor.clone(),
        process_label: arguments.process_label.clone(),
        console_socket: arguments.console_socket.clone(),
        holds_terminal: !arguments.detach,
        pid_file: arguments.pid_file.clone(),
        pidfd_socket: arguments.pidfd_socket.clone(),
        preserve_fds: arguments.preserve_fds,
        cgroup: arguments.cgroup.clone(),
        ignore_paused: arguments.ignore_paused,
    }
}
