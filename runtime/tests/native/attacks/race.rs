//! R4: mount targets under a symlink race (CVE-2021-30465).
//!
//! The attacker is another container with the same volume. It exchanges a directory and a link to a place outside as fast as
//! it can, while the runtime resolves a mount target through them and mounts there.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use garboard_runtime::launch::{EndLinks, IdMapping, Mount, MountFlags, MountSource};
use libtest_mimic::Trial;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{OpenTreeFlags, UnmountFlags, open_tree};

use crate::site::{scratch, shell};

/// The very source that a child resolves mount targets and mounts with.
#[path = "../../../src/child/paths.rs"]
#[allow(dead_code, unused_imports, reason = "the file's own tests and other callers aren't here")]
mod child_paths;

use child_paths::{Kind, Links};

pub fn tests() -> Vec<Trial> {
    trials![r4_a_hundred_thousand_races_lead_nowhere, r4_whole_launches_survive_the_race]
}

const TRIES: usize = 100_000;
/// So many mounts are taken away at once: each unmount waits for the kernel's readers.
const BATCH: usize = 500;

/// The volume, the place outside that the link leads to, and the attacker at work.
struct Race {
    volume: PathBuf,
    outside: PathBuf,
    attacker: Child,
}

impl Race {
    fn begin(name: &str) -> Self {
        let (volume, outside) = (scratch(&format!("{name}-volume")), scratch(&format!("{name}-outside")));
        std::fs::create_dir_all(volume.join("dir/target")).unwrap();
        std::fs::create_dir(outside.join("target")).unwrap();
        symlink(&outside, volume.join("link")).unwrap();
        let mut swap = Command::new(std::env::current_exe().unwrap());
        let attacker = swap.args(["probe", "swap"]).arg(&volume).spawn().unwrap();
        Self { volume, outside, attacker }
    }

    /// What was made or mounted outside.
    fn escaped(&self) -> usize {
        let made =
            std::fs::read_dir(&self.outside).unwrap().filter(|entry| entry.as_ref().unwrap().file_name() != "target");
        made.count() + mounts_beneath(&self.outside).len()
    }
}

impl Drop for Race {
    fn drop(&mut self) {
        self.attacker.kill().unwrap();
        self.attacker.wait().unwrap();
        for mount in mounts_beneath(&self.volume).into_iter().chain(mounts_beneath(&self.outside)).rev() {
            let _ = rustix::mount::unmount(mount, UnmountFlags::DETACH);
        }
    }
}

/// Where anything is mounted in `directory`, in the order in which it was.
fn mounts_beneath(directory: &Path) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    places.filter(|place| place.starts_with(directory)).collect()
}

fn clone(directory: &Path) -> OwnedFd {
    open_tree(CWD, directory, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC).unwrap()
}

fn r4_a_hundred_thousand_races_lead_nowhere() {
    let race = Race::begin("r4");
    let source = scratch("r4-source");
    let (mut mounted, mut refused, mut by_link) = (0, 0, 0);
    let inner = race.volume.join(race.outside.strip_prefix("/").unwrap());
    for batch in 0..TRIES / BATCH {
        // The container's root: a mount of its own, so that everything on it goes at once.
        rustix::mount::mount_bind(&race.volume, &race.volume).unwrap();
        let root = rustix::fs::open(&race.volume, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for number in 0..BATCH {
            // A target that is there, and one that has to be made.
            let target = if number % 2 == 0 { "/dir/target".to_owned() } else { format!("/dir/made-{batch}-{number}") };
            let tree = clone(&source);
            let place = child_paths::ensure(root.as_fd(), &target, Kind::Directory, Links::Follow);
            match place.and_then(|place| child_paths::attach(tree.as_fd(), place.as_fd())) {
                Ok(()) => mounted += 1,
                Err(_) => refused += 1,
            }
        }
        by_link += mounts_beneath(&inner).len();
        assert_eq!(race.escaped(), 0, "after {mounted} mounts and {refused} refusals");
        rustix::mount::unmount(&race.volume, UnmountFlags::DETACH).unwrap();
    }
    assert_eq!(mounted + refused, TRIES);
    // The link was there often enough, and led to a place inside; the directory was, too.
    assert!(
        by_link > TRIES / 100 && mounted - by_link > TRIES / 100,
        "{mounted} mounted, {by_link} of them by the link"
    );

    // Control: what checks a path and then mounts by name is caught out.
    let naive = |_| {
        let directory = race.volume.join("dir");
        if std::fs::symlink_metadata(&directory).unwrap().is_dir() {
            // Where the processors are few and busy, nobody else would have a turn in between.
            std::thread::yield_now();
            // It may be gone again by now, which is the attacker's loss.
            let _ = rustix::mount::mount_bind(&source, directory.join("target"));
        }
        let caught = race.escaped() > 0;
        let _ = rustix::mount::unmount(directory.join("target"), UnmountFlags::DETACH);
        caught
    };
    assert!((0..TRIES).any(naive), "control: {TRIES} mounts by name never went wrong");
}

fn r4_whole_launches_survive_the_race() {
    let race = Race::begin("r4-launch");
    let source = scratch("r4-launch-source");
    std::fs::write(source.join("mounted"), "").unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (volume, source) = (path(&race.volume), path(&source));
    let bind = |target: &str, path: &str| Mount {
        target: target.to_owned(),
        source: MountSource::Bind {
            path: path.to_owned(),
            recursive: false,
            idmap: IdMapping::Container { recursive: false },
            links: EndLinks::Followed,
            create: None,
        },
        flags: MountFlags::default(),
    };
    let mounts = [bind("/shared", &volume), bind("/shared/dir/target", &source), bind("/shared/dir/new", &source)];
    let container = shell("true").change(move |l| l.mounts.extend(mounts.clone()));
    let started = (0..50).filter(|_| container.run().is_ok()).count();
    assert_eq!(race.escaped(), 0, "{started} of 50 started");
}
