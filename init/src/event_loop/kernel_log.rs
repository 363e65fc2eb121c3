//! The kernel's warnings, and what is worse: from /dev/kmsg to a ring of their own, for the status port and the dashboard, and errors to
//! the console.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Supervisor;
use super::sources::Source;
use crate::clock::now_ms;
use crate::console::dashboard::Log;
use crate::logs::Piece;
use crate::status::protocol::{self, Answer, Line};
use crate::status::subscription::KERNEL;

/// Where they are read.
pub(super) const PATH: &str = "/dev/kmsg";
/// Records read in one turn of the loop.
const PER_TURN: usize = 64;
/// `KERN_WARNING`: a larger number is less urgent.
const WARNING: u32 = 4;
/// `KERN_ERR`: what the kernel prints itself after `quiet`, until we do.
const ERROR: u32 = 3;
/// As which it speaks on the console: no container can be called so.
const NAME: &str = "[kernel]";

impl Supervisor {
    /// Begins to read them. Not before the containers' first lines: there are hundreds of records from the boot.
    pub(super) fn read_kernel_log(&mut self) {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // Without it PID 1 works as well.
        let Ok(fd) = rustix::fs::open(&self.options.kmsg, flags, Mode::empty()) else { return };
        self.sources.add_readable(&fd, Source::KernelLog);
        self.kernel_log = Some(fd);
    }

    pub(super) fn take_kernel_log(&mut self) {
        for _ in 0..PER_TURN {
            let Some(fd) = &self.kernel_log else { return };
            match rustix::io::read(fd, &mut self.buffer[..]) {
                Ok(n) if n > 0 => {
                    // What the process before has read comes again.
                    let new = |record: &Record<'_>| record.sequence >= self.kernel_next;
                    let Some(Record { priority, sequence, time_ms, text }) =
                        self.buffer.get(..n).and_then(Record::parse).filter(new)
                    else {
                        continue;
                    };
                    let text = text.to_vec();
                    self.kernel_next = sequence.saturating_add(1);
                    self.common_dirty = true;
                    self.keep_kernel_line(&text, time_ms);
                    if priority <= ERROR && self.kernel_left.is_some_and(|since| time_ms >= since) {
                        self.console.container(NAME, Piece { text: &text, continues: false, unfinished: false });
                    }
                }
                // Records were overwritten before they were read; the next one is there.
                Err(Errno::PIPE) => self.doubt_data(now_ms()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                _ => {
                    self.stop_kernel_log();
                    return;
                }
            }
        }
    }

    fn stop_kernel_log(&mut self) {
        if let Some(fd) = self.kernel_log.take() {
            self.sources.remove(&fd);
        }
        self.doubt_data(now_ms());
    }

    fn keep_kernel_line(&mut self, text: &[u8], time_ms: u64) {
        self.journal.kernel(text, time_ms);
        self.stir_log(Log::Kernel);
        self.doubt_data(now_ms());
        if self.ports.watch(KERNEL) {
            let line =
                Line { time_ms, text: String::from_utf8_lossy(text).into_owned(), continues: false, earlier: None };
            self.ports.publish(KERNEL, &protocol::encode(None, Answer::Log { container: None, line }));
        }
    }
}

/// A record that is the kernel's own and urgent enough.
#[derive(Debug, PartialEq, Eq)]
struct Record<'a> {
    priority: u32,
    /// Those before it, since the machine began.
    sequence: u64,
    time_ms: u64,
    text: &'a [u8],
}

impl<'a> Record<'a> {
    /// `Documentation/ABI/testing/dev-kmsg`: `priority,sequence,microseconds,flags;text`, then a line for each of its properties.
    fn parse(record: &'a [u8]) -> Option<Self> {
        let at = record.iter().position(|byte| *byte == b';')?;
        let (head, text) = record.split_at_checked(at)?;
        let mut fields = std::str::from_utf8(head).ok()?.split(',');
        let priority: u32 = fields.next()?.parse().ok()?;
        let sequence: u64 = fields.next()?.parse().ok()?;
        let time: u64 = fields.next()?.parse().ok()?;
        let text = text.get(1..)?.split(|byte| *byte == b'\n').next()?;
        // Facility 0; what processes write there has another, PID 1's own records too.
        let wanted = priority <= WARNING && !text.is_empty();
        wanted.then_some(Self { priority, sequence, time_ms: time.checked_div(1000)?, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernels_own_warnings() {
        let record = b"3,412,2500123,-;blk_update_request: I/O error, dev vdb\n SUBSYSTEM=block\n DEVICE=+block:vdb\n";
        let text = &b"blk_update_request: I/O error, dev vdb"[..];
        assert_eq!(Record::parse(record), Some(Record { priority: 3, sequence: 412, time_ms: 2500, text }));
        let record = Record::parse(b"4,9,1000,-,caller=T1;x");
        assert_eq!(record, Some(Record { priority: 4, sequence: 9, time_ms: 1, text: b"x" }));
        for other in [
            "6,1,0,-;Linux version 6.12",
            "28,1,0,-;garboard: a warning of ours",
            "3,1,0,-;",
            "3,1;x",
            "",
            ";",
            "x,1,0,-;x",
        ] {
            assert_eq!(Record::parse(other.as_bytes()), None, "{other}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_record_or_none(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100)) {
            let _ = Record::parse(&bytes);
        }
    }
}
