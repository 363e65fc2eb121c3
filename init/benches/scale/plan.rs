//! The containers: what an undemanding declaration becomes, a thousand times.

use garboard_runtime::compile;
use garboard_runtime::launch::{IdMap, IdRange, Launch, MountSource, Root, RootSource, Upper};
use garboard_runtime::plan::{
    Access, Addressing, Condition, Console, Container, Dependency, Etc, Network, PackedLaunch, Plan, Restart,
};
use garboard_runtime::spec::{self, FileMetadata, ImageFiles, Mount, MountKind, Options};

use crate::site::Site;

pub const LOG_BUDGET: u64 = 16 << 20;
/// What an image is taken for that says nothing.
const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
/// What containers may write to their root.
const ROOT_SIZE: u64 = 256 << 20;

/// So many that run, then one after the other so many that end at once.
pub fn of(site: &Site, count: usize, chain: usize) -> Plan {
    let usual = launch(site);
    let container = |number: usize| {
        let name = format!("c{number}");
        let mut launch = usual.clone();
        let ids = vec![IdRange { inside: 0, outside: 1_000_000 + 65_536 * number as u32, size: 65_536 }];
        launch.ids = Some(IdMap { uids: ids.clone(), gids: ids });
        if number >= count {
            launch.process.args = vec!["/bin/true".into()];
        }
        for mount in &mut launch.mounts {
            if let MountSource::Bind { path, .. } = &mut mount.source {
                *path = path.replace("/etc/c0/", &format!("/etc/{name}/"));
            }
        }
        let etc = Etc {
            hosts: Some(format!("127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n")),
            hostname: Some(format!("{name}\n")),
            resolv_conf: true,
        };
        let mut container = Container {
            image: "busybox".into(),
            restart: Restart::Always,
            etc,
            ..Container::bare(&name, PackedLaunch::of(launch).expect("encode a launch"))
        };
        if number >= count {
            container.restart = Restart::No;
            let condition = if number == count { Condition::Started } else { Condition::Completed };
            container.depends_on = vec![Dependency { container: number as u32 - 1, condition }];
        }
        container
    };
    Plan {
        appliance: "scale".into(),
        hostname: "scale".into(),
        modules: vec![],
        needs: vec![],
        sysctls: vec![],
        network: Network { address: Addressing::None, interface: None, dns: vec![] },
        data: None,
        memory_volumes: vec![],
        console: Console { logs: true, status: true, access: Access::Off },
        log_budget: LOG_BUDGET,
        watchdog_seconds: None,
        status_vsock: None,
        pods: vec![],
        containers: (0..count + chain).map(container).collect(),
    }
}

/// The launch of `c0`.
pub fn launch(site: &Site) -> Launch {
    let range = vec![IdRange { inside: 0, outside: 1_000_000, size: 65_536 }];
    let run = site.path("run");
    let generated = [
        ("/etc/hosts", run.join("etc/c0/hosts")),
        ("/etc/hostname", run.join("etc/c0/hostname")),
        ("/etc/resolv.conf", run.join("resolv.conf")),
    ];
    let mounts = generated.map(|(target, source)| Mount {
        target: target.to_owned(),
        kind: MountKind::Bind { source: source.to_str().expect("UTF-8").to_owned(), recursive: false },
        read_only: true,
        noexec: false,
    });
    let options = Options {
        command: Some(vec!["/bin/sleep".to_owned(), "1000000".to_owned()]),
        hostname: Some("container".to_owned()),
        ids: Some(IdMap { uids: range.clone(), gids: range }),
        mounts: mounts.into(),
        ..Options::default()
    };
    let config = serde_json::from_str(CONFIG).expect("config");
    let container = spec::from_image(&config, &options, &NoFiles).expect("spec");
    let layers = vec![site.path("layer").to_str().expect("UTF-8").to_owned()];
    let source = RootSource::Layers { layers, upper: Upper::Tmpfs { size: ROOT_SIZE } };
    compile::launch(&container.spec, Root { source, ..Root::default() }, &[]).expect("launch")
}

/// An image without passwd and group.
struct NoFiles;

impl ImageFiles for NoFiles {
    fn read(&self, _path: &str, _limit: usize) -> std::io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn metadata(&self, _path: &str) -> std::io::Result<Option<FileMetadata>> {
        Ok(None)
    }
}
