//! All open ports: who is at their other ends, what they may ask, and how much work they may make.

use std::collections::BTreeMap;

use super::Port;
use super::meter::Meter;
use super::protocol::{self, Answer, Question};
use super::subscription::{KERNEL, Subscription};
use crate::clock::cpu_us;
use crate::events::Event;
use crate::last_words::Previous;

/// Connections over vsock(7).
const MOST_VSOCK: usize = 8;
/// Connections of one container.
const MOST_OF_CONTAINER: usize = 4;
/// A connection is closed when for so many milliseconds nothing of a reply was taken: PID 1 would have it for ever.
const STALL_MS: u64 = 10_000;
/// Bytes of replies that wait for those with the same rights, who may only read, before they are answered again: a status may be long, and have
/// as many askers as there are connections.
const MOST_OWED: usize = 256 << 10;
/// The same for all who may only read.
const MOST_OWED_IN_ALL: usize = 16 << 20;
/// Events told to one port in one turn.
const EVENTS_PER_TURN: usize = 32;

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

    /// What it may know of the boot before: who may not ask for the kernel's log gets no lines of an earlier one either.
    pub fn previous(self, mut previous: Previous) -> Previous {
        if !self.may_read(KERNEL) {
            previous.kernel.clear();
        }
        previous
    }

    /// Bytes that the lines or events of a reply to it take at most.
    pub fn room(self) -> usize {
        match self {
            Self::Full => usize::MAX,
            Self::Read | Self::Container(_) => protocol::MOST_TO_READERS,
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

impl Entry {
    /// When it has taken nothing of a reply for too long. The virtio port stays whatever its other end does.
    fn stalls_at(&self) -> Option<u64> {
        self.port.stuck_since().filter(|_| !self.lasting).map(|since| since.saturating_add(STALL_MS))
    }

    /// It reads what it is told, and isn't yet told of events up to `newest`.
    fn reads_events(&self, newest: u64) -> bool {
        self.port.is_idle() && self.subscription.events.is_some_and(|told| told < newest)
    }
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

/// What waits for those who may only read.
#[derive(Debug, Default)]
pub struct Owed {
    by_rights: BTreeMap<Rights, usize>,
    in_all: usize,
}

impl Owed {
    /// Whether who has these rights has to take some of it first.
    pub fn too_much(&self, rights: Rights) -> bool {
        let own = self.by_rights.get(&rights).copied().unwrap_or(0);
        rights != Rights::Full && (own >= MOST_OWED || self.in_all >= MOST_OWED_IN_ALL)
    }
}

/// The table.
#[derive(Debug, Default)]
pub struct Ports {
    entries: BTreeMap<u32, Entry>,
    next: u32,
    clock: u64,
    /// Who of those with the same rights was first the last time that some waited.
    first: BTreeMap<Rights, u32>,
    /// What the work is that each makes.
    pub meter: Meter,
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

    /// Tells subscribers of events what there is room for, as `after` has them: those after a number, so many at most. `newest` is the
    /// number of the newest; if there are none up to that, they could not be kept, and nobody waits for them. For one without room nothing is looked up. It counts as work of theirs, but doesn't wait until they have made
    /// little: others with the same rights, who ask again and again, would have them told nothing for ever.
    pub fn tell_events(&mut self, newest: u64, mut after: impl FnMut(u64, usize) -> Vec<Event>) {
        for entry in self.entries.values_mut() {
            let count = entry.port.room_for_events().min(EVENTS_PER_TURN);
            let Some(told) = entry.subscription.events.filter(|told| *told < newest && count > 0) else { continue };
            let begun = cpu_us();
            let events = after(told, count);
            if events.is_empty() {
                entry.subscription.events = Some(newest);
            }
            for event in events {
                entry.port.push_event(&protocol::encode(None, Answer::Event { event: &event }));
                entry.subscription.events = Some(event.number);
            }
            self.meter.count(entry.rights, cpu_us().saturating_sub(begun));
        }
    }

    /// Whether somebody could be told of events up to `newest` at once.
    pub fn events_wait(&self, newest: u64) -> bool {
        self.entries.values().any(|entry| entry.reads_events(newest))
    }

    /// What waits for those who may only read.
    pub fn owed(&self) -> Owed {
        let mut owed = Owed::default();
        for entry in self.entries.values().filter(|entry| entry.rights != Rights::Full && entry.port.busy()) {
            let bytes = entry.port.owed();
            let own = owed.by_rights.entry(entry.rights).or_default();
            *own = own.saturating_add(bytes);
            owed.in_all = owed.in_all.saturating_add(bytes);
        }
        owed
    }

    /// Whether there is a port that may have more to read and may be read from now.
    pub fn waits(&mut self, now: u64) -> bool {
        let owed = self.owed();
        let Self { entries, meter, .. } = self;
        // The meter first: what it has been asked is not due any more.
        let may = |rights| !meter.throttled(rights, now) && !owed.too_much(rights);
        entries.values().filter(|entry| entry.again).map(|entry| entry.rights).any(may)
    }

    /// These ports, in the order in which they are to be served: of those with the same rights another one is the first each time.
    pub fn again(&mut self, now: u64) -> Vec<u32> {
        let mut waiting: BTreeMap<Rights, Vec<u32>> = BTreeMap::new();
        for (number, entry) in self.entries.iter().filter(|(_, entry)| entry.again) {
            waiting.entry(entry.rights).or_default().push(*number);
        }
        let mut all = Vec::new();
        let owed = self.owed();
        for (rights, mut numbers) in waiting {
            if self.meter.throttled(rights, now) || owed.too_much(rights) {
                continue;
            }
            // The first may take all that there is for them. The next time it is another.
            let first = self.first.get(&rights).copied();
            let after = numbers.iter().position(|number| first.is_some_and(|first| *number > first)).unwrap_or(0);
            numbers.rotate_left(after);
            self.first.extend(numbers.first().map(|number| (rights, *number)));
            all.extend(numbers);
        }
        all
    }

    /// When somebody who has made too much work may go on: with requests, or with those of listeners that are `paused`; or one that takes
    /// nothing of its reply is to be closed.
    pub fn due(&self, paused: impl Iterator<Item = Rights>) -> Option<u64> {
        let waiting = self.entries.values().filter(|entry| entry.again);
        let rested = self.meter.due(waiting.map(|entry| entry.rights).chain(paused));
        self.entries.values().filter_map(Entry::stalls_at).chain(rested).min()
    }

    /// Those that take nothing of their replies.
    pub fn stalled(&self, now: u64) -> Vec<u32> {
        let stalls = |entry: &Entry| entry.stalls_at().is_some_and(|at| now >= at);
        self.entries.iter().filter(|(_, entry)| stalls(entry)).map(|(number, _)| *number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Kind;

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
        assert!(!Rights::Container(3).may_read(KERNEL));
        let previous = Previous { kernel: vec!["Kernel panic".into()], ..Previous::unknown("so it was") };
        assert_eq!(Rights::Read.previous(previous.clone()), previous);
        assert_eq!(Rights::Container(3).previous(previous), Previous::unknown("so it was"));
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
        assert_eq!(ports.again(5_000).len(), 2);
        ports.meter.exhaust(Rights::Container(0));
        assert_eq!(ports.again(5_001).len(), 1, "the other one is not concerned");
        assert_eq!(ports.due([].into_iter()), Some(5_100));
        assert!(ports.again(5_100).contains(&number));
    }

    #[test]
    fn who_takes_no_replies_is_owed_a_bounded_amount_and_keeps_no_other_waiting() {
        let mut ports = Ports::default();
        let mut ends = Vec::new();
        let mut add = |ports: &mut Ports, rights, reply: usize| {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            ends.push(theirs);
            let number = ports.add(Port::on(ours.into()), rights, false);
            let port = &mut ports.get_mut(number).unwrap().port;
            port.reply(&vec![b'x'; reply]);
            port.write();
            number
        };
        let (hostile, calm) = (Rights::Container(0), Rights::Container(1));
        let asks = add(&mut ports, hostile, 0);
        let stuck = add(&mut ports, hostile, 1 << 20);
        add(&mut ports, calm, 0);
        ports.get_mut(stuck).unwrap().again = false;
        assert!(ports.owed().too_much(hostile) && !ports.owed().too_much(calm));
        assert!(!ports.again(5_000).contains(&asks) && ports.again(5_000).len() == 1);
        // Nobody else asks: there is nothing to wake up for.
        ports.entries.values_mut().filter(|entry| entry.rights == calm).for_each(|entry| entry.again = false);
        ports.meter.exhaust(hostile);
        assert!(!ports.waits(5_000) && !ports.waits(5_200));
        assert!(ports.due([].into_iter()).is_some_and(|due| due > 5_200));
        drop(ports.take(stuck));
        assert!(ports.waits(5_000) && ports.again(5_000) == [asks]);
        // Of many each has little enough, and all together have too much. Who may do more is not among them.
        for container in 2..70 {
            add(&mut ports, Rights::Container(container), MOST_OWED + (200 << 10));
        }
        assert!(ports.owed().too_much(calm) && !ports.owed().too_much(Rights::Full));
    }

    fn events(after: u64, count: usize) -> Vec<Event> {
        let event = |number| Event { number, time_ms: 1, kind: Kind::Note, container: None, text: "x".repeat(600) };
        (after + 1..).take(count).map(event).collect()
    }

    #[test]
    fn events_wait_for_who_reads_none_and_are_not_looked_up_meanwhile() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut ports = Ports::default();
        let number = ports.add(Port::on(ours.into()), Rights::Container(0), false);
        ports.get_mut(number).unwrap().subscription.events = Some(0);
        let told = |ports: &mut Ports| ports.get_mut(number).unwrap().subscription.events;
        // Also while others with its rights ask without end.
        ports.meter.exhaust(Rights::Container(0));
        assert!(ports.events_wait(9));
        // Nobody reads: what there is room for is told, and what was told is there.
        let mut asked = 0;
        for _ in 1..1000 {
            ports.tell_events(10_000, |since, count| {
                asked += 1;
                events(since, count)
            });
            ports.get_mut(number).unwrap().port.write();
        }
        assert!(asked < 100, "{asked}");
        let last = told(&mut ports).unwrap();
        let mut reader = std::io::BufReader::new(theirs);
        for expected in 1..=last {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
            let port = &mut ports.get_mut(number).unwrap().port;
            port.unblock();
            port.write();
            assert!(line.contains(&format!("\"number\":{expected},")), "{line}");
        }
    }

    #[test]
    fn events_that_could_not_be_kept_are_not_waited_for() {
        let mut ports = Ports::default();
        let number = ports.add(port(), Rights::Full, false);
        ports.get_mut(number).unwrap().subscription.events = Some(3);
        assert!(ports.events_wait(9));
        ports.tell_events(9, |_, _| Vec::new());
        assert!(!ports.events_wait(9) && ports.events_wait(10));
    }

    #[test]
    fn who_takes_nothing_of_a_reply_is_found_unless_it_stays() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let again = ours.try_clone().unwrap();
        let mut ports = Ports::default();
        let [stuck, lasting, idle] = [(Port::on(ours.into()), false), (Port::on(again.into()), true), (port(), false)]
            .map(|(port, lasting)| ports.add(port, Rights::Read, lasting));
        for number in [stuck, lasting] {
            let port = &mut ports.get_mut(number).unwrap().port;
            port.reply(&vec![b'x'; 1 << 20]);
            port.write();
        }
        let now = crate::clock::now_ms();
        ports.get_mut(idle).unwrap().again = false;
        assert_eq!((ports.stalled(now), ports.stalled(now + STALL_MS)), (vec![], vec![stuck]));
        ports.meter.exhaust(Rights::Read);
        assert!(ports.due([].into_iter()).is_some_and(|due| due <= now + STALL_MS));
    }

    #[test]
    fn of_two_who_ask_without_end_neither_waits_for_ever() {
        let mut ports = Ports::default();
        let all: Vec<u32> = (0..3).map(|_| ports.add(port(), Rights::Read, false)).collect();
        let other = ports.add(port(), Rights::Container(0), false);
        let mut served: Vec<u32> = Vec::new();
        for window in 0..6 {
            let now = 5_000 + window * 100;
            // To look whether somebody waits is nobody's turn.
            assert!(ports.waits(now));
            let list = ports.again(now);
            served.extend(list.iter().find(|number| all.contains(number)));
            // Each of their answers takes all that there is, and the other one is served in between.
            ports.meter.exhaust(Rights::Read);
            assert_eq!(ports.again(now + 1), [other]);
        }
        assert_eq!(served, [all.clone(), all].concat());
    }
}
