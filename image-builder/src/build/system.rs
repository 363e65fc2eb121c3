//! The system image: layers, modules and plan on EROFS, sealed by a hash tree.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use garboard_config::Compression;
use garboard_images::erofs::Algorithm;
use garboard_images::store::Store;
use garboard_runtime::plan::{self, Plan};
use sha2::{Digest, Sha256};

use super::plan::module_path;
use crate::embedded;
use crate::kernel::modules::Module;
use crate::verity::{self, Verity};

/// Where containers with `init: true` get their first process from.
pub const REAPER: &str = "/garboard/reaper";
/// What PID 1 mounts on.
const MOUNT_POINTS: [&str; 7] = ["/data", "/dev", "/etc", "/proc", "/run", "/sys", "/tmp"];

/// What the declaration's word stands for.
pub fn algorithm(compression: Compression) -> Option<Algorithm> {
    match compression {
        Compression::None => None,
        Compression::Lz4 => Some(Algorithm::Lz4),
        Compression::Zstd => Some(Algorithm::Zstd),
    }
}

/// Writes the system image. The plan comes last: it is what changes most.
pub fn write(mut store: Store, plan: &Plan, modules: &[Module], out: &Path) -> Result<Verity> {
    for directory in MOUNT_POINTS {
        store.add_dir(directory, 0o755)?;
    }
    store.add_file(REAPER, 0o755, embedded::REAPER)?;
    for module in modules {
        store.add_file(&module_path(&module.name), 0o644, module.bytes.as_slice())?;
    }
    store.add_file(plan::PATH, 0o644, plan.encode()?.as_slice())?;
    let open = File::options().read(true).write(true).create_new(true).open(out);
    let mut file = open.with_context(|| format!("make {}", out.display()))?;
    store.finish(&mut file)?;
    Ok(verity::append(&file, &salt(&plan.appliance))?)
}

/// The salt keeps one appliance's tree from being precomputed for all; from the name, so that builds are repeatable.
fn salt(appliance: &str) -> [u8; 32] {
    Sha256::new().chain_update(b"garboard verity salt\0").chain_update(appliance).finalize().into()
}
