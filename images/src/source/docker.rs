//! Images in Docker archives: a `manifest.json` that names configuration and layers by their paths in the archive.
//!
//! Nothing here is named by digest for certain. The configuration usually is, then it is verified; the layers are verified
//! by its diff ids in any case.

use std::sync::Arc;

use serde::Deserialize;

use super::blobs::Blobs;
use super::{Find, Image, Layer};
use crate::Result;
use crate::digest::{Digest, from_hex};

/// One image of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The image called `name` (`nginx`, `nginx:1.27`, `docker.io/library/nginx:1.27`), or the only one.
pub(super) fn parse(bytes: &[u8], name: Option<&str>) -> Result<Entry, String> {
    let entries: Vec<Entry> = serde_json::from_slice(bytes).map_err(|e| format!("malformed manifest.json: {e}"))?;
    let all: Vec<String> = entries.iter().flat_map(|entry| entry.repo_tags.iter().flatten().cloned()).collect();
    let wanted = |entry: &Entry| match name {
        Some(name) => entry.repo_tags.iter().flatten().any(|tag| familiar(tag) == familiar(name)),
        None => true,
    };
    let mut found: Vec<Entry> = entries.into_iter().filter(wanted).collect();
    match (found.pop(), found.is_empty()) {
        (Some(entry), true) => Ok(entry),
        (Some(_), false) => Err(format!("it has several images; choose one of {}", all.join(", ").escape_debug())),
        (None, _) if all.is_empty() => Err("none of its images is tagged".into()),
        (None, _) => Err(format!("it has no such image; choose one of {}", all.join(", ").escape_debug())),
    }
}

/// A name in full, as Docker completes it.
pub(super) fn familiar(name: &str) -> String {
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.strip_prefix("library/").unwrap_or(name);
    let tagged = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if tagged { name.into() } else { format!("{name}:latest") }
}

/// The digest in a member's name: `<hex>.json`, `blobs/sha256/<hex>`.
fn digest_in_name(name: &str) -> Option<Digest> {
    let last = name.rsplit('/').next()?;
    from_hex(last.strip_suffix(".json").or(last.strip_suffix(".tar")).unwrap_or(last))
}

/// Finds and verifies the image.
pub(super) fn open(find: &Find<'_>, blobs: Arc<dyn Blobs>) -> Result<Image> {
    let manifest = find.small(&*blobs, "manifest.json", None, None)?;
    let entry = parse(&manifest, find.name).map_err(|detail| find.error(detail))?;
    let config_json = find.small(&*blobs, &entry.config, None, digest_in_name(&entry.config))?;
    let (config, diff_ids) = find.config(&config_json)?;
    if entry.layers.len() != diff_ids.len() {
        let counts = format!("{} layers, but {} diff ids in its configuration", entry.layers.len(), diff_ids.len());
        return Err(find.error(counts));
    }
    let layers = entry.layers.into_iter().zip(diff_ids).map(|(blob, diff_id)| {
        let (_, size) = blobs.open(&blob)?;
        // `<hex>.tar` and `<hex>/layer.tar` are named by ids of their own kinds; only this form is the blob's digest.
        let blob_digest = blob.strip_prefix("blobs/sha256/").and_then(from_hex);
        Ok(Layer { diff_id, size, media_type: String::new(), blob_digest, blob })
    });
    let layers = layers.collect::<Result<_>>()?;
    let digest = Digest::of(&config_json);
    Ok(Image { reference: find.reference.into(), digest, config, config_json, layers, blobs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed() {
        let json = br#"[{"Config":"a.json","RepoTags":["nginx:latest"],"Layers":[]},
                        {"Config":"b.json","RepoTags":["host:5000/x:1","redis:7"],"Layers":["l"]},
                        {"Config":"c.json","RepoTags":null,"Layers":[]}]"#;
        for (name, config) in [
            ("nginx", "a.json"),
            ("docker.io/library/nginx:latest", "a.json"),
            ("redis:7", "b.json"),
            ("host:5000/x:1", "b.json"),
        ] {
            assert_eq!(parse(json, Some(name)).unwrap().config, config, "{name}");
        }
        assert!(parse(json, Some("redis")).unwrap_err().contains("redis:7"));
        assert!(parse(json, None).unwrap_err().contains("several"));
        assert!(parse(b"[]", None).is_err());
        assert!(parse(b"{}", None).unwrap_err().contains("malformed"));
    }

    #[test]
    fn digests_in_names() {
        let hex = Digest::of(b"").hex();
        assert_eq!(digest_in_name(&format!("{hex}.json")), Some(Digest::of(b"")));
        assert_eq!(digest_in_name(&format!("blobs/sha256/{hex}")), Some(Digest::of(b"")));
        assert_eq!(digest_in_name("config.json"), None);
    }
}
