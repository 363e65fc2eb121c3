//! `garboard-runtime`: the OCI runtime command line. See [`garboard_runtime::cli`].
#![no_main]

#[path = "sys/entry.rs"]
mod entry;
#[cfg(own_libc_start)]
#[path = "sys/libc_start.rs"]
mod libc_start;
