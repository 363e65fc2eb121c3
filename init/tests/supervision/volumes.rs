//! Volumes are filled and opened before a container's first start, by a worker.

use std::fs::File;
use std::path::Path;

use garboard_runtime::launch::{CreateDir, EndLinks, IdMapping, Mount, MountFlags, MountSource};
use garboard_runtime::plan::{Condition, Container, Fill, Restart};
use rustix::fs::{FlockOperation, flock};

use crate::rig::{Rig, Setup, after, changed, find, kill, shell, with};

/// By name.
pub const TESTS: &[(&str, fn())] = &[
    ("volumes::containers_start_when_their_volume_is_whole", containers_start_when_their_volume_is_whole),
    ("volumes::a_fill_that_fails_fails_its_container_alone", a_fill_that_fails_fails_its_container_alone),
    ("volumes::once_is_enough", once_is_enough),
    ("volumes::who_shares_a_volume_does_not_fill_it_again", who_shares_a_volume_does_not_fill_it_again),
    ("volumes::a_later_start_asks_no_disk", a_later_start_asks_no_disk),
    ("volumes::a_child_that_hangs_holds_no_volumes_up", a_child_that_hangs_holds_no_volumes_up),
    ("volumes::a_crowd_of_volumes_is_opened_by_a_few_workers", a_crowd_of_volumes_is_opened_by_a_few_workers),
];

/// A container with the volume `site/volumes/v`, which gets what `site/layer/srv` has.
fn with_volume(site: &Path, container: Container) -> Container {
    with_volume_at(site, "volumes/v", container)
}

fn with_volume_at(site: &Path, volume: &str, container: Container) -> Container {
    let text = |path: &str| site.join(path).to_str().unwrap().to_owned();
    let mut container = container;
    container.fills = vec![Fill { directory: text(volume), layers: vec![text("layer")], path: "/srv".to_owned() }];
    let source = MountSource::Bind {
        path: text(volume),
        recursive: false,
        idmap: IdMapping::Container { recursive: false },
        links: EndLinks::Followed,
        create: Some(CreateDir { uid: 0, gid: 0, mode: 0o755 }),
    };
    let mount = Mount { target: "/mnt".into(), source, flags: MountFlags::default() };
    changed(container, |launch| launch.mounts.push(mount))
}

fn site() -> tempfile::TempDir {
    let site = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(site.path().join("layer/srv")).unwrap();
    std::fs::create_dir(site.path().join("volumes")).unwrap();
    std::fs::write(site.path().join("layer/srv/file"), "from the image\n").unwrap();
    site
}

/// Two share the volume; the supervisor crashes while its workers are held up. Who needs none runs meanwhile.
fn containers_start_when_their_volume_is_whole() {
    let site = site();
    let volumes = File::open(site.path().join("volumes")).unwrap();
    flock(&volumes, FlockOperation::LockExclusive).unwrap();
    let script = "cat /mnt/file; sleep 1000";
    let sharing = |name| with(Restart::Always, with_volume(site.path(), shell(name, script)));
    let mut rig = Rig::new(vec![sharing("one"), sharing("two"), with(Restart::Always, shell("free", "sleep 1000"))]);
    rig.wait_state("free", "running");
    let waiting = |status: &serde_json::Value| ["one", "two"].map(|name| find(status, name)["state"].clone());
    let starting = ["starting", "starting"].map(serde_json::Value::from);
    assert_eq!(waiting(&rig.status()), starting);
    kill(rig.pid(), 34 + 8);
    let status = rig.wait("resumed", |s| s["notes"].as_array().is_some_and(|notes| notes.len() == 1));
    assert_eq!(waiting(&status), starting);

    flock(&volumes, FlockOperation::Unlock).unwrap();
    for name in ["one", "two"] {
        rig.wait_state(name, "running");
        while rig.log(name).is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(rig.log(name), ["from the image"]);
        assert_eq!(rig.container(name)["restarts"], 0);
    }
}

fn a_fill_that_fails_fails_its_container_alone() {
    let site = site();
    std::fs::remove_dir_all(site.path().join("layer/srv")).unwrap();
    let broken = with_volume(site.path(), shell("broken", "echo never"));
    let mut rig = Rig::new(vec![broken, with(Restart::Always, shell("free", "sleep 1000"))]);
    let detail = rig.wait_state("broken", "failed")["detail"].as_str().unwrap().to_owned();
    assert_eq!(
        detail,
        format!(
            "fill volume {} from /srv of the image: no such file or directory (ENOENT)",
            site.path().join("volumes/v").display()
        )
    );
    rig.wait_state("free", "running");
    assert!(!site.path().join("volumes/v").exists());
}

