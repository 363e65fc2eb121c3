//! The EROFS reader on any image.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| garboard_images::fuzz::erofs(bytes));
