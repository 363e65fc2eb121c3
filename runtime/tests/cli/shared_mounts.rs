//! Containers without a mount namespace: their mounts are the caller's.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use libtest_mimic::Trial;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use serde_json::json;

use crate::faults::survives_kills_during_create;
use crate::site::{Site, place, shell, until};
use crate::trials;

pub fn tests() -> Vec<Trial> {
    trials![
        it_is_in_the_caller_s_mount_namespace_and_its_root_is_its_own,
        its_mounts_end_with_it,
        what_was_mounted_there_before_stays,
        a_root_beneath_a_shared_mount_keeps_its_mounts_to_itself,
        another_process_finds_its_root,
        a_container_of_no_namespaces_is_entered,
        hooks_find_its_mounts,
        a_failing_start_leaves_no_mount,
        a_runtime_killed_at_any_step_of_create_leaves_no_mount,
        what_can_t_be_is_refused,
    ]
}

/// A bundle with a root that no other test mounts on.
fn sharing(script: &str) -> Site {
    let site = shell(script).change(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "mount");
    });
    let root = root(&site);
    let copied = Command::new("cp").arg("-a").arg(place().rootfs()).arg(&root).status().unwrap();
    assert!(copied.success());
    site.change(|c| c["root"]["path"] = json!(root))
}

fn root(site: &Site) -> PathBuf {
    site.directory.join("rootfs")
}

/// Mount points on and beneath its root, as this process sees them.
fn mounts(site: &Site) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = root(site).to_str().unwrap().to_owned();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4).map(str::to_owned));
    points.filter(|point| *point == root || point.starts_with(&format!("{root}/"))).collect()
}

fn it_is_in_the_caller_s_mount_namespace_and_its_root_is_its_own() {
    let site =
        sharing("readlink /proc/self/ns/mnt; ls /; touch /writable; touch /proc/sys/kernel/panic; ls /sys/firmware");
    let done = site.run(&["run", &site.id]);
    let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
    let names: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(names, [own.to_str().unwrap(), "bin", "dev", "etc", "proc", "run", "sys", "tmp"], "{done:?}");
    // Read-only and masked as in any container.
    assert!(done.stderr.contains("/writable: Read-only file system"), "{done:?}");
    assert!(done.stderr.contains("warning: no mount namespace"), "{done:?}");
    assert_eq!(mounts(&site), [""; 0]);
    // Whoever has a mount namespace is in another.
    let other = shell("readlink /proc/self/ns/mnt");
    assert_ne!(other.ok(&["run", &other.id]).trim(), own.to_str().unwrap());
}

fn its_mounts_end_with_it() {
    let site = sharing("sleep 60");
    site.create(&[]);
    let root = root(&site).to_str().unwrap().to_owned();
    for point in ["", "/proc", "/dev", "/dev/pts", "/sys"] {
        assert!(mounts(&site).contains(&format!("{root}{point}")), "{:?}", mounts(&site));
    }
    site.ok(&["start", &site.id]);
    site.ok(&["kill", &site.id, "KILL"]);
    site.wait_for("stopped");
    assert!(!mounts(&site).is_empty());
    site.ok(&["delete", &site.id]);
    assert_eq!(mounts(&site), [""; 0]);
    site.assert_gone();
}

fn what_was_mounted_there_before_stays() {
    let site = sharing("sleep 60");
    let root = root(&site);
    let before = |what: &str| assert_eq!(mounts(&site), [root.to_str().unwrap()], "{what}");
    rustix::mount::mount_bind(&root, &root).unwrap();
    before("mounted here");
    site.create(&[]);
    site.ok(&["delete", "--force", &site.id]);
    before("after it was deleted");
    // Somebody else takes the container's mounts away: the one beneath isn't taken for them.
    site.create(&[]);
    rustix::mount::unmount(&root, UnmountFlags::DETACH).unwrap();
    site.ok(&["delete", "--force", &site.id]);
    before("after its own were gone");
    rustix::mount::unmount(&root, UnmountFlags::DETACH).unwrap();
}

