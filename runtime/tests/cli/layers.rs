//! Roots of layers: every driver shows the same, works for root and for an ordinary user, and leaves nothing.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev};
use rustix::mount::{MountFlags, UnmountFlags, mount};
use serde_json::json;

use crate::faults::at_steps;
use crate::rootless::{NO_HELPERS, RANGES, USER, account, by_user};
use crate::site::{Site, place, shell, until};
use crate::trials;

pub fn tests() -> Vec<Trial> {
    trials![
        the_kernel_s_overlay_is_chosen_where_it_works,
        where_it_does_not_the_next_is_chosen_and_told,
        every_driver_shows_what_an_overlay_shows,
        what_is_hidden_is_hidden_by_every_driver,
        hard_links_setuid_bits_and_holes_are_kept,
        a_container_of_layers_has_its_whole_life,
        what_is_written_goes_with_the_container,
        fuse_overlayfs_ends_with_the_container,
        fuse_overlayfs_that_does_not_answer_is_killed,
        a_killed_runtime_leaves_nothing_that_delete_can_t_remove,
        a_full_disk_is_an_error_that_leaves_nothing,
        what_is_missing_is_named,
        what_can_t_be_copied_is_named,
        another_s_directory_is_left_alone,
        what_an_earlier_boot_has_left_is_removed,
        what_is_mounted_in_it_is_left_alone,
    ]
}

pub const DRIVERS: [&str; 3] = ["overlay", "fuse-overlayfs", "copy"];

/// Whose container it is, and whose ids.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Who {
    Root,
    /// With a user namespace for the container.
    RootMapped,
    User,
}

const EVERYBODY: [Who; 3] = [Who::Root, Who::RootMapped, Who::User];

impl Who {
    /// The id outside of one inside.
    pub fn outside(self, id: u32) -> u32 {
        match (self, id) {
            (Self::Root, id) => id,
            (Self::RootMapped, id) => 400_000 + id,
            (Self::User, 0) => USER,
            (Self::User, id) => RANGES[0].0 + id - 1,
        }
    }
}

/// A bundle whose root is these layers on a base with busybox.
pub struct Bundle {
    pub site: Site,
    who: Who,
    layers: Vec<PathBuf>,
    pub place: PathBuf,
}

impl Bundle {
    pub fn new(who: Who, site: Site) -> Self {
        let mut site = if who == Who::User { by_user(site, &[]) } else { site };
        if who == Who::RootMapped {
            site.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            for field in ["uidMappings", "gidMappings"] {
                site.config["linux"][field] = json!([{"containerID": 0, "hostID": 400_000, "size": 1000}]);
            }
        }
        // Also sets up /dev/fuse.
        account();
        site.config["root"]["readonly"] = false.into();
        let place = site.directory.join("place");
        fs::create_dir(&place).unwrap();
        if who == Who::User {
            chown(&place, Some(USER), Some(USER)).unwrap();
        }
        site.config["root"]["path"] = json!(place);
        let base = site.directory.join("base");
        assert!(Command::new("cp").arg("-a").args([&place_rootfs(), &base]).status().unwrap().success());
        let owner = who.outside(0).to_string();
        assert!(
            Command::new("chown")
                .args(["-R", "-h", &format!("{owner}:{owner}")])
                .arg(&base)
                .status()
                .unwrap()
                .success()
        );
        let mut bundle = Self { site, who, layers: vec![base], place };
        bundle.annotate(None);
        bundle
    }

    /// One more layer on top.
    pub fn layer(&mut self) -> PathBuf {
        let layer = self.site.directory.join(format!("layer-{}", self.layers.len()));
        fs::create_dir(&layer).unwrap();
        fs::set_permissions(&layer, PermissionsExt::from_mode(0o755)).unwrap();
        self.own(&layer, 0);
        self.layers.insert(0, layer.clone());
        self.annotate(None);
        layer
    }

    /// Gives a file to an id inside.
    fn own(&self, path: &Path, id: u32) {
        lchown(path, Some(self.who.outside(id)), Some(self.who.outside(id))).unwrap();
    }

