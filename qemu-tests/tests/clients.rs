//! Podman and containerd, on a machine whose cgroups have controllers: the tests that drive them on this machine's kernel run
//! there by the same program, for what only such a machine can show.

#[path = "support/guest.rs"]
mod guest;
mod support;

use std::path::{Path, PathBuf};

use garboard_qemu::{Image, Vm, secs};
use guest::Guest;
use support::{command, older_kernel, text};

/// Clients, what they call, and what the tests call.
const PROGRAMS: [&str; 12] = [
    "podman",
    "conmon",
    "newuidmap",
    "newgidmap",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "setpriv",
    "unshare",
    "tar",
    "env",
    "bash",
];

/// Configuration as Debian's packages have it.
const FILES: [&str; 3] =
    ["/etc/containers/policy.json", "/usr/share/containers/containers.conf", "/usr/share/containers/seccomp.json"];

/// With what `clients` is told besides.
const SCRIPT: &str = "
export PATH=/bin HOME=/root GARBOARD_MACHINE=1 GARBOARD_RUNTIME=/bin/garboard-runtime
mkdir -p /root /var/tmp
chmod 1777 /tmp /var/tmp
/bin/clients --test-threads=1 --color=never ARGUMENTS 2>&1
";

/// A program that `qemu-tests/verify` has built and named.
fn built(variable: &str, build: &str) -> PathBuf {
    std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} names no program: {build}")).into()
}

fn installed(program: &str) -> PathBuf {
    let found = command("sh").args(["-c", "command -v \"$0\"", program]).output().unwrap();
    let path = PathBuf::from(text(&found.stdout).trim());
    assert!(path.is_absolute(), "{program} is missing: qemu-tests/lib/packages.sh has its package");
    path
}

#[test]
fn podman_of_root_and_containerd_work_and_their_limits_hold() {
    run("--skip podman_ranges", 10);
}

#[test]
fn podman_of_an_ordinary_user_works_and_its_limits_hold() {
    run("podman_ranges", 7);
}

/// Runs those of the tests that the arguments choose, in a machine of its own. All must pass, and so many they must be.
fn run(arguments: &str, number: u32) {
    let mut guest = Guest::new(&SCRIPT.replace("ARGUMENTS", arguments));
    for program in PROGRAMS {
        guest.program(&installed(program));
    }
    guest.program_at("usr/libexec/podman/catatonit", &installed("catatonit"));
    guest.program_at("usr/lib/podman/netavark", Path::new("/usr/lib/podman/netavark"));
    guest.program(&built("GARBOARD_RUNTIME", "runtime/build-static --profile tool"));
    let tests = built("GARBOARD_CLIENTS", "cargo test --no-run -p garboard-runtime --features cli --test clients");
    guest.program_at("bin/clients", &tests);
    for file in FILES {
        guest.file(file.trim_start_matches('/'), Path::new(file));
    }
    guest.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    guest.text("etc/group", "root:x:0:\n");
    for file in ["etc/subuid", "etc/subgid", "etc/hosts", "etc/resolv.conf"] {
        guest.text(file, "");
    }
    let directory = tempfile::tempdir().unwrap();
    let initrd = guest.write(directory.path());
    let image = Image::bare(older_kernel().0, initrd, "quiet");
    let vm = Vm::builder(&image).memory_mb(2048).boot().unwrap();
    vm.wait_console("the end", secs(900)).unwrap();
    let printed = vm.console().transcript();
    println!("{printed}");
    let verdict = printed.lines().find(|line| line.starts_with("test result: ")).expect("a verdict");
    println!("processor time: {:?}", vm.cpu_time());
    assert!(verdict.starts_with(&format!("test result: ok. {number} passed; 0 failed")), "{verdict}");
}
