//! `exec`: another process in a container.

use super::args::Exec;
use super::{foreground, log, protect};
use crate::container::Result;
use crate::container::exec::{Request, decide, exec};
use crate::container::store::Store;

#[inline(never)]
pub(super) fn run(store: &Store, arguments: &Exec) -> Result<u8> {
    let entry = store.find(&arguments.name.id)?;
    let request = request(arguments);
    let decided = decide(&entry, &request)?;
    decided.warnings.iter().for_each(|warning| log::warn(warning));
    protect::from(decided.in_user_namespace);
    // No mask: wherever the caller runs.
    let affinity = &decided.process.exec_affinity.initial;
    if !affinity.is_empty() {
        log::debug(|| format!("affinity: 0x{}", number(affinity)));
    }
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

/// A bit mask, the lowest bits first, as one hexadecimal number.
fn number(mask: &[u8]) -> String {
    let digits: String = mask.iter().rev().map(|byte| format!("{byte:02x}")).collect();
    digits.trim_start_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_one_number() {
        assert_eq!([number(&[3]), number(&[0, 1, 0]), number(&[0x0f, 0xa0])], ["3", "100", "a00f"]);
    }
}
