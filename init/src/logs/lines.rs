//! Bytes to lines.

/// Longer lines are cut into pieces of this many bytes.
pub const MAX_LINE: usize = 1024;

/// A line, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Its bytes, without the line feed (and a carriage return before it).
    pub text: &'a [u8],
    /// It goes on from the piece before.
    pub continues: bool,
    /// The rest of its line is still to come, if ever.
    pub unfinished: bool,
}

/// The unfinished line of one container.
#[derive(Debug, Default)]
pub struct Lines {
    /// Empty, and without memory of its own, most of the time.
    partial: Vec<u8>,
    /// A piece of the present line was given out already.
    continues: bool,
}

impl Lines {
    /// Takes what was read and gives out every finished line and full piece.
    pub fn feed(&mut self, mut bytes: &[u8], mut out: impl FnMut(Piece<'_>)) {
        while !bytes.is_empty() {
            let room = MAX_LINE.saturating_sub(self.partial.len());
            let (line, finished) = match bytes.iter().take(room.saturating_add(1)).position(|b| *b == b'\n') {
                Some(at) => (bytes.get(..at), true),
                None => (bytes.get(..room.min(bytes.len())), false),
            };
            let line = line.unwrap_or_default();
            bytes = bytes.get(line.len().saturating_add(usize::from(finished))..).unwrap_or_default();
            if finished && self.partial.is_empty() {
                out(Piece { text: without_cr(line), continues: self.continues, unfinished: false });
                self.continues = false;
                continue;
            }
            self.partial.extend_from_slice(line);
            if finished {
                out(Piece { text: without_cr(&self.partial), continues: self.continues, unfinished: false });
                self.continues = false;
                self.partial = Vec::new();
            } else if self.partial.len() >= MAX_LINE && !bytes.is_empty() {
                out(Piece { text: &self.partial, continues: self.continues, unfinished: true });
                self.continues = true;
                self.partial.clear();
            }
        }
    }

    /// Gives out an unfinished line, when it has waited long enough or nothing more will come.
    pub fn flush(&mut self, ended: bool, mut out: impl FnMut(Piece<'_>)) {
        if !self.partial.is_empty() {
            out(Piece { text: &self.partial, continues: self.continues, unfinished: !ended });
            self.continues = true;
            self.partial = Vec::new();
        }
        self.continues &= !ended;
    }

    /// Something waits for the rest of its line.
    pub fn pending(&self) -> bool {
        !self.partial.is_empty()
    }
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(chunks: &[&[u8]]) -> Vec<(String, bool)> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for chunk in chunks {
            lines.feed(chunk, |p| out.push((String::from_utf8_lossy(p.text).into_owned(), p.continues)));
        }
        lines.flush(true, |p| out.push((String::from_utf8_lossy(p.text).into_owned(), p.continues)));
        out
    }

    #[test]
    fn lines_are_put_together_over_reads() {
        let line = |s: &str| (s.to_owned(), false);
        assert_eq!(all(&[b"one\ntw", b"o\r\n", b"\nend"]), [line("one"), line("two"), line(""), line("end")]);
    }

    #[test]
    fn long_lines_come_in_marked_pieces() {
        let long = [b'x'; 2 * MAX_LINE + 5];
        let pieces = all(&[&long, b"\nnext\n"]);
        let sizes: Vec<_> = pieces.iter().map(|(t, c)| (t.len(), *c)).collect();
        assert_eq!(sizes, [(MAX_LINE, false), (MAX_LINE, true), (5, true), (4, false)]);
        let mut unfinished = Vec::new();
        Lines::default().feed(&[&long[..], b"\n"].concat(), |piece| unfinished.push(piece.unfinished));
        assert_eq!(unfinished, [true, true, false]);
        assert_eq!(all(&[&long[..MAX_LINE], b"\n"]), [("x".repeat(MAX_LINE), false)], "a line that just fits is whole");
    }

    #[test]
    fn a_flushed_part_is_continued() {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        lines.feed(b"Password: ", |_| panic!("unfinished"));
        assert!(lines.pending());
        lines.flush(false, |p| {
            assert!(p.unfinished);
            out.push((p.text.to_vec(), p.continues));
        });
        assert!(!lines.pending());
        lines.feed(b"ok\nnext\n", |p| out.push((p.text.to_vec(), p.continues)));
        assert_eq!(out, [(b"Password: ".to_vec(), false), (b"ok".to_vec(), true), (b"next".to_vec(), false)]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_however_it_is_cut(text in proptest::collection::vec(prop_oneof![9 => Just(b'a'), 1 => Just(b'\n')], 0..6000),
                                             cuts in proptest::collection::vec(1..3000_usize, 0..8)) {
            let mut chunks = Vec::new();
            let mut rest = &text[..];
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                chunks.push(head);
                rest = tail;
            }
            chunks.push(rest);
            let mut lines = Lines::default();
            let mut again = Vec::new();
            let mut first = true;
            let mut join = |p: Piece<'_>| {
                assert!(p.text.len() <= MAX_LINE);
                if !p.continues && !std::mem::take(&mut first) { again.push(b'\n'); }
                again.extend_from_slice(p.text);
            };
            for chunk in chunks { lines.feed(chunk, &mut join); }
            lines.flush(true, &mut join);
            let expected = text.strip_suffix(b"\n").unwrap_or(&text);
            prop_assert_eq!(&again[..], expected);
        }
    }
}
