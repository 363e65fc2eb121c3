//! Requests and replies: one JSON object per line, `"v":1` in every reply.
//!
//! | request | reply's `type` |
//! |---|---|
//! | `{"id":1,"request":"status"}` | `status`, with `snapshot` |
//! | `{"id":2,"request":"logs","container":"web","tail":100}` | `logs`, with `container`, `lines` (`time_ms`, `text`, `continues`), `dropped` |
//! | `{"id":9,"request":"logs","container":"web","previous":true}` | `logs` of earlier boots, each line also with `time` and `boot` |
//! | `{"id":5,"request":"events","since":40,"count":10}` | `events`, with `events` and `newest` |
//! | `{"id":6,"request":"subscribe","events":true,"logs":["web"]}` | `subscribed`; then lines of type `event`, `log` and `missed` |
//! | `{"id":7,"request":"unsubscribe"}` | `ok` |
//! | `{"id":8,"request":"metrics"}` | `metrics`, with `text` in Prometheus' format |
//! | `{"id":3,"request":"trace"}` | `trace`, with `steps` (`name`, `at_us`) |
//! | `{"id":4,"request":"poweroff"}` and `"reboot"` | `ok` |
//! | anything else | `error`, with `message`; `id` is null when none could be read |
//!
//! `id` is any number of the asker's choice and comes back. A reader that finds half a line (the asker before it went away in the
//! middle of a reply) skips to the next line feed. `STATUS.md` has the whole of it, `status.schema.json` every reply's shape.

use serde::{Deserialize, Serialize};

use crate::boot::Step;
use crate::events::Event;
use crate::snapshot::Snapshot;

/// A request line is never longer, in bytes.
pub const LONGEST_REQUEST: usize = 64 << 10;
/// The lines or events of a reply to somebody who may only read take no more bytes: as much as waits for a reader is PID 1's memory.
pub const MOST_TO_READERS: usize = 63 << 10;
/// A line of a log takes no fewer.
pub const SHORTEST_LINE: usize = 40;
/// What is wrong with a request is told in as many bytes at most: it may quote that.
const LONGEST_MESSAGE: usize = 1 << 10;
/// Lines of a `logs` reply when the request doesn't say.
pub const DEFAULT_TAIL: usize = 100;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Request {
    /// Comes back in the reply.
    #[serde(default)]
    pub id: Option<u64>,
    /// What is asked.
    #[serde(flatten)]
    pub question: Question,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase")]
pub enum Question {
    /// How everything is.
    Status,
    /// What a container printed lately.
    Logs {
        /// Its name; none: what the kernel said.
        #[serde(default)]
        container: Option<String>,
        /// At most so many lines.
        #[serde(default)]
        tail: Option<usize>,
        /// What follows is told too, as [`Question::Subscribe`] does.
        #[serde(default)]
        follow: bool,
        /// Of earlier boots, as far as it is kept.
        #[serde(default)]
        previous: bool,
    },
    /// What happened.
    Events {
        /// After the event with this number; none: the newest.
        #[serde(default)]
        since: Option<u64>,
        /// At most so many.
        #[serde(default)]
        count: Option<usize>,
    },
    /// Tell what happens from now on. Replaces what was subscribed to before.
    Subscribe {
        /// Events.
        #[serde(default)]
        events: bool,
        /// Lines of these logs.
        #[serde(default)]
        logs: Option<WantedLogs>,
        /// Begin with the event after this number.
        #[serde(default)]
        since: Option<u64>,
    },
    /// Tell nothing more.
    Unsubscribe,
    /// Numbers for a monitoring system.
    Metrics,
    /// How long each step of the boot took.
    Trace,
    /// Stop everything and switch off.
    Poweroff,
    /// Stop everything and start over.
    Reboot,
}

/// Which logs a subscription is to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum WantedLogs {
    /// All of them.
    All(All),
    /// Those of these containers; null: the kernel's.
    Of(Vec<Option<String>>),
}

/// The word `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum All {
    /// Itself.
    All,
}

