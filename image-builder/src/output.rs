//! The output directory: a build that fails leaves what was there before.
//!
//! Files are written to a scratch directory inside it and moved into place when all are done. `image.json` goes first and
//! comes back last, so whoever finds it finds files that belong together.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::scratch::{self, Scratch};

/// The file that says that the others are complete.
pub const MANIFEST: &str = "image.json";
/// Every file that a build may make, the manifest last.
const FILES: [&str; 6] = ["vmlinuz", "initrd", "system.erofs", "data.ext4", "disk.raw", MANIFEST];

/// How the names of scratch directories begin.
const SCRATCH: &str = ".garboard-";

/// An output directory being filled.
#[derive(Debug)]
pub struct Output {
    directory: PathBuf,
    scratch: Scratch,
}

impl Output {
    /// Makes the directory if it doesn't exist, and a scratch directory in it. What an interrupted build left is removed. Refuses a
    /// directory with files of these names that no build has made: they are somebody's.
    pub fn begin(directory: &Path) -> Result<Self> {
        let writing = || format!("write to {}", directory.display());
        fs::create_dir_all(directory).with_context(writing)?;
        // A build that ends meanwhile has no manifest there for a moment.
        let _turn = scratch::turn(directory)?;
        // A build that was interrupted on its last steps had removed the manifest already.
        if scratch::abandoned(directory, SCRATCH).with_context(writing)?.is_empty() {
            refuse_strangers(directory)?;
        }
        let scratch = Scratch::make(directory, SCRATCH)?;
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
        let turn = scratch::turn(&self.directory)?;
        let commit = || -> Result<()> {
            // Before anything of the last build is gone.
            for path in FILES.iter().map(|name| self.directory.join(name)) {
                if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
                    bail!("{} is a directory, where a file of the build is to be; move it away", path.display());
                }
            }
            let manifest = self.directory.join(MANIFEST);
            remove(&manifest).with_context(|| format!("remove {}", manifest.display()))?;
            for name in FILES {
                let (from, to) = (self.path(name), self.directory.join(name));
                let moved = if from.exists() { fs::rename(from, &to) } else { remove(&to) };
                moved.with_context(|| format!("replace {}", to.display()))?;
            }
            Ok(())
        };
        let result = commit().with_context(|| format!("move the built files into {}", self.directory.display()));
        drop(self);
        drop(turn);
        result
    }
}

/// Files of a build are known by the manifest beside them.
fn refuse_strangers(directory: &Path) -> Result<()> {
    let manifest = fs::read(directory.join(MANIFEST)).unwrap_or_default();
    let ours = serde_json::from_slice::<serde_json::Value>(&manifest).is_ok_and(|json| json.get("root_hash").is_some());
    match FILES.iter().map(|name| directory.join(name)).find(|path| !ours && path.symlink_metadata().is_ok()) {
        Some(path) => bail!(
            "{} is in the way: no {MANIFEST} beside it says that a build made it; remove it, or choose another directory with -o",
            path.display()
        ),
        None => Ok(()),
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

    const OURS: &str = "{\"root_hash\": \"00\"}";

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn commit_replaces_an_earlier_build_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["vmlinuz", "disk.raw", "notes.txt"] {
            fs::write(dir.path().join(name), "old").unwrap();
        }
        fs::write(dir.path().join(MANIFEST), OURS).unwrap();
        let output = Output::begin(dir.path()).unwrap();
        fs::write(output.path("vmlinuz"), "new").unwrap();
        fs::write(output.path(MANIFEST), "new").unwrap();
        output.commit().unwrap();
        assert_eq!(names(dir.path()), [MANIFEST, "notes.txt", "vmlinuz"]);
        assert_eq!(fs::read_to_string(dir.path().join("vmlinuz")).unwrap(), "new");
        assert_eq!(fs::read_to_string(dir.path().join("notes.txt")).unwrap(), "old");
    }

    #[test]
    fn what_can_not_be_replaced_is_found_before_the_last_build_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MANIFEST), OURS).unwrap();
        fs::write(dir.path().join("vmlinuz"), "old").unwrap();
        let output = Output::begin(dir.path()).unwrap();
        fs::write(output.path("vmlinuz"), "new").unwrap();
        fs::create_dir(dir.path().join("disk.raw")).unwrap();
        let error = format!("{:#}", output.commit().unwrap_err());
        assert!(error.contains("disk.raw is a directory"), "{error}");
        assert_eq!(names(dir.path()), ["disk.raw", MANIFEST, "vmlinuz"]);
        assert_eq!(fs::read_to_string(dir.path().join("vmlinuz")).unwrap(), "old");
    }

    #[test]
    fn a_build_that_fails_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MANIFEST), OURS).unwrap();
        let output = Output::begin(dir.path()).unwrap();
        fs::write(output.path("vmlinuz"), "new").unwrap();
        drop(output);
        assert_eq!(names(dir.path()), [MANIFEST]);
        assert_eq!(fs::read_to_string(dir.path().join(MANIFEST)).unwrap(), OURS);
    }

    #[test]
    fn files_that_no_build_made_are_refused() {
        for manifest in [None, Some("{}"), Some("mine")] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("disk.raw"), "mine").unwrap();
            if let Some(text) = manifest {
                fs::write(dir.path().join(MANIFEST), text).unwrap();
            }
            let error = Output::begin(dir.path()).unwrap_err().to_string();
            assert!(error.contains("disk.raw is in the way"), "{error}");
            assert_eq!(fs::read_to_string(dir.path().join("disk.raw")).unwrap(), "mine");
        }
    }

    #[test]
    fn a_build_that_ends_waits_for_one_that_begins_or_ends() {
        let dir = tempfile::tempdir().unwrap();
        let output = Output::begin(dir.path()).unwrap();
        fs::write(output.path(MANIFEST), OURS).unwrap();
        let turn = scratch::turn(dir.path()).unwrap();
        let commit = std::thread::spawn(|| output.commit());
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!commit.is_finished() && !dir.path().join(MANIFEST).exists());
        drop(turn);
        commit.join().unwrap().unwrap();
        assert_eq!(names(dir.path()), [MANIFEST]);
    }

    #[test]
    fn what_an_interrupted_build_left_is_removed_and_a_running_one_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".garboard-dead")).unwrap();
        fs::write(dir.path().join(".garboard-dead/vmlinuz"), "half").unwrap();
        // It had got to the last steps, too.
        fs::write(dir.path().join("vmlinuz"), "new").unwrap();
        let running = Output::begin(dir.path()).unwrap();
        fs::write(dir.path().join(MANIFEST), OURS).unwrap();
        drop(Output::begin(dir.path()).unwrap());
        assert_eq!(names(dir.path()), [running.scratch().file_name().unwrap().to_str().unwrap(), MANIFEST, "vmlinuz"]);
    }
}
