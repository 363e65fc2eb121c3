//! All open ports: who is at their other ends, what they may ask, and how much work they may make.

use std::collections::BTreeMap;

use super::Port;
use super::protocol::Question;
use super::subscription::Subscription;

/// Connections over vsock(7).
const MOST_VSOCK: usize = 8;
/// Connections of one container.
const MOST_OF_CONTAINER: usize = 4;
/// Length of the window in which work is measured, in milliseconds.
const WINDOW_MS: u64 = 100;
/// Processor time in one window that answers to those who may only read take, in microseconds; each container has a share of its
/// own. Even a container that does nothing but ask leaves PID 1 nineteen parts in twenty.
const WINDOW_WORK_US: u64 = 5_000;

/// What the other end may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rights {
    /// A container with this index: how everything is, what happened, its own log.
    Container(usize),
    /// Everything that changes nothing.
    Read,
    /// Everything.
    Full,
}

impl Rights {
    /// Why it may not ask that; `None`: it may. Logs are looked at one by one, see [`Rights::may_read`].
    pub fn refuse(self, question: &Question) -> Option<&'static str> {
        match (self, question) {
            (Self::Full, _) => None,
            (_, Question::Poweroff | Question::Reboot) => Some("this port may only read; ask on the machine's own"),
            (Self::Container(_), Question::Trace) => Some("a container may not ask for the trace"),
            _ => None,
        }
    }

    /// Whether it may read this log: a container's index, or the kernel's number.
    pub fn may_read(self, log: u32) -> bool {
        match self {
            Self::Container(own) => u32::try_from(own) == Ok(log),
            Self::Read | Self::Full => true,
        }
    }
}

/// One open port.
#[derive(Debug)]
pub struct Entry {
    /// Its stream.
    pub port: Port,
    /// What may be asked on it.
    pub rights: Rights,
    /// It is the virtio port, which stays when its other end goes.
    pub lasting: bool,
    /// What it is told.
    pub subscription: Subscription,
    /// Number of the last event that was wholly written: from there the next incarnation of PID 1 goes on.
    pub told: Option<u64>,
    /// It may have more to read.
    pub again: bool,
    /// The answer to what was asked last is still being found, under this ticket.
    pub waits: Option<u32>,
    /// When it was last asked something, in steps of the table's own clock.
    used: u64,
}

/// Whether one more port can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// There is room for it.
    Free,
    /// In place of this one.
    InPlaceOf(u32),
    /// Those that are there may do more, and stay.
    None,
}

/// How much work one kind of asker has made lately.
#[derive(Debug, Default)]
struct Work {
    since: u64,
    us: u64,
}

/// The table.
#[derive(Debug)]
pub struct Ports {
    entries: BTreeMap<u32, Entry>,
    next: u32,
    clock: u64,
    work: BTreeMap<Rights, Work>,
    /// Work is measured. Without it, only for tests, whoever asks most has most of PID 1.
    pub measured: bool,
}

impl Default for Ports {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), next: 0, clock: 0, work: BTreeMap::new(), measured: true }
    }
}

impl Ports {
    /// Adds a port, and says under which number.
    pub fn add(&mut self, port: Port, rights: Rights, lasting: bool) -> u32 {
        let number = self.next;
        // Never used twice while it is open: it comes back after four thousand million.
        self.next = self.next.wrapping_add(1);
        self.clock = self.clock.saturating_add(1);
        let entry = Entry {
            port,
            rights,
            lasting,
            subscription: Subscription::default(),
            told: None,
            again: true,
            waits: None,
            used: self.clock,
        };
        self.entries.insert(number, entry);
        number
    }

    /// Whether there is room for a port with these rights. If need be the longest unused has to go, one without a subscription before
    /// one with.
    pub fn room_for(&self, rights: Rights) -> Room {
        let container = matches!(rights, Rights::Container(_));
        let kin = |entry: &Entry| match entry.rights {
            own @ Rights::Container(_) => own == rights,
            Rights::Read | Rights::Full => !container && !entry.lasting,
        };
        let most = if container { MOST_OF_CONTAINER } else { MOST_VSOCK };
        if self.entries.values().filter(|entry| kin(entry)).count() < most {
            return Room::Free;
        }
        let candidates = self.entries.iter().filter(|(_, entry)| kin(entry) && entry.rights <= rights);
        let oldest = candidates.min_by_key(|(_, entry)| (entry.rights, entry.subscription.any(), entry.used));
        oldest.map_or(Room::None, |(number, _)| Room::InPlaceOf(*number))
    }

    /// Takes a port out, to be served and put back.
    pub fn take(&mut self, number: u32) -> Option<Entry> {
        self.entries.remove(&number)
    }

    /// Puts a port back.
    pub fn put(&mut self, number: u32, mut entry: Entry) {
        self.clock = self.clock.saturating_add(1);
        entry.used = self.clock;
        self.entries.insert(number, entry);
    }

    /// One port.
    pub fn get_mut(&mut self, number: u32) -> Option<&mut Entry> {
        self.entries.get_mut(&number)
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&u32, &mut Entry)> {
        self.entries.iter_mut()
    }

