//! Attacks from inside a container or an image, each with its negative control: with that defence off, the same attack succeeds.

use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use garboard_runtime::launch::{Launch, Mount, MountFlags, MountSource};
use garboard_runtime::report::Report;
use garboard_runtime::spec::{Mount as OptionMount, MountKind, NamespaceChoice, SeccompChoice};
use garboard_runtime::start::Stdio;
use libtest_mimic::Trial;
use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;

use crate::site::{BASE_ID, fields, probe, reap, scratch, shell, wait_for_report};
use crate::{launcher, sys};

pub fn tests() -> Vec<Trial> {
    let test = |name: &str, run: fn()| {
        Trial::test(format!("attacks::{name}"), move || {
            run();
            Ok(())
        })
    };
    vec![
        test("r1_the_launcher_s_program_cannot_be_overwritten", r1_the_launcher_s_program_cannot_be_overwritten),
        test("r2_only_the_three_streams_are_open", r2_only_the_three_streams_are_open),
        test("r2_the_working_directory_is_inside", r2_the_working_directory_is_inside),
        test("r3_masked_and_read_only_paths_hold", r3_masked_and_read_only_paths_hold),
        test("r3_a_swapped_null_device_is_noticed", r3_a_swapped_null_device_is_noticed),
        test("r3_a_mask_goes_on_procfs_or_nowhere", r3_a_mask_goes_on_procfs_or_nowhere),
        test("r4_mount_targets_survive_a_symlink_race", r4_mount_targets_survive_a_symlink_race),
        test("r5_the_machine_s_settings_are_out_of_reach", r5_the_machine_s_settings_are_out_of_reach),
        test("r6_capabilities_are_the_list_and_never_inheritable", r6_capabilities_are_the_list_and_never_inheritable),
        test("r7_a_user_that_is_no_number_is_no_root", r7_a_user_that_is_no_number_is_no_root),
        test("r8_cgroup_files_are_not_writable", r8_cgroup_files_are_not_writable),
        test("r9_system_calls_are_denied_as_documented", r9_system_calls_are_denied_as_documented),
        test("r9_devices_are_denied_by_the_filter", r9_devices_are_denied_by_the_filter),
        test("r9_a_declared_device_is_allowed_as_declared", r9_a_declared_device_is_allowed_as_declared),
        test("r9_nodes_cannot_be_made", r9_nodes_cannot_be_made),
        test("r10_other_containers_are_out_of_reach", r10_other_containers_are_out_of_reach),
        test("r12_root_is_nobody_outside", r12_root_is_nobody_outside),
        test(
            "i4_kernel_filesystems_are_not_mounted_through_links",
            i4_kernel_filesystems_are_not_mounted_through_links,
        ),
        test("i4_a_linked_etc_stays_inside", i4_a_linked_etc_stays_inside),
    ]
}

/// As much as there can be, for negative controls.
fn powerful(launch: &mut Launch) {
    launch.seccomp = None;
    launch.process.no_new_privileges = false;
    let all = (1 << 41) - 1;
    let sets = &mut launch.process.capabilities;
    (sets.bounding, sets.effective, sets.permitted) = (all, all, all);
}

fn r1_the_launcher_s_program_cannot_be_overwritten() {
    let image = scratch("r1-image");
    let base = scratch("base");
    for entry in std::fs::read_dir(&base).unwrap() {
        let entry = entry.unwrap();
        let copied = std::process::Command::new("cp").arg("-a").arg(entry.path()).arg(&image).status().unwrap();
        assert!(copied.success());
    }
    let trap = image.join(launcher::TRAP.trim_start_matches('/'));
    std::fs::write(&trap, "#!/proc/self/exe\n").unwrap();
    std::fs::set_permissions(&trap, PermissionsExt::from_mode(0o755)).unwrap();
    let copy = scratch("r1").join("launcher");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();

    let (changed, log) = launcher::attack(&copy, &image, "user");
    assert!(
        !changed && log.contains("Permission denied") && log.contains("degraded: []"),
        "the attack must have been tried: {log}"
    );

    // What a container without a user namespace needs: a launcher on a read-only mount.
    let mount = scratch("r1-readonly");
    rustix::mount::mount_bind(scratch("r1"), &mount).unwrap();
    let flags = rustix::mount::MountFlags::BIND | rustix::mount::MountFlags::RDONLY;
    rustix::mount::mount_remount(&mount, flags, c"").unwrap();
    let (changed, log) = launcher::attack(&mount.join("launcher"), &image, "host");
    assert!(!changed && log.contains("Read-only file system") && log.contains("degraded: []"), "{log}");
    rustix::mount::unmount(&mount, UnmountFlags::empty()).unwrap();

    let (changed, log) = launcher::attack(&copy, &image, "host");
    assert!(changed, "control: root of the machine can overwrite it: {log}");
    assert!(log.contains("own program is on a writable mount"), "and the launcher said so: {log}");
}

