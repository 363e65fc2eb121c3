//! The disks that a machine writes to, kept from one boot to the next.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::{carry, copy};

/// How the names of system disks begin.
const DISK: &str = "disk-";
/// The data filesystem's.
const DATA: &str = "data.ext4";

/// The file whose lock says that a machine uses the disks; in it is the number of the process that boots it.
const LOCK: &str = "lock";

/// Keeps the disks in `directory` for one machine, until this is dropped: when its QEMU ends.
pub fn lock(directory: &Path) -> Result<File> {
    fs::create_dir_all(directory).map_err(Error::file("make", directory))?;
    let path = directory.join(LOCK);
    let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(Error::file("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut process = String::new();
            let _ = file.read_to_string(&mut process);
            return Err(Error::Unsuitable(format!(
                "a machine with its disks in {} runs already (process {}): switch it off first",
                directory.display(),
                process.trim()
            )));
        }
        Err(TryLockError::Error(e)) => return Err(Error::file("lock", &path)(e)),
    }
    // What one that was killed had copied in part. Nobody else is at work here.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "part") {
            let _ = fs::remove_file(entry.path());
        }
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(Error::file("write", &path))?;
    Ok(file)
}

/// The data filesystem to write to: the one of the appliance in `directory` if there is one, else a copy of `image`.
pub fn data_disk(image: &Path, directory: &Path, size: u64) -> Result<PathBuf> {
    let usual = directory.join(DATA);
    // The machine would look for its own in vain on another appliance's.
    match (ext4_id(image), ext4_id(&usual)) {
        (Some(ours), Some(kept)) if ours != kept => {
            let id: String = ours.iter().map(|byte| format!("{byte:02x}")).collect();
            writable(image, &format!("data-{id}.ext4"), directory, size)
        }
        _ => writable(image, DATA, directory, size),
    }
}

/// The UUID of an ext4 filesystem (ext4 superblock, `s_magic` and `s_uuid`); `None`: there is none.
fn ext4_id(path: &Path) -> Option<[u8; 16]> {
    use std::os::unix::fs::FileExt;
    let mut superblock = [0; 1024];
    File::open(path).and_then(|file| file.read_exact_at(&mut superblock, 1024)).ok()?;
    (superblock[0x38..0x3a] == [0x53, 0xef]).then(|| superblock[0x68..0x78].try_into().ok())?
}

/// The copy of `image` to write to, of at least `size` bytes and no less than that: the one in `directory` if there is one, else a
/// new one.
fn writable(image: &Path, name: &str, directory: &Path, size: u64) -> Result<PathBuf> {
    fs::create_dir_all(directory).map_err(Error::file("make", directory))?;
    let path = directory.join(name);
    let size = size.max(image.metadata().map_err(Error::file("read", image))?.len());
    if let Ok(metadata) = path.metadata() {
        if metadata.len() < size {
            let grown = File::options().write(true).open(&path).and_then(|file| file.set_len(size));
            grown.map_err(Error::file("make larger", &path))?;
        }
        return Ok(path);
    }
    // Whole or not at all: an interrupted copy must not be taken for data later.
    let part = directory.join(format!("{name}.{}.part", std::process::id()));
    let copied = copy::sparse(image, &part, size).and_then(|()| fs::rename(&part, &path));
    copied.map_err(|e| {
        let _ = fs::remove_file(&part);
        Error::file("copy", image)(e)
    })?;
    Ok(path)
}

/// The disk of the system `system` with the image `image`. Another build has another system, or boots it otherwise, so its disk is not this
/// one's, but its volumes are: they are carried over from the disk that was written to last. Without a `state` directory every
/// machine begins anew.
pub fn system_disk(image: &Path, system: &str, state: Option<&Path>, temporary: &Path, size: u64) -> Result<PathBuf> {
    let name = format!("{DISK}{system}.raw");
    let Some(directory) = state else { return writable(image, &name, temporary, size) };
    let path = directory.join(&name);
    let known = built(&path);
    let identity = carry::identity(image).map_err(Error::file("read", image))?;
    if path.exists() && fs::read_to_string(&known).is_ok_and(|known| known == identity) {
        return writable(image, &name, directory, size);
    }
    let mut carried = false;
    for old in disks(directory) {
        carried = carry_over(&old, image, &path, size)?;
        if carried {
            break;
        }
    }
    if !carried && path.exists() {
        // It has nothing to keep.
        fs::remove_file(&path).map_err(Error::file("remove", &path))?;
    }
    let path = writable(image, &name, directory, size)?;
    fs::write(&known, identity).map_err(Error::file("write", &known))?;
    Ok(path)
}

/// Where it stands what a disk was made from.
fn built(disk: &Path) -> PathBuf {
    disk.with_extension("built")
}

