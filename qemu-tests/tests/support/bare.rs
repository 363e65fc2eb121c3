//! Builds the bare init and an initrd with nothing but it.

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
    entry(&mut archive, "init", 0o100_755, &fs::read(&program)?);
    entry(&mut archive, "TRAILER!!!", 0, &[]);
    let initrd = directory.join("initrd");
    fs::write(&initrd, archive)?;
    Ok(initrd)
}

/// One cpio entry in the kernel's "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst).
fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, contents: &[u8]) {
    let size = contents.len() as u32;
    let fields = [1, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name.len() as u32 + 1, 0];
    archive.extend_from_slice(b"070701");
    archive.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend_from_slice(contents);
    archive.resize(archive.len().next_multiple_of(4), 0);
}
