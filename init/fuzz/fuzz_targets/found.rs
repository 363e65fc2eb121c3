//! Whatever is found on a disk: its partition table and its filesystem are read, or taken for none, and what is to be written lies
//! on the disk.
//!
//! From the `init` directory: `cargo +nightly fuzz run found -- -max_len=24576`
#![no_main]

use garboard_init::boot::gpt::{Header, Table, Writes, protective};
use garboard_init::work::ext4::Superblock;

const SECTOR: u64 = 512;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(found) = Superblock::parse(bytes) {
        assert!((1024..=65536).contains(&found.block_size));
        assert!(found.growth(bytes.len() as u64).is_none_or(|blocks| blocks > found.blocks));
    }
    let Some((sectors, bytes)) = bytes.split_first_chunk::<8>() else { return };
    let sectors = u64::from_le_bytes(*sectors);
    let Some((sector, entries)) = bytes.split_first_chunk::<512>() else { return };
    protective(sector, sectors);
    if let Some(table) = table(*sector, entries) {
        let size = sectors.saturating_mul(SECTOR);
        for partition in table.partitions() {
            partition.extent(SECTOR);
            if let Some(grown) = table.grown(&partition.uuid, sectors, SECTOR) {
                assert!(grown.partition.last < sectors && grown.partition.first == partition.first);
                inside(&grown.writes, size);
            }
        }
        if let Some(writes) = table.repaired(sectors, SECTOR) {
            inside(&writes, size);
        }
    }
});

/// The table that these would be if their checksums were right, which no mutation finds.
fn table(mut sector: [u8; 512], entries: &[u8]) -> Option<Table> {
    let [count, size] = [80, 84].map(|at| sector[at..at + 4].try_into().map_or(0, u32::from_le_bytes) as usize);
    let entries = entries.get(..count.checked_mul(size)?)?.to_vec();
    sector[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
    let length = u32::from_le_bytes(sector[12..16].try_into().ok()?) as usize;
    sector[16..20].fill(0);
    let crc = crc32fast::hash(sector.get(..length)?);
    sector[16..20].copy_from_slice(&crc.to_le_bytes());
    let lba = u64::from_le_bytes(sector[24..32].try_into().ok()?);
    Table::new(Header::parse(&sector, lba)?, entries)
}

fn inside(writes: &Writes, size: u64) {
    for (at, bytes) in writes {
        assert!(at.checked_add(bytes.len() as u64).is_some_and(|end| end <= size));
    }
}
