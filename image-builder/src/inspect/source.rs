//! Finds the system image: a file of its own, a partition of a disk image, or in a build's output directory.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use garboard_images::erofs::Reader;
use gpt::partition::Partition;

use super::window::Window;
use crate::build::manifest::Manifest;
use crate::kernel::image;
use crate::output::MANIFEST;
use crate::verity::{DIGEST, hex};

/// Types of the partitions (Discoverable Partitions Specification).
const ROOT: &str = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709";
const ROOT_VERITY: &str = "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5";
/// Bytes of a sector of a disk image.
const SECTOR: u64 = 512;
/// Superblock of EROFS: its magic number's place and value.
const EROFS_MAGIC_AT: usize = 1024;
const EROFS_MAGIC: [u8; 4] = 0xe0f5_e1e2_u32.to_le_bytes();
const GPT_MAGIC: &[u8] = b"EFI PART";
/// In the header: how many entries the table has, and how large each is (UEFI, 5.3.2).
const TABLE_ENTRIES_AT: usize = 80;
const TABLE_ENTRY_SIZE_AT: usize = 84;
const ENTRY_SIZE: u32 = 128;
/// Usual are 128.
const MOST_ENTRIES: u32 = 1024;
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
    if path.is_dir() { open_directory(path) } else { open_file(path) }
}

fn open_file(path: &Path) -> Result<Source> {
    let whole = whole(path)?;
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

/// All of a file or block device. Others would be waited for, or have no end.
fn whole(path: &Path) -> Result<Window> {
    let opening = || format!("open {}", path.display());
    let kind = fs::metadata(path).with_context(opening)?.file_type();
    ensure!(kind.is_file() || kind.is_block_device(), "{} is neither a file nor a block device", path.display());
    let mut file = File::open(path).with_context(opening)?;
    let length = file.seek(SeekFrom::End(0)).with_context(opening)?;
    Ok(Window::new(Arc::new(file), 0, length))
}

fn has_erofs(head: &[u8]) -> bool {
    head.get(EROFS_MAGIC_AT..).is_some_and(|rest| rest.starts_with(&EROFS_MAGIC))
}

fn open_directory(directory: &Path) -> Result<Source> {
    let file = directory.join(MANIFEST);
    let read = || whole(&file)?.head(MANIFEST_LIMIT).map_err(anyhow::Error::from);
    let bytes = read().with_context(|| format!("read {}: is this a build's output directory?", file.display()))?;
    let manifest: Manifest = serde_json::from_slice(&bytes).with_context(|| format!("read {}", file.display()))?;
    let root_hash = manifest.root_hash;
    let is_hash = root_hash.len() == 2 * DIGEST && root_hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    ensure!(is_hash, "{}: '{root_hash}' is no root hash of 64 hexadecimal digits", file.display());
    let beside = |name: &str| {
        let is_name = Path::new(name).file_name().is_some_and(|file| file == name);
        ensure!(is_name, "{}: '{name}' is no name of a file beside it", file.display());
        Ok(directory.join(name))
    };
    let mut source = open_file(&beside(&manifest.system)?)?;
    source.root_hash = Some(root_hash);
    let kernel = beside(&manifest.kernel)?;
    let release = image::release(&whole(&kernel)?.head(KERNEL_HEAD)?);
    let release = release.with_context(|| format!("read {}", kernel.display()))?;
    ensure!(
        release == manifest.kernel_release,
        "{} is of release {release}, but {MANIFEST} names {}: it is from another build",
        kernel.display(),
        manifest.kernel_release
    );
    source.kernel_release = Some(release);
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

/// Refuses a header of a table that the library would not survive or that has no end: entries of another size, and a great many.
fn require_usual_table(header: &[u8]) -> Result<()> {
    let field = |at: usize| header.get(at..).and_then(|rest| rest.first_chunk()).copied().map(u32::from_le_bytes);
    let usual = field(TABLE_ENTRIES_AT).is_some_and(|entries| entries <= MOST_ENTRIES)
        && field(TABLE_ENTRY_SIZE_AT) == Some(ENTRY_SIZE);
    ensure!(
        usual || !header.starts_with(GPT_MAGIC),
        "partition table: not up to {MOST_ENTRIES} entries of {ENTRY_SIZE} bytes"
    );
    Ok(())
}

/// The first system partition that holds a filesystem, and the hash tree whose UUID belongs to it.
fn open_disk(path: &Path, whole: &Window) -> Result<Source> {
    for at in [SECTOR, (whole.length() / SECTOR).saturating_sub(1) * SECTOR] {
        require_usual_table(&whole.tail(at).head(SECTOR)?)?;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path) -> String {
        format!("{:#}", open(path).unwrap_err())
    }

    #[test]
    fn what_has_no_end_or_would_be_waited_for_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(refused(&fifo).contains("neither a file nor a block device"));
        assert!(refused(Path::new("/dev/zero")).contains("neither a file nor a block device"));
    }

    #[test]
    fn a_manifest_names_files_beside_it_and_a_root_hash() {
        let directory = tempfile::tempdir().unwrap();
        let says = |system: &str, root_hash: &str| {
            let manifest = serde_json::json!({
                "v": 1, "appliance": "a", "root_hash": root_hash, "cmdline": "", "kernel": "vmlinuz", "kernel_release": "6",
                "initrd": "initrd", "system": system, "data": null, "disk": null, "memory_mb": 1, "ports": [], "containers": [],
            });
            fs::write(directory.path().join(MANIFEST), manifest.to_string()).unwrap();
            refused(directory.path())
        };
        let hash = "ab".repeat(32);
        for system in [".", "..", "", "/", "a/b", "../x", "a/"] {
            assert!(says(system, &hash).contains("is no name of a file beside it"), "{system}");
        }
        fs::create_dir(directory.path().join("within")).unwrap();
        assert!(says("within", &hash).contains("neither a file nor"));
        for wrong in ["", "ab", &"xy".repeat(32)] {
            assert!(says("system.erofs", wrong).contains("is no root hash"), "{wrong}");
        }
    }

    #[test]
    fn an_unusual_partition_table_is_refused() {
        let mut header = vec![0; SECTOR as usize];
        require_usual_table(&header).unwrap();
        header[..8].copy_from_slice(GPT_MAGIC);
        header[TABLE_ENTRIES_AT] = 128;
        header[TABLE_ENTRY_SIZE_AT] = 128;
        require_usual_table(&header).unwrap();
        for at in [TABLE_ENTRIES_AT + 3, TABLE_ENTRY_SIZE_AT + 1] {
            let mut wrong = header.clone();
            wrong[at] = 1;
            assert!(require_usual_table(&wrong).is_err());
        }
        // The second one, at the disk's end, counts where the first is damaged.
        let mut disk = vec![0; 64 << 10];
        disk[512..1024].copy_from_slice(&header);
        header[TABLE_ENTRY_SIZE_AT + 1] = 1;
        let end = disk.len() - 512;
        disk[end..].copy_from_slice(&header);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), disk).unwrap();
        assert!(refused(file.path()).contains("1024 entries of 128 bytes"));
    }
}
