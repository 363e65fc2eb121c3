//! What a launch promises, as root.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;

use garboard_runtime::cgroup;
use garboard_runtime::launch::{MountSource, Namespace, Rlimit, RootSource, Upper};
use garboard_runtime::report::Report;
use garboard_runtime::spec::{Mount as OptionMount, MountKind, NamespaceChoice};
use garboard_runtime::start::Stdio;
use libtest_mimic::Trial;

use crate::site::{BASE_ID, fields, place, program, reap, scratch, shell, wait_for_report};

pub fn tests() -> Vec<Trial> {
    trials![
        a_container_sees_itself_alone,
        the_default_container_has_its_filesystems,
        process_settings_arrive,
        users_and_groups_arrive,
        the_program_is_found_in_path,
        exit_status_and_signal_are_kept,
        a_failure_names_step_object_and_cause,
        a_failed_start_leaves_nothing_behind,
        a_launcher_with_threads_is_refused,
        layers_cover_each_other_as_overlay_does,
        a_read_only_root_is_read_only_with_all_mounts,
        a_kept_upper_is_kept,
        a_directory_can_be_the_root,
        a_volume_is_made_owned_and_independent_of_the_ids,
        tmpfs_options_and_flags_arrive,
        the_machine_s_namespaces_can_be_shared,
        without_a_user_namespace_it_works_too,
        a_network_namespace_can_be_joined,
        sysctls_are_the_container_s_own,
        a_cgroup_is_filled_killed_and_removed,
        threads_in_cgroups_of_their_own_are_killed,
        an_absent_controller_fails_or_is_recorded,
        standard_output_can_be_opened_by_name,
        signals_are_at_their_defaults,
        each_start_has_its_layers_mapped,
        the_launcher_keeps_no_mount_or_descriptor,
    ]
}

fn a_container_sees_itself_alone() {
    let text = shell("echo pid: $$; echo procs: $(ls /proc | grep -c '^[0-9]'); hostname; ls -id / /..; ip -o link | wc -l; cat /proc/self/mountinfo")
        .options(|o| o.hostname = Some("alone".to_owned()))
        .output();
    assert!(text.contains("pid: 1\n"), "{text}");
    assert!(text.contains("\nalone\n"), "{text}");
    let mounts: Vec<&str> = text.lines().filter(|line| line.contains(" - ")).collect();
    assert!(mounts.iter().all(|m| !m.contains("ext4") && !m.contains("/cgroup/")), "{text}");
    let mut inodes = text.lines().filter_map(|l| l.split_once(' ')).filter(|(_, path)| matches!(*path, "/" | "/.."));
    assert_eq!(inodes.next().map(|(inode, _)| inode), inodes.next().map(|(inode, _)| inode), "{text}");
}

fn the_default_container_has_its_filesystems() {
    let text = shell(
        "for d in null zero full random urandom tty ptmx fd stdin stdout stderr shm mqueue pts; do [ -e /dev/$d ] || echo missing $d; done; \
         echo x > /dev/null && head -c 4 /dev/zero | wc -c; ip addr show lo | grep -c LOWER_UP; \
         grep -c cgroup2 /proc/mounts; stat -c 'queues %u:%g' /dev/mqueue; cat /proc/self/cgroup; touch /new && ls -ln /new; echo > /sys/new; echo done",
    )
    .output();
    assert!(!text.contains("missing"), "{text}");
    assert!(text.starts_with("4\n1\n1\n"), "{text}");
    assert!(text.contains("queues 0:0\n"), "{text}");
    assert!(text.contains("0::/\n"), "its cgroup is the root of its view: {text}");
    assert!(text.contains("Read-only file system"), "{text}");
}

