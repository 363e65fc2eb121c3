//! Which devices are there, by their modalias (`MODALIAS` of a uevent; patterns as in `modules.alias`).

use std::path::Path;

/// A pattern beyond these lengths is no module alias; both keep matching cheap on any input.
const MAX_LENGTH: usize = 1024;

/// Whether `text` matches the shell pattern `pattern`: `*`, `?` and `[…]` with ranges, as in `modules.alias`.
pub fn matches(pattern: &str, text: &str) -> bool {
    if pattern.len() > MAX_LENGTH || text.len() > MAX_LENGTH {
        return false;
    }
    let (mut pattern, mut text) = (pattern.as_bytes(), text.as_bytes());
    // After the last `*`: the pattern behind it, and the text it has not swallowed yet.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some((b'*', rest)) = pattern.split_first() {
            pattern = rest;
            star = Some((rest, text));
        } else if pattern.is_empty() && text.is_empty() {
            return true;
        } else if let Some((first, rest)) = text.split_first()
            && let Some(after) = match_one(pattern, *first)
        {
            pattern = after;
            text = rest;
        } else {
            let Some((behind, swallowed)) = star else { return false };
            let Some((_, rest)) = swallowed.split_first() else { return false };
            pattern = behind;
            text = rest;
            star = Some((behind, rest));
        }
    }
}

/// What remains of the pattern after its first element, if that matches `byte`.
fn match_one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern.split_first()? {
        (b'?', rest) => Some(rest),
        (b'[', rest) => {
            let end = rest.iter().position(|b| *b == b']')?;
            let (set, rest) = rest.split_at_checked(end)?;
            in_set(set, byte).then_some(rest.get(1..)?)
        }
        (literal, rest) => (*literal == byte).then_some(rest),
    }
}

fn in_set(mut set: &[u8], byte: u8) -> bool {
    loop {
        match set {
            [low, b'-', high, rest @ ..] => {
                if (*low..=*high).contains(&byte) {
                    return true;
                }
                set = rest;
            }
            [one, rest @ ..] => {
                if *one == byte {
                    return true;
                }
                set = rest;
            }
            [] => return false,
        }
    }
}

/// The bus whose devices a pattern can match: the letters before the first `:` or wildcard (`virtio`, `pci`, `acpi`, …).
pub fn bus(pattern: &str) -> &str {
    pattern.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or("")
}

/// Whether a device is present whose modalias matches one of `patterns`. `sys` is where sysfs is mounted. Only the buses that the
/// patterns name are looked at: reading every device of a PC costs milliseconds.
pub fn present(sys: &Path, patterns: &[String]) -> bool {
    let mut buses: Vec<&str> = patterns.iter().map(|p| bus(p)).collect();
    buses.sort_unstable();
    buses.dedup();
    buses.into_iter().any(|bus| {
        let Ok(devices) = std::fs::read_dir(sys.join("bus").join(bus).join("devices")) else { return false };
        devices.flatten().any(|device| {
            let Ok(modalias) = std::fs::read_to_string(device.path().join("modalias")) else { return false };
            patterns.iter().any(|pattern| matches(pattern, modalias.trim_end()))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_of_real_modules() {
        for (pattern, text, expected) in [
            ("virtio:d00000002v*", "virtio:d00000002v00001AF4", true),
            ("virtio:d00000002v*", "virtio:d00000001v00001AF4", false),
            ("acpi*:LNRO0005:*", "acpi:LNRO0005:", true),
            ("pci:v*d*sv*sd*bc01sc06i01*", "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01", true),
            ("pci:v*d*sv*sd*bc01sc06i01*", "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i00", false),
            ("usb:v0[0-9]?[ab]*", "usb:v01xbq", true),
            ("usb:v0[0-9]?[ab]*", "usb:v0fxbq", false),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("a[", "a[", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} against {text}");
        }
    }

    #[test]
    fn only_present_devices_count() {
        let sys = tempfile::tempdir().unwrap();
        let device = sys.path().join("bus/virtio/devices/virtio0");
        std::fs::create_dir_all(&device).unwrap();
        std::fs::write(device.join("modalias"), "virtio:d00000002v00001AF4\n").unwrap();
        let is_there = |pattern: &str| present(sys.path(), &[pattern.to_owned()]);
        assert!(is_there("virtio:d00000002v*"));
        assert!(!is_there("virtio:d00000003v*"));
        assert!(!is_there("pci:v*"));
        assert!(!present(sys.path(), &[]));
    }

    proptest! {
        #[test]
        fn a_literal_matches_itself_only(text in "[a-z0-9:]{0,40}", other in "[a-z0-9:]{0,40}") {
            prop_assert!(matches(&text, &text));
            prop_assert_eq!(matches(&text, &other), text == other);
            let around = format!("*{}*", text);
            let inside = format!("{}{}{}", other, text, other);
            prop_assert!(matches(&around, &inside));
        }

        #[test]
        fn any_pattern_is_handled(pattern in "[*?\\[\\]a-c-]{0,60}", text in "[a-c]{0,60}") {
            matches(&pattern, &text);
        }
    }
}
