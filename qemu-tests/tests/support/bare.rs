//! Builds the bare init and an initrd with nothing but it.

#[path = "cpio.rs"]
mod cpio;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes an initrd in `directory` that holds `bare-init/main.rs`, compiled statically, as `/init`.
pub fn initrd(directory: &Path) -> io::Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("bare-init/main.rs");
    let program = directory.join("init");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--edition=2024", "-O", "--target=x86_64-unknown-linux-gnu", "-C", "strip=symbols", "-C", "panic=abort"])
        .args(["-C", "target-feature=+crt-static", "-C", "relocation-model=static", "-o"])
        .args([&program, &source])
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("compile bare init: {}", String::from_utf8_lossy(&output.stderr))));
    }
    let mut archive = Vec::new();
    cpio::entry(&mut archive, "init", 0o100_755, &fs::read(&program)?);
    cpio::entry(&mut archive, "TRAILER!!!", 0, &[]);
    let initrd = directory.join("initrd");
    fs::write(&initrd, archive)?;
    Ok(initrd)
}
