//! Lists of small numbers, as the kernel takes them: `0-3,7`, `0-7:1/2`.

use crate::spec::Error;

/// More processors or memory nodes than any machine has.
const MAX: usize = 8192;

/// The bit mask of a list, the lowest number in the first byte's lowest bit. An empty list is an empty mask.
pub(crate) fn mask(field: &str, list: &str) -> Result<Vec<u8>, Error> {
    let wrong = || Error::new(field, format!("{list:?} is no list such as 0-3,7 of numbers below {MAX}"));
    let number = |text: &str| -> Result<usize, Error> {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|n| plain && *n < MAX).ok_or_else(wrong)
    };
    let mut mask = Vec::new();
    for item in list.trim().split(',').filter(|_| !list.trim().is_empty()) {
        // `RANGE:USED/GROUP`: of each so many of the range the first so many (cpuset(7), and bitmap_parselist of the kernel).
        let (range, groups) =
            item.trim().split_once(':').map_or((item.trim(), None), |(range, groups)| (range, Some(groups)));
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None if groups.is_none() => (number(range)?, number(range)?),
            None => return Err(wrong()),
        };
        let (used, group) = match groups.map(|groups| groups.split_once('/').ok_or_else(wrong)).transpose()? {
            Some((used, group)) => (number(used)?, number(group)?),
            None => (1, 1),
        };
        if first > last || group == 0 || used > group {
            return Err(wrong());
        }
        if mask.len() <= last / 8 {
            mask.resize(last / 8 + 1, 0);
        }
        for n in (first..=last).filter(|n| (n - first) % group < used) {
            mask[n / 8] |= 1 << (n % 8);
        }
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn lists_are_masks_or_errors() {
        assert_eq!(mask("f", "0-3,7").unwrap(), [0b1000_1111]);
        assert_eq!(mask("f", "9").unwrap(), [0, 2]);
        assert_eq!(mask("f", "").unwrap(), Vec::<u8>::new());
        assert_eq!(mask("f", "0-7:1/2").unwrap(), [0b0101_0101]);
        assert_eq!(mask("f", "1-7:2/4,0").unwrap(), [0b0110_0111]);
        assert_eq!(mask("f", "0-1:1/2").unwrap(), [1]);
        for wrong in [
            "0:1/2",
            "0-3:1",
            "0-3:3/2",
            "0-3:1/0",
            "0-3:/2",
            "a",
            "3-1",
            "1,,2",
            "-1",
            "1-",
            "8192",
            "+1",
            "1;2",
            "99999999999999999999",
        ] {
            let error = mask("process.execCPUAffinity.initial", wrong).unwrap_err().to_string();
            assert!(error.contains("execCPUAffinity") && error.contains(wrong), "{error}");
        }
    }
}
