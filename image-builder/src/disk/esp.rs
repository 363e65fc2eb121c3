//! Makes the EFI system partition: FAT32 with systemd-boot, its settings and one boot-counted UKI.
//!
//! Names follow the Boot Loader Specification: `EFI/Linux/NAME+TRIES.efi` is an entry that systemd-boot tries so often until
//! something marks it good by renaming it.

use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;

use fatfs::{
    Date, DateTime, Dir, FatType, FileSystem, FormatVolumeOptions, FsOptions, ReadWriteSeek, Time, TimeProvider,
};

/// Boots that systemd-boot grants an entry which nobody has marked good.
pub const TRIES: u32 = 3;
/// Where distributions keep systemd's EFI programs.
const DIRECTORY: &str = "/usr/lib/systemd/boot/efi";
/// systemd-boot: no menu, and no editing of the sealed command line.
const LOADER_CONF: &str = "timeout 0\neditor no\nconsole-mode keep\n";
/// FAT32 needs at least 65,525 clusters; smaller volumes would be FAT16, which firmware need not read on a fixed disk.
const MIN_SIZE: u64 = 40 << 20;
const SECTOR: u64 = 512;

/// Contents of the partition.
#[derive(Debug, Clone, Copy)]
pub struct Esp<'a> {
    /// The systemd-boot program.
    pub loader: &'a [u8],
    /// The UKI's file name without tries and suffix: `garboard_1.2.3`.
    pub entry: &'a str,
    /// The UKI.
    pub uki: &'a [u8],
    /// FAT volume serial number.
    pub volume_id: u32,
}

/// systemd's EFI programs on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// `linuxx64.efi.stub`
    pub stub: PathBuf,
    /// `systemd-bootx64.efi`
    pub loader: PathBuf,
}

/// One of [`Programs`] is not installed: `.0` is its path.
#[derive(Debug, thiserror::Error)]
#[error("find EFI programs: {} is missing: install systemd-boot-efi (Debian: apt install systemd-boot-efi), or build without a disk image", .0.display())]
pub struct Missing(pub PathBuf);

/// Finds systemd's EFI programs where distributions keep them.
///
/// # Errors
/// If one is not there.
pub fn programs() -> Result<Programs, Missing> {
    let find = |name: &str| {
        let path = PathBuf::from(DIRECTORY).join(name);
        if path.is_file() { Ok(path) } else { Err(Missing(path)) }
    };
    Ok(Programs { stub: find("linuxx64.efi.stub")?, loader: find("systemd-bootx64.efi")? })
}

/// Bytes a partition needs for three UKIs a quarter larger than this one, in whole MiB: the running one, the one before and a new one.
pub fn size_for(uki: u64) -> u64 {
    (uki.saturating_mul(15) / 4 + (4 << 20)).max(MIN_SIZE).next_multiple_of(1 << 20)
}

/// Formats and fills `volume`, which is `size` bytes long. Equal input gives equal bytes.
///
/// # Errors
/// If writing fails, or the contents don't fit in `size`.
pub fn write<T: Read + Write + Seek>(esp: &Esp<'_>, size: u64, mut volume: T) -> io::Result<()> {
    let sectors =
        u32::try_from(size / SECTOR).map_err(|_| io::Error::other("the EFI system partition passes 2 TiB"))?;
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        .total_sectors(sectors)
        .bytes_per_cluster(if size < 260 << 20 { 512 } else { 4096 })
        .volume_id(esp.volume_id)
        .volume_label(*b"GARBOARD   ");
    fatfs::format_volume(&mut volume, options)?;
    let filesystem = FileSystem::new(volume, FsOptions::new().time_provider(&FIXED))?;
    {
        let root = filesystem.root_dir();
        // The first is what firmware looks for on a disk it knows nothing of, the second where systemd-boot updates itself.
        file(&root, &["EFI", "BOOT"], "BOOTX64.EFI", esp.loader)?;
        file(&root, &["EFI", "systemd"], "systemd-bootx64.efi", esp.loader)?;
        file(&root, &["loader"], "loader.conf", LOADER_CONF.as_bytes())?;
        file(&root, &["EFI", "Linux"], &entry_name(esp.entry, TRIES), esp.uki)?;
    }
    filesystem.unmount()
}

/// The file name of an entry with so many tries left.
pub fn entry_name(entry: &str, tries: u32) -> String {
    format!("{entry}+{tries}.efi")
}

fn file<T: ReadWriteSeek>(root: &Dir<'_, T>, directories: &[&str], name: &str, contents: &[u8]) -> io::Result<()> {
    let mut directory = root.clone();
    for name in directories {
        directory = directory.create_dir(name)?;
    }
    let mut file = directory.create_file(name)?;
    file.write_all(contents)?;
    file.flush()
}

/// The same time on every file, the first that FAT knows: a build has no time of its own.
#[derive(Debug)]
struct Fixed;

static FIXED: Fixed = Fixed;

impl TimeProvider for Fixed {
    fn get_current_date(&self) -> Date {
        Date { year: 1980, month: 1, day: 1 }
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: self.get_current_date(), time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use std::process::Command;

    fn volume(uki: &[u8]) -> Vec<u8> {
        let size = size_for(uki.len() as u64);
        let mut bytes = vec![0; size as usize];
        let esp = Esp { loader: b"loader", entry: "garboard_1", uki, volume_id: 0x1234_5678 };
        write(&esp, size, Cursor::new(&mut bytes)).unwrap();
        bytes
    }

    #[test]
    fn holds_loader_settings_and_a_counted_entry() {
        let uki: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let bytes = volume(&uki);
        let filesystem = FileSystem::new(Cursor::new(bytes), FsOptions::new()).unwrap();
        assert_eq!(filesystem.fat_type(), FatType::Fat32);
        let read = |path: &str| {
            let mut contents = Vec::new();
            filesystem.root_dir().open_file(path).unwrap().read_to_end(&mut contents).unwrap();
            contents
        };
        assert_eq!(read("EFI/Linux/garboard_1+3.efi"), uki);
        assert_eq!(read("EFI/BOOT/BOOTX64.EFI"), b"loader");
        assert_eq!(read("loader/loader.conf"), LOADER_CONF.as_bytes());
    }

    #[test]
    fn is_sound_and_the_same_every_time() {
        let bytes = volume(&[1; 100_000]);
        assert!(bytes == volume(&[1; 100_000]));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        // A second reader of the same format: mtools lists what we wrote.
        let list = Command::new("mdir").args(["-b", "-/", "-i"]).arg(file.path()).arg("::").output();
        let list = list.expect("mdir runs (Debian: mtools)");
        let text = String::from_utf8_lossy(&list.stdout);
        assert!(text.contains("::/EFI/Linux/garboard_1+3.efi"), "{text}");
    }

    #[test]
    fn has_room_for_three() {
        for uki in [1u64 << 10, 12 << 20, 40 << 20, 200 << 20] {
            let size = size_for(uki);
            // 2 per cent for both allocation tables at one sector per cluster.
            assert!(size - size / 50 > 3 * uki + uki / 4 && size.is_multiple_of(1 << 20));
        }
    }
}