/// Whether the volumes on `old` are this appliance's, and are now on the new disk `path`.
fn carry_over(old: &Path, image: &Path, path: &Path, size: u64) -> Result<bool> {
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let carried = carry::over(old, image, &part, size).and_then(|made| {
        if made {
            fs::rename(&part, path)?;
            // Its data lives on in the other one, which is there for certain before it goes.
            path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())?;
            if old != path {
                fs::remove_file(old)?;
                let _ = fs::remove_file(built(old));
            }
        }
        Ok(made)
    });
    carried.map_err(|e| {
        let _ = fs::remove_file(&part);
        Error::file("carry volumes over (remove it to begin anew) from", old)(e)
    })
}

/// System disks in `directory`, the one that was written to last first.
fn disks(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_disk = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(DISK) && name.ends_with(".raw")
    };
    let mut disks: Vec<PathBuf> = entries.filter(is_disk).collect();
    disks.sort_by_key(|path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok());
    disks.reverse();
    disks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_kept_grows_and_never_shrinks() {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        fs::write(&image, "data").unwrap();
        let length = |size| {
            let path = writable(&image, "disk", &directory.path().join("state"), size).unwrap();
            assert!(fs::read(&path).unwrap().starts_with(b"data"));
            path.metadata().unwrap().len()
        };
        assert_eq!([length(0), length(10), length(4), length(20)], [4, 10, 10, 20]);
    }

    /// Something with the superblock of an ext4 of this UUID.
    fn ext4(path: &Path, id: u8, length: u64) {
        let mut bytes = vec![0; 4096];
        bytes[1024 + 0x38..1024 + 0x3a].copy_from_slice(&[0x53, 0xef]);
        bytes[1024 + 0x68..1024 + 0x78].fill(id);
        fs::write(path, bytes).unwrap();
        File::options().write(true).open(path).unwrap().set_len(length).unwrap();
    }

    #[test]
    fn another_appliance_has_another_data_disk_and_a_larger_one_is_as_large() {
        let directory = tempfile::tempdir().unwrap();
        let (image, state) = (directory.path().join("image"), directory.path().join("state"));
        let name = |size| {
            ext4(&image, size as u8, size);
            let path = data_disk(&image, &state, 0).unwrap();
            assert!(path.metadata().unwrap().len() >= size);
            path.file_name().unwrap().to_str().unwrap().to_owned()
        };
        let first = name(8193);
        assert_eq!(first, "data.ext4");
        // The same appliance (the lowest byte is the UUID's) that wants more, then another one, then the first again.
        assert_eq!(name(8193 + 256), first);
        assert_eq!(name(8194), format!("data-{}.ext4", "02".repeat(16)));
        assert_eq!(name(8193), first);
    }

    #[test]
    fn one_machine_at_a_time_has_the_disks() {
        let directory = tempfile::tempdir().unwrap();
        let first = lock(directory.path()).unwrap();
        let message = lock(directory.path()).unwrap_err().to_string();
        assert!(
            message.contains(&format!("runs already (process {}): switch it off", std::process::id())),
            "{message}"
        );
        drop(first);
        lock(directory.path()).unwrap();
    }

    /// A disk image with nothing but a system, which begins with this mark.
    fn disk(path: &Path, mark: &str) {
        use std::os::unix::fs::FileExt;
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
        file.set_len(8 << 20).unwrap();
        let config = gpt::GptConfig::new().writable(true).logical_block_size(gpt::disk::LogicalBlockSize::Lb512);
        let mut table = config.create_from_device(Box::new(file.try_clone().unwrap()), None).unwrap();
        table.add_partition("system", 1 << 20, gpt::partition_types::EFI, 0, Some(2048)).unwrap();
        table.write().unwrap();
        file.write_all_at(mark.as_bytes(), 2048 * 512).unwrap();
    }

    #[test]
    fn a_disk_that_was_booted_is_still_the_one_that_was_built() {
        use std::os::unix::fs::FileExt;
        let directory = tempfile::tempdir().unwrap();
        let (image, state) = (directory.path().join("image"), directory.path().join("state"));
        let booted = || {
            let path = system_disk(&image, "root", Some(&state), directory.path(), 0).unwrap();
            let mut mark = [0; 5];
            File::open(&path).unwrap().read_exact_at(&mut mark, 2048 * 512).unwrap();
            (path, String::from_utf8_lossy(&mark).into_owned())
        };
        disk(&image, "first");
        let (path, mark) = booted();
        assert_eq!(mark, "first");
        // As a boot loader does that counts.
        File::options().write(true).open(&path).unwrap().write_all_at(b"later", 2048 * 512).unwrap();
        assert_eq!(booted(), (path.clone(), "later".to_owned()));
        // Control: another build of the same system.
        disk(&image, "other");
        assert_eq!(booted(), (path, "other".to_owned()));
    }
}
