//! `root`, `mounts`, `linux.devices`, propagation.

use std::os::unix::fs::MetadataExt;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{BASE, bundle, line, mounted, options, unmount};
use crate::site::scratch;

pub fn tests() -> Vec<Trial> {
    trials![
        the_default_filesystems_are_there,
        attributes_of_a_bind_mount_are_set_and_cleared,
        recursive_attributes_reach_what_is_beneath,
        propagation_is_as_asked_for_and_private_otherwise,
        what_a_propagation_leaves_out_passes_nothing_back,
        the_root_has_its_propagation,
        a_read_only_root_is_read_only,
        a_tmpfs_shows_what_it_covers,
        a_tmpfs_that_shows_what_it_covers_is_as_stated_itself,
        a_place_is_made_in_a_read_only_mount_for_what_lies_there,
        an_overlay_of_long_paths_has_attributes_too,
        a_tmpfs_without_a_mode_has_that_of_what_it_covers,
        a_read_only_dev_has_all_that_belongs_in_it,
        nodes_are_root_s_whatever_dev_passes_on,
        files_links_and_relative_destinations_are_mounted_on,
        an_existing_mount_is_changed,
        a_mount_has_a_mapping_of_its_own,
        data_options_go_to_the_filesystem,
        options_may_be_longer_than_fsconfig_takes_them,
        without_dev_the_nodes_are_made_in_the_root,
        declared_devices_are_as_declared,
        a_file_in_a_device_s_place_is_an_error,
        a_default_device_may_be_declared_otherwise,
        ptmx_may_be_declared_although_it_is_a_link,
        filesystems_of_the_machine_s_namespaces_are_bound,
    ]
}

const INFO: &str = "cat /proc/self/mountinfo";

fn bind(destination: &str, source: &std::path::Path, flags: &[&str]) -> Value {
    json!({"destination": destination, "source": source, "type": "none", "options": flags})
}

fn the_default_filesystems_are_there() {
    for user in [false, true] {
        let script = format!(
            "for d in null zero full random urandom tty ptmx fd stdin stdout stderr; do [ -e /dev/$d ] || echo missing $d; done; {INFO}"
        );
        let config =
            bundle("defaults", &script).mount(json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm"}));
        let text = if user { config.in_user_namespace() } else { config }.output();
        assert!(!text.contains("missing"), "{text}");
        for (target, kind) in [("/proc", "proc"), ("/sys", "sysfs"), ("/dev/pts", "devpts"), ("/dev/shm", "tmpfs")] {
            assert!(line(&text, target).contains(&format!(" - {kind} ")), "{target}: {text}");
        }
    }
}

fn attributes_of_a_bind_mount_are_set_and_cleared() {
    let source = mounted("attributes");
    let of = |flags: &[&str]| {
        let all: Vec<&str> = ["bind"].iter().chain(flags).copied().collect();
        options(&bundle("attributes", INFO).mount(bind("/x", &source, &all)).output(), "/x")
    };
    let has = |flags: &[&str], option: &str| of(flags).contains(&option.to_owned());
    for option in ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow"] {
        assert!(!has(&[], option), "{option} by itself");
        assert!(has(&[option], option), "{option}");
    }
    assert!(has(&[], "relatime") && has(&["relatime"], "relatime") && has(&["noatime", "atime"], "relatime"));
    let strict = of(&["strictatime"]);
    assert!(!strict.iter().any(|o| o.ends_with("atime")), "{strict:?}");
    rustix::mount::mount_remount(&source, rustix::mount::MountFlags::BIND | rustix::mount::MountFlags::NOEXEC, "")
        .unwrap();
    assert!(has(&[], "noexec"), "what isn't said is the source's");
    assert!(!has(&["exec"], "noexec"));
    unmount(&source);
}