fn r2_only_the_three_streams_are_open() {
    // A descriptor of the machine that isn't close-on-exec, as a careless caller has it.
    let leak = rustix::fs::open("/", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let script = "for fd in /proc/self/fd/*; do echo ${fd##*/}; done";
    let list = |text: &str| -> Vec<i32> { text.split_whitespace().filter_map(|word| word.parse().ok()).collect() };
    // The shell opens the directory to expand the pattern, and has closed it by the time it prints; its number may be listed.
    let inside = list(&shell(script).output());
    assert!(inside.iter().all(|fd| *fd <= 3), "{inside:?}");
    let held = shell(&format!("ls /proc/self/fd/{}/etc", leak.as_raw_fd())).run().unwrap();
    assert_ne!(held.status, 0, "{held:?}");

    let outside = std::process::Command::new("/bin/busybox").args(["sh", "-c", script]).output().unwrap();
    let outside = list(&String::from_utf8_lossy(&outside.stdout));
    assert!(outside.contains(&leak.as_raw_fd()), "control: an ordinary exec leaks it: {outside:?}");
}

fn r2_the_working_directory_is_inside() {
    let leak = rustix::fs::open("/", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    for number in [leak.as_raw_fd(), 3, 7, 9] {
        let container = shell("pwd; ls -id . ..").options(|o| o.working_dir = Some(format!("/proc/self/fd/{number}")));
        let text = container.refusal();
        assert!(text.contains("enter working directory"), "{number}: {text}");
    }
    let by_name = std::fs::metadata(format!("/proc/self/fd/{}/.", leak.as_raw_fd())).unwrap();
    assert_eq!(by_name.ino(), std::fs::metadata("/").unwrap().ino(), "control: by name it leads to the machine's root");
}

fn r3_masked_and_read_only_paths_hold() {
    // Something of the machine that everybody can read, and a setting that root of a network namespace can write.
    let script = "wc -c < /proc/version; ls /sys/kernel | wc -l; echo 70 > /proc/sys/net/ipv4/ip_default_ttl && echo written; stat -c %t:%T /proc/version";
    let masks = |l: &mut Launch| l.masked_paths.extend(["/proc/version".to_owned(), "/sys/kernel".to_owned()]);
    let admin = |o: &mut garboard_runtime::spec::Options| o.cap_add = vec!["NET_ADMIN".to_owned()];
    let text = shell(script).options(admin).change(masks).output();
    assert!(text.starts_with("0\n0\n") && text.contains("Read-only file system") && text.ends_with("1:3\n"), "{text}");

    let text = shell(script)
        .options(admin)
        .change(|l| {
            l.masked_paths.clear();
            l.readonly_paths.clear();
        })
        .output();
    assert!(!text.starts_with('0') && text.contains("written\n"), "control: {text}");
}

fn r3_a_swapped_null_device_is_noticed() {
    let file = scratch("r3").join("null");
    std::fs::write(&file, "not a device").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).unwrap();
    rustix::mount::mount_bind(&file, "/dev/null").unwrap();
    let text = shell("true").run().map(|ended| format!("{ended:?}")).unwrap_or_else(|failure| failure.to_string());
    rustix::mount::unmount("/dev/null", UnmountFlags::empty()).unwrap();
    assert!(text.contains("/dev/null on the machine isn't the character device 1:3"), "{text}");
    shell("true").output();
}

fn r3_a_mask_goes_on_procfs_or_nowhere() {
    // The image brings a /proc of its own, and nothing is mounted over it: the mask would protect the wrong file.
    let image = scratch("r3-image");
    std::fs::create_dir_all(image.join("proc")).unwrap();
    std::fs::write(image.join("proc/keys"), "decoy").unwrap();
    let text = shell("true").layer(&image).change(|l| l.mounts.retain(|m| m.target != "/proc")).refusal();
    assert!(text.contains("/proc/keys, which isn't on a proc filesystem"), "{text}");
    let text = shell("cat /proc/keys")
        .layer(&image)
        .change(|l| {
            l.mounts.retain(|m| m.target != "/proc");
            l.masked_paths.clear();
            l.readonly_paths.clear();
        })
        .output();
    assert_eq!(text, "decoy", "control: without the check it starts on the decoy");
}

fn r4_mount_targets_survive_a_symlink_race() {
    let (shared, outside) = (scratch("r4-shared"), scratch("r4-outside"));
    std::fs::create_dir_all(shared.join("dir")).unwrap();
    symlink(&outside, shared.join("link")).unwrap();
    let directory = crate::site::open(&shared);
    // The attacker: another container with the same volume, exchanging a directory and a link as fast as it can.
    let attacker =
        std::process::Command::new(std::env::current_exe().unwrap()).args(["probe", "swap"]).arg(&shared).spawn();
    let mut attacker = attacker.unwrap();

    let source = scratch("r4-source");
    std::fs::write(source.join("mounted"), "").unwrap();
    let until = Instant::now() + Duration::from_secs(3);
    let (mut started, mut refused) = (0, 0);
    while Instant::now() < until {
        let (shared, source) = (shared.to_str().unwrap().to_owned(), source.to_str().unwrap().to_owned());
        let bind = |target: &str, path: String| Mount {
            target: target.to_owned(),
            source: MountSource::Bind { path, recursive: false, idmap: true, create: None },
            flags: MountFlags::default(),
        };
        let container = shell("[ -e /shared/dir/target/mounted ] || [ -e /shared/link/target/mounted ] || true")
            .change(move |l| {
                l.mounts.push(bind("/shared", shared.clone()));
                l.mounts.push(bind("/shared/dir/target", source.clone()));
            });
        match container.run() {
            Ok(_) => started += 1,
            Err(_) => refused += 1,
        }
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "after {started} starts and {refused} refusals");
    }
    assert!(started + refused > 20, "{started} starts, {refused} refusals");

    // Control: what checks a path and then uses it by name is caught out.
    let until = Instant::now() + Duration::from_secs(20);
    let mut tries = 0;
    while std::fs::read_dir(&outside).unwrap().count() == 0 && Instant::now() < until {
        tries += 1;
        let target = shared.join("dir/target2");
        if std::fs::canonicalize(shared.join("dir")).is_ok_and(|found| found.starts_with(&shared)) {
            let _ = std::fs::create_dir(&target);
        }
        let _ = rustix::fs::unlinkat(&directory, "dir/target2", rustix::fs::AtFlags::REMOVEDIR);
    }
    let caught = std::fs::read_dir(&outside).unwrap().count();
    attacker.kill().unwrap();
    attacker.wait().unwrap();
    assert_eq!(caught, 1, "control: {tries} tries by name never went wrong");
}

