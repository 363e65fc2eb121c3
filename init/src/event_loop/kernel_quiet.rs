//! The kernel prints as a container may have it: the name of a process that it kills for want of memory is that process's own, whatever
//! bytes it is of. And it waits for the line, a second and more for each of its own where nobody reads. So from the first
//! container on it prints emergencies only, and PID 1 its errors, as it prints what containers say. An oops and a panic are printed in
//! any case: the kernel itself raises the level for them (`console_verbose` in kernel/panic.c).
//!
//! Who asks for more than `quiet` leaves, on the command line or by a sysctl, has it; but not over the dashboard, which
//! has a page for what the kernel warns of.

use std::path::Path;

use super::Supervisor;
use crate::clock::now_ms;

/// `/proc/sys/kernel/printk`: the level of the console, then three that nobody wants to change here.
pub(super) const LEVEL: &str = "/proc/sys/kernel/printk";
/// Messages below it are printed: `KERN_EMERG` and `KERN_ALERT`.
const QUIET: u32 = 2;
/// What `quiet` leaves (`CONSOLE_LOGLEVEL_QUIET`): errors.
const ERRORS: u32 = 4;

impl Supervisor {
    /// Has the kernel leave its errors to us from now on.
    pub(super) fn speak_for_kernel(&mut self) {
        if read(&self.options.printk) != Some(ERRORS) {
            return;
        }
        match write(&self.options.printk, QUIET) {
            Ok(()) => self.kernel_left = Some(now_ms()),
            Err(e) => log::warn!("lower the level of the kernel's console: {e}"),
        }
    }

    /// Has the kernel print emergencies only, until [`Supervisor::let_kernel_speak`].
    pub(super) fn quiet_kernel(&mut self) {
        let Some(level) = read(&self.options.printk).filter(|level| *level > QUIET) else { return };
        self.kernel_level = Some(level);
        // The next incarnation has to know it before it is so.
        self.common_dirty = true;
        self.persist();
        if let Err(e) = write(&self.options.printk, QUIET) {
            log::warn!("lower the level of the kernel's console: {e}");
        }
    }

    /// Has the kernel print what it printed before, unless somebody else has had a say in that meanwhile: an oops, for one.
    pub(super) fn let_kernel_speak(&mut self) {
        let Some(level) = self.kernel_level.take() else { return };
        self.common_dirty = true;
        if read(&self.options.printk) != Some(QUIET) {
            return;
        }
        if let Err(e) = write(&self.options.printk, level) {
            log::warn!("raise the level of the kernel's console: {e}");
        }
    }
}

fn read(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
}

/// Of the four numbers the kernel sets as many as are written.
fn write(path: &Path, level: u32) -> std::io::Result<()> {
    std::fs::write(path, format!("{level}\n"))
}
