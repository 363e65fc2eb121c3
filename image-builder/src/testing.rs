//! What several tests need.

use garboard_config::Appliance;
use garboard_runtime::launch::{Capabilities, Cgroup, Launch, Namespaces, Process, Root, RootSource};

/// The appliance that `text` declares, which must be valid.
pub fn appliance(text: &str) -> Appliance {
    garboard_config::parse("appliance.toml", text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A launch with nothing in it.
pub fn launch() -> Launch {
    Launch {
        process: Process {
            args: vec!["/bin/true".to_owned()],
            env: Vec::new(),
            cwd: "/".to_owned(),
            uid: 0,
            gid: 0,
            additional_gids: Vec::new(),
            umask: None,
            capabilities: Capabilities::default(),
            rlimits: Vec::new(),
            no_new_privileges: true,
            oom_score_adj: None,
        },
        namespaces: Namespaces::default(),
        ids: None,
        root: Root { source: RootSource::Directory("/".to_owned()), readonly: true },
        mounts: Vec::new(),
        devices: Vec::new(),
        masked_paths: Vec::new(),
        readonly_paths: Vec::new(),
        hostname: None,
        domainname: None,
        sysctls: Vec::new(),
        cgroup: Cgroup::default(),
        seccomp: None,
    }
}
