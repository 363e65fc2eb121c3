//! A layer's tar stream: what is accepted must be writable and read back.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| garboard_images::fuzz::layer_tar(bytes));