    /// The virtio port.
    pub fn lasting(&self) -> Option<&Entry> {
        self.entries.values().find(|entry| entry.lasting)
    }

    /// Somebody wants the lines of this log.
    pub fn watch(&self, log: u32) -> bool {
        self.entries.values().any(|entry| entry.subscription.wants(log))
    }

    /// Tells a line of a log to those who want it.
    pub fn publish(&mut self, log: u32, line: &[u8]) {
        for entry in self.entries.values_mut().filter(|entry| entry.subscription.wants(log)) {
            entry.port.push(line);
        }
    }

    /// Whether who has these rights has made as much work as it may, until the window ends.
    pub fn throttled(&mut self, rights: Rights, now: u64) -> bool {
        if rights == Rights::Full || !self.measured {
            return false;
        }
        let work = self.work.entry(rights).or_default();
        if now.saturating_sub(work.since) >= WINDOW_MS {
            *work = Work { since: now, us: 0 };
        }
        work.us >= WINDOW_WORK_US
    }

    /// Notes work that was done for it.
    pub fn count(&mut self, rights: Rights, us: u64) {
        let work = self.work.entry(rights).or_default();
        work.us = work.us.saturating_add(us);
    }

    /// Notes so much that it may make no more work in the present window.
    pub fn exhaust(&mut self, rights: Rights) {
        self.count(rights, WINDOW_WORK_US);
    }

    /// Ports that may have more to read and may be read from now.
    pub fn again(&mut self, now: u64) -> Vec<u32> {
        let waiting: Vec<(u32, Rights)> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.again)
            .map(|(number, entry)| (*number, entry.rights))
            .collect();
        waiting.into_iter().filter(|(_, rights)| !self.throttled(*rights, now)).map(|(number, _)| number).collect()
    }

    /// When a window ends, if somebody waits for that.
    pub fn due(&self, paused: &[Rights]) -> Option<u64> {
        let waiting = self.entries.values().filter(|entry| entry.again).map(|entry| entry.rights);
        let ends = waiting.chain(paused.iter().copied()).filter_map(|rights| {
            let work = self.work.get(&rights).filter(|work| work.us >= WINDOW_WORK_US)?;
            Some(work.since.saturating_add(WINDOW_MS))
        });
        ends.min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port() -> Port {
        Port::on(std::os::unix::net::UnixStream::pair().unwrap().0.into())
    }

    #[test]
    fn who_may_ask_what() {
        let logs = Question::Logs { container: None, tail: None, follow: false, previous: false };
        for (rights, question, may) in [
            (Rights::Full, Question::Poweroff, true),
            (Rights::Read, Question::Reboot, false),
            (Rights::Read, Question::Trace, true),
            (Rights::Container(3), Question::Poweroff, false),
            (Rights::Container(3), Question::Reboot, false),
            (Rights::Container(3), Question::Trace, false),
            (Rights::Container(3), Question::Status, true),
            (Rights::Container(3), Question::Metrics, true),
            (Rights::Container(3), logs, true),
        ] {
            assert_eq!(rights.refuse(&question).is_none(), may, "{rights:?} {question:?}");
        }
        assert!(Rights::Container(3).may_read(3) && !Rights::Container(3).may_read(4));
        assert!(!Rights::Container(3).may_read(super::super::subscription::KERNEL));
    }

    #[test]
    fn the_oldest_makes_room_but_not_for_less() {
        let mut ports = Ports::default();
        let lasting = ports.add(port(), Rights::Full, true);
        let all: Vec<u32> = (0..MOST_VSOCK).map(|_| ports.add(port(), Rights::Read, false)).collect();
        // A container's are its own business.
        assert_eq!(ports.room_for(Rights::Container(1)), Room::Free);
        let entry = ports.take(all[0]).unwrap();
        ports.put(all[0], entry);
        assert_eq!(ports.room_for(Rights::Read), Room::InPlaceOf(all[1]));
        ports.get_mut(all[1]).unwrap().subscription.all_logs = true;
        assert_eq!(ports.room_for(Rights::Full), Room::InPlaceOf(all[2]));
        for number in &all {
            ports.get_mut(*number).unwrap().rights = Rights::Full;
        }
        assert_eq!(ports.room_for(Rights::Read), Room::None);
        assert_eq!(ports.room_for(Rights::Full), Room::InPlaceOf(all[2]));
        assert!(ports.take(lasting).is_some());
    }

    #[test]
    fn who_asks_too_much_waits_for_the_next_window() {
        let mut ports = Ports::default();
        let number = ports.add(port(), Rights::Container(0), false);
        ports.add(port(), Rights::Container(1), false);
        ports.count(Rights::Container(0), WINDOW_WORK_US);
        let now = 5_000;
        assert!(!ports.throttled(Rights::Container(0), now), "a new window");
        ports.count(Rights::Container(0), WINDOW_WORK_US);
        assert_eq!(ports.again(now + 1).len(), 1, "the other one is not concerned");
        assert_eq!(ports.due(&[]), Some(now + WINDOW_MS));
        assert!(ports.again(now + WINDOW_MS).contains(&number));
        ports.count(Rights::Full, 1 << 40);
        assert!(!ports.throttled(Rights::Full, now));
    }
}
