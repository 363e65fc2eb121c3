//! `features`: what this runtime knows, whatever the machine can do (runtime spec, "Features Document").

use serde_json::{Value, json};

use crate::container::{Error, Result};
use crate::spec::capabilities;

/// Options of mounts that mean the same on every filesystem.
const MOUNT_OPTIONS: &[&str] = &[
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "rexec",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "unbindable",
];
/// Those that need more than themselves: user ids to map, a mount that is there, a tmpfs, a bind mount.
const MOUNT_OPTIONS_WITH_MORE: &[&str] =
    &["copy-symlink", "dest-nofollow", "idmap", "remount", "ridmap", "src-nofollow", "tmpcopyup"];
const NAMESPACES: &[&str] = &["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];
const ACTIONS: &[&str] = &[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];
const OPERATORS: &[&str] =
    &["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"];
const ARCHITECTURES: &[&str] = &["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"];
const FLAGS: &[&str] = &[
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];
const MEMORY_POLICIES: &[&str] = &[
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];
const MEMORY_POLICY_FLAGS: &[&str] = &["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

#[inline(never)]
pub(super) fn run() -> Result<u8> {
    let text =
        serde_json::to_string_pretty(&document()).map_err(|error| Error::new(format!("print features: {error}")))?;
    super::print(&format!("{text}\n"))?;
    Ok(0)
}

fn document() -> Value {
    let mount_options = [MOUNT_OPTIONS, MOUNT_OPTIONS_WITH_MORE].concat();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": mount_options,
        "potentiallyUnsafeConfigAnnotations": [
            "org.garboard.landlock.", "org.garboard.layers", "org.systemd.property.", "run.oci.delegate-cgroup",
            "run.oci.hooks.", "run.oci.keep_original_groups", "run.oci.pidfd_receiver", "run.oci.seccomp.receiver",
            "run.oci.seccomp_bpf_data", "run.oci.systemd.subgroup"
        ],
        "linux": {
            "namespaces": NAMESPACES,
            "capabilities": capabilities::BY_NUMBER.iter().map(|c| format!("CAP_{c}")).collect::<Vec<_>>(),
            "cgroup": {"v1": false, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": ACTIONS,
                "operators": OPERATORS,
                "archs": ARCHITECTURES,
                "knownFlags": FLAGS,
                "supportedFlags": FLAGS,
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
            "memoryPolicy": {"modes": MEMORY_POLICIES, "flags": MEMORY_POLICY_FLAGS},
            "netDevices": {"enabled": true},
            "mountExtensions": {"idmap": {"enabled": true}},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compile, spec};

    fn accepted(config: &Value) -> std::result::Result<(), spec::Error> {
        let (spec, _) = compile::read(config.to_string().as_bytes())?;
        compile::bundle(&spec, compile::Bundle { path: "/bundle", id: "one" }).map(drop)
    }

    fn config() -> Value {
        json!({
            "ociVersion": "1.3.0",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "/"},
            "root": {"path": "rootfs"},
            "linux": {"namespaces": [{"type": "mount"}]},
        })
    }

    #[test]
    fn everything_listed_is_accepted() {
        for option in MOUNT_OPTIONS {
            let mut config = config();
            config["mounts"] =
                json!([{"destination": "/x", "type": "bind", "source": "/y", "options": ["bind", option]}]);
            assert_eq!(accepted(&config), Ok(()), "{option}");
        }
        for option in MOUNT_OPTIONS_WITH_MORE {
            let mut config = config();
            config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "user"}]);
            for side in ["uidMappings", "gidMappings"] {
                config["linux"][side] = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
            }
            let bind = if matches!(*option, "remount" | "tmpcopyup") { "rw" } else { "bind" };
            config["mounts"] =
                json!([{"destination": "/x", "type": "tmpfs", "source": "/y", "options": [bind, option]}]);
            assert_eq!(accepted(&config), Ok(()), "{option}");
        }
        for kind in NAMESPACES {
            let mut config = config();
            if *kind != "mount" {
                config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": kind}]);
            }
            if *kind == "user" {
                for side in ["uidMappings", "gidMappings"] {
                    config["linux"][side] = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
                }
            }
            assert_eq!(accepted(&config), Ok(()), "{kind}");
        }
        let seccomp = |value: Value| {
            let mut config = config();
            config["linux"]["seccomp"] = value;
            accepted(&config)
        };
        for action in ACTIONS {
            let rule = json!([{"names": ["sync"], "action": action}]);
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule, "listenerPath": "/run/agent"});
            assert_eq!(seccomp(profile), Ok(()), "{action}");
        }
        for operator in OPERATORS {
            let arguments = json!([{"index": 0, "value": 1, "valueTwo": 1, "op": operator}]);
            let rule = json!([{"names": ["sync"], "action": "SCMP_ACT_ERRNO", "args": arguments}]);
            assert_eq!(seccomp(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule})), Ok(()), "{operator}");
        }
        let native = "SCMP_ARCH_X86_64";
        for architecture in ARCHITECTURES {
            let list = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [native, architecture]});
            assert_eq!(seccomp(list), Ok(()), "{architecture}");
        }
        for flag in FLAGS {
            let rule = json!([{"names": ["sync"], "action": "SCMP_ACT_NOTIFY"}]);
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": [flag], "syscalls": rule, "listenerPath": "/run/agent"});
            assert_eq!(seccomp(profile), Ok(()), "{flag}");
        }
        for mode in MEMORY_POLICIES {
            let mut config = config();
            let nodes = if ["MPOL_DEFAULT", "MPOL_LOCAL"].contains(mode) { "" } else { "0" };
            config["linux"]["memoryPolicy"] = json!({"mode": mode, "nodes": nodes});
            assert_eq!(accepted(&config), Ok(()), "{mode}");
        }
        for flag in MEMORY_POLICY_FLAGS {
            let mut config = config();
            config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": [flag]});
            assert_eq!(accepted(&config), Ok(()), "{flag}");
        }
        // What isn't listed isn't accepted: the checks above can fail.
        assert!(seccomp(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NONE"]})).is_err());
    }

    #[test]
    fn capabilities_are_named_in_full() {
        let names = document()["linux"]["capabilities"].clone();
        assert_eq!(names[0], "CAP_CHOWN");
        assert_eq!(names.as_array().map(Vec::len), Some(41));
    }
}