fn recursive_attributes_reach_what_is_beneath() {
    let source = mounted("recursive");
    let of = |flags: &[&str]| {
        let text = bundle("recursive", INFO).mount(bind("/x", &source, flags)).output();
        (options(&text, "/x"), options(&text, "/x/beneath"))
    };
    let (top, beneath) = of(&["rbind", "ro", "nosuid"]);
    assert!(top.contains(&"ro".to_owned()) && beneath.contains(&"rw".to_owned()), "{top:?} {beneath:?}");
    let (top, beneath) = of(&["rbind", "rro", "rnosuid", "rnodev", "rnoexec", "rnoatime", "rnosymfollow"]);
    for option in ["ro", "nosuid", "nodev", "noexec", "noatime", "nosymfollow"] {
        assert!(top.contains(&option.to_owned()) && beneath.contains(&option.to_owned()), "{option}: {beneath:?}");
    }
    let (_, beneath) = of(&["rbind", "rro", "rrw"]);
    assert!(beneath.contains(&"rw".to_owned()));
    // Without the recursion of the bind there is nothing beneath.
    let text = bundle("flat", "ls /x/beneath | wc -l; grep -c ' /x/beneath ' /proc/self/mountinfo; true")
        .mount(bind("/x", &source, &["bind", "rro"]))
        .output();
    assert_eq!(text, "0\n0\n");
    unmount(&source);
}

fn propagation_is_as_asked_for_and_private_otherwise() {
    let source = mounted("propagation");
    std::fs::create_dir(source.join("made")).unwrap();
    let reaches_out = |flags: &[&str]| {
        let script = format!("mount -t tmpfs inside /x/made; {INFO}");
        let root = if flags.contains(&"rshared") { "shared" } else { "private" };
        let config = bundle("propagation", &script).set("/linux/rootfsPropagation", json!(root));
        let text = config.mount(bind("/x", &source, flags)).output();
        let outside = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let reached = outside.lines().any(|line| line.contains(" - tmpfs inside "));
        if reached {
            unmount(&source.join("made"));
        }
        (reached, line(&text, "/x").to_owned())
    };
    let (reached, info) = reaches_out(&["rbind"]);
    assert!(!reached && !info.contains("shared:") && !info.contains("master:"), "private: {info}");
    let (reached, info) = reaches_out(&["rbind", "rslave"]);
    assert!(!reached && info.contains("master:"), "slave: {info}");
    let (reached, info) = reaches_out(&["rbind", "rshared"]);
    assert!(reached && info.contains("shared:"), "shared: {info}");
    let (reached, info) = reaches_out(&["bind", "unbindable"]);
    assert!(!reached && info.contains("unbindable"), "unbindable: {info}");
    unmount(&source);
}

fn what_a_propagation_leaves_out_passes_nothing_back() {
    let source = mounted("left-out");
    let below = source.join("beneath/made");
    std::fs::create_dir(&below).unwrap();
    let reaches_out = |word: &str| {
        let script = format!("mount -t tmpfs below /x/beneath/made; {INFO}");
        let root = if word == "rshared" { "shared" } else { "private" };
        let config = bundle("left-out", &script).set("/linux/rootfsPropagation", json!(root));
        let text = config.mount(bind("/x", &source, &["rbind", word])).output();
        let outside = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let reached = outside.lines().any(|line| line.contains(" - tmpfs below "));
        if reached {
            unmount(&below);
        }
        (reached, line(&text, "/x/beneath").to_owned())
    };
    for word in ["slave", "private", "unbindable"] {
        let (reached, info) = reaches_out(word);
        assert!(!reached && info.contains("master:") && !info.contains("shared:"), "{word}: {info}");
    }
    // Which would be to share with the machine, had the container's root not been kept from it.
    let (reached, info) = reaches_out("shared");
    assert!(!reached && info.contains("master:") && !info.contains("shared:"), "{info}");
    let (reached, info) = reaches_out("rshared");
    assert!(reached && info.contains("shared:"), "the control: {info}");
    unmount(&source);
}

