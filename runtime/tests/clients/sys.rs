//! Unsafe calls of the tests.
#![allow(unsafe_code)]

/// Leaves the parent's mount and network namespaces.
pub fn unshare() {
    let flags = rustix::thread::UnshareFlags::NEWNS | rustix::thread::UnshareFlags::NEWNET;
    // SAFETY: unshare(2) takes plain flags; with these no descriptors are lost.
    unsafe { rustix::thread::unshare_unsafe(flags) }.expect("unshare as root");
}
