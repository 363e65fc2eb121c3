//! What the loop waits for.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

/// Who an event is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The signalfd.
    Signals,
    /// The timerfd.
    Timer,
    /// The console has room again.
    Console,
    /// A status port, by its number.
    Port(u32),
    /// A socket on which status ports are opened, by its number.
    Listener(u32),
    /// The kernel's log.
    KernelLog,
    /// A device came or changed.
    Uevents,
    /// A container's output.
    Output(usize),
    /// A container's report pipe.
    Report(usize),
    /// Keys at the console.
    Keys,
    /// A worker's output; by process id.
    Worker(i32),
    /// What a container says of itself.
    Notify(usize),
    /// The memory of containers' cgroups.
    Memory,
}

impl Source {
    /// Somebody may ask something there.
    pub(super) fn asks(self) -> bool {
        matches!(self, Self::Port(_) | Self::Listener(_))
    }

    fn encode(self) -> u64 {
        let (kind, number) = match self {
            Self::Signals => (0, 0),
            Self::Timer => (1, 0),
            Self::Console => (2, 0),
            Self::Port(number) => (3, number),
            Self::Listener(number) => (8, number),
            Self::KernelLog => (9, 0),
            Self::Uevents => (4, 0),
            Self::Output(index) => (5, u32::try_from(index).unwrap_or(u32::MAX)),
            Self::Report(index) => (6, u32::try_from(index).unwrap_or(u32::MAX)),
            Self::Worker(pid) => (7, pid.unsigned_abs()),
            Self::Notify(index) => (10, u32::try_from(index).unwrap_or(u32::MAX)),
            Self::Memory => (11, 0),
            Self::Keys => (15, 0),
        };
        (kind << 32) | u64::from(number)
    }

    fn decode(data: u64) -> Option<Self> {
        let number = u32::try_from(data & u64::from(u32::MAX)).ok()?;
        let index = usize::try_from(number).ok()?;
        Some(match data >> 32 {
            0 => Self::Signals,
            1 => Self::Timer,
            2 => Self::Console,
            3 => Self::Port(number),
            8 => Self::Listener(number),
            9 => Self::KernelLog,
            4 => Self::Uevents,
            5 => Self::Output(index),
            6 => Self::Report(index),
            7 => Self::Worker(i32::try_from(number).ok()?),
            10 => Self::Notify(index),
            11 => Self::Memory,
            15 => Self::Keys,
            _ => return None,
        })
    }
}

/// An event: who it is for, and whether the other side hung up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub(super) source: Source,
    pub(super) hung_up: bool,
    /// It neither reads nor writes any more.
    pub(super) gone: bool,
    /// Nor can either be tried: so says a virtio port whose device was unplugged (`port_fops_poll` in the kernel's
    /// `drivers/char/virtio_console.c`). One that merely has nobody at its other end can be read to its end.
    pub(super) unplugged: bool,
}

/// The epoll and its timer.
#[derive(Debug)]
pub(super) struct Sources {
    epoll: OwnedFd,
    timer: OwnedFd,
    armed: Option<u64>,
}

