//! R5, R8, R12: the machine's settings, its cgroups, its users.

use garboard_runtime::report::Report;
use garboard_runtime::spec::{Mount as OptionMount, MountKind, NamespaceChoice};
use garboard_runtime::start::Stdio;
use libtest_mimic::Trial;

use super::{as_machine_root, powerful};
use crate::site::{BASE_ID, Container, copy_self, fields, reap, scratch, shell, wait_for_report};

pub fn tests() -> Vec<Trial> {
    trials![
        r5_the_machine_s_settings_are_out_of_reach,
        r5_no_release_agent_can_be_set,
        r5_the_machine_s_device_nodes_keep_mode_and_owner,
        r8_cgroup_files_are_not_writable,
        r12_root_is_nobody_outside,
    ]
}

/// Settings through which root of the machine has code run outside, or stops the machine. Which there are is the kernel's matter.
const SETTINGS: [&str; 8] = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/poweroff_cmd",
    "/proc/sys/vm/panic_on_oom",
    "/proc/sys/fs/suid_dumpable",
    "/proc/sysrq-trigger",
    "/sys/kernel/uevent_helper",
    "/sys/kernel/mm/transparent_hugepage/enabled",
];

/// Opens each setting for writing, and writes nothing.
fn open_settings() -> String {
    format!("for f in {}; do [ -e $f ] && true >> $f && echo opened $f; done; true", SETTINGS.join(" "))
}

fn without_covers(launch: &mut garboard_runtime::launch::Launch) {
    launch.readonly_paths.clear();
    launch.masked_paths.clear();
    launch.mounts.iter_mut().filter(|m| m.target == "/sys").for_each(|m| m.flags.remove(libc::MOUNT_ATTR_RDONLY));
}

fn r5_the_machine_s_settings_are_out_of_reach() {
    let there = SETTINGS.iter().filter(|path| std::path::Path::new(path).exists()).count();
    assert!(there >= 5, "this kernel has the settings that count");
    let opened = |container: Container| container.output().matches("opened").count();
    assert_eq!(opened(shell(&open_settings())), 0);
    // Each of the two walls holds alone: read-only paths against the machine's root, the user namespace without them.
    assert_eq!(opened(shell(&open_settings()).options(|o| o.ids = None)), 0, "read-only");
    let by_namespace = shell(&open_settings()).change(|l| {
        powerful(l);
        without_covers(l);
    });
    assert_eq!(opened(by_namespace), 0, "user namespace");
    let open = shell(&open_settings()).options(|o| o.ids = None).change(without_covers);
    assert_eq!(opened(open), there, "control: with neither, each can be opened for writing");
}

fn r5_no_release_agent_can_be_set() {
    // CVE-2022-0492: mount a version 1 hierarchy, name a program to be run by the kernel outside.
    let script = "mount -t cgroup -o none,name=garboard-test c /tmp && true >> /tmp/release_agent && echo opened; true";
    let text = shell(script).change(powerful).output();
    assert!(!text.contains("opened") && text.contains("ermission"), "every capability of its user namespace: {text}");
    let text = shell(script).options(|o| o.ids = None).output();
    assert!(!text.contains("opened"), "the machine's root, filtered: {text}");
    let text = as_machine_root(shell(script)).output();
    assert!(!text.contains("opened"), "in a cgroup namespace of its own: {text}");
    let text = as_machine_root(shell(script)).options(|o| o.cgroup = NamespaceChoice::Host).output();
    assert!(text.contains("opened"), "control: the machine's root with neither: {text}");
}

fn r5_the_machine_s_device_nodes_keep_mode_and_owner() {
    use std::os::unix::fs::MetadataExt;
    let look = |path: &std::path::Path| {
        let found = std::fs::metadata(path).unwrap();
        (found.mode() & 0o7777, found.uid())
    };
    let full = std::path::Path::new("/dev/full");
    let before = look(full);
    let attack = "chmod 600 /dev/full; chown 7 /dev/full; echo tried; echo x > /dev/full; true";
    // With a /dev of its own, and where the machine's nodes are bound into the image's directory.
    for own_dev in [true, false] {
        let container = as_machine_root(shell(attack)).change(move |l| {
            l.mounts.retain(|m| own_dev || !m.target.starts_with("/dev"));
            l.populate_dev = true;
        });
        let output = container.output();
        assert!(output.contains("tried") && output.contains("No space left"), "it can be written to: {output}");
        assert_eq!(look(full), before, "own /dev: {own_dev}");
    }
    // Control: a node of the machine that is bound as an ordinary file would be.
    let node = scratch("r5-node").join("full");
    let _ = std::fs::remove_file(&node);
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    let number = rustix::fs::makedev(1, 7);
    rustix::fs::mknodat(rustix::fs::CWD, &node, rustix::fs::FileType::CharacterDevice, mode, number).unwrap();
    let source = node.to_str().unwrap().to_owned();
    let bound = as_machine_root(shell("chmod 600 /tmp/full; true")).options(move |o| {
        let kind = MountKind::Bind { source, recursive: false };
        o.mounts.push(OptionMount { target: "/tmp/full".to_owned(), kind, read_only: false, noexec: false });
    });
    bound.output();
    assert_eq!(look(&node).0, 0o600, "control: root of the machine changes what is bound writable");
}

