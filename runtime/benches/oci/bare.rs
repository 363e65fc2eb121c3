//! Builds the programs in `bare/`, which link nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `bare/NAME.rs` into `directory`.
pub fn build(name: &str, directory: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/oci/bare").join(name).with_extension("rs");
    let program = directory.join(name);
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition=2024", "-O", "--target=x86_64-unknown-linux-gnu", "-C", "strip=symbols"]);
    rustc.args([
        "-C",
        "panic=abort",
        "-C",
        "target-feature=+crt-static",
        "-C",
        "relocation-model=static",
        "-A",
        "dead_code",
    ]);
    rustc.args(["-C", "link-arg=-nostartfiles", "-C", "link-arg=-nostdlib", "-o"]).args([&program, &source]);
    assert!(rustc.status().expect("start rustc").success(), "compile {}", source.display());
    program
}
