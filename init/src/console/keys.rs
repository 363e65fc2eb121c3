//! From bytes to keys. Whatever comes in is a key, or is swallowed; nothing of a sequence is kept but its numbers.

/// A longer sequence is none, in bytes.
const LONGEST: usize = 32;
/// Nor is a longer string: what a terminal says in one (its name, a colour, what it can do) is seldom a tenth of that.
const LONGEST_TEXT: usize = 256;
/// A mouse in the oldest way of reporting one: a button and two coordinates, each a byte that looks like a key.
const MOUSE: usize = 3;
/// The length of a sequence without numbers, but for its escape.
const BARE: usize = 2;

/// What a person, or the terminal itself, said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A printable ASCII character, or a byte of one that isn't ASCII.
    Char(u8),
    /// Return.
    Enter,
    /// Escape.
    Esc,
    /// Backspace or delete.
    Erase,
    /// Control and a letter, as that letter.
    Control(u8),
    /// Arrows.
    Up,
    /// …
    Down,
    /// …
    Left,
    /// …
    Right,
    /// A page back.
    PageUp,
    /// A page on.
    PageDown,
    /// To the first.
    Home,
    /// To the last.
    End,
    /// The terminal's answer: it has so many columns and rows.
    Size(usize, usize),
}

impl Key {
    /// A person pressed it on purpose: neither noise on the line nor the terminal's answer.
    pub fn is_pressed(self) -> bool {
        match self {
            Self::Char(byte) => byte.is_ascii(),
            Self::Control(letter) => letter == b'l' || letter == b'c',
            Self::Size(..) => false,
            _ => true,
        }
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    /// After an escape: it may begin a sequence, or be the key.
    Escape,
    /// `ESC [`, with parameters.
    Sequence,
    /// `ESC O` and the Linux console's `ESC [ [`: one more byte.
    Last,
    /// `ESC [ M`: so many bytes more, whatever they are.
    Mouse(usize),
    /// The rest of a string (`ESC ]`, `ESC P`, …).
    Text,
    /// An escape in it, which ends it.
    TextEscape,
}

/// The parser.
#[derive(Debug, Default)]
pub struct Keys {
    state: State,
    /// Bytes of the sequence so far.
    length: usize,
    /// Its parameters: the first three numbers.
    numbers: [usize; 3],
    /// Which of them is being read.
    place: usize,
    /// A function key's sequence (`ESC O`), not `ESC [ [`.
    function: bool,
}

impl Keys {
    /// Takes a byte and gives out what it makes whole: at most two keys.
    pub fn feed(&mut self, byte: u8, mut out: impl FnMut(Key)) {
        self.length = self.length.saturating_add(1);
        if self.length > self.longest() {
            self.state = State::Ground;
        }
        self.state = match (self.state, byte) {
            (State::Ground, 0x1b) => self.begin(),
            (State::Ground, _) => {
                ground(byte).into_iter().for_each(out);
                State::Ground
            }
            (State::Escape, b'[') => State::Sequence,
            (State::Escape, b'O') => {
                self.function = true;
                State::Last
            }
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => State::Text,
            (State::Escape, 0x1b) => {
                out(Key::Esc);
                self.begin()
            }
            (State::Escape, _) => {
                out(Key::Esc);
                ground(byte).into_iter().for_each(out);
                State::Ground
            }
            (State::Text, 0x07) => State::Ground,
            (State::Text, 0x1b) => State::TextEscape,
            (State::Text | State::TextEscape, 0x18 | 0x1a) => State::Ground,
            (State::Text, _) => State::Text,
            (State::TextEscape, _) => State::Ground,
            (State::Sequence | State::Last | State::Mouse(_), 0x1b) => self.begin(),
            (State::Sequence, b'0'..=b'9') => {
                self.digit(byte);
                State::Sequence
            }
            (State::Sequence, b';') => {
                self.place = self.place.saturating_add(1);
                State::Sequence
            }
            (State::Sequence, 0x20..=0x3f) => State::Sequence,
            (State::Sequence, b'[') => State::Last,
            (State::Sequence, b'M') if self.length == BARE => State::Mouse(MOUSE),
            (State::Mouse(left), _) if left > 1 => State::Mouse(left.saturating_sub(1)),
            (State::Mouse(_), _) => State::Ground,
            (State::Sequence, 0x40..=0x7e) => {
                self.sequence(byte).into_iter().for_each(out);
                State::Ground
            }
            (State::Last, _) => {
                if self.function {
                    arrow(byte).into_iter().for_each(out);
                }
                State::Ground
            }
            // A control in the middle of a sequence breaks it.
            (State::Sequence, _) => State::Ground,
        };
    }

    /// How long what is being read may be.
    fn longest(&self) -> usize {
        match self.state {
            State::Ground => usize::MAX,
            State::Text | State::TextEscape => LONGEST_TEXT,
            _ => LONGEST,
        }
    }

