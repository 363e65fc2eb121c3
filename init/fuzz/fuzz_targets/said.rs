//! What containers print and say of themselves: bounded, and nothing of it can steer a terminal or end a line.
//!
//! From the `init` directory: `cargo +nightly fuzz run said -- -max_len=8192`
#![no_main]

use garboard_init::escape::escape_into;
use garboard_init::logs::{Lines, MAX_LINE};
use garboard_init::notify::{self, Message};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // What is read at once is the kernel's choice: the first byte says where it stopped.
    let (first, rest) = bytes.split_first().map_or((0, bytes), |(first, rest)| (usize::from(*first), rest));
    let mut lines = Lines::default();
    let mut kept = 0;
    let mut take = |piece: garboard_init::logs::Piece<'_>| {
        assert!(piece.text.len() <= MAX_LINE && !piece.text.contains(&b'\n'));
        kept += piece.text.len();
        harmless(piece.text);
    };
    for read in rest.chunks(first.max(1)) {
        lines.feed(read, &mut take);
    }
    lines.flush(true, &mut take);
    assert!(!lines.pending());
    // Nothing is lost but line feeds, and carriage returns before them.
    let ends = rest.iter().filter(|byte| **byte == b'\n').count();
    let returns = rest.windows(2).filter(|pair| pair == b"\r\n").count();
    assert!(kept <= rest.len() - ends && kept >= rest.len() - ends - returns);

    for message in notify::parse(rest) {
        match message {
            Message::Status(text) => harmless(text.as_bytes()),
            Message::Extend(millis) => assert!(millis > 0),
            _ => {}
        }
    }
});

fn harmless(text: &[u8]) {
    let mut shown = String::new();
    escape_into(&mut shown, text);
    assert!(!shown.chars().any(char::is_control));
    assert!(shown.len() <= 10 * text.len());
}
