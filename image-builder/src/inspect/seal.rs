//! The hash tree behind the system image, judged: whether every block is the one that the root hash covers.

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};

use super::source::Source;
use crate::verity::{self, BLOCK, DIGEST, MAGIC, SALT_AT};

/// How the image is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// 64 hexadecimal digits.
    pub root_hash: String,
    /// Bytes of superblock and tree, and what follows them in a partition.
    pub size: u64,
}

/// Hashes all `blocks` of the filesystem anew and compares with superblock and tree. Of its fields only the salt is read.
pub fn verify(source: &Source, blocks: u64) -> Result<Seal> {
    let room = source.system.length() / BLOCK;
    ensure!(
        (1..=room).contains(&blocks),
        "the filesystem says that it has {blocks} blocks, but there are {room}: the image is cut off"
    );
    let head = source.verity.head(BLOCK)?;
    let salt = head.get(SALT_AT..).and_then(|rest| rest.first_chunk()).filter(|_| head.starts_with(MAGIC));
    let Some(salt) = salt else {
        bail!("no verity superblock behind the filesystem: the image is not sealed, or cut off");
    };
    let read = |buffer: &mut [u8], offset| source.system.read_exact_at(buffer, offset);
    let seal = verity::compute(blocks, salt, &read).context("read the filesystem, which may be cut off")?;
    let mut stored = source.verity.tail(0);
    // The leaves come last. What is above them follows from them, so a difference there is damage of the tree alone.
    let leaves = seal.parts.len() - 1;
    let mut found = Vec::new();
    for part in &seal.parts {
        let mut bytes = vec![0; part.len()];
        stored.read_exact(&mut bytes).context("read the hash tree, which may be cut off")?;
        found.push(bytes);
    }
    if let Some(block) = first_difference(&seal.parts[leaves], &found[leaves]).filter(|_| leaves > 0) {
        bail!("block {block} of the filesystem is not what its hash tree says: the image is damaged or was altered");
    }
    ensure!(seal.parts == found, "the hash tree doesn't belong to the filesystem: the image is damaged or was altered");
    let root_hash = seal.verity.root_hash_hex();
    if let Some(wanted) = source.root_hash.as_ref().filter(|wanted| !root_hash.starts_with(*wanted)) {
        bail!(
            "the system image has the root hash {root_hash}, but {wanted} goes with it: it is from another build, or was altered"
        );
    }
    Ok(Seal { root_hash, size: source.verity.length() })
}

/// The number of the first digest that differs.
fn first_difference(computed: &[u8], stored: &[u8]) -> Option<usize> {
    computed.chunks(DIGEST).zip(stored.chunks(DIGEST)).position(|(one, other)| one != other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::window::Window;
    use proptest::prelude::*;
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    const BLOCKS: u64 = 130;

    /// A sealed image with these bytes XORed into it.
    fn sealed(flips: &[(u64, u8)]) -> (Source, String) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(BLOCKS * BLOCK).unwrap();
        let verity = verity::append(&file, &[7; 32]).unwrap();
        let length = file.metadata().unwrap().len();
        for &(at, flip) in flips {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ flip], at).unwrap();
        }
        let whole = Window::new(Arc::new(file), 0, length);
        let source = Source {
            verity: whole.tail(BLOCKS * BLOCK),
            system: whole,
            kernel_release: None,
            root_hash: Some(verity.root_hash_hex()),
        };
        (source, verity.root_hash_hex())
    }

    fn refused(flips: &[(u64, u8)]) -> String {
        verify(&sealed(flips).0, BLOCKS).unwrap_err().to_string()
    }

    #[test]
    fn finds_the_root_hash_that_the_builder_made() {
        let (source, root_hash) = sealed(&[]);
        assert_eq!(verify(&source, BLOCKS).unwrap().root_hash, root_hash);
    }

    #[test]
    fn whatever_was_altered_is_noticed() {
        assert!(refused(&[(129 * BLOCK + 4095, 1)]).starts_with("block 129 of the filesystem is not"));
        // Superblock, top level, leaves: the first digest in the tree is a leaf's own block's.
        assert!(refused(&[((BLOCKS * BLOCK) + 16, 1)]).contains("was altered"));
        assert!(refused(&[((BLOCKS + 1) * BLOCK, 1)]).contains("was altered"));
        assert!(refused(&[((BLOCKS + 2) * BLOCK, 1)]).starts_with("block 0 of the filesystem is not"));
        assert!(refused(&[(BLOCKS * BLOCK, 1)]).contains("not sealed"));
    }

    #[test]
    fn another_builds_system_image_is_noticed() {
        let source = Source { root_hash: Some("00".repeat(16)), ..sealed(&[]).0 };
        assert!(verify(&source, BLOCKS).unwrap_err().to_string().contains("from another build"));
    }

    #[test]
    fn a_cut_off_image_is_noticed() {
        let (source, _) = sealed(&[]);
        let tree = Source { verity: source.verity.clone().limited(2 * BLOCK), ..source };
        assert!(verify(&tree, BLOCKS).unwrap_err().to_string().contains("cut off"));
        for blocks in [0, 10 * BLOCKS, u64::from(u32::MAX)] {
            assert!(verify(&sealed(&[]).0, blocks).unwrap_err().to_string().contains("cut off"));
        }
    }

    proptest! {
        #[test]
        fn any_flipped_byte_is_noticed(at in 0..(BLOCKS + 4) * BLOCK, flip in 1..=255_u8) {
            prop_assert!(verify(&sealed(&[(at, flip)]).0, BLOCKS).is_err());
        }
    }
}
