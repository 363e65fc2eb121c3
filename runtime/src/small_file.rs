//! Small files as text: of the kernel, or of a container, which may be anything.

use std::os::fd::AsFd;

use rustix::io::Errno;

/// What is left of the file, until there are at least `most` bytes; what stands behind that isn't looked at.
pub(crate) fn read(file: impl AsFd, most: usize) -> Result<String, Errno> {
    let mut text = Vec::new();
    let mut buffer = [0_u8; 4096];
    while text.len() < most {
        match rustix::io::read(&file, &mut buffer) {
            Ok(0) => break,
            Ok(n) => text.extend_from_slice(buffer.get(..n).unwrap_or(&[])),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}