impl Sources {
    pub(super) fn new() -> std::io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Boottime, flags)?;
        let sources = Self { epoll, timer, armed: None };
        sources.add(&sources.timer, Source::Timer, EventFlags::IN);
        Ok(sources)
    }

    /// Waits for `fd` to become readable. A descriptor that can't be waited for (a regular file) is never ready.
    pub(super) fn add_readable(&self, fd: impl AsFd, source: Source) {
        self.add(fd, source, EventFlags::IN);
    }

    /// Waits for the other end of `fd` to be closed.
    pub(super) fn add_hang_up(&self, fd: impl AsFd, source: Source) {
        self.add(fd, source, EventFlags::empty());
    }

    /// Waits for `fd` to become writable, until [`Sources::remove`].
    pub(super) fn add_writable(&self, fd: impl AsFd, source: Source) {
        self.add(fd, source, EventFlags::OUT);
    }

    /// Tells of every change of `fd` once: a virtio port without a reader is hung up at every look.
    pub(super) fn add_edges(&self, fd: impl AsFd, source: Source) {
        self.add(fd, source, EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET);
    }

    fn add(&self, fd: impl AsFd, source: Source, flags: EventFlags) {
        let _ = epoll::add(&self.epoll, fd, EventData::new_u64(source.encode()), flags);
    }

    pub(super) fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Sets the timer to a time in milliseconds since boot; `None`: off.
    pub(super) fn arm(&mut self, deadline: Option<u64>) {
        if self.armed == deadline {
            return;
        }
        self.armed = deadline;
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // An absolute time of 0 would switch it off.
        let value = deadline.map_or(zero, |ms| {
            let ms = ms.max(1);
            let seconds = ms.checked_div(1000).and_then(|s| i64::try_from(s).ok()).unwrap_or(i64::MAX);
            let nanos = ms.checked_rem(1000).unwrap_or(0).saturating_mul(1_000_000);
            Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanos).unwrap_or(0) }
        });
        let setting = Itimerspec { it_interval: zero, it_value: value };
        let _ = rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &setting);
    }

    /// The timer went off.
    pub(super) fn disarm(&mut self) {
        let _ = rustix::io::read(&self.timer, &mut [0_u8; 8]);
        self.armed = None;
    }

    /// Waits for something to happen; with `now`, only looks.
    pub(super) fn wait(&self, now: bool) -> Vec<Ready> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 64];
        // Interrupted by a signal that isn't in the signalfd: as if nothing had happened.
        let count = epoll::wait(&self.epoll, &mut events, now.then_some(&zero)).unwrap_or(0);
        // With the word of what is launched, how the benchmark sees what a wake-up takes.
        log::trace!("woken");
        let ready = |event: &Event| {
            let flags = event.flags;
            let hung_up = flags.intersects(EventFlags::HUP | EventFlags::RDHUP);
            let gone = flags.intersects(EventFlags::HUP | EventFlags::ERR);
            let unplugged = flags.contains(EventFlags::HUP) && !flags.intersects(EventFlags::IN | EventFlags::OUT);
            Some(Ready { source: Source::decode(event.data.u64())?, hung_up, gone, unplugged })
        };
        events.iter().take(count).filter_map(ready).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_their_number() {
        let all = [Source::Signals, Source::Timer, Source::Console, Source::KernelLog, Source::Uevents, Source::Keys];
        let more = [
            Source::Output(0),
            Source::Output(4_000_000),
            Source::Report(7),
            Source::Worker(4_194_304),
            Source::Notify(9),
            Source::Memory,
        ];
        let ports = [Source::Port(0), Source::Port(u32::MAX), Source::Listener(3), Source::Listener(u32::MAX)];
        for source in all.into_iter().chain(more).chain(ports) {
            assert_eq!(Source::decode(source.encode()), Some(source));
        }
        assert_eq!(Source::decode(u64::MAX), None);
    }

    #[test]
    fn a_hang_up_is_waited_for_whatever_there_is_to_read() {
        let sources = Sources::new().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        sources.add_hang_up(&reader, Source::Report(3));
        rustix::io::write(&writer, b"x").unwrap();
        assert!(sources.wait(true).is_empty());
        drop(writer);
        assert_eq!(sources.wait(true)[0].source, Source::Report(3));
    }

    #[test]
    fn the_timer_goes_off_at_its_time_and_once() {
        let mut sources = Sources::new().unwrap();
        assert!(sources.wait(true).is_empty());
        sources.arm(Some(crate::clock::now_ms() + 30));
        assert_eq!(sources.wait(false)[0].source, Source::Timer);
        sources.disarm();
        assert!(sources.wait(true).is_empty());
        sources.arm(Some(0));
        assert_eq!(sources.wait(false).len(), 1, "a time in the past is now");
        sources.arm(None);
        assert!(sources.wait(true).is_empty());
    }
}
