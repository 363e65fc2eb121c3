//! Images made by hand, byte by byte, so that hostile ones are possible too.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use garboard_images::erofs::{Algorithm, FileKind, Inode, Reader};
use garboard_images::store::{Store, Summary};
use garboard_images::{Digest, Error, Limits, source};
use serde_json::json;
use tempfile::TempDir;

/// One tar member; every field as it should stand in the header.
#[derive(Clone)]
pub struct Entry {
    pub name: Vec<u8>,
    pub kind: u8,
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
    pub device: (u32, u32),
    pub data: Vec<u8>,
    /// Written in place of the data's length.
    pub declared: Option<u64>,
    /// PAX records in front of it.
    pub records: Vec<(Vec<u8>, Vec<u8>)>,
}

pub fn entry(kind: u8, name: impl AsRef<[u8]>) -> Entry {
    Entry {
        name: name.as_ref().to_vec(),
        kind,
        link: Vec::new(),
        mode: if kind == b'5' { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        mtime: 1_700_000_000,
        device: (0, 0),
        data: Vec::new(),
        declared: None,
        records: Vec::new(),
    }
}

pub fn file(name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Entry {
    Entry { data: data.as_ref().to_vec(), ..entry(b'0', name) }
}

pub fn dir(name: impl AsRef<[u8]>) -> Entry {
    entry(b'5', name)
}

pub fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
    Entry { link: target.as_ref().to_vec(), ..entry(b'2', name) }
}

pub fn hardlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
    Entry { link: target.as_ref().to_vec(), ..entry(b'1', name) }
}

impl Entry {
    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    pub fn owner(self, uid: u64, gid: u64) -> Self {
        Self { uid, gid, ..self }
    }

