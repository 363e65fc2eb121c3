//! Carries the data partition from one build's disk over to the next build's, so that a rebuild keeps its volumes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use gpt::GptConfig;
use gpt::partition::Partition;
use sha2::{Digest, Sha256};

use crate::copy;

/// Bytes of a sector of a disk image.
const SECTOR: u64 = 512;
/// Partitions begin at multiples of this many bytes, and the backup table has as much at the end.
const ALIGNMENT: u64 = 1 << 20;
/// Type of the data partition: Linux filesystem data (Discoverable Partitions Specification).
const DATA: &str = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";

/// Makes the new file `to`: the disk `image` with the data partition of `old` in the place of its own, at least `size` bytes.
/// False: the two have no data partition in common, and nothing was made.
pub fn over(old: &Path, image: &Path, to: &Path, size: u64) -> io::Result<bool> {
    let (disk, mut partitions) = table(image)?;
    let Some((number, mut data)) = data_partition(&partitions) else { return Ok(false) };
    let Some((_, kept)) = data_partition(&table(old)?.1).filter(|(_, kept)| kept.part_guid == data.part_guid) else {
        return Ok(false);
    };
    let (start, kept_start) = (data.first_lba * SECTOR, kept.first_lba * SECTOR);
    let length = (kept.last_lba - kept.first_lba + 1) * SECTOR;
    let end = (start + length).next_multiple_of(ALIGNMENT);

    let mut made = File::options().read(true).write(true).create_new(true).open(to)?;
    made.set_len(size.max(end + ALIGNMENT))?;
    copy::range(image, 0, start, &mut made, 0)?;
    copy::range(old, kept_start, length, &mut made, start)?;
    // The data partition is the last, so that it can be as large as the old one; the appliance grows it to the disk's end.
    data.last_lba = (start + length) / SECTOR - 1;
    partitions.insert(number, data);
    write_table(&mut made, disk, partitions)?;
    made.sync_all()?;
    Ok(true)
}

/// What the disk `image` boots, in short: a SHA-256 of all that lies before the data partition. To compare a disk that was booted with that won't
/// do, as boot loaders rename what they count starts of.
pub fn identity(image: &Path) -> io::Result<String> {
    let (_, partitions) = table(image)?;
    let begin = partitions.values().map(|partition| partition.first_lba).min().unwrap_or(0) * SECTOR;
    let end = match data_partition(&partitions) {
        Some((_, data)) => data.first_lba,
        None => partitions.values().map(|partition| partition.last_lba + 1).max().unwrap_or(0),
    };
    let mut file = File::open(image)?;
    file.seek(SeekFrom::Start(begin))?;
    let mut digest = Sha256::new();
    let mut part = file.take((end * SECTOR).saturating_sub(begin));
    let mut buffer = vec![0; 1 << 20];
    loop {
        match part.read(&mut buffer)? {
            0 => return Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            n => digest.update(&buffer[..n]),
        }
    }
}

type Partitions = std::collections::BTreeMap<u32, Partition>;

fn table(path: &Path) -> io::Result<(uuid::Uuid, Partitions)> {
    let disk = GptConfig::new().writable(false).open(path).map_err(io::Error::other)?;
    Ok((*disk.guid(), disk.partitions().clone()))
}

/// The last partition, if it is for data.
fn data_partition(partitions: &Partitions) -> Option<(u32, Partition)> {
    let (number, last) = partitions.iter().max_by_key(|(_, partition)| partition.first_lba)?;
    last.part_type_guid.guid.to_string().eq_ignore_ascii_case(DATA).then(|| (*number, last.clone()))
}