fn the_root_has_its_propagation() {
    let of = |propagation: &str| {
        let text = bundle("root", INFO).set("/linux/rootfsPropagation", json!(propagation)).output();
        line(&text, "/").to_owned()
    };
    assert!(of("shared").contains(" shared:") && of("rshared").contains(" shared:"));
    assert!(of("unbindable").contains(" unbindable "));
    for quiet in ["private", "rprivate", ""] {
        assert!(!of(quiet).contains("shared:") && !of(quiet).contains("master:"), "{quiet}");
    }
    // A slave needs a master: the mount that the bundle lies on.
    let shared = mounted("slave-root");
    let rootfs = shared.join("rootfs");
    let base = bundle("slave", INFO);
    let copied = std::process::Command::new("cp").arg("-a").arg(base.rootfs()).arg(&rootfs).status().unwrap();
    assert!(copied.success());
    let text = base.set("/root/path", json!(rootfs)).set("/linux/rootfsPropagation", json!("slave")).output();
    assert!(line(&text, "/").contains(" master:"), "{text}");
    unmount(&shared);
}

fn a_read_only_root_is_read_only() {
    let script = "echo > /file; echo > /dev/null && echo > /tmp/file && ls /tmp /made";
    let config = bundle("readonly", script)
        .set("/root/readonly", json!(true))
        .mount(json!({"destination": "/tmp", "type": "tmpfs"}))
        .mount(json!({"destination": "/made/for/it", "type": "tmpfs"}));
    let text = config.output();
    assert!(
        text.contains("can't create /file: Read-only file system") && text.ends_with("/made:\nfor\n\n/tmp:\nfile\n"),
        "{text}"
    );
    assert!(!bundle("writable", "echo > /file").output().contains("Read-only"));
}

fn a_tmpfs_shows_what_it_covers() {
    let config = bundle(
        "copyup",
        "cat /data/sub/file; stat -c '%a %u %g' /data /data/sub/file; readlink /data/link; echo more > /data/new; ls /plain",
    );
    let data = config.rootfs().join("data");
    for directory in [&data, &config.rootfs().join("plain")] {
        std::fs::create_dir_all(directory.join("sub")).unwrap();
        std::fs::write(directory.join("sub/file"), "covered\n").unwrap();
    }
    std::os::unix::fs::symlink("sub/file", data.join("link")).unwrap();
    std::os::unix::fs::chown(data.join("sub/file"), Some(33), Some(44)).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o750);
    std::fs::set_permissions(&data, mode).unwrap();
    let text = config
        .mount(json!({"destination": "/data", "type": "tmpfs", "options": ["tmpcopyup", "size=1m"]}))
        .mount(json!({"destination": "/plain", "type": "tmpfs"}))
        .output();
    assert_eq!(text, "covered\n750 0 0\n644 33 44\nsub/file\n");
    assert!(!data.join("new").exists());
}

/// As with Podman's secrets in a container whose root is read-only.
fn a_place_is_made_in_a_read_only_mount_for_what_lies_there() {
    let config = bundle("ro-first", "cat /tmp/outer/new; touch /tmp/outer/other || echo closed");
    let (outer, file) = (config.directory.join("outer"), config.directory.join("file"));
    std::fs::create_dir(&outer).unwrap();
    std::fs::write(&file, "secret\n").unwrap();
    let bind = |source: &std::path::Path, target: &str| json!({"destination": target, "source": source, "options": ["bind", "ro"]});
    let text = config.mount(bind(&outer, "/tmp/outer")).mount(bind(&file, "/tmp/outer/new")).output();
    assert!(text.starts_with("secret\n") && text.ends_with("closed\n"), "{text}");
    assert!(outer.join("new").exists() && !outer.join("other").exists());
}

