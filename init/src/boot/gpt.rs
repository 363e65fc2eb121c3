//! GUID partition tables (UEFI specification 2.10, section 5.3): reading one, finding a partition, growing the last, repair.
//!
//! Bytes only; reading and writing a disk is [`super::disk`]'s and [`crate::work`]'s.

use super::field::{bytes, le32, le64, put};

/// Sizes that a table is refused beyond; the usual one has 128 entries of 128 bytes.
const MAX_ENTRIES: u32 = 1024;
/// What a header's own length may be, in bytes (it lies in one sector).
const HEADER_LENGTHS: std::ops::RangeInclusive<u32> = 92..=512;

/// A table header that is intact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    raw: Vec<u8>,
    /// Where the other header is, in sectors.
    pub alternate: u64,
    /// First sector of the entries.
    pub entries_lba: u64,
    /// Length of the entries in bytes.
    pub entries_length: usize,
    entry_size: usize,
    entries_crc: u32,
}

/// One used entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1, as the kernel counts.
    pub number: u32,
    /// Its own UUID (PARTUUID), bytes in the order of the text form.
    pub uuid: [u8; 16],
    /// First sector.
    pub first: u64,
    /// Last sector, inclusive.
    pub last: u64,
}

impl Partition {
    /// Where it begins and how long it is, in bytes; `None` if no disk is so large.
    pub fn extent(&self, sector: u64) -> Option<(u64, u64)> {
        let sectors = self.last.checked_sub(self.first)?.checked_add(1)?;
        Some((self.first.checked_mul(sector)?, sectors.checked_mul(sector)?))
    }
}

/// An intact header with its intact entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    header: Header,
    entries: Vec<u8>,
}

impl Header {
    /// The header in a sector that should lie at `lba`; `None` if there is none or it is damaged.
    pub fn parse(sector: &[u8], lba: u64) -> Option<Self> {
        let length = le32(sector, 12)?;
        if sector.get(..8)? != b"EFI PART" || !HEADER_LENGTHS.contains(&length) || le64(sector, 24)? != lba {
            return None;
        }
        let raw = sector.get(..usize::try_from(length).ok()?)?.to_vec();
        if header_crc(&raw)? != le32(sector, 16)? {
            return None;
        }
        let (count, entry_size) = (le32(sector, 80)?, le32(sector, 84)?);
        if count == 0 || count > MAX_ENTRIES || !(128..=4096).contains(&entry_size) {
            return None;
        }
        let entry_size = usize::try_from(entry_size).ok()?;
        Some(Self {
            alternate: le64(sector, 32)?,
            entries_lba: le64(sector, 72)?,
            entries_length: usize::try_from(count).ok()?.checked_mul(entry_size)?,
            entry_size,
            entries_crc: le32(sector, 88)?,
            raw,
        })
    }
}

fn header_crc(raw: &[u8]) -> Option<u32> {
    let mut zeroed = raw.to_vec();
    put(&mut zeroed, 16, &[0; 4])?;
    Some(crc32fast::hash(&zeroed))
}

impl Table {
    /// The table of an intact header, whose entries are `entries`; `None` if they are damaged.
    pub fn new(header: Header, entries: Vec<u8>) -> Option<Self> {
        let intact = entries.len() == header.entries_length && crc32fast::hash(&entries) == header.entries_crc;
        intact.then_some(Self { header, entries })
    }

    /// The used entries.
    pub fn partitions(&self) -> Vec<Partition> {
        let entries = self.entries.chunks_exact(self.header.entry_size).zip(1..);
        entries.filter_map(|(entry, number)| partition(entry, number)).collect()
    }

    /// The partition with that PARTUUID.
    pub fn find(&self, uuid: &[u8; 16]) -> Option<Partition> {
        self.partitions().into_iter().find(|p| p.uuid == *uuid)
    }