/// One reply.
#[derive(Debug, Serialize)]
pub struct Reply<'a> {
    v: u32,
    id: Option<u64>,
    #[serde(flatten)]
    answer: Answer<'a>,
}

/// What is answered.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Answer<'a> {
    /// To [`Question::Status`].
    Status {
        /// How everything is.
        snapshot: Box<Snapshot>,
    },
    /// To [`Question::Logs`].
    Logs {
        /// The container's name; none: the kernel.
        container: Option<&'a str>,
        /// The newest lines, oldest first.
        lines: Vec<Line>,
        /// Bytes of its output that were thrown away unseen.
        dropped: u64,
    },
    /// To [`Question::Trace`].
    Trace {
        /// The steps, in order.
        steps: &'a [Step],
    },
    /// To [`Question::Events`].
    Events {
        /// In order.
        events: Vec<Event>,
        /// Number of the newest event that there is.
        newest: u64,
        /// The kernel's name of this boot: in another one events have other numbers.
        boot: String,
    },
    /// To [`Question::Subscribe`].
    Subscribed {
        /// Events after this number follow.
        since: u64,
        /// The kernel's name of this boot.
        boot: String,
    },
    /// To [`Question::Metrics`].
    Metrics {
        /// Prometheus' text exposition format, version 0.0.4.
        text: String,
    },
    /// To nothing that was asked: something happened.
    Event {
        /// What.
        event: &'a Event,
    },
    /// To nothing that was asked: somebody printed a line.
    Log {
        /// The container's name; none: the kernel.
        container: Option<&'a str>,
        /// The line.
        #[serde(flatten)]
        line: Line,
    },
    /// To nothing that was asked: the reader was too slow for so many lines, which stood here.
    Missed {
        /// How many.
        lines: u64,
    },
    /// It will be done.
    Ok,
    /// It won't.
    Error {
        /// Why.
        message: String,
    },
}

/// One line of a log.
#[derive(Debug, Serialize)]
pub struct Line {
    /// Milliseconds since boot.
    pub time_ms: u64,
    /// The text, what is not UTF-8 replaced.
    pub text: String,
    /// It goes on from the line before.
    pub continues: bool,
    /// Of an earlier boot: which, and when by the machine's clock.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<Earlier>,
}

/// Where a line of an earlier boot belongs.
#[derive(Debug, Serialize)]
pub struct Earlier {
    /// In RFC 3339's form; none: the line was damaged.
    pub time: Option<String>,
    /// The kernel's name of the boot; none: that was lost.
    pub boot: Option<String>,
}

/// Reads a request line. On failure: the id if there was one, and what is wrong.
pub fn parse(line: &[u8]) -> Result<Request, (Option<u64>, String)> {
    #[derive(Deserialize)]
    struct Id {
        id: Option<u64>,
    }
    serde_json::from_slice(line).map_err(|e| {
        let id = serde_json::from_slice::<Id>(line).ok().and_then(|i| i.id);
        let known = "known requests: status, logs, events, subscribe, unsubscribe, metrics, trace, poweroff, reboot";
        (id, format!("not a request: {e}; {known}"))
    })
}

/// So many bytes it takes in a list.
pub fn size(item: &impl Serialize) -> usize {
    let mut count = Count(1);
    let _ = serde_json::to_writer(&mut count, item);
    count.0
}

struct Count(usize);

impl std::io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How many of them, from the first on, take no more than `room` bytes.
pub fn fitting<'a, T: Serialize + 'a>(items: impl Iterator<Item = &'a T>, room: usize) -> usize {
    let mut left = room;
    let fits = |item: &&T| match left.checked_sub(size(*item)) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    items.take_while(fits).count()
}

/// The reply that says what is wrong.
pub fn refusal(id: Option<u64>, mut message: String) -> Vec<u8> {
    message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
    encode(id, Answer::Error { message })
}

