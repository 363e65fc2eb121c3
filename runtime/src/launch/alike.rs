//! Bytes that most containers of a plan have alike: as long as they come one after the other, they are in memory once. A thousand
//! filters would be most of PID 1's memory, which the kernel goes through at every launch.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

thread_local! {
    /// Those that were read last.
    static LAST: Cell<Option<Arc<[u8]>>> = const { Cell::new(None) };
}

/// As a `Vec<u8>` in postcard's format.
pub(super) fn serialize<S: Serializer>(bytes: &Arc<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// The other way round.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[u8]>, D::Error> {
    deserializer.deserialize_bytes(Alike)
}

struct Alike;

impl Visitor<'_> for Alike {
    type Value = Arc<[u8]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        let share = |last: &Cell<Option<Arc<[u8]>>>| {
            let shared = last.take().filter(|last| **last == *bytes).unwrap_or_else(|| bytes.into());
            last.set(Some(Arc::clone(&shared)));
            shared
        };
        Ok(LAST.try_with(share).unwrap_or_else(|_| bytes.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Seccomp;
    use super::*;

    #[test]
    fn what_is_alike_is_there_once_and_encoded_as_ever() {
        let filter = |byte| Seccomp { bpf: vec![byte; 300].into(), flags: 0, listener: None };
        let filters = vec![filter(1), filter(1), filter(2), filter(1)];
        let encoded = postcard::to_stdvec(&filters).unwrap();
        let decoded: Vec<Seccomp> = postcard::from_bytes(&encoded).unwrap();
        assert_eq!(decoded, filters);
        let same = |a: usize, b: usize| Arc::ptr_eq(&decoded[a].bpf, &decoded[b].bpf);
        assert_eq!((same(0, 1), same(1, 2), same(0, 3)), (true, false, false));
        // Length, then the bytes, then what follows.
        assert_eq!(
            postcard::to_stdvec(&filter(1)).unwrap(),
            postcard::to_stdvec(&(vec![1_u8; 300], 0_u32, None::<u8>)).unwrap()
        );
        assert!(postcard::from_bytes::<Seccomp>(&encoded[1..100]).is_err());
    }
}
