//! Writes an OCI image layout with one image of one layer (OCI image specification: image-layout.md, manifest.md, config.md).

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The tag that tools look for by default.
const TAG: &str = "latest";
/// User and group of the demo's containers.
const USER: u32 = 1000;

/// Writes the layout directory `at`. Equal programs give equal layouts: nothing in it has a time.
pub fn write(program: &[u8], at: &Path) -> io::Result<()> {
    let blobs = at.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let store = |media_type: &str, bytes: &[u8]| -> io::Result<Value> {
        let digest = hex(bytes);
        fs::write(blobs.join(&digest), bytes)?;
        Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() }))
    };
    let layer = layer(program)?;
    let layer_descriptor = store("application/vnd.oci.image.layer.v1.tar", &layer)?;
    let config = config(&format!("sha256:{}", hex(&layer)));
    let config_descriptor = store("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config_descriptor,
        "layers": [layer_descriptor],
    });
    let mut manifest_descriptor = store("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes())?;
    manifest_descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": TAG });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest_descriptor],
    });
    fs::write(at.join("index.json"), index.to_string())?;
    fs::write(at.join("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }).to_string())
}

fn config(diff_id: &str) -> Value {
    json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "User": "demo",
            "Env": ["PATH=/bin"],
            "Entrypoint": ["/bin/garboard-demo"],
            "Cmd": ["web"],
            "WorkingDir": "/",
            "StopSignal": "SIGTERM",
        },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created_by": "garboard new --demo" }],
    })
}

/// The layer: the program, and a user to run it. `/state` is what the volume of that name covers.
fn layer(program: &[u8]) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    directory(&mut tar, "bin/", 0)?;
    file(&mut tar, "bin/garboard-demo", 0o755, program)?;
    directory(&mut tar, "etc/", 0)?;
    file(&mut tar, "etc/group", 0o644, format!("root:x:0:\ndemo:x:{USER}:\n").as_bytes())?;
    let users = format!("root:x:0:0:root:/:/bin/false\ndemo:x:{USER}:{USER}:demo:/:/bin/false\n");
    file(&mut tar, "etc/passwd", 0o644, users.as_bytes())?;
    directory(&mut tar, "state/", USER)?;
    tar.into_inner()
}

fn directory(tar: &mut tar::Builder<Vec<u8>>, path: &str, owner: u32) -> io::Result<()> {
    entry(tar, path, tar::EntryType::Directory, 0o755, owner, &[])
}

fn file(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
    entry(tar, path, tar::EntryType::Regular, mode, 0, contents)
}

fn entry(
    tar: &mut tar::Builder<Vec<u8>>,
    path: &str,
    kind: tar::EntryType,
    mode: u32,
    owner: u32,
    contents: &[u8],
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner.into());
    header.set_gid(owner.into());
    header.set_mtime(0);
    header.set_size(contents.len() as u64);
    tar.append_data(&mut header, path, contents)
}

fn hex(bytes: &[u8]) -> String {
    crate::verity::hex(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn files(at: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for directory in [at.to_owned(), at.join("blobs/sha256")] {
            for entry in fs::read_dir(directory).unwrap().map(Result::unwrap).filter(|e| e.path().is_file()) {
                files.insert(entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
            }
        }
        files
    }

    #[test]
    fn blobs_are_named_by_their_digest_and_linked() {
        let dir = tempfile::tempdir().unwrap();
        write(b"PROGRAM", dir.path()).unwrap();
        let files = files(dir.path());
        for (name, bytes) in files.iter().filter(|(name, _)| name.len() == 64) {
            assert_eq!(*name, hex(bytes));
        }
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let bytes = &files[digest];
            assert_eq!(descriptor["size"], bytes.len());
            bytes
        };
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        let index = json(&files["index.json"]);
        let manifest = json(blob(&index["manifests"][0]));
        let config = json(blob(&manifest["config"]));
        let layer = blob(&manifest["layers"][0]);
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        let mut tar = tar::Archive::new(layer.as_slice());
        let names: Vec<String> =
            tar.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names, ["bin/", "bin/garboard-demo", "etc/", "etc/group", "etc/passwd", "state/"]);
    }

    #[test]
    fn the_same_program_gives_the_same_layout() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(b"PROGRAM", one.path()).unwrap();
        write(b"PROGRAM", two.path()).unwrap();
        assert_eq!(files(one.path()), files(two.path()));
    }
}