/// A reply as a line, with its line feed.
pub fn encode(id: Option<u64>, answer: Answer<'_>) -> Vec<u8> {
    let reply = Reply { v: 1, id, answer };
    let mut line = serde_json::to_vec(&reply)
        .unwrap_or_else(|_| br#"{"v":1,"id":null,"type":"error","message":"the reply could not be written"}"#.to_vec());
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read() {
        let ask = |line: &str| parse(line.as_bytes()).unwrap();
        assert_eq!(ask(r#"{"id":7,"request":"status"}"#), Request { id: Some(7), question: Question::Status });
        let logs = Question::Logs { container: Some("web".into()), tail: Some(3), follow: false, previous: false };
        assert_eq!(
            ask(r#"{"request":"logs","container":"web","tail":3,"later":true}"#),
            Request { id: None, question: logs }
        );
        assert_eq!(ask(r#"{"id":1,"request":"poweroff"}"#).question, Question::Poweroff);
    }

    #[test]
    fn subscriptions_are_read() {
        let ask = |line: &str| parse(line.as_bytes()).map(|request| request.question);
        let of = |events, logs, since| Ok(Question::Subscribe { events, logs, since });
        assert_eq!(ask(r#"{"id":1,"request":"subscribe","events":true,"since":9}"#), of(true, None, Some(9)));
        assert_eq!(ask(r#"{"request":"subscribe","logs":"all"}"#), of(false, Some(WantedLogs::All(All::All)), None));
        let some = WantedLogs::Of(vec![Some("web".into()), None]);
        assert_eq!(ask(r#"{"request":"subscribe","logs":["web",null]}"#), of(false, Some(some), None));
        assert!(ask(r#"{"request":"subscribe","logs":"none"}"#).is_err());
        let kernel = Question::Logs { container: None, tail: None, follow: true, previous: false };
        assert_eq!(ask(r#"{"request":"logs","container":null,"follow":true}"#), Ok(kernel));
    }

    #[test]
    fn a_bad_request_gets_its_id_back_and_help() {
        let (id, message) = parse(br#"{"id":7,"request":"dance"}"#).unwrap_err();
        assert_eq!(id, Some(7));
        assert!(message.contains("dance") && message.contains("known requests"), "{message}");
        assert_eq!(parse(b"\xff\x00").unwrap_err().0, None);
    }

    #[test]
    fn a_list_is_as_long_as_there_is_room() {
        let line = |n: usize| Line { time_ms: 0, text: "\x01".repeat(n), continues: false, earlier: None };
        assert!(size(&line(0)) >= SHORTEST_LINE);
        let lines = [line(10), line(100), line(10)];
        let whole = serde_json::to_vec(&lines).unwrap().len();
        let fitting = |room| fitting(lines.iter(), room);
        assert_eq!([fitting(whole), fitting(whole - 2), fitting(150), fitting(10)], [3, 2, 1, 0]);
        let refused = refusal(None, "é".repeat(5000));
        assert!(refused.len() < 1200 && refused.ends_with(b"\"}\n"));
    }

    #[test]
    fn replies_are_one_line() {
        let line = encode(Some(2), Answer::Error { message: "a\nb".into() });
        assert_eq!(line, b"{\"v\":1,\"id\":2,\"type\":\"error\",\"message\":\"a\\nb\"}\n");
        assert_eq!(encode(None, Answer::Ok), b"{\"v\":1,\"id\":null,\"type\":\"ok\"}\n");
    }

    /// Objects and arrays within each other, as serde_json has it: an endless request can't use up the stack.
    const DEEPEST: usize = 127;

    proptest::proptest! {
        #[test]
        fn any_bytes_get_an_answer(line in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = parse(&line);
        }

        #[test]
        fn deep_nesting_is_bounded(depth in 1..5000_usize) {
            let deep = [br#"{"id":1,"request":"status","x":"#, &b"[".repeat(depth)[..], &b"]".repeat(depth), b"}"].concat();
            proptest::prop_assert_eq!(parse(&deep).is_ok(), depth < DEEPEST);
            // Its id is found all the same.
            proptest::prop_assert_eq!(parse(&deep).map_or_else(|(id, _)| id, |request| request.id), Some(1));
        }
    }
}
