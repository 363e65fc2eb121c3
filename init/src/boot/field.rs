//! Little-endian fields of on-disk structures, from bytes that may be too short.

/// `N` bytes at `offset`; `None` beyond the end.
pub fn bytes<const N: usize>(data: &[u8], offset: usize) -> Option<[u8; N]> {
    data.get(offset..)?.first_chunk::<N>().copied()
}

/// The 16-bit number at `offset`.
pub fn le16(data: &[u8], offset: usize) -> Option<u16> {
    bytes(data, offset).map(u16::from_le_bytes)
}

/// The 32-bit number at `offset`.
pub fn le32(data: &[u8], offset: usize) -> Option<u32> {
    bytes(data, offset).map(u32::from_le_bytes)
}

/// The 64-bit number at `offset`.
pub fn le64(data: &[u8], offset: usize) -> Option<u64> {
    bytes(data, offset).map(u64::from_le_bytes)
}

/// Writes `value` at `offset`; `None` when it would lie beyond the end.
pub fn put(data: &mut [u8], offset: usize, value: &[u8]) -> Option<()> {
    data.get_mut(offset..offset.checked_add(value.len())?)?.copy_from_slice(value);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_within_bounds_only() {
        let mut data = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(le16(&data, 6), Some(0x0807));
        assert_eq!(le16(&data, 7), None);
        assert_eq!(le32(&data, 0), Some(0x0403_0201));
        assert_eq!(le64(&data, 0), Some(0x0807_0605_0403_0201));
        assert_eq!(le64(&data, usize::MAX), None);
        assert_eq!(put(&mut data, 6, &[0, 0]), Some(()));
        assert_eq!(put(&mut data, 7, &[0, 0]), None);
        assert_eq!(put(&mut data, usize::MAX, &[0]), None);
        assert_eq!(data, [1, 2, 3, 4, 5, 6, 0, 0]);
    }
}
