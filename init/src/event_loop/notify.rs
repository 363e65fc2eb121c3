//! What containers say of themselves on their sockets.

use super::Supervisor;
use super::sources::Source;
use crate::clock::now_ms;
use crate::notify::{self, Message};
use crate::supervise::Event;
use garboard_runtime::plan::NOTIFY;

/// Datagrams that a container may send in [`SPAN_MS`]; the rest waits in its socket, and its sender with it.
const MANY: u32 = 100;
/// In milliseconds.
const SPAN_MS: u64 = 1_000;
/// More than a socket holds (`net.unix.max_dgram_qlen`: 10, unless a sysctl of the machine says more).
const QUEUE: u32 = 1024;
/// Datagrams read in one turn of the loop.
const PER_TURN: u32 = 16;

/// A container's socket, and how much it has said lately.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// When counting began.
    since: u64,
    count: u32,
}

impl Supervisor {
    /// Makes the socket of a container that notifies, before its first launch. It is kept from start to start.
    pub(super) fn listen_to(&mut self, index: usize) -> std::io::Result<()> {
        let Some((container, unit)) = self.plan.containers.get(index).zip(self.units.get_mut(index)) else {
            return Ok(());
        };
        if !container.supervision.notify {
            return Ok(());
        }
        match &unit.notify {
            // What the run before has said last isn't this one's.
            Some(socket) => {
                for _ in 0..QUEUE {
                    if notify::receive(socket, &mut self.buffer).is_none() {
                        break;
                    }
                }
            }
            None => {
                let socket =
                    notify::listen(&self.options.run_dir.join(NOTIFY).join(format!("{}.sock", container.name)))?;
                self.sources.add_readable(&socket, Source::Notify(index));
                unit.notify = Some(socket);
            }
        }
        unit.says = String::new();
        self.dirty.push(index);
        Ok(())
    }

    /// Hears what a container says, a bounded amount of it.
    pub(super) fn take_notifications(&mut self, index: usize) {
        // Whoever says something was executed before.
        self.take_report(index);
        for _ in 0..PER_TURN {
            let now = now_ms();
            let Some(unit) = self.units.get_mut(index) else { return };
            let Some(socket) = &unit.notify else { return };
            if now.saturating_sub(unit.said.since) >= SPAN_MS {
                (unit.said.since, unit.said.count) = (now, 0);
            }
            if unit.said.count >= MANY {
                let until = unit.said.since.saturating_add(SPAN_MS);
                self.deaf.insert(index, until);
                self.sources.remove(socket);
                self.tell(Event::Unheard(index, until.saturating_sub(now)));
                return;
            }
            if !self.hear(index) {
                return;
            }
        }
    }

    /// Hears the next datagram of a container; whether there was one.
    fn hear(&mut self, index: usize) -> bool {
        let Some(unit) = self.units.get_mut(index) else { return false };
        let Some(socket) = &unit.notify else { return false };
        let Some(messages) = notify::receive(socket, &mut self.buffer) else { return false };
        unit.said.count = unit.said.count.saturating_add(1);
        messages.into_iter().for_each(|message| self.heard(index, message));
        true
    }

    /// Hears those whose time is over before that is held against them, also who is not listened to for now: what they said in time may
    /// wait here.
    pub(super) fn hear_the_late(&mut self, now: u64) {
        for index in self.state.too_late(now) {
            self.take_report(index);
            // More than waits in the socket of anybody.
            for _ in 0..PER_TURN {
                if !self.hear(index) {
                    break;
                }
            }
        }
    }

    fn heard(&mut self, index: usize, message: Message) {
        let event = match message {
            Message::Ready => Event::Ready(index),
            Message::Alive => Event::Alive(index),
            Message::Trigger => Event::WatchdogTrigger(index),
            Message::Watchdog(ms) => Event::WatchdogSet(index, ms),
            Message::Extend(ms) => Event::ExtendTimeout(index, ms),
            Message::Stopping => {
                self.says(index, "stopping".to_owned());
                Event::Leaving(index)
            }
            Message::Status(text) => return self.says(index, text),
        };
        self.tell(event);
    }

    fn says(&mut self, index: usize, text: String) {
        if let Some(unit) = self.units.get_mut(index) {
            unit.says = text;
            self.dirty.push(index);
        }
    }

    /// Listens again to those who had said too much.
    pub(super) fn hear_again(&mut self, now: u64) {
        self.deaf.retain(|index, until| {
            let still = now < *until;
            if !still && let Some(socket) = self.units.get(*index).and_then(|unit| unit.notify.as_ref()) {
                self.sources.add_readable(socket, Source::Notify(*index));
            }
            still
        });
    }

    /// When the first of them is listened to again.
    pub(super) fn hearing_due(&self) -> Option<u64> {
        self.deaf.values().copied().min()
    }
}