fn process_settings_arrive() {
    let text = shell("pwd; umask; ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; env; cat /proc/self/status")
        .options(|o| {
            o.working_dir = Some("/made/for/it".to_owned());
            o.env.insert("GREETING".to_owned(), Some("hello world".to_owned()));
            o.oom_score_adj = Some(321);
        })
        .change(|launch| {
            launch.process.umask = Some(0o077);
            // Fewer descriptors than the launch itself needs.
            launch.process.rlimits = vec![Rlimit { resource: 7, soft: 8, hard: 16 }];
        })
        .output();
    for expected in
        ["/made/for/it\n0077\n8\n16\n321\n", "GREETING=hello world\n", "HOME=/root\n", "PATH=/usr/local/sbin:"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let status = fields(&text);
    assert_eq!((status["NoNewPrivs"].as_str(), status["Seccomp"].as_str()), ("1", "2"));
}

fn users_and_groups_arrive() {
    let text = shell("id -u; id -g; id -G").options(|o| o.user = Some("web".to_owned())).output();
    assert_eq!(text, "33\n44\n44 55\n");
    let text = shell("id -u; id -g; id -G").options(|o| o.user = Some("1234:55".to_owned())).output();
    assert_eq!(text, "1234\n55\n55\n");
}

fn the_program_is_found_in_path() {
    assert_eq!(program(&["true"]).output(), "");
    let away = program(&["true"]).options(|o| {
        o.env.insert("PATH".to_owned(), Some("/nowhere:/etc".to_owned()));
    });
    assert!(
        away.refusal().contains("true (in PATH /nowhere:/etc): no such file or directory (ENOENT)"),
        "{}",
        away.refusal()
    );
}

fn exit_status_and_signal_are_kept() {
    assert_eq!(shell("exit 7").run().unwrap().status, 7);
    // The container's first process is protected from its own signals, so its child sends none; a second process is needed.
    assert_eq!(shell("sh -c 'kill -9 $$'; exit $?").run().unwrap().status, 137);
}

fn a_failure_names_step_object_and_cause() {
    let cases = [
        (
            program(&["/bin/absent"]).refusal(),
            "exec /bin/absent: no such file or directory (ENOENT): there is no such program",
        ),
        (
            program(&["/etc/passwd"]).refusal(),
            "exec /etc/passwd: permission denied (EACCES): the file isn't executable",
        ),
        (
            shell("").change(|l| l.sysctls.push(("net.no.such".to_owned(), "1".to_owned()))).refusal(),
            "set sysctl net.no.such=1: no such file or directory (ENOENT): there is no such sysctl",
        ),
        (
            shell("")
                .change(|l| l.sysctls.push(("net/../kernel/printk_ratelimit".to_owned(), "5".to_owned())))
                .refusal(),
            "sysctl net/../kernel/printk_ratelimit contains an invalid path",
        ),
        (
            shell("")
                .change(|l| l.sysctls.push(("fs/mqueue/../../kernel/hostname".to_owned(), "x".to_owned())))
                .refusal(),
            "contains an invalid path",
        ),
        (
            shell("").change(|l| l.sysctls.push(("net..core.somaxconn".to_owned(), "5".to_owned()))).refusal(),
            "contains an invalid path",
        ),
        (
            shell("").change(|l| l.sysctls.push(("kernel.panic".to_owned(), "1".to_owned()))).refusal(),
            "sysctl kernel.panic belongs to no namespace",
        ),
        (
            shell("").change(|l| l.process.uid = 70_000).refusal(),
            "set uid to 70000: invalid argument (EINVAL): the id isn't in the container's id map",
        ),
        (
            shell("").change(|l| l.root.source = RootSource::Directory("/no/such/root".to_owned())).refusal(),
            "clone mount of /no/such/root: no such file or directory (ENOENT): it doesn't exist on the machine",
        ),
        (
            shell("")
                .change(|l| {
                    l.seccomp =
                        Some(garboard_runtime::launch::Seccomp { bpf: vec![0; 7].into(), flags: 0, listener: None })
                })
                .refusal(),
            "load seccomp filter malformed filter: invalid argument (EINVAL)",
        ),
        (
            shell("")
                .change(|l| l.process.rlimits.push(Rlimit { resource: 7, soft: 1 << 40, hard: 1 << 40 }))
                .refusal(),
            "set resource limit RLIMIT_NOFILE to 1099511627776:1099511627776: operation not permitted (EPERM)",
        ),
        (shell("").change(|l| l.process.args.clear()).refusal(), "no program to execute"),
    ];
    for (text, expected) in cases {
        assert!(text.contains(expected), "expected {expected:?}, got {text:?}");
    }
}

fn a_failed_start_leaves_nothing_behind() {
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let children = || std::fs::read_to_string("/proc/thread-self/children").unwrap();
    let before = descriptors();
    for _ in 0..20 {
        shell("").change(|l| l.root.source = RootSource::Directory("/no/such/root".to_owned())).refusal();
        // Fails in the launcher, after the child was made.
        shell("").change(|l| l.process.oom_score_adj = Some(5000)).refusal();
        program(&["/bin/absent"]).refusal();
    }
    assert_eq!((descriptors(), children()), (before, String::new()));
    assert_eq!(
        std::fs::read_dir(place().cgroup_path()).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).count(),
        0
    );
}

