//! The output directory: a build that fails leaves what was there before.
//!
//! Files are written to a scratch directory inside it and moved into place when all are done. `image.json` goes first and
//! comes back last, so whoever finds it finds files that belong together.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// The file that says that the others are complete.
pub const MANIFEST: &str = "image.json";
/// Every file that a build may make, the manifest last.
const FILES: [&str; 6] = ["vmlinuz", "initrd", "system.erofs", "data.ext4", "disk.raw", MANIFEST];

/// An output directory being filled.
#[derive(Debug)]
pub struct Output {
    directory: PathBuf,
    scratch: TempDir,
}

impl Output {
    /// Makes the directory if it doesn't exist, and a scratch directory in it.
    pub fn begin(directory: &Path) -> Result<Self> {
        let begin = || {
            fs::create_dir_all(directory)?;
            tempfile::Builder::new().prefix(".garboard-").tempdir_in(directory)
        };
        let scratch = begin().with_context(|| format!("write to {}", directory.display()))?;
        Ok(Self { directory: directory.to_owned(), scratch })
    }

    /// Where to write a file of this name for now.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// For files that are no part of the output.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Moves the files into place; those of an earlier build which this one didn't make are removed.
    pub fn commit(self) -> Result<()> {
        let commit = || -> io::Result<()> {
            remove(&self.directory.join(MANIFEST))?;
            for name in FILES {
                let (from, to) = (self.path(name), self.directory.join(name));
                if from.exists() {
                    fs::rename(from, to)?;
                } else {
                    remove(&to)?;
                }
            }
            Ok(())
        };
        commit().with_context(|| format!("move the built files into {}", self.directory.display()))
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn commit_replaces_an_earlier_build_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["vmlinuz", "disk.raw", MANIFEST, "notes.txt"] {
            fs::write(dir.path().join(name), "old").unwrap();
        }
        let output = Output::begin(dir.path()).unwrap();
        fs::write(output.path("vmlinuz"), "new").unwrap();
        fs::write(output.path(MANIFEST), "new").unwrap();
        output.commit().unwrap();
        assert_eq!(names(dir.path()), [MANIFEST, "notes.txt", "vmlinuz"]);
        assert_eq!(fs::read_to_string(dir.path().join("vmlinuz")).unwrap(), "new");
        assert_eq!(fs::read_to_string(dir.path().join("notes.txt")).unwrap(), "old");
    }

    #[test]
    fn a_build_that_fails_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MANIFEST), "old").unwrap();
        let output = Output::begin(dir.path()).unwrap();
        fs::write(output.path("vmlinuz"), "new").unwrap();
        drop(output);
        assert_eq!(names(dir.path()), [MANIFEST]);
        assert_eq!(fs::read_to_string(dir.path().join(MANIFEST)).unwrap(), "old");
    }
}