    pub fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.records.push((format!("SCHILY.xattr.{name}").into_bytes(), value.to_vec()));
        self
    }

    /// The member's bytes. Names and targets too long for the header go into PAX records.
    pub fn bytes(&self) -> Vec<u8> {
        let mut records = self.records.clone();
        let mut header = tar::Header::new_ustar();
        let put = |field: &mut [u8], text: &[u8]| {
            let fits = text.len() <= field.len();
            let shown = &text[..text.len().min(field.len())];
            field[..shown.len()].copy_from_slice(shown);
            fits
        };
        if !put(&mut header.as_old_mut().name, &self.name) {
            records.push((b"path".to_vec(), self.name.clone()));
        }
        if !put(&mut header.as_old_mut().linkname, &self.link) {
            records.push((b"linkpath".to_vec(), self.link.clone()));
        }
        header.set_entry_type(tar::EntryType::new(self.kind));
        header.set_mode(self.mode);
        header.set_uid(self.uid);
        header.set_gid(self.gid);
        header.set_mtime(self.mtime);
        header.set_size(self.declared.unwrap_or(self.data.len() as u64));
        header.set_device_major(self.device.0).unwrap();
        header.set_device_minor(self.device.1).unwrap();
        header.set_cksum();
        let mut bytes = Vec::new();
        if !records.is_empty() {
            let body: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
            bytes.extend(Entry { data: body, ..entry(b'x', "pax") }.bytes());
        }
        bytes.extend(header.as_bytes());
        bytes.extend(&self.data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

/// A PAX record, its length counting itself.
pub fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = [b" ", key, b"=", value, b"\n"].concat();
    let mut digits = 1;
    while (body.len() + digits).to_string().len() != digits {
        digits += 1;
    }
    [(body.len() + digits).to_string().as_bytes(), &body].concat()
}

/// A whole archive.
pub fn tarball(entries: &[Entry]) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries.iter().flat_map(Entry::bytes).collect();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// A layer as it goes into a layout; the fields can be made to lie.
#[derive(Clone)]
pub struct LayerBlob {
    pub blob: Vec<u8>,
    pub diff_id: Digest,
    pub digest: Digest,
    pub size: u64,
    pub media_type: &'static str,
}

pub fn plain(tar: &[u8]) -> LayerBlob {
    layer(tar, tar.to_vec(), "application/vnd.oci.image.layer.v1.tar")
}

pub fn gzipped(tar: &[u8]) -> LayerBlob {
    layer(tar, gzip(tar), "application/vnd.oci.image.layer.v1.tar+gzip")
}

pub fn zstded(tar: &[u8]) -> LayerBlob {
    layer(tar, zstd(tar), "application/vnd.oci.image.layer.v1.tar+zstd")
}

/// A layer whose blob is `blob` and whose tar stream is meant to be `tar`.
pub fn layer(tar: &[u8], blob: Vec<u8>, media_type: &'static str) -> LayerBlob {
    let (digest, size) = (Digest::of(&blob), blob.len() as u64);
    LayerBlob { diff_id: Digest::of(tar), digest, size, blob, media_type }
}

/// Writes a blob of a layout.
pub fn put_blob(layout: &Path, bytes: &[u8]) -> serde_json::Value {
    let digest = Digest::of(bytes);
    std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    std::fs::write(layout.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
    json!({ "digest": digest.to_string(), "size": bytes.len() })
}

/// Writes an OCI layout with one image, tagged `latest`.
pub fn write_layout(layout: &Path, layers: &[LayerBlob]) {
    std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let descriptors: Vec<_> = layers
        .iter()
        .map(|layer| {
            std::fs::write(layout.join("blobs/sha256").join(layer.digest.hex()), &layer.blob).unwrap();
            json!({ "mediaType": layer.media_type, "digest": layer.digest.to_string(), "size": layer.size })
        })
        .collect();
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let config = json!({ "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/bin/x"] },
                         "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let mut config = put_blob(layout, config.to_string().as_bytes());
    config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
    let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                           "config": config, "layers": descriptors });
    let mut manifest = put_blob(layout, manifest.to_string().as_bytes());
    manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json".into();
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// A layer store's image in a directory that is removed again.
pub struct Baked {
    pub dir: TempDir,
    pub path: PathBuf,
    pub summary: Summary,
    /// As overlayfs would stack them, the topmost first.
    pub lowers: Vec<String>,
}

impl Baked {
    pub fn reader(&self) -> Reader<File> {
        Reader::new(File::open(&self.path).unwrap()).unwrap()
    }

    /// Everything under `path`, by path relative to it.
    pub fn tree(&self, path: &str) -> BTreeMap<Vec<u8>, Seen> {
        let mut reader = self.reader();
        let top = reader.lookup(path.as_bytes()).unwrap().unwrap_or_else(|| panic!("no {path}"));
        tree(&mut reader, &top)
    }

    /// The topmost layer's tree.
    pub fn top(&self) -> BTreeMap<Vec<u8>, Seen> {
        self.tree(&self.lowers[0])
    }
}

/// Bakes the layers of one image with `limits`.
pub fn bake_with(layers: &[LayerBlob], limits: &Limits) -> Result<Baked, Error> {
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    write_layout(&layout, layers);
    bake_reference(dir, "layout", limits, None)
}

/// Bakes the layers of one image, their files compressed.
pub fn bake_compressed(layers: &[LayerBlob], compression: Option<Algorithm>) -> Baked {
    let dir = tempfile::tempdir().unwrap();
    write_layout(&dir.path().join("layout"), layers);
    bake_reference(dir, "layout", &Limits::default(), compression).unwrap()
}

/// Bakes the image that `reference` names in `dir`.
pub fn bake_reference(
    dir: TempDir,
    reference: &str,
    limits: &Limits,
    compression: Option<Algorithm>,
) -> Result<Baked, Error> {
    let image = source::open_with(reference, dir.path(), limits)?;
    let mut store = Store::with_limits(dir.path(), *limits)?;
    store.compress(compression);
    for n in 0..image.layers.len() {
        store.add_layer(&image, n, &mut |_| {})?;
    }
    let lowers = store.lowers(&image)?;
    let path = dir.path().join("system.erofs");
    let mut out = File::create_new(&path).unwrap();
    let summary = store.finish(&mut out)?;
    assert_eq!(out.metadata().unwrap().len(), summary.blocks * 4096);
    assert_eq!(out.stream_position().unwrap(), summary.blocks * 4096);
    Ok(Baked { dir, path, summary, lowers })
}

pub fn bake(layers: &[LayerBlob]) -> Result<Baked, Error> {
    bake_with(layers, &Limits::default())
}

/// Bakes one layer made of `entries`.
pub fn bake_entries(entries: &[Entry]) -> Result<Baked, Error> {
    bake(&[gzipped(&tarball(entries))])
}

/// What the reader found of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub kind: FileKind,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    pub links: u32,
    pub nid: u64,
    /// Content or target.
    pub data: Vec<u8>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

pub fn tree<R: Read + Seek>(reader: &mut Reader<R>, top: &Inode) -> BTreeMap<Vec<u8>, Seen> {
    let mut found = BTreeMap::new();
    let mut pending = vec![(Vec::new(), *top)];
    while let Some((path, inode)) = pending.pop() {
        let data = match inode.kind {
            FileKind::File => reader.read(&inode, 1 << 30).unwrap(),
            FileKind::Symlink => reader.read_link(&inode).unwrap(),
            _ => Vec::new(),
        };
        if inode.kind == FileKind::Directory {
            for entry in reader.list(&inode).unwrap() {
                let child = if path.is_empty() { entry.name } else { [&path[..], b"/", &entry.name].concat() };
                pending.push((child, reader.inode(entry.nid).unwrap()));
            }
        }
        let xattrs = reader.xattrs(&inode).unwrap();
        let Inode { kind, mode, uid, gid, mtime, links, nid, .. } = inode;
        found.insert(path, Seen { kind, mode, uid, gid, mtime, links, nid, data, xattrs });
    }
    found
}

/// A program that has to be there: a missing one fails the test.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("run {program}: {e} (install erofs-utils and skopeo)"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{text}", output.status);
    text
}

/// The reference filesystem checker's word on an image. Its release 1.5 ends with status 0 whatever it finds.
pub fn fsck_accepts(image: &Path) -> bool {
    let text = run("fsck.erofs", &["-d3", image.to_str().unwrap()]);
    text.contains("No errors found") && !text.contains("<E>")
}

pub fn fsck(image: &Path) {
    assert!(fsck_accepts(image), "{}", run("fsck.erofs", &["-d3", image.to_str().unwrap()]));
}

/// Nothing compressed, and every way of it.
pub const COMPRESSIONS: [Option<Algorithm>; 3] = [None, Some(Algorithm::Lz4), Some(Algorithm::Zstd)];