fn r8_cgroup_files_are_not_writable() {
    let script = "cd /sys/fs/cgroup; mkdir sub && echo made; echo 1 > cgroup.procs && echo moved; echo 1 > cgroup.freeze && echo frozen; true";
    let output = shell(script).output();
    assert!(!["made", "moved", "frozen"].iter().any(|word| output.contains(word)), "{output}");
    // Control: mounted writable, for the machine's root.
    let output = shell("cd /sys/fs/cgroup; mkdir sub && echo made && /bin/busybox rmdir sub; true")
        .options(|o| o.ids = None)
        .change(|l| {
            l.mounts
                .iter_mut()
                .filter(|m| m.target == "/sys/fs/cgroup")
                .for_each(|m| m.flags.remove(libc::MOUNT_ATTR_RDONLY))
        })
        .output();
    assert!(output.contains("made"), "control: {output}");
}

fn r12_root_is_nobody_outside() {
    let volume = scratch("r12");
    let mounted = |script: &str| {
        let source = volume.to_str().unwrap().to_owned();
        shell(script).options(move |o| {
            let kind = MountKind::Volume { source };
            o.mounts.push(OptionMount { target: "/volume".to_owned(), kind, read_only: false, noexec: false });
        })
    };
    let container = mounted("sleep 20").named("r12");
    let started = container.start(Stdio::default()).unwrap();
    assert_eq!(wait_for_report(&started), Report::Executed);
    let status = fields(&std::fs::read_to_string(format!("/proc/{}/status", started.pid)).unwrap());
    garboard_runtime::cgroup::kill(started.cgroup.as_ref().unwrap()).unwrap();
    reap(&started);
    container.remove_cgroup();
    let id = BASE_ID.to_string();
    assert_eq!(status["Uid"].split_whitespace().collect::<Vec<_>>(), [id.as_str(); 4]);
    let host = shell("grep Uid /proc/self/status").options(|o| o.ids = None).output();
    assert!(host.contains("Uid:\t0\t0\t0\t0"), "control: {host}");

    // A setuid file of root's, made in the container, means nothing where the volume is mounted as the machine mounts it.
    copy_self(&volume.join("probe"));
    let text = mounted("chmod 4755 /volume/probe; grep ' /volume ' /proc/mounts").output();
    assert!(text.contains("nosuid,nodev"), "{text}");
    let as_user = |container: Container| {
        container.options(|o| (o.user, o.no_new_privileges) = (Some("web".to_owned()), false)).output()
    };
    let script = "/volume/probe probe status";
    assert!(as_user(mounted(script)).contains("Uid:\t33\t33"), "nosuid holds");
    let suid = mounted(script).change(|l| l.mounts.iter_mut().for_each(|m| m.flags.remove(libc::MOUNT_ATTR_NOSUID)));
    assert!(as_user(suid).contains("Uid:\t33\t0"), "control: without nosuid it is the container's root");

    // Nor does a device that somebody has left on the disk, whoever may use such devices; and nothing beside the volume is to be seen.
    let zero = volume.join("zero");
    let _ = std::fs::remove_file(&zero);
    let (mode, number) = (rustix::fs::Mode::from_raw_mode(0o666), rustix::fs::makedev(1, 5));
    rustix::fs::mknodat(rustix::fs::CWD, &zero, rustix::fs::FileType::CharacterDevice, mode, number).unwrap();
    let script = "head -c 4 /volume/zero | wc -c; ls /volume/..";
    let text = mounted(script).output();
    assert!(text.contains("ermission denied") && text.contains("\n0\n"), "nodev holds: {text}");
    assert!(!text.contains("r12") && volume.join("../r12/zero").exists(), "{text}");
    let open = mounted(script).change(|l| l.mounts.iter_mut().for_each(|m| m.flags.remove(libc::MOUNT_ATTR_NODEV)));
    let text = open.output();
    assert!(text.starts_with("4\n"), "control: without nodev it is the machine's: {text}");
}
