//! An image's configuration and what the declaration says about a container → an OCI runtime spec.
//!
//! Pure: the image's files are reached through [`ImageFiles`].

mod error;
mod options;

pub use error::Error;
pub use options::{Device, Limits, Mount, MountKind, NamespaceChoice, Options, SeccompChoice, Ulimit};

use crate::launch::CreateDir;

/// What the conversion needs to know of the image's merged filesystem. Paths are absolute; links are followed inside.
pub trait ImageFiles {
    /// A regular file's contents, at most `limit` bytes (more is an error); `None` if there is none.
    fn read(&self, path: &str, limit: usize) -> std::io::Result<Option<Vec<u8>>>;
    /// Kind and owner; `None` if it doesn't exist.
    fn metadata(&self, path: &str) -> std::io::Result<Option<FileMetadata>>;
}

/// Metadata of one file of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMetadata {
    /// A directory.
    pub directory: bool,
    /// Owner, as in the image.
    pub uid: u32,
    /// Group, as in the image.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// A container's spec, and what a runtime spec has no place for.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// The runtime spec. Its root path is left to whoever unpacks the image.
    pub spec: oci_spec::runtime::Spec,
    /// How the directories of volumes are made when absent, by mount target.
    pub volumes: Vec<(String, CreateDir)>,
    /// Signal that asks it to stop (SIGTERM unless image or declaration say otherwise).
    pub stop_signal: u8,
    /// Ports that the image exposes, for people: `(port, "tcp")`.
    pub exposed_ports: Vec<(u16, String)>,
    /// What weakens its isolation against the defaults, in words.
    pub weakened: Vec<String>,
}

/// The spec of a container of this image, run as `options` say.
///
/// Rules are Docker's where it has any: a declared entrypoint drops the image's command, `PATH` has a default, names are
/// resolved in the image's `/etc/passwd` and `/etc/group`.
pub fn from_image(
    config: &oci_spec::image::ImageConfiguration,
    options: &Options,
    files: &dyn ImageFiles,
) -> Result<Container, Error> {
    let _ = (config, options, files);
    Err(Error::new("image", "not read yet"))
}