fn a_root_beneath_a_shared_mount_keeps_its_mounts_to_itself() {
    let site = sharing("sleep 60");
    rustix::mount::mount_bind(&site.directory, &site.directory).unwrap();
    rustix::mount::mount_change(&site.directory, MountPropagationFlags::SHARED).unwrap();
    site.create(&[]);
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = root(&site).to_str().unwrap().to_owned();
    let kept = table.lines().filter(|line| line.contains(&root) && line.contains("shared:")).count();
    site.ok(&["delete", "--force", &site.id]);
    let left = mounts(&site);
    rustix::mount::unmount(&site.directory, UnmountFlags::DETACH).unwrap();
    assert_eq!((kept, left), (0, Vec::new()), "{table}");
}

fn another_process_finds_its_root() {
    let site = sharing("sleep 60");
    site.create(&[]);
    site.ok(&["start", &site.id]);
    assert_eq!(site.ok(&["exec", &site.id, "/bin/ls", "/"]), "bin\ndev\netc\nproc\nrun\nsys\ntmp\n");
    let inode = site.ok(&["exec", "--cwd", "/etc", &site.id, "/bin/stat", "-c", "%i", "."]);
    assert_eq!(inode.trim(), std::fs::metadata(root(&site).join("etc")).unwrap().ino().to_string());
}

/// `linux` may be missing altogether.
fn a_container_of_no_namespaces_is_entered() {
    let site = sharing("sleep 1000").change(|c| {
        let c = c.as_object_mut().unwrap();
        for key in ["linux", "mounts", "hostname"] {
            c.remove(key);
        }
    });
    site.create(&[]);
    site.ok(&["start", &site.id]);
    assert_eq!(
        site.ok(&["exec", &site.id, "/bin/sh", "-c", "echo in; ls /"]).lines().take(2).collect::<Vec<_>>(),
        ["in", "bin"]
    );
}

fn hooks_find_its_mounts() {
    let site = sharing("true").change(|c| {
        let seen = "ls -d \"$PWD/rootfs/proc/self\" > hook";
        let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", seen]}]);
        c["hooks"]["createRuntime"] = hook;
    });
    site.ok(&["run", &site.id]);
    let seen = std::fs::read_to_string(site.directory.join("hook")).unwrap();
    assert!(seen.ends_with("rootfs/proc/self\n"), "{seen}");
    assert_eq!(mounts(&site), [""; 0]);
}

fn a_failing_start_leaves_no_mount() {
    let site = sharing("true").change(|c| c["process"]["args"] = json!(["/bin/absent"]));
    let error = site.fails(&["run", &site.id]);
    assert!(error.contains("/bin/absent"), "{error}");
    assert_eq!(mounts(&site), [""; 0]);
    site.assert_gone();
    let site = sharing("true").change(|c| {
        c["mounts"].as_array_mut().unwrap().push(json!({"destination": "/tmp", "type": "absent-fs", "source": "x"}));
    });
    site.fails(&["run", &site.id]);
    assert_eq!(mounts(&site), [""; 0]);
    site.assert_gone();
}

fn a_runtime_killed_at_any_step_of_create_leaves_no_mount() {
    survives_kills_during_create(&sharing("sleep 60"), |site, when| assert_eq!(mounts(site), [""; 0], "{when}"));
}

fn what_can_t_be_is_refused() {
    let site = sharing("true").with_user_namespace();
    let error = site.fails(&["run", &site.id]);
    assert!(error.contains("linux.namespaces: a user namespace has no right to mount anything"), "{error}");
    let site = sharing("true").change(|c| c["root"]["path"] = json!("/"));
    let error = site.fails(&["run", &site.id]);
    assert!(error.contains("root.path: / without a mount namespace"), "{error}");
    let site = sharing("sleep 60");
    site.create(&[]);
    site.ok(&["start", &site.id]);
    until("it runs", || site.status() == "running");
    let error = site.fails(&["checkpoint", "--image-path", "images", &site.id]);
    assert!(error.contains("linux.namespaces: a container without a mount namespace"), "{error}");
}
