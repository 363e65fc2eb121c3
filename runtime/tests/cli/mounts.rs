//! Mounts whose paths have to do with where the root is: on it, in it, and by its path outside.

use std::fs::{create_dir_all, write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::site::{Site, finish, place, shell};
use crate::trials;

pub fn tests() -> Vec<Trial> {
    trials![
        a_source_in_the_root_has_the_mounts_before_it,
        a_source_in_the_root_leads_nowhere_else,
        a_destination_by_its_path_outside_is_in_the_root,
        files_and_directories_do_not_cover_each_other,
        proc_is_covered_by_nothing_but_its_like,
        a_mount_on_the_root_is_the_root,
        roots_cover_each_other,
        a_root_is_not_covered_for_others,
        a_link_to_the_root_covers_nothing,
        a_root_that_comes_late_has_its_devices,
        nodes_are_not_the_caller_s_group_s,
    ]
}

fn nodes_are_not_the_caller_s_group_s() {
    let site = shell("busybox stat -c %u:%g /dev/null /dev/tty");
    let mut command = site.command(&["run", &site.id]);
    command.gid(5);
    assert_eq!(finish(command).stdout, "0:0\n0:0\n");
}

/// A bundle with a root of its own.
fn own_root(script: &str) -> Site {
    let site = shell(script);
    let root = root(&site);
    let copied = Command::new("cp").arg("-a").arg(place().rootfs()).arg(&root).status().unwrap();
    assert!(copied.success());
    site.change(|c| c["root"] = json!({"path": "rootfs"}))
}

fn root(site: &Site) -> PathBuf {
    site.directory.join("rootfs")
}

/// In a user namespace to whose root the root belongs.
fn in_user_namespace(site: Site) -> Site {
    let owned = Command::new("chown").args(["-R", "1000000:1000000"]).arg(root(&site)).status().unwrap();
    assert!(owned.success());
    site.with_user_namespace()
}

fn mount(site: Site, mount: Value) -> Site {
    site.change(|c| c["mounts"].as_array_mut().unwrap().push(mount))
}

/// In front of all the others.
fn first(site: Site, mount: Value) -> Site {
    site.change(|c| c["mounts"].as_array_mut().unwrap().insert(0, mount))
}

/// A directory outside with a file in it.
fn outside(site: &Site) -> PathBuf {
    let directory = site.directory.join("outside");
    create_dir_all(&directory).unwrap();
    write(directory.join("file"), "from outside\n").unwrap();
    directory
}

fn tmpfs(destination: &str) -> Value {
    json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"})
}

fn a_source_in_the_root_has_the_mounts_before_it() {
    for user in [false, true] {
        let mut site = own_root("cat /data/file /again/file /plain/file");
        for directory in ["data", "plain-source"] {
            create_dir_all(root(&site).join(directory)).unwrap();
            write(root(&site).join(directory).join("file"), "of the root\n").unwrap();
        }
        let outside = outside(&site);
        let root = root(&site);
        site = mount(site, json!({"destination": "/data", "source": outside, "options": ["bind"]}));
        site = mount(site, json!({"destination": "/again", "source": root.join("data"), "options": ["rbind", "ro"]}));
        // On which nothing is mounted: as any other source.
        site = mount(site, json!({"destination": "/plain", "source": root.join("plain-source"), "options": ["bind"]}));
        let site = if user { in_user_namespace(site) } else { site };
        let text = site.ok(&["run", &site.id]);
        assert_eq!(text, "from outside\nfrom outside\nof the root\n", "user namespace: {user}");
    }
    // Mounted after it, it isn't there yet.
    let mut site = own_root("cat /again/file");
    create_dir_all(root(&site).join("data")).unwrap();
    write(root(&site).join("data/file"), "of the root\n").unwrap();
    let (outside, data) = (outside(&site), root(&site).join("data"));
    site = mount(site, json!({"destination": "/again", "source": data, "options": ["bind"]}));
    site = mount(site, json!({"destination": "/data", "source": outside, "options": ["bind"]}));
    assert_eq!(site.ok(&["run", &site.id]), "of the root\n");
}

fn a_source_in_the_root_leads_nowhere_else() {
    let site = own_root("cat /again/file");
    let secret = site.directory.join("secret");
    create_dir_all(&secret).unwrap();
    write(secret.join("file"), "of the machine\n").unwrap();
    create_dir_all(root(&site).join("data")).unwrap();
    let volume = outside(&site);
    // What is mounted first has a link that leads out of the root. For a path outside it does so.
    std::os::unix::fs::symlink(&secret, volume.join("link")).unwrap();
    assert_eq!(std::fs::read_to_string(volume.join("link/file")).unwrap(), "of the machine\n");
    let source = root(&site).join("data/link");
    let site = mount(site, json!({"destination": "/data", "source": volume, "options": ["bind"]}));
    let site = mount(site, json!({"destination": "/again", "source": source, "options": ["bind"]}));
    let error = site.fails(&["run", &site.id]);
    assert!(error.contains("/data/link of the container on /again: no such file or directory (ENOENT)"), "{error}");
}

fn a_destination_by_its_path_outside_is_in_the_root() {
    let site = own_root("cat /data/file; ls -A /work 2>&1");
    let (outside, destination) = (outside(&site), root(&site).join("data"));
    let site = mount(site, json!({"destination": destination, "source": outside, "options": ["bind"]}));
    let done = site.run(&["run", &site.id]);
    assert!(done.stdout.starts_with("from outside\n"), "{done:?}");
    assert!(done.stderr.contains("warning: mounts[") && done.stderr.contains("taken for /data"), "{done:?}");
    assert!(root(&site).join("data").is_dir());
    // A name that only begins alike is another one.
    let site = own_root("ls -d /data");
    let destination = format!("{}-more/data", root(&site).display());
    let site = mount(site, tmpfs(&destination));
    let done = site.run(&["run", &site.id]);
    assert!(done.stderr.contains("/data: No such file"), "{done:?}");
}

/// Docker adds its own advice to an error that has these words.
fn files_and_directories_do_not_cover_each_other() {
    let bound = |source: &str, destination: &str| {
        let site = own_root("cat /plain");
        write(root(&site).join("plain"), "").unwrap();
        let source = outside(&site).join(source);
        mount(site, json!({"destination": destination, "source": source, "options": ["bind"]}))
    };
    for (source, destination) in [("file", "/etc"), ("", "/plain")] {
        let site = bound(source, destination);
        let error = site.fails(&["run", &site.id]);
        let words = "not a directory (ENOTDIR): a directory can't be mounted over a file";
        assert!(error.contains(&format!("{destination}: {words}")), "{error}");
    }
    let site = bound("file", "/plain");
    assert_eq!(site.ok(&["run", &site.id]), "from outside\n", "control");
}

/// What programs read of themselves stays the kernel's; what LXCFS has files for doesn't.
fn proc_is_covered_by_nothing_but_its_like() {
    type Of<'a> = &'a dyn Fn(&Site) -> Value;
    let run = |user_namespace: bool, of: Of<'_>| {
        let site = own_root("cat /proc/meminfo; grep -c ^Name: /proc/self/status");
        std::os::unix::fs::symlink("/proc/self", root(&site).join("link")).unwrap();
        let added = of(&site);
        let site = mount(if user_namespace { in_user_namespace(site) } else { site }, added);
        let done = site.run(&["run", &site.id]);
        (done.status, done.stdout, done.stderr)
    };
    let bind = |site: &Site, source: &str, destination: &str| json!({"destination": destination, "source": outside(site).join(source), "options": ["bind"]});
    let refused: [(&str, Of<'_>); 6] = [
        ("/proc", &|_| tmpfs("/proc")),
        ("/proc", &|site| bind(site, "", "/proc")),
        ("/proc", &|site| bind(site, "/proc/self", "/proc")),
        ("/proc/sys", &|_| tmpfs("/proc/sys")),
        ("/proc/self/status", &|site| bind(site, "file", "/proc/self/status")),
        ("/link/attr", &|_| tmpfs("/link/attr")),
    ];
    for (destination, of) in refused {
        let (status, _, error) = run(false, of);
        let expected = match destination {
            // A link on the way.
            "/proc/self/status" => "ELOOP".to_owned(),
            _ => format!("mount target {destination}, which is of /proc: operation not permitted (EPERM)"),
        };
        assert!(status == 1 && error.contains(&expected), "{destination}: {error}");
    }
    for user_namespace in [false, true] {
        let (_, output, error) = run(user_namespace, &|site| bind(site, "file", "/proc/meminfo"));
        assert_eq!(output, "from outside\n1\n", "{error}");
    }
    let machine_s = |_: &Site| json!({"destination": "/proc", "source": "/proc", "options": ["rbind"]});
    let (status, output, error) = run(false, &machine_s);
    assert!(status == 0 && output.starts_with("MemTotal:"), "control: {error}");
}

fn a_mount_on_the_root_is_the_root() {
    let script =
        "echo new > /new && cat /new /bin/../new && stat -f -c %T / && ls /dev/null /proc/self/status && ls -d /..";
    let covered = || {
        let site = own_root(script).change(|c| c["root"]["readonly"] = json!(false));
        first(site, json!({"destination": "/", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}))
    };
    // With a hook the root is at its own path meanwhile.
    let hook = |site: Site| {
        site.change(|c| c["hooks"] = json!({"createContainer": [{"path": "/bin/true", "args": ["true"]}]}))
    };
    for (site, more) in [
        (covered(), None),
        (in_user_namespace(covered()), None),
        (hook(covered()), None),
        (covered(), Some("--no-pivot")),
        (in_user_namespace(covered()), Some("--no-pivot")),
    ] {
        let arguments: Vec<&str> = ["run"].into_iter().chain(more).chain([site.id.as_str()]).collect();
        assert_eq!(site.ok(&arguments), "new\nnew\ntmpfs\n/dev/null\n/proc/self/status\n/..\n", "{:?}", site.config);
        assert!(!root(&site).join("new").exists());
    }
    // Read-only, when the others have their places on it.
    let site = own_root("touch /new; ls /dev/null");
    let ro = json!({"destination": "/", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "ro"]});
    let site = first(site, ro).change(|c| c["root"]["readonly"] = json!(false));
    let done = site.run(&["run", &site.id]);
    assert!(done.stderr.contains("Read-only") && done.stdout == "/dev/null\n", "{done:?}");
}