    pub fn annotate(&mut self, driver: Option<&str>) {
        let layers = self.layers.iter().map(|layer| layer.to_str().unwrap()).collect::<Vec<_>>().join(":");
        self.site.config["annotations"] = json!({"org.garboard.layers": layers});
        if let Some(driver) = driver {
            self.site.config["annotations"]["org.garboard.layers.driver"] = driver.into();
        }
    }

    fn run(&mut self, driver: &str) -> String {
        self.annotate(Some(driver));
        let printed = self.site.ok(&["run", &self.site.id]);
        self.assert_gone();
        printed
    }

    pub fn assert_gone(&self) {
        let left: Vec<_> = fs::read_dir(&self.place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{left:?}");
        self.site.assert_gone();
    }
}

fn place_rootfs() -> PathBuf {
    place().rootfs()
}

/// A program that shows what its root is.
const SHOW_ROOT: &str = "mount | head -n 1";

fn the_kernel_s_overlay_is_chosen_where_it_works() {
    for who in EVERYBODY {
        let bundle = Bundle::new(who, shell(SHOW_ROOT));
        let done = bundle.site.run(&["run", &bundle.site.id]);
        assert!(done.status == 0 && done.stdout.starts_with("overlay on / type overlay (rw"), "{who:?}: {done:?}");
        assert_eq!(done.stderr, "");
        bundle.assert_gone();
    }
}

/// The kernel doesn't write to an overlay on an overlay.
fn where_it_does_not_the_next_is_chosen_and_told() {
    for who in EVERYBODY {
        let mut bundle = Bundle::new(who, shell(SHOW_ROOT));
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| bundle.site.directory.join(name));
        for directory in [&lower, &upper, &work] {
            fs::create_dir(directory).unwrap();
            chown(directory, Some(who.outside(0)), Some(who.outside(0))).unwrap();
        }
        let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        let options = std::ffi::CString::new(options).unwrap();
        mount("overlay", &bundle.place, "overlay", MountFlags::empty(), Some(options.as_c_str())).unwrap();
        let done = bundle.site.run(&["run", &bundle.site.id]);
        assert!(done.stdout.starts_with("fuse-overlayfs on / type fuse"), "{who:?}: {done:?}");
        assert!(done.stderr.contains("layers: fuse-overlayfs is used, as the kernel can't mount them"), "{done:?}");
        bundle.assert_gone();
        // And without that program, a copy. The helpers for ids are elsewhere then, too.
        let helpers = bundle.site.directory.join("helpers");
        fs::create_dir(&helpers).unwrap();
        for helper in ["newuidmap", "newgidmap"] {
            symlink(format!("/usr/bin/{helper}"), helpers.join(helper)).unwrap();
        }
        let path = format!("PATH={}", helpers.display());
        let program = match bundle.site.before.pop() {
            Some(program) => program,
            None => crate::site::runtime().to_str().unwrap().to_owned(),
        };
        bundle.site.before.extend(["env".to_owned(), path, program]);
        let done = bundle.site.run(&["run", &bundle.site.id]);
        assert!(done.stdout.starts_with("overlay on / type overlay"), "{who:?}: {done:?}");
        assert!(done.stdout.contains("upperdir=") && done.stdout.contains(&upper.display().to_string()), "{done:?}");
        assert!(done.stderr.contains("layers: they are copied") && done.stderr.contains("(ENOENT)"), "{done:?}");
        bundle.assert_gone();
        // Forced, what can't be is an error.
        bundle.annotate(Some("overlay"));
        assert!(bundle.site.fails(&["run", &bundle.site.id]).contains("overlay"));
        bundle.annotate(Some("fuse-overlayfs"));
        let error = bundle.site.fails(&["run", &bundle.site.id]);
        assert!(
            error.contains(
                "run fuse-overlayfs: no such file or directory (ENOENT): it isn't installed (Debian: fuse-overlayfs)"
            ),
            "{error}"
        );
        bundle.assert_gone();
        rustix::mount::unmount(&bundle.place, UnmountFlags::DETACH).unwrap();
    }
}

