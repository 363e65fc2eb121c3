//! Kernels and modules for tests: just enough of each format to be read.

use std::path::Path;

pub(crate) use super::image::tests::fake as image;

/// Writes `NAME.ko` with these `.modinfo` strings and the kernel it is for.
pub fn module(directory: &Path, name: &str, release: &str, strings: &[&str]) {
    let mut modinfo = Vec::new();
    for string in strings {
        modinfo.extend_from_slice(string.as_bytes());
        modinfo.push(0);
    }
    modinfo.extend_from_slice(format!("vermagic={release} SMP \0").as_bytes());
    std::fs::write(directory.join(format!("{name}.ko")), elf(&modinfo)).unwrap();
}

/// A 64-bit little-endian relocatable ELF file with the sections null, `.modinfo` and `.shstrtab`.
fn elf(modinfo: &[u8]) -> Vec<u8> {
    const HEADER: usize = 64;
    const SECTION: usize = 64;
    let names = b"\0.modinfo\0.shstrtab\0";
    let names_at = HEADER + modinfo.len();
    let table_at = (names_at + names.len()).next_multiple_of(8);
    let mut file = vec![0; table_at + 3 * SECTION];
    file[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    file[16..18].copy_from_slice(&1u16.to_le_bytes());
    file[18..20].copy_from_slice(&62u16.to_le_bytes());
    file[20..24].copy_from_slice(&1u32.to_le_bytes());
    file[40..48].copy_from_slice(&(table_at as u64).to_le_bytes());
    for (at, value) in [(52, HEADER as u16), (58, SECTION as u16), (60, 3), (62, 2)] {
        file[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    file[HEADER..names_at].copy_from_slice(modinfo);
    file[names_at..names_at + names.len()].copy_from_slice(names);
    // Name, type (1 program data, 3 strings), offset and size of sections 1 and 2.
    let sections = [(1u32, 1u32, HEADER, modinfo.len()), (10, 3, names_at, names.len())];
    for (index, (name, kind, offset, size)) in sections.into_iter().enumerate() {
        let at = table_at + (index + 1) * SECTION;
        file[at..at + 4].copy_from_slice(&name.to_le_bytes());
        file[at + 4..at + 8].copy_from_slice(&kind.to_le_bytes());
        file[at + 24..at + 32].copy_from_slice(&(offset as u64).to_le_bytes());
        file[at + 32..at + 40].copy_from_slice(&(size as u64).to_le_bytes());
    }
    file
}
