//! New volumes get what the image has, whole or not at all. As root.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use garboard_runtime::fill::{fill, is_needed};
use garboard_runtime::plan::Fill;
use libtest_mimic::Trial;
use rustix::fs::{CWD, FileType, Mode};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::site::scratch;

pub fn tests() -> Vec<Trial> {
    trials!(
        a_new_volume_gets_what_the_merged_image_has,
        what_has_something_in_it_stays_as_it_is,
        an_interrupted_fill_leaves_no_volume,
        a_fill_without_room_leaves_no_volume,
        links_of_the_image_lead_into_the_image,
        too_deep_a_tree_is_refused,
    )
}

/// The word by which this executable knows that it is to fill a volume and nothing else.
pub const FILLER: &str = "filler";

/// Fills a volume in a process of its own: DIRECTORY PATH LAYER…
pub fn run(arguments: &[String]) -> i32 {
    let [directory, path, layers @ ..] = arguments else { return 2 };
    i32::from(fill(&Fill { directory: directory.clone(), path: path.clone(), layers: layers.to_vec() }).is_err())
}

/// An image of two layers, and a volume that isn't there yet.
struct Site {
    lower: PathBuf,
    upper: PathBuf,
    volumes: PathBuf,
}

impl Site {
    fn new(name: &str) -> Self {
        let scratch = scratch(name);
        let site =
            Self { lower: scratch.join("lower"), upper: scratch.join("upper"), volumes: scratch.join("volumes") };
        for directory in [site.lower.join("srv"), site.upper.join("srv"), site.volumes.clone()] {
            std::fs::create_dir_all(directory).unwrap();
        }
        site
    }

    fn volume(&self) -> PathBuf {
        self.volumes.join("v")
    }

