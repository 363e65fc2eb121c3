//! Steps of classic BPF on `struct seccomp_data` (seccomp(2), `linux/filter.h`).

/// Opcodes.
pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const IF_EQUAL: u16 = 0x15;
pub(super) const IF_GREATER: u16 = 0x25;
pub(super) const IF_GREATER_EQUAL: u16 = 0x35;
pub(super) const IF_ANY_BIT: u16 = 0x45;
pub(super) const RETURN: u16 = 0x06;
/// Offsets into the data; arguments are further on.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;
pub(super) const ARGUMENTS: u32 = 16;

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) code: u16,
    pub(super) yes: u8,
    pub(super) no: u8,
    pub(super) k: u32,
}

impl Step {
    pub(super) fn new(code: u16, yes: u8, no: u8, k: u32) -> Self {
        Self { code, yes, no, k }
    }

    /// One that goes on with the next, or nowhere.
    pub(super) fn plain(code: u16, k: u32) -> Self {
        Self::new(code, 0, 0, k)
    }

    pub(super) fn from_bytes(bytes: [u8; 8]) -> Self {
        let [c0, c1, yes, no, k @ ..] = bytes;
        Self { code: u16::from_ne_bytes([c0, c1]), yes, no, k: u32::from_ne_bytes(k) }
    }

    pub(super) fn to_bytes(self) -> [u8; 8] {
        let (c, k) = (self.code.to_ne_bytes(), self.k.to_ne_bytes());
        [c[0], c[1], self.yes, self.no, k[0], k[1], k[2], k[3]]
    }

    /// Which way a comparison goes. `None`: it is none of those that depend on nothing but whether `k` is passed.
    pub(super) fn decide(self, value: u32) -> Option<bool> {
        match self.code {
            IF_EQUAL => Some(value == self.k),
            IF_GREATER => Some(value > self.k),
            IF_GREATER_EQUAL => Some(value >= self.k),
            _ => None,
        }
    }
}
