//! R3, I4: masks and mounts that an image or a launch tries to lead elsewhere.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use garboard_runtime::cgroup;
use garboard_runtime::launch::{EndLinks, IdMapping, Launch, MountSource};
use garboard_runtime::report::Report;
use garboard_runtime::spec::{Mount as OptionMount, MountKind, NamespaceChoice, Options};
use garboard_runtime::start::Stdio;
use libtest_mimic::Trial;
use rustix::mount::UnmountFlags;

use crate::site::{reap, scratch, shell, wait_for_report};

pub fn tests() -> Vec<Trial> {
    trials![
        r3_masked_and_read_only_paths_hold,
        r3_nobody_begins_beneath_a_cover,
        r3_a_swapped_null_device_is_noticed,
        r3_a_mask_goes_on_procfs_or_nowhere,
        r3_terminals_are_the_container_s_own,
        r3_a_sysctl_is_not_redirected,
        i4_kernel_filesystems_are_not_mounted_through_links,
        i4_a_linked_etc_stays_inside,
    ]
}

fn r3_masked_and_read_only_paths_hold() {
    // Something of the machine that everybody can read, and a setting that root of a network namespace can write.
    let script = "wc -c < /proc/version; ls /sys/kernel | wc -l; echo 70 > /proc/sys/net/ipv4/ip_default_ttl && echo written; stat -c %t:%T /proc/version";
    let masks = |l: &mut Launch| l.masked_paths.extend(["/proc/version".to_owned(), "/sys/kernel".to_owned()]);
    let admin = |o: &mut Options| o.cap_add = vec!["NET_ADMIN".to_owned()];
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

/// An image says where its program begins.
fn r3_nobody_begins_beneath_a_cover() {
    let admin = |o: &mut Options| o.cap_add = vec!["NET_ADMIN".to_owned()];
    let at = |cwd: &'static str, script: &str, covered: bool| {
        let change = move |l: &mut Launch| {
            l.process.cwd = cwd.to_owned();
            l.masked_paths.push("/sys/kernel".to_owned());
            if !covered {
                l.masked_paths.clear();
                l.readonly_paths.clear();
            }
        };
        shell(script).options(admin).change(change).output()
    };
    let files = "ls . | wc -l";
    assert_eq!(at("/sys/kernel", files, true), "0\n");
    assert_ne!(at("/sys/kernel", files, false), "0\n", "control");
    let write = "echo 70 > ip_default_ttl && echo written; true";
    let text = at("/proc/sys/net/ipv4", write, true);
    assert!(text.contains("Read-only file system"), "{text}");
    assert!(at("/proc/sys/net/ipv4", write, false).contains("written\n"), "control");
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

fn r3_terminals_are_the_container_s_own() {
    // CVE-2025-52565: `/dev/pts/N` swapped while `/dev/console` is bound to it. Nothing is: there is no console, and the
    // instance of devpts is empty. What the image ships in `/dev` is covered.
    let image = scratch("r3-terminals");
    std::fs::create_dir_all(image.join("dev")).unwrap();
    symlink("/proc", image.join("dev/pts")).unwrap();
    symlink("/proc/sysrq-trigger", image.join("dev/console")).unwrap();
    let text = shell("ls /dev/pts; ls /dev/console; stat -c %T -f /dev/pts; true").layer(&image).output();
    assert!(text.starts_with("ptmx\n") && text.contains("/dev/console: No such file"), "{text}");
    // Control: without a `/dev` of the container's own, the shipped link is in the way, and is refused.
    let text = shell("true").layer(&image).change(|l| l.mounts.retain(|m| m.target != "/dev")).refusal();
    assert!(
        text.contains("prepare mount target /dev/pts: too many levels of symbolic links (ELOOP)"),
        "control: {text}"
    );
}

fn r3_a_sysctl_is_not_redirected() {
    // CVE-2025-52881: what a runtime writes to procfs lands in a file of the attacker's choice. Other files over the sysctls
    // stand for every way to get there. They come with a procfs of the machine's, as nothing is mounted there by itself.
    const FILE: &str = "/proc/sys/net/ipv4/ip_default_ttl";
    let place = scratch("r3-decoy");
    let (decoy, proc) = (place.join(FILE.trim_start_matches('/')), place.join("machine"));
    std::fs::create_dir_all(decoy.parent().unwrap()).unwrap();
    std::fs::write(&decoy, "untouched").unwrap();
    std::fs::create_dir(&proc).unwrap();
    rustix::mount::mount("proc", &proc, "proc", rustix::mount::MountFlags::empty(), None).unwrap();
    rustix::mount::mount_bind(place.join("proc/sys"), proc.join("sys")).unwrap();
    let source = proc.to_str().unwrap().to_owned();
    let over_it = move |l: &mut Launch| {
        // Which would notice.
        l.readonly_paths.clear();
        let mount = l.mounts.iter_mut().find(|mount| mount.target == "/proc").unwrap();
        mount.source = MountSource::Bind {
            path: source.clone(),
            recursive: true,
            idmap: IdMapping::None,
            links: EndLinks::Followed,
            create: None,
        };
    };
    let set = |o: &mut Options| {
        o.sysctls.insert("net.ipv4.ip_default_ttl".to_owned(), "77".to_owned());
    };
    let container = shell(&format!("cat {FILE}; sleep 20")).named("r3").options(set).change(over_it.clone());
    let started = container.start(Stdio::default()).unwrap();
    assert_eq!(wait_for_report(&started), Report::Executed);
    let network = NamespaceChoice::Path(format!("/proc/{}/ns/net", started.pid));
    let real = shell(&format!("cat {FILE}")).options(|o| o.network = network).output();
    cgroup::kill(started.cgroup.as_ref().unwrap()).unwrap();
    reap(&started);
    container.remove_cgroup();
    assert_eq!((real.as_str(), std::fs::read_to_string(&decoy).unwrap().as_str()), ("77\n", "untouched"));
    // Control: what goes by the name in the container finds the decoy.
    let text = shell(&format!("cat {FILE}")).options(set).change(over_it).output();
    assert_eq!(text, "untouched", "control");
    rustix::mount::unmount(&proc, UnmountFlags::DETACH).unwrap();
}

fn i4_kernel_filesystems_are_not_mounted_through_links() {
    for name in ["proc", "sys", "dev"] {
        let (image, outside) = (scratch(&format!("i4-{name}")), scratch(&format!("i4-outside-{name}")));
        // Over the base's directory of that name there comes a link.
        symlink(&outside, image.join(name)).unwrap();
        let text = shell("true").layer(&image).refusal();
        assert!(
            text.contains(&format!("prepare mount target /{name}: too many levels of symbolic links (ELOOP): it must be mounted on ordinary directory: the image ships it as a symbolic link")),
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