/// What a layer has at a path.
#[derive(Debug, Clone)]
enum Thing {
    File { contents: u8, mode: u32 },
    Directory { opaque: bool, mode: u32 },
    Link,
    Fifo,
    Whiteout,
}

fn thing() -> impl Strategy<Value = Thing> {
    prop_oneof![
        4 => (any::<u8>(), prop::sample::select(vec![0o644, 0o4755, 0o600, 0o2711]))
            .prop_map(|(contents, mode)| Thing::File { contents, mode }),
        4 => (any::<bool>(), prop::sample::select(vec![0o755, 0o1777, 0o700]))
            .prop_map(|(opaque, mode)| Thing::Directory { opaque, mode }),
        1 => Just(Thing::Link),
        1 => Just(Thing::Fifo),
        3 => Just(Thing::Whiteout),
    ]
}

/// So few that layers often have the same.
const PATHS: [&str; 12] = ["a", "b", "a/a", "a/b", "b/a", "a/a/a", "a/a/b", "a/b/a", "a/b/b", "b/b", "b/c", "c"];

/// Things of one layer, each with its owner.
type Layer = Vec<(&'static str, Thing, u32)>;

fn layers() -> impl Strategy<Value = Vec<Layer>> {
    vec(vec((prop::sample::select(PATHS.to_vec()), thing(), 0..3_u32), 1..12), 1..4)
}

fn fill(bundle: &Bundle, layer: &Path, things: &Layer) {
    let tree = layer.join("tree");
    fs::create_dir(&tree).unwrap();
    bundle.own(&tree, 0);
    for (path, thing, owner) in things {
        let path = tree.join(path);
        let mut above = tree.clone();
        let parents: Vec<_> = path.strip_prefix(&tree).unwrap().parent().unwrap().components().collect();
        let is_barred = parents.into_iter().any(|name| {
            above.push(name);
            if fs::create_dir(&above).is_ok() {
                bundle.own(&above, 0);
            }
            !fs::symlink_metadata(&above).unwrap().is_dir()
        });
        if is_barred || fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        let mode = match thing {
            Thing::File { contents, mode } => {
                fs::write(&path, [*contents].repeat(usize::from(*contents) * 40)).unwrap();
                Some(*mode)
            }
            Thing::Directory { opaque, mode } => {
                fs::create_dir(&path).unwrap();
                if *opaque {
                    for mark in ["trusted.overlay.opaque", "user.overlay.opaque"] {
                        rustix::fs::setxattr(&path, mark, b"y", XattrFlags::empty()).unwrap();
                    }
                }
                Some(*mode)
            }
            Thing::Link => {
                symlink("../elsewhere", &path).unwrap();
                None
            }
            Thing::Fifo => {
                rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
                None
            }
            Thing::Whiteout => {
                rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), makedev(0, 0)).unwrap();
                None
            }
        };
        bundle.own(&path, *owner);
        if let Some(mode) = mode {
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        }
    }
}

/// Names, kinds, modes, owners, times of files, targets and contents.
const LIST: &str = r#"cd /tree; find . | sort | while read -r f; do
    if [ -L "$f" ]; then echo "$(stat -c '%n %F %u %g' "$f") $(readlink "$f")"
    elif [ -f "$f" ]; then stat -c '%n %F %a %u %g %s %Y' "$f"; md5sum < "$f"
    else stat -c '%n %F %a %u %g' "$f"; fi; done"#;

/// What each driver shows of these layers, the lowest first.
fn shown(who: Who, layers: &[Layer]) -> [String; 3] {
    let mut bundle = Bundle::new(who, shell(LIST));
    for set in ["effective", "permitted", "bounding"] {
        bundle.site.config["process"]["capabilities"][set] = json!(["CAP_DAC_OVERRIDE"]);
    }
    for things in layers {
        let layer = bundle.layer();
        fill(&bundle, &layer, things);
    }
    DRIVERS.map(|driver| bundle.run(driver))
}

