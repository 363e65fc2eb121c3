//! Kept logs of earlier boots are read by a worker: the port that asked waits for it, and nobody else.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;

use super::Supervisor;
use crate::clock::now_ms;
use crate::status::Rights;
use crate::status::ports::Entry;
use crate::status::protocol::{self, Answer, DEFAULT_TAIL, Line};
use crate::status::subscription::KERNEL;
use crate::supervise::Exit;
use crate::work::keep::LONGEST_LOG;
use crate::work::report::{self, DataState};
use crate::worker::{Kind, Worker};

/// So many are read at once for those who may only read,
const MOST: usize = 8;
/// and for all: the machine's own ports have the rest. A worker that a disk holds up counts also when nobody waits for it any more.
pub(super) const MOST_IN_ALL: usize = 12;

/// Who waits.
#[derive(Debug, Default)]
pub(super) struct Askers {
    asked: BTreeMap<u32, Asked>,
    next: u32,
}

/// One who waits.
#[derive(Debug)]
struct Asked {
    port: u32,
    id: Option<u64>,
    container: usize,
    lines: VecDeque<Line>,
    /// Bytes that they take in the answer, and may take.
    taken: usize,
    room: usize,
    /// Bytes that are missing between them.
    missing: u64,
    /// Bytes of their texts.
    size: usize,
}

impl Askers {
    /// Leaves out a ticket that a worker of the incarnation before still has: what it says is nobody's any more.
    pub(super) fn pass_over(&mut self, ticket: u32) {
        self.next = self.next.max(ticket.wrapping_add(1));
    }
}

impl Supervisor {
    /// Has a kept log read for a port, which is answered when that is done.
    pub(super) fn ask_previous(
        &mut self,
        (number, id): (u32, Option<u64>),
        entry: &mut Entry,
        log: u32,
        tail: Option<usize>,
    ) -> Result<(), String> {
        let of_one = |index: &usize| self.plan.containers.get(*index).filter(|c| c.kept_log.is_some());
        let index = usize::try_from(log).ok().filter(|index| of_one(index).is_some());
        let Some(index) = index else {
            let why = if log == KERNEL {
                "the kernel's log is not kept"
            } else {
                "this log is not kept: its container's declaration has no `logging`"
            };
            return Err(why.to_owned());
        };
        if self.state.common().goal.is_some() {
            return Err("the machine is stopping, and its data filesystem is about to go".to_owned());
        }
        // Nothing there is not nothing kept.
        if !matches!(self.data.state, DataState::Mounted | DataState::Readonly) {
            let why = if self.data.detail.is_empty() { "not yet mounted" } else { &self.data.detail };
            return Err(format!("the data filesystem is not there: {why}"));
        }
        let most = if entry.rights == Rights::Full { MOST_IN_ALL } else { MOST };
        if self.at_work(|kind| matches!(kind, Kind::Previous(_))) >= most {
            return Err("other kept logs are being read; ask again".to_owned());
        }
        let ticket = self.previous.next;
        let (data, name) = (self.options.data.clone(), self.name(index).to_owned());
        let count = tail.unwrap_or(DEFAULT_TAIL).to_string();
        let arguments = [data.as_os_str(), OsStr::new(&name), OsStr::new(&count)];
        let worker = Worker::spawn(Kind::Previous(ticket), &arguments, now_ms())
            .map_err(|e| format!("start a worker that reads it: {e}"))?;
        self.add_worker(worker);
        self.previous.next = ticket.wrapping_add(1);
        let asked = Asked {
            port: number,
            id,
            container: index,
            lines: VecDeque::new(),
            taken: 0,
            room: entry.rights.room(),
            missing: 0,
            size: 0,
        };
        self.previous.asked.insert(ticket, asked);
        entry.waits = Some(ticket);
        // A process of its own is no small thing to ask for.
        self.ports.meter.exhaust(entry.rights);
        Ok(())
    }

    /// A line of it.
    pub(super) fn take_previous(&mut self, ticket: u32, line: report::KeptLine) {
        let Some(asked) = self.previous.asked.get_mut(&ticket) else { return };
        asked.missing = asked.missing.saturating_add(line.missing);
        asked.size = asked.size.saturating_add(line.text.len());
        if line.missing == 0 && asked.size <= LONGEST_LOG {
            let report::KeptLine { time_ms, text, continues, time, boot, .. } = line;
            let line = Line { time_ms, text, continues, earlier: Some(protocol::Earlier { time, boot }) };
            asked.taken = asked.taken.saturating_add(protocol::size(&line));
            asked.lines.push_back(line);
            // The newest are what was asked for.
            while asked.taken > asked.room
                && let Some(oldest) = asked.lines.pop_front()
            {
                asked.taken = asked.taken.saturating_sub(protocol::size(&oldest));
            }
        }
    }

    /// All of it is there, or will never be.
    pub(super) fn previous_ended(&mut self, ticket: u32, exit: Exit) {
        let Some(asked) = self.previous.asked.remove(&ticket) else { return };
        let container = self.name(asked.container).to_owned();
        let answer = if exit.success() {
            Answer::Logs { container: Some(&container), lines: asked.lines.into(), dropped: asked.missing }
        } else {
            let ending = super::telling::ending(exit);
            Answer::Error { message: format!("the kept log could not be read: its worker {ending}") }
        };
        let reply = protocol::encode(asked.id, answer);
        let Some(entry) = self.ports.get_mut(asked.port).filter(|entry| entry.waits == Some(ticket)) else { return };
        entry.waits = None;
        entry.port.reply(&reply);
        // With others that wait for answers, after whatever else has ended.
        entry.again = true;
    }

    /// Nobody waits at this port any more.
    pub(super) fn forget_previous(&mut self, port: u32) {
        self.previous.asked.retain(|_, asked| asked.port != port);
        let asked = &self.previous.asked;
        let void = |worker: &&Worker| matches!(worker.kind, Kind::Previous(ticket) if !asked.contains_key(&ticket));
        self.workers.iter().filter(void).for_each(Worker::kill);
    }
}
