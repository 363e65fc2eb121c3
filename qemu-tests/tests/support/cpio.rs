//! Makes initrds, and additions to them.

/// One cpio entry in the kernel's "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst).
pub fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, contents: &[u8]) {
    let size = contents.len() as u32;
    let fields = [1, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name.len() as u32 + 1, 0];
    archive.extend_from_slice(b"070701");
    archive.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend_from_slice(contents);
    archive.resize(archive.len().next_multiple_of(4), 0);
}
