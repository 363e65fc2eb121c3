//! The dm-verity superblock and the device-mapper table made of it.
//!
//! Format: cryptsetup's "DMVerity" page, superblock version 1, as `veritysetup format` writes it. Of the hash algorithms only
//! SHA-256 with 4,096-byte blocks is accepted, because that is what the builder writes.

use super::field::{bytes, le16, le32, le64};

/// Length of the superblock, in bytes.
pub const LENGTH: usize = 512;
/// Data and hash block size, in bytes.
pub const BLOCK: u64 = 4096;
const SECTOR: u64 = 512;

/// A hash tree, as its superblock describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// In Garboard's images the first 16 bytes of the root hash, by which the tree is found.
    pub uuid: [u8; 16],
    /// Number of data blocks.
    pub blocks: u64,
    /// Salt of every hash.
    pub salt: Vec<u8>,
}

impl Superblock {
    /// Reads a superblock; the error says what it is instead.
    pub fn parse(data: &[u8]) -> Result<Self, &'static str> {
        let short = "a truncated verity superblock";
        if data.get(..8) != Some(b"verity\0\0") {
            return Err("no verity superblock");
        }
        let number = |offset| le32(data, offset).ok_or(short);
        if (number(8)?, number(12)?) != (1, 1) {
            return Err("a verity superblock of an unknown version");
        }
        let algorithm: [u8; 32] = bytes(data, 32).ok_or(short)?;
        if algorithm.split(|b| *b == 0).next() != Some(b"sha256") {
            return Err("a hash tree that is not made with SHA-256");
        }
        if (number(64)?, number(68)?) != (4096, 4096) {
            return Err("a hash tree whose blocks are not 4,096 bytes");
        }
        let salt_length = usize::from(le16(data, 80).ok_or(short)?);
        let salt: [u8; 256] = bytes(data, 88).ok_or(short)?;
        Ok(Self {
            uuid: bytes(data, 16).ok_or(short)?,
            blocks: le64(data, 72).ok_or(short)?,
            salt: salt.get(..salt_length).ok_or("a verity superblock with a salt beyond 256 bytes")?.to_vec(),
        })
    }

    /// Length of the verified data in device-mapper's 512-byte sectors.
    pub fn sectors(&self) -> Option<u64> {
        self.blocks.checked_mul(BLOCK)?.checked_div(SECTOR)
    }

    /// Parameters of the `verity` target. Devices are named `major:minor`; the superblock lies at byte `offset` of `hash`, the
    /// tree in the block after it.
    ///
    /// No corruption mode is given: a block that fails verification reads as EIO, so altered bytes never run, and what did not
    /// need them goes on.
    pub fn table(&self, data: &str, hash: &str, offset: u64, root: &[u8; 32]) -> Option<String> {
        let start = offset.checked_div(BLOCK)?.checked_add(1)?;
        let salt = if self.salt.is_empty() { "-".to_owned() } else { hex(&self.salt) };
        Some(format!("1 {data} {hash} {BLOCK} {BLOCK} {} {start} sha256 {} {salt}", self.blocks, hex(root)))
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Vec<u8> {
        let mut sb = vec![0; LENGTH];
        sb[..8].copy_from_slice(b"verity\0\0");
        sb[8] = 1;
        sb[12] = 1;
        sb[16..32].copy_from_slice(&[0xab; 16]);
        sb[32..38].copy_from_slice(b"sha256");
        sb[64..68].copy_from_slice(&4096u32.to_le_bytes());
        sb[68..72].copy_from_slice(&4096u32.to_le_bytes());
        sb[72..80].copy_from_slice(&300u64.to_le_bytes());
        sb[80] = 2;
        sb[88] = 0x12;
        sb[89] = 0x34;
        sb
    }

    #[test]
    fn table_is_what_the_kernel_documents() {
        let sb = Superblock::parse(&sample()).unwrap();
        assert_eq!((sb.uuid, sb.blocks, sb.sectors()), ([0xab; 16], 300, Some(2400)));
        let table = sb.table("254:0", "254:0", 300 * 4096, &[0xcd; 32]).unwrap();
        assert_eq!(table, format!("1 254:0 254:0 4096 4096 300 301 sha256 {} 1234", "cd".repeat(32)));
    }

    #[test]
    fn no_salt_is_a_dash() {
        let sb = Superblock { salt: vec![], ..Superblock::parse(&sample()).unwrap() };
        assert!(sb.table("8:1", "8:2", 0, &[0; 32]).unwrap().ends_with("00 -"));
    }

    #[test]
    fn every_deviation_is_named() {
        for (offset, value, says) in
            [(0, b'x', "no verity"), (8, 2, "version"), (36, b'1', "SHA-256"), (65, 0, "4,096"), (81, 2, "salt")]
        {
            let mut sb = sample();
            sb[offset] = value;
            assert!(Superblock::parse(&sb).unwrap_err().contains(says), "byte {offset}");
        }
        assert!(Superblock::parse(&sample()[..100]).unwrap_err().contains("truncated"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_handled(mut bytes in proptest::collection::vec(any::<u8>(), 0..LENGTH), at in 0usize..LENGTH, to: u8) {
            let _ = Superblock::parse(&bytes);
            bytes = sample();
            bytes[at] = to;
            if let Ok(sb) = Superblock::parse(&bytes) {
                let _ = sb.table("1:1", "1:1", u64::MAX, &[0; 32]);
                let _ = sb.sectors();
            }
        }
    }
}
