//! Finds the system image among the machine's disks, by the root hash alone: never by order, name or label.
//!
//! Two layouts. A whole disk that is the image: an EROFS with its hash tree behind it, whose superblock's UUID is the first
//! half of the root hash. A GPT disk: the image in the partition whose PARTUUID is the first half, its hash tree in the one
//! whose PARTUUID is the second half (Discoverable Partitions Specification, "verity").

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::verity::Superblock;
use super::{BootError, erofs, gpt, verity};
use crate::sys;

/// How long disks may take to appear: slow buses and firmware, not a person plugging one in.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);
/// After so long somebody who looks at the console wants to know what is being waited for.
const SILENCE: Duration = Duration::from_secs(1);

/// Bytes at an offset, all of them or an error.
pub trait ReadAt {
    /// Fills `buffer` from byte `offset`.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

/// Where the system image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// The block device with the EROFS, as `major:minor`.
    pub data: String,
    /// The block device with the hash tree, as `major:minor`.
    pub hash: String,
    /// Where on it the verity superblock is, in bytes.
    pub hash_offset: u64,
    /// The superblock.
    pub superblock: Superblock,
    /// What it was found as, for people: `vda`, or `sda2 and sda3`.
    pub name: String,
}

/// What a disk holds of a system image.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Whole { hash_offset: u64, superblock: Superblock },
    Partitions { data: gpt::Partition, hash: gpt::Partition, superblock: Superblock },
}

/// An image that was found and could be used.
#[derive(Debug)]
pub struct Found<T> {
    /// What came of using it.
    pub used: T,
    /// Why images that were found before it could not be.
    pub refused: Vec<BootError>,
}

