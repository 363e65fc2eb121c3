//! Where images lie: OCI layout directories, OCI archives, Docker archives.

use std::fmt;
use std::path::Path;

use oci_spec::image::ImageConfiguration;

use crate::{Digest, Error, Limits, Result};

/// An image whose manifest and configuration were found and verified.
///
/// Its layers are still where they lie; [`crate::store::Store::add_layer`] reads and verifies them.
pub struct Image {
    /// As the declaration names it.
    pub reference: String,
    /// Digest of the manifest; of the configuration for a Docker archive, which has no manifest.
    pub digest: Digest,
    /// The configuration, typed.
    pub config: ImageConfiguration,
    /// The configuration's own bytes: the typed form lacks what only Docker knows (`Healthcheck`, `OnBuild`, …).
    pub config_json: Vec<u8>,
    /// The layers, the bottom one first.
    pub layers: Vec<Layer>,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the decompressed tar stream; names the layer in the store.
    pub diff_id: Digest,
    /// Bytes as it lies (compressed).
    pub size: u64,
    /// Media type of its descriptor; empty in a Docker archive.
    pub media_type: String,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image")
            .field("reference", &self.reference)
            .field("digest", &self.digest)
            .field("layers", &self.layers)
            .finish_non_exhaustive()
    }
}

/// Opens the image that `reference` names, with the default [`Limits`].
///
/// `reference` is `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:REF]` or a path with an optional `:TAG`,
/// whose kind is then found by looking. Relative paths are relative to `base_dir`.
pub fn open(reference: &str, base_dir: &Path) -> Result<Image> {
    open_with(reference, base_dir, &Limits::default())
}

/// [`open`] with other limits.
pub fn open_with(reference: &str, base_dir: &Path, limits: &Limits) -> Result<Image> {
    let _ = (base_dir, limits);
    Err(Error::Reference { reference: reference.into(), detail: "not readable yet".into() })
}
