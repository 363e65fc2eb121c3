//! Assembles a Unified Kernel Image: systemd's EFI stub with kernel, initrd and command line as further PE sections.
//!
//! Follows the UAPI Group's UKI specification and the PE format (headers: <https://learn.microsoft.com/windows/win32/debug/pe-format>).
//! The stub finds its sections by name in its own loaded image, so each needs an address of its own behind the stub's.

/// What goes into a UKI. Sections are written in this order.
#[derive(Debug, Clone, Copy)]
pub struct Uki<'a> {
    /// systemd's `linuxx64.efi.stub`.
    pub stub: &'a [u8],
    /// `os-release` text: systemd-boot takes the menu title and the version to sort by from it.
    pub os_release: &'a str,
    /// The kernel command line, one line.
    pub cmdline: &'a str,
    /// The kernel's release, for people (`.uname`).
    pub release: &'a str,
    /// The initrd.
    pub initrd: &'a [u8],
    /// The kernel (bzImage with EFI stub).
    pub linux: &'a [u8],
}

/// Why no UKI could be assembled.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The stub is not what it should be.
    #[error(
        "assemble UKI: the EFI stub is not usable: {0}; reinstall the package that owns it (Debian: systemd-boot-efi)"
    )]
    Stub(&'static str),
    /// The result doesn't fit in PE's 32-bit fields.
    #[error("assemble UKI: kernel and initrd are too large together; the format's limit is 4 GiB")]
    TooLarge,
}

/// Offset of the PE header's offset in the DOS header.
const PE_POINTER: usize = 0x3c;
/// Bytes of the COFF header with the signature in front.
const COFF: usize = 24;
/// Bytes of one section header.
const SECTION: usize = 40;
/// `IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ`
const DATA_READ: u32 = 0x4000_0040;

/// The UKI's bytes. Equal input gives equal output.
///
/// # Errors
/// If `stub` isn't a 64-bit PE image with room for five more section headers, or the result would pass 4 GiB.
pub fn assemble(uki: &Uki<'_>) -> Result<Vec<u8>, Error> {
    let cmdline = uki.cmdline.trim();
    let sections: [(&str, &[u8]); 5] = [
        (".osrel", uki.os_release.as_bytes()),
        (".cmdline", cmdline.as_bytes()),
        (".uname", uki.release.as_bytes()),
        (".initrd", uki.initrd),
        // Last: a kernel that is started in place may use memory behind its own end.
        (".linux", uki.linux),
    ];
    let header = Header::parse(uki.stub)?;
    let mut out = uki.stub.to_vec();
    let mut address = header.end_address;
    for (n, (name, data)) in sections.iter().enumerate() {
        pad(&mut out, header.file_alignment)?;
        address = align(address, header.section_alignment)?;
        let entry = section_header(name, data.len(), address, out.len())?;
        let at = header.sections_end + n * SECTION;
        out.get_mut(at..at + SECTION).ok_or(Error::Stub("its section table is cut off"))?.copy_from_slice(&entry);
        address = address.checked_add(fit(data.len())?).ok_or(Error::TooLarge)?;
        out.extend_from_slice(data);
    }
    pad(&mut out, header.file_alignment)?;

    let count = header.section_count + sections.len() as u16;
    put(&mut out, header.pe + 6, &count.to_le_bytes())?;
    put(&mut out, header.pe + COFF + 56, &align(address, header.section_alignment)?.to_le_bytes())?; // SizeOfImage
    put(&mut out, header.pe + COFF + 64, &0u32.to_le_bytes())?; // CheckSum: UEFI ignores it, a stale one misleads people
    Ok(out)
}

/// What of a PE header matters for adding sections.
#[derive(Debug)]
struct Header {
    /// Offset of the signature.
    pe: usize,
    section_count: u16,
    /// File offset behind the last section header.
    sections_end: usize,
    file_alignment: u32,
    section_alignment: u32,
    /// First address behind all sections.
    end_address: u32,
}

impl Header {
    fn parse(image: &[u8]) -> Result<Self, Error> {
        if image.get(..2) != Some(b"MZ") {
            return Err(Error::Stub("it does not begin with MZ"));
        }
        let pe = u32_at(image, PE_POINTER)? as usize;
        if image.get(pe..pe.saturating_add(4)) != Some(b"PE\0\0") || pe > 1 << 20 {
            return Err(Error::Stub("it has no PE signature"));
        }
        if u16_at(image, pe + 4)? != 0x8664 || u16_at(image, pe + COFF)? != 0x20b {
            return Err(Error::Stub("it is not a 64-bit x86 image"));
        }
        let section_count = u16_at(image, pe + 6)?;
        let table = pe + COFF + usize::from(u16_at(image, pe + 20)?);
        let sections_end = table + usize::from(section_count) * SECTION;
        let section_alignment = u32_at(image, pe + COFF + 32)?;
        let file_alignment = u32_at(image, pe + COFF + 36)?;
        if !section_alignment.is_power_of_two() || !file_alignment.is_power_of_two() || section_alignment > 1 << 24 {
            return Err(Error::Stub("its alignments are not powers of two"));
        }
        let headers_size = u32_at(image, pe + COFF + 60)? as usize;
        let mut first_data = headers_size;
        let mut end_address = u32_at(image, pe + COFF + 56)?;
        for at in (table..sections_end).step_by(SECTION) {
            let (size, start, raw) =
                (u32_at(image, at + 8)?, u32_at(image, at + 12)?, u32_at(image, at + 20)? as usize);
            end_address = end_address.max(start.checked_add(size).ok_or(Error::Stub("a section passes 4 GiB"))?);
            if raw != 0 {
                first_data = first_data.min(raw);
            }
        }
        if sections_end + 5 * SECTION > first_data {
            return Err(Error::Stub("it has no room for more section headers"));
        }
        Ok(Self { pe, section_count, sections_end, file_alignment, section_alignment, end_address })
    }
}