/// Looks for the image of `root_hash` until there is one that can be `used`, or patience ends.
///
/// A disk of another build doesn't end it, nor does one whose image turns out to be damaged: the right one may be on a slower bus, and
/// the other one may be there on purpose. What the disks hold so far is said meanwhile. An image that was refused is not tried again.
pub fn find<T>(
    root_hash: &[u8; 32],
    mut used: impl FnMut(&System) -> Result<T, BootError>,
) -> Result<Found<T>, BootError> {
    let start = Instant::now();
    let mut told = false;
    let mut refused: BTreeMap<String, BootError> = BTreeMap::new();
    loop {
        let mut seen = Vec::new();
        for disk in disks() {
            let reason = match look(&disk, root_hash) {
                Err(reason) => reason,
                Ok(system) => match refused.get(&system.name) {
                    Some(error) => error.to_string(),
                    None => match used(&system) {
                        Ok(used) => return Ok(Found { used, refused: refused.into_values().collect() }),
                        Err(error) => {
                            let reason = error.to_string();
                            refused.insert(system.name, error);
                            reason
                        }
                    },
                },
            };
            seen.push(format!("{disk} ({reason})"));
        }
        if start.elapsed() >= PATIENCE {
            return Err(refused.pop_first().map_or_else(|| not_found(root_hash, &seen), |(_, error)| error));
        }
        if !told && start.elapsed() >= SILENCE {
            told = true;
            super::stop::say(&waiting(root_hash, &seen));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Such a reason says that the disk holds another build.
const ANOTHER: &str = "another build's system image, root hash";

fn of_hash(root_hash: &[u8; 32]) -> String {
    format!("with root hash {}…", verity::hex(root_hash).get(..16).unwrap_or_default())
}

fn waiting(root_hash: &[u8; 32], seen: &[String]) -> String {
    let so_far = if seen.is_empty() { "no disk".to_owned() } else { seen.join(", ") };
    let patience = PATIENCE.as_secs();
    format!("garboard: waiting up to {patience} s for the system image {}; so far: {so_far}\r\n", of_hash(root_hash))
}

fn not_found(root_hash: &[u8; 32], seen: &[String]) -> BootError {
    let object = of_hash(root_hash);
    if seen.is_empty() {
        let cause = format!("no disk appeared within {} s", PATIENCE.as_secs());
        return BootError::new("find the system image", object, cause)
            .fix("attach the system disk, or build with the module of its controller");
    }
    let fix = if seen.iter().any(|reason| reason.contains(ANOTHER)) {
        "kernel command line and system disk are of different builds: use both from one build"
    } else {
        "attach the disk that was built together with this kernel command line"
    };
    BootError::new("find the system image", object, format!("it is on none of the disks: {}", seen.join(", "))).fix(fix)
}

/// Names of the whole disks in sysfs, without those that only software makes.
pub fn disks() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/block") else { return Vec::new() };
    let made_by_software = ["loop", "ram", "zram", "dm-", "nbd", "md"];
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| !made_by_software.iter().any(|prefix| name.starts_with(prefix)));
    names.sort_unstable();
    names
}

fn look(disk: &str, root_hash: &[u8; 32]) -> Result<System, String> {
    let file = File::open(Path::new("/dev").join(disk)).map_err(|e| format!("can't be opened: {e}"))?;
    let size = sys::block::size(&file).map_err(|e| format!("has no size: {e}"))?;
    let number = |name: &str| {
        let path = format!("/sys/class/block/{name}/dev");
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        Ok::<_, String>(text.trim().to_owned())
    };
    match place(&file, size, sector_size(disk), root_hash)? {
        Place::Whole { hash_offset, superblock } => {
            let device = number(disk)?;
            Ok(System { data: device.clone(), hash: device, hash_offset, superblock, name: disk.to_owned() })
        }
        Place::Partitions { data, hash, superblock } => {
            let sector = sector_size(disk);
            let (data, hash) = (partition(disk, &file, data, sector)?, partition(disk, &file, hash, sector)?);
            let name = format!("{data} and {hash}");
            Ok(System { data: number(&data)?, hash: number(&hash)?, hash_offset: 0, superblock, name })
        }
    }
}

/// Logical sector size of a disk, in bytes.
pub fn sector_size(disk: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/sys/class/block/{disk}/queue/logical_block_size"));
    text.ok().and_then(|t| t.trim().parse().ok()).filter(|size| (512..=4096).contains(size)).unwrap_or(512)
}

/// The kernel's name of a partition: `vda3`, but `nvme0n1p3`.
fn partition_name(disk: &str, number: u32) -> String {
    let separator = if disk.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    format!("{disk}{separator}{number}")
}

/// Whether and where a disk of `size` bytes holds the image; the error says what it holds instead.
fn place(disk: &dyn ReadAt, size: u64, sector: u64, root_hash: &[u8; 32]) -> Result<Place, String> {
    let [first, second] = halves(root_hash);
    let mut head = [0; erofs::HEAD];
    disk.read_at(0, &mut head).map_err(|e| format!("can't be read: {e}"))?;
    if let Some(hash_offset) = erofs::size(&head) {
        let superblock = superblock_at(disk, hash_offset).map_err(|e| format!("an EROFS, and behind it {e}"))?;
        if superblock.uuid != first {
            return Err(another(&superblock));
        }
        return Ok(Place::Whole { hash_offset, superblock });
    }
    let table = read_table(disk, size, sector).ok_or("no EROFS and no partition table")?;
    let Some(data) = table.find(&first) else {
        // The hash tree of whatever build it is.
        let starts = table.partitions().into_iter().filter_map(|partition| partition.first.checked_mul(sector));
        let other = starts.filter_map(|offset| superblock_at(disk, offset).ok()).next();
        return Err(other.map_or_else(|| "no partition of a system image".into(), |other| another(&other)));
    };
    let hash = table.find(&second).ok_or("no partition with the hash tree of this system image")?;
    let offset = hash.first.checked_mul(sector).ok_or("a partition beyond its end")?;
    let superblock = superblock_at(disk, offset).map_err(|e| format!("in the hash partition {e}"))?;
    if superblock.uuid != first {
        return Err("a hash partition of another system image".into());
    }
    Ok(Place::Partitions { data, hash, superblock })
}

fn another(superblock: &Superblock) -> String {
    format!("{ANOTHER} {}…", verity::hex(&superblock.uuid).get(..16).unwrap_or_default())
}

fn superblock_at(disk: &dyn ReadAt, offset: u64) -> Result<Superblock, String> {
    let mut bytes = [0; verity::LENGTH];
    disk.read_at(offset, &mut bytes).map_err(|e| format!("nothing that can be read: {e}"))?;
    Superblock::parse(&bytes).map_err(str::to_owned)
}

/// The partition table of a disk: the primary one, or the backup when that is damaged.
pub fn read_table(disk: &dyn ReadAt, size: u64, sector: u64) -> Option<gpt::Table> {
    let [primary, backup] = tables(disk, size, sector);
    primary.or(backup)
}

/// Both partition tables of a disk, the primary one first, as far as they are intact.
pub fn tables(disk: &dyn ReadAt, size: u64, sector: u64) -> [Option<gpt::Table>; 2] {
    let at = |lba: u64| {
        let mut head = [0; 512];
        disk.read_at(lba.checked_mul(sector)?, &mut head).ok()?;
        let header = gpt::Header::parse(&head, lba)?;
        let mut entries = vec![0; header.entries_length];
        disk.read_at(header.entries_lba.checked_mul(sector)?, &mut entries).ok()?;
        gpt::Table::new(header, entries)
    };
    let last = size.checked_div(sector).and_then(|sectors| sectors.checked_sub(1));
    [at(1), last.and_then(at)]
}

/// The kernel's name of a partition that was found on a disk. The kernel is told of it if it found none by itself: it does not
/// look at a backup table.
pub fn partition(disk: &str, file: &File, partition: gpt::Partition, sector: u64) -> Result<String, String> {
    let name = partition_name(disk, partition.number);
    if !Path::new("/sys/class/block").join(&name).exists() {
        let added = partition
            .extent(sector)
            .ok_or(io::ErrorKind::InvalidData.into())
            .and_then(|(start, length)| sys::block::add_partition(file, partition.number, start, length));
        added.map_err(|e| format!("partition {name} can't be added: {e}"))?;
    }
    Ok(name)
}

fn halves(root_hash: &[u8; 32]) -> [[u8; 16]; 2] {
    let (first, second) = root_hash.split_at(16);
    [first, second].map(|half| half.try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::gpt::tests::{SECTOR, disk as gpt_disk};

    impl ReadAt for Vec<u8> {
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            let bytes = self.get(offset as usize..).and_then(|rest| rest.get(..buffer.len()));
            buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }
    }

    fn hash() -> [u8; 32] {
        std::array::from_fn(|i| i as u8)
    }

    fn superblock(uuid: &[u8]) -> Vec<u8> {
        let mut sb = vec![0; 4096];
        sb[..8].copy_from_slice(b"verity\0\0");
        (sb[8], sb[12]) = (1, 1);
        sb[16..32].copy_from_slice(uuid);
        sb[32..38].copy_from_slice(b"sha256");
        sb[64..68].copy_from_slice(&4096u32.to_le_bytes());
        sb[68..72].copy_from_slice(&4096u32.to_le_bytes());
        sb[72] = 2;
        sb
    }

    fn whole() -> Vec<u8> {
        let mut disk = vec![0; 8192];
        disk[1024..1028].copy_from_slice(&0xe0f5_e1e2_u32.to_le_bytes());
        disk[1036] = 12;
        disk[1040] = 5;
        disk[1060] = 2;
        disk.extend(superblock(&hash()[..16]));
        disk
    }

    fn partitioned() -> Vec<u8> {
        let [first, second] = halves(&hash());
        let mut disk = gpt_disk(4096, &[([7; 16], 40, 2047), (first, 2048, 2063), (second, 2064, 2079)]);
        disk[2064 * 512..][..4096].copy_from_slice(&superblock(&first));
        disk
    }

    fn look_at(disk: &Vec<u8>) -> Result<Place, String> {
        place(disk, disk.len() as u64, SECTOR, &hash())
    }

    #[test]
    fn a_whole_disk_is_found() {
        let Place::Whole { hash_offset, superblock } = look_at(&whole()).unwrap() else { panic!("whole disk") };
        assert_eq!((hash_offset, superblock.blocks), (8192, 2));
    }

    #[test]
    fn partitions_are_found_even_by_the_backup_table() {
        let mut disk = partitioned();
        for _ in 0..2 {
            let Place::Partitions { data, hash, .. } = look_at(&disk).unwrap() else { panic!("partitions") };
            assert_eq!((data.number, hash.number), (2, 3));
            disk[512] ^= 1;
        }
    }

    #[test]
    fn every_other_disk_says_what_it_holds() {
        let says = |disk: Vec<u8>| look_at(&disk).unwrap_err();
        assert!(says(vec![0; 100]).starts_with("can't be read"));
        assert!(says(vec![0; 4096]).contains("no EROFS and no partition table"));
        assert!(says(whole()[..8192].to_vec()).contains("behind it nothing that can be read"));
        let mut other = whole();
        other[8192 + 16] = 0xff;
        assert!(says(other).contains("another build's system image, root hash ff01"));
        let mut altered = whole();
        altered[8192] = 0;
        assert!(says(altered).contains("no verity superblock"));
        assert!(says(gpt_disk(4096, &[([7; 16], 40, 50)])).contains("no partition of a system image"));
        let mut partitions = gpt_disk(4096, &[([7; 16], 40, 2047), ([8; 16], 2064, 2079)]);
        partitions[2064 * 512..][..4096].copy_from_slice(&superblock(&[0xab; 16]));
        assert!(says(partitions).contains("another build's system image, root hash abab"));
        let mut tree = partitioned();
        tree[2064 * 512] = 0;
        assert!(says(tree).contains("in the hash partition no verity superblock"));
    }

    #[test]
    fn names_follow_the_kernel() {
        assert_eq!(partition_name("vda", 3), "vda3");
        assert_eq!(partition_name("nvme0n1", 3), "nvme0n1p3");
    }

    #[test]
    fn not_found_is_one_sentence() {
        let nothing = not_found(&hash(), &[]).to_string();
        assert!(nothing.contains("no disk appeared within 10 s"), "{nothing}");
        let others = not_found(&hash(), &["vda (no EROFS)".into()]).to_string();
        assert!(others.contains("vda (no EROFS)") && others.contains("0001020304050607"), "{others}");
        let another = not_found(&hash(), &[format!("vda ({ANOTHER} ffff…)")]).to_string();
        assert!(another.contains("different builds"), "{another}");
        let meanwhile = waiting(&hash(), &["vda (no EROFS)".into()]);
        assert!(meanwhile.contains("0001020304050607") && meanwhile.contains("so far: vda (no EROFS)"), "{meanwhile}");
    }
}
