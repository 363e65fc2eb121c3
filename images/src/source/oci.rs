//! Images in the OCI image layout (image specification, "Image Layout"), in a directory or an archive.

use std::sync::Arc;

use super::blobs::Blobs;
use super::{Find, Image, Layer, manifest};
use crate::Result;

/// Indexes within indexes followed.
const MOST_INDEXES: usize = 4;

/// Finds and verifies the image.
pub(super) fn open(find: &Find<'_>, blobs: Arc<dyn Blobs>) -> Result<Image> {
    let index = find.small(&*blobs, "index.json", None, None)?;
    let mut entry = manifest::select(&index, find.name).map_err(|detail| find.error(detail))?;
    let mut bytes = find.small(&*blobs, &entry.path(), Some(entry.size), Some(entry.digest))?;
    let mut followed = 0;
    while entry.is_index() {
        followed += 1;
        if followed > MOST_INDEXES {
            return Err(find.error(format!("more than {MOST_INDEXES} indexes within each other")));
        }
        entry = manifest::select_platform(&bytes).map_err(|detail| find.error(detail))?;
        bytes = find.small(&*blobs, &entry.path(), Some(entry.size), Some(entry.digest))?;
    }
    let (config, layers) = manifest::parse_manifest(&bytes, find.limits).map_err(|detail| find.error(detail))?;
    let config_json = find.small(&*blobs, &config.path(), Some(config.size), Some(config.digest))?;
    let (config, diff_ids) = find.config(&config_json)?;
    if layers.len() != diff_ids.len() {
        let counts = format!("{} layers, but {} diff ids in its configuration", layers.len(), diff_ids.len());
        return Err(find.error(counts));
    }
    let layers = layers.into_iter().zip(diff_ids).map(|(layer, diff_id)| Layer {
        diff_id,
        size: layer.size,
        blob_digest: Some(layer.digest),
        blob: layer.path(),
        media_type: layer.media_type,
    });
    let layers = layers.collect();
    Ok(Image { reference: find.reference.into(), digest: entry.digest, config, config_json, layers, blobs })
}