fn every_driver_shows_what_an_overlay_shows() {
    for who in EVERYBODY {
        let config = Config { cases: 6, failure_persistence: None, max_shrink_iters: 30, ..Config::default() };
        let result = TestRunner::new(config).run(&layers(), |layers| {
            let shown = shown(who, &layers);
            prop_assert!(shown[0].contains(". directory"), "{}", shown[0]);
            prop_assert_eq!(&shown[1], &shown[0], "fuse-overlayfs");
            prop_assert_eq!(&shown[2], &shown[0], "copy");
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{who:?}: {error}"));
    }
}

/// Every way in which one layer hides another, so that none depends on chance.
fn what_is_hidden_is_hidden_by_every_driver() {
    let file = |contents| Thing::File { contents, mode: 0o644 };
    let directory = |opaque| Thing::Directory { opaque, mode: 0o755 };
    let layers = [
        // Shown but for what the others hide: a whole directory, a file, a directory beneath a file.
        vec![("a/a", file(1), 0), ("a/b/a", file(2), 1), ("b/a", file(3), 0), ("c", file(4), 2), ("d", file(4), 0)],
        vec![("a", file(5), 0), ("b/b", file(6), 0), ("c", Thing::Whiteout, 0), ("d", Thing::Whiteout, 0)],
        vec![("a/b/b", file(7), 0), ("b", directory(true), 0), ("c/a", file(8), 0)],
        // A directory shows what is in it once more, above what is hidden.
        vec![("a/a", file(9), 1), ("b/c", file(10), 0), ("c/b", directory(false), 2)],
    ];
    for who in EVERYBODY {
        let shown = shown(who, &layers);
        let names: Vec<&str> =
            shown[0].lines().filter_map(|line| line.split(' ').next().filter(|n| n.starts_with('.'))).collect();
        assert_eq!(
            names,
            [".", "./a", "./a/a", "./a/b", "./a/b/b", "./b", "./b/c", "./c", "./c/a", "./c/b"],
            "{who:?}"
        );
        assert_eq!(shown[1], shown[0], "{who:?}: fuse-overlayfs");
        assert_eq!(shown[2], shown[0], "{who:?}: copy");
    }
}

fn hard_links_setuid_bits_and_holes_are_kept() {
    for who in EVERYBODY {
        let script = "cd /tree; stat -c %i one two other | sort -u | wc -l; stat -c '%a %s' hole; stat -c %b hole; stat -c %a three";
        let mut bundle = Bundle::new(who, shell(script));
        let layer = bundle.layer();
        let tree = layer.join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("one"), "x").unwrap();
        fs::hard_link(tree.join("one"), tree.join("two")).unwrap();
        fs::write(tree.join("other"), "x").unwrap();
        fs::write(tree.join("three"), "x").unwrap();
        fs::File::create(tree.join("hole")).unwrap().set_len(1 << 40).unwrap();
        for (file, mode) in [("", 0o755), ("one", 0o644), ("other", 0o644), ("hole", 0o600), ("three", 0o4755)] {
            bundle.own(&tree.join(file), 0);
            fs::set_permissions(tree.join(file), PermissionsExt::from_mode(mode)).unwrap();
        }
        for driver in DRIVERS {
            assert_eq!(bundle.run(driver), "2\n600 1099511627776\n0\n4755\n", "{who:?}, {driver}");
        }
    }
}

fn a_container_of_layers_has_its_whole_life() {
    for who in EVERYBODY {
        for driver in DRIVERS {
            let mut bundle = Bundle::new(who, shell("echo written > /file; sleep 60"));
            bundle.layer();
            bundle.annotate(Some(driver));
            let site = &bundle.site;
            site.create(&[]);
            assert_eq!(site.status(), "created");
            site.ok(&["start", &site.id]);
            until("it has written", || site.run(&["exec", &site.id, "cat", "/file"]).stdout == "written\n");
            // Its root is root there, with the rights of its own namespace over what it owns.
            assert_eq!(site.ok(&["exec", &site.id, "stat", "-c", "%u %g %a", "/file"]), "0 0 644\n");
            site.ok(&["kill", &site.id, "KILL"]);
            site.wait_for("stopped");
            site.ok(&["delete", &site.id]);
            bundle.assert_gone();
        }
    }
}

fn what_is_written_goes_with_the_container() {
    for who in EVERYBODY {
        for driver in DRIVERS {
            // With owners and modes that keep others out, once deeper than a removal by levels would go.
            let depth = if (who, driver) == (Who::User, "overlay") { 300 } else { 3 };
            let script = format!(
                "cat /layer && rm /layer && echo > /new && cd /tmp && chown 5:5 . && n=0 && \
                          while [ $n -lt {depth} ] && mkdir -m 0 d && cd d; do n=$((n + 1)); done; echo made $n"
            );
            let printed = format!("kept\nmade {depth}\n");
            let mut bundle = Bundle::new(who, shell(&script));
            for set in ["effective", "permitted", "bounding"] {
                bundle.site.config["process"]["capabilities"][set] = json!(["CAP_DAC_OVERRIDE", "CAP_CHOWN"]);
            }
            let layer = bundle.layer();
            fs::write(layer.join("layer"), "kept\n").unwrap();
            bundle.own(&layer.join("layer"), 0);
            assert_eq!(bundle.run(driver), printed, "{who:?}, {driver}");
            assert_eq!(fs::read_to_string(layer.join("layer")).unwrap(), "kept\n");
            assert!(!layer.join("new").exists());
            // The next one finds the layers as they are.
            assert_eq!(bundle.run(driver), printed, "{who:?}, {driver}");
        }
    }
}

/// How many processes have this directory open as fuse-overlayfs has its upper.
fn daemons(upper: (u64, u64)) -> usize {
    let is_upper = |fd: fs::DirEntry| fs::metadata(fd.path()).is_ok_and(|file| (file.dev(), file.ino()) == upper);
    let serves = |process: &Path| {
        fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim() == "fuse-overlayfs")
            && fs::read_dir(process.join("fd")).is_ok_and(|fds| fds.flatten().any(is_upper))
    };
    fs::read_dir("/proc").unwrap().flatten().filter(|process| serves(&process.path())).count()
}

