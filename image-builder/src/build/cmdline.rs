//! The kernel command line (Documentation/admin-guide/kernel-parameters.txt).

/// Messages below an error stay off the console: a serial line would take longer for them than the whole boot. `dmesg` has them.
const QUIET: &str = "quiet";
/// The kernel tests its own ciphers and jitter generator at each boot. Only FIPS 140 asks for that, getrandom(2) uses neither
/// test nor jitter generator, and under emulation a tenth of the boot goes into it. `cryptomgr.notests=0` in the declaration
/// brings the former back.
const NO_CIPHER_TESTS: &str = "cryptomgr.notests initcall_blacklist=jent_mod_init";
/// Seconds from a kernel panic to a restart, long enough to read it.
const PANIC: &str = "panic=5";
/// The serial console. Virtual machines get theirs from whoever starts them; a disk has to bring it along.
const CONSOLE: &str = "console=ttyS0";

/// What every boot needs, then the declaration's own words, which so have the last say.
pub fn make(root_hash: &str, declared: &[String]) -> String {
    let fixed = [QUIET.to_owned(), NO_CIPHER_TESTS.to_owned(), PANIC.to_owned(), format!("roothash={root_hash}")];
    fixed.iter().chain(declared).map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// For a disk, which boots without anyone adding words.
pub fn for_disk(cmdline: &str) -> String {
    if cmdline.split(' ').any(|word| word.starts_with("console=")) {
        return cmdline.to_owned();
    }
    format!("{cmdline} {CONSOLE}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_words_come_last() {
        assert_eq!(
            make("ab", &["panic=1".to_owned(), "x".to_owned()]),
            "quiet cryptomgr.notests initcall_blacklist=jent_mod_init panic=5 roothash=ab panic=1 x"
        );
    }

    #[test]
    fn a_disk_has_a_console_unless_one_is_declared() {
        assert_eq!(for_disk("quiet"), "quiet console=ttyS0");
        assert_eq!(for_disk("quiet console=tty0"), "quiet console=tty0");
    }
}
