//! The `data` worker: finds the data filesystem by its UUID, grows it to its disk and mounts it on `/data`.
//!
//! A plan that can do without gets a tmpfs when anything is wrong, and the status says why.

use std::ffi::CStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use garboard_runtime::plan;
use rustix::fs::{Mode, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::ext4::{self, Superblock};
use super::report::{Data, DataState, Mounted};
use super::{emit, stopped};
use crate::boot::disk::{self, ReadAt};
use crate::boot::{self, gpt};
use crate::kept::files;
use crate::sys;

const MOUNT_POINT: &str = plan::DATA;
/// A filesystem's type (TMPFS_MAGIC in the kernel's `include/uapi/linux/magic.h`).
const TMPFS: u64 = 0x0102_1994;
/// How long the data disk may take to appear.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is on the data filesystem is data: no device nodes, and no program there gains privileges.
const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
/// Damage stops writing, so that it does not spread.
const OPTIONS: &CStr = c"errors=remount-ro";

/// A device that carries the data filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    /// Name in `/dev`.
    name: String,
    /// The disk and the partition's UUID, unless the whole disk is the filesystem.
    partition_of: Option<String>,
}

/// Mounts the data filesystem as the plan says, and reports what became of it and what is remembered there.
pub fn run() -> i32 {
    let plan = match boot::read_plan() {
        Ok(plan) => plan,
        Err(error) => return emit(&told(Data { state: DataState::Absent, detail: error.to_string(), bytes: 0 })),
    };
    let Some(wanted) = &plan.data else {
        return emit(&told(Data { state: DataState::None, detail: String::new(), bytes: 0 }));
    };
    let keeps_logs = plan.containers.iter().any(|container| container.kept_log.is_some());
    let data = mounted(wanted, keeps_logs);
    let remembered = match data.state {
        DataState::Mounted | DataState::Readonly => stopped::read(&plan),
        _ => Ok(Vec::new()),
    };
    emit(&match remembered {
        Ok(stopped) => Mounted { stopped, ..told(data) },
        Err(fault) => Mounted { fault: Some(fault), ..told(data) },
    })
}

fn told(data: Data) -> Mounted {
    Mounted { data, stopped: Vec::new(), fault: None }
}

fn mounted(wanted: &plan::Data, keeps_logs: bool) -> Data {
    if is_mounted() {
        return as_it_is();
    }
    match mount(wanted) {
        Ok(mut report) => {
            // Where some are kept, their worker sees to those of others.
            if report.state == DataState::Mounted
                && !keeps_logs
                && let Err(fault) = files::forget(MOUNT_POINT)
            {
                let separator = if report.detail.is_empty() { "" } else { "; " };
                report.detail.push_str(&format!("{separator}{fault}"));
            }
            report
        }
        Err(reason) if wanted.required => Data { state: DataState::Absent, detail: reason, bytes: 0 },
        Err(reason) => match mount_tmpfs() {
            Ok(()) => finished(DataState::Tmpfs, format!("{reason}; volumes are kept in memory only")),
            Err(errno) => {
                Data { state: DataState::Absent, detail: format!("{reason}; mount tmpfs: {errno}"), bytes: 0 }
            }
        },
    }
}

/// What is mounted already, for a PID 1 that crashed before it heard of that.
fn as_it_is() -> Data {
    let kind = rustix::fs::statfs(MOUNT_POINT).map_or(0, |fs| fs.f_type.unsigned_abs());
    let read_only = rustix::fs::statvfs(MOUNT_POINT).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY));
    let (state, mut detail) = named(kind == TMPFS, read_only);
    // That may be as far as it came.
    if let Err(e) = make_volumes(state) {
        let separator = if detail.is_empty() { "" } else { "; " };
        detail.push_str(&format!("{separator}make {MOUNT_POINT}/volumes: {e}"));
    }
    finished(state, detail)
}

fn named(tmpfs: bool, read_only: bool) -> (DataState, String) {
    let (state, detail) = match (tmpfs, read_only) {
        (true, _) => (DataState::Tmpfs, "volumes are kept in memory only"),
        (false, true) => (DataState::Readonly, "its disk can only be read"),
        (false, false) => (DataState::Mounted, ""),
    };
    (state, detail.to_owned())
}

