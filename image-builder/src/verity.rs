//! Appends a dm-verity superblock and hash tree to a filesystem image, as `veritysetup format --hash-offset` would; or computes
//! what they ought to be, to judge those of an image that is there.
//!
//! The layout is the kernel's `Documentation/admin-guide/device-mapper/verity.rst`, hash type 1 (the salt goes in front), and
//! cryptsetup's on-disk superblock. After `N` data blocks follow one block with the superblock and then the tree, its
//! top level first. The superblock's UUID is not covered by any hash, so it names the root hash: PID 1 finds the disk by it.
//!
//! The tree is built in memory: 1/127 of the image's size.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

/// Bytes of a data block and of a hash block.
pub const BLOCK: u64 = 4096;
/// First bytes of a superblock.
pub const MAGIC: &[u8] = b"verity\0\0";
/// Where the superblock has the salt.
pub const SALT_AT: usize = 88;
/// Bytes of a digest.
pub const DIGEST: usize = 32;
/// Digests that fit in one hash block.
const DIGESTS_PER_BLOCK: usize = BLOCK as usize / DIGEST;
/// Blocks that a hashing thread reads at once: 1 MiB.
const CHUNK_BLOCKS: u64 = 256;

/// What [`append`] made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verity {
    /// The hash that vouches for the whole image.
    pub root_hash: [u8; 32],
    /// Blocks of the filesystem; the superblock stands right after them.
    pub data_blocks: u64,
    /// Blocks of superblock and tree together.
    pub hash_blocks: u64,
}

impl Verity {
    /// The root hash as `roothash=` and `veritysetup` take it: 64 lower-case hexadecimal digits.
    pub fn root_hash_hex(&self) -> String {
        hex(&self.root_hash)
    }

    /// Bytes of the filesystem, which is where superblock and tree begin.
    pub fn hash_offset(&self) -> u64 {
        self.data_blocks * BLOCK
    }

    /// PARTUUID of the system partition: the first half of the root hash (Discoverable Partitions Specification).
    pub fn data_uuid(&self) -> [u8; 16] {
        half(&self.root_hash, 0)
    }

    /// PARTUUID of the partition with superblock and tree: the second half of the root hash.
    pub fn hash_uuid(&self) -> [u8; 16] {
        half(&self.root_hash, 16)
    }
}

/// Why no hash tree could be appended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is empty or not made of whole blocks.
    #[error("seal system image: it has {0} bytes, which is not a positive multiple of {BLOCK}")]
    NotBlocks(u64),
    /// Reading the filesystem or writing the tree.
    #[error("seal system image: {0}: {1}")]
    Io(&'static str, #[source] io::Error),
}

/// Superblock and hash tree of a filesystem.
#[derive(Debug)]
pub struct Seal {
    /// What they vouch for.
    pub verity: Verity,
    /// As they follow the filesystem: the superblock, then the tree's levels, the top one first.
    pub parts: Vec<Vec<u8>>,
}

/// Reads a part of a filesystem from this offset on, all of it.
pub trait ReadAt: Fn(&mut [u8], u64) -> io::Result<()> + Sync {}
impl<F: Fn(&mut [u8], u64) -> io::Result<()> + Sync> ReadAt for F {}

/// Computes superblock and hash tree of a filesystem of `data_blocks` blocks, which is read once and whole.
///
/// # Errors
/// If reading fails.
pub fn compute(data_blocks: u64, salt: &[u8; 32], read: &impl ReadAt) -> io::Result<Seal> {
    let (root_hash, levels) = tree(hash_data(data_blocks, salt, read)?, salt);
    let mut parts = vec![superblock(half(&root_hash, 0), data_blocks, salt)];
    parts.extend(levels.into_iter().rev());
    let hash_blocks = parts.iter().map(|part| part.len() as u64).sum::<u64>() / BLOCK;
    Ok(Seal { verity: Verity { root_hash, data_blocks, hash_blocks }, parts })
}