    fn fill_of(&self, path: &str) -> Fill {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        Fill {
            directory: text(&self.volume()),
            layers: vec![text(&self.upper), text(&self.lower)],
            path: path.to_owned(),
        }
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.volumes).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn write(path: PathBuf, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn a_new_volume_gets_what_the_merged_image_has() {
    let site = Site::new("fill-whole");
    let (lower, upper) = (site.lower.join("srv"), site.upper.join("srv"));
    write(lower.join("kept"), "from below");
    write(lower.join("changed"), "old");
    write(lower.join("removed"), "never seen");
    write(lower.join("deep/er/file"), "deep");
    write(upper.join("changed"), "new");
    rustix::fs::mknodat(CWD, upper.join("removed"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    std::fs::File::create(lower.join("sparse")).unwrap().set_len(100_000_001).unwrap();
    std::fs::hard_link(lower.join("kept"), lower.join("deep/again")).unwrap();
    symlink("/srv/kept", upper.join("link")).unwrap();
    rustix::fs::mknodat(CWD, upper.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    chown(upper.join("changed"), Some(33), Some(44)).unwrap();
    std::fs::set_permissions(upper.join("changed"), PermissionsExt::from_mode(0o4750)).unwrap();
    rustix::fs::setxattr(upper.join("changed"), "trusted.note", b"x", rustix::fs::XattrFlags::empty()).unwrap();
    // An overlay takes a directory's attributes from its topmost layer.
    chown(&upper, Some(999), Some(998)).unwrap();
    std::fs::set_permissions(&upper, PermissionsExt::from_mode(0o2770)).unwrap();
    let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    std::fs::File::options().append(true).open(lower.join("deep/er/file")).unwrap().set_modified(then).unwrap();

    let wanted = site.fill_of("/srv");
    assert!(is_needed(&wanted));
    fill(&wanted).unwrap();
    assert!(!is_needed(&wanted));
    let volume = site.volume();
    let read = |name: &str| std::fs::read_to_string(volume.join(name)).unwrap();
    assert_eq!(
        (read("kept"), read("changed"), read("deep/er/file")),
        ("from below".into(), "new".into(), "deep".into())
    );
    assert!(!volume.join("removed").exists());
    assert_eq!(std::fs::read_link(volume.join("link")).unwrap(), Path::new("/srv/kept"));
    let stat = |name: &str| std::fs::symlink_metadata(volume.join(name)).unwrap();
    assert_eq!((stat("").uid(), stat("").gid(), stat("").mode() & 0o7777), (999, 998, 0o2770));
    assert_eq!((stat("changed").uid(), stat("changed").gid(), stat("changed").mode() & 0o7777), (33, 44, 0o4750));
    assert_eq!((stat("kept").ino(), stat("kept").nlink()), (stat("deep/again").ino(), 2));
    assert_eq!(stat("deep/er/file").modified().unwrap(), then);
    assert_eq!(stat("fifo").mode(), 0o010_400);
    assert_eq!((stat("sparse").len(), stat("sparse").blocks()), (100_000_001, 0));
    let mut value = [0; 8];
    assert_eq!(rustix::fs::getxattr(volume.join("changed"), "trusted.note", &mut value[..]), Ok(1));
    assert_eq!(site.names(), ["v"]);
}

fn what_has_something_in_it_stays_as_it_is() {
    let site = Site::new("fill-once");
    write(site.lower.join("srv/file"), "from the image");
    write(site.volume().join("own"), "from the container");
    fill(&site.fill_of("/srv")).unwrap();
    assert!(!site.volume().join("file").exists());
    assert_eq!(std::fs::read_to_string(site.volume().join("own")).unwrap(), "from the container");
    // The control: an empty one is filled.
    std::fs::remove_file(site.volume().join("own")).unwrap();
    fill(&site.fill_of("/srv")).unwrap();
    assert_eq!(std::fs::read_to_string(site.volume().join("file")).unwrap(), "from the image");
}

/// The process is killed while it writes: its files may have 8 blocks and the image's has more.
fn an_interrupted_fill_leaves_no_volume() {
    let site = Site::new("fill-interrupted");
    write(site.lower.join("srv/file"), &"x".repeat(1 << 20));
    let wanted = site.fill_of("/srv");
    let ended = Command::new("sh")
        .args(["-c", "ulimit -c 0; ulimit -f 8; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([FILLER, &wanted.directory, &wanted.path])
        .args(&wanted.layers)
        .status()
        .unwrap();
    assert_eq!(ended.signal(), Some(25), "SIGXFSZ");
    assert_eq!(site.names(), [".v.fill"], "it was not in the middle");
    assert!(is_needed(&wanted));
    fill(&wanted).unwrap();
    assert_eq!(std::fs::metadata(site.volume().join("file")).unwrap().len(), 1 << 20);
    assert_eq!(site.names(), ["v"]);
}

fn a_fill_without_room_leaves_no_volume() {
    let site = Site::new("fill-full");
    write(site.lower.join("srv/sub/file"), &"x".repeat(1 << 20));
    rustix::mount::mount("tmpfs", &site.volumes, "tmpfs", MountFlags::empty(), Some(c"size=256k")).unwrap();
    let failure = fill(&site.fill_of("/srv")).unwrap_err().to_string();
    let (names, needed) = (site.names(), is_needed(&site.fill_of("/srv")));
    rustix::mount::unmount(&site.volumes, UnmountFlags::empty()).unwrap();
    assert!(
        failure.contains("/srv/sub/file of the image: no space left on device (ENOSPC): it has no room"),
        "{failure}"
    );
    assert_eq!(names, Vec::<String>::new());
    assert!(needed);
}

fn links_of_the_image_lead_into_the_image() {
    let site = Site::new("fill-links");
    write(site.lower.join("etc/inside"), "inside");
    symlink("/etc", site.upper.join("srv/absolute")).unwrap();
    symlink("../../../../../../etc", site.upper.join("srv/upwards")).unwrap();
    for path in ["/srv/absolute", "/srv/upwards"] {
        fill(&site.fill_of(path)).unwrap();
        let names: Vec<_> = std::fs::read_dir(site.volume()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["inside"], "{path}");
        std::fs::remove_dir_all(site.volume()).unwrap();
    }
    // A volume's place on the machine is reached through no link at all.
    symlink("/etc", site.volume()).unwrap();
    assert!(fill(&site.fill_of("/srv/absolute")).is_ok() && site.volume().is_symlink());
}

fn too_deep_a_tree_is_refused() {
    let site = Site::new("fill-deep");
    std::fs::create_dir_all(site.lower.join("srv").join("d/".repeat(300))).unwrap();
    let failure = fill(&site.fill_of("/srv")).unwrap_err();
    assert!(failure.to_string().contains("ENAMETOOLONG"), "{failure}");
    assert_eq!(site.names(), Vec::<String>::new());
}
