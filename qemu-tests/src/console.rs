//! Reads the serial console into a bounded buffer, notes when what came, and writes to it.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::ops::Range;
use std::process::{ChildStdin, ChildStdout};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of console text that are kept; older ones are dropped.
const LIMIT: usize = 4 << 20;
/// How a line of Garboard's own goes on in the next row, where it is longer than the terminal is wide.
const BROKEN: &[u8] = b"\r\ngarboard> ";
/// Arrival times that are kept.
const MARKS: usize = 64 << 10;

/// A machine's serial console. Clones are the same console.
#[derive(Debug, Clone)]
pub struct Console {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    input: Mutex<Option<ChildStdin>>,
    started: Instant,
}

#[derive(Debug, Default)]
struct State {
    text: VecDeque<u8>,
    /// Bytes dropped from the front of `text`.
    dropped: u64,
    /// `(position behind the chunk, time since the start)` of each chunk read.
    marks: VecDeque<(u64, Duration)>,
    ended: bool,
    /// Nothing is read.
    held: bool,
}

/// What [`Console::wait_for`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// The text was there, this long after the machine's start.
    At(Duration),
    /// The console ended without it.
    Ended,
    /// The time was up.
    TimedOut,
}

impl Console {
    pub(crate) fn new(started: Instant, input: Option<ChildStdin>) -> Self {
        let shared = Shared { state: Mutex::default(), changed: Condvar::new(), input: Mutex::new(input), started };
        Self { shared: Arc::new(shared) }
    }

