//! The dashboard: which page it shows, what is selected, and what a key makes of that. Knows neither a terminal nor the loop.

use super::access::{Attempts, Secret};
use super::keys::Key;
use super::pager::Pager;
use crate::logs::Entry;

/// A message is shown for so many milliseconds.
const MESSAGE_MS: u64 = 8_000;

/// What a key asks of those who can do it.
#[derive(Debug)]
pub enum Command {
    /// Back to plain lines.
    Close,
    /// The screen is to be drawn anew, and the terminal asked for its size.
    Redraw,
    /// Start this container again.
    Restart(usize),
    /// Stop it.
    Stop(usize),
    /// Start it.
    Start(usize),
    /// Give the line to a shell in it.
    Shell(usize),
    /// Say whether that is the passphrase, by [`Dashboard::checked`].
    Check(Secret),
}

/// A log that can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// What this container printed.
    Container(usize),
    /// The kernel's warnings, and what is worse.
    Kernel,
}

/// What the screen is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// All containers.
    Containers,
    /// The log of the selected one.
    Logs,
    /// What the kernel warned of.
    Messages,
    /// What happened.
    Events,
    /// How the boot went.
    Trace,
    /// What the kernel can do.
    Features,
    /// The keys.
    Help,
}

/// What is to be done, by its key, and with which container: the one that was selected when it was wished for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) key: u8,
    pub(super) container: usize,
}

/// How far a person may go.
#[derive(Debug)]
pub(super) enum Gate {
    /// To look.
    Shut,
    /// Further, once the passphrase is said.
    Locked,
    /// It is being typed; what is to be done then.
    Asked(Secret, Wish),
    /// It is being checked.
    Checking(Wish),
    /// Further.
    Open,
}

/// The dashboard, from its opening to its closing.
#[derive(Debug)]
pub struct Dashboard {
    pub(super) page: Page,
    /// The containers' list: its selection is the selected container.
    pub(super) list: Pager,
    /// The page's rows, of any other page.
    pub(super) rows: Pager,
    /// The log as it was when scrolling back began; `None`: the newest lines are followed.
    pub(super) held: Option<Vec<Entry>>,
    pub(super) gate: Gate,
    pub(super) message: Option<(String, u64)>,
    pub(super) containers: usize,
}

impl Dashboard {
    /// For so many containers; `control`: a passphrase opens more.
    pub fn new(containers: usize, control: bool) -> Self {
        let gate = if control { Gate::Locked } else { Gate::Shut };
        let list = Pager::top();
        Self { page: Page::Containers, list, rows: Pager::top(), held: None, gate, message: None, containers }
    }

    /// Which page it shows.
    pub fn page(&self) -> Page {
        self.page
    }

    /// Index of the selected container.
    pub fn selected(&self) -> usize {
        self.list.selected().min(self.containers.saturating_sub(1))
    }

    /// The log that its page is of.
    pub fn log(&self) -> Option<Log> {
        match self.page {
            Page::Logs => Some(Log::Container(self.selected())),
            Page::Messages => Some(Log::Kernel),
            _ => None,
        }
    }

    /// Takes a key. `log` gives the newest lines of one.
    pub fn key(
        &mut self,
        key: Key,
        now: u64,
        attempts: &mut Attempts,
        log: &dyn Fn(Log) -> Vec<Entry>,
    ) -> Option<Command> {
        if matches!(self.gate, Gate::Asked(..)) {
            return self.typed(key, now, attempts);
        }
        match key {
            Key::Control(b'l') => return Some(Command::Redraw),
            Key::Char(b'q') | Key::Control(b'c') if self.page == Page::Containers => return Some(Command::Close),
            Key::Char(b'q') | Key::Esc | Key::Left | Key::Control(b'c') => self.turn_to(Page::Containers),
            Key::Enter | Key::Right if self.page == Page::Containers => self.turn_to(Page::Logs),
            Key::Char(b'l') => self.turn_to(Page::Logs),
            Key::Char(b'm') => self.turn_to(Page::Messages),
            Key::Char(b'e') => self.turn_to(Page::Events),
            Key::Char(b't') => self.turn_to(Page::Trace),
            Key::Char(b'f') => self.turn_to(Page::Features),
            Key::Char(b'?' | b'h') => self.turn_to(Page::Help),
            Key::Char(wish @ (b'r' | b's' | b'S' | b'a' | b'x')) => return self.wish(wish, now, attempts),
            _ => self.scroll(key, log),
        }
        None
    }

    fn turn_to(&mut self, page: Page) {
        if page == Page::Logs && self.containers == 0 {
            return;
        }
        self.page = page;
        self.held = None;
        let follows = matches!(page, Page::Logs | Page::Messages | Page::Events);
        self.rows = if follows { Pager::bottom() } else { Pager::top() };
    }

    fn scroll(&mut self, key: Key, log: &dyn Fn(Log) -> Vec<Entry>) {
        if self.page == Page::Containers {
            self.list.select(key);
            return;
        }
        self.rows.scroll(key);
        match self.log().filter(|_| !self.rows.follows()) {
            None => self.held = None,
            Some(shown) if self.held.is_none() => self.held = Some(log(shown)),
            Some(_) => {}
        }
    }

