//! Whether what somebody said at the console is the passphrase. Takes a tenth of a second and megabytes, on purpose.

use std::io::Read;

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;

use super::{emit, report};
use crate::console::access::wipe;

/// What comes in is never longer, in bytes: a hash, a line feed and a passphrase.
pub const LONGEST_INPUT: usize = 1024;

/// The body of the worker: reads a hash in PHC string format, a line feed and the passphrase; says whether they fit.
pub fn run() -> i32 {
    let mut input = [0; LONGEST_INPUT];
    let mut length = 0_usize;
    let mut stdin = std::io::stdin().lock();
    while let Some(rest) = input.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match stdin.read(rest) {
            Ok(0) | Err(_) => break,
            Ok(n) => length = length.saturating_add(n),
        }
    }
    let right = fits(input.get(..length).unwrap_or_default());
    wipe(&mut input);
    match right {
        Some(right) => emit(&report::Passphrase { right }),
        None => 1,
    }
}

/// `None`: that can't be said.
fn fits(input: &[u8]) -> Option<bool> {
    let end = input.iter().position(|byte| *byte == b'\n')?;
    let (hash, said) = input.split_at_checked(end)?;
    let hash = PasswordHash::new(std::str::from_utf8(hash).ok()?).ok()?;
    // Parameters alone fit nothing, but that is no answer.
    hash.hash.as_ref()?;
    match Argon2::default().verify_password(said.get(1..)?, &hash) {
        Ok(()) => Some(true),
        Err(argon2::password_hash::Error::PasswordInvalid) => Some(false),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `ahoy`, by the reference implementation: one pass over 256 KiB.
    const HASH: &str = "$argon2id$v=19$m=256,t=1,p=1$c29tZXNhbHQ$m1HppyFY2I7QV4fEGkSFZ95UHJU4TTLULQxwISHtY0w";

    #[test]
    fn only_the_passphrase_fits() {
        let ask = |hash: &str, said: &str| fits(format!("{hash}\n{said}").as_bytes());
        assert_eq!(ask(HASH, "ahoy"), Some(true));
        for wrong in ["", "ahoy ", "Ahoy", "ahoy\n"] {
            assert_eq!(ask(HASH, wrong), Some(false), "{wrong:?}");
        }
        assert_eq!(ask("$argon2id$v=19$m=32", "ahoy"), None);
        assert_eq!(ask("ahoy", "ahoy"), None, "a hash, not the words themselves");
        assert_eq!(fits(b""), None);
    }
}
