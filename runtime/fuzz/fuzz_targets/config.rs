//! config.json, from its bytes to the launch.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| garboard_runtime::compile::fuzz(bytes));