fn r5_the_machine_s_settings_are_out_of_reach() {
    let text = shell(
        "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/kernel/uevent_helper /sys/fs/cgroup/release_agent \
         /proc/sys/kernel/modprobe /proc/sys/vm/panic_on_oom; do echo x 2>/dev/null > $f && echo wrote $f; done; \
         mount -t cgroup -o memory c /tmp && echo mounted; true",
    );
    let unchanged = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let output = text.output();
    assert!(!output.contains("wrote") && !output.contains("mounted"), "{output}");
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), unchanged);
    // Control: without the read-only paths and the user namespace the same write opens the file. Nothing is written.
    let open = shell(
        "for f in /proc/sys/kernel/core_pattern /proc/sys/vm/panic_on_oom; do : >> $f && echo opened $f; done; true",
    )
    .options(|o| o.ids = None)
    .change(|l| {
        l.readonly_paths.clear();
        l.masked_paths.clear();
    })
    .output();
    assert_eq!(open.matches("opened").count(), 2, "control: {open}");
}

fn r6_capabilities_are_the_list_and_never_inheritable() {
    let sets = |container: crate::site::Container| fields(&container.output());
    let expected = garboard_runtime::spec::capabilities::DEFAULT
        .iter()
        .fold(0_u64, |mask, c| mask | 1 << garboard_runtime::spec::capabilities::number(*c).unwrap());
    let expected = format!("{expected:016x}");
    let none = "0000000000000000";
    let root = sets(shell("cat /proc/self/status"));
    let found = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| root[set].as_str());
    assert_eq!(found, [none, &expected, &expected, &expected, none]);
    let user = sets(shell("cat /proc/self/status").options(|o| o.user = Some("web".to_owned())));
    let found = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| user[set].as_str());
    assert_eq!(found, [none, none, none, &expected, none]);
    // Control: where a launch says so, they are inheritable, and ambient ones reach a user's program.
    let given = sets(shell("cat /proc/self/status").options(|o| o.user = Some("web".to_owned())).change(|l| {
        let bit = 1 << 10;
        let sets = &mut l.process.capabilities;
        (sets.effective, sets.permitted, sets.inheritable, sets.ambient) = (bit, bit, bit, bit);
    }));
    let bit = "0000000000000400";
    let found = ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|set| given[set].as_str());
    assert_eq!(found, [bit; 4]);
}