fn fuse_overlayfs_ends_with_the_container() {
    for who in EVERYBODY {
        let mut bundle = Bundle::new(who, shell("sleep 60"));
        bundle.annotate(Some("fuse-overlayfs"));
        let site = &bundle.site;
        site.create(&[]);
        site.ok(&["start", &site.id]);
        let own = fs::read_dir(&bundle.place).unwrap().next().unwrap().unwrap().path();
        let upper = fs::metadata(own.join("upper")).unwrap();
        let upper = (upper.dev(), upper.ino());
        assert_eq!(daemons(upper), 1, "{who:?}");
        // It isn't among the container's processes, nor seen by them.
        let pids: Vec<u64> = serde_json::from_str(&site.ok(&["ps", "-f", "json", &site.id])).unwrap();
        assert_eq!(pids.len(), 1);
        site.ok(&["kill", &site.id, "KILL"]);
        // Nobody has deleted anything.
        until("the program ends by itself", || daemons(upper) == 0);
        site.wait_for("stopped");
        site.ok(&["delete", &site.id]);
        bundle.assert_gone();
    }
}

/// Has this script found as fuse-overlayfs, in front of what else there is.
fn replace_fuse_overlayfs(bundle: &mut Bundle, script: &str) {
    let programs = bundle.site.directory.join("programs");
    fs::create_dir_all(&programs).unwrap();
    let fake = programs.join("fuse-overlayfs");
    let draft = programs.join("draft");
    fs::write(&draft, format!("#!/bin/sh\n{script}\n")).unwrap();
    crate::site::copy_program(&draft, &fake);
    fs::set_permissions(&fake, PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("PATH={}:{}", programs.display(), std::env::var("PATH").unwrap());
    let program = bundle.site.before.pop().unwrap_or_else(|| crate::site::runtime().to_str().unwrap().to_owned());
    bundle.site.before.extend(["env".to_owned(), path, program]);
}

fn fuse_overlayfs_that_does_not_answer_is_killed() {
    for who in [Who::RootMapped, Who::User] {
        let mut bundle = Bundle::new(who, shell(SHOW_ROOT));
        bundle.annotate(Some("fuse-overlayfs"));
        let ids = bundle.site.directory.join("ids");
        fs::write(&ids, "").unwrap();
        fs::set_permissions(&ids, PermissionsExt::from_mode(0o666)).unwrap();
        // Also what it has started holds the device open.
        let script = format!("echo something is odd >&2; sleep 1000 & echo $$ $! > {}; wait", ids.display());
        replace_fuse_overlayfs(&mut bundle, &script);
        let begin = Instant::now();
        let error = bundle.site.fails(&["create", &bundle.site.id]);
        assert!((Duration::from_secs(10)..Duration::from_secs(30)).contains(&begin.elapsed()), "{:?}", begin.elapsed());
        let told = "run fuse-overlayfs, which hasn't answered for 10 s: something is odd: timed out (ETIMEDOUT): it was killed";
        assert!(error.contains(told) && error.contains("org.garboard.layers.driver = copy"), "{who:?}: {error}");
        let ids = fs::read_to_string(ids).unwrap();
        assert_eq!(ids.split_whitespace().count(), 2, "{ids}");
        until("both processes have ended", || {
            ids.split_whitespace().all(|pid| {
                let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                // Who hasn't been reaped by whoever does so on this machine has ended, too.
                !status.contains("State:") || status.contains("State:\tZ")
            })
        });
        bundle.assert_gone();
        // A slow one is waited for.
        replace_fuse_overlayfs(&mut bundle, "sleep 2; exec /usr/bin/fuse-overlayfs \"$@\"");
        let done = bundle.site.run(&["run", &bundle.site.id]);
        assert!(done.stdout.starts_with("fuse-overlayfs on / type fuse"), "{who:?}: {done:?}");
        bundle.assert_gone();
    }
}

fn a_killed_runtime_leaves_nothing_that_delete_can_t_remove() {
    for driver in DRIVERS {
        let mut bundle = Bundle::new(Who::RootMapped, shell("sleep 60"));
        bundle.annotate(Some(driver));
        let site = &bundle.site;
        at_steps(driver, |n, when| {
            let mut command = site.command(&["create", &site.id]);
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            if !crate::sys::kill_before_call(command, n) {
                return false;
            }
            let done = site.run(&["delete", "--force", &site.id]);
            assert_eq!((done.status, done.stderr.as_str()), (0, ""), "{when}");
            bundle.assert_gone();
            true
        });
        assert_eq!(site.status(), "created");
        site.ok(&["delete", "--force", &site.id]);
        bundle.assert_gone();
    }
}

fn a_full_disk_is_an_error_that_leaves_nothing() {
    for who in EVERYBODY {
        let mut bundle = Bundle::new(who, shell("true"));
        let id = who.outside(0);
        let options = std::ffi::CString::new(format!("size=256k,uid={id},gid={id}")).unwrap();
        mount("tmpfs", &bundle.place, "tmpfs", MountFlags::empty(), Some(options.as_c_str())).unwrap();
        bundle.annotate(Some("copy"));
        let error = bundle.site.fails(&["run", &bundle.site.id]);
        assert!(
            error.contains("copy of the layers /bin/busybox: no space left on device (ENOSPC): the filesystem of root.path has no room"),
            "{error}"
        );
        bundle.assert_gone();
        rustix::mount::unmount(&bundle.place, UnmountFlags::DETACH).unwrap();
        bundle.run("copy");
    }
}

fn what_is_missing_is_named() {
    for who in EVERYBODY {
        let mut bundle = Bundle::new(who, shell("true"));
        bundle.layers.push("/garboard/absent".into());
        for driver in DRIVERS {
            bundle.annotate(Some(driver));
            let error = bundle.site.fails(&["run", &bundle.site.id]);
            assert!(
                error.contains("clone mount of /garboard/absent: no such file or directory (ENOENT): it doesn't exist on the machine"),
                "{error}"
            );
            bundle.assert_gone();
        }
        bundle.annotate(Some("aufs"));
        let error = bundle.site.fails(&["run", &bundle.site.id]);
        assert!(error.contains("annotations[org.garboard.layers.driver]: \"aufs\" is none of"), "{error}");
    }
    let mut bundle = Bundle::new(Who::User, shell("true"));
    let program = bundle.site.before.pop().unwrap();
    bundle.site.before.extend(NO_HELPERS.map(str::to_owned).into_iter().chain([program]));
    assert!(
        bundle
            .site
            .fails(&["run", &bundle.site.id])
            .contains("map ids by newuidmap: no such file or directory (ENOENT)")
    );
    bundle.assert_gone();
}

fn what_can_t_be_copied_is_named() {
    let refused = |who: Who, make: &dyn Fn(&Path)| {
        let mut bundle = Bundle::new(who, shell("true"));
        let layer = bundle.layer();
        make(&layer);
        bundle.annotate(Some("copy"));
        let error = bundle.site.fails(&["run", &bundle.site.id]);
        bundle.assert_gone();
        error
    };
    let device = |layer: &Path| {
        rustix::fs::mknodat(CWD, layer.join("null"), FileType::CharacterDevice, Mode::RUSR, makedev(1, 3)).unwrap();
        chown(layer.join("null"), Some(USER), Some(USER)).unwrap();
    };
    assert!(
        refused(Who::User, &device)
            .contains("copy of the layers /null: operation not permitted (EPERM): device nodes can be copied by root")
    );
    let stranger = |layer: &Path| fs::write(layer.join("file"), "root's").unwrap();
    assert!(
        refused(Who::User, &stranger)
            .contains("copy of the layers /file: invalid argument (EINVAL): its owner isn't in the container's id map")
    );
    for mark in ["trusted.overlay.redirect", "trusted.overlay.metacopy"] {
        let marked = |layer: &Path| {
            let path = layer.join("marked");
            if mark.ends_with("redirect") {
                fs::create_dir(&path).unwrap()
            } else {
                fs::write(&path, "").unwrap()
            }
            rustix::fs::setxattr(&path, mark, b"/elsewhere", XattrFlags::empty()).unwrap();
        };
        let error = refused(Who::Root, &marked);
        assert!(error.contains("copy of the layers /marked: operation not supported (EOPNOTSUPP)"), "{error}");
    }
    let deep = |layer: &Path| fs::create_dir_all(layer.join("d/".repeat(300))).unwrap();
    assert!(refused(Who::Root, &deep).contains("(ENAMETOOLONG): directories in it lie deeper than 256"));
}

fn another_s_directory_is_left_alone() {
    let mut bundle = Bundle::new(Who::Root, shell("true"));
    let others = bundle.place.join(format!("garboard-{}", bundle.site.id));
    fs::create_dir(&others).unwrap();
    fs::write(others.join("file"), "another's").unwrap();
    for driver in DRIVERS {
        bundle.annotate(Some(driver));
        assert_eq!(bundle.site.run(&["run", &bundle.site.id]).status, 0);
        assert_eq!(fs::read_to_string(others.join("file")).unwrap(), "another's");
        assert_eq!(fs::read_dir(&bundle.place).unwrap().count(), 1);
    }
}

fn what_an_earlier_boot_has_left_is_removed() {
    for who in EVERYBODY {
        // With files that are another id's, in a directory that keeps their owner's neighbours out.
        let script = "cd /tmp && mkdir -p own/er && echo > own/er/file && chown -R 5:5 own && chmod 0 own; \
                      echo > /made; sleep 60";
        let mut bundle = Bundle::new(who, shell(script));
        for set in ["effective", "permitted", "bounding"] {
            bundle.site.config["process"]["capabilities"][set] = json!(["CAP_DAC_OVERRIDE", "CAP_CHOWN", "CAP_FOWNER"]);
        }
        let site = &bundle.site;
        site.create(&[]);
        site.ok(&["start", &site.id]);
        let left = fs::read_dir(&bundle.place).unwrap().next().unwrap().unwrap().path();
        until("it has written", || left.join("upper/made").exists());
        let owner = fs::symlink_metadata(left.join("upper/tmp/own/er/file")).unwrap().uid();
        assert_eq!(owner, who.outside(5), "{who:?}");

        // Nothing of all this was made by an earlier boot's container: other things, other names, a link.
        let boot = "0".repeat(32);
        let elsewhere = bundle.site.directory.join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("file"), "kept").unwrap();
        symlink(&elsewhere, bundle.place.join(format!("garboard-{boot}-link-0011223344556677"))).unwrap();
        fs::write(bundle.place.join(format!("garboard-{boot}-file-0011223344556677")), "kept").unwrap();
        for name in ["garboard-web".to_owned(), format!("garboard-{boot}"), format!("{boot}-web-0011223344556677")] {
            fs::create_dir_all(bundle.place.join(name).join("upper")).unwrap();
        }
        let count = || fs::read_dir(&bundle.place).unwrap().count();
        assert_eq!(count(), 6);

        // A container of this boot has its directory, whatever others are made beside it.
        let second = format!("{}-second", site.id);
        site.ok(&["create", &second]);
        assert_eq!(count(), 7);
        site.ok(&["delete", "--force", &second]);
        assert!(left.join("upper/made").exists());
        assert_eq!(site.ok(&["exec", &site.id, "cat", "/made"]), "\n");

        // The power cut: its state is gone, and nobody deletes it.
        site.ok(&["kill", &site.id, "KILL"]);
        site.wait_for("stopped");
        fs::remove_dir_all(site.directory.join("state")).unwrap();
        let _ = fs::remove_dir(site.cgroup());
        site.ok(&["create", &second]);
        site.ok(&["delete", "--force", &second]);
        assert!(left.exists(), "it is the same boot as long as the machine is up");
        // As if another boot had made it, which its name would say then.
        let name = left.file_name().unwrap().to_str().unwrap();
        let this = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().replace('-', "");
        assert!(name.starts_with(&format!("garboard-{this}-{}-", site.id)), "{name}");
        let left = bundle.place.join(name.replace(&this, &boot));
        fs::rename(bundle.place.join(name), &left).unwrap();
        let done = bundle.site.run(&["create", &second]);
        assert_eq!((done.status, done.stderr.as_str()), (0, ""), "{who:?}");
        assert!(!left.exists(), "{who:?}");
        bundle.site.ok(&["delete", "--force", &second]);
        assert_eq!(fs::read_dir(&bundle.place).unwrap().count(), 5);
        assert_eq!(fs::read_to_string(elsewhere.join("file")).unwrap(), "kept");
        for entry in fs::read_dir(&bundle.place).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
            assert!(entry.path().read_dir().unwrap().next().is_some(), "{}", entry.path().display());
        }
    }
}

/// Only root could have mounted it, and only root would find it there.
fn what_is_mounted_in_it_is_left_alone() {
    let mut bundle = Bundle::new(Who::Root, shell("true"));
    let precious = bundle.site.directory.join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), "kept").unwrap();
    let left = bundle.place.join(format!("garboard-{}-web-0011223344556677", "0".repeat(32)));
    for at in [left.join("upper/mounted"), left.clone()] {
        fs::create_dir_all(&at).unwrap();
        rustix::mount::mount_bind(&precious, &at).unwrap();
        bundle.annotate(Some("copy"));
        let done = bundle.site.run(&["run", &bundle.site.id]);
        assert_eq!(done.status, 0, "{done:?}");
        let is_told = done.stderr.contains("stays what an earlier boot has left")
            && done.stderr.contains("something is mounted in it");
        // What is mounted over all of it isn't a directory of this runtime's.
        assert_eq!(is_told, at != left, "{done:?}");
        assert_eq!(fs::read_to_string(precious.join("file")).unwrap(), "kept");
        rustix::mount::unmount(&at, UnmountFlags::DETACH).unwrap();
    }
    assert_eq!(bundle.site.run(&["run", &bundle.site.id]).stderr, "");
    bundle.assert_gone();
}
