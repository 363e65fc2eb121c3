//! Tells the linker where the command line begins (`src/sys/entry.rs`), and whether that starts the C library by itself
//! (`src/sys/libc_start.rs`).

use std::env;
use std::fs;

/// The release of glibc whose start is known.
const KNOWN: [(&str, &str); 2] = [("__GLIBC__", "2"), ("__GLIBC_MINOR__", "36")];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(own_libc_start)");
    if env::var_os("CARGO_FEATURE_CLI").is_none() || !has("CARGO_CFG_TARGET_ARCH", "x86_64") {
        return;
    }
    println!("cargo::rustc-link-arg-bin=garboard-runtime=-Wl,--entry=start_protected");
    let fixed =
        has("CARGO_CFG_TARGET_FEATURE", "crt-static") && has("CARGO_ENCODED_RUSTFLAGS", "relocation-model=static");
    if fixed && has("CARGO_CFG_TARGET_ENV", "gnu") && links_known_glibc() {
        println!("cargo::rustc-cfg=own_libc_start");
    }
}

/// Whether one of the words of a variable is this one.
fn has(variable: &str, word: &str) -> bool {
    env::var(variable).is_ok_and(|words| words.split([',', '\x1f']).any(|one| one == word))
}

/// By the header of the library that is installed.
fn links_known_glibc() -> bool {
    const HEADER: &str = "/usr/include/features.h";
    println!("cargo::rerun-if-changed={HEADER}");
    let header = fs::read_to_string(HEADER).unwrap_or_default();
    let defines =
        |(name, value): (&str, &str)| header.lines().any(|line| line.split_whitespace().eq(["#define", name, value]));
    KNOWN.into_iter().all(defines)
}
