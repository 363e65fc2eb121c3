//! Container images, from where they lie to a layer store in one read-only filesystem image.
//!
//! [`source::open`] finds an image in an OCI layout directory, an OCI archive or a Docker archive and verifies its manifest
//! and configuration. [`store::Store`] reads the image's layers (verifying digest, size and diff id on the way), checks
//! every entry and keeps them as a tree in memory, contents in a scratch file; [`store::Store::finish`] writes the EROFS
//! image. Nothing is ever unpacked onto the machine's own filesystem, so nothing in an image can reach it.
//!
//! Everything read is hostile until verified and stays bounded by [`Limits`]. The format is described in `FORMAT.md`.

mod contents;
pub mod digest;
pub mod erofs;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod layer;
mod limits;
pub mod source;
pub mod store;
mod tarball;
mod tree;
pub mod view;

pub use digest::Digest;
pub use error::{Error, Result};
pub use limits::Limits;
