//! Where images lie: OCI layout directories, OCI archives, Docker archives.

mod archive;
mod blobs;
mod docker;
pub(crate) mod manifest;
mod oci;
mod reference;

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use oci_spec::image::ImageConfiguration;

use blobs::{Blobs, Directory};
use reference::{Location, Transport};

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
    blobs: Arc<dyn Blobs>,
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
    /// Digest of the blob, where something names it.
    blob_digest: Option<Digest>,
    /// The blob's name in its source.
    blob: String,
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

impl Image {
    /// Layer `n` for messages: by digest, so that it is found in whatever tool one looks at the image with.
    pub(crate) fn layer_name(&self, n: usize) -> String {
        match self.layers.get(n) {
            Some(layer) => format!("image `{}`: layer {} ({})", self.reference, n + 1, layer.diff_id),
            None => format!("image `{}`: layer {}", self.reference, n + 1),
        }
    }

    /// The layers' chain IDs as the image specification has them: each stands for a layer and all below it, in their order.
    pub(crate) fn chain_ids(&self) -> impl Iterator<Item = Digest> {
        let diff_ids = self.layers.iter().map(|layer| layer.diff_id);
        diff_ids.scan(None, |below, diff_id| {
            *below = Some(below.map_or(diff_id, |below| Digest::of(format!("{below} {diff_id}").as_bytes())));
            *below
        })
    }

    /// Opens a layer's blob.
    pub(crate) fn open_layer(&self, layer: &Layer) -> Result<Box<dyn Read>> {
        Ok(Box::new(self.blobs.open(&layer.blob)?.0))
    }
}

impl Layer {
    pub(crate) fn expected(&self) -> crate::layer::Expected {
        crate::layer::Expected { blob: self.blob_digest, size: self.size, diff_id: self.diff_id }
    }
}

/// Opens the image that `reference` names, with the default [`Limits`].
///
/// `reference` is `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:REF]` or a path with an optional `:TAG`,
/// whose kind is then found by looking. Relative paths are relative to `base_dir`. Of an image for several platforms the
/// one for linux/amd64 is taken. A compressed archive is decompressed into a nameless file in the directory for temporary
/// files.
pub fn open(reference: &str, base_dir: &Path) -> Result<Image> {
    open_with(reference, base_dir, &Limits::default())
}

/// [`open`] with other limits.
pub fn open_with(reference: &str, base_dir: &Path, limits: &Limits) -> Result<Image> {
    let Location { transport, path, name } = reference::locate(reference, base_dir)?;
    let find = Find { reference, name: name.as_deref(), limits };
    match transport {
        Transport::Oci => oci::open(&find, Arc::new(Directory::new(path))),
        Transport::OciArchive => oci::open(&find, Arc::new(archive::open(&path, limits)?)),
        Transport::DockerArchive => docker::open(&find, Arc::new(archive::open(&path, limits)?)),
        Transport::Unknown => {
            let archive = archive::open(&path, limits)?;
            // Newer Docker writes both; the OCI side names everything by digest.
            if archive.has("index.json") {
                oci::open(&find, Arc::new(archive))
            } else if archive.has("manifest.json") {
                docker::open(&find, Arc::new(archive))
            } else {
                Err(Error::Reference {
                    reference: reference.into(),
                    detail: "neither an OCI archive (no index.json) nor a Docker archive (no manifest.json)".into(),
                })
            }
        }
    }
}

/// What is looked for, and for whom.
struct Find<'a> {
    reference: &'a str,
    /// The tag or name behind the path.
    name: Option<&'a str>,
    limits: &'a Limits,
}

impl Find<'_> {
    fn error(&self, detail: impl Into<String>) -> Error {
        Error::Reference { reference: self.reference.into(), detail: detail.into() }
    }

    /// A small blob, whole, verified against whatever is known about it.
    fn small(&self, blobs: &dyn Blobs, name: &str, size: Option<u64>, digest: Option<Digest>) -> Result<Vec<u8>> {
        let object = || format!("image `{}`: {name}", self.reference);
        let (reader, found) = blobs.open(name)?;
        let limit = self.limits.manifest_bytes;
        if found > limit {
            return Err(Error::Limit { object: object(), limit, unit: "bytes", name: "manifest_bytes" });
        }
        let mut bytes = Vec::new();
        reader.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io("read", object()))?;
        let found = bytes.len() as u64;
        match size {
            Some(expected) if expected != found => {
                return Err(Error::Size { object: object(), expected, found });
            }
            _ => {}
        }
        match digest {
            Some(expected) if expected != Digest::of(&bytes) => {
                Err(Error::Digest { object: object(), expected, found: Digest::of(&bytes) })
            }
            _ => Ok(bytes),
        }
    }

    /// The configuration, typed and checked, with the layers' diff ids.
    fn config(&self, bytes: &[u8]) -> Result<(ImageConfiguration, Vec<Digest>)> {
        manifest::parse_config(bytes, self.limits).map_err(|detail| self.error(detail))
    }
}
