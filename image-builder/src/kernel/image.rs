//! The header of an x86 kernel image (Documentation/arch/x86/boot.rst).

use anyhow::{Result, bail};

/// Offset of `HdrS`.
const MAGIC_AT: usize = 0x202;
/// Offset of `kernel_version`: a little-endian u16, from [`VERSION_BASE`] to a zero-terminated string.
const VERSION_POINTER_AT: usize = 0x20e;
const VERSION_BASE: usize = 0x200;
/// Offset of `xloadflags`, of which one bit says that it is a 64-bit kernel.
const LOAD_FLAGS_AT: usize = 0x236;
const KERNEL_64: u8 = 1;
/// Offset of the PE header's offset, in an image that firmware can execute.
const PE_POINTER_AT: usize = 0x3c;
/// No release name is longer (`__NEW_UTS_LEN`).
const MAX_RELEASE: usize = 64;
/// The oldest release that has all that a container needs: idmapped layers beneath an overlay came with 5.19.
const OLDEST: (u32, u32) = (5, 19);

/// The release of a kernel image, such as `6.12.1-amd64`.
pub fn release(image: &[u8]) -> Result<String> {
    if image.get(MAGIC_AT..MAGIC_AT + 4) != Some(b"HdrS") {
        bail!("not an x86 kernel image (bzImage): no HdrS at offset {MAGIC_AT:#x}");
    }
    if image.get(LOAD_FLAGS_AT).is_none_or(|flags| flags & KERNEL_64 == 0) {
        bail!("a 32-bit kernel: Garboard's /init is a 64-bit program, so choose a kernel for x86-64");
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

/// Refuses an image that UEFI can't start.
pub fn require_efi(image: &[u8]) -> Result<()> {
    let pointer = image.get(PE_POINTER_AT..).and_then(|rest| rest.first_chunk()).copied().map(u32::from_le_bytes);
    let header = pointer.and_then(|at| image.get(usize::try_from(at).ok()?..)).unwrap_or_default();
    if !image.starts_with(b"MZ") || !header.starts_with(b"PE\0\0") {
        bail!(
            "the kernel can't be started by UEFI, as a disk image needs: build with --no-disk, or choose a kernel with CONFIG_EFI_STUB"
        );
    }
    Ok(())
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
        image[LOAD_FLAGS_AT] = KERNEL_64;
        image[..2].copy_from_slice(b"MZ");
        image[PE_POINTER_AT..PE_POINTER_AT + 4].copy_from_slice(&0x40u32.to_le_bytes());
        image[0x40..0x44].copy_from_slice(b"PE\0\0");
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
    fn kernels_that_can_not_boot_are_refused() {
        let mut image = fake("6.12.1-amd64");
        require_efi(&image).unwrap();
        image[PE_POINTER_AT + 3] = 0xff;
        assert!(
            require_efi(&image).unwrap_err().to_string().contains("--no-disk, or choose a kernel with CONFIG_EFI_STUB")
        );
        assert!(require_efi(b"MZ").is_err());
        image[LOAD_FLAGS_AT] = 0;
        assert!(release(&image).unwrap_err().to_string().contains("a 32-bit kernel"));
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
            image.truncate(0x238);
            image.extend(tail);
            let _ = release(&image);
            let _ = require_efi(&image);
        }
    }
}