fn r7_a_user_that_is_no_number_is_no_root() {
    for user in ["1x", "0x0", " 0", "-0"] {
        let made = shell("id -u").options(|o| o.user = Some(user.to_owned())).decide();
        assert!(made.is_err(), "{user:?} became uid {}", made.unwrap().process.uid);
    }
    assert_eq!(shell("id -u").options(|o| o.user = Some("1".to_owned())).output(), "1\n", "control");
}

fn r8_cgroup_files_are_not_writable() {
    let script = "cd /sys/fs/cgroup; mkdir sub && echo made; echo 1 > cgroup.procs && echo moved; echo 1 > cgroup.freeze && echo frozen; true";
    let output = shell(script).output();
    assert!(!["made", "moved", "frozen"].iter().any(|word| output.contains(word)), "{output}");
    // Control: mounted writable, for the machine's root.
    let output = shell("cd /sys/fs/cgroup; mkdir sub && echo made && /bin/busybox rmdir sub; true")
        .options(|o| o.ids = None)
        .change(|l| l.mounts.iter_mut().filter(|m| m.target == "/sys/fs/cgroup").for_each(|m| m.flags.readonly = false))
        .output();
    assert!(output.contains("made"), "control: {output}");
}

const EPERM: &str = "1";
const ENOSYS: &str = "38";

fn r9_system_calls_are_denied_as_documented() {
    let found = fields(&probe(&["calls"]).output());
    for name in [
        "keyctl",
        "add_key",
        "bpf",
        "userfaultfd",
        "io_uring_setup",
        "perf_event_open",
        "ptrace",
        "process_vm_readv",
        "pidfd_getfd",
        "mount",
        "umount2",
        "open_tree",
        "fsopen",
        "mount_setattr",
        "pivot_root",
        "unshare-user",
        "setns",
        "kexec_load",
        "init_module",
        "open_by_handle_at",
        "socket-alg",
    ] {
        assert_eq!(found[name], EPERM, "{name}");
    }
    assert_eq!((found["clone3"].as_str(), found["futex_wake (6.7)"].as_str()), (ENOSYS, ENOSYS));
    assert_eq!((found["socket-inet"].as_str(), found["getpid"].as_str()), ("0", "0"));

    let open = fields(&probe(&["calls"]).options(|o| o.seccomp = SeccompChoice::Unconfined).output());
    // Control: the filter it is that denies these, not something else.
    for name in ["keyctl", "ptrace", "process_vm_readv", "pidfd_getfd", "unshare-user", "setns", "clone3", "socket-alg"]
    {
        assert_ne!(open[name], EPERM, "control: {name}");
        assert_ne!((name, open[name].as_str()), ("clone3", ENOSYS), "control");
    }
    assert_eq!(open["unshare-user"], "0", "control: without the filter a nested user namespace can be made");
}