    /// The table with its last partition, if that has the PARTUUID `uuid`, grown to the end of a disk of `sectors` sectors of
    /// `sector` bytes. `None` if it can't be grown: another lies behind it, or it already ends there.
    pub fn grown(&self, uuid: &[u8; 16], sectors: u64, sector: u64) -> Option<Grown> {
        let partition = self.find(uuid)?;
        let last_usable = self.place_of_backup(sectors, sector)?.checked_sub(1)?;
        // Ends on a whole megabyte's boundary, so that filesystem blocks fit.
        let align = (1u64 << 20).checked_div(sector)?;
        let last = last_usable.checked_add(1)?.checked_div(align)?.checked_mul(align)?.checked_sub(1)?;
        if last <= partition.last || self.partitions().iter().any(|p| p.first > partition.first) {
            return None;
        }
        let mut entries = self.entries.clone();
        let index = usize::try_from(partition.number).ok()?.checked_sub(1)?.checked_mul(self.header.entry_size)?;
        put(&mut entries, index.checked_add(40)?, &last.to_le_bytes())?;
        Some(Grown { partition: Partition { last, ..partition }, writes: self.writes(entries, sectors, sector)? })
    }

    /// What to write to have this table on the disk twice, as it should be. `None` if a partition reaches beyond it.
    pub fn repaired(&self, sectors: u64, sector: u64) -> Option<Writes> {
        let backup = self.place_of_backup(sectors, sector)?;
        let fits = self.partitions().iter().all(|partition| partition.last < backup);
        fits.then(|| self.writes(self.entries.clone(), sectors, sector))?
    }

    /// Whether `other` says the same of every partition.
    pub fn agrees(&self, other: &Self) -> bool {
        self.entries == other.entries
    }

    /// The first sector of the backup's entries. The end of a disk: usable sectors, these entries, the backup's header.
    fn place_of_backup(&self, sectors: u64, sector: u64) -> Option<u64> {
        // No disk has sectors of 0 bytes; `div_ceil` would panic.
        let sector = std::num::NonZeroU64::new(sector)?.get();
        let entries = u64::try_from(self.entries.len()).ok()?.div_ceil(sector);
        sectors.checked_sub(1)?.checked_sub(entries)
    }

    fn is_primary(&self) -> Option<bool> {
        Some(le64(&self.header.raw, 24)? == 1)
    }

    /// The first sector of the primary's entries. They stay where they are: what else lies before the first usable sector, a loader
    /// say, is not ours. Where they were can't be known of a primary that is damaged: then it is the usual place. `None` if they don't
    /// lie between the header and the first usable sector, before the backup.
    fn place_of_primary(&self, backup: u64, sector: u64) -> Option<u64> {
        const USUAL: u64 = 2;
        let place = if self.is_primary()? { self.header.entries_lba } else { USUAL };
        let entries = u64::try_from(self.entries.len()).ok()?.div_ceil(std::num::NonZeroU64::new(sector)?.get());
        let end = le64(&self.header.raw, 40)?.min(backup);
        (place >= USUAL && place.checked_add(entries)? <= end).then_some(place)
    }

    fn writes(&self, entries: Vec<u8>, sectors: u64, sector: u64) -> Option<Writes> {
        let backup_lba = sectors.checked_sub(1)?;
        let backup_entries = self.place_of_backup(sectors, sector)?;
        let last_usable = backup_entries.checked_sub(1)?;
        let primary_entries = self.place_of_primary(backup_entries, sector)?;
        let crc = crc32fast::hash(&entries);
        let header = |lba: u64, alternate: u64, entries_lba: u64| {
            let mut raw = self.header.raw.clone();
            put(&mut raw, 24, &lba.to_le_bytes())?;
            put(&mut raw, 32, &alternate.to_le_bytes())?;
            put(&mut raw, 48, &last_usable.to_le_bytes())?;
            put(&mut raw, 72, &entries_lba.to_le_bytes())?;
            put(&mut raw, 88, &crc.to_le_bytes())?;
            let own = header_crc(&raw)?;
            put(&mut raw, 16, &own.to_le_bytes())?;
            raw.resize(usize::try_from(sector).ok()?, 0);
            Some(raw)
        };
        let at = |lba: u64| lba.checked_mul(sector);
        let mut writes = [
            (at(backup_entries)?, entries.clone()),
            (at(backup_lba)?, header(backup_lba, 1, backup_entries)?),
            (at(primary_entries)?, entries),
            (at(1)?, header(1, backup_lba, primary_entries)?),
        ];
        // The copy that this table was read from is the last one to be touched.
        if !self.is_primary()? {
            writes.rotate_left(2);
        }
        Some(writes)
    }
}

