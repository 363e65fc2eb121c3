//! A person at the line: from the key that opens the dashboard to the one that closes it. Knows the time only as it is told.

use super::access::Attempts;
use super::dashboard::{Command, Dashboard, Log};
use super::draw::{Model, draw};
use super::encode::Encoder;
use super::keys::{Key, Keys};
use super::meter::Meter;
use super::screen::{Grid, USUAL};
use super::terminal::{ASK_SIZE, CLOSE, OPEN};
use crate::boot::Step;
use crate::events::Event;
use crate::logs::Entry;
use crate::snapshot::Snapshot;

/// How long the terminal may take to say its size, in milliseconds.
const ANSWER_MS: u64 = 300;
/// A later answer still counts for so many: lines may be slow.
const LATE_ANSWER_MS: u64 = 5_000;
/// Without a key for so many milliseconds the dashboard is closed.
const IDLE_MS: u64 = 600_000;
/// Milliseconds between two frames: when nothing is known to have changed, when something has, when a key was pressed.
const CALM_MS: u64 = 1_000;
const CHANGED_MS: u64 = 200;
const PRESSED_MS: u64 = 30;
/// An escape that nothing follows for so many milliseconds was the key.
const ESCAPE_MS: u64 = 100;

/// Everything that reading keys takes, whether the dashboard is open or not.
#[derive(Debug)]
pub struct Session {
    keys: Keys,
    /// When the last byte came.
    heard: u64,
    control: bool,
    containers: usize,
    /// The size that the kernel knows of the terminal, if any.
    known: Option<(usize, usize)>,
    attempts: Attempts,
    open: Option<Box<Open>>,
}

/// What is needed only while the dashboard is open.
#[derive(Debug)]
struct Open {
    dashboard: Dashboard,
    encoder: Encoder,
    meter: Meter,
    size: Option<(usize, usize)>,
    /// When the terminal was last asked for its size.
    asked: u64,
    /// When a person last pressed a key.
    touched: u64,
    /// When the last frame was made.
    drawn: Option<u64>,
    changed: bool,
    pressed: bool,
    /// The last frame left something out.
    more: bool,
    /// Somebody else has the line.
    lent: bool,
}

/// What there is to be shown.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Milliseconds since boot.
    pub now: u64,
    /// How everything is.
    pub snapshot: &'a Snapshot,
    /// What happened lately, the newest last.
    pub events: &'a [Event],
    /// How the boot went.
    pub trace: &'a [Step],
    /// The newest lines of a log.
    pub log: &'a dyn Fn(Log) -> Vec<Entry>,
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("now", &self.now).finish_non_exhaustive()
    }
}