/// fsconfig(2) takes no option of such a length.
fn an_overlay_of_long_paths_has_attributes_too() {
    let config = bundle(
        "long-overlay",
        "cat /tmp/shown/file; touch /tmp/shown/x || echo closed; grep ' /tmp/shown ' /proc/self/mountinfo",
    );
    let lower = config.directory.join("l".repeat(150)).join("m".repeat(150));
    std::fs::create_dir_all(&lower).unwrap();
    std::fs::create_dir_all(config.directory.join("second")).unwrap();
    std::fs::write(lower.join("file"), "below\n").unwrap();
    let layers = format!("lowerdir={}:{}", lower.display(), config.directory.join("second").display());
    let overlay = json!({"destination": "/tmp/shown", "type": "overlay", "source": "overlay", "options": [layers, "private", "ro", "noatime"]});
    let text = config.mount(overlay).output();
    assert!(text.starts_with("below\n") && text.contains("closed\n") && text.contains(" ro,noatime "), "{text}");
}

/// Podman says so of each tmpfs that it makes.
fn a_tmpfs_that_shows_what_it_covers_is_as_stated_itself() {
    let attributes = |target: &str, options: &[&str]| {
        let config = bundle("copyup-own", &format!("stat -c '%a %u %g' {target}; ls {target}"));
        let covered = config.rootfs().join("tmp/covered");
        std::fs::create_dir_all(covered.join("sub")).unwrap();
        std::os::unix::fs::chown(&covered, Some(33), Some(44)).unwrap();
        config.mount(json!({"destination": target, "type": "tmpfs", "options": options})).output()
    };
    assert_eq!(attributes("/tmp/absent", &["tmpcopyup"]), "1777 0 0\n");
    assert_eq!(attributes("/tmp/covered", &["tmpcopyup"]), "755 33 44\nsub\n");
    assert_eq!(attributes("/tmp/covered", &["tmpcopyup", "mode=1770", "uid=7", "gid=8"]), "1770 7 8\nsub\n");
}

fn a_tmpfs_without_a_mode_has_that_of_what_it_covers() {
    let mode = |options: &[&str]| {
        let mount = json!({"destination": "/tmp/deep", "type": "tmpfs", "source": "tmpfs", "options": options});
        let config = bundle("tmpfs-mode", "stat -c %a /tmp/deep").mount(mount);
        let covered = config.directory.join("rootfs/tmp/deep");
        std::fs::create_dir_all(&covered).unwrap();
        std::fs::set_permissions(&covered, std::os::unix::fs::PermissionsExt::from_mode(0o2710)).unwrap();
        config.output()
    };
    assert_eq!(mode(&["nosuid"]), "2710\n");
    assert_eq!(mode(&["mode=751"]), "751\n");
}

fn a_read_only_dev_has_all_that_belongs_in_it() {
    let shm = json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["mode=1777"]});
    let script = "[ -c /dev/null ] && [ -c /dev/fuse ] && touch /dev/shm/x && echo there; touch /dev/x || echo closed";
    let text = bundle("ro-dev", script)
        .set("/mounts/1/options", json!(["nosuid", "mode=755", "ro"]))
        .mount(shm)
        .push("/linux/devices", json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}))
        .output();
    assert!(text.starts_with("there\n") && text.ends_with("closed\n"), "{text}");
}