/// Sector 0 with the protective partition as large as a disk of `sectors` sectors (UEFI specification 2.10, section 5.2.3): tools that
/// know no GPT then see no free space. `None` if it is right already, or is no protective MBR and thus nobody's business here.
pub fn protective(sector: &[u8; 512], sectors: u64) -> Option<[u8; 512]> {
    const KIND: usize = 446 + 4;
    const SIZE: usize = 446 + 12;
    let wanted = u32::try_from(sectors.checked_sub(1)?).unwrap_or(u32::MAX);
    let is_protective = sector.get(KIND) == Some(&0xee) && sector.ends_with(&[0x55, 0xaa]);
    if !is_protective || le32(sector, SIZE)? == wanted {
        return None;
    }
    let mut changed = *sector;
    put(&mut changed, SIZE, &wanted.to_le_bytes())?;
    Some(changed)
}

/// `(byte offset, bytes)`, in this order and each on the disk before the next: at every moment one header with its entries is
/// intact.
pub type Writes = [(u64, Vec<u8>); 4];

/// What to write to grow a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grown {
    /// The partition as it will be.
    pub partition: Partition,
    /// The new tables.
    pub writes: Writes,
}

fn partition(entry: &[u8], number: u32) -> Option<Partition> {
    if bytes::<16>(entry, 0)? == [0; 16] {
        return None;
    }
    let (first, last) = (le64(entry, 32)?, le64(entry, 40)?);
    (first <= last).then_some(Partition { number, uuid: mixed_endian(bytes(entry, 16)?), first, last })
}

/// Between a UUID as a table stores it (its first three fields little-endian) and in the order of its text form. Its own inverse.
pub fn mixed_endian(uuid: [u8; 16]) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = uuid;
    let [i, j, k, l, m, n, o, p] = rest;
    [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
}