fn a_launcher_with_threads_is_refused() {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || receiver.recv());
    let text = shell("true").refusal();
    assert!(text.contains("the launcher has 2 threads"), "{text}");
    drop(sender);
    thread.join().unwrap().unwrap_err();
    // The kernel takes a thread out of its count a moment after it can be joined.
    while std::fs::read_dir("/proc/self/task").unwrap().count() > 1 {}
    shell("true").output();
}

fn layers_cover_each_other_as_overlay_does() {
    let (lower, upper) = (scratch("covering-lower"), scratch("covering-upper"));
    for directory in ["dir", "opaque"] {
        std::fs::create_dir_all(lower.join(directory)).unwrap();
        std::fs::create_dir_all(upper.join(directory)).unwrap();
        std::fs::write(lower.join(directory).join("old"), "").unwrap();
        std::fs::write(upper.join(directory).join("new"), "").unwrap();
    }
    std::fs::write(lower.join("deleted"), "").unwrap();
    std::fs::write(lower.join("changed"), "old").unwrap();
    std::fs::write(upper.join("changed"), "new").unwrap();
    std::fs::write(lower.join("secret"), "kept from others").unwrap();
    std::fs::set_permissions(lower.join("secret"), PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::set_permissions(&upper, PermissionsExt::from_mode(0o750)).unwrap();
    let device = rustix::fs::makedev(0, 0);
    let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::empty());
    rustix::fs::mknodat(rustix::fs::CWD, upper.join("deleted"), kind, mode, device).unwrap();
    let opaque = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(upper.join("opaque"), "user.overlay.opaque", b"y", opaque).unwrap();
    let text = shell("ls /dir /opaque; cat /changed; ls /deleted; cat /secret; stat -c '%a %u' /; echo more >> /secret; rm -r /dir && mkdir /dir && ls /dir; echo end")
        .layer(&lower)
        .layer(&upper)
        .output();
    let expected =
        "/dir:\nnew\nold\n\n/opaque:\nnew\nnewls: /deleted: No such file or directory\nkept from others750 0\nend\n";
    assert_eq!(text, expected);
    assert_eq!(std::fs::read_to_string(lower.join("secret")).unwrap(), "kept from others");
}

fn a_read_only_root_is_read_only_with_all_mounts() {
    let script = "echo x > /file; echo y > /etc/file; ls -d /srv/new && echo z > /srv/new/ok && cat /srv/new/ok; echo > /dev/null";
    let read_only = |c: crate::site::Container| {
        c.options(|o| {
            o.read_only = true;
            let kind = MountKind::Tmpfs { size: Some(4096), mode: None, uid: None, gid: None };
            o.mounts.push(OptionMount { target: "/srv/new".to_owned(), kind, read_only: false, noexec: false });
        })
    };
    let mut without_upper = read_only(shell(script));
    without_upper.upper = Upper::None;
    for container in [read_only(shell(script)), without_upper] {
        let text = container.output();
        assert_eq!(text.matches("Read-only file system").count(), 2, "{text}");
        assert!(text.ends_with("/srv/new\nz\n"), "the absent mount point was made: {text}");
    }
}

