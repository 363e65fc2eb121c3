//! Finds the system image: a file of its own, a partition of a disk image, or in a build's output directory.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use garboard_images::erofs::Reader;
use gpt::partition::Partition;

use super::window::Window;
use crate::build::manifest::Manifest;
use crate::kernel::image;
use crate::output::MANIFEST;
use crate::verity::hex;

/// Types of the partitions (Discoverable Partitions Specification).
const ROOT: &str = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709";
const ROOT_VERITY: &str = "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5";
/// Bytes of a sector of a disk image.
const SECTOR: u64 = 512;
/// Superblock of EROFS: its magic number's place and value.
const EROFS_MAGIC_AT: usize = 1024;
const EROFS_MAGIC: [u8; 4] = 0xe0f5_e1e2_u32.to_le_bytes();
const GPT_MAGIC: &[u8] = b"EFI PART";
/// No image.json is larger, in bytes.
const MANIFEST_LIMIT: u64 = 1 << 20;
/// The part of a kernel image that holds its release.
const KERNEL_HEAD: u64 = 128 << 10;

/// Where system image and hash tree are.
#[derive(Debug)]
pub struct Source {
    /// The EROFS.
    pub system: Window,
    /// Superblock and hash tree.
    pub verity: Window,
    /// Release of the kernel beside it, where there is one.
    pub kernel_release: Option<String>,
    /// The root hash that goes with it by what is beside it, 64 hexadecimal digits or the first 32 of them.
    pub root_hash: Option<String>,
}

/// Opens whatever `path` is.
pub fn open(path: &Path) -> Result<Source> {
    if path.is_dir() {
        return open_directory(path);
    }
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let length = file.metadata().with_context(|| format!("open {}", path.display()))?.len();
    let whole = Window::new(Arc::new(file), 0, length);
    let head = whole.head(4096).with_context(|| format!("read {}", path.display()))?;
    if has_erofs(&head) {
        open_system(whole).with_context(|| format!("read {}", path.display()))
    } else if head.get(SECTOR as usize..).is_some_and(|rest| rest.starts_with(GPT_MAGIC)) {
        open_disk(path, &whole).with_context(|| format!("read {}", path.display()))
    } else {
        bail!(
            "{} is neither a system image (EROFS), nor a disk image (GPT), nor a build's output directory",
            path.display()
        )
    }
}

fn has_erofs(head: &[u8]) -> bool {
    head.get(EROFS_MAGIC_AT..).is_some_and(|rest| rest.starts_with(&EROFS_MAGIC))
}

fn open_directory(directory: &Path) -> Result<Source> {
    let file = directory.join(MANIFEST);
    let read = || Window::new(Arc::new(File::open(&file)?), 0, MANIFEST_LIMIT).head(MANIFEST_LIMIT);
    let bytes = read().with_context(|| format!("read {}: is this a build's output directory?", file.display()))?;
    let manifest: Manifest = serde_json::from_slice(&bytes).with_context(|| format!("read {}", file.display()))?;
    let name =
        |name: &str| fs::canonicalize(directory.join(name)).with_context(|| format!("find {name} of {MANIFEST}"));
    let mut source = open(&name(&manifest.system)?)?;
    source.root_hash = Some(manifest.root_hash);
    let kernel = name(&manifest.kernel)?;
    let head = File::open(&kernel).and_then(|file| Window::new(Arc::new(file), 0, KERNEL_HEAD).head(KERNEL_HEAD));
    source.kernel_release = Some(image::release(&head.with_context(|| format!("read {}", kernel.display()))?)?);
    Ok(source)
}

/// The hash tree follows the filesystem.
fn open_system(whole: Window) -> Result<Source> {
    let blocks = Reader::new(whole.clone())?.blocks();
    let end = blocks.saturating_mul(garboard_images::erofs::BLOCK_SIZE);
    if end >= whole.length() {
        bail!("there is no hash tree behind the filesystem: the file is cut off, or no system image");
    }
    Ok(Source { verity: whole.tail(end), system: whole, kernel_release: None, root_hash: None })
}

/// The first system partition that holds a filesystem, and the hash tree whose UUID belongs to it.
fn open_disk(path: &Path, whole: &Window) -> Result<Source> {
    let disk = gpt::GptConfig::new().writable(false).open(path).context("partition table")?;
    let of_type = |wanted: &'static str| {
        disk.partitions().values().filter(move |p| p.part_type_guid.guid.to_string().eq_ignore_ascii_case(wanted))
    };
    let window = |partition: &Partition| {
        let start = partition.first_lba.saturating_mul(SECTOR);
        let sectors = partition.last_lba.saturating_sub(partition.first_lba).saturating_add(1);
        whole.tail(start).limited(sectors.saturating_mul(SECTOR))
    };
    for partition in of_type(ROOT) {
        let system = window(partition);
        if !has_erofs(&system.head(4096)?) {
            continue;
        }
        for verity in of_type(ROOT_VERITY).map(window) {
            if verity.head(32)?.get(16..32) == Some(partition.part_guid.as_bytes().as_slice()) {
                let root_hash = Some(hex(partition.part_guid.as_bytes()));
                return Ok(Source { system, verity, kernel_release: None, root_hash });
            }
        }
        bail!("no partition with the hash tree of {}", partition.name);
    }
    bail!("no system partition with a filesystem on it");
}
