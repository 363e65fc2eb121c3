//! Lays the GUID partition table out: EFI system partition, system A and B each with its hash tree, data last.
//!
//! Types and the root hash in PARTUUIDs follow the Discoverable Partitions Specification. Every GUID comes from the contents, so
//! equal input gives equal bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use gpt::partition::Partition;
use gpt::partition_types::Type;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Bytes of a sector.
const SECTOR: u64 = 512;
/// Partitions begin at multiples of this many bytes.
const ALIGNMENT: u64 = 1 << 20;
/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// EFI system partition.
    Esp,
    /// The system filesystem.
    System,
    /// Superblock and hash tree of a system partition.
    Verity,
    /// The data filesystem.
    Data,
}

impl Role {
    fn type_guid(self) -> Type {
        let guid = match self {
            Self::Esp => "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
            Self::System => "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
            Self::Verity => "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5",
            Self::Data => "0fc63daf-8483-4772-8e79-3d69d8477de4",
        };
        Type { guid: guid.parse().unwrap_or_default(), os: gpt::partition_types::OperatingSystem::None }
    }

    /// Attribute bits: a sealed partition is read-only (bit 60), data is to grow (bit 59).
    fn flags(self) -> u64 {
        match self {
            Self::Esp => 0,
            Self::System | Self::Verity => 1 << 60,
            Self::Data => 1 << 59,
        }
    }
}

/// One partition to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What it is for.
    pub role: Role,
    /// Its name: at most 36 UTF-16 units.
    pub name: String,
    /// PARTUUID in text order; `None`: derived from the disk's.
    pub uuid: Option<[u8; 16]>,
    /// Least size in bytes.
    pub size: u64,
}

/// A partition's place, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// Length, a multiple of 1 MiB.
    pub size: u64,
}

/// The places of `wanted` in order, and the whole disk's size in bytes.
pub fn layout(wanted: &[Wanted]) -> (Vec<Extent>, u64) {
    let mut start = ALIGNMENT;
    let extents = wanted.iter().map(|partition| {
        let extent = Extent { start, size: partition.size.max(1).next_multiple_of(ALIGNMENT) };
        start += extent.size;
        extent
    });
    let extents = extents.collect();
    // The backup table has the disk's last 33 sectors.
    (extents, start + ALIGNMENT)
}

/// Writes protective MBR, primary and backup table to `disk`, which already has its full size. `seed` decides the derived GUIDs.
///
/// # Errors
/// If writing fails.
pub fn write(disk: &mut File, wanted: &[Wanted], extents: &[Extent], seed: &[u8]) -> io::Result<()> {
    let sectors = disk.metadata()?.len() / SECTOR;
    let mbr = gpt::mbr::ProtectiveMBR::with_lb_size(u32::try_from(sectors - 1).unwrap_or(u32::MAX));
    mbr.overwrite_lba0(disk).map_err(io::Error::other)?;

    let partitions: BTreeMap<u32, Partition> = (1..)
        .zip(wanted.iter().zip(extents))
        .map(|(number, (wanted, extent))| {
            let guid = wanted.uuid.map_or_else(|| derived(seed, &wanted.name), Uuid::from_bytes);
            let partition = Partition {
                part_type_guid: wanted.role.type_guid(),
                part_guid: guid,
                first_lba: extent.start / SECTOR,
                last_lba: (extent.start + extent.size) / SECTOR - 1,
                flags: wanted.role.flags(),
                name: wanted.name.clone(),
            };
            (number, partition)
        })
        .collect();
    let config = gpt::GptConfig::new().writable(true).logical_block_size(gpt::disk::LogicalBlockSize::Lb512);
    let mut table = config.create_from_device(disk, Some(derived(seed, "disk"))).map_err(io::Error::other)?;
    table.update_partitions(partitions).map_err(io::Error::other)?;
    table.write().map_err(io::Error::other)?;
    Ok(())
}

/// A UUID of version 8 (RFC 9562: made by the application) out of `seed` and `name`.
pub fn derived(seed: &[u8], name: &str) -> Uuid {
    let digest = Sha256::new().chain_update(b"garboard disk\0").chain_update(seed).chain_update(name).finalize();
    uuid::Builder::from_custom_bytes(std::array::from_fn(|i| digest[i])).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn wanted() -> Vec<Wanted> {
        let one = |role, name: &str, uuid, size| Wanted { role, name: name.into(), uuid, size };
        vec![
            one(Role::Esp, "esp", None, 40 << 20),
            one(
                Role::System,
                "system-a",
                Some(*b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"),
                4097,
            ),
            one(Role::Verity, "verity-a", Some([0xab; 16]), 1),
            one(Role::Data, "data", None, 3 << 20),
        ]
    }

    fn disk() -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let (extents, size) = layout(&wanted());
        file.as_file().set_len(size).unwrap();
        write(file.as_file_mut(), &wanted(), &extents, b"seed").unwrap();
        file
    }

    #[test]
    fn partitions_neither_overlap_nor_pass_the_end() {
        let (extents, size) = layout(&wanted());
        assert!(extents.windows(2).all(|p| p[0].start + p[0].size <= p[1].start));
        assert!(extents.iter().all(|e| e.start >= ALIGNMENT && e.start + e.size + 33 * SECTOR <= size));
        assert!(extents.iter().zip(wanted()).all(|(e, w)| e.size >= w.size));
    }

    #[test]
    fn another_reader_finds_the_table_sound() {
        let file = disk();
        let sgdisk = |arguments: &[&str]| {
            let out = Command::new("/sbin/sgdisk")
                .args(arguments)
                .arg(file.path())
                .output()
                .expect("sgdisk runs (Debian: gdisk)");
            String::from_utf8_lossy(&out.stdout).into_owned()
        };
        let verdict = sgdisk(&["--verify"]);
        assert!(verdict.contains("No problems found"), "{verdict}");
        let info = sgdisk(&["--info=2"]);
        assert!(info.contains("4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"), "{info}");
        assert!(info.contains("00112233-4455-6677-8899-AABBCCDDEEFF"), "{info}");
        assert!(info.contains("1000000000000000"), "{info}");
    }

    #[test]
    fn is_the_same_every_time() {
        assert!(std::fs::read(disk().path()).unwrap() == std::fs::read(disk().path()).unwrap());
        assert_ne!(derived(b"a", "esp"), derived(b"b", "esp"));
    }
}
