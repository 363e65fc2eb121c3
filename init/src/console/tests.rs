//! The whole dashboard, from bytes that come in to a screen that is not ours.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::dashboard::{Log, Page};
use super::keys::Key;
use super::session::{Outcome, Session, View};
use crate::boot::{Feature, Step, Verdict};
use crate::events::{Event, Kind};
use crate::logs::Entry;
use crate::snapshot::*;
use crate::work::report;

/// A container with `text` wherever text of others may stand.
fn container(text: &str, state: ContainerState, health: Health) -> Container {
    Container {
        name: text.into(),
        image: text.into(),
        state,
        health,
        pid: Some(42),
        restarts: 2,
        exit: None,
        detail: text.into(),
        uptime_ms: Some(11_000),
        memory_bytes: 3 << 20,
        cpu_us: 5_000,
        oom_kills: 0,
        says: text.into(),
        log_dropped: 7,
        log_unkept: 0,
        weakened: vec![text.into()],
        labels: BTreeMap::new(),
        pod: Some(text.into()),
        as_declared: true,
    }
}

fn snapshot(text: &str, containers: usize) -> Snapshot {
    let states = [ContainerState::Running, ContainerState::Backoff, ContainerState::Exited, ContainerState::Failed];
    let one = |i: usize| container(&format!("{text}{i}"), states[i % 4], Health::Healthy);
    Snapshot {
        appliance: text.into(),
        hostname: text.into(),
        state: MachineState::Running,
        ready: false,
        uptime_ms: 725_000,
        pid1_rss_bytes: 2_400_000,
        features: vec![Feature {
            name: text.into(),
            config: text.into(),
            verdict: Verdict::Degraded,
            detail: text.into(),
        }],
        network: report::Network {
            uplink: Some(text.into()),
            addresses: vec![text.into()],
            state: report::NetworkState::Up,
            detail: text.into(),
        },
        data: report::Data { state: report::DataState::Mounted, detail: text.into(), bytes: 2 << 30 },
        boot: None,
        previous: None,
        kept_logs: report::KeptLogs { state: report::KeptState::Failed, detail: text.into() },
        containers: (0..containers).map(one).collect(),
        notes: vec![text.into()],
        last_event: 1,
    }
}

/// Some lines of a log.
fn lines(text: &str, log: Log) -> Vec<Entry> {
    let text = match log {
        Log::Container(_) => text.to_owned(),
        Log::Kernel => format!("usb {text}"),
    };
    vec![Entry { time_ms: 9_000, continues: false, unfinished: false, text: text.into_bytes() }; 50]
}

/// A person in front of a terminal.
struct Person {
    session: Session,
    terminal: vt100::Parser,
    snapshot: Snapshot,
    text: String,
    now: u64,
    /// All that was sent.
    sent: String,
}

impl Person {
    fn at(columns: u16, rows: u16, text: &str, containers: usize) -> Self {
        let session = Session::new(containers, true, None);
        let terminal = vt100::Parser::new(rows.try_into().unwrap(), columns.try_into().unwrap(), 0);
        let snapshot = snapshot(text, containers);
        let mut person = Self { session, terminal, snapshot, text: text.into(), now: 10_000, sent: String::new() };
        person.terminal.process(b"web | a line\r\n");
        person.press(Key::Enter);
        person.press(Key::Size(columns.into(), rows.into()));
        person
    }

    fn show(&mut self, bytes: &str) {
        self.sent.push_str(bytes);
        // As the line discipline has it.
        self.terminal.process(bytes.replace('\n', "\r\n").as_bytes());
    }

    fn react(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Begin(bytes) | Outcome::Send(bytes) => self.show(bytes),
            Outcome::End(bytes) => self.show(&bytes),
            Outcome::Nothing | Outcome::Do(_) => {}
        }
    }

    fn press(&mut self, key: Key) {
        let text = self.text.clone();
        let outcome = self.session.key(key, self.now, &|log| lines(&text, log));
        self.react(outcome);
        self.look();
    }

    /// Time passes, and frames come until everything is shown.
    fn look(&mut self) {
        for _ in 0..20 {
            self.now += 1_000;
            let text = self.text.clone();
            let log = |log| lines(&text, log);
            let outcome = self.session.pass(self.now, &log);
            let event = Event {
                number: 1,
                time_ms: 5_000,
                kind: Kind::Exited,
                container: Some(self.text.clone()),
                text: self.text.clone(),
            };
            let trace = [Step { name: self.text.clone().into(), at_us: 1_500 }];
            let view = View { now: self.now, snapshot: &self.snapshot, events: &[event], trace: &trace, log: &log };
            let frame = self.session.frame(&view);
            let done = frame.is_empty();
            self.react(outcome);
            self.show(&frame);
            if done {
                break;
            }
        }
    }

    fn screen(&self) -> String {
        self.terminal.screen().contents()
    }
}

