//! `spec`: a configuration to begin with.

use serde_json::{Value, json};

use super::args::Spec;
use crate::container::error::During;
use crate::container::{Error, Result};

/// What a shell needs and no more.
const CAPABILITIES: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

#[inline(never)]
pub(super) fn run(arguments: &Spec) -> Result<u8> {
    let path = arguments.bundle.join(&arguments.file);
    let config = if arguments.rootless {
        for_ordinary_user(rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    } else {
        usual()
    };
    let mut text =
        serde_json::to_string_pretty(&config).map_err(|error| Error::new(format!("write config.json: {error}")))?;
    text.push('\n');
    let mut file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .open(&path)
        .during(|| format!("write {} (an existing one is left as it is)", path.display()))?;
    std::io::Write::write_all(&mut file, text.as_bytes()).during(|| format!("write {}", path.display()))?;
    Ok(0)
}

/// A shell on a read-only root, in namespaces of its own.
fn usual() -> Value {
    let namespaces: Vec<Value> =
        ["pid", "network", "ipc", "uts", "mount", "cgroup"].iter().map(|kind| json!({"type": kind})).collect();
    json!({
        "ociVersion": "1.3.0",
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "garboard",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
                "/sys/devices/virtual/powercap",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// The same for a user without rights: root inside is the user, the network is the machine's, and there are no limits to set.
fn for_ordinary_user(uid: u32, gid: u32) -> Value {
    let mut config = usual();
    let linux = &mut config["linux"];
    let namespaces: Vec<Value> =
        ["pid", "ipc", "uts", "mount", "cgroup", "user"].iter().map(|kind| json!({"type": kind})).collect();
    linux["namespaces"] = namespaces.into();
    linux["uidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
    linux["gidMappings"] = json!([{"containerID": 0, "hostID": gid, "size": 1}]);
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    for mount in config["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" {
            // Without a network namespace of its own there is no sysfs to mount. In the machine's lies the machine's cgroup tree, of which
            // a part may be this user's: nothing in it can be written to, and the container's own part covers it.
            mount["type"] = "none".into();
            mount["source"] = "/sys".into();
            mount["options"] = json!(["rbind", "nosuid", "noexec", "nodev", "rro"]);
        }
        if let Some(options) = mount["options"].as_array_mut() {
            // The group isn't in the map.
            options.retain(|option| option != "gid=5");
        }
    }
    config
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    let mut mount = json!({"destination": destination, "type": kind, "source": source});
    if !options.is_empty() {
        mount["options"] = json!(options);
    }
    mount
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_written_can_be_run() {
        for config in [super::usual(), super::for_ordinary_user(1000, 1000)] {
            let mut spec: oci_spec::runtime::Spec = serde_json::from_value(config).unwrap();
            spec.process_mut().as_mut().unwrap().set_terminal(None);
            let source = crate::launch::RootSource::Directory("/x".to_owned());
            crate::compile::launch(&spec, crate::launch::Root { source, ..Default::default() }, &[]).unwrap();
        }
    }
}
