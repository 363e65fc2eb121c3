//! Any bytes give an appliance or errors that can be drawn; never a panic, and bounded.
//!
//! From the `config` directory: `cargo +nightly fuzz run parse -- -dict=fuzz/toml.dict -max_len=65536`

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match garboard_config::parse_bytes("fuzz.toml", bytes) {
        Ok(appliance) => {
            assert!(!appliance.containers.is_empty());
            for (index, container) in appliance.containers.iter().enumerate() {
                for dependency in &container.depends_on {
                    assert!(appliance.position(&dependency.container).is_some_and(|other| other < index));
                }
            }
        }
        Err(errors) => {
            assert!((1..=100).contains(&errors.iter().count()));
            let drawn = errors.to_string();
            assert!(!drawn.chars().any(|c| c.is_control() && c != '\n'));
            assert!(errors.iter().all(|error| error.place.line > 0 && error.place.column > 0));
            errors.to_ansi();
        }
    }
});
