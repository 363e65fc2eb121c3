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
    /// The rest of the present line is not wanted, as some of it was thrown away.
    skips: bool,
}

impl Lines {
    /// Takes what was read and gives out every finished line and full piece. Returns how many of the bytes were thrown away, as
    /// they belong to a line that had [lost](Self::lose) some.
    pub fn feed(&mut self, mut bytes: &[u8], mut out: impl FnMut(Piece<'_>)) -> usize {
        let mut skipped = 0;
        if self.skips {
            let end = bytes.iter().position(|b| *b == b'\n');
            skipped = end.map_or(bytes.len(), |at| at.saturating_add(1));
            bytes = bytes.get(skipped..).unwrap_or_default();
            self.skips = end.is_none();
            if !self.skips && self.continues {
                out(Piece { text: b"", continues: true, unfinished: false });
                self.continues = false;
            }
        }
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
        skipped
    }

    /// What comes next was thrown away unread: so is the rest of the line in which that begins, and of the one in which it ends. They would
    /// be taken for one that nobody printed. Returns how many bytes had been waiting for the rest of theirs.
    pub fn lose(&mut self) -> usize {
        self.skips = true;
        std::mem::take(&mut self.partial).len()
    }

    /// Gives out an unfinished line, when it has waited long enough or nothing more will come.
    pub fn flush(&mut self, ended: bool, mut out: impl FnMut(Piece<'_>)) {
        if !self.partial.is_empty() {
            out(Piece { text: &self.partial, continues: self.continues, unfinished: !ended });
            self.continues = true;
            self.partial = Vec::new();
        }
        self.continues &= !ended;
        self.skips &= !ended;
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
    fn what_was_thrown_away_leaves_whole_lines() {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        let mut feed = |lines: &mut Lines, bytes: &[u8]| {
            lines.feed(bytes, |p| out.push((String::from_utf8_lossy(p.text).into_owned(), p.continues, p.unfinished)))
        };
        assert_eq!(feed(&mut lines, b"one\nall work and"), 0);
        assert_eq!((lines.lose(), lines.pending(), lines.lose()), (12, false, 0));
        assert_eq!(feed(&mut lines, b"work and"), 8);
        assert_eq!(feed(&mut lines, b" no play\ntwo\n"), 9);
        // Of a long line a piece was given out before.
        assert_eq!(feed(&mut lines, &[b'x'; MAX_LINE + 1]), 0);
        assert_eq!(lines.lose(), 1);
        assert_eq!(feed(&mut lines, b"x\nthree\n"), 2);
        // What another process prints begins a line.
        lines.lose();
        lines.flush(true, |_| panic!("nothing waits"));
        assert_eq!(feed(&mut lines, b"four\n"), 0);
        let long = "x".repeat(MAX_LINE);
        let expected = [
            ("one", false, false),
            ("two", false, false),
            (&*long, false, true),
            ("", true, false),
            ("three", false, false),
            ("four", false, false),
        ];
        let expected = expected.map(|(text, continues, unfinished)| (text.to_owned(), continues, unfinished));
        assert_eq!(out, expected);
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
