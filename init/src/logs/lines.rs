//! Bytes to lines.

/// Longer lines are cut into pieces of this many bytes, or up to three fewer: no character is cut.
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
                self.give(true, &mut out);
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

    /// Gives out an unfinished line, when it has waited long enough or nothing more will come. Of a character of which some is still
    /// to come nothing is given out. When nothing more will come, a line that was given out in pieces has its end.
    pub fn flush(&mut self, ended: bool, mut out: impl FnMut(Piece<'_>)) {
        if ended && self.continues && self.partial.is_empty() {
            out(Piece { text: b"", continues: true, unfinished: false });
        }
        self.give(!ended, out);
        self.continues &= !ended;
        self.skips &= !ended;
    }

    /// Gives out what waits, but for the beginning of a character whose rest may come.
    fn give(&mut self, unfinished: bool, mut out: impl FnMut(Piece<'_>)) {
        let end = if unfinished { whole_characters(&self.partial) } else { self.partial.len() };
        let (text, rest) = self.partial.split_at_checked(end).unwrap_or_default();
        if !text.is_empty() {
            out(Piece { text, continues: self.continues, unfinished });
            self.continues = true;
            self.partial = rest.to_vec();
        }
    }

    /// Something waits for the rest of its line.
    pub fn pending(&self) -> bool {
        !self.partial.is_empty()
    }
}

/// Where the beginning of a character that isn't finished begins, or the end. What isn't UTF-8 has no characters.
fn whole_characters(text: &[u8]) -> usize {
    let starts = (1..=3).filter_map(|back| text.len().checked_sub(back));
    let unfinished =
        |tail: &[u8]| std::str::from_utf8(tail).is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none());
    starts.filter(|at| text.get(*at..).is_some_and(unfinished)).min().unwrap_or(text.len())
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

    #[test]
    fn a_line_that_never_ends_ends_with_its_run() {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        lines.feed(b"Password: ", |_| panic!("unfinished"));
        lines.flush(false, |p| out.push((p.text.to_vec(), p.continues, p.unfinished)));
        lines.flush(true, |p| out.push((p.text.to_vec(), p.continues, p.unfinished)));
        assert_eq!(out, [(b"Password: ".to_vec(), false, true), (Vec::new(), true, false)]);
        lines.flush(true, |_| panic!("it has ended"));
        let mut next = Vec::new();
        lines.feed(b"hello\n", |p| next.push((p.text.to_vec(), p.continues)));
        assert_eq!(next, [(b"hello".to_vec(), false)], "of the next run");
    }

    #[test]
    fn no_character_is_cut() {
        for (before, character) in [("", "é"), ("a", "é"), ("", "船"), ("ab", "船"), ("a", "🛥"), ("", "🛥")] {
            let text = format!("{before}{}", character.repeat(2000));
            let pieces = all(&[text.as_bytes(), b"\n"]);
            assert!(pieces.len() > 2 && pieces.iter().all(|(piece, _)| !piece.contains('\u{fffd}')), "{character}");
            assert_eq!(pieces.into_iter().map(|(piece, _)| piece).collect::<String>(), text);
        }
        let mut lines = Lines::default();
        let mut out = Vec::new();
        lines.feed("船".as_bytes().get(..2).unwrap(), |_| panic!("unfinished"));
        lines.flush(false, |_| panic!("half a character"));
        assert!(lines.pending());
        lines.feed(&"船é".as_bytes()[2..4], |_| panic!("unfinished"));
        lines.flush(false, |p| out.push(p.text.to_vec()));
        // What is no text waits for nothing: at the end, or if no character begins so.
        lines.flush(true, |p| out.push(p.text.to_vec()));
        lines.feed(b"\xc3\x28\xff\xbf\xbf", |_| panic!("unfinished"));
        lines.flush(false, |p| out.push(p.text.to_vec()));
        assert_eq!(out, ["船".as_bytes(), b"\xc3", b"\xc3\x28\xff\xbf\xbf"]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_however_it_is_cut(text in proptest::collection::vec(prop_oneof![9 => Just(b'a'), 5 => Just(0xe8), 5 => Just(0x88), 1 => Just(b'\n')], 0..6000),
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
