//! Machines with nothing but `garboard-runtime` and a bundle for it.

// Each test group compiles this module for itself and none uses all of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use garboard_qemu::{Image, Vm, secs};
use serde_json::{Value, json};

use crate::guest::Guest;
use crate::support::{BOOT, older_kernel};

/// Where the program under test is in the target directory.
const STATIC: &str = "static-runtime/x86_64-unknown-linux-gnu/tool/garboard-runtime";

/// The program under test, for which `qemu-tests/verify` builds it.
pub fn runtime() -> PathBuf {
    let path = match std::env::var_os("GARBOARD_RUNTIME") {
        Some(path) => PathBuf::from(path),
        // A test executable is in TARGET/PROFILE/deps.
        None => std::env::current_exe().unwrap().ancestors().nth(3).unwrap().join(STATIC),
    };
    let build = "runtime/build-static --profile tool";
    assert!(path.exists(), "{} is missing: run {build}", path.display());
    path
}

/// A bundle in `/bundle` that runs this.
pub fn bundle(guest: &mut Guest, arguments: &[&str]) {
    bundle_with(guest, arguments, |_| {});
}

/// The same, changed.
pub fn bundle_with(guest: &mut Guest, arguments: &[&str], change: impl FnOnce(&mut Value)) {
    let mut config = config(arguments);
    change(&mut config);
    guest.text("bundle/config.json", &config.to_string());
    guest.file("bundle/rootfs/bin/busybox", Path::new("/bin/busybox"));
    guest.directory("bundle/rootfs/proc");
    guest.directory("bundle/rootfs/dev");
}

/// A configuration that runs this in `rootfs`.
pub fn config(arguments: &[&str]) -> Value {
    let capabilities = json!(["CAP_KILL"]);
    json!({
        "ociVersion": "1.3.0",
        "process": {
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": arguments, "env": ["PATH=/bin"],
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        ],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"}]},
    })
}

/// The `key value` lines that the script prints on a machine of its own, which has a bundle that sleeps.
pub fn run(script: &str) -> BTreeMap<String, String> {
    let mut guest = Guest::new(script);
    bundle(&mut guest, &["/bin/busybox", "sleep", "100000"]);
    boot(guest)
}

/// The `key value` lines that a machine prints, which has the program under test beside what it was given.
pub fn boot(guest: Guest) -> BTreeMap<String, String> {
    boot_for(guest, 512, BOOT)
}

/// The same with so much memory, within so long.
pub fn boot_for(mut guest: Guest, memory_mb: u32, time: Duration) -> BTreeMap<String, String> {
    guest.program(&runtime());
    let directory = tempfile::tempdir().unwrap();
    let initrd = guest.write(directory.path());
    let image = Image::bare(older_kernel().0, initrd, "quiet");
    let vm = Vm::builder(&image).memory_mb(memory_mb).boot().unwrap();
    let mut found = BTreeMap::new();
    vm.wait_console("the end", time).unwrap();
    for line in vm.console().transcript().lines() {
        if let Some((key, value)) = line.trim().split_once(' ') {
            found.insert(key.to_owned(), value.to_owned());
        }
    }
    let _ = vm.wait_exit(secs(20));
    println!("{found:#?}");
    found
}