/// What a container does to its volume stays done, also when that is to empty it.
fn once_is_enough() {
    let site = site();
    let script = "if [ -e /mnt/file ]; then cat /mnt/file; else echo empty; fi; busybox rm -f /mnt/file; exit 1";
    let container = with_volume(site.path(), shell("again", script));
    let mut rig = Rig::new(vec![with(Restart::OnFailure(Some(1)), container)]);
    rig.wait_state("again", "failed");
    assert_eq!(rig.log("again"), ["from the image", "empty"]);
}

/// Another one may have it mounted: what would be filled anew would be another directory.
fn who_shares_a_volume_does_not_fill_it_again() {
    let site = site();
    let empties = with_volume(site.path(), shell("empties", "busybox rm /mnt/file"));
    let script = "if [ -e /mnt/file ]; then echo full; else echo empty; fi; sleep 1000";
    let looks = with_volume(site.path(), shell("looks", script));
    let mut rig = Rig::new(vec![empties, after(0, Condition::Completed, looks)]);
    rig.wait_state("looks", "running");
    while rig.log("looks").is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(rig.log("looks"), ["empty"]);
}

/// Waits until its container's file has so many lines, by the container's own count.
fn counted(rig: &mut Rig, lines: &str) {
    while rig.log("again").last().is_none_or(|last| last != lines) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Where a disk would be asked for the volume's path there is none any more, and no new one is made. The next incarnation asks once.
fn a_later_start_asks_no_disk() {
    let site = site();
    let script = "echo again >> /mnt/file; echo $(busybox wc -l < /mnt/file); sleep 1000";
    let container = with_volume(site.path(), shell("again", script));
    let mut rig = Rig::new(vec![with(Restart::Always, container)]);
    let end = |rig: &mut Rig| kill(rig.container("again")["pid"].as_i64().unwrap() as i32, 9);
    counted(&mut rig, "2");
    let (path, away) = (site.path().join("volumes/v"), site.path().join("volumes/away"));
    std::fs::rename(&path, &away).unwrap();
    for lines in ["3", "4"] {
        end(&mut rig);
        counted(&mut rig, lines);
        assert!(!path.exists(), "it was looked up");
    }

    kill(rig.pid(), 34 + 8);
    rig.wait("resumed", |s| s["notes"].as_array().is_some_and(|notes| notes.len() == 1));
    end(&mut rig);
    counted(&mut rig, "1");
    assert_eq!(std::fs::read_to_string(path.join("file")).unwrap(), "again\n", "it isn't filled again");
    assert_eq!(std::fs::read_to_string(away.join("file")).unwrap().lines().count(), 4);
}

/// The rest waits for them, and waiting holds the machine's end up as little.
fn a_crowd_of_volumes_is_opened_by_a_few_workers() {
    const CROWD: usize = 12;
    let site = site();
    let volumes = File::open(site.path().join("volumes")).unwrap();
    let one = |i| {
        let container = shell(&format!("c{i}"), "cat /mnt/file; sleep 1000");
        with(Restart::Always, with_volume_at(site.path(), &format!("volumes/v{i}"), container))
    };
    let begin = || {
        flock(&volumes, FlockOperation::LockExclusive).unwrap();
        let mut rig = Rig::new((0..CROWD).map(one).collect());
        rig.until("a few at work", |rig| rig.children().len() == 4);
        // A turn or two later there are no more.
        rig.status();
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(rig.children().len(), 4);
        rig
    };
    let mut rig = begin();
    rig.ask(serde_json::json!({"request": "poweroff"}));
    rig.until("at its end", Rig::has_ended);
    let mut rig = begin();
    // Nor does who waits lose anything in a crash.
    kill(rig.pid(), 34 + 8);
    rig.wait("resumed", |s| s["notes"].as_array().is_some_and(|notes| notes.len() == 1));
    flock(&volumes, FlockOperation::Unlock).unwrap();
    for name in (0..CROWD).map(|i| format!("c{i}")) {
        rig.wait_state(&name, "running");
        while rig.log(&name).is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(rig.log(&name), ["from the image"]);
        assert_eq!(rig.container(&name)["restarts"], 0);
    }
}

/// It has copies of all that PID 1 had open when it was made, the pipe of a worker among them.
fn a_child_that_hangs_holds_no_volumes_up() {
    let site = site();
    let volumes = File::open(site.path().join("volumes")).unwrap();
    flock(&volumes, FlockOperation::LockExclusive).unwrap();
    let containers = vec![with_volume(site.path(), shell("filled", "cat /mnt/file")), shell("hangs", "sleep 1000")];
    let mut rig = Rig::with(containers, Setup { frozen: true, ..Setup::default() });
    // In the cgroup that stands still, and so not at work on its program yet.
    rig.wait("a child", |s| find(s, "hangs")["pid"] != 0 && !find(s, "hangs")["pid"].is_null());
    flock(&volumes, FlockOperation::Unlock).unwrap();
    rig.wait("another child", |s| find(s, "filled")["pid"] != 0 && !find(s, "filled")["pid"].is_null());
    rig.thaw();
    rig.wait_console("filled | from the image");
}
