//! New volumes are filled before a container's first start, by a worker.

use std::fs::File;
use std::path::Path;

use garboard_runtime::launch::{IdMapping, Mount, MountFlags, MountSource};
use garboard_runtime::plan::{Container, Fill, Restart};
use rustix::fs::{FlockOperation, flock};

use crate::rig::{Rig, find, kill, shell, with};

/// By name.
pub const TESTS: &[(&str, fn())] = &[
    ("fills::containers_start_when_their_volume_is_whole", containers_start_when_their_volume_is_whole),
    ("fills::a_fill_that_fails_fails_its_container_alone", a_fill_that_fails_fails_its_container_alone),
    ("fills::once_is_enough", once_is_enough),
];

/// A container with the volume `site/volumes/v`, which gets what `site/layer/srv` has.
fn with_volume(site: &Path, container: Container) -> Container {
    let text = |path: &str| site.join(path).to_str().unwrap().to_owned();
    let mut container = container;
    container.fills = vec![Fill { directory: text("volumes/v"), layers: vec![text("layer")], path: "/srv".to_owned() }];
    container.launch.mounts.push(Mount {
        target: "/mnt".into(),
        source: MountSource::Bind {
            path: text("volumes/v"),
            recursive: false,
            idmap: IdMapping::Container { recursive: false },
            create: None,
        },
        flags: MountFlags::default(),
    });
    container
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
        format!("fill volume {} from /srv of the image: ENOENT", site.path().join("volumes/v").display())
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
