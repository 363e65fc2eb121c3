//! Whatever is asked over a status port is a request, or an error that is one line.
//!
//! From the `init` directory: `cargo +nightly fuzz run asked -- -max_len=65536`
#![no_main]

use garboard_init::status::protocol::{Answer, encode, parse};

libfuzzer_sys::fuzz_target!(|line: &[u8]| {
    if let Err((id, message)) = parse(line) {
        let reply = encode(id, Answer::Error { message });
        assert_eq!(reply.iter().position(|byte| *byte == b'\n'), Some(reply.len() - 1));
    }
});
