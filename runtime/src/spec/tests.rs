//! From an image's configuration and options to a launch, without starting anything.

use oci_spec::image::ImageConfiguration;

use super::*;
use crate::compile;
use crate::launch::{IdMap, IdRange, Launch, MountSource, Namespace, RootSource, Upper};

/// An image with a passwd file and one directory.
struct Image;

impl ImageFiles for Image {
    fn read(&self, path: &str, _limit: usize) -> std::io::Result<Option<Vec<u8>>> {
        Ok(match path {
            "/etc/passwd" => Some(b"root:x:0:0::/root:\nredis:x:999:998::/var/lib/redis:\n".to_vec()),
            "/etc/group" => Some(b"redis:x:998:\n".to_vec()),
            _ => None,
        })
    }

    fn metadata(&self, path: &str) -> std::io::Result<Option<FileMetadata>> {
        let data = FileMetadata { directory: true, uid: 999, gid: 998, mode: 0o750 };
        Ok(match path {
            "/var/lib/redis" => Some(data),
            "/etc/passwd" => Some(FileMetadata { directory: false, ..data }),
            _ => None,
        })
    }
}

fn image(config: &str) -> ImageConfiguration {
    let json = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},"config":{config}}}"#
    );
    serde_json::from_str(&json).unwrap()
}

const REDIS: &str = r#"{"User":"redis","ExposedPorts":{"6379/tcp":{},"16379-16380/udp":{}},"Env":["PATH=/usr/bin:/bin","VERSION=7"],
    "Entrypoint":["/entry"],"Cmd":["redis-server","--port","6379"],"Volumes":{"/var/lib/redis":{}},"WorkingDir":"/data",
    "StopSignal":"SIGINT"}"#;

fn ids() -> IdMap {
    let range = vec![IdRange { inside: 0, outside: 100_000, size: 65_536 }];
    IdMap { uids: range.clone(), gids: range }
}

fn safe() -> Options {
    Options { ids: Some(ids()), ..Options::default() }
}

fn root() -> crate::launch::Root {
    let source = RootSource::Layers { layers: vec!["/layers/a".to_owned()], upper: Upper::Tmpfs { size: 1 } };
    crate::launch::Root { source, ..Default::default() }
}

fn made(options: &Options) -> Container {
    from_image(&image(REDIS), options, &Image).unwrap()
}

