//! The JSON of images, from bytes to what matters. No input or output, so that it can be fuzzed.

use std::collections::HashSet;
use std::str::FromStr;

use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, Os};

use super::docker::familiar;
use crate::{Digest, Limits};

/// Where a tag stands in a layout's index.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Where Docker and containerd put the full name.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// A descriptor whose digest is one this crate can verify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) media_type: String,
}

impl Blob {
    fn new(descriptor: &Descriptor) -> Result<Self, String> {
        Ok(Self {
            digest: Digest::from_str(descriptor.digest().as_ref())?,
            size: descriptor.size(),
            media_type: descriptor.media_type().to_string(),
        })
    }

    /// The blob's path in a layout.
    pub(super) fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest.hex())
    }

    pub(super) fn is_index(&self) -> bool {
        self.media_type == "application/vnd.oci.image.index.v1+json"
            || self.media_type == "application/vnd.docker.distribution.manifest.list.v2+json"
    }
}

/// The one entry of a layout's index that `tag` means; of an index for several platforms (no tag) that for linux/amd64.
///
/// `docker save` writes the tag alone where others write the name, and the name in full beside it: what is no tag is looked for
/// among those, completed as Docker does (`redis`, `redis:7`).
pub(super) fn select(index: &[u8], tag: Option<&str>) -> Result<Blob, String> {
    let index: ImageIndex = serde_json::from_slice(index).map_err(|e| format!("malformed index: {e}"))?;
    let manifests: Vec<_> = index.manifests().iter().filter(|manifest| is_image(manifest)).collect();
    let where_name = |key: &str, fits: &dyn Fn(&str) -> bool| -> Vec<&Descriptor> {
        manifests.iter().copied().filter(|manifest| annotation(manifest, key).is_some_and(fits)).collect()
    };
    let mut found = match tag {
        None => manifests.clone(),
        Some(tag) => match where_name(REF_NAME, &|name| name == tag) {
            none if none.is_empty() => where_name(IMAGE_NAME, &|name| familiar(name) == familiar(tag)),
            found => found,
        },
    };
    // One image may have several names.
    let mut digests = HashSet::new();
    found.retain(|manifest| digests.insert(manifest.digest()));
    match found.as_slice() {
        [] => Err(match tag {
            Some(tag) => format!("it has no tag `{tag}`; {}", tags(&manifests)),
            None => "its index is empty".into(),
        }),
        [one] => Blob::new(one),
        several => {
            match several.iter().filter(|manifest| is_for_us(manifest) == Some(true)).collect::<Vec<_>>().as_slice() {
                [one] => Blob::new(one),
                _ => Err(format!("it has several images; {}", tags(&manifests))),
            }
        }
    }
}

/// The entry of an index for several platforms that is for linux/amd64.
pub(super) fn select_platform(index: &[u8]) -> Result<Blob, String> {
    let index: ImageIndex = serde_json::from_slice(index).map_err(|e| format!("malformed index: {e}"))?;
    let mut manifests = index.manifests().iter().filter(|manifest| is_image(manifest));
    let ours = manifests.clone().find(|manifest| is_for_us(manifest) == Some(true));
    match ours.or_else(|| manifests.find(|manifest| is_for_us(manifest).is_none())) {
        Some(manifest) => Blob::new(manifest),
        None => {
            let mut platforms: Vec<String> = index
                .manifests()
                .iter()
                .filter_map(|manifest| manifest.platform().as_ref())
                .map(|platform| {
                    let variant = platform.variant().as_deref();
                    display(platform.os(), platform.architecture(), variant)
                })
                .collect();
            platforms.dedup();
            Err(format!("it isn't for every linux/amd64, only for {}", list(&platforms)))
        }
    }
}

/// Whether a descriptor is for linux/amd64; `None` if it doesn't say.
fn is_for_us(manifest: &Descriptor) -> Option<bool> {
    let platform = manifest.platform().as_ref()?;
    // Variants v2 and up need newer processors than every amd64 one.
    let variant = platform.variant().as_deref().unwrap_or("");
    Some(*platform.os() == Os::Linux && *platform.architecture() == Arch::Amd64 && ["", "v1"].contains(&variant))
}

/// A platform for messages; the names can be any text.
fn display(os: &Os, architecture: &Arch, variant: Option<&str>) -> String {
    let variant = variant.unwrap_or("");
    let separator = if variant.is_empty() { "" } else { "/" };
    format!("{os}/{architecture}{separator}{variant}").escape_debug().to_string()
}

/// Attestations and signatures lie beside images in an index.
fn is_image(manifest: &Descriptor) -> bool {
    let attestation = manifest.annotations().as_ref().is_some_and(|all| all.contains_key("vnd.docker.reference.type"));
    !attestation && manifest.artifact_type().is_none()
}

fn annotation<'a>(manifest: &'a Descriptor, key: &str) -> Option<&'a str> {
    manifest.annotations().as_ref()?.get(key).map(String::as_str)
}

/// What to choose from, by the full names where there are any: several images may have the same tag.
fn tags(manifests: &[&Descriptor]) -> String {
    let name = |manifest| annotation(manifest, IMAGE_NAME).or_else(|| annotation(manifest, REF_NAME));
    let names = manifests.iter().filter_map(|manifest| name(manifest));
    let names: Vec<String> = names.map(|name| name.escape_debug().to_string()).collect();
    match names.len() {
        0 => "none of its images is tagged".into(),
        _ => format!("choose one of its tags: {}", list(&names)),
    }
}