/// What follows from a key or from time passing.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing but perhaps another frame.
    Nothing,
    /// Lines stop and these bytes are sent.
    Begin(&'static str),
    /// These bytes are sent and lines go on.
    End(String),
    /// These bytes are sent.
    Send(&'static str),
    /// That is asked for.
    Do(Command),
}

impl Session {
    /// For so many containers, on a terminal of so many columns and rows if that is known; `control`: there is a passphrase.
    pub fn new(containers: usize, control: bool, known: Option<(usize, usize)>) -> Self {
        let (keys, attempts) = (Keys::default(), Attempts::default());
        Self { keys, heard: 0, control, containers, known, attempts, open: None }
    }

    /// The dashboard is open.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The dashboard, while it is open.
    pub fn dashboard(&mut self) -> Option<&mut Dashboard> {
        self.open.as_mut().map(|open| &mut open.dashboard)
    }

    /// How often the passphrase was wrong, to be kept.
    pub fn attempted(&self) -> Attempts {
        self.attempts
    }

    /// How often the passphrase was wrong.
    pub fn attempts(&mut self) -> &mut Attempts {
        &mut self.attempts
    }

    /// Something that may be seen has changed.
    pub fn stir(&mut self) {
        if let Some(open) = &mut self.open {
            open.changed = true;
        }
    }

    /// Takes a byte from the line and gives out what it makes whole.
    pub fn feed(&mut self, byte: u8, now: u64, out: impl FnMut(Key)) {
        self.heard = now;
        self.keys.feed(byte, out);
    }

    /// Takes a key. `log` gives the newest lines of one.
    pub fn key(&mut self, key: Key, now: u64, log: &dyn Fn(Log) -> Vec<Entry>) -> Outcome {
        let Some(open) = &mut self.open else {
            if !key.is_pressed() {
                return Outcome::Nothing;
            }
            self.open = Some(Box::new(Open::new(self.containers, self.control, now)));
            return Outcome::Begin(OPEN);
        };
        if let Key::Size(columns, rows) = key {
            if now.saturating_sub(open.asked) <= LATE_ANSWER_MS && columns > 0 && rows > 0 {
                open.resize((columns, rows));
            }
            return Outcome::Nothing;
        }
        if open.lent {
            // What was typed too early for the one and too late for the other.
            return Outcome::Nothing;
        }
        open.touched = now;
        open.pressed = true;
        match open.dashboard.key(key, now, &mut self.attempts, log) {
            None => Outcome::Nothing,
            Some(Command::Close) => self.close(),
            Some(Command::Redraw) => {
                open.encoder.forget();
                open.asked = now;
                Outcome::Send(ASK_SIZE)
            }
            Some(command) => Outcome::Do(command),
        }
    }

    /// Back to plain lines.
    pub fn close(&mut self) -> Outcome {
        self.open.take().map_or(Outcome::Nothing, |open| Outcome::End(open.restored()))
    }

    /// Somebody else gets the line, with a terminal as these bytes make it. Until [`Session::regain`] there are no frames.
    pub fn lend(&mut self) -> String {
        let Some(open) = &mut self.open else { return String::new() };
        open.lent = true;
        open.restored()
    }

    /// The line is ours again; it gets these bytes first.
    pub fn regain(&mut self, now: u64) -> &'static str {
        let Some(open) = self.open.as_mut().filter(|open| open.lent) else { return "" };
        open.lent = false;
        (open.touched, open.asked, open.drawn) = (now, now, None);
        open.encoder.forget();
        OPEN
    }

    /// Columns and rows of the terminal.
    pub fn size(&self) -> (usize, usize) {
        self.open.as_ref().and_then(|open| open.size).unwrap_or(USUAL)
    }

    /// What follows from time alone.
    pub fn pass(&mut self, now: u64, log: &dyn Fn(Log) -> Vec<Entry>) -> Outcome {
        let Some(open) = self.open.as_mut().filter(|open| !open.lent) else { return Outcome::Nothing };
        if now >= open.touched.saturating_add(IDLE_MS) {
            return self.close();
        }
        if open.size.is_none() && now >= open.asked.saturating_add(ANSWER_MS) {
            open.resize(self.known.unwrap_or(USUAL));
        }
        if self.keys.undecided()
            && now >= self.heard.saturating_add(ESCAPE_MS)
            && let Some(key) = self.keys.settle()
        {
            return self.key(key, now, log);
        }
        Outcome::Nothing
    }

    /// When the next frame is due.
    fn frame_due(open: &Open) -> Option<u64> {
        open.size.filter(|_| !open.lent)?;
        let Some(drawn) = open.drawn else { return Some(0) };
        let after = match open {
            Open { more: true, .. } => 0,
            Open { pressed: true, .. } => PRESSED_MS,
            Open { changed: true, .. } => CHANGED_MS,
            _ => CALM_MS,
        };
        Some(drawn.saturating_add(after))
    }

    /// When [`Session::pass`] or [`Session::frame`] has something to do; `idle`: nothing waits to be sent. Nobody is woken for a
    /// dashboard that is closed.
    pub fn deadline(&self, idle: bool) -> Option<u64> {
        let open = self.open.as_ref().filter(|open| !open.lent)?;
        let answer = open.size.is_none().then(|| open.asked.saturating_add(ANSWER_MS));
        let escape = self.keys.undecided().then(|| self.heard.saturating_add(ESCAPE_MS));
        let frame = if idle { Self::frame_due(open) } else { None };
        [Some(open.touched.saturating_add(IDLE_MS)), answer, escape, frame].into_iter().flatten().min()
    }

    /// Whether a frame is to be made, if nothing waits to be sent.
    pub fn wants_frame(&self, now: u64) -> bool {
        self.open.as_ref().and_then(|open| Self::frame_due(open)).is_some_and(|due| due <= now)
    }

    /// Whether the next frame measures anew how busy each container is.
    pub fn measures(&self, now: u64) -> bool {
        self.open.as_ref().is_some_and(|open| open.meter.is_due(now))
    }

    /// The next frame; empty when the terminal shows everything as it is.
    pub fn frame(&mut self, view: &View<'_>) -> String {
        let Some(open) = &mut self.open else { return String::new() };
        let Some((columns, rows)) = open.size else { return String::new() };
        open.meter.look(view.now, view.snapshot.containers.iter().map(|container| container.cpu_us));
        let model = Model { view: *view, meter: &open.meter };
        let mut grid = Grid::new(columns, rows);
        draw(&mut open.dashboard, &model, &mut grid);
        let (bytes, more) = open.encoder.frame(&grid);
        (open.more, open.drawn) = (more, Some(view.now));
        (open.changed, open.pressed) = (false, false);
        bytes
    }
}

impl Open {
    fn new(containers: usize, control: bool, now: u64) -> Self {
        Self {
            dashboard: Dashboard::new(containers, control),
            encoder: Encoder::default(),
            meter: Meter::default(),
            size: None,
            asked: now,
            touched: now,
            drawn: None,
            changed: false,
            pressed: false,
            more: false,
            lent: false,
        }
    }

    /// What makes the terminal as it was. One without a second screen goes on below what the dashboard left.
    fn restored(&self) -> String {
        let (_, rows) = self.size.unwrap_or(USUAL);
        format!("\x1b[0m\x1b[{rows};1H\n{CLOSE}")
    }

    fn resize(&mut self, size: (usize, usize)) {
        if self.size != Some(size) {
            self.size = Some(size);
            self.drawn = None;
        }
    }
}