/// Appends superblock and hash tree to `file`, which holds a filesystem of whole blocks from its beginning.
///
/// # Errors
/// If the file's size is not a positive multiple of [`BLOCK`], or reading or writing fails.
pub fn append(file: &File, salt: &[u8; 32]) -> Result<Verity, Error> {
    let size = file.metadata().map_err(|e| Error::Io("size of the image", e))?.len();
    if size == 0 || !size.is_multiple_of(BLOCK) {
        return Err(Error::NotBlocks(size));
    }
    let read = |buffer: &mut [u8], offset| file.read_exact_at(buffer, offset);
    let seal = compute(size / BLOCK, salt, &read).map_err(|e| Error::Io("read the filesystem", e))?;
    let mut offset = size;
    for part in seal.parts {
        file.write_all_at(&part, offset).map_err(|e| Error::Io("write the hash tree", e))?;
        offset += part.len() as u64;
    }
    Ok(seal.verity)
}

/// One superblock (`struct verity_sb` of cryptsetup), padded to a block.
fn superblock(uuid: [u8; 16], data_blocks: u64, salt: &[u8; 32]) -> Vec<u8> {
    let mut sb = Vec::with_capacity(BLOCK as usize);
    sb.extend_from_slice(MAGIC);
    sb.extend_from_slice(&1u32.to_le_bytes()); // version of this structure
    sb.extend_from_slice(&1u32.to_le_bytes()); // hash type: salt first, digests at powers of two
    sb.extend_from_slice(&uuid);
    sb.extend_from_slice(b"sha256");
    sb.resize(64, 0); // the algorithm's name has 32 bytes
    sb.extend_from_slice(&(BLOCK as u32).to_le_bytes());
    sb.extend_from_slice(&(BLOCK as u32).to_le_bytes());
    sb.extend_from_slice(&data_blocks.to_le_bytes());
    sb.extend_from_slice(&(salt.len() as u16).to_le_bytes());
    sb.resize(SALT_AT, 0);
    sb.extend_from_slice(salt);
    sb.resize(BLOCK as usize, 0);
    sb
}

/// The digests of all data blocks, one after the other. Threads share the image out in chunks.
fn hash_data(blocks: u64, salt: &[u8; 32], read: &impl ReadAt) -> io::Result<Vec<u8>> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(16);
    let mut leaves = Vec::new();
    let size = usize::try_from(blocks).ok().and_then(|blocks| blocks.checked_mul(DIGEST));
    // A file of holes may say that it is larger than memory.
    size.and_then(|size| leaves.try_reserve_exact(size).ok()).ok_or(io::ErrorKind::OutOfMemory)?;
    leaves.resize(blocks as usize * DIGEST, 0);
    let per_thread = blocks.div_ceil(threads as u64).next_multiple_of(CHUNK_BLOCKS);
    std::thread::scope(|scope| {
        let workers: Vec<_> = leaves
            .chunks_mut(per_thread as usize * DIGEST)
            .enumerate()
            .map(|(i, out)| scope.spawn(move || hash_range(i as u64 * per_thread, salt, out, read)))
            .collect();
        workers.into_iter().try_for_each(|w| w.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
    })?;
    Ok(leaves)
}

/// Fills `out` with the digests of the blocks from `first` on.
fn hash_range(first: u64, salt: &[u8; 32], out: &mut [u8], read: &impl ReadAt) -> io::Result<()> {
    let mut buffer = vec![0; (CHUNK_BLOCKS * BLOCK) as usize];
    for (i, digests) in out.chunks_mut(CHUNK_BLOCKS as usize * DIGEST).enumerate() {
        let bytes = &mut buffer[..digests.len() / DIGEST * BLOCK as usize];
        read(bytes, (first + i as u64 * CHUNK_BLOCKS) * BLOCK)?;
        for (block, digest) in bytes.chunks(BLOCK as usize).zip(digests.chunks_mut(DIGEST)) {
            digest.copy_from_slice(&hash(block, salt));
        }
    }
    Ok(())
}

/// The root hash over `leaves`, and the tree's levels from the bottom up, each padded to whole blocks.
///
/// A single data block needs no tree: its digest is the root hash.
fn tree(leaves: Vec<u8>, salt: &[u8; 32]) -> ([u8; 32], Vec<Vec<u8>>) {
    let mut levels = Vec::new();
    let mut digests = leaves;
    while digests.len() > DIGEST {
        let blocks = (digests.len() / DIGEST).div_ceil(DIGESTS_PER_BLOCK);
        digests.resize(blocks * BLOCK as usize, 0);
        let above = digests.chunks(BLOCK as usize).flat_map(|block| hash(block, salt)).collect();
        levels.push(std::mem::replace(&mut digests, above));
    }
    let mut root = [0; 32];
    root.copy_from_slice(&digests);
    (root, levels)
}