fn roots_cover_each_other() {
    let site = own_root("cat /file && ls -d /.. && cat /proc/self/mountinfo | wc -l");
    let other = site.directory.join("other");
    let copied = Command::new("cp").arg("-a").arg(place().rootfs()).arg(&other).status().unwrap();
    assert!(copied.success());
    write(other.join("file"), "of the other root\n").unwrap();
    let plain = own_root("cat /proc/self/mountinfo | wc -l");
    let mounts: usize = plain.ok(&["run", &plain.id]).trim().parse().unwrap();
    let site = first(site, json!({"destination": "/", "source": other, "options": ["rbind", "rprivate"]}));
    let site = first(site, tmpfs("/"));
    let site = first(site, tmpfs("/"));
    let text = site.ok(&["run", &site.id]);
    // What is covered has gone.
    assert_eq!(text, format!("of the other root\n/..\n{mounts}\n"));
}

fn a_root_is_not_covered_for_others() {
    let site = own_root("true").change(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "mount");
    });
    let error = first(site, tmpfs("/"));
    let error = error.fails(&["run", &error.id]);
    assert!(error.contains("mounts[/]") && error.contains("mount namespace"), "{error}");
}

/// What is mounted by way of it lies on the root, where `/..` leads to it; the same directory looks like the root itself.
fn a_link_to_the_root_covers_nothing() {
    let site = own_root("touch /../made");
    let root = root(&site);
    std::os::unix::fs::symlink("/", root.join("link")).unwrap();
    for source in [root.clone(), outside(&site)] {
        let site = own_root("touch /../made").change(|c| c["root"] = json!({"path": root, "readonly": true}));
        let site = mount(site, json!({"destination": "/link", "source": source, "options": ["bind"]}));
        let error = site.fails(&["run", &site.id]);
        assert!(error.contains("away from what lies on the new root"), "{error}");
    }
    assert!(!root.join("made").exists());
}

fn a_root_that_comes_late_has_its_devices() {
    let late = |user: bool| {
        let site = own_root("echo > /dev/null && ls /dev/zero");
        let site = if user { in_user_namespace(site) } else { site };
        let other = json!({"destination": "/", "source": root(&site), "options": ["rbind", "rprivate"]});
        mount(site, other)
    };
    for user in [false, true] {
        let site = late(user);
        assert_eq!(site.ok(&["run", &site.id]), "/dev/zero\n", "{user}");
        // Nothing of what was written to it is a file.
        assert!(!root(&site).join("dev/null").metadata().is_ok_and(|file| file.len() > 0));
    }
}
