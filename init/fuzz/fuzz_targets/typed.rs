//! Whatever comes in over the console's line is keys or nothing, and nothing holds up what is typed after it.
//!
//! From the `init` directory: `cargo +nightly fuzz run typed -- -max_len=1024`
#![no_main]

use garboard_init::console::keys::{Key, Keys};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut keys = Keys::default();
    for byte in bytes {
        let mut made = 0;
        keys.feed(*byte, |_| made += 1);
        assert!(made <= 2);
    }
    // A person who goes on typing is heard, at the latest when the longest sequence is over.
    let mut heard = false;
    for _ in 0..=64 {
        keys.feed(b'q', |key| heard |= key == Key::Char(b'q'));
    }
    assert!(heard);
});
