//! Makes the data filesystem: a small ext4 with an empty `/volumes`, which PID 1 grows to its disk at boot.
//!
//! `mke2fs` and `debugfs` do it on a plain file, so no root and no loop device is needed; times, UUID and hash seed are fixed, so
//! equal input gives equal bytes.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::verity::uuid_text;

/// Bytes of the filesystem as built. Its group descriptors leave room to grow a thousandfold, and the kernel goes on from there.
pub const SIZE: u64 = garboard_config::Data::DEFAULT_SIZE;
/// Smallest useful size in bytes: below it ext4 has no journal.
pub const MIN_SIZE: u64 = 16 << 20;
/// Directories that distributions keep `mke2fs` in, which an ordinary user's `PATH` often lacks.
const SBIN: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];
/// Features, so that no machine's `mke2fs.conf` decides: ext4's usual ones of the last ten years.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,metadata_csum,\
                        sparse_super,large_file,huge_file,dir_nlink,extra_isize";
/// All times in the filesystem, in seconds since 1970 (0 means "now" to e2fsprogs).
const TIME: &str = "1";

/// Why there is no data filesystem.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program is not installed.
    #[error("make data filesystem: {0} not found in PATH or /sbin: install e2fsprogs (Debian: apt install e2fsprogs)")]
    Missing(&'static str),
    /// The size can't hold a filesystem.
    #[error("make data filesystem: {0} bytes are too few, the least is {MIN_SIZE}")]
    TooSmall(u64),
    /// A program couldn't be run, or the file not be made.
    #[error("make data filesystem: {0}: {1}")]
    Io(String, #[source] io::Error),
    /// A program said no.
    #[error("make data filesystem: {program} failed: {message}")]
    Failed {
        /// Which.
        program: &'static str,
        /// What it said.
        message: String,
    },
}

/// Makes `out`, a sparse file of `size` bytes with an ext4 filesystem of this UUID.
///
/// # Errors
/// If e2fsprogs isn't installed or fails, or the file can't be made.
pub fn make(uuid: &[u8; 16], size: u64, out: &Path) -> Result<(), Error> {
    if size < MIN_SIZE {
        return Err(Error::TooSmall(size));
    }
    let (mke2fs, debugfs) = (find("mke2fs")?, find("debugfs")?);
    let io = |e| Error::Io(out.display().to_string(), e);
    File::create(out).and_then(|file| file.set_len(size)).map_err(io)?;
    let uuid = uuid_text(uuid);
    run(
        "mke2fs",
        Command::new(mke2fs)
            .args([
                "-q",
                "-F",
                "-t",
                "ext4",
                "-b",
                "4096",
                "-m",
                "0",
                "-I",
                "256",
                "-O",
                FEATURES,
                "-L",
                "garboard-data",
                "-U",
                &uuid,
            ])
            // Journal and inode tables are not zeroed at first mount: the file is new and all holes.
            .args(["-E", &format!("hash_seed={uuid},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0,nodiscard")])
            .arg(out),
    )?;
    // Not `mke2fs -d`: it takes a directory's change time from this machine.
    for request in ["mkdir /volumes", "set_inode_field /volumes mode 040711"] {
        run("debugfs", Command::new(&debugfs).args(["-w", "-R", request]).arg(out))?;
    }
    Ok(())
}

/// Where `program` is: in `PATH`, else where system administrators' programs live.
fn find(program: &'static str) -> Result<PathBuf, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(SBIN.iter().map(PathBuf::from));
    directories.map(|d| d.join(program)).find(|p| p.is_file()).ok_or(Error::Missing(program))
}

fn run(program: &'static str, command: &mut Command) -> Result<(), Error> {
    command.env("E2FSPROGS_FAKE_TIME", TIME).env("SOURCE_DATE_EPOCH", TIME).env("MKE2FS_CONFIG", "/dev/null");
    command.env("LC_ALL", "C").env("TZ", "UTC");
    let output = command.output().map_err(|e| Error::Io(format!("run {program}"), e))?;
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    // debugfs succeeds whatever its request did; beside its version line it only speaks of errors.
    let complained = program == "debugfs" && message.lines().any(|line| !line.starts_with("debugfs "));
    if output.status.success() && !complained { Ok(()) } else { Err(Error::Failed { program, message }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: [u8; 16] = *b"garboard-data-01";

    fn made() -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        make(&UUID, SIZE, file.path()).unwrap();
        std::fs::read(file.path()).unwrap()
    }

    #[test]
    fn is_sound_and_has_its_uuid_and_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        make(&UUID, SIZE, file.path()).unwrap();
        let check = Command::new("/sbin/e2fsck").args(["-f", "-n"]).arg(file.path()).output().unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
        let list = Command::new("/sbin/debugfs").args(["-R", "stat /volumes"]).arg(file.path()).output().unwrap();
        let text = String::from_utf8_lossy(&list.stdout);
        assert!(text.contains("directory") && text.contains("0711"), "{text}");
        let bytes = std::fs::read(file.path()).unwrap();
        assert_eq!(bytes[1024 + 0x68..1024 + 0x78], UUID);
        assert_eq!(bytes.len() as u64, SIZE);
    }

    #[test]
    fn is_the_same_at_another_time() {
        let first = made();
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert!(first == made());
    }

    #[test]
    fn refuses_what_is_too_small() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(make(&UUID, 1 << 20, file.path()), Err(Error::TooSmall(_))));
    }
}
