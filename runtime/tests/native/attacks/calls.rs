//! R9: system calls and devices.

use garboard_runtime::launch::{DeviceNode, EndLinks, IdMapping, MountFlags, MountSource};
use garboard_runtime::spec::SeccompChoice;
use garboard_runtime::spec::seccomp::default_profile;
use libtest_mimic::Trial;
use oci_spec::runtime::Arch;
use rustix::fs::Mode;

use super::{as_machine_root, powerful};
use crate::site::{fields, probe, scratch, shell};

pub fn tests() -> Vec<Trial> {
    trials![
        r9_system_calls_are_denied_as_documented,
        r9_the_user_namespace_denies_what_the_filter_would,
        r9_calls_of_other_abis_pass_no_filter,
        r9_a_filter_for_32_bit_programs_tells_newer_calls_from_denied_ones,
        r9_a_profile_of_ones_own_denies_what_it_says,
        r9_the_distribution_s_profile_is_understood,
        r9_devices_are_denied_by_the_filter,
        r9_a_declared_device_is_allowed_as_declared,
        r9_nodes_cannot_be_made,
    ]
}

const EPERM: &str = "1";

const ENOSYS: &str = "38";

/// Calls that the default filter denies with EPERM.
const DENIED: [&str; 29] = [
    "keyctl",
    "add_key",
    "request_key",
    "bpf",
    "userfaultfd",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "perf_event_open",
    "ptrace",
    "process_vm_readv",
    "pidfd_getfd",
    "mount",
    "umount2",
    "open_tree",
    "move_mount",
    "fsopen",
    "mount_setattr",
    "pivot_root",
    "unshare-user",
    "setns",
    "kexec_load",
    "init_module",
    "open_by_handle_at",
    "reboot",
    "swapon",
    "syslog",
    "clock_settime",
    "socket-alg",
];

fn r9_system_calls_are_denied_as_documented() {
    let found = fields(&probe(&["calls"]).output());
    for name in DENIED {
        assert_eq!(found[name], EPERM, "{name}");
    }
    assert_eq!((found["clone3"].as_str(), found["futex_wake (6.7)"].as_str()), (ENOSYS, ENOSYS));
    assert_eq!((found["socket-inet"].as_str(), found["getpid"].as_str()), ("0", "0"));

    // Control: without the filter, for the machine's root, the kernel gets to look at the arguments of each.
    let open = fields(&as_machine_root(probe(&["calls"])).output());
    for name in DENIED {
        assert_ne!(open[name], EPERM, "control: {name}");
    }
    assert_ne!(open["clone3"], ENOSYS, "control");
    for name in ["unshare-user", "userfaultfd"] {
        assert_eq!(open[name], "0", "control: {name} succeeds");
    }
}

fn r9_the_user_namespace_denies_what_the_filter_would() {
    // The filter off and every capability of its own user namespace: what concerns the machine is still denied.
    let found = fields(&probe(&["calls"]).options(|o| o.seccomp = SeccompChoice::Unconfined).change(powerful).output());
    for name in ["kexec_load", "init_module", "swapon", "bpf"] {
        // Not every kernel has each.
        assert!([EPERM, ENOSYS].contains(&found[name].as_str()), "{name}: {}", found[name]);
    }
    // Control: with them it may do in its own namespaces what root may.
    assert_ne!(found["mount"], EPERM, "control");
}

fn r9_calls_of_other_abis_pass_no_filter() {
    assert_eq!(probe(&["i386"]).output(), "[-38, -38, -38]\n");
    let open = probe(&["i386"]).options(|o| o.seccomp = SeccompChoice::Unconfined).output();
    assert_eq!(open, "[1, -1, -38]\n", "control: this kernel has the 32-bit calls");
}