fn section_header(name: &str, size: usize, address: u32, offset: usize) -> Result<[u8; SECTION], Error> {
    let mut h = [0; SECTION];
    h[..name.len()].copy_from_slice(name.as_bytes());
    let fields = [(8, fit(size)?), (12, address), (16, fit(size)?), (20, fit(offset)?), (36, DATA_READ)];
    for (at, value) in fields {
        h[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    Ok(h)
}

fn pad(out: &mut Vec<u8>, alignment: u32) -> Result<(), Error> {
    let len = align(fit(out.len())?, alignment)?;
    out.resize(len as usize, 0);
    Ok(())
}

fn align(value: u32, alignment: u32) -> Result<u32, Error> {
    value.checked_next_multiple_of(alignment).ok_or(Error::TooLarge)
}

fn fit(size: usize) -> Result<u32, Error> {
    u32::try_from(size).map_err(|_| Error::TooLarge)
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) -> Result<(), Error> {
    image.get_mut(at..at + bytes.len()).ok_or(Error::Stub("it is cut off"))?.copy_from_slice(bytes);
    Ok(())
}

fn bytes_at<const N: usize>(image: &[u8], at: usize) -> Result<[u8; N], Error> {
    image.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().ok_or(Error::Stub("it is cut off"))
}

fn u16_at(image: &[u8], at: usize) -> Result<u16, Error> {
    bytes_at(image, at).map(u16::from_le_bytes)
}

fn u32_at(image: &[u8], at: usize) -> Result<u32, Error> {
    bytes_at(image, at).map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A minimal PE image: headers of 0x400 bytes, one section of 0x200 bytes at address 0x1000.
    fn stub() -> Vec<u8> {
        let mut image = vec![0; 0x600];
        image[..2].copy_from_slice(b"MZ");
        image[PE_POINTER] = 0x80;
        image[0x80..0x84].copy_from_slice(b"PE\0\0");
        let optional = 0x80 + COFF;
        for (at, value) in [(0x84, 0x8664u16), (0x86, 1), (0x94, 240), (optional, 0x20b)] {
            image[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        let table = optional + 240;
        let words =
            [(optional + 32, 0x1000u32), (optional + 36, 0x200), (optional + 56, 0x2000), (optional + 60, 0x400)];
        let section = [(table + 8, 0x200u32), (table + 12, 0x1000), (table + 16, 0x200), (table + 20, 0x400)];
        for (at, value) in words.into_iter().chain(section) {
            image[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        image
    }

    fn uki(stub: &[u8]) -> Uki<'_> {
        Uki {
            stub,
            os_release: "ID=x\n",
            cmdline: "quiet a=b\n",
            release: "6.12",
            initrd: &[7; 5000],
            linux: &[9; 0x3001],
        }
    }

    /// `(name, address, contents)` of every section, read back by the same PE rules a loader has.
    fn sections(image: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let header_end = u32_at(image, PE_POINTER).unwrap() as usize + COFF;
        let count = u16_at(image, header_end - COFF + 6).unwrap();
        let table = header_end + usize::from(u16_at(image, header_end - 4).unwrap());
        let read = |at: usize| {
            let name = String::from_utf8_lossy(&image[at..at + 8]).trim_end_matches('\0').to_owned();
            let (size, offset) = (u32_at(image, at + 16).unwrap() as usize, u32_at(image, at + 20).unwrap() as usize);
            (name, u32_at(image, at + 12).unwrap(), image[offset..offset + size].to_vec())
        };
        (0..count).map(|n| read(table + usize::from(n) * SECTION)).collect()
    }

    #[test]
    fn every_section_is_there_with_its_own_addresses() {
        let image = assemble(&uki(&stub())).unwrap();
        let found = sections(&image);
        let names: Vec<&str> = found[1..].iter().map(|s| s.0.as_str()).collect();
        assert_eq!(names, [".osrel", ".cmdline", ".uname", ".initrd", ".linux"]);
        assert_eq!(found[2].2, b"quiet a=b");
        assert_eq!(found[5].2, [9; 0x3001]);
        for pair in found.windows(2) {
            assert!(pair[0].1 + pair[0].2.len() as u32 <= pair[1].1, "{pair:?} overlap");
            assert_eq!(pair[1].1 % 0x1000, 0);
        }
        let size_of_image = u32_at(&image, 0x80 + COFF + 56).unwrap();
        assert_eq!(size_of_image, (found[5].1 + 0x3001).next_multiple_of(0x1000));
        assert_eq!(image, assemble(&uki(&stub())).unwrap());
    }

    #[test]
    fn refuses_stubs_that_are_not() {
        assert_eq!(assemble(&uki(b"ELF")).unwrap_err(), Error::Stub("it does not begin with MZ"));
        let mut full = stub();
        full[0x86] = 12;
        assert!(matches!(assemble(&uki(&full)), Err(Error::Stub(_))));
        assert!(matches!(assemble(&uki(&stub()[..0x90])), Err(Error::Stub(_))));
    }

    proptest! {
        #[test]
        fn hostile_stubs_give_errors(mut bytes in proptest::collection::vec(any::<u8>(), 0..700), changes in proptest::collection::vec((0usize..0x180, any::<u8>()), 0..8)) {
            let _ = assemble(&uki(&bytes));
            bytes = stub();
            for (at, value) in changes {
                bytes[at] = value;
            }
            let _ = assemble(&uki(&bytes));
        }
    }
}
