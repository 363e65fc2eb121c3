//! Hashes of passphrases.

use serde_json::{Value, json};

use super::digits::decimal;
use crate::read::{Fault, Word};

/// A hash in the PHC string format, of the one algorithm that is slow enough to guess against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PassphraseHash(pub(crate) String);

impl Word for PassphraseHash {
    const EXPECTED: &'static str = "a hash that begins with $argon2id$";

    fn parse(text: &str) -> Result<Self, Fault> {
        let help = "make one: printf %s 'the passphrase' | argon2 \"$(head -c 12 /dev/urandom | base64)\" -id -e";
        // Not quoted: it may be the passphrase itself.
        let parts: Vec<&str> = text.split('$').collect();
        let ["", "argon2id", "v=19", parameters, salt, hash] = parts.as_slice() else {
            return Err(Fault::new("this isn't the hash of a passphrase").help(help));
        };
        let number = |name: &str, part: Option<&str>| decimal::<u32>(part?.strip_prefix(name)?);
        let mut given = parameters.split(',');
        let memory = number("m=", given.next());
        let (passes, lanes) = (number("t=", given.next()), number("p=", given.next()));
        let (Some(memory), Some(1..=64), Some(lanes @ 1..=16), None) = (memory, passes, lanes, given.next()) else {
            return Err(Fault::new("the hash has no parameters such as m=4096,t=3,p=1").help(help));
        };
        // A pass needs eight blocks of 1 KiB for each lane (RFC 9106, section 3.1).
        if memory < 8 * lanes {
            return Err(Fault::new(format!(
                "no hash is made with m={memory} and p={lanes}: `m` is at least 8 times `p`"
            ))
            .help(help));
        }
        // The lengths that PID 1 takes: 8 to 48 bytes of salt, 16 to 64 of hash.
        if !(11..=64).contains(&salt.len()) || !(22..=86).contains(&hash.len()) || !is_base64(salt) || !is_base64(hash)
        {
            return Err(Fault::new("the hash is cut off, or its salt isn't of 8 to 48 bytes").help(help));
        }
        if memory > Self::MOST_MEMORY {
            return Err(Fault::new(format!(
                "checking the hash takes {memory} KiB, more than a small machine has to spare"
            ))
            .help("make it with -k 4096, or with less than 65536"));
        }
        Ok(Self(text.to_owned()))
    }

    fn word_schema() -> Value {
        json!({ "type": "string", "pattern": r"^\$argon2id\$v=19\$m=[1-9][0-9]*,t=[1-9][0-9]*,p=[1-9][0-9]*\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+$" })
    }
}

impl PassphraseHash {
    /// KiB.
    const MOST_MEMORY: u32 = 65_536;
}

/// Whether `text` is how some bytes are written in Base64 without padding: whole bytes, and no bits that belong to none.
fn is_base64(text: &str) -> bool {
    let value = |b: u8| match b {
        b'A'..=b'Z' => Some(b - b'A'),
        b'a'..=b'z' => Some(b - b'a' + 26),
        b'0'..=b'9' => Some(b - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let last = text.bytes().last().and_then(value).unwrap_or_default();
    let whole = match text.len() % 4 {
        0 => true,
        2 => last.trailing_zeros() >= 4,
        3 => last.trailing_zeros() >= 2,
        _ => false,
    };
    whole && text.bytes().all(|b| value(b).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_one_that_a_passphrase_can_fit() {
        let salt = "c29tZXNhbHRieXRlcw";
        let hash = "CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let reads = |parameters: &str, salt: &str, hash: &str| {
            PassphraseHash::parse(&format!("$argon2id$v=19${parameters}${salt}${hash}")).is_ok()
        };
        assert!(reads("m=4096,t=3,p=1", salt, hash) && reads("m=32,t=1,p=4", salt, hash));
        for parameters in
            ["m=1,t=3,p=4", "m=31,t=1,p=4", "m=+4096,t=3,p=1", "m=04096,t=3,p=1", "m=4096,t=3", "m=65537,t=1,p=1"]
        {
            assert!(!reads(parameters, salt, hash), "{parameters}");
        }
        let long = "A".repeat(64);
        assert!(reads("m=4096,t=3,p=1", &long, hash) && reads("m=4096,t=3,p=1", "AAAAAAAAAAA", hash));
        for salt in
            [format!("{long}AA"), "A".repeat(13), "AAAAAAAAAA".into(), "AAAAAAAAAAB".into(), "AAAAAAAAAA=".into()]
        {
            assert!(!reads("m=4096,t=3,p=1", &salt, hash), "{salt}");
        }
        assert!(!reads("m=4096,t=3,p=1", salt, &hash[..41]));
    }
}
