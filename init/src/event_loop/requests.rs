//! The status ports' requests, answered.

use super::Supervisor;
use crate::kept::boot_id;
use crate::logs::Entry as Kept;
use crate::status::ports::Entry;
use crate::status::protocol::{self, Answer, DEFAULT_TAIL, Line, Question, Request, WantedLogs};
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
                    Err(message) => protocol::encode(id, Answer::Error { message }),
                }
            }
            Ok(Request { id, question }) => match self.answer_to(&question, entry) {
                Ok(answer) => protocol::encode(id, answer),
                Err(message) => protocol::encode(id, Answer::Error { message }),
            },
            Err((id, message)) => protocol::encode(id, Answer::Error { message }),
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
                let events = match since {
                    Some(since) => self.journal.after(*since, count),
                    None => self.journal.newest(count),
                };
                Answer::Events { events, newest: self.journal.last(), boot: boot_id() }
            }
            Question::Logs { previous: true, .. } => return Err("earlier boots print nothing more".to_owned()),
            Question::Logs { container, tail, follow, previous: false } => {
                let log = self.log_number(container.as_deref(), entry.rights)?;
                if *follow {
                    self.follow(entry, log)?;
                }
                self.logs(container.as_deref(), log, tail.unwrap_or(DEFAULT_TAIL))
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

    fn logs<'a>(&self, container: Option<&'a str>, log: u32, tail: usize) -> Answer<'a> {
        let index = usize::try_from(log).ok().filter(|_| log != KERNEL);
        let (entries, dropped) = match index {
            Some(index) => (self.rings.tail(index, tail, LONGEST_LOG), self.rings.dropped(index)),
            None => (self.journal.kernel_tail(tail, LONGEST_LOG), 0),
        };
        let line = |e: Kept| Line {
            time_ms: e.time_ms,
            text: String::from_utf8_lossy(&e.text).into_owned(),
            continues: e.continues,
            earlier: None,
        };
        Answer::Logs { container, lines: entries.into_iter().map(line).collect(), dropped }
    }
}