fn write_table(made: &mut File, disk: uuid::Uuid, partitions: Partitions) -> io::Result<()> {
    let sectors = made.metadata()?.len() / SECTOR;
    let mbr = gpt::mbr::ProtectiveMBR::with_lb_size(u32::try_from(sectors - 1).unwrap_or(u32::MAX));
    mbr.overwrite_lba0(made).map_err(io::Error::other)?;
    let config = GptConfig::new().writable(true).logical_block_size(gpt::disk::LogicalBlockSize::Lb512);
    let mut table = config.create_from_device(made, Some(disk)).map_err(io::Error::other)?;
    table.update_partitions(partitions).map_err(io::Error::other)?;
    table.write().map_err(io::Error::other)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn partition(uuid: u128, kind: &str, first: u64, last: u64) -> Partition {
        Partition {
            part_type_guid: gpt::partition_types::Type {
                guid: kind.parse().unwrap(),
                os: gpt::partition_types::OperatingSystem::None,
            },
            part_guid: uuid::Uuid::from_u128(uuid),
            first_lba: first,
            last_lba: last,
            flags: 0,
            name: "x".to_owned(),
        }
    }

    /// A disk of so many MiB with a system of 1 MiB at 1 and data of `data` MiB from `start` on, each beginning with its mark.
    fn disk(path: &Path, size: u64, start: u64, data: u64, uuid: u128, mark: &str) {
        let mut file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        file.set_len(size << 20).unwrap();
        let system = partition(1, "4f68bce3-e8cd-4db1-96e7-fbcaf984b709", 2048, 4095);
        let data = partition(uuid, DATA, start * 2048, (start + data) * 2048 - 1);
        write_table(&mut file, uuid::Uuid::from_u128(7), [(1, system), (2, data)].into()).unwrap();
        file.write_all_at(format!("system {mark}").as_bytes(), 1 << 20).unwrap();
        file.write_all_at(format!("data {mark}").as_bytes(), start << 20).unwrap();
    }

    fn text(path: &Path, mib: u64) -> String {
        let mut bytes = [0; 32];
        File::open(path).unwrap().read_exact_at(&mut bytes, mib << 20).unwrap();
        String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
    }

    #[test]
    fn the_new_system_gets_the_old_data_which_may_have_grown() {
        let directory = tempfile::tempdir().unwrap();
        let [old, image, made] = ["old", "image", "made"].map(|name| directory.path().join(name));
        disk(&old, 16, 2, 13, 9, "old");
        disk(&image, 8, 4, 2, 9, "new");
        assert!(over(&old, &image, &made, 0).unwrap());
        assert_eq!((text(&made, 1), text(&made, 4)), ("system new".to_owned(), "data old".to_owned()));
        let (_, partitions) = table(&made).unwrap();
        let (_, data) = data_partition(&partitions).unwrap();
        assert_eq!((data.first_lba, data.last_lba), (4 * 2048, 17 * 2048 - 1));
        assert_eq!(std::fs::metadata(&made).unwrap().len(), 18 << 20);
        // Both tables are where they belong: the backup alone does too.
        File::options().write(true).open(&made).unwrap().write_all_at(&[0; 512], 512).unwrap();
        assert_eq!(table(&made).unwrap().1, partitions);
    }

    #[test]
    fn what_is_booted_is_told_from_what_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let [image, grown, other] = ["image", "grown", "other"].map(|name| directory.path().join(name));
        disk(&image, 8, 4, 2, 9, "new");
        assert!(over(&image, &image, &grown, 32 << 20).unwrap());
        File::options().write(true).open(&grown).unwrap().write_all_at(b"written later", 5 << 20).unwrap();
        let of_image = identity(&image).unwrap();
        assert!(of_image.len() == 64 && identity(&grown).unwrap() == of_image);
        disk(&other, 8, 4, 2, 9, "old");
        assert_ne!(identity(&other).unwrap(), of_image);
    }

    #[test]
    fn another_appliance_s_data_stays_where_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let [old, image, made] = ["old", "image", "made"].map(|name| directory.path().join(name));
        disk(&old, 8, 2, 2, 10, "old");
        disk(&image, 8, 4, 2, 9, "new");
        assert!(!over(&old, &image, &made, 0).unwrap() && !made.exists());
    }
}
