//! From containers' pipes to rings and console, in bounded pieces, and on to the line.

use rustix::io::Errno;
use rustix::pipe::SpliceFlags;

use super::Supervisor;
use super::ports::log_line;
use super::sources::Source;
use crate::clock::{cpu_us, now_ms};
use crate::console::dashboard::Log;

/// An unfinished line is shown after so many milliseconds: a prompt, a progress bar.
const FLUSH_MS: u64 = 200;
/// Length of the window in which a container's output is measured, in milliseconds.
const WINDOW_MS: u64 = 100;
/// Output that is read in one window; more is thrown away unseen, by whole lines, and counted. 2.5 MiB a second is no log, and
/// costs PID 1 little.
const WINDOW_BYTES: u64 = 256 << 10;
/// Processor time that reading it may take in one window, in microseconds: a quarter of one processor. On a slow machine this
/// is reached first, and PID 1 would otherwise do nothing else but take lines apart.
const WINDOW_WORK_US: u64 = 25_000;
/// Reads from one container whose process has ended: a pipe holds 64 KiB, unless the container made it larger. The rest is counted.
const DRAIN_READS: usize = 8;

/// How much a container printed lately.
#[derive(Debug, Default)]
pub(super) struct Flood {
    since: u64,
    bytes: u64,
    work_us: u64,
}

impl Flood {
    /// Whether it prints too fast at `now`.
    fn too_fast(&mut self, now: u64) -> bool {
        if now.saturating_sub(self.since) >= WINDOW_MS {
            *self = Self { since: now, ..Self::default() };
        }
        self.bytes >= WINDOW_BYTES || self.work_us >= WINDOW_WORK_US
    }

    /// So many bytes were read, and that took so much work.
    fn count(&mut self, bytes: usize, work_us: u64) {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.work_us = self.work_us.saturating_add(work_us);
    }
}

impl Supervisor {
    /// Writes what the console takes; waits for room only while something is left.
    pub(super) fn flush_console(&mut self) {
        let left = self.console.flush();
        if left != self.console_waits
            && let Some(fd) = self.console.fd()
        {
            if left {
                self.sources.add_writable(fd, Source::Console);
            } else {
                self.sources.remove(fd);
            }
        }
        self.console_waits = left;
        if self.console.is_lost() && self.line_at.is_none() {
            self.lose_line();
        }
    }