fn list(names: &[String]) -> String {
    let dots = if names.len() > 20 { ", …" } else { "" };
    format!("{}{dots}", names[..names.len().min(20)].join(", "))
}

/// A manifest's configuration and layers.
pub(super) fn parse_manifest(manifest: &[u8], limits: &Limits) -> Result<(Blob, Vec<Blob>), String> {
    let manifest: ImageManifest = serde_json::from_slice(manifest).map_err(|e| format!("malformed manifest: {e}"))?;
    if manifest.layers().len() > limits.layers {
        return Err(format!("{} layers; the limit `layers` is {}", manifest.layers().len(), limits.layers));
    }
    let layers: Vec<Blob> = manifest.layers().iter().map(Blob::new).collect::<Result<_, _>>()?;
    for layer in &layers {
        let known = [
            "application/vnd.oci.image.layer.",
            "application/vnd.docker.image.rootfs.diff.tar",
            "application/vnd.docker.image.rootfs.foreign.diff.tar",
        ];
        if !known.iter().any(|known| layer.media_type.starts_with(known)) || layer.media_type.ends_with("+encrypted") {
            return Err(format!("a layer of the type `{}`, which is no tar", layer.media_type.escape_debug()));
        }
    }
    Ok((Blob::new(manifest.config())?, layers))
}

/// A configuration for linux/amd64 and its layers' diff ids, the bottom one first.
pub(super) fn parse_config(bytes: &[u8], limits: &Limits) -> Result<(ImageConfiguration, Vec<Digest>), String> {
    let config: ImageConfiguration =
        serde_json::from_slice(bytes).map_err(|e| format!("malformed configuration: {e}"))?;
    if *config.os() != Os::Linux || *config.architecture() != Arch::Amd64 {
        return Err(format!("it is for {}, not for linux/amd64", display(config.os(), config.architecture(), None)));
    }
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() > limits.layers {
        return Err(format!("{} layers; the limit `layers` is {}", diff_ids.len(), limits.layers));
    }
    let diff_ids = diff_ids.iter().map(|id| Digest::from_str(id)).collect::<Result<_, _>>()?;
    Ok((config, diff_ids))
}

/// All parsers on the same bytes, for fuzzing.
pub(crate) fn parse_anything(bytes: &[u8]) {
    let limits = Limits::default();
    let _ = select(bytes, Some("latest"));
    let _ = select(bytes, None);
    let _ = select_platform(bytes);
    let _ = parse_manifest(bytes, &limits);
    let _ = parse_config(bytes, &limits);
    let _ = super::docker::parse(bytes, Some("latest"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_several_names_is_one() {
        let entry = |tag: &str, of: &str| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1,
                "digest": format!("sha256:{}", Digest::of(of.as_bytes()).hex()), "annotations": { REF_NAME: tag },
            })
        };
        let index = |manifests: &[serde_json::Value]| {
            serde_json::json!({ "schemaVersion": 2, "manifests": manifests }).to_string().into_bytes()
        };
        let same = index(&[entry("7", "redis"), entry("latest", "redis")]);
        assert_eq!(select(&same, None).map(|blob| blob.digest), Ok(Digest::of(b"redis")));
        let different = index(&[entry("7", "redis"), entry("latest", "newer")]);
        assert!(select(&different, None).unwrap_err().contains("several images"), "control");
    }

    #[test]
    fn a_platform_adds_no_lines_to_a_message() {
        let platform = serde_json::json!({ "os": "a\nb", "architecture": "\u{1b}[31m" });
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1,
            "digest": format!("sha256:{}", Digest::of(b"").hex()), "platform": platform,
        }] });
        let mut config = platform;
        config["rootfs"] = serde_json::json!({ "type": "layers", "diff_ids": [] });
        let of_index = select_platform(index.to_string().as_bytes()).unwrap_err();
        let of_config = parse_config(config.to_string().as_bytes(), &Limits::default()).unwrap_err();
        for text in [of_index, of_config] {
            assert!(text.contains(r"for a\nb/\u{1b}[31m"), "{text}");
        }
    }

    /// As `docker save nginx redis redis:7` writes it.
    #[test]
    fn an_image_is_found_by_the_name_that_docker_saved_it_under() {
        let images = [("nginx", "latest"), ("redis", "latest"), ("redis", "7")];
        let manifests: Vec<_> = images
            .iter()
            .map(|(name, tag)| {
                let name = format!("docker.io/library/{name}:{tag}");
                serde_json::json!({
                    "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1,
                    "digest": format!("sha256:{}", Digest::of(name.as_bytes()).hex()),
                    "annotations": { IMAGE_NAME: name, REF_NAME: tag },
                })
            })
            .collect();
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": manifests }).to_string();
        let select = |name| select(index.as_bytes(), name).map(|blob| blob.digest);
        for (wanted, full) in [
            ("redis", "docker.io/library/redis:latest"),
            ("redis:latest", "docker.io/library/redis:latest"),
            ("redis:7", "docker.io/library/redis:7"),
            ("docker.io/library/nginx:latest", "docker.io/library/nginx:latest"),
            ("7", "docker.io/library/redis:7"),
        ] {
            assert_eq!(select(Some(wanted)), Ok(Digest::of(full.as_bytes())), "{wanted}");
        }
        for wanted in [None, Some("latest"), Some("nginx:7")] {
            let text = select(wanted).unwrap_err();
            let all = "docker.io/library/nginx:latest, docker.io/library/redis:latest, docker.io/library/redis:7";
            assert!(text.contains(all), "{text}");
        }
    }
}