/// A UUID's text form.
pub fn uuid_text(uuid: &[u8; 16]) -> String {
    let digits = super::verity::hex(uuid);
    let fields = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| digits.get(range).unwrap_or_default().to_owned());
    fields.join("-")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) const SECTOR: u64 = 512;

    /// A disk of so many sectors whose partitions are `(uuid, first, last)`, with both tables.
    pub(crate) fn disk(sectors: u64, partitions: &[([u8; 16], u64, u64)]) -> Vec<u8> {
        let mut entries = vec![0; 128 * 128];
        for (i, (uuid, first, last)) in partitions.iter().enumerate() {
            let entry = &mut entries[i * 128..][..128];
            entry[..16].fill(0x0f);
            entry[16..32].copy_from_slice(&mixed_endian(*uuid));
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&last.to_le_bytes());
        }
        let mut disk = vec![0; (sectors * SECTOR) as usize];
        for (lba, other, entries_lba) in [(1, sectors - 1, 2), (sectors - 1, 1, sectors - 33)] {
            let mut raw = vec![0; 92];
            raw[..8].copy_from_slice(b"EFI PART");
            raw[8..12].copy_from_slice(&[0, 0, 1, 0]);
            raw[12] = 92;
            for (offset, value) in [(24, lba), (32, other), (40, 34), (48, sectors - 34), (72, entries_lba)] {
                raw[offset..offset + 8].copy_from_slice(&u64::to_le_bytes(value));
            }
            raw[80] = 128;
            raw[84] = 128;
            raw[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
            let crc = header_crc(&raw).unwrap();
            raw[16..20].copy_from_slice(&crc.to_le_bytes());
            disk[(lba * SECTOR) as usize..][..92].copy_from_slice(&raw);
            disk[(entries_lba * SECTOR) as usize..][..entries.len()].copy_from_slice(&entries);
        }
        disk
    }

    fn table(disk: &[u8], lba: u64) -> Option<Table> {
        let header = Header::parse(&disk[(lba * SECTOR) as usize..][..512], lba)?;
        let start = (header.entries_lba * SECTOR) as usize;
        let entries = disk[start..][..header.entries_length].to_vec();
        Table::new(header, entries)
    }

    const DATA: [u8; 16] = [0xd0; 16];
    const ROOT: [u8; 16] = *b"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10";

    #[test]
    fn both_tables_are_read() {
        let disk = disk(8192, &[(ROOT, 2048, 4095), (DATA, 4096, 6143)]);
        for lba in [1, 8191] {
            let table = table(&disk, lba).unwrap();
            assert_eq!(table.find(&ROOT).unwrap(), Partition { number: 1, uuid: ROOT, first: 2048, last: 4095 });
            assert_eq!(table.find(&[9; 16]), None);
        }
        assert_eq!(table(&disk, 2), None);
    }

    #[test]
    fn extents_are_bytes() {
        let partition = Partition { number: 1, uuid: [0; 16], first: 2048, last: 4095 };
        assert_eq!(partition.extent(512), Some((1 << 20, 1 << 20)));
        assert_eq!(Partition { last: u64::MAX, ..partition }.extent(4096), None);
        assert_eq!(Partition { last: 0, ..partition }.extent(512), None);
    }

    #[test]
    fn damage_is_noticed() {
        let good = disk(8192, &[(DATA, 2048, 4095)]);
        for offset in [512, 512 + 30, 512 + 72, 1024 + 40] {
            let mut disk = good.clone();
            disk[offset] ^= 1;
            assert_eq!(table(&disk, 1), None, "byte {offset}");
            assert!(table(&disk, 8191).is_some());
        }
    }

    #[test]
    fn growing_moves_the_backup_and_keeps_one_table_intact_after_every_write() {
        let mut disk = disk(8192, &[(ROOT, 2048, 4095), (DATA, 4096, 6143)]);
        disk.resize(32768 * 512, 0);
        let grown = table(&disk, 1).unwrap().grown(&DATA, 32768, SECTOR).unwrap();
        assert_eq!((grown.partition.first, grown.partition.last), (4096, 30719));
        write(&mut disk, &grown.writes);
        for lba in [1, 32767] {
            let table = table(&disk, lba).unwrap();
            assert_eq!(table.find(&DATA).unwrap(), grown.partition);
            assert_eq!(table.find(&ROOT).unwrap().last, 4095);
            assert!(table.grown(&DATA, 32768, SECTOR).is_none(), "grown once is enough");
        }
    }

    /// Makes the writes, and after each half of one wants a table to be there.
    fn write(disk: &mut [u8], writes: &Writes) {
        let last = disk.len() as u64 / SECTOR - 1;
        for (i, (offset, bytes)) in writes.iter().enumerate() {
            for length in [bytes.len() / 2, bytes.len()] {
                disk[*offset as usize..][..length].copy_from_slice(&bytes[..length]);
                assert!(table(disk, 1).is_some() || table(disk, last).is_some(), "write {i} cut at {length}");
            }
        }
        let (primary, backup) = (table(disk, 1).unwrap(), table(disk, last).unwrap());
        assert!(primary.agrees(&backup));
        assert_eq!((primary.header.alternate, backup.header.alternate), (last, 1));
    }

    #[test]
    fn a_damaged_copy_is_made_from_the_other() {
        let good = disk(8192, &[(ROOT, 2048, 4095), (DATA, 4096, 8158)]);
        for (damaged, intact) in [(1, 8191), (2, 8191), (8191, 1), (8191 - 32, 1)] {
            let mut disk = good.clone();
            disk[(damaged * SECTOR) as usize + 40] ^= 1;
            let writes = table(&disk, intact).unwrap().repaired(8192, SECTOR).unwrap();
            write(&mut disk, &writes);
            assert!(disk == good, "sector {damaged}");
        }
        assert_eq!(
            table(&good, 1).unwrap().repaired(8191, SECTOR),
            None,
            "the last partition is where the backup would be"
        );
    }

    #[test]
    fn entries_that_lie_elsewhere_stay_there_and_what_lies_in_their_usual_place_too() {
        let mut disk = disk(8192, &[(DATA, 2048, 4095)]);
        // As `sgdisk --move-main-table` has it.
        disk.copy_within(2 * 512..34 * 512, 64 * 512);
        disk[2 * 512..34 * 512].fill(b'L');
        let mut raw = disk[512..512 + 92].to_vec();
        raw[72..80].copy_from_slice(&64_u64.to_le_bytes());
        raw[40..48].copy_from_slice(&96_u64.to_le_bytes());
        let crc = header_crc(&raw).unwrap();
        raw[16..20].copy_from_slice(&crc.to_le_bytes());
        disk[512..512 + 92].copy_from_slice(&raw);
        let grown = table(&disk, 1).unwrap().grown(&DATA, 8192, SECTOR).unwrap();
        write(&mut disk, &grown.writes);
        assert_eq!(table(&disk, 1).unwrap().find(&DATA).unwrap(), grown.partition);
        assert!(disk[2 * 512..34 * 512].iter().all(|byte| *byte == b'L'));
        // What says that they lie beyond the disk is not believed.
        let mut beyond = table(&disk, 1).unwrap();
        beyond.header.raw[40..48].fill(0xff);
        beyond.header.entries_lba = 8192;
        assert_eq!(beyond.repaired(8192, SECTOR), None);
        // From the backup of a disk that uses that place for partitions nothing is repaired.
        let mut backup = table(&disk, 8191).unwrap();
        backup.header.raw[40] = 20;
        assert_eq!(backup.repaired(8192, SECTOR), None);
    }

    /// Its partition could be longer, and its primary table is damaged.
    #[test]
    fn growing_by_the_backup_touches_that_last() {
        let mut disk = disk(8192, &[(DATA, 2048, 4095)]);
        disk[512] ^= 1;
        let grown = table(&disk, 8191).unwrap().grown(&DATA, 8192, SECTOR).unwrap();
        write(&mut disk, &grown.writes);
        assert_eq!(table(&disk, 1).unwrap().find(&DATA).unwrap(), grown.partition);
    }

    #[test]
    fn the_protective_mbr_covers_the_disk() {
        let mut sector = [0; 512];
        sector[450] = 0xee;
        sector[454] = 1;
        sector[458..462].copy_from_slice(&8191_u32.to_le_bytes());
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(protective(&sector, 8192), None, "it is right");
        let grown = protective(&sector, 32768).unwrap();
        assert_eq!(grown[458..462], 32767_u32.to_le_bytes());
        assert_eq!((&grown[..458], &grown[462..]), (&sector[..458], &sector[462..]));
        assert_eq!(protective(&grown, 1 << 40).unwrap()[458..462], [0xff; 4], "as much as it can say");
        // A real partition, and no MBR at all.
        for (at, value) in [(450, 0x83), (510, 0)] {
            let mut other = sector;
            other[at] = value;
            assert_eq!(protective(&other, 32768), None);
        }
    }

    #[test]
    fn only_the_last_partition_grows() {
        let mut disk = disk(8192, &[(DATA, 2048, 4095), (ROOT, 4096, 6143)]);
        disk.resize(32768 * 512, 0);
        let table = table(&disk, 1).unwrap();
        assert!(table.grown(&DATA, 32768, SECTOR).is_none());
        assert!(table.grown(&[1; 16], 32768, SECTOR).is_none());
        assert!(table.grown(&ROOT, 10, SECTOR).is_none());
    }

    #[test]
    fn uuids_read_as_text() {
        assert_eq!(uuid_text(&ROOT), "01020304-0506-0708-090a-0b0c0d0e0f10");
        assert_eq!(mixed_endian(ROOT)[..8], [4, 3, 2, 1, 6, 5, 8, 7]);
        assert_eq!(mixed_endian(mixed_endian(ROOT)), ROOT);
    }

    proptest! {
        #[test]
        fn any_header_is_handled(at in 0usize..92, to: u8, lba: u64, sectors: u64) {
            let mut sector = disk(100, &[(DATA, 40, 50)])[512..1024].to_vec();
            sector[at] = to;
            // With a checksum that fits, so that the fields behind it are reached.
            if let Some(crc) = header_crc(&sector[..92]) {
                sector[16..20].copy_from_slice(&crc.to_le_bytes());
            }
            let _ = Header::parse(&sector, lba);
            if let Some(mut header) = Header::parse(&sector, 1) {
                let entries = vec![0xff; header.entries_length];
                header.entries_crc = crc32fast::hash(&entries);
                let table = Table::new(header, entries).unwrap();
                let _ = table.partitions();
                let _ = table.grown(&[0xff; 16], sectors, 512);
                let _ = table.grown(&[0xff; 16], sectors, 0);
                let _ = table.repaired(sectors, 512);
                let _ = table.repaired(sectors, 0);
            }
        }
    }
}