    /// The last words: gives a reader a second to take them.
    pub(super) fn drain_console(&mut self) {
        for _ in 0..100 {
            if !self.console.flush() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Reads one piece of a container's output.
    pub(super) fn take_output(&mut self, index: usize) {
        if !self.read_output(index) {
            self.close_output(index);
        }
        self.stir_log(Log::Container(index));
    }

    /// Reads what an ended container left in its pipe.
    pub(super) fn drain_output(&mut self, index: usize) {
        for _ in 0..DRAIN_READS {
            if self.left_to_read(index) == 0 || !self.read_output(index) {
                break;
            }
        }
        self.rings.drop_bytes(index, self.left_to_read(index));
        self.flush_line(index, true);
    }

    fn left_to_read(&self, index: usize) -> u64 {
        let output = self.units.get(index).and_then(|u| u.output.as_ref());
        output.and_then(|pipe| rustix::io::ioctl_fionread(pipe).ok()).unwrap_or(0)
    }

    /// False: every writer has closed it.
    fn read_output(&mut self, index: usize) -> bool {
        let now = now_ms();
        let Some((unit, container)) = self.units.get_mut(index).zip(self.plan.containers.get(index)) else {
            return false;
        };
        let Some(output) = &unit.output else { return false };
        if unit.flood.too_fast(now) {
            let null = &self.null;
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            let megabyte = 1 << 20;
            return match rustix::pipe::splice(output, None, null, None, megabyte, flags) {
                Ok(0) => false,
                Ok(n) => {
                    let lost = n.saturating_add(unit.lines.lose());
                    unit.flush_at = None;
                    self.rings.drop_bytes(index, u64::try_from(lost).unwrap_or(0));
                    true
                }
                Err(e) => e == Errno::AGAIN || e == Errno::INTR,
            };
        }
        let begun = cpu_us();
        let n = match rustix::io::read(output, &mut self.buffer[..]) {
            Ok(0) => return false,
            Ok(n) => n,
            Err(e) => return e == Errno::AGAIN || e == Errno::INTR,
        };
        let (rings, console, shown) = (&mut self.rings, &mut self.console, self.plan.console.logs);
        let log = u32::try_from(index).unwrap_or(u32::MAX);
        let (watched, ports) = (self.ports.watch(log), &mut self.ports);
        let mut begun_anew = unit.flush_at.is_none();
        let skipped = unit.lines.feed(self.buffer.get(..n).unwrap_or_default(), |piece| {
            begun_anew = true;
            rings.push(piece, now);
            if shown {
                console.container(&container.name, piece);
            }
            if watched {
                ports.publish(log, &log_line(&container.name, piece, now));
            }
        });
        rings.commit(index);
        if skipped > 0 {
            rings.drop_bytes(index, u64::try_from(skipped).unwrap_or(0));
        }
        if container.kept_log.is_some() {
            self.keeper.look();
        }
        unit.flood.count(n, cpu_us().saturating_sub(begun));
        // A line that keeps growing is shown none the later.
        let at = unit.flush_at.filter(|_| !begun_anew).unwrap_or(now.saturating_add(FLUSH_MS));
        unit.flush_at = unit.lines.pending().then_some(at);
        if let Some(at) = unit.flush_at {
            self.flush_at = Some(self.flush_at.map_or(at, |other| other.min(at)));
        }
        if !std::mem::replace(&mut unit.heard, true) {
            self.trace.mark(format!("first output of {}", container.name));
            self.hasten_work(0);
        }
        true
    }

    fn close_output(&mut self, index: usize) {
        self.flush_line(index, true);
        if let Some(output) = self.units.get_mut(index).and_then(|u| u.output.take()) {
            self.sources.remove(&output);
        }
        self.dirty.push(index);
    }

    /// Shows unfinished lines that have waited long enough.
    pub(super) fn flush_partial_lines(&mut self, now: u64) {
        if self.flush_at.is_none_or(|at| at > now) {
            return;
        }
        for index in 0..self.units.len() {
            if self.units.get(index).and_then(|u| u.flush_at).is_some_and(|at| at <= now) {
                self.flush_line(index, false);
            }
        }
        self.flush_at = self.units.iter().filter_map(|u| u.flush_at).min();
    }

    fn flush_line(&mut self, index: usize, ended: bool) {
        let now = now_ms();
        let Some((unit, container)) = self.units.get_mut(index).zip(self.plan.containers.get(index)) else { return };
        let (rings, console, shown) = (&mut self.rings, &mut self.console, self.plan.console.logs);
        let log = u32::try_from(index).unwrap_or(u32::MAX);
        let (watched, ports) = (self.ports.watch(log), &mut self.ports);
        unit.flush_at = None;
        let mut any = false;
        unit.lines.flush(ended, |piece| {
            any = true;
            rings.push(piece, now);
            if shown {
                console.container(&container.name, piece);
            }
            if watched {
                ports.publish(log, &log_line(&container.name, piece, now));
            }
        });
        if any {
            rings.commit(index);
            if container.kept_log.is_some() {
                self.keeper.look();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_forgiven_in_the_next_window() {
        let mut flood = Flood::default();
        assert!(!flood.too_fast(1000));
        flood.count(256 << 10, 10);
        assert!(flood.too_fast(1000 + WINDOW_MS - 1));
        assert!(!flood.too_fast(1000 + WINDOW_MS));
    }

    #[test]
    fn on_a_slow_machine_the_work_it_makes_is_the_measure() {
        let mut flood = Flood::default();
        assert!(!flood.too_fast(1000));
        flood.count(16 << 10, WINDOW_WORK_US - 1);
        assert!(!flood.too_fast(1001));
        flood.count(1, 1);
        assert!(flood.too_fast(1002));
    }
}