fn nodes_are_root_s_whatever_dev_passes_on() {
    let script = "stat -c '%u:%g:%a' /dev/null /dev/tty; mknod /dev/pipe p && stat -c %g /dev/pipe";
    let device = json!({"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o4666});
    for (options, of_new) in [(json!(["mode=755"]), "0"), (json!(["mode=2755", "gid=7"]), "7")] {
        // The control is what the program makes itself.
        let text =
            bundle("nodes", script).set("/mounts/1/options", options).push("/linux/devices", device.clone()).output();
        assert_eq!(text, format!("0:0:666\n0:0:666\n{of_new}\n"));
    }
}

fn ptmx_may_be_declared_although_it_is_a_link() {
    let device = json!({"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2});
    let script = "readlink /dev/ptmx; stat -Lc '%t %T' /dev/ptmx";
    assert_eq!(bundle("ptmx", script).push("/linux/devices", device).output(), "pts/ptmx\n5 2\n");
}

fn files_links_and_relative_destinations_are_mounted_on() {
    let source = scratch("onto");
    std::fs::write(source.join("file"), "from outside\n").unwrap();
    let config = bundle("onto", "cat /etc/file /made/file /run/seen/file; ls -d /relative/x; cat /up");
    std::fs::write(config.rootfs().join("etc/file"), "covered\n").unwrap();
    std::fs::create_dir_all(config.rootfs().join("run/seen")).unwrap();
    std::fs::create_dir_all(config.rootfs().join("var")).unwrap();
    std::os::unix::fs::symlink("/run", config.rootfs().join("var/run")).unwrap();
    // A link that would lead out of the root leads to its top.
    std::os::unix::fs::symlink("../../../../up", config.rootfs().join("var/up")).unwrap();
    std::fs::create_dir_all(config.directory.join("of-bundle")).unwrap();
    std::fs::write(config.directory.join("of-bundle/file"), "of the bundle\n").unwrap();
    let text = config
        .mount(bind("/etc/file", &source.join("file"), &["bind"]))
        .mount(bind("/made/file", &source.join("file"), &["bind", "ro"]))
        .mount(json!({"destination": "/var/run/seen", "source": "of-bundle", "options": ["rbind"]}))
        .mount(json!({"destination": "relative/x", "type": "tmpfs"}))
        .mount(bind("/var/up", &source.join("file"), &["bind"]))
        .output();
    assert_eq!(text, "from outside\nfrom outside\nof the bundle\n/relative/x\nfrom outside\n");
}

fn an_existing_mount_is_changed() {
    let text = bundle("existing", INFO)
        .mount(json!({"destination": "/x", "type": "tmpfs", "options": ["size=1m", "noexec", "noatime"]}))
        .mount(json!({"destination": "/x", "type": "tmpfs", "options": ["remount", "size=2m", "nosuid"]}))
        .mount(json!({"destination": "/y", "type": "tmpfs"}))
        .mount(json!({"destination": "/y", "options": ["remount", "bind", "ro"]}))
        .mount(json!({"destination": "/y", "type": "none", "options": ["rshared"]}))
        .output();
    let x = line(&text, "/x");
    assert!(x.contains("size=2048k") && x.contains("nosuid") && !x.contains("noexec"), "{x}");
    assert!(x.contains("noatime"), "{x}");
    let y = line(&text, "/y");
    assert!(y.contains(" ro,") && y.contains(" shared:"), "{y}");
    let refusal =
        bundle("absent", "true").mount(json!({"destination": "/none", "options": ["remount", "ro"]})).refusal();
    assert!(refusal.contains("/none"), "{refusal}");
}

fn a_mount_has_a_mapping_of_its_own() {
    let source = scratch("mapped");
    std::fs::write(source.join("file"), "").unwrap();
    std::os::unix::fs::chown(source.join("file"), Some(5), Some(6)).unwrap();
    let map = |inside: u32, outside: u32| json!([{"containerID": inside, "hostID": outside, "size": 1}]);
    let own = |option: &str| {
        json!({"destination": "/x", "source": source, "options": ["bind", option],
               "uidMappings": map(5, BASE + 70), "gidMappings": map(6, BASE + 80)})
    };
    for option in ["idmap", "ridmap"] {
        let text = bundle("mapped", "stat -c '%u %g' /x/file").in_user_namespace().mount(own(option)).output();
        assert_eq!(text, "70 80\n");
    }
    // The same as an option, its ids outside said and by those of the container.
    for option in ["idmap=uids=5-1000070-1;gids=6-1000080-1", "ridmap=uids=@5-70-1;gids=@6-80-1"] {
        let mount = json!({"destination": "/x", "source": source, "options": ["bind", option]});
        let text = bundle("mapped", "stat -c '%u %g' /x/file").in_user_namespace().mount(mount).output();
        assert_eq!(text, "70 80\n", "{option}");
    }
    // The container's own mapping, and none at all.
    let stat = |flags: &[&str]| {
        bundle("mapped", "stat -c '%u %g' /x/file").in_user_namespace().mount(bind("/x", &source, flags)).output()
    };
    assert_eq!(stat(&["bind", "idmap"]), "5 6\n");
    assert_eq!(stat(&["bind"]), "65534 65534\n");
}

fn data_options_go_to_the_filesystem() {
    let text = bundle("data", "stat -c '%a %u' /x; grep ' /x ' /proc/self/mountinfo")
        .mount(json!({"destination": "/x", "type": "tmpfs", "source": "named", "options": ["mode=701", "uid=9", "size=64k", "sync"]}))
        .output();
    assert!(
        text.starts_with("701 9\n")
            && text.contains(" - tmpfs named ")
            && text.contains("size=64k")
            && text.contains("sync"),
        "{text}"
    );
    // In one text, as mount(8) writes them.
    let text = bundle("together", "stat -c '%a %u' /x; grep ' /x ' /proc/self/mountinfo")
        .mount(json!({"destination": "/x", "type": "tmpfs", "options": ["nosuid", "mode=701,uid=9,size=64k"]}))
        .output();
    assert!(text.starts_with("701 9\n") && text.contains("size=64k") && text.contains("nosuid"), "{text}");
    // But the commas of a label are its own: it goes to the kernel as one, which refuses it where no policy is loaded.
    let refusal = bundle("label", "true")
        .mount(json!({"destination": "/x", "type": "tmpfs", "options": ["mode=755", "context=u:r:t:s0:c1,c2"]}))
        .refusal();
    assert!(refusal.contains("set mount option tmpfs context=u:r:t:s0:c1,c2: invalid argument (EINVAL)"), "{refusal}");
    let refusal = bundle("nonsense", "true")
        .mount(json!({"destination": "/x", "type": "tmpfs", "options": ["nonsense=1"]}))
        .refusal();
    assert!(refusal.contains("set mount option tmpfs nonsense=1: invalid argument (EINVAL)"), "{refusal}");
    let refusal = bundle("nofs", "true").mount(json!({"destination": "/x", "type": "nosuchfs"})).refusal();
    assert!(refusal.contains("mount nosuchfs: no such device (ENODEV): the kernel lacks this filesystem"), "{refusal}");
}

fn options_may_be_longer_than_fsconfig_takes_them() {
    let layers = scratch("layers");
    let all: Vec<String> = (0..9).map(|number| format!("{}/{number}-{}", layers.display(), "x".repeat(40))).collect();
    for (number, layer) in all.iter().enumerate() {
        std::fs::create_dir_all(layer).unwrap();
        std::fs::write(format!("{layer}/file"), number.to_string()).unwrap();
    }
    let lower = |layers: &[String]| {
        let option = format!("lowerdir={}", layers.join(":"));
        json!({"destination": "/x", "type": "overlay", "source": "overlay", "options": [option]})
    };
    assert!(all.join(":").len() > 255);
    assert_eq!(bundle("long", "cat /x/file").mount(lower(&all)).output(), "0");
    assert_eq!(bundle("short", "cat /x/file").mount(lower(&all[3..5])).output(), "3");
    // A name that begins anywhere but at the root is not looked for in the image, which may lead it to the machine's files.
    let config = bundle("relative", "ls /x").mount(json!({
        "destination": "/x", "type": "overlay", "options": ["lowerdir=inside/a:inside/b,xino=off"]
    }));
    for layer in ["a", "b"] {
        std::fs::create_dir_all(config.rootfs().join("x/inside").join(layer)).unwrap();
    }
    let refusal = config.refusal();
    assert!(refusal.contains("overlay on /x: no such file or directory (ENOENT)"), "{refusal}");
    // More than a page would be cut off.
    let endless: Vec<String> = (0..100).map(|_| all[0].clone()).collect();
    let refusal = bundle("endless", "true").mount(lower(&endless)).refusal();
    assert!(refusal.contains("overlay on /x: argument list too long (E2BIG)"), "{refusal}");
    let absent = [&all[..], &[format!("{}/absent", layers.display())]].concat();
    let refusal = bundle("absent", "true").mount(lower(&absent)).refusal();
    assert!(refusal.contains("overlay on /x: no such file or directory (ENOENT)"), "{refusal}");
}

fn without_dev_the_nodes_are_made_in_the_root() {
    for user in [false, true] {
        let config = bundle("nodev", "echo x > /dev/null && head -c 4 /dev/zero | wc -c; readlink /dev/fd");
        let mounts = json!([{"destination": "/proc", "type": "proc", "source": "proc"}]);
        let config = if user { config.in_user_namespace() } else { config };
        assert_eq!(config.set("/mounts", mounts).output(), "4\n/proc/self/fd\n");
    }
}

fn declared_devices_are_as_declared() {
    let devices = json!([
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 33, "gid": 44},
        {"path": "/elsewhere/disk", "type": "b", "major": 7, "minor": 0},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o600, "uid": 1, "gid": 2}
    ]);
    for user in [false, true] {
        let config = bundle("devices", "stat -c '%F %a %u %g %t:%T' /dev/fuse /elsewhere/disk /dev/pipe");
        let config = if user { config.in_user_namespace() } else { config };
        let text = config.set("/linux/devices", devices.clone()).output();
        let expected = "character special file 640 33 44 a:e5\nblock special file 666 0 0 7:0\nfifo 600 1 2 0:0\n";
        assert_eq!(text, expected, "user namespace: {user}");
    }
}

fn a_default_device_may_be_declared_otherwise() {
    let devices = json!([
        {"path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600, "uid": 1000, "gid": 5}
    ]);
    for user in [false, true] {
        let config = bundle("zero", "stat -c '%a %u %g %t:%T' /dev/zero /dev/full");
        let config = if user { config.in_user_namespace() } else { config };
        // Without a user namespace it is nobody's but root's that is in the machine's own.
        let full = if user { "666 65534 65534 1:7" } else { "666 0 0 1:7" };
        let text = config.set("/linux/devices", devices.clone()).output();
        assert_eq!(text, format!("600 1000 5 1:5\n{full}\n"), "user namespace: {user}");
    }
}

fn a_file_in_a_device_s_place_is_an_error() {
    let device = json!([{"path": "/taken", "type": "c", "major": 1, "minor": 3}]);
    let config = bundle("taken", "true");
    std::fs::write(config.rootfs().join("taken"), "").unwrap();
    let refusal = config.set("/linux/devices", device.clone()).refusal();
    assert!(refusal.contains("device node /taken has incorrect ftype: file exists (EEXIST)"), "{refusal}");
    let config = bundle("other", "true");
    let made = std::process::Command::new("mknod").arg(config.rootfs().join("taken")).args(["c", "1", "5"]).status();
    assert!(made.unwrap().success());
    let refusal = config.set("/linux/devices", device.clone()).refusal();
    assert!(
        refusal.contains("/taken has incorrect major:minor: 1:5 doesn't match expected 1:3: file exists"),
        "{refusal}"
    );
    // The same device there already is what is asked for.
    let config = bundle("same", "ls /taken");
    let made = std::process::Command::new("mknod").arg(config.rootfs().join("taken")).args(["c", "1", "3"]).status();
    assert!(made.unwrap().success());
    assert_eq!(config.set("/linux/devices", device).output(), "/taken\n");
}

fn filesystems_of_the_machine_s_namespaces_are_bound() {
    let text =
        bundle("bound", &format!("ls /sys/class/net > /dev/null && ls -d /proc/{} ; {INFO}", std::process::id()))
            .in_user_namespace()
            .namespace("network", json!(null))
            .namespace("pid", json!(null))
            .output();
    assert!(text.starts_with("/proc/") && options(&text, "/sys").contains(&"ro".to_owned()), "{text}");
    assert!(std::fs::metadata("/sys").unwrap().uid() == 0);
}