/// A 32-bit program falls back from a call that is newer than its filter, and takes an older one that is denied for denied.
fn r9_a_filter_for_32_bit_programs_tells_newer_calls_from_denied_ones() {
    let mut profile = default_profile(0);
    profile.set_architectures(Some(vec![Arch::ScmpArchX86]));
    let profile = serde_json::to_string(&profile).unwrap();
    let found = probe(&["i386"]).options(|o| o.seccomp = SeccompChoice::Profile(profile)).output();
    assert_eq!(found, "[1, -1, -38]\n");
}

/// In Docker's shape: who lacks the capability may make no directory, and gets an error that nothing else gives.
fn r9_a_profile_of_ones_own_denies_what_it_says() {
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":[]}],
        "syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":74,"args":[],"comment":"a test",
                     "includes":{"arches":["amd64"]},"excludes":{"caps":["CAP_SYS_ADMIN"]}}]}"#;
    let profiled = || {
        shell("mkdir /tmp/new && echo made; true").options(|o| o.seccomp = SeccompChoice::Profile(profile.to_owned()))
    };
    let denied = profiled().output();
    assert!(denied.contains("can't create directory '/tmp/new': Bad message") && !denied.contains("made"), "{denied}");
    // The controls: with the capability, and without the profile.
    assert_eq!(profiled().options(|o| o.cap_add = vec!["SYS_ADMIN".to_owned()]).output(), "made\n");
    assert_eq!(shell("mkdir /tmp/new && echo made").output(), "made\n");
}

/// The one that Debian's container tools bring along, in the format that Docker and Podman share.
fn r9_the_distribution_s_profile_is_understood() {
    let profile = std::fs::read_to_string("/usr/share/containers/seccomp.json").expect("buildah is installed");
    let profiled = shell("mkdir /tmp/new && echo made; mount -t tmpfs none /tmp; true")
        .options(|o| {
            o.seccomp = SeccompChoice::Profile(profile);
            o.kernel = Some((6, 1));
        })
        .output();
    assert!(profiled.starts_with("made\n") && profiled.contains("permission denied"), "{profiled}");
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
    // A number that no driver has: what the filter lets through gives ENXIO. The node is the machine's root's alone.
    let node = scratch("r9").join("node");
    let (kind, mode) = (rustix::fs::FileType::CharacterDevice, Mode::from_raw_mode(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, &node, kind, mode, rustix::fs::makedev(240, 7)).unwrap();
    let device = |access: &str| garboard_runtime::spec::Device {
        source: node.to_str().unwrap().to_owned(),
        target: "/dev/of/machine".to_owned(),
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
    // It is the program's, whoever that is, and nobody else's; the machine's own node stays as it is.
    let owner = "stat -c '%u:%g %a' /dev/of/machine; echo > /dev/of/machine; true";
    let user = |o: &mut garboard_runtime::spec::Options| {
        (o.devices, o.user) = (vec![device("rw")], Some("33:44".to_owned()));
    };
    let output = shell(owner).options(user).output();
    assert!(output.starts_with("33:44 600\n") && output.contains("No such device or address"), "{output}");
    let bound = |l: &mut garboard_runtime::launch::Launch| {
        let device = l.devices.remove(0);
        let DeviceNode::Machine(path) = device.node else { panic!("{device:?}") };
        l.mounts.push(garboard_runtime::launch::Mount {
            target: device.target,
            source: MountSource::Bind {
                path,
                recursive: false,
                idmap: IdMapping::None,
                links: EndLinks::Followed,
                create: None,
            },
            flags: MountFlags::default(),
        });
    };
    let output = shell("cat < /dev/of/machine; true").options(user).change(bound).output();
    assert!(output.contains("Permission denied"), "control: {output}");
}

fn r9_nodes_cannot_be_made() {
    let script = "/bin/busybox mknod /tmp/disk b 8 0 && echo made; true";
    let all = |o: &mut garboard_runtime::spec::Options| o.cap_add = vec!["MKNOD".to_owned()];
    assert!(!shell(script).options(all).output().contains("made"));
    let output =
        shell(script).options(all).options(|o| o.ids = None).change(|l| l.cgroup.device_filter.clear()).output();
    assert!(output.contains("made"), "control: {output}");
}