fn hash(block: &[u8], salt: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(salt).chain_update(block).finalize().into()
}

/// Sixteen bytes of `root_hash`, from `start`.
fn half(root_hash: &[u8; 32], start: usize) -> [u8; 16] {
    std::array::from_fn(|i| root_hash[start + i])
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A UUID's text: its bytes in order, with dashes (as systemd writes a root hash's halves).
pub fn uuid_text(uuid: &[u8; 16]) -> String {
    let h = hex(uuid);
    format!("{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::Command;

    const SALT: [u8; 32] = [0x5a; 32];

    /// A file of `blocks` blocks with differing contents.
    fn image(blocks: u64) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for n in 0..blocks {
            file.write_all(&hash(&n.to_le_bytes(), &SALT).repeat(BLOCK as usize / DIGEST)).unwrap();
        }
        file
    }

    fn veritysetup(arguments: &[&str]) -> (bool, String) {
        let out = Command::new("veritysetup").args(arguments).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").output();
        let out = out.expect("veritysetup runs (Debian: cryptsetup-bin)");
        (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
    }

    fn verify(path: &str, verity: &Verity) -> bool {
        let offset = format!("--hash-offset={}", verity.hash_offset());
        veritysetup(&["verify", path, path, &verity.root_hash_hex(), &offset]).0
    }

    /// Sizes around every change of the tree's depth: 1 block, 1 level, 2 levels, 3 levels.
    const SIZES: [u64; 8] = [1, 2, 127, 128, 129, 300, 128 * 128, 128 * 128 + 1];

    #[test]
    fn equals_what_veritysetup_formats() {
        for blocks in SIZES {
            let (ours, theirs) = (image(blocks), image(blocks));
            let verity = append(ours.as_file(), &SALT).unwrap();
            let (salt, uuid) = (format!("--salt={}", hex(&SALT)), format!("--uuid={}", uuid_text(&verity.data_uuid())));
            let offset = format!("--hash-offset={}", blocks * BLOCK);
            let count = format!("--data-blocks={blocks}");
            let path = theirs.path().to_str().unwrap();
            let (ok, text) = veritysetup(&["format", path, path, &offset, &count, &salt, &uuid]);
            assert!(ok, "{text}");
            assert!(text.contains(&verity.root_hash_hex()), "{blocks} blocks: {text}");
            let (a, b) = (std::fs::read(ours.path()).unwrap(), std::fs::read(theirs.path()).unwrap());
            // veritysetup writes the superblock's 512 bytes and leaves the rest of its block as a hole.
            assert!(a[..b.len()] == b[..], "{blocks} blocks: images differ");
            assert!(a[b.len()..].iter().all(|&byte| byte == 0), "{blocks} blocks: ours is longer");
        }
    }

    #[test]
    fn verifies_and_a_changed_byte_does_not() {
        for blocks in SIZES.into_iter().filter(|&b| b > 1) {
            let file = image(blocks);
            let verity = append(file.as_file(), &SALT).unwrap();
            let path = file.path().to_str().unwrap();
            assert!(verify(path, &verity), "{blocks} blocks");
            let size = file.as_file().metadata().unwrap().len();
            assert_eq!(size, verity.hash_offset() + verity.hash_blocks * BLOCK);
            // The first byte, the last block's, and one of the tree's top level.
            for offset in [0, verity.hash_offset() - 1, verity.hash_offset() + BLOCK] {
                let mut byte = [0];
                file.as_file().read_exact_at(&mut byte, offset).unwrap();
                file.as_file().write_all_at(&[byte[0] ^ 1], offset).unwrap();
                assert!(!verify(path, &verity), "{blocks} blocks, byte {offset} changed");
                file.as_file().write_all_at(&byte, offset).unwrap();
            }
            assert!(verify(path, &verity), "{blocks} blocks, restored");
        }
    }

    #[test]
    fn refuses_what_is_not_whole_blocks() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(append(file.as_file(), &SALT), Err(Error::NotBlocks(0))));
        file.write_all(&[0; 5000]).unwrap();
        assert!(matches!(append(file.as_file(), &SALT), Err(Error::NotBlocks(5000))));
    }

    #[test]
    fn uuid_keeps_the_order_of_digits() {
        let uuid = std::array::from_fn(|i| i as u8 * 0x11);
        assert_eq!(uuid_text(&uuid), "00112233-4455-6677-8899-aabbccddeeff");
    }
}
