//! Foreign text on the console: nothing in it can move the cursor, end the line or pass for somebody else's.
//!
//! The terminal is taken to read UTF-8, as all of today's do. One of eight bits a character, set to hear the C1 controls, would find
//! such in the bytes of letters: whoever has one has it hear none.
//!
//! Allocates nothing: the handlers of fatal signals use it too.

use std::fmt::Write;

/// Appends `text` with everything that is not plainly printable written out: `\n`-like names for the common ones, `\x1b` for
/// control and undecodable bytes, `\u{202e}` for characters that reorder, hide or break text. `out` grows by at most ten times;
/// what it doesn't take is left out.
pub fn escape_into(out: &mut impl Write, text: &[u8]) {
    let _ = try_escape(out, text);
}

fn try_escape(out: &mut impl Write, text: &[u8]) -> std::fmt::Result {
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\t' => out.write_str("    ")?,
                c if c.is_ascii_control() => write!(out, "\\x{:02x}", c as u8)?,
                c if hidden(c) => write!(out, "{}", c.escape_unicode())?,
                c => out.write_char(c)?,
            }
        }
        // Bytes that are no text; 0x80–0x9f would be control sequences to some terminals.
        chunk.invalid().iter().try_for_each(|byte| write!(out, "\\x{byte:02x}"))?;
    }
    Ok(())
}

/// Characters that are not controls by number but act as if they were: C1, bidirectional overrides, line separators, tags,
/// zero-width ones.
fn hidden(c: char) -> bool {
    matches!(c, '\u{80}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Foreign text to stand in a line of ours: what ends or breaks one is a blank.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escape(text: &[u8]) -> String {
        let mut out = String::new();
        escape_into(&mut out, text);
        out
    }

    #[test]
    fn plain_text_stays() {
        assert_eq!(escape("naïve 船 \\x41 \"q\"".as_bytes()), "naïve 船 \\x41 \"q\"");
        assert_eq!(escape(b"a\tb"), "a    b");
    }

    #[test]
    fn what_steers_a_terminal_is_written_out() {
        assert_eq!(escape(b"\x1b[2J\r\x07\x7f"), "\\x1b[2J\\x0d\\x07\\x7f");
        assert_eq!(escape("\u{9b}2J\u{202e}\u{2028}".as_bytes()), "\\u{9b}2J\\u{202e}\\u{2028}");
        assert_eq!(escape(b"\x9b2J\xff\xc3"), "\\x9b2J\\xff\\xc3");
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_steers_is_left(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let out = escape(&text);
            proptest::prop_assert!(!out.chars().any(|c| c.is_control() || hidden(c)));
            proptest::prop_assert!(out.len() <= 10 * text.len());
        }
    }
}
