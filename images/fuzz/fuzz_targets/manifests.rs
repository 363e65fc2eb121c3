//! Index, manifest, configuration and Docker's manifest.json.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| garboard_images::fuzz::manifests(bytes));