    /// An escape is all that came, and may be a key or a beginning.
    pub fn undecided(&self) -> bool {
        self.state == State::Escape
    }

    /// Nothing more came for a while: it was the key.
    pub fn settle(&mut self) -> Option<Key> {
        self.undecided().then(|| {
            self.state = State::Ground;
            Key::Esc
        })
    }

    fn begin(&mut self) -> State {
        *self = Self::default();
        State::Escape
    }

    fn digit(&mut self, byte: u8) {
        if let Some(number) = self.numbers.get_mut(self.place) {
            let digit = usize::from(byte.saturating_sub(b'0'));
            *number = number.saturating_mul(10).saturating_add(digit).min(usize::from(u16::MAX));
        }
    }

    fn sequence(&self, end: u8) -> Option<Key> {
        let [first, second, third] = self.numbers;
        match (end, first) {
            (b'~', 1 | 7) => Some(Key::Home),
            (b'~', 4 | 8) => Some(Key::End),
            (b'~', 5) => Some(Key::PageUp),
            (b'~', 6) => Some(Key::PageDown),
            (b'~', 3) => Some(Key::Erase),
            (b'R', _) => Some(Key::Size(second, first)),
            (b't', 8) => Some(Key::Size(third, second)),
            _ => arrow(end),
        }
    }
}

fn ground(byte: u8) -> Option<Key> {
    match byte {
        b'\r' | b'\n' => Some(Key::Enter),
        0x08 | 0x7f => Some(Key::Erase),
        b' '..=b'~' | 0x80.. => Some(Key::Char(byte)),
        0x01..=0x1a => Some(Key::Control(byte | 0x60)),
        _ => None,
    }
}

fn arrow(end: u8) -> Option<Key> {
    Some(match end {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' => Key::Right,
        b'D' => Key::Left,
        b'H' => Key::Home,
        b'F' => Key::End,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8]) -> Vec<Key> {
        let mut keys = Keys::default();
        let mut out = Vec::new();
        bytes.iter().for_each(|byte| keys.feed(*byte, |key| out.push(key)));
        out.extend(keys.settle());
        out
    }

    #[test]
    fn what_terminals_send_is_understood() {
        use Key as K;
        assert_eq!(all(b"q\r\n\x7f\x0c"), [K::Char(b'q'), K::Enter, K::Enter, K::Erase, K::Control(b'l')]);
        assert_eq!(all(b"\x1b[A\x1bOB\x1b[1;5C\x1b[D"), [K::Up, K::Down, K::Right, K::Left]);
        assert_eq!(all(b"\x1b[5~\x1b[6~\x1b[H\x1b[4~"), [K::PageUp, K::PageDown, K::Home, K::End]);
        assert_eq!(all(b"\x1b[24;80R\x1b[8;50;132t"), [K::Size(80, 24), K::Size(132, 50)]);
        assert_eq!(all(b"\x1b"), [K::Esc]);
        assert_eq!(all(b"\x1b\x1b[Bq"), [K::Esc, K::Down, K::Char(b'q')]);
        assert_eq!(all(b"\x1bq"), [K::Esc, K::Char(b'q')]);
    }

    #[test]
    fn what_is_unknown_is_swallowed() {
        assert_eq!(all(b"\x1b[?1;2c\x1b[[Aq\x1b[15~\x1bOP\x1b]0;title\x07j"), [Key::Char(b'q'), Key::Char(b'j')]);
        assert_eq!(all(b"\x1bPx\x1b\\j\0"), [Key::Char(b'j')]);
        assert_eq!(all(b"\x1b[1;\x03A"), [Key::Char(b'A')]);
        // The oldest way to report a mouse, and a newer one.
        assert_eq!(
            all(b"\x1b[M !!j\x1b[32;5;7Mk\x1b[Mq\x1b[1~j"),
            [Key::Char(b'j'), Key::Char(b'k'), Key::Home, Key::Char(b'j')]
        );
        // Some strings are long; one without an end holds nothing up for ever.
        let long = [b"\x1b]".as_slice(), &[b'x'; LONGEST_TEXT - 2], b"\x07q"].concat();
        assert_eq!(all(&long), [Key::Char(b'q')]);
        let endless = [b"\x1b]".as_slice(), &[b'x'; LONGEST_TEXT], b"q"].concat();
        assert_eq!(all(&endless).last(), Some(&Key::Char(b'q')));
    }

    #[test]
    fn noise_and_answers_are_not_pressed() {
        assert!(!all(b"\0\xff\x80\x01\x13\x1b[24;80R").into_iter().any(Key::is_pressed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_keys_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(all(&bytes).len() <= bytes.len());
            // It always comes back: after the longest string, a letter is a letter.
            let bytes = [&bytes[..], &[b' '; LONGEST_TEXT], b"q"].concat();
            prop_assert_eq!(all(&bytes).last().copied(), Some(Key::Char(b'q')));
        }
    }
}