fn a_kept_upper_is_kept() {
    let upper = scratch("kept").join("upper");
    let mut container = shell("echo first > /kept; ls -n /kept");
    container.upper = Upper::Directory(upper.to_str().unwrap().to_owned());
    container.output();
    // On disk the ids are the container's own, so that another range finds its files.
    assert_eq!(std::fs::metadata(upper.join("upper/kept")).unwrap().uid(), 0);
    let mut again = shell("cat /kept; stat -c %u /kept").options(|o| o.ids = Some(crate::site::ids(BASE_ID + 65_536)));
    again.upper = Upper::Directory(upper.to_str().unwrap().to_owned());
    assert_eq!(again.output(), "first\n0\n");
}

fn a_directory_can_be_the_root() {
    let base = scratch("base");
    let directory = move |l: &mut garboard_runtime::launch::Launch| {
        l.root.source = RootSource::Directory(base.to_str().unwrap().to_owned());
        l.root.readonly = true;
    };
    let text = shell("cat /etc/group | head -n 1; echo > /x; true").change(directory).output();
    assert!(text.starts_with("root:x:0:\n") && text.contains("Read-only"), "{text}");
}

fn a_volume_is_made_owned_and_independent_of_the_ids() {
    let source = scratch("volumes").join("data/deep");
    let image = scratch("volume-image");
    std::fs::create_dir_all(image.join("var/lib/db")).unwrap();
    let with_volume = |script: &str, base: u32| {
        let source = source.to_str().unwrap().to_owned();
        shell(script)
            .options(move |o| {
                o.ids = Some(crate::site::ids(base));
                let kind = MountKind::Volume { source };
                o.mounts.push(OptionMount { target: "/var/lib/db".to_owned(), kind, read_only: false, noexec: false });
            })
            .change(|l| {
                let create = l.mounts.iter_mut().find_map(|m| match &mut m.source {
                    MountSource::Bind { create: Some(create), .. } => Some(create),
                    _ => None,
                });
                *create.unwrap() = garboard_runtime::launch::CreateDir { uid: 33, gid: 44, mode: 0o2750 };
            })
    };
    let text = with_volume("stat -c '%u %g %a' /var/lib/db; echo data > /var/lib/db/file", BASE_ID).output();
    assert_eq!(text, "33 44 2750\n");
    let on_disk = std::fs::metadata(&source).unwrap();
    assert_eq!((on_disk.uid(), on_disk.gid(), on_disk.mode() & 0o7777), (33, 44, 0o2750));
    assert_eq!(std::fs::metadata(source.join("file")).unwrap().uid(), 0);
    let text = with_volume("cat /var/lib/db/file; stat -c %u /var/lib/db/file", BASE_ID + 65_536).output();
    assert_eq!(text, "data\n0\n");
}

fn tmpfs_options_and_flags_arrive() {
    let text = shell("stat -c '%a %u' /scratch; grep ' /scratch ' /proc/mounts; head -c 100000 /dev/zero > /scratch/big; stat -c 'size %s' /scratch/big")
        .options(|o| {
            let kind = MountKind::Tmpfs { size: Some(65_536), mode: Some(0o700), uid: Some(33), gid: None };
            o.mounts.push(OptionMount { target: "/scratch".to_owned(), kind, read_only: false, noexec: true });
        })
        .output();
    assert!(text.starts_with("700 33\n"), "{text}");
    assert!(text.contains("nosuid,nodev,noexec") && text.contains("size=64k"), "{text}");
    assert!(text.ends_with("size 65536\n"), "{text}");
}

