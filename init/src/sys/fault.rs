//! Real faults, for tests of what follows. In each case the fault is the purpose.

use std::os::fd::AsRawFd;
use std::ptr;

use rustix::fs::MemfdFlags;

/// SIGSEGV: nothing is mapped there.
pub fn segmentation() {
    // SAFETY: address 8 is never mapped, so that nothing is written. The write is volatile, so that it is tried.
    unsafe { ptr::write_volatile(ptr::without_provenance_mut::<u8>(8), 1) };
}

/// SIGBUS: what is mapped there has no such page, as when a disk loses one.
pub fn bus() {
    let Ok(empty) = rustix::fs::memfd_create("empty", MemfdFlags::CLOEXEC) else { return };
    // SAFETY: a new mapping at an address of the kernel's choice; nothing else is affected.
    let page = unsafe { libc::mmap(ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, empty.as_raw_fd(), 0) };
    if page != libc::MAP_FAILED {
        // SAFETY: the mapping is behind the file's end, so that nothing is read. The read is volatile, so that it is tried.
        unsafe { ptr::read_volatile(page.cast::<u8>()) };
    }
}

/// SIGILL: no processor has that instruction.
pub fn instruction() {
    // SAFETY: the instruction changes nothing, as it is none.
    unsafe { std::arch::asm!("ud2") };
}

/// SIGABRT: as when memory for something small is not to be had.
pub fn abort() {
    std::process::abort();
}
