//! The dm-verity superblock and the root hash that follows from it (see [`crate::verity`]).

use anyhow::{Result, bail};
use sha2::{Digest, Sha256};

use super::source::Source;
use crate::verity::{BLOCK, hex};

const MAGIC: &[u8] = b"verity\0\0";
/// The superblock's fields end here; the salt has up to 256 bytes.
const SALT_AT: usize = 88;
const SALT_SIZE_AT: usize = 80;
const UUID_AT: usize = 16;

/// How the image is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// 64 hexadecimal digits.
    pub root_hash: String,
    /// Bytes of superblock and tree, and what follows them in a partition.
    pub size: u64,
}

/// Reads the superblock and hashes the tree's top block, which gives the root hash.
pub fn read(source: &Source) -> Result<Seal> {
    let head = source.verity.head(2 * BLOCK)?;
    // A single data block has no tree; the builder never makes so small an image.
    let root_hash = root_hash(&head)?;
    Ok(Seal { root_hash, size: source.verity.length() })
}

fn root_hash(head: &[u8]) -> Result<String> {
    let (superblock, top) = match (head.get(..BLOCK as usize), head.get(BLOCK as usize..2 * BLOCK as usize)) {
        (Some(superblock), Some(top)) if superblock.starts_with(MAGIC) => (superblock, top),
        _ => bail!("no verity superblock behind the filesystem: the image is not sealed, or cut off"),
    };
    let salt_size = usize::from(u16::from_le_bytes([superblock[SALT_SIZE_AT], superblock[SALT_SIZE_AT + 1]]));
    let Some(salt) = superblock.get(SALT_AT..SALT_AT + salt_size).filter(|salt| salt.len() <= 256) else {
        bail!("malformed verity superblock: a salt of {salt_size} bytes");
    };
    let root_hash = Sha256::new().chain_update(salt).chain_update(top).finalize();
    if superblock[UUID_AT..UUID_AT + 16] != root_hash[..16] {
        bail!("the hash tree doesn't belong to its superblock: the image is damaged or was altered");
    }
    Ok(hex(&root_hash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::FileExt;

    fn sealed() -> (Vec<u8>, String) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * BLOCK).unwrap();
        let verity = crate::verity::append(&file, &[7; 32]).unwrap();
        let mut head = vec![0; 2 * BLOCK as usize];
        file.read_exact_at(&mut head, verity.hash_offset()).unwrap();
        (head, verity.root_hash_hex())
    }

    #[test]
    fn finds_the_root_hash_that_the_builder_made() {
        let (head, root) = sealed();
        assert_eq!(root_hash(&head).unwrap(), root);
    }

    #[test]
    fn an_altered_tree_is_noticed() {
        let (mut head, _) = sealed();
        head[BLOCK as usize + 5] ^= 1;
        assert!(root_hash(&head).unwrap_err().to_string().contains("was altered"));
        assert!(root_hash(&head[..100]).unwrap_err().to_string().contains("not sealed"));
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(at in 0usize..512, value in any::<u8>()) {
            let (mut head, _) = sealed();
            head[at] = value;
            let _ = root_hash(&head);
        }
    }
}
