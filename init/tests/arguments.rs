//! `garboard-init`, as an ordinary process.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

/// The kernel gives PID 1 what it doesn't know of its command line.
#[test]
fn arguments_that_are_no_text_are_survived() {
    let init = |argument: &[u8]| {
        Command::new(env!("CARGO_BIN_EXE_garboard-init")).arg(OsStr::from_bytes(argument)).output().unwrap()
    };
    for argument in [b"quiet".as_slice(), b"splash=\xff\xfe"] {
        let output = init(argument);
        assert_eq!(output.status.code(), Some(2), "{argument:?}: {output:?}");
        assert!(output.stderr.starts_with(b"garboard-init is process 1"), "{output:?}");
    }
}
