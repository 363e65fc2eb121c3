//! Whole numbers as a person writes them.

use std::str::FromStr;

/// The number that `text` is: decimal digits and nothing else. No sign, which `FromStr` takes; and no zero in front, which other programs
/// take for octal.
pub(crate) fn decimal<T: FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let plain = text == "0" || !text.starts_with('0');
    if digits && plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn only_plain_digits_are_a_number() {
        assert_eq!([decimal::<u8>("0"), decimal("7"), decimal("255")], [Some(0), Some(7), Some(255)]);
        for text in ["", "256", "+5", "-5", "05", "00", " 5", "5 ", "0x5", "1e1", "٣"] {
            assert_eq!(decimal::<u8>(text), None, "{text:?}");
        }
    }
}
