//! Writes the GPT disk image that boots by UEFI: EFI system partition, system A and its hash tree, the same for B reserved, data.

pub mod data;
pub mod esp;
pub mod gpt;
pub mod uki;

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::verity::Verity;
use gpt::{Extent, Role, Wanted};

/// Everything that a disk image is made of.
#[derive(Debug, Clone)]
pub struct DiskSpec<'a> {
    /// The appliance's version: ends up in the UKI's file name, so only `[A-Za-z0-9.~^-]`.
    pub version: &'a str,
    /// The appliance's name, for the boot menu.
    pub title: &'a str,
    /// The kernel.
    pub kernel: &'a Path,
    /// The kernel's release (`uname -r`), for people.
    pub release: &'a str,
    /// The initrd.
    pub initrd: &'a Path,
    /// The kernel command line, with `roothash=`.
    pub cmdline: &'a str,
    /// The system image with its hash tree appended.
    pub system: &'a Path,
    /// What [`crate::verity::append`] said of it.
    pub verity: &'a Verity,
    /// The data filesystem's image and its UUID, which becomes the PARTUUID.
    pub data: Option<(&'a Path, [u8; 16])>,
}

/// Why there is no disk image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// systemd's EFI programs are not installed.
    #[error(transparent)]
    Programs(#[from] esp::Missing),
    /// The UKI.
    #[error(transparent)]
    Uki(#[from] uki::Error),
    /// A version that can't be part of a boot entry's file name.
    #[error(
        "write disk image: version {0:?} can't be in a boot entry's name: use letters, digits, '.', '~', '^' and '-', 64 at most"
    )]
    Version(String),
    /// Reading or writing a file.
    #[error("write disk image: {}: {cause}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

impl Error {
    /// A failure with `path`, for `map_err`.
    fn io(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        |cause| Self::Io { path: path.to_owned(), cause }
    }
}

/// Writes the disk image `out` as a sparse file. Equal input gives equal bytes.
///
/// # Errors
/// If systemd's EFI programs aren't installed or don't fit together with the kernel, or a file can't be read or written.
pub fn write(spec: &DiskSpec<'_>, out: &Path) -> Result<(), Error> {
    if !version_is_usable(spec.version) {
        return Err(Error::Version(spec.version.to_owned()));
    }
    let programs = esp::programs()?;
    let uki = uki::assemble(&uki::Uki {
        stub: &read(&programs.stub)?,
        os_release: &os_release(spec.title, spec.version),
        cmdline: spec.cmdline,
        release: spec.release,
        initrd: &read(spec.initrd)?,
        linux: &read(spec.kernel)?,
    })?;
    let loader = read(&programs.loader)?;
    let data_size = spec.data.map(|(path, _)| size_of(path)).transpose()?;
    let wanted = partitions(spec, uki.len() as u64, data_size);
    let (extents, size) = gpt::layout(&wanted);

    let seed = spec.verity.root_hash;
    let volume_id = u32::from_le_bytes([seed[0], seed[1], seed[2], seed[3]]);
    let entry = format!("garboard_{}", spec.version);
    let esp = esp::Esp { loader: &loader, entry: &entry, uki: &uki, volume_id };
    fill(spec, &wanted, &extents, size, &esp, out)
}

/// Does the writing.
fn fill(
    spec: &DiskSpec<'_>,
    wanted: &[Wanted],
    extents: &[Extent],
    size: u64,
    esp: &esp::Esp<'_>,
    out: &Path,
) -> Result<(), Error> {
    let io = Error::io(out);
    // A new file, not an old one's blocks: what isn't written stays a hole.
    match fs::remove_file(out) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io(e)),
        _ => {}
    }
    let mut disk = File::options().read(true).write(true).create_new(true).open(out).map_err(&io)?;
    disk.set_len(size).map_err(&io)?;
    gpt::write(&mut disk, wanted, extents, &spec.verity.root_hash).map_err(&io)?;
    // The first four are always there; B's two stay empty.
    let place = |role| wanted.iter().zip(extents).find(|(w, _)| w.role == role).map(|(_, extent)| *extent);
    if let Some(extent) = place(Role::Esp) {
        let mut volume = vec![0; extent.size as usize];
        esp::write(esp, extent.size, io::Cursor::new(&mut volume)).map_err(&io)?;
        copy_sparse(&mut volume.as_slice(), &mut disk, extent.start).map_err(&io)?;
    }
    let hash_offset = spec.verity.hash_offset();
    for (role, from, length) in [(Role::System, 0, hash_offset), (Role::Verity, hash_offset, u64::MAX)] {
        if let Some(extent) = place(role) {
            copy_file(spec.system, from, length, &mut disk, extent.start)?;
        }
    }
    if let (Some((path, _)), Some(extent)) = (spec.data, place(Role::Data)) {
        copy_file(path, 0, u64::MAX, &mut disk, extent.start)?;
    }
    Ok(())
}

/// The partitions in their order on the disk.
fn partitions(spec: &DiskSpec<'_>, uki: u64, data: Option<u64>) -> Vec<Wanted> {
    let verity = spec.verity;
    // Half as much again for what an update may bring; a hole costs nothing in the image file.
    let system = verity.hash_offset() + verity.hash_offset() / 2 + (8 << 20);
    // One digest of 32 bytes per block and a little for the levels above: 1/127, superblock and rounding in the rest.
    let hashes = system / 120 + (1 << 20);
    let one = |role, name: &str, uuid, size| Wanted { role, name: name.to_owned(), uuid, size };
    let mut all = vec![
        one(Role::Esp, "esp", None, esp::size_for(uki)),
        one(Role::System, "system-a", Some(verity.data_uuid()), system),
        one(Role::Verity, "verity-a", Some(verity.hash_uuid()), hashes),
        one(Role::System, "system-b", None, system),
        one(Role::Verity, "verity-b", None, hashes),
    ];
    if let (Some((_, uuid)), Some(size)) = (spec.data, data) {
        all.push(one(Role::Data, "data", Some(uuid), size));
    }
    all
}

/// What systemd-boot reads out of the UKI to name and order entries.
fn os_release(title: &str, version: &str) -> String {
    let title: String = title.chars().filter(|c| !c.is_control() && !"\"\\$`".contains(*c)).collect();
    format!(
        "ID=garboard\nIMAGE_ID=garboard\nIMAGE_VERSION={version}\nVERSION_ID={version}\nNAME=\"Garboard\"\nPRETTY_NAME=\"{title}\"\n"
    )
}

fn version_is_usable(version: &str) -> bool {
    (1..=64).contains(&version.len()) && version.bytes().all(|b| b.is_ascii_alphanumeric() || b".~^-".contains(&b))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(Error::io(path))
}

fn size_of(path: &Path) -> Result<u64, Error> {
    fs::metadata(path).map(|m| m.len()).map_err(Error::io(path))
}

fn copy_file(path: &Path, from: u64, length: u64, disk: &mut File, at: u64) -> Result<(), Error> {
    let mut copy = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        copy_sparse(&mut file.take(length), disk, at)
    };
    copy().map_err(Error::io(path))
}

/// Copies all of `from` to `disk` at byte `at`, leaving out what is zero.
fn copy_sparse(from: &mut impl Read, disk: &mut File, mut at: u64) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match from.read(&mut buffer[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        if filled == 0 {
            return Ok(());
        }
        let piece = &buffer[..filled];
        if piece.iter().any(|&b| b != 0) {
            disk.seek(SeekFrom::Start(at))?;
            disk.write_all(piece)?;
        }
        at += filled as u64;
    }
}
