//! What a kernel module says about itself: the `.modinfo` section, a row of zero-terminated `key=value` strings
//! (include/linux/module.h, scripts/mod/modpost.c).

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use object::read::elf::{FileHeader, SectionHeader};
use object::{Endianness, elf};

/// No module is larger once unpacked, in bytes. The largest in Debian (amdgpu) have 20 MB.
const MAX_MODULE: u64 = 128 << 20;

/// A module's own description.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Modinfo {
    /// Names of modules that must be loaded before.
    pub depends: Vec<String>,
    /// Names that should be loaded before, if they exist (`softdep: pre: …`).
    pub soft_before: Vec<String>,
    /// Patterns of the devices, filesystems and algorithms it serves.
    pub aliases: Vec<String>,
    /// Files that it asks for when it is loaded or finds a device.
    pub firmware: Vec<String>,
    /// The kernel it was built for, `6.12.1-amd64 SMP …`.
    pub vermagic: String,
}

/// Reads a module from disk, unpacking `.xz`, `.zst` and `.gz` by the file name.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let packed = std::fs::read(path).with_context(|| format!("read module {}", path.display()))?;
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    unpack(extension, packed).with_context(|| format!("unpack module {}", path.display()))
}

fn unpack(extension: &str, packed: Vec<u8>) -> Result<Vec<u8>> {
    let reader: Box<dyn Read + '_> = match extension {
        "ko" => return Ok(packed),
        "xz" => Box::new(liblzma::read::XzDecoder::new(packed.as_slice())),
        "zst" => Box::new(zstd::Decoder::new(packed.as_slice())?),
        "gz" => Box::new(flate2::read::MultiGzDecoder::new(packed.as_slice())),
        other => bail!("unknown compression .{other}: modules end in .ko, .ko.xz, .ko.zst or .ko.gz"),
    };
    let mut module = Vec::new();
    reader.take(MAX_MODULE + 1).read_to_end(&mut module)?;
    if module.len() as u64 > MAX_MODULE {
        bail!("more than {MAX_MODULE} bytes unpacked");
    }
    Ok(module)
}

/// The description in an unpacked module.
pub fn parse(module: &[u8]) -> Result<Modinfo> {
    let header = elf::FileHeader64::<Endianness>::parse(module).context("not a 64-bit ELF file")?;
    let endian = header.endian()?;
    let sections = header.sections(endian, module)?;
    let Some((_, section)) = sections.section_by_name(endian, b".modinfo") else {
        bail!("no .modinfo section: not a kernel module");
    };
    parse_strings(section.data(endian, module)?)
}

fn parse_strings(section: &[u8]) -> Result<Modinfo> {
    let mut info = Modinfo::default();
    for string in section.split(|&byte| byte == 0).filter(|string| !string.is_empty()) {
        let string = std::str::from_utf8(string).context("a string in .modinfo is not UTF-8")?;
        let Some((key, value)) = string.split_once('=') else { continue };
        match key {
            "depends" => info.depends.extend(value.split(',').filter(|name| !name.is_empty()).map(normal)),
            "alias" => info.aliases.push(value.to_owned()),
            "softdep" => info.soft_before.extend(soft_before(value)),
            "firmware" => info.firmware.push(value.to_owned()),
            "vermagic" => info.vermagic = value.to_owned(),
            _ => {}
        }
    }
    Ok(info)
}

/// The names after `pre:` and before `post:`.
fn soft_before(value: &str) -> Vec<String> {
    let mut before = Vec::new();
    let mut wanted = false;
    for word in value.split_whitespace() {
        match word {
            "pre:" => wanted = true,
            "post:" => wanted = false,
            name if wanted => before.push(normal(name)),
            _ => {}
        }
    }
    before
}

/// A module's name as the kernel has it: file names use `-` and `_` alike.
pub fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn strings_become_fields() {
        let section =
            b"license=GPL\0\0depends=dm-mod,dm-bufio\0alias=fs-x\0alias=pci:v*\0softdep=pre: crc32c a-b post: z\0\
            firmware=x/y.bin\0vermagic=6.12.1 SMP \0noequals\0";
        let info = parse_strings(section).unwrap();
        assert_eq!(info.depends, ["dm_mod", "dm_bufio"]);
        assert_eq!(info.aliases, ["fs-x", "pci:v*"]);
        assert_eq!(info.soft_before, ["crc32c", "a_b"]);
        assert_eq!(info.firmware, ["x/y.bin"]);
        assert_eq!(info.vermagic, "6.12.1 SMP ");
    }

    #[test]
    fn empty_depends_is_none() {
        assert_eq!(parse_strings(b"depends=\0").unwrap(), Modinfo::default());
    }

    #[test]
    fn unpacks_what_distributions_use() {
        let plain = b"module".repeat(1000);
        let mut xz = Vec::new();
        liblzma::read::XzEncoder::new(plain.as_slice(), 1).read_to_end(&mut xz).unwrap();
        assert_eq!(unpack("xz", xz.clone()).unwrap(), plain);
        assert_eq!(unpack("zst", zstd::encode_all(plain.as_slice(), 1).unwrap()).unwrap(), plain);
        let mut gz = Vec::new();
        flate2::read::GzEncoder::new(plain.as_slice(), flate2::Compression::fast()).read_to_end(&mut gz).unwrap();
        assert_eq!(unpack("gz", gz).unwrap(), plain);
        assert_eq!(unpack("ko", plain.clone()).unwrap(), plain);
        xz.truncate(xz.len() / 2);
        assert!(unpack("xz", xz).is_err());
        assert!(unpack("lz4", plain).unwrap_err().to_string().contains(".ko.zst"));
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let _ = parse(&bytes);
            let _ = parse_strings(&bytes);
        }

        #[test]
        fn a_damaged_elf_header_never_panics(at in 0usize..64, value in any::<u8>()) {
            let mut bytes = std::fs::read("/proc/self/exe").unwrap();
            bytes[at] = value;
            let _ = parse(&bytes);
        }
    }
}
