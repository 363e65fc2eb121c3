//! The status ports' requests, answered.

use super::Supervisor;
use crate::kept::boot_id;
use crate::logs::Entry as Kept;
use crate::status::ports::Entry;
use crate::status::protocol::{self, Answer, DEFAULT_TAIL, Line, Question, Request, SHORTEST_LINE, WantedLogs};
use crate::status::subscription::{KERNEL, MOST_LOGS, Subscription};
use crate::status::{Rights, metrics};
use crate::supervise::Goal;
use crate::work::keep::LONGEST_LOG;

/// Events of a reply when the request doesn't say.
const DEFAULT_EVENTS: usize = 100;

impl Supervisor {
    /// The reply; `None`: it comes later.
    pub(super) fn answer(&mut self, number: u32, line: &[u8], entry: &mut Entry) -> Option<Vec<u8>> {
        Some(match protocol::parse(line) {
            Ok(Request { id, question: Question::Logs { container, tail, follow: false, previous: true } }) => {
                let log = self.log_number(container.as_deref(), entry.rights);
                match log.and_then(|log| self.ask_previous((number, id), entry, log, tail)) {
                    Ok(()) => return None,
                    Err(message) => protocol::refusal(id, message),
                }
            }
            Ok(Request { id, question }) => match self.answer_to(&question, entry) {
                Ok(answer) => protocol::encode(id, answer),
                Err(message) => protocol::refusal(id, message),
            },
            Err((id, message)) => protocol::refusal(id, message),
        })
    }

    fn answer_to<'a>(&'a mut self, question: &'a Question, entry: &mut Entry) -> Result<Answer<'a>, String> {
        if let Some(why) = entry.rights.refuse(question) {
            return Err(why.to_owned());
        }
        Ok(match question {
            Question::Status => {
                let mut snapshot = self.snapshot();
                snapshot.previous = snapshot.previous.map(|previous| entry.rights.previous(previous));
                Answer::Status { snapshot: Box::new(snapshot) }
            }
            Question::Metrics => Answer::Metrics { text: metrics::render(&self.snapshot()) },
            Question::Trace => Answer::Trace { steps: self.trace.steps() },
            Question::Events { since, count } => {
                let count = count.unwrap_or(DEFAULT_EVENTS);
                let room = entry.rights.room();
                let mut events = match since {
                    Some(since) => self.journal.after(*since, count),
                    None => self.journal.newest(count),
                };
                // Who has asked for what came after a number asks for the rest by another one.
                if since.is_some() {
                    events.truncate(protocol::fitting(events.iter(), room));
                } else {
                    let fitting = protocol::fitting(events.iter().rev(), room);
                    events.drain(..events.len().saturating_sub(fitting));
                }
                Answer::Events { events, newest: self.journal.last(), boot: boot_id() }
            }
            Question::Logs { previous: true, .. } => return Err("earlier boots print nothing more".to_owned()),
            Question::Logs { container, tail, follow, previous: false } => {
                let log = self.log_number(container.as_deref(), entry.rights)?;
                if *follow {
                    self.follow(entry, log)?;
                }
                self.logs(container.as_deref(), log, tail.unwrap_or(DEFAULT_TAIL), entry.rights.room())
            }
            Question::Subscribe { events, logs, since } => {
                let since = since.unwrap_or_else(|| self.journal.last()).min(self.journal.last());
                let mut wanted = Subscription { events: events.then_some(since), ..Subscription::default() };
                self.want_logs(&mut wanted, logs.as_ref(), entry.rights)?;
                entry.subscription = wanted;
                self.subscribed(entry);
                Answer::Subscribed { since, boot: boot_id() }
            }
            Question::Unsubscribe => {
                entry.subscription = Subscription::default();
                self.subscribed(entry);
                Answer::Ok
            }
            Question::Poweroff => self.stop_for(Goal::PowerOff)?,
            Question::Reboot => self.stop_for(Goal::Reboot)?,
        })
    }

    /// What has begun is carried out: another end than that would be promised in vain.
    fn stop_for<'a>(&mut self, goal: Goal) -> Result<Answer<'a>, String> {
        if let Some(begun) = self.state.common().goal.filter(|begun| *begun != goal) {
            return Err(format!("the machine is already {}", begun.text()));
        }
        self.shut_down(goal, "asked by the status port");
        Ok(Answer::Ok)
    }

    /// What a port is told is another from now on; the next incarnation of PID 1 has to know.
    fn subscribed(&mut self, entry: &mut Entry) {
        entry.told = entry.subscription.events;
        self.common_dirty |= entry.lasting;
    }

    fn follow(&mut self, entry: &mut Entry, log: u32) -> Result<(), String> {
        if !entry.subscription.add(log) {
            return Err(format!("at most {MOST_LOGS} logs are followed one by one; subscribe to all"));
        }
        // Events that it is told of besides may not be written yet.
        self.common_dirty |= entry.lasting;
        Ok(())
    }

    fn want_logs(&self, wanted: &mut Subscription, logs: Option<&WantedLogs>, rights: Rights) -> Result<(), String> {
        match (logs, rights) {
            (None, _) => {}
            // All that it may read.
            (Some(WantedLogs::All(_)), Rights::Container(own)) => {
                wanted.logs = u32::try_from(own).into_iter().collect()
            }
            (Some(WantedLogs::All(_)), _) => wanted.all_logs = true,
            (Some(WantedLogs::Of(names)), _) => {
                for name in names {
                    if !wanted.add(self.log_number(name.as_deref(), rights)?) {
                        return Err(format!("a subscription names at most {MOST_LOGS} logs, or \"all\""));
                    }
                }
            }
        }
        Ok(())
    }

    /// The number of a log that may be read: a container's, or the kernel's.
    fn log_number(&self, container: Option<&str>, rights: Rights) -> Result<u32, String> {
        let number = match container {
            None => Some(KERNEL),
            Some(name) => self.plan.containers.iter().position(|c| c.name == name).and_then(|i| u32::try_from(i).ok()),
        };
        let number = number.ok_or_else(|| format!("no container is named {:?}", container.unwrap_or_default()))?;
        // Which others there are is no secret, as the status names them.
        if rights.may_read(number) { Ok(number) } else { Err("a container may read its own log only".to_owned()) }
    }

    fn logs<'a>(&self, container: Option<&'a str>, log: u32, tail: usize, room: usize) -> Answer<'a> {
        let index = usize::try_from(log).ok().filter(|_| log != KERNEL);
        // No more is read than fits.
        let tail = tail.min(room.checked_div(SHORTEST_LINE).unwrap_or(tail));
        let bytes = LONGEST_LOG.min(room);
        let (entries, dropped) = match index {
            Some(index) => (self.rings.tail(index, tail, bytes), self.rings.dropped(index)),
            None => (self.journal.kernel_tail(tail, bytes), 0),
        };
        let line = |e: Kept| Line {
            time_ms: e.time_ms,
            text: String::from_utf8_lossy(&e.text).into_owned(),
            continues: e.continues,
            earlier: None,
        };
        let mut lines: Vec<Line> = entries.into_iter().map(line).collect();
        let fitting = protocol::fitting(lines.iter().rev(), room);
        lines.drain(..lines.len().saturating_sub(fitting));
        Answer::Logs { container, lines, dropped }
    }
}
