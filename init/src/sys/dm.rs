//! Device-mapper's ioctl interface (`linux/dm-ioctl.h`, version 4).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The whole request: header and, for a table, one target. The kernel answers in the same buffer.
const SIZE: usize = 4096;
/// `sizeof(struct dm_ioctl)`.
const HEADER: usize = 312;
/// `sizeof(struct dm_target_spec)`.
const TARGET: usize = 40;
const READONLY: u32 = 1;

/// A command of `/dev/mapper/control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Create = 3,
    Remove = 4,
    /// Without `DM_SUSPEND_FLAG`: resume.
    Resume = 6,
    LoadTable = 9,
}

/// One target that covers a whole mapped device.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Target type, such as `verity`.
    pub kind: &'a str,
    /// Length in 512-byte sectors.
    pub sectors: u64,
    /// Its parameters.
    pub parameters: &'a str,
}

/// Makes a read-only mapped device named `name` and returns its device number as the kernel encodes it (`huge_encode_dev`).
pub fn create(control: &File, name: &str) -> io::Result<u64> {
    let mut request = request(name, None)?;
    call(control, Command::Create, &mut request)?;
    let device = request.get(40..).and_then(|rest| rest.first_chunk::<8>());
    device.map(|bytes| u64::from_ne_bytes(*bytes)).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Gives the device its table.
pub fn load_table(control: &File, name: &str, target: Target<'_>) -> io::Result<()> {
    call(control, Command::LoadTable, &mut request(name, Some(target))?)
}

/// Puts the loaded table in force.
pub fn resume(control: &File, name: &str) -> io::Result<()> {
    call(control, Command::Resume, &mut request(name, None)?)
}

/// Removes the device.
pub fn remove(control: &File, name: &str) -> io::Result<()> {
    call(control, Command::Remove, &mut request(name, None)?)
}

fn call(control: &File, command: Command, request: &mut [u8; SIZE]) -> io::Result<()> {
    // _IOWR(0xfd, command, struct dm_ioctl), whose 312 bytes are 0x138.
    let code = 0xc138_fd00_u32 | command as u32;
    // SAFETY: the kernel reads and writes at most `data_size` bytes at the pointer, which `request` set to SIZE, the length of
    // the buffer that is borrowed exclusively for the call.
    let result = unsafe { libc::ioctl(control.as_raw_fd(), libc::c_ulong::from(code), request.as_mut_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A request for the device `name`. Pure: bytes only.
fn request(name: &str, target: Option<Target<'_>>) -> io::Result<[u8; SIZE]> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let mut buffer = [0; SIZE];
    let mut put = |offset: usize, value: &[u8]| {
        let end = offset.checked_add(value.len()).ok_or_else(invalid)?;
        buffer.get_mut(offset..end).ok_or_else(invalid)?.copy_from_slice(value);
        Ok::<(), io::Error>(())
    };
    if name.len() >= 128 {
        return Err(invalid());
    }
    put(0, &4u32.to_ne_bytes())?;
    put(12, &u32::try_from(SIZE).map_err(|_| invalid())?.to_ne_bytes())?;
    put(16, &u32::try_from(HEADER).map_err(|_| invalid())?.to_ne_bytes())?;
    put(28, &READONLY.to_ne_bytes())?;
    put(48, name.as_bytes())?;
    if let Some(target) = target {
        // The terminating NUL and the zeroes before it are the buffer's own.
        if target.kind.len() >= 16 || target.parameters.len() >= SIZE.saturating_sub(HEADER).saturating_sub(TARGET) {
            return Err(invalid());
        }
        put(20, &1u32.to_ne_bytes())?;
        put(HEADER.saturating_add(8), &target.sectors.to_ne_bytes())?;
        put(HEADER.saturating_add(24), target.kind.as_bytes())?;
        put(HEADER.saturating_add(TARGET), target.parameters.as_bytes())?;
    }
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_has_the_kernels_layout() {
        let target = Target { kind: "verity", sectors: 2400, parameters: "1 254:0" };
        let bytes = request("root", Some(target)).unwrap();
        assert_eq!(bytes[0..4], 4u32.to_ne_bytes());
        assert_eq!(bytes[16..24], [0x38, 1, 0, 0, 1, 0, 0, 0]);
        assert_eq!(bytes[28], 1);
        assert_eq!(&bytes[48..53], b"root\0");
        assert_eq!(bytes[320..328], 2400u64.to_ne_bytes());
        assert_eq!(&bytes[336..343], b"verity\0");
        assert_eq!(&bytes[352..360], b"1 254:0\0");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(request(&"n".repeat(128), None).is_err());
        let long = "p".repeat(SIZE);
        assert!(request("n", Some(Target { kind: "verity", sectors: 1, parameters: &long })).is_err());
        assert!(request("n", Some(Target { kind: &long, sectors: 1, parameters: "" })).is_err());
    }
}