fn launch(options: &Options) -> Launch {
    let container = made(options);
    compile::launch(&container.spec, root(), &container.volumes).unwrap()
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

#[test]
fn an_image_s_configuration_is_followed() {
    let container = made(&safe());
    assert_eq!(container.stop_signal, 2);
    assert_eq!(container.exposed_ports, ["6379/tcp", "16379-16380/udp"]);
    let process = launch(&safe()).process;
    assert_eq!(process.args, ["/entry", "redis-server", "--port", "6379"]);
    assert_eq!(process.env, ["HOME=/var/lib/redis", "PATH=/usr/bin:/bin", "VERSION=7"]);
    assert_eq!((process.uid, process.gid, process.cwd.as_str()), (999, 998, "/data"));
    assert!(process.no_new_privileges);
}

#[test]
fn entrypoint_and_command_follow_docker() {
    let args = |entrypoint: Option<&[&str]>, command: Option<&[&str]>| {
        let options = Options { entrypoint: entrypoint.map(strings), command: command.map(strings), ..safe() };
        from_image(&image(REDIS), &options, &Image).map(|c| c.spec.process().as_ref().unwrap().args().clone().unwrap())
    };
    assert_eq!(args(None, Some(&["sh"])).unwrap(), ["/entry", "sh"]);
    assert_eq!(args(Some(&["/mine"]), None).unwrap(), ["/mine"]);
    assert_eq!(args(Some(&[]), Some(&["sh"])).unwrap(), ["sh"]);
    assert!(args(Some(&[]), None).unwrap_err().to_string().contains("names no program"));
    let with_init = Options { init: Some("/dev/.init".to_owned()), command: Some(strings(&["x"])), ..safe() };
    assert_eq!(launch(&with_init).process.args, ["/dev/.init", "/entry", "x"]);
}

#[test]
fn the_default_is_the_safe_one() {
    let launch = launch(&safe());
    let n = &launch.namespaces;
    for namespace in [&n.pid, &n.network, &n.ipc, &n.uts, &n.cgroup] {
        assert_eq!(*namespace, Namespace::New);
    }
    assert_eq!(launch.ids, Some(ids()));
    assert!(launch.seccomp.is_some() && !launch.cgroup.device_filter.is_empty());
    assert!(launch.masked_paths.contains(&"/proc/kcore".to_owned()));
    assert!(launch.readonly_paths.contains(&"/proc/sys".to_owned()));
    // A user other than root holds nothing.
    let sets = launch.process.capabilities;
    assert_eq!((sets.effective, sets.permitted, sets.inheritable, sets.ambient), (0, 0, 0, 0));
    assert_ne!(sets.bounding, 0);
    let writable: Vec<&str> =
        launch.mounts.iter().filter(|m| !m.flags.has(libc::MOUNT_ATTR_RDONLY)).map(|m| m.target.as_str()).collect();
    assert_eq!(writable, ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"]);
    assert!(launch.mounts.iter().all(|m| m.flags.has(libc::MOUNT_ATTR_NOSUID)));
    // The same for every launcher: the order of maps must not show.
    assert_eq!(launch, self::launch(&safe()));
}

#[test]
fn volumes_take_over_the_image_s_directory() {
    let kind = MountKind::Volume { source: "/data/volumes/db".to_owned() };
    let volume = Mount { target: "/var/lib/redis".to_owned(), kind, read_only: false, noexec: false };
    // An image volume that is declared isn't covered again.
    let options = Options { mounts: vec![volume], image_volumes: Some(1 << 20), ..safe() };
    let launch = launch(&options);
    let mounts: Vec<_> = launch.mounts.iter().filter(|m| m.target == "/var/lib/redis").collect();
    let [mount] = mounts[..] else { panic!("{mounts:?}") };
    let MountSource::Bind { path, idmap, create: Some(create), .. } = &mount.source else { panic!("{mount:?}") };
    assert_eq!(
        (path.as_str(), idmap, create.uid, create.gid, create.mode),
        ("/data/volumes/db", &crate::launch::IdMapping::Container { recursive: false }, 999, 998, 0o750)
    );
    assert!(mount.flags.has(libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV));
}

#[test]
fn what_an_image_declares_in_vain_is_told() {
    let odd = image(
        r#"{"Cmd":["x"],"ExposedPorts":{"http":{},"80-79/tcp":{},"0":{},"80":{}},"Volumes":{"/var/lib/redis":{}}}"#,
    );
    let made = |options: &Options| from_image(&odd, options, &Image).unwrap();
    let container = made(&safe());
    assert_eq!(container.exposed_ports, ["80/tcp"]);
    let told = container.warnings.join("\n");
    for part in ["\"http\"", "\"80-79/tcp\"", "\"0\"", "nothing is mounted on /var/lib/redis"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let kind = MountKind::Volume { source: "/data/volumes/db".to_owned() };
    let volume = Mount { target: "/var/lib/redis/".to_owned(), kind, read_only: false, noexec: false };
    assert_eq!(
        made(&Options { mounts: vec![volume], ..safe() }).warnings.len(),
        3,
        "a volume that is mounted is no matter"
    );
}

#[test]
fn ids_that_the_container_has_not_are_refused() {
    let decide = |config: &str, options: &Options| {
        let container = from_image(&image(config), options, &Image)?;
        compile::launch(&container.spec, root(), &container.volumes)
    };
    let of = |user: &str| format!(r#"{{"Cmd":["x"],"User":"{user}","Volumes":{{"/var/lib/redis":{{}}}}}}"#);
    for (user, id) in
        [("1000650000", "user id is 1000650000"), ("1:70000", "group id is 70000"), ("65536", "user id is 65536")]
    {
        let error = decide(&of(user), &safe()).unwrap_err().to_string();
        assert!(error.contains(id) && error.contains("the ids 0 to 65535 only"), "{error}");
        assert!(decide(&of(user), &Options::default()).is_ok(), "the machine's own ids go further");
    }
    assert!(decide(&of("65535"), &safe()).is_ok());
    // Owners of directories that a volume or a tmpfs takes over.
    let few = vec![IdRange { inside: 0, outside: 100_000, size: 999 }];
    let few = Options { ids: Some(IdMap { uids: few.clone(), gids: few }), ..Options::default() };
    let kind = MountKind::Volume { source: "/data/volumes/db".to_owned() };
    let volume = Mount { target: "/var/lib/redis".to_owned(), kind, read_only: false, noexec: false };
    assert!(decide(&of("1"), &few).is_ok());
    for options in [Options { mounts: vec![volume], ..few.clone() }, Options { image_volumes: Some(4096), ..few }] {
        let error = decide(&of("1"), &options).unwrap_err().to_string();
        assert!(error.contains("/var/lib/redis") && error.contains("user 999"), "{error}");
    }
}

#[test]
fn image_volumes_are_tmpfs_with_the_image_s_owner() {
    let launch = launch(&Options { image_volumes: Some(4096), ..safe() });
    let volume = launch.mounts.iter().find(|m| m.target == "/var/lib/redis").unwrap();
    let MountSource::Filesystem { options, .. } = &volume.source else { panic!("{volume:?}") };
    assert_eq!(*options, ["size=4096", "nr_inodes=1024", "mode=750", "uid=999", "gid=998"]);
    assert!(self::launch(&safe()).mounts.iter().all(|m| m.target != "/var/lib/redis"));
}

#[test]
fn no_mount_covers_another_that_is_declared_beneath_it() {
    let mount = |target: &str, kind| Mount { target: target.to_owned(), kind, read_only: false, noexec: false };
    let volume = |target: &str| mount(target, MountKind::Volume { source: format!("/data/volumes{target}") });
    let tmpfs = |target: &str| mount(target, MountKind::Tmpfs { size: None, mode: None, uid: None, gid: None });
    // The volume of the image is a tmpfs that lies between them.
    let mounts = vec![volume("/var/lib/redis/data"), tmpfs("/b/"), volume("/a"), tmpfs("//var/./lib")];
    let launch = launch(&Options { mounts, image_volumes: Some(4096), ..safe() });
    let targets: Vec<&str> = launch.mounts.iter().map(|mount| mount.target.as_str()).collect();
    let of_kernel = self::launch(&safe()).mounts.len();
    assert_eq!(targets[of_kernel..], ["/b", "/a", "/var/lib", "/var/lib/redis", "/var/lib/redis/data"]);
}

#[test]
fn shared_namespaces_get_mounts_that_the_kernel_allows() {
    let shared = Options { network: NamespaceChoice::Host, pid: NamespaceChoice::Host, ..safe() };
    let launch = launch(&shared);
    assert_eq!((&launch.namespaces.network, &launch.namespaces.pid), (&Namespace::Host, &Namespace::Host));
    for target in ["/sys", "/proc"] {
        let mount = launch.mounts.iter().find(|m| m.target == target).unwrap();
        assert!(matches!(&mount.source, MountSource::Bind { recursive: true, .. }), "{mount:?}");
    }
    assert!(launch.sysctls.is_empty(), "the machine's network is left alone: {:?}", launch.sysctls);
}

#[test]
fn options_that_cannot_be_are_refused_by_name() {
    let tmpfs = |target: &str| {
        let kind = MountKind::Tmpfs { size: None, mode: None, uid: None, gid: None };
        vec![Mount { target: target.to_owned(), kind, read_only: false, noexec: false }]
    };
    let cases: Vec<(Options, &str)> = vec![
        (Options { mounts: tmpfs("/proc/self"), ..safe() }, "/proc"),
        (Options { mounts: tmpfs("/a/../proc"), ..safe() }, "'..'"),
        (Options { mounts: tmpfs("/dev/."), ..safe() }, "/dev"),
        (Options { mounts: tmpfs("/"), ..safe() }, "nothing can be mounted on /"),
        (Options { mounts: tmpfs("relative"), ..safe() }, "absolute"),
        (Options { user: Some("nobody".to_owned()), ..safe() }, "nobody"),
        (Options { working_dir: Some("data".to_owned()), ..safe() }, "working_dir"),
        (Options { stop_signal: Some("SIGWHAT".to_owned()), ..safe() }, "SIGWHAT"),
        (Options { cap_drop: strings(&["NOTHING"]), ..safe() }, "cap_drop"),
        (Options { ulimits: vec![Ulimit { name: "files".to_owned(), soft: 1, hard: 1 }], ..safe() }, "files"),
        (Options { ulimits: vec![Ulimit { name: "nofile".to_owned(), soft: 2, hard: 1 }], ..safe() }, "nofile"),
        (Options { seccomp: SeccompChoice::Profile("{}x".to_owned()), ..safe() }, "seccomp"),
        (Options { env: [("A=B".to_owned(), Some(String::new()))].into(), ..safe() }, "environment"),
    ];
    for (options, word) in cases {
        let error = from_image(&image(REDIS), &options, &Image).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[test]
fn spec_fields_that_are_not_supported_are_refused_by_name() {
    let spec = serde_json::to_value(made(&safe()).spec).unwrap();
    let cases = [
        ("/hooks", serde_json::json!({"prestart": []}), "hooks"),
        ("/process/terminal", serde_json::json!(true), "process.terminal"),
        ("/process/args", serde_json::json!([]), "process.args"),
        ("/process/cwd", serde_json::json!("x"), "process.cwd"),
        ("/linux/cgroupsPath", serde_json::json!("/a"), "cgroupsPath"),
        ("/linux/uidMappings", serde_json::json!([]), "uidMappings"),
        ("/linux/namespaces", serde_json::json!([{"type": "mount"}, {"type": "mount"}]), "given twice"),
        ("/linux/namespaces", serde_json::json!([{"type": "user"}]), "mount namespace"),
        ("/mounts", serde_json::json!([{"destination": "/x", "source": "rel", "options": ["bind"]}]), "rel"),
        ("/ociVersion", serde_json::json!("2.0.0"), "ociVersion"),
    ];
    for (pointer, value, word) in cases {
        let mut changed = spec.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[key] = value;
        let changed: Spec = serde_json::from_value(changed).unwrap();
        let error = compile::launch(&changed, root(), &[]).unwrap_err().to_string();
        assert!(error.contains(word), "{pointer}: {error}");
    }
    // The spec itself survives being written down, as a bundle's config.json.
    let read: Spec = serde_json::from_value(spec).unwrap();
    assert_eq!(compile::launch(&read, root(), &[]).unwrap(), launch(&safe()));
}

#[test]
fn a_launch_fits_the_plan_s_encoding() {
    let launch = launch(&safe());
    let bytes = postcard::to_stdvec(&launch).unwrap();
    assert_eq!(postcard::from_bytes::<Launch>(&bytes).unwrap(), launch);
}

#[test]
fn a_directory_is_not_mounted_over_a_file() {
    let mount = |target: &str, kind| Mount { target: target.to_owned(), kind, read_only: false, noexec: false };
    let volume = || MountKind::Volume { source: "/volumes/v".to_owned() };
    let tmpfs = || MountKind::Tmpfs { size: None, mode: None, uid: None, gid: None };
    let refused = |mounts: Vec<Mount>| {
        let made = from_image(&image(REDIS), &Options { mounts, ..safe() }, &Image);
        made.err().map(|error| error.to_string()).unwrap_or_default()
    };
    for kind in [volume(), tmpfs()] {
        let error = refused(vec![mount("/etc/passwd", kind)]);
        assert!(error.contains("mounts") && error.contains("/etc/passwd is a file in the image"), "{error}");
    }
    let error = refused(vec![mount("/etc/passwd/deeper", volume())]);
    assert!(error.contains("/etc/passwd is a file in the image"), "{error}");
    let config = image(r#"{"Cmd":["x"],"Volumes":{"/etc/passwd":{}}}"#);
    let with_volumes = Options { image_volumes: Some(1 << 20), ..safe() };
    let error = from_image(&config, &with_volumes, &Image).unwrap_err().to_string();
    assert!(error.contains("/etc/passwd is a file in the image"), "{error}");
    // Controls: a directory, and a file that nobody sees.
    assert_eq!(refused(vec![mount("/var/lib/redis", volume()), mount("/absent", tmpfs())]), "");
    assert_eq!(refused(vec![mount("/etc/passwd", tmpfs()), mount("/etc", volume())]), "");
}