/// PID 1 that executed itself again starts no second mount.
fn is_mounted() -> bool {
    let device = |path: &str| rustix::fs::stat(path).map(|stat| stat.st_dev);
    matches!((device(MOUNT_POINT), device("/")), (Ok(data), Ok(root)) if data != root)
}

fn mount(wanted: &plan::Data) -> Result<Data, String> {
    let found = find(&wanted.uuid)?;
    let writable = !is_read_only(&found.name);
    // Growing is an extra: what goes wrong there leaves a smaller filesystem, and a word about it.
    let mut notes = Vec::new();
    if let Some(disk) = found.partition_of.as_ref().filter(|_| writable)
        && let Err(reason) = grow_partition(disk, &wanted.uuid)
    {
        notes.push(format!("the partition was not grown: {reason}"));
    }
    let device = format!("/dev/{}", found.name);
    let state = match mount_ext4(&device, writable) {
        Ok(state) => state,
        Err(errno) => return Err(format!("mount ext4 from {device} on {MOUNT_POINT}: {}", explained(errno))),
    };
    if state == DataState::Readonly {
        notes.push(format!("{device} can only be read"));
    } else if let Err(reason) = grow_filesystem(&device) {
        notes.push(format!("the filesystem was not grown: {reason}"));
    }
    if read_superblock(&device).is_some_and(|sb| sb.has_errors) {
        notes.push(format!("{device} is marked as damaged: check it with e2fsck on another machine"));
    }
    if let Err(e) = make_volumes(state) {
        notes.push(format!("make {MOUNT_POINT}/volumes: {e}"));
    }
    Ok(finished(state, notes.join("; ")))
}

fn explained(errno: Errno) -> String {
    match errno {
        Errno::NODEV => format!("{errno}: the kernel lacks CONFIG_EXT4_FS"),
        Errno::INVAL | Errno::UCLEAN => format!("{errno}: its filesystem is damaged"),
        Errno::IO => format!("{errno}: the disk does not answer as it should"),
        _ => errno.to_string(),
    }
}

fn mount_ext4(device: &str, writable: bool) -> Result<DataState, Errno> {
    let read_only = |options| {
        rustix::mount::mount(device, MOUNT_POINT, "ext4", FLAGS | MountFlags::RDONLY, Some(options))
            .map(|()| DataState::Readonly)
    };
    if writable {
        match rustix::mount::mount(device, MOUNT_POINT, "ext4", FLAGS, Some(OPTIONS)) {
            Ok(()) => return Ok(DataState::Mounted),
            Err(Errno::ROFS | Errno::ACCESS) => {}
            Err(errno) => return Err(errno),
        }
    }
    // A journal that was not finished can't be replayed on such a disk; the filesystem is then read as it lies.
    read_only(OPTIONS).or_else(|_| read_only(c"noload"))
}

