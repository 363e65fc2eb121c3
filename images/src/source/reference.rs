//! What a declaration's image reference says: kind of source, path, name in it.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Kinds of source, as skopeo names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// A directory in the OCI image layout.
    Oci,
    /// Such a directory in a tar.
    OciArchive,
    /// What `docker save` writes.
    DockerArchive,
    /// A file; its content tells.
    Unknown,
}

/// A reference taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) transport: Transport,
    pub(super) path: PathBuf,
    pub(super) name: Option<String>,
}

/// Takes `reference` apart. Paths may hold colons, so the longest one that exists is the path.
pub(super) fn locate(reference: &str, base_dir: &Path) -> Result<Location> {
    let prefixes = [
        ("oci:", Transport::Oci),
        ("oci-archive:", Transport::OciArchive),
        ("docker-archive:", Transport::DockerArchive),
    ];
    let prefixed = prefixes.iter().find_map(|&(prefix, kind)| Some((kind, reference.strip_prefix(prefix)?)));
    let (declared, rest) = prefixed.unwrap_or((Transport::Unknown, reference));
    let error = |detail: String| Error::Reference { reference: reference.into(), detail };
    let (path, name) = split(rest, |path| base_dir.join(path).exists()).ok_or_else(|| {
        let shown = base_dir.join(rest);
        error(format!(
            "nothing is at `{}`; an image is the path of an OCI layout directory, an OCI archive or a Docker archive \
             (make one with `skopeo copy docker://… oci:DIR`)",
            shown.display()
        ))
    })?;
    let path = base_dir.join(path);
    let transport = match (declared, path.is_dir()) {
        (Transport::Unknown, true) if path.join("index.json").exists() => Transport::Oci,
        (Transport::Unknown, true) => {
            return Err(error(format!("directory `{}` is no OCI layout: it has no index.json", path.display())));
        }
        (Transport::Oci, false) => return Err(error(format!("`{}` is no directory", path.display()))),
        (Transport::OciArchive | Transport::DockerArchive, true) => {
            return Err(error(format!("`{}` is a directory, not an archive", path.display())));
        }
        (declared, _) => declared,
    };
    Ok(Location { transport, path, name: name.map(str::to_owned) })
}

/// Splits at the last colon before which there is a path that exists.
fn split(text: &str, exists: impl Fn(&str) -> bool) -> Option<(&str, Option<&str>)> {
    if text.is_empty() {
        return None;
    }
    if exists(text) {
        return Some((text, None));
    }
    let colons = text.rmatch_indices(':').map(|(at, _)| at);
    let splits = colons.map(|at| (&text[..at], &text[at + 1..]));
    splits
        .filter(|(path, name)| !path.is_empty() && !name.is_empty())
        .find(|(path, _)| exists(path))
        .map(|(path, name)| (path, Some(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_path_that_exists_wins() {
        let there = |path: &str| ["img", "a:b", "a:b:c"].contains(&path);
        assert_eq!(split("img", there), Some(("img", None)));
        assert_eq!(split("img:1.0", there), Some(("img", Some("1.0"))));
        assert_eq!(split("img:docker.io/x:1", there), Some(("img", Some("docker.io/x:1"))));
        assert_eq!(split("a:b:c", there), Some(("a:b:c", None)));
        assert_eq!(split("a:b:c:d", there), Some(("a:b:c", Some("d"))));
        assert_eq!(split("none:x", there), None);
        assert_eq!(split("img:", there), None);
        assert_eq!(split("", |_| true), None);
    }

    #[test]
    fn kinds() {
        let dir = tempfile::tempdir().unwrap();
        let layout = dir.path().join("layout");
        std::fs::create_dir(&layout).unwrap();
        std::fs::write(dir.path().join("file.tar"), "").unwrap();
        let kind = |reference: &str| locate(reference, dir.path()).map(|location| location.transport);
        assert!(kind("layout").unwrap_err().to_string().contains("no index.json"));
        std::fs::write(layout.join("index.json"), "{}").unwrap();
        assert_eq!(kind("layout:tag").unwrap(), Transport::Oci);
        assert_eq!(kind("oci:layout").unwrap(), Transport::Oci);
        assert_eq!(kind("file.tar").unwrap(), Transport::Unknown);
        assert_eq!(kind("docker-archive:file.tar:x").unwrap(), Transport::DockerArchive);
        assert!(kind("oci:file.tar").unwrap_err().to_string().contains("no directory"));
        assert!(kind("oci-archive:layout").unwrap_err().to_string().contains("is a directory"));
        assert!(kind("absent:1").unwrap_err().to_string().contains("nothing is at"));
    }
}
