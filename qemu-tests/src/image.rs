//! Reads what `garboard build` left in its output directory.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};

/// A built appliance: paths are absolute or relative to the current directory, and exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The appliance's name.
    pub appliance: String,
    /// Root hash of the system image, 64 hexadecimal digits; empty for [`Image::bare`].
    pub root_hash: String,
    /// Kernel command line, without what depends on the machine.
    pub cmdline: String,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initrd.
    pub initrd: PathBuf,
    /// The system image, attached read-only.
    pub system: Option<PathBuf>,
    /// The data filesystem, if the appliance declares volumes. Never written to, only copied.
    pub data: Option<PathBuf>,
    /// The disk image for UEFI machines, if it was built. Never written to, only copied.
    pub disk: Option<PathBuf>,
    /// Memory that the appliance wants, in MiB.
    pub memory_mb: u32,
    /// Ports that the appliance declares.
    pub ports: Vec<Port>,
    /// Names of its containers.
    pub containers: Vec<String>,
}

/// A declared port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Port {
    /// Number.
    pub port: u16,
    /// `tcp` or `udp`.
    #[serde(default = "tcp")]
    pub protocol: String,
}

fn tcp() -> String {
    "tcp".into()
}

/// `image.json`, version 1.
#[derive(Debug, Deserialize)]
struct Manifest {
    v: u32,
    appliance: String,
    root_hash: String,
    cmdline: String,
    kernel: PathBuf,
    initrd: PathBuf,
    system: PathBuf,
    data: Option<PathBuf>,
    disk: Option<PathBuf>,
    memory_mb: u32,
    #[serde(default)]
    ports: Vec<Port>,
    #[serde(default)]
    containers: Vec<String>,
}

impl Image {
    /// The image in a `garboard build` output directory.
    ///
    /// # Errors
    /// If `image.json` is absent or of another version, or a file that it names is absent.
    pub fn load(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        let path = directory.join("image.json");
        let text = fs::read(&path).map_err(|cause| match cause.kind() {
            std::io::ErrorKind::NotFound => Error::Unsuitable(format!(
                "{} has no image.json: build the appliance first (garboard build -o {})",
                directory.display(),
                directory.display()
            )),
            _ => Error::File { operation: "read", path: path.clone(), cause },
        })?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|cause| Error::Manifest { path: path.clone(), cause })?;
        if manifest.v != 1 {
            return Err(Error::Unsuitable(format!("{}: version {}, this reads version 1", path.display(), manifest.v)));
        }
        let image = Self {
            appliance: manifest.appliance,
            root_hash: manifest.root_hash,
            cmdline: manifest.cmdline,
            kernel: directory.join(manifest.kernel),
            initrd: directory.join(manifest.initrd),
            system: Some(directory.join(manifest.system)),
            data: manifest.data.map(|name| directory.join(name)),
            disk: manifest.disk.map(|name| directory.join(name)),
            memory_mb: manifest.memory_mb,
            ports: manifest.ports,
            containers: manifest.containers,
        };
        let always = [&image.kernel, &image.initrd];
        for file in always.into_iter().chain(&image.system).chain(&image.data).chain(&image.disk) {
            fs::metadata(file).map_err(Error::file("read", file))?;
        }
        Ok(image)
    }

    /// Just a kernel and an initrd, without any appliance: for comparisons and for testing the harness.
    pub fn bare(kernel: impl Into<PathBuf>, initrd: impl Into<PathBuf>, cmdline: &str) -> Self {
        Self {
            appliance: "bare".into(),
            root_hash: String::new(),
            cmdline: cmdline.to_owned(),
            kernel: kernel.into(),
            initrd: initrd.into(),
            system: None,
            data: None,
            disk: None,
            memory_mb: 256,
            ports: Vec::new(),
            containers: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(manifest: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for name in ["vmlinuz", "initrd", "system.erofs"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        fs::write(directory.path().join("image.json"), manifest).unwrap();
        directory
    }

    const MANIFEST: &str = r#"{"v":1,"appliance":"demo","root_hash":"00","cmdline":"quiet","kernel":"vmlinuz","initrd":"initrd",
        "system":"system.erofs","data":null,"disk":null,"memory_mb":512,"ports":[{"port":80,"protocol":"tcp"}],"containers":["web"]}"#;

    #[test]
    fn reads_a_manifest() {
        let directory = directory(MANIFEST);
        let image = Image::load(directory.path()).unwrap();
        assert_eq!((image.appliance.as_str(), image.memory_mb, image.ports[0].port), ("demo", 512, 80));
        assert_eq!(image.system.unwrap(), directory.path().join("system.erofs"));
    }

    #[test]
    fn says_what_is_wrong() {
        let missing = Image::load("/nonexistent/out").unwrap_err().to_string();
        assert!(missing.contains("garboard build"), "{missing}");
        let newer = Image::load(directory(&MANIFEST.replace("\"v\":1", "\"v\":2")).path()).unwrap_err().to_string();
        assert!(newer.contains("version 2"), "{newer}");
        let broken = Image::load(directory("{").path()).unwrap_err().to_string();
        assert!(broken.contains("build it again"), "{broken}");
        let gone = Image::load(directory(&MANIFEST.replace("\"vmlinuz\"", "\"gone\"")).path()).unwrap_err().to_string();
        assert!(gone.contains("gone"), "{gone}");
    }
}