fn the_machine_s_namespaces_can_be_shared() {
    let me = std::process::id();
    let own = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().to_str().unwrap().to_owned();
    let text = shell(&format!("ls -d /proc/{me}; for n in net pid ipc uts; do stat -c %N /proc/self/ns/$n; done; ls /sys/class/net > /dev/null && echo sys"))
        .options(|o| {
            for namespace in [&mut o.pid, &mut o.network, &mut o.ipc, &mut o.uts] {
                *namespace = NamespaceChoice::Host;
            }
        })
        .output();
    assert!(text.contains(&format!("/proc/{me}\n")) && text.ends_with("sys\n"), "{text}");
    for kind in ["net", "pid", "ipc", "uts"] {
        assert!(text.contains(&own(kind)), "{kind}: {text}");
    }
}

fn without_a_user_namespace_it_works_too() {
    let text = shell("cat /proc/self/uid_map; ls -ln /etc/passwd; touch /x && ls -n /x; ls /dev/null; grep -c . /proc/mounts > /dev/null; true")
        .options(|o| o.ids = None)
        .output();
    assert!(text.split_whitespace().collect::<Vec<_>>().starts_with(&["0", "0", "4294967295"]), "{text}");
}

fn a_network_namespace_can_be_joined() {
    let first = shell("sleep 20").named("first");
    let started = first.start(Stdio::default()).unwrap();
    assert_eq!(wait_for_report(&started), Report::Executed);
    let path = format!("/proc/{}/ns/net", started.pid);
    let its = std::fs::read_link(&path).unwrap().to_str().unwrap().to_owned();
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    let text = shell("stat -c %N /proc/self/ns/net; ls /sys > /dev/null; true")
        .options(|o| o.network = NamespaceChoice::Path(path.clone()))
        .output();
    assert!(text.contains(&its), "{text}");
    assert_eq!(std::fs::read_link("/proc/self/ns/net").unwrap(), own, "the launcher is back");
    let wrong = shell("").change(move |l| l.namespaces.ipc = Namespace::Path(path.clone())).refusal();
    assert!(wrong.contains("join namespace") && wrong.contains("another kind"), "{wrong}");
    cgroup::kill(started.cgroup.as_ref().unwrap()).unwrap();
    assert_eq!(reap(&started), 137);
    first.remove_cgroup();
}

fn sysctls_are_the_container_s_own() {
    let file = "/proc/sys/net/ipv4/ip_default_ttl";
    let before = std::fs::read_to_string(file).unwrap();
    let text = shell(&format!("cat {file}; cat /proc/sys/net/ipv4/ip_unprivileged_port_start"))
        .options(|o| {
            o.sysctls.insert("net.ipv4.ip_default_ttl".to_owned(), "77".to_owned());
            o.sysctls.insert("kernel.shmmni".to_owned(), "123".to_owned());
        })
        .output();
    assert_eq!(text, "77\n0\n");
    assert_eq!(std::fs::read_to_string(file).unwrap(), before);
}

fn a_cgroup_is_filled_killed_and_removed() {
    let container = shell("mkdir /tmp/x; (sleep 30 &) ; sleep 30").named("killed");
    let started = container.start(Stdio::default()).unwrap();
    assert_eq!(wait_for_report(&started), Report::Executed);
    let group = started.cgroup.as_ref().unwrap();
    let parent = crate::site::open(place().cgroup_path());
    assert!(cgroup::populated(group).unwrap());
    assert!(cgroup::remove(&parent, "killed").is_err(), "a cgroup with processes can't be removed");
    let busy = container.start(Stdio::default()).unwrap_err();
    assert!(busy.to_string().contains("processes of an earlier start"), "{busy}");
    // What a container makes beneath it goes with it.
    std::fs::create_dir_all(place().cgroup_path().join("killed/inner/deeper")).unwrap();
    cgroup::kill(group).unwrap();
    assert_eq!(reap(&started), 137);
    container.remove_cgroup();
    assert!(!place().cgroup_path().join("killed").exists());
    // A left-over empty one is replaced.
    std::fs::create_dir(place().cgroup_path().join("killed")).unwrap();
    assert_eq!(shell("exit 3").named("killed").run().unwrap().status, 3);
}