    /// Shows a message for a while.
    pub fn tell(&mut self, text: &str, now: u64) {
        self.message = Some((text.to_owned(), now.saturating_add(MESSAGE_MS)));
    }

    /// What is to be shown in place of the keys at `now`.
    pub(super) fn message(&self, now: u64) -> Option<&str> {
        match (&self.gate, &self.message) {
            (Gate::Asked(..), _) => Some("passphrase (not shown; Enter, or Esc to leave it):"),
            (Gate::Checking(_), None) => Some("checking the passphrase ..."),
            (_, Some((text, until))) if now < *until => Some(text),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Hands {
        dashboard: Dashboard,
        attempts: Attempts,
        now: u64,
    }

    impl Hands {
        fn on(control: bool) -> Self {
            Self { dashboard: Dashboard::new(3, control), attempts: Attempts::default(), now: 1_000 }
        }

        fn press(&mut self, key: Key) -> Option<Command> {
            self.dashboard.key(key, self.now, &mut self.attempts, &|_| Vec::new())
        }

        fn say(&mut self, text: &str) -> Option<Command> {
            text.bytes().for_each(|byte| assert!(self.press(Key::Char(byte)).is_none()));
            self.press(Key::Enter)
        }
    }

    #[test]
    fn keys_lead_to_pages_and_back() {
        let mut hands = Hands::on(false);
        for (key, page) in [
            (b'l', Page::Logs),
            (b'm', Page::Messages),
            (b'e', Page::Events),
            (b't', Page::Trace),
            (b'f', Page::Features),
            (b'?', Page::Help),
        ] {
            assert!(hands.press(Key::Char(key)).is_none());
            assert_eq!(hands.dashboard.page(), page);
            assert!(hands.press(Key::Esc).is_none());
            assert_eq!(hands.dashboard.page(), Page::Containers);
        }
        assert!(matches!(hands.press(Key::Control(b'l')), Some(Command::Redraw)));
        assert!(matches!(hands.press(Key::Char(b'q')), Some(Command::Close)));
    }

    #[test]
    fn without_control_no_key_changes_anything() {
        let mut hands = Hands::on(false);
        for key in [b'r', b's', b'S', b'a', b'x'] {
            assert!(hands.press(Key::Char(key)).is_none());
        }
        assert!(hands.dashboard.message(1_000).unwrap().contains("only shows"));
        assert!(hands.dashboard.checked(Some(true), 1_000).is_none(), "nobody asked");
        assert!(hands.press(Key::Char(b'r')).is_none());
    }

    #[test]
    fn a_passphrase_said_once_opens_until_the_dashboard_is_closed() {
        let mut hands = Hands::on(true);
        hands.press(Key::Down);
        assert!(hands.press(Key::Char(b'r')).is_none());
        // Letters that are keys elsewhere are none here.
        let Some(Command::Check(secret)) = hands.say("qrs e") else { panic!("not asked") };
        assert_eq!(secret.bytes(), b"qrs e");
        assert!(hands.press(Key::Char(b's')).is_none(), "not while it is checked");
        assert!(matches!(hands.dashboard.checked(Some(true), 1_000), Some(Command::Restart(1))));
        assert!(matches!(hands.press(Key::Char(b's')), Some(Command::Stop(1))));
        assert!(matches!(hands.press(Key::Char(b'a')), Some(Command::Start(1))));
    }

    #[test]
    fn what_was_wished_for_is_done_where_it_was_wished_for() {
        let mut hands = Hands::on(true);
        hands.press(Key::Down);
        hands.press(Key::Char(b's'));
        assert!(matches!(hands.say("secret"), Some(Command::Check(_))));
        // Typed ahead, while the passphrase is checked.
        hands.press(Key::Down);
        assert_eq!(hands.dashboard.selected(), 2);
        assert!(matches!(hands.dashboard.checked(Some(true), 1_000), Some(Command::Stop(1))));
        assert!(matches!(hands.press(Key::Char(b's')), Some(Command::Stop(2))));
    }

    #[test]
    fn a_wrong_one_opens_nothing_and_the_next_waits() {
        let mut hands = Hands::on(true);
        hands.press(Key::Char(b's'));
        assert!(matches!(hands.say("guess"), Some(Command::Check(_))));
        hands.attempts.answer(false, hands.now);
        assert!(hands.dashboard.checked(Some(false), hands.now).is_none());
        assert!(hands.press(Key::Char(b's')).is_none());
        assert!(hands.say("guess").is_none(), "no attempt is taken yet");
        assert_eq!(hands.dashboard.page(), Page::Events, "so these were keys like any others");
        hands.now += 1_000;
        hands.press(Key::Char(b's'));
        assert!(hands.say("").is_none(), "nothing said is no attempt");
        hands.press(Key::Char(b's'));
        hands.press(Key::Char(b'x'));
        hands.press(Key::Esc);
        assert!(matches!(hands.dashboard.gate, Gate::Locked));
    }
}
