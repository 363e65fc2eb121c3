//! Attacks from inside a container of a `config.json`, as `spec` writes one, each with its control: with that defence off, the same attack
//! succeeds. `tests/native/attacks` has those on the containers of an appliance.

use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use libtest_mimic::Trial;
use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::{Value, json};

use crate::site::{Site, finish, place, shell};
use crate::trials;

pub fn tests() -> Vec<Trial> {
    trials![
        r2_nobody_begins_in_a_directory_of_the_machine_s,
        r3_masked_paths_hold,
        r4_a_mount_stays_in_the_root,
        r5_settings_are_out_of_reach,
        r8_cgroup_files_are_not_writable,
        r10_processes_of_others_are_out_of_reach,
        r12_root_is_nobody_outside,
        r12_what_root_leaves_behind_is_nobody_s,
    ]
}

/// What the mount at this place has for options.
fn options<'a>(config: &'a mut Value, destination: &str) -> &'a mut Vec<Value> {
    let mut mounts = config["mounts"].as_array_mut().unwrap().iter_mut();
    mounts.find(|mount| mount["destination"] == destination).unwrap()["options"].as_array_mut().unwrap()
}

fn writable(config: &mut Value, destination: &str) {
    options(config, destination).retain(|option| option != "ro");
}

fn without_namespace(config: &mut Value, kind: &str) {
    config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != kind);
}

fn r2_nobody_begins_in_a_directory_of_the_machine_s() {
    let leak = std::fs::File::open("/").unwrap();
    let run = |cwd: &str, script: &str| {
        let site = shell(script).change(|c| c["process"]["cwd"] = json!(cwd));
        let mut command = site.command(&["run", "--preserve-fds", "1", &site.id]);
        crate::sys::pass_descriptors(&mut command, vec![leak.as_raw_fd()]);
        finish(command)
    };
    for number in 3..12 {
        let done = run(&format!("/proc/self/fd/{number}"), "true");
        assert!(done.status == 1 && done.stderr.contains("enter working directory"), "{done:?}");
    }
    let machine = std::fs::metadata("/").unwrap().ino().to_string();
    let done = run("/", "cd /proc/self/fd/3 && stat -c %i .");
    assert_eq!(done.stdout.trim(), machine, "control: a program that goes there by itself: {done:?}");
}

fn r3_masked_paths_hold() {
    let script = "wc -c < /proc/keys; ls /sys/firmware | wc -l";
    let masked = shell(script).change(|c| c["linux"]["maskedPaths"].as_array_mut().unwrap().push(json!("/sys/kernel")));
    assert_eq!(masked.ok(&["run", &masked.id]), "0\n0\n");
    let bare = shell("wc -c < /proc/keys; ls /sys/kernel | wc -l").change(|c| c["linux"]["maskedPaths"] = json!([]));
    let text = bare.ok(&["run", &bare.id]);
    assert!(text.lines().all(|line| line != "0"), "control: {text}");
}

/// The image ships a link where something is mounted.
fn r4_a_mount_stays_in_the_root() {
    let site = shell("cat /link/file");
    let (root, outside) = (site.directory.join("root"), site.directory.join("outside"));
    assert!(Command::new("cp").arg("-a").arg(place().rootfs()).arg(&root).status().unwrap().success());
    let source = site.directory.join("source");
    for directory in [&outside, &source] {
        std::fs::create_dir(directory).unwrap();
    }
    std::fs::write(source.join("file"), "mounted\n").unwrap();
    symlink(&outside, root.join("link")).unwrap();
    let site = site.change(|c| {
        c["root"] = json!({"path": root});
        let mount = json!({"destination": "/link", "type": "bind", "source": source, "options": ["bind"]});
        c["mounts"].as_array_mut().unwrap().push(mount);
        // So that a mount in the wrong place would be seen.
        without_namespace(c, "mount");
    });
    site.create(&[]);
    let is_mounted = || std::fs::read_dir(&outside).unwrap().next().is_some();
    assert!(!is_mounted());
    let inside = root.join(outside.strip_prefix("/").unwrap());
    assert!(inside.join("file").exists(), "where the link leads for who is in the root");
    site.ok(&["delete", "--force", &site.id]);
    rustix::mount::mount(&source, root.join("link"), "", MountFlags::BIND, None).unwrap();
    let escaped = is_mounted();
    rustix::mount::unmount(&outside, UnmountFlags::empty()).unwrap();
    assert!(escaped, "control: by name it is outside");
}

