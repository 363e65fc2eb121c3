//! The header of an x86 kernel image (Documentation/arch/x86/boot.rst).

use anyhow::{Result, bail};

/// Offset of `HdrS`.
const MAGIC_AT: usize = 0x202;
/// Offset of `kernel_version`: a little-endian u16, from [`VERSION_BASE`] to a zero-terminated string.
const VERSION_POINTER_AT: usize = 0x20e;
const VERSION_BASE: usize = 0x200;
/// No release name is longer (`__NEW_UTS_LEN`).
const MAX_RELEASE: usize = 64;
/// The oldest release that has all that a container needs: idmapped layers beneath an overlay came with 5.19.
const OLDEST: (u32, u32) = (5, 19);

/// The release of a kernel image, such as `6.12.1-amd64`.
pub fn release(image: &[u8]) -> Result<String> {
    if image.get(MAGIC_AT..MAGIC_AT + 4) != Some(b"HdrS") {
        bail!("not an x86 kernel image (bzImage): no HdrS at offset {MAGIC_AT:#x}");
    }
    let pointer = image.get(VERSION_POINTER_AT..VERSION_POINTER_AT + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]));
    let text = image.get(VERSION_BASE + usize::from(pointer)..).unwrap_or_default();
    let release = text.iter().take(MAX_RELEASE).take_while(|byte| byte.is_ascii_graphic());
    let release: String = release.map(|&byte| char::from(byte)).collect();
    if pointer == 0 || !release.starts_with(|c: char| c.is_ascii_digit()) {
        bail!("the kernel image does not state its release");
    }
    Ok(release)
}

/// The first two numbers of a release.
pub fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Refuses a release that is known to be too old.
pub fn require_supported(release: &str) -> Result<()> {
    if version(release) < OLDEST {
        bail!(
            "kernel {release} is too old: Garboard needs {}.{} or newer (idmapped layers beneath an overlay)",
            OLDEST.0,
            OLDEST.1
        );
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The least that reads as a kernel image.
    pub(crate) fn fake(release: &str) -> Vec<u8> {
        let mut image = vec![0; 0x1000];
        image[MAGIC_AT..MAGIC_AT + 4].copy_from_slice(b"HdrS");
        image[VERSION_POINTER_AT..VERSION_POINTER_AT + 2].copy_from_slice(&0x100u16.to_le_bytes());
        let text = format!("{release} (someone@somewhere) #1 SMP\0");
        image[0x300..0x300 + text.len()].copy_from_slice(text.as_bytes());
        image
    }

    #[test]
    fn finds_the_release() {
        assert_eq!(release(&fake("6.12.1-amd64")).unwrap(), "6.12.1-amd64");
    }

    #[test]
    fn says_what_is_wrong() {
        assert!(release(b"ELF").unwrap_err().to_string().contains("not an x86 kernel image"));
        assert!(release(&fake("")).unwrap_err().to_string().contains("does not state its release"));
    }

    #[test]
    fn old_kernels_are_refused() {
        require_supported("6.12.1-amd64").unwrap();
        require_supported("5.19.0").unwrap();
        for old in ["5.10.0-9-amd64", "4.18.0", "junk"] {
            assert!(require_supported(old).unwrap_err().to_string().contains("too old"), "{old}");
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..1024), pointer in any::<u16>()) {
            let mut image = fake("6");
            image[VERSION_POINTER_AT..VERSION_POINTER_AT + 2].copy_from_slice(&pointer.to_le_bytes());
            image.truncate(0x210);
            image.extend(tail);
            let _ = release(&image);
        }
    }
}
