//! Scratch directories beside what is made in them: one that a program was killed over is removed by the next.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// A turn takes milliseconds. Who has the directory for longer isn't at his, but holds it for a reason of his own, such as `flock DIR
/// garboard build`.
const PATIENCE: Duration = Duration::from_secs(3);

/// A directory of one's own, removed when it is dropped.
#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
    /// Says that it is in use.
    _lock: File,
}

impl Scratch {
    /// Makes one in `parent`, whose [`turn`] it must be, and removes what is abandoned there.
    pub fn make(parent: &Path, prefix: &str) -> Result<Self> {
        let writing = || format!("write to {}", parent.display());
        for path in abandoned(parent, prefix).with_context(writing)? {
            there(fs::remove_dir_all(&path)).with_context(|| format!("remove {}", path.display()))?;
        }
        let directory = tempfile::Builder::new().prefix(prefix).tempdir_in(parent).with_context(writing)?;
        let lock = locked(directory.path()).with_context(writing)?;
        Ok(Self { directory, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Waits for one's turn in `parent`, which lasts until this is dropped: between making a scratch directory and locking it, others would
/// take it for an abandoned one.
pub fn turn(parent: &Path) -> Result<File> {
    let wait = || -> io::Result<File> {
        let (file, begun) = (File::open(parent)?, Instant::now());
        loop {
            match file.try_lock() {
                Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(TryLockError::Error(e)) => return Err(e),
                _ => return Ok(file),
            }
        }
    };
    wait().with_context(|| format!("lock {}", parent.display()))
}

/// Scratch directories of programs that have ended without removing them. Those in use are locked.
pub fn abandoned(parent: &Path, prefix: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let named = entry.file_name().to_string_lossy().starts_with(prefix);
        if named
            && there(entry.file_type())?.is_some_and(|kind| kind.is_dir())
            && there(File::open(entry.path()))?.is_some_and(|file| file.try_lock().is_ok())
        {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// One that is removed meanwhile, by whom it belongs to, is none any more.
fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

fn locked(directory: &Path) -> io::Result<File> {
    File::open(directory).and_then(|file| file.lock().map(|()| file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_abandoned_is_removed_and_what_is_in_use_is_not() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir_all(parent.path().join(".x-dead/within")).unwrap();
        fs::create_dir(parent.path().join("other")).unwrap();
        let first = Scratch::make(parent.path(), ".x-").unwrap();
        let second = Scratch::make(parent.path(), ".x-").unwrap();
        assert!(first.path().is_dir() && second.path().is_dir() && parent.path().join("other").is_dir());
        assert!(!parent.path().join(".x-dead").exists());
    }

    #[test]
    fn turns_are_taken_one_after_another() {
        let parent = tempfile::tempdir().unwrap();
        let mine = turn(parent.path()).unwrap();
        assert!(File::open(parent.path()).unwrap().try_lock().is_err());
        drop(mine);
        turn(parent.path()).unwrap();
    }

    #[test]
    fn who_holds_the_directory_for_another_reason_is_not_waited_for() {
        let parent = tempfile::tempdir().unwrap();
        let _theirs = locked(parent.path()).unwrap();
        turn(parent.path()).unwrap();
        Scratch::make(parent.path(), ".x-").unwrap();
    }
}
