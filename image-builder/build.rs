//! Builds the static programs that go into every image (PID 1, the container reaper, the demo) and hands them to the
//! crate for embedding, so that `cargo build -p garboard` is all there is to do.
//!
//! `GARBOARD_STATIC_DIR` names a directory that holds them ready made instead, for packagers.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::elf::{FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, ReadRef};

const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROGRAMS: [&str; 3] = ["garboard-init", "garboard-reaper", "garboard-demo"];
const PACKAGES: [&str; 2] = ["garboard-init", "garboard-demo"];
/// What the programs are made of, from the workspace's root.
const SOURCES: [&str; 7] = [
    "Cargo.toml",
    "Cargo.lock",
    "init/Cargo.toml",
    "init/src",
    "runtime/Cargo.toml",
    "runtime/src",
    "image-builder/demo-appliance",
];

fn main() -> Result<(), Box<dyn Error>> {
    let workspace = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..").canonicalize()?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-env-changed=GARBOARD_STATIC_DIR");
    println!("cargo::rerun-if-changed=build.rs");
    let ready_made = env::var_os("GARBOARD_STATIC_DIR").map(PathBuf::from);
    let from = match ready_made {
        Some(dir) => {
            for program in PROGRAMS {
                println!("cargo::rerun-if-changed={}", dir.join(program).display());
            }
            dir
        }
        None => {
            for source in SOURCES {
                println!("cargo::rerun-if-changed={}", workspace.join(source).display());
            }
            build_static_programs(&workspace, &out)?
        }
    };
    for program in PROGRAMS {
        let bytes = fs::read(from.join(program)).map_err(|e| format!("{}: {e}", from.join(program).display()))?;
        require_static(&bytes).map_err(|e| format!("{program}: {e}"))?;
        fs::write(out.join(program), bytes)?;
    }
    Ok(())
}

/// Runs a nested cargo with its own target directory, as the outer one holds the lock on the usual one.
fn build_static_programs(workspace: &Path, out: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let target_dir = static_target_dir(out);
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace).args(["build", "--quiet", "--release", "--locked", "--target", TARGET]);
    cargo.arg("--target-dir").arg(&target_dir);
    for package in PACKAGES {
        cargo.args(["--package", package]);
    }
    for program in PROGRAMS {
        cargo.args(["--bin", program]);
    }
    // What the outer build was told (clippy as the compiler, sanitizers, another linker) is not meant for these programs.
    for inherited in ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"]
    {
        cargo.env_remove(inherited);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", static_flags(workspace).join("\u{1f}"));
    let status = cargo.status().map_err(|e| format!("start cargo for {}: {e}", PACKAGES.join(" and ")))?;
    if !status.success() {
        return Err(format!("the static programs ({}) did not build: {status}", PROGRAMS.join(", ")).into());
    }
    Ok(target_dir.join(TARGET).join("release"))
}

/// Static and at a fixed address, with no path of the building machine inside: images must not depend on who built them.
fn static_flags(workspace: &Path) -> Vec<String> {
    let mut flags: Vec<String> =
        ["-C", "target-feature=+crt-static", "-C", "relocation-model=static"].map(String::from).to_vec();
    flags.push(format!("--remap-path-prefix={}=/garboard", workspace.display()));
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    if let Some(home) = cargo_home {
        flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
    }
    flags
}

/// `target/static` next to the profile's directory (`target/PROFILE/build/PACKAGE-HASH/out`), shared by all profiles, since
/// these programs are the same in each.
fn static_target_dir(out: &Path) -> PathBuf {
    out.ancestors().nth(4).unwrap_or(out).join("static")
}

/// PID 1 starts before any loader or library exists.
fn require_static(bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    let header = FileHeader64::<Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    for segment in header.program_headers(endian, bytes)? {
        if segment.p_type(endian) == PT_INTERP {
            let name = bytes.read_bytes_at(segment.p_offset(endian), segment.p_filesz(endian)).unwrap_or_default();
            let name = String::from_utf8_lossy(name);
            return Err(format!("not static: it wants the loader {name}").into());
        }
    }
    Ok(())
}