/// A cgroup that was made threaded, and one beneath which some are.
fn threads_in_cgroups_of_their_own_are_killed() {
    let top = place().cgroup_path().join("threads");
    let (inside, deeper) = (top.join("inside"), top.join("inside/deeper"));
    std::fs::create_dir_all(&deeper).unwrap();
    for threaded in [&inside, &deeper] {
        std::fs::write(threaded.join("cgroup.type"), "threaded").unwrap();
    }
    let sleepers = || {
        [&inside, &deeper].map(|group| {
            let child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
            std::fs::write(group.join("cgroup.procs"), child.id().to_string()).unwrap();
            child
        })
    };
    let killed = sleepers();
    // The control.
    let refused = std::fs::write(inside.join("cgroup.kill"), "1").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EOPNOTSUPP));
    for (group, children) in [(&inside, killed), (&top, sleepers())] {
        cgroup::kill(crate::site::open(group)).unwrap();
        for mut child in children {
            assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        }
    }
    cgroup::remove(crate::site::open(place().cgroup_path()), "threads").unwrap();
}

fn an_absent_controller_fails_or_is_recorded() {
    use garboard_runtime::cgroup::AbsentController::{Fail, Record};
    let parent = crate::site::open(place().cgroup_path());
    let settings = garboard_runtime::launch::Cgroup {
        settings: vec![("nosuch.max".to_owned(), "1".to_owned())],
        ..garboard_runtime::launch::Cgroup::default()
    };
    let failure = cgroup::create(&parent, "absent", &settings, Fail).unwrap_err();
    assert!(
        failure.to_string().contains(
            "nosuch.max=1: the requested cgroup controller `nosuch` is not available: operation not supported (EOPNOTSUPP)"
        ),
        "{failure}"
    );
    assert!(!place().cgroup_path().join("absent").exists());
    let (_group, left_out) = cgroup::create(&parent, "absent", &settings, Record).unwrap();
    assert_eq!(left_out, ["nosuch.max=1: the controller is absent"]);
    cgroup::remove(&parent, "absent").unwrap();
}

fn standard_output_can_be_opened_by_name() {
    let text = shell("echo one > /dev/stdout; echo two > /dev/stderr; echo three > /proc/self/fd/1")
        .options(|o| o.user = Some("web".to_owned()))
        .output();
    assert_eq!(text, "one\ntwo\nthree\n");
}

fn signals_are_at_their_defaults() {
    let text = program(&["/bin/cat", "/proc/self/status"]).output();
    let status = fields(&text);
    for set in ["SigBlk", "SigIgn", "SigPnd"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
}

fn each_start_has_its_layers_mapped() {
    let container = shell("[ $(stat -c %u /etc/passwd) = 0 ]").named("restarted");
    for _ in 0..3 {
        let started = crate::site::start_launch(&container.launch(), "restarted", Stdio::default()).unwrap();
        assert_eq!(reap(&started), 0);
        container.remove_cgroup();
    }
}

fn the_launcher_keeps_no_mount_or_descriptor() {
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let container = shell("sleep 20").named("running");
    let before = (mounts(), descriptors());
    let started = container.start(Stdio::default()).unwrap();
    assert_eq!(wait_for_report(&started), Report::Executed);
    assert_eq!(mounts(), before.0, "while it runs");
    cgroup::kill(started.cgroup.as_ref().unwrap()).unwrap();
    reap(&started);
    drop(started);
    container.remove_cgroup();
    assert_eq!(descriptors(), before.1);
}
