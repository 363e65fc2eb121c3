//! A directory with a declaration in it, and the program to run there.
// Each test file compiles this for itself and uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// The program under test.
pub const GARBOARD: &str = env!("CARGO_BIN_EXE_garboard");

/// Runs it.
pub fn garboard(arguments: &[&str]) -> Output {
    Command::new(GARBOARD).args(arguments).output().unwrap()
}

/// What a program printed.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A directory to work in.
pub struct Project {
    directory: TempDir,
}

impl Project {
    /// Nothing in it.
    pub fn empty() -> Self {
        Self { directory: tempfile::Builder::new().prefix("garboard-cli-").tempdir().unwrap() }
    }

    /// With this declaration.
    pub fn with(declaration: &str) -> Self {
        let project = Self::empty();
        fs::write(project.path("appliance.toml"), declaration).unwrap();
        project
    }

    /// With the demo appliance.
    pub fn demo() -> Self {
        let project = Self::empty();
        let output = project.garboard(&["new", "--demo"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        project
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs the program there.
    pub fn garboard(&self, arguments: &[&str]) -> Output {
        Command::new(GARBOARD).args(arguments).current_dir(self.directory.path()).output().unwrap()
    }

    /// Runs the program, which must fail with exit status 1 and a short message that holds all of `words`.
    pub fn refused(&self, arguments: &[&str], words: &[&str]) {
        let output = self.garboard(arguments);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
        assert!(!message.contains("panicked"), "{message}");
        assert_eq!(message.lines().count(), 1, "not one sentence: {message}");
        for word in words {
            assert!(message.contains(word), "'{word}' is not in: {message}");
        }
    }

    /// Runs the program, which must fail with exit status 1 and draw the places of the declaration that are wrong, with all of `words`.
    pub fn told(&self, arguments: &[&str], words: &[&str]) {
        let output = self.garboard(arguments);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
        assert!(!message.contains("panicked") && message.contains("--> appliance.toml:"), "{message}");
        for word in words {
            assert!(message.contains(word), "'{word}' is not in: {message}");
        }
    }

    /// Changes the configuration of the demo's image, and what names it by digest.
    pub fn configure_image(&self, edit: impl FnOnce(&mut Value)) {
        let layout = self.path("images/demo");
        let path = |descriptor: &Value| {
            layout.join("blobs").join(descriptor["digest"].as_str().unwrap().replacen(':', "/", 1))
        };
        let read = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
        let put = |value: &Value, descriptor: &mut Value| {
            let bytes = value.to_string();
            let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            descriptor["digest"] = format!("sha256:{digest}").into();
            descriptor["size"] = bytes.len().into();
            fs::write(path(descriptor), bytes).unwrap();
        };
        let mut index = read(&layout.join("index.json"));
        let mut manifest = read(&path(&index["manifests"][0]));
        let mut config = read(&path(&manifest["config"]));
        edit(&mut config);
        put(&config, &mut manifest["config"]);
        put(&manifest, &mut index["manifests"][0]);
        fs::write(layout.join("index.json"), index.to_string()).unwrap();
    }

    /// Replaces text of the declaration, which must be there.
    pub fn replace(&self, from: &str, to: &str) {
        let file = self.path("appliance.toml");
        let declaration = fs::read_to_string(&file).unwrap();
        assert!(declaration.contains(from), "no {from} in {declaration}");
        fs::write(file, declaration.replace(from, to)).unwrap();
    }

    /// Adds lines to the declaration.
    pub fn append(&self, lines: &str) {
        let mut file = fs::File::options().append(true).open(self.path("appliance.toml")).unwrap();
        file.write_all(lines.as_bytes()).unwrap();
    }

    /// All files below a directory, by their path, with their contents.
    pub fn files(&self, directory: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        collect(&self.path(directory), Path::new(""), &mut files);
        files
    }
}

fn collect(directory: &Path, below: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let name = below.join(entry.file_name());
        if entry.path().is_dir() {
            collect(&entry.path(), &name, files);
        } else {
            files.insert(name, fs::read(entry.path()).unwrap());
        }
    }
}