fn r9_devices_are_denied_by_the_filter() {
    let rules = r#"[{"allow":true},{"allow":false,"type":"c","major":1,"minor":5,"access":"r"}]"#;
    let filter =
        garboard_runtime::compile::device_filter::compile(&serde_json::from_str::<Vec<_>>(rules).unwrap()).unwrap();
    let script = "head -c 1 /dev/zero | wc -c; head -c 1 /dev/urandom | wc -c";
    let output = shell(script).change(move |l| l.cgroup.device_filter = filter.clone()).output();
    assert!(output.contains("/dev/zero: Operation not permitted") && output.contains("\n1\n"), "{output}");
    assert_eq!(shell(script).change(|l| l.cgroup.device_filter.clear()).output(), "1\n1\n", "control");
    // The default rules: the nodes of /dev, and not a disk's number even for the machine's root.
    let node = "/bin/busybox mknod /tmp/mem c 1 11 && head -c 1 /tmp/mem | wc -c; head -c 1 /dev/zero | wc -c";
    let host = |c: crate::site::Container| c.options(|o| (o.ids, o.cap_add) = (None, vec!["MKNOD".to_owned()]));
    let output = host(shell(node)).output();
    assert!(output.contains("Operation not permitted") && output.ends_with("1\n"), "{output}");
    let output = host(shell("/bin/busybox mknod /tmp/zero c 1 5 && echo made; true"))
        .change(|l| l.cgroup.device_filter.clear())
        .output();
    assert!(output.contains("made"), "control: {output}");
}

fn r9_a_declared_device_is_allowed_as_declared() {
    // A number that no driver has: what the filter lets through gives ENXIO.
    let node = scratch("r9").join("node");
    let (kind, mode) = (rustix::fs::FileType::CharacterDevice, Mode::from_raw_mode(0o666));
    rustix::fs::mknodat(rustix::fs::CWD, &node, kind, mode, rustix::fs::makedev(240, 7)).unwrap();
    std::fs::set_permissions(&node, PermissionsExt::from_mode(0o666)).unwrap();
    let device = |access: &str| garboard_runtime::spec::Device {
        source: node.to_str().unwrap().to_owned(),
        target: "/dev/of/machine".to_owned(),
        kind: 'c',
        major: 240,
        minor: Some(7),
        access: access.to_owned(),
    };
    let script = "cat < /dev/of/machine; echo > /dev/of/machine; true";
    let output = shell(script).options(|o| o.devices = vec![device("r")]).output();
    let denied = "can't create /dev/of/machine: Operation not permitted";
    assert!(
        output.contains("can't open /dev/of/machine: No such device or address") && output.contains(denied),
        "{output}"
    );
    let output = shell(script).options(|o| o.devices = vec![device("rw")]).output();
    assert!(!output.contains("not permitted"), "control: {output}");
}

fn r9_nodes_cannot_be_made() {
    let script = "/bin/busybox mknod /tmp/disk b 8 0 && echo made; true";
    let all = |o: &mut garboard_runtime::spec::Options| o.cap_add = vec!["MKNOD".to_owned()];
    assert!(!shell(script).options(all).output().contains("made"));
    let output =
        shell(script).options(all).options(|o| o.ids = None).change(|l| l.cgroup.device_filter.clear()).output();
    assert!(output.contains("made"), "control: {output}");
}