    /// Reads `output` to its end in a thread, copying it to `echo`.
    pub(crate) fn read_from(&self, mut output: ChildStdout, mut echo: Option<Box<dyn Write + Send>>) {
        let console = self.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            loop {
                match output.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => {
                        console.append(&buffer[..n]);
                        let shown = echo.as_mut().map(|echo| echo.write_all(&buffer[..n]).and_then(|()| echo.flush()));
                        if shown.is_some_and(|result| result.is_err()) {
                            echo = None;
                        }
                        console.pause();
                    }
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            console.lock().ended = true;
            console.shared.changed.notify_all();
        });
    }

    fn append(&self, bytes: &[u8]) {
        let mut state = self.lock();
        state.text.extend(bytes);
        let excess = state.text.len().saturating_sub(LIMIT);
        state.text.drain(..excess);
        state.dropped += excess as u64;
        let position = state.dropped + state.text.len() as u64;
        state.marks.push_back((position, self.shared.started.elapsed()));
        if state.marks.len() > MARKS {
            state.marks.pop_front();
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Reads no more than what is being read now, as a reader who stalls, until [`Console::go_on`]. The line fills up.
    pub fn hold(&self) {
        self.lock().held = true;
    }

    /// Reads on.
    pub fn go_on(&self) {
        self.lock().held = false;
        self.shared.changed.notify_all();
    }

    /// Waits while it is held.
    fn pause(&self) {
        let state = self.shared.changed.wait_while(self.lock(), |state| state.held);
        drop(state.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything printed so far (the last 4 MiB of it), with what isn't UTF-8 replaced.
    pub fn transcript(&self) -> String {
        let state = self.lock();
        let (a, b) = state.text.as_slices();
        String::from_utf8_lossy(&[a, b].concat()).into_owned()
    }

    /// The last `lines` lines.
    pub fn tail(&self, lines: usize) -> String {
        let text = self.transcript();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Whether `text` has been printed. A line of Garboard's own that is broken at the terminal's width counts as one here.
    pub fn contains(&self, text: &str) -> bool {
        find(&self.lock(), text.as_bytes(), 0).is_some()
    }

    /// When `text` was first printed, counted from the start of QEMU.
    pub fn time_of(&self, text: &str) -> Option<Duration> {
        let state = self.lock();
        let found = find(&state, text.as_bytes(), 0)?;
        arrival(&state, found.end)
    }

    /// Writes to the console, as a person at the keyboard would. Nothing happens once the machine has ended.
    pub fn send(&self, bytes: &[u8]) {
        let mut input = self.shared.input.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = input.as_mut().is_some_and(|pipe| pipe.write_all(bytes).and_then(|()| pipe.flush()).is_err());
        if failed {
            *input = None;
        }
    }

    pub(crate) fn wait_for(&self, text: &str, timeout: Duration) -> Found {
        let mut searched = 0;
        self.wait(timeout, |state| {
            let found = find(state, text.as_bytes(), searched).map(|found| found.end);
            // The text may have begun to come in, in several rows.
            let longest = text.len() * (1 + BROKEN.len());
            searched = (state.dropped + state.text.len() as u64).saturating_sub(longest as u64);
            found
        })
    }

    /// Waits for a complete line that `wanted` accepts.
    pub(crate) fn wait_line(&self, timeout: Duration, mut wanted: impl FnMut(&str) -> bool) -> Found {
        let mut begin = 0;
        self.wait(timeout, |state| {
            while let Some(end) = find(state, b"\n", begin).map(|found| found.start) {
                let from = (begin.max(state.dropped) - state.dropped) as usize;
                let to = (end - state.dropped) as usize;
                let line: Vec<u8> = state.text.range(from..to).copied().collect();
                begin = end + 1;
                if wanted(String::from_utf8_lossy(&line).trim_end_matches('\r')) {
                    return Some(begin);
                }
            }
            None
        })
    }

    /// Waits until `search` gives the position behind what it looks for.
    fn wait(&self, timeout: Duration, mut search: impl FnMut(&State) -> Option<u64>) -> Found {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if let Some(end) = search(&state) {
                return Found::At(arrival(&state, end).unwrap_or_else(|| self.shared.started.elapsed()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended {
                return Found::Ended;
            }
            if left.is_zero() {
                return Found::TimedOut;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Where `needle` is in everything printed, looked for from position `from` on.
fn find(state: &State, needle: &[u8], from: u64) -> Option<Range<u64>> {
    let skip = from.saturating_sub(state.dropped) as usize;
    let (a, b) = state.text.as_slices();
    let whole;
    let text = if b.is_empty() {
        a
    } else {
        whole = [a, b].concat();
        &whole
    };
    let rest = text.get(skip..)?;
    let begin = state.dropped + skip as u64;
    (0..=rest.len()).find_map(|at| {
        let length = matched(&rest[at..], needle)?;
        Some(begin + at as u64..begin + (at + length) as u64)
    })
}

/// How much of `text` is `needle`, with the places at which it was broken, if it begins with that.
fn matched(text: &[u8], needle: &[u8]) -> Option<usize> {
    let mut rest = text;
    for (n, byte) in needle.iter().enumerate() {
        if n > 0 && rest.first() != Some(byte) {
            rest = rest.strip_prefix(BROKEN)?;
        }
        rest = rest.strip_prefix(&[*byte])?;
    }
    Some(text.len() - rest.len())
}

/// When the byte before `position` came.
fn arrival(state: &State, position: u64) -> Option<Duration> {
    let index = state.marks.partition_point(|(end, _)| *end < position);
    state.marks.get(index).map(|(_, time)| *time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console() -> Console {
        Console::new(Instant::now(), None)
    }

    #[test]
    fn finds_text_that_comes_in_pieces() {
        let console = console();
        let writer = console.clone();
        let thread = std::thread::spawn(move || {
            for piece in ["noise wel", "co", "me\nmore"] {
                std::thread::sleep(Duration::from_millis(20));
                writer.append(piece.as_bytes());
            }
        });
        assert!(
            matches!(console.wait_for("welcome", Duration::from_secs(5)), Found::At(t) if t >= Duration::from_millis(60))
        );
        thread.join().unwrap();
        assert!(console.contains("more") && !console.contains("other"));
        assert!(console.time_of("noise").unwrap() < console.time_of("welcome").unwrap());
        assert_eq!(console.tail(1), "more");
    }

    #[test]
    fn finds_what_is_broken_into_rows() {
        let console = console();
        console.append(b"garboard: it was so because\r\ngarboard> of that\r\nweb | x\r\ngarboard: y");
        assert!(console.contains("so becauseof that"));
        assert!(console.contains("that\r\nweb") && console.contains("x\r\ngarboard: y"));
        assert!(!console.contains("webx") && !console.contains("x\r\ny"));
        assert_eq!(matched(b"ab\r\ngarboard> c", b"abc"), Some(15));
        assert!(matches!(console.wait_for("sobecause", Duration::ZERO), Found::TimedOut));
        console.append(b" so\r\ngarboard> on");
        assert!(matches!(console.wait_for("y soon", Duration::ZERO), Found::At(_)));
    }

    #[test]
    fn finds_whole_lines() {
        let console = console();
        console.append(b"web | not ye");
        assert_eq!(console.wait_line(Duration::ZERO, |line| line.starts_with("web")), Found::TimedOut);
        console.append(b"t\r\nother\n");
        let mut seen = Vec::new();
        let found = console.wait_line(Duration::ZERO, |line| {
            seen.push(line.to_owned());
            line == "other"
        });
        assert!(matches!(found, Found::At(_)));
        assert_eq!(seen, ["web | not yet", "other"]);
    }

    #[test]
    fn gives_up_at_the_end_and_at_the_deadline() {
        let console = console();
        assert_eq!(console.wait_for("x", Duration::from_millis(30)), Found::TimedOut);
        console.lock().ended = true;
        assert_eq!(console.wait_for("x", Duration::from_secs(60)), Found::Ended);
    }

    #[test]
    fn keeps_a_bounded_amount() {
        let console = console();
        console.append(b"first");
        for _ in 0..5 {
            console.append(&vec![b'.'; 1 << 20]);
        }
        console.append(b"last");
        assert_eq!(console.transcript().len(), LIMIT);
        assert!(!console.contains("first") && console.contains("last"));
        assert!(matches!(console.wait_for("last", Duration::ZERO), Found::At(_)));
    }
}
