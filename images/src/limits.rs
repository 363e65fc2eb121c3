//! Bounds on what an image may make us read, keep or write.

/// How large things may be. Every one is an error when exceeded, never a truncation.
///
/// The defaults hold any image in practical use and keep the builder at 1 to 1.5 GiB of memory on a hostile one (1.6 million
/// small files take 670 MB).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one index, manifest or configuration. The specification asks implementations to support 4 MiB.
    pub manifest_bytes: u64,
    /// Members of an OCI or Docker archive.
    pub archive_members: u64,
    /// Bytes of a compressed archive once decompressed into the scratch file.
    pub archive_bytes: u64,
    /// Layers of one image. Overlayfs stacks no more than 500.
    pub layers: usize,
    /// Bytes of one layer's tar stream, decompressed.
    pub layer_bytes: u64,
    /// Bytes of one file as it appears, holes included.
    pub file_bytes: u64,
    /// Bytes of all contents in one store, all layers together: in the scratch file, and in the blocks of the image. Holes aren't
    /// counted, but there are contents that keep their zeros. Bounds what `file_bytes` and `layer_bytes` alone don't.
    pub content_bytes: u64,
    /// Files, directories, links and devices in one store, all layers together.
    pub entries: u64,
    /// Bytes of memory for names, link targets, attributes and entries in one store. Bounds what `entries` alone doesn't.
    pub metadata_bytes: u64,
    /// Bytes of the targets of symbolic links that are followed on the way to entries, in one store, each as often as it is. Bounds
    /// time, which a target's many components cost again with each entry behind it.
    pub link_bytes: u64,
    /// Directories above an entry.
    pub depth: usize,
    /// Bytes of one extension header (PAX records or a GNU long name) of a layer's tar.
    pub extension_bytes: u64,
    /// Bytes of all extended attributes of one entry, names and values. EROFS holds no more than 256 KiB.
    pub xattr_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes: 4 << 20,
            archive_members: 100_000,
            archive_bytes: 64 << 30,
            layers: 500,
            layer_bytes: 32 << 30,
            file_bytes: 64 << 30,
            content_bytes: 64 << 30,
            entries: 2_000_000,
            metadata_bytes: 768 << 20,
            link_bytes: 256 << 20,
            depth: 512,
            extension_bytes: 1 << 20,
            xattr_bytes: 128 << 10,
        }
    }
}