fn r10_other_containers_are_out_of_reach() {
    let me = std::process::id();
    // This process stands for another container: it has a socket, shared memory, and can be signalled.
    use std::os::linux::net::SocketAddrExt;
    let name = format!("garboard-test-{me}");
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let key = i32::try_from(me).unwrap() + 0x4000_0000;
    let segment = sys::shared_memory(key, true).unwrap();
    let (pid, key) = (me.to_string(), key.to_string());

    let status = |c: crate::site::Container| c.run().unwrap().status;
    let inside = [
        status(probe(&["abstract", &name])),
        status(probe(&["shm", &key])),
        status(probe(&["kill", &pid])),
        status(probe(&["ptrace", &pid]).change(powerful)),
    ];
    let shared = [
        status(probe(&["abstract", &name]).options(|o| o.network = NamespaceChoice::Host)),
        status(probe(&["shm", &key]).options(|o| o.ipc = NamespaceChoice::Host)),
        status(probe(&["kill", &pid]).options(|o| (o.pid, o.ids) = (NamespaceChoice::Host, None))),
    ];
    // Seeing a process isn't enough either: its user namespace isn't theirs.
    let seen = [
        status(probe(&["kill", &pid]).options(|o| o.pid = NamespaceChoice::Host)),
        status(probe(&["ptrace", &pid]).options(|o| o.pid = NamespaceChoice::Host).change(powerful)),
    ];
    sys::remove_shared_memory(segment);
    let (eperm, enoent, esrch, refused) = (1, 2, 3, 111);
    assert_eq!(inside, [refused, enoent, esrch, esrch]);
    assert_eq!(seen, [eperm, eperm]);
    assert_eq!(shared, [0, 0, 0], "control: in shared namespaces each succeeds");
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
    std::fs::copy(std::env::current_exe().unwrap(), volume.join("probe")).unwrap();
    let text = mounted("chmod 4755 /volume/probe; grep ' /volume ' /proc/mounts").output();
    assert!(text.contains("nosuid,nodev"), "{text}");
    let as_user = |container: crate::site::Container| {
        container.options(|o| (o.user, o.no_new_privileges) = (Some("web".to_owned()), false)).output()
    };
    let script = "/volume/probe probe status";
    assert!(as_user(mounted(script)).contains("Uid:\t33\t33"), "nosuid holds");
    let suid = mounted(script).change(|l| l.mounts.iter_mut().for_each(|m| m.flags.nosuid = false));
    assert!(as_user(suid).contains("Uid:\t33\t0"), "control: without nosuid it is the container's root");
}

fn i4_kernel_filesystems_are_not_mounted_through_links() {
    for name in ["proc", "sys", "dev"] {
        let (image, outside) = (scratch(&format!("i4-{name}")), scratch(&format!("i4-outside-{name}")));
        // Over the base's directory of that name there comes a link.
        symlink(&outside, image.join(name)).unwrap();
        let text = shell("true").layer(&image).refusal();
        assert!(
            text.contains(&format!("prepare mount target /{name}: ELOOP: the image ships it as a symbolic link")),
            "{text}"
        );
        // Control: by name the mount lands outside the image.
        rustix::mount::mount("tmpfs", image.join(name), "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        assert!(is_mount(&outside), "control: {name}");
        rustix::mount::unmount(&outside, UnmountFlags::empty()).unwrap();
    }
}

fn is_mount(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

fn i4_a_linked_etc_stays_inside() {
    let (image, outside) = (scratch("i4-etc"), scratch("i4-outside-etc"));
    symlink(&outside, image.join("config")).unwrap();
    let hosts = scratch("i4-hosts").join("hosts");
    std::fs::write(&hosts, "bound\n").unwrap();
    let source = hosts.to_str().unwrap().to_owned();
    let text = shell("cat /config/hosts")
        .layer(&image)
        .options(move |o| {
            let kind = MountKind::Bind { source, recursive: false };
            o.mounts.push(OptionMount { target: "/config/hosts".to_owned(), kind, read_only: true, noexec: false });
        })
        .output();
    assert_eq!(text, "bound\n");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    std::fs::write(image.join("config/hosts"), "").unwrap();
    assert!(outside.join("hosts").exists(), "control: by name the file is made outside the image");
}