fn find(uuid: &[u8; 16]) -> Result<Found, String> {
    let start = Instant::now();
    loop {
        let mut seen = Vec::new();
        for disk in disk::disks() {
            match look(&disk, uuid) {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => seen.push(disk),
                Err(reason) => seen.push(format!("{disk} ({reason})")),
            }
        }
        if start.elapsed() >= PATIENCE {
            let seen = if seen.is_empty() { "none".to_owned() } else { seen.join(", ") };
            let uuid = gpt::uuid_text(uuid);
            return Err(format!("find the data filesystem {uuid}: it is on none of the disks ({seen})"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn look(disk: &str, uuid: &[u8; 16]) -> Result<Option<Found>, String> {
    let file = File::open(format!("/dev/{disk}")).map_err(|e| format!("can't be opened: {e}"))?;
    let mut bytes = [0; ext4::LENGTH];
    ReadAt::read_at(&file, ext4::OFFSET, &mut bytes).map_err(|e| format!("can't be read: {e}"))?;
    if Superblock::parse(&bytes).is_some_and(|sb| sb.uuid == *uuid) {
        return Ok(Some(Found { name: disk.to_owned(), partition_of: None }));
    }
    let (size, sector) = (sys::block::size(&file).unwrap_or(0), disk::sector_size(disk));
    let Some(partition) = disk::read_table(&file, size, sector).and_then(|table| table.find(uuid)) else {
        return Ok(None);
    };
    let name = disk::partition(disk, &file, partition, sector)?;
    Ok(Some(Found { name, partition_of: Some(disk.to_owned()) }))
}

/// Grows the partition to the end of its disk, in the table first, then in the kernel, and repairs a table of which one copy is
/// damaged. Nothing to do is fine.
fn grow_partition(disk: &str, uuid: &[u8; 16]) -> Result<(), String> {
    let path = format!("/dev/{disk}");
    let file = File::options().read(true).write(true).open(&path).map_err(|e| format!("open {path}: {e}"))?;
    let size = sys::block::size(&file).map_err(|e| format!("size of {path}: {e}"))?;
    let sector = disk::sector_size(disk);
    let [primary, backup] = disk::tables(&file, size, sector);
    let both = primary.as_ref().zip(backup.as_ref()).is_some_and(|(primary, backup)| primary.agrees(backup));
    let table = primary.or(backup).ok_or("its table can't be read")?;
    let sectors = size.checked_div(sector).unwrap_or(0);
    let write = |bytes: &[u8], offset| {
        file.write_all_at(bytes, offset).and_then(|()| file.sync_all()).map_err(|e| format!("write {path}: {e}"))
    };
    let grown = table.grown(uuid, sectors, sector);
    let repaired = if grown.is_some() || both { None } else { table.repaired(sectors, sector) };
    for (offset, bytes) in grown.as_ref().map(|grown| &grown.writes).or(repaired.as_ref()).into_iter().flatten() {
        // Each on the disk before the next begins: a power cut leaves one intact table.
        write(bytes, *offset)?;
    }
    // Whether it grows now or did before a power cut.
    let mut first = [0; 512];
    if ReadAt::read_at(&file, 0, &mut first).is_ok()
        && let Some(bytes) = gpt::protective(&first, sectors)
    {
        write(&bytes, 0)?;
    }
    let Some(grown) = grown else { return Ok(()) };
    let (start, length) = grown.partition.extent(sector).ok_or("it lies beyond the disk")?;
    sys::block::resize_partition(&file, grown.partition.number, start, length)
        .map_err(|e| format!("tell the kernel about it: {e}"))
}

/// Grows the mounted filesystem to the end of its device. Nothing to do is fine.
fn grow_filesystem(device: &str) -> Result<(), String> {
    let superblock = read_superblock(device).ok_or("its superblock can't be read")?;
    let size = File::open(device).and_then(|file| sys::block::size(&file)).map_err(|e| e.to_string())?;
    let Some(blocks) = superblock.growth(size) else { return Ok(()) };
    let root = File::open(MOUNT_POINT).map_err(|e| e.to_string())?;
    sys::block::ext4_resize(&root, blocks).map_err(|e| format!("to {blocks} blocks: {e}"))
}

fn read_superblock(device: &str) -> Option<Superblock> {
    let file = File::open(device).ok()?;
    let mut bytes = [0; ext4::LENGTH];
    ReadAt::read_at(&file, ext4::OFFSET, &mut bytes).ok()?;
    Superblock::parse(&bytes)
}

fn is_read_only(name: &str) -> bool {
    std::fs::read_to_string(format!("/sys/class/block/{name}/ro")).is_ok_and(|text| text.trim() == "1")
}

fn mount_tmpfs() -> Result<(), Errno> {
    rustix::mount::mount("tmpfs", MOUNT_POINT, "tmpfs", FLAGS, Some(c"mode=0755,size=50%"))?;
    make_volumes(DataState::Tmpfs)
}

/// Parent of the volumes. Containers reach theirs by bind mounts only; nobody else has business there.
fn make_volumes(state: DataState) -> Result<(), Errno> {
    if state == DataState::Readonly {
        return Ok(());
    }
    match rustix::fs::mkdir(format!("{MOUNT_POINT}/volumes"), Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn finished(state: DataState, detail: String) -> Data {
    let bytes = rustix::fs::statvfs(MOUNT_POINT).map_or(0, |stat| stat.f_blocks.saturating_mul(stat.f_frsize));
    Data { state, detail, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_already_is_told_as_what_it_is() {
        let states = [(false, false), (false, true), (true, false), (true, true)];
        let told = [DataState::Mounted, DataState::Readonly, DataState::Tmpfs, DataState::Tmpfs];
        assert_eq!(states.map(|(tmpfs, read_only)| named(tmpfs, read_only).0), told);
    }

    #[test]
    fn causes_are_explained() {
        assert!(explained(Errno::NODEV).contains("CONFIG_EXT4_FS"));
        assert!(explained(Errno::UCLEAN).contains("damaged"));
    }
}