#[test]
fn the_dashboard_opens_shows_and_goes_leaving_the_terminal_as_it_was() {
    let mut person = Person::at(80, 24, "web", 3);
    assert!(person.terminal.screen().alternate_screen() && person.terminal.screen().hide_cursor());
    let screen = person.screen();
    for text in [
        "web running, NOT as declared",
        "up 12 min  PID 1 2.2 MiB",
        "CONTAINER",
        ">web0",
        "backoff",
        "EVENTS",
        "? help",
    ] {
        assert!(screen.contains(text), "{text}\n{screen}");
    }
    person.press(Key::Char(b'q'));
    let after = person.terminal.screen();
    assert!(!after.alternate_screen() && !after.hide_cursor());
    assert_eq!(after.contents().trim_end(), "web | a line");
    assert_eq!(after.cursor_position(), (1, 0), "lines go on where they stopped");
}

#[test]
fn every_page_shows_what_it_is_about() {
    let mut person = Person::at(80, 24, "web", 3);
    let pages = [
        (b'l', Page::Logs, "LOG OF web0  following"),
        (b'm', Page::Messages, "00:00:09.0 | usb web"),
        (b'e', Page::Events, "exited"),
        (b't', Page::Trace, "1.500"),
        (b'f', Page::Features, "degraded"),
        (b'?', Page::Help, "plain lines"),
    ];
    for (key, page, text) in pages {
        person.press(Key::Char(key));
        assert_eq!(person.session.dashboard().unwrap().page(), page);
        assert!(person.screen().contains(text), "{text}\n{}", person.screen());
    }
    for key in *b"lm" {
        person.press(Key::Char(key));
        person.press(Key::PageUp);
        assert!(person.screen().contains("held while you read"), "{}", person.screen());
    }
}

#[test]
fn long_lists_scroll_to_what_is_selected() {
    let mut person = Person::at(80, 24, "web", 100);
    person.press(Key::End);
    assert!(person.screen().contains(">web99"), "{}", person.screen());
    assert!(!person.screen().contains(">web0 "));
}

#[test]
fn a_small_screen_is_cut_and_a_smaller_one_says_so() {
    let screen = Person::at(40, 10, "web", 3).screen();
    for text in ["CONTAINER", ">web0", "running", "q quit"] {
        assert!(screen.contains(text), "{text}\n{screen}");
    }
    assert_eq!(Person::at(39, 10, "web", 3).screen().trim_end(), "too small; q: lines");
    assert!(Person::at(200, 60, "web", 30).screen().contains("web29"), "a large one uses the room");
}

#[test]
fn without_an_answer_the_terminal_is_of_the_usual_size() {
    let mut person = Person::at(80, 24, "web", 3);
    person.press(Key::Char(b'q'));
    person.press(Key::Char(b' '));
    assert!(person.screen().contains(">web0"));
}

#[test]
fn nobody_is_woken_for_a_closed_dashboard_nor_for_a_reader_who_stalls() {
    let mut person = Person::at(80, 24, "web", 3);
    let now = person.now;
    assert!(person.session.deadline(true).is_some_and(|due| due <= now + 1_000));
    assert!(person.session.deadline(false).is_some_and(|due| due > now + 500_000), "only its end, without a key");
    let outcome = person.session.pass(now + 700_000, &|_| Vec::new());
    assert!(matches!(outcome, Outcome::End(_)));
    assert_eq!(person.session.deadline(true), None);
}

/// What the encoder may send: sequences that it knows, and printable characters.
fn is_ours(mut sent: &str) -> bool {
    const OPEN: [&str; 3] = [super::terminal::OPEN, super::terminal::ASK_SIZE, super::terminal::CLOSE];
    while !sent.is_empty() {
        if let Some(rest) = OPEN.iter().find_map(|known| sent.strip_prefix(known)) {
            sent = rest;
        } else if let Some(rest) = sent.strip_prefix("\x1b[") {
            let Some(end) = rest.find(|c: char| !c.is_ascii_digit() && c != ';') else { return false };
            if !["H", "C", "K", "J", "m"].iter().any(|known| rest[end..].starts_with(known)) {
                return false;
            }
            sent = &rest[end + 1..];
        } else if sent.starts_with(|c: char| (' '..='~').contains(&c) || c == '\n') {
            sent = &sent[1..];
        } else {
            return false;
        }
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_others_say_only_the_encoder_steers_the_terminal(
        text in any::<Vec<u8>>(), columns in 1..100_u16, rows in 1..40_u16,
    ) {
        let text = String::from_utf8_lossy(&text).into_owned() + "\x1b[2J\x1b]0;x\x07\u{9b}1m\r\n\u{202e}";
        let mut person = Person::at(columns, rows, &text, 3);
        for key in *b"lmetf?m" {
            person.press(Key::Char(key));
        }
        person.press(Key::PageUp);
        person.press(Key::Char(b'l'));
        person.press(Key::PageUp);
        prop_assert!(is_ours(&person.sent), "{:?}", person.sent);
        prop_assert!(person.terminal.screen().alternate_screen());
    }

    #[test]
    fn any_bytes_in_are_keys_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..400), containers in 0..5_usize) {
        let mut person = Person::at(60, 20, "web", containers);
        for byte in bytes {
            let mut keys = Vec::new();
            person.session.feed(byte, person.now, |key| keys.push(key));
            keys.into_iter().for_each(|key| person.press(key));
        }
        prop_assert!(is_ours(&person.sent), "{:?}", person.sent);
    }
}