fn r5_settings_are_out_of_reach() {
    let files = [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/vm/panic_on_oom",
        "/proc/sys/fs/suid_dumpable",
        "/proc/sysrq-trigger",
        "/sys/kernel/uevent_helper",
        "/sys/kernel/mm/transparent_hugepage/enabled",
    ];
    let there = files.iter().filter(|file| std::path::Path::new(file).exists()).count();
    // Opened for writing, and nothing is written.
    let script = format!("for f in {}; do [ -e $f ] && true >> $f && echo opened; done; true", files.join(" "));
    let opened = |site: Site| site.ok(&["run", &site.id]).matches("opened").count();
    let bare = |c: &mut Value| {
        c["linux"]["readonlyPaths"] = json!([]);
        writable(c, "/sys");
    };
    assert_eq!(opened(shell(&script)), 0);
    assert_eq!(opened(shell(&script).with_user_namespace().change(bare)), 0, "the user namespace alone");
    assert_eq!(opened(shell(&script).change(bare)), there, "control");
    assert!(there >= 4, "this kernel has settings that count");
}

fn r8_cgroup_files_are_not_writable() {
    let script = "cd /sys/fs/cgroup; mkdir sub && echo made; echo 0 > cgroup.freeze && echo written; true";
    let of = |site: Site| site.ok(&["run", &site.id]);
    assert_eq!(of(shell(script)), "");
    assert_eq!(of(shell(script).change(|c| writable(c, "/sys/fs/cgroup"))), "made\nwritten\n", "control");
}

fn r10_processes_of_others_are_out_of_reach() {
    let victim = shell("sleep 60");
    victim.create(&[]);
    victim.ok(&["start", &victim.id]);
    let pid = victim.state()["pid"].as_i64().unwrap();
    let attack = |site: Site| site.ok(&["run", &site.id]);
    let script =
        format!("kill -0 {pid} && echo killed; cat /proc/{pid}/root/bin/busybox > /dev/null && echo read; true");
    assert_eq!(attack(shell(&script)), "", "its own pid namespace");
    let seen = shell(&script).with_user_namespace().change(|c| without_namespace(c, "pid"));
    assert_eq!(attack(seen), "", "its own user namespace");
    let shared = shell(&script).change(|c| without_namespace(c, "pid"));
    assert_eq!(attack(shared), "killed\nread\n", "control");
}

fn r12_root_is_nobody_outside() {
    for (site, expected) in [(shell("sleep 60").with_user_namespace(), "1000000"), (shell("sleep 60"), "0")] {
        site.create(&[]);
        let status = std::fs::read_to_string(format!("/proc/{}/status", site.state()["pid"])).unwrap();
        let ids = |name| status.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().skip(1);
        // The second is the control.
        assert!(ids("Uid:").chain(ids("Gid:")).all(|id| id == expected), "{status}");
    }
}

/// On a disk that others have, too: a file that would be its owner's to whoever executes it.
fn r12_what_root_leaves_behind_is_nobody_s() {
    let left = |change: fn(Site) -> Site| {
        let site = shell("busybox cp /bin/busybox /tmp/id && busybox chmod 4755 /tmp/id && /tmp/id -u");
        let shared = site.directory.join("shared");
        std::fs::create_dir(&shared).unwrap();
        std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o777)).unwrap();
        let site = change(site).change(|c| {
            let mount = json!({"destination": "/tmp", "type": "bind", "source": shared, "options": ["bind"]});
            c["mounts"].as_array_mut().unwrap().push(mount);
        });
        assert_eq!(site.ok(&["run", &site.id]), "0\n");
        let file = shared.join("id");
        let found = std::fs::metadata(&file).unwrap();
        (found.uid(), found.mode() & 0o7777)
    };
    assert_eq!(left(Site::with_user_namespace), (1_000_000, 0o4755));
    assert_eq!(left(|site| site), (0, 0o4755), "control: it is the machine's root's");
}
