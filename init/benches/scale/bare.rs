//! Builds the floor, which links nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

/// From any package's directory.
const SOURCE: &str = "../init/benches/scale/bare/floor.rs";

/// Compiles `bare/floor.rs` into `directory`.
pub fn build(directory: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(SOURCE);
    let program = directory.join("floor");
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition=2024", "-O", "--target=x86_64-unknown-linux-gnu", "-C", "strip=symbols", "-A", "dead_code"]);
    rustc.args(["-C", "panic=abort", "-C", "target-feature=+crt-static", "-C", "relocation-model=static"]);
    rustc.args(["-C", "link-arg=-nostartfiles", "-C", "link-arg=-nostdlib", "-o"]).args([&program, &source]);
    assert!(rustc.status().expect("start rustc").success(), "compile {}", source.display());
    program
}
