//! Writing a running container to files, by criu.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Mount, Spec};
use rustix::fs::{FileType, Mode, OFlags};

use super::criu::{self, Beside, Externals, Images, Surroundings};
use super::error::{During, Error, Result};
use super::record::{Record, Status};
use super::store::{CONFIGURATION, Entry, Lock};
use super::{bundle, cgroup, life, storage};
use crate::child::paths::{self, Links};
use crate::compile::mounts::clean;
use crate::launcher::STANDARD_DEVICES;

/// How a container is written down.
#[derive(Debug, Clone, Default)]
pub struct Checkpoint {
    /// What both directions have in common.
    pub images: Images,
    /// It goes on afterwards; otherwise it is deleted.
    pub leave_running: bool,
    /// Only its memory, for a later checkpoint to begin from; it goes on.
    pub pre_dump: bool,
    /// The directory of an earlier one of these, relative to the images.
    pub parent: Option<PathBuf>,
    /// Files that were removed while they are open are kept by links beside them.
    pub link_remap: bool,
    /// Connections that are only being made are left out.
    pub skip_in_flight: bool,
    /// Where its memory is sent instead, as `ADDRESS:PORT`.
    pub page_server: Option<String>,
    /// A descriptor on which criu says that memory can be fetched.
    pub status_fd: Option<i32>,
}

/// Where the links of the program's standard streams are kept beside the images, as runc has them.
pub(crate) const STREAMS: &str = "descriptors.json";
/// Where the container's cgroup is kept beside them.
pub(crate) const CGROUP: &str = "cgroup.path";
/// The name of a network namespace from outside between the two directions.
pub(crate) const OUTER_NETWORK: &str = "extRootNetNS";

/// Has criu write the container's processes to `wanted.images`.
pub fn checkpoint(entry: &Entry, _lock: &Lock, wanted: &Checkpoint) -> Result<()> {
    let record = entry.record()?;
    let (status, _) = entry.status(&record)?;
    if status != Status::Running {
        let why = format!("container not running: it is {}", status.text());
        return Err(Error::new(format!("checkpoint container {}: {why}", entry.id())));
    }
    criu::expect_root(|| format!("checkpoint container {}", entry.id()))?;
    let config = entry.read(CONFIGURATION)?.ok_or_else(|| Error::new("read config.json: it is missing"))?;
    let spec = bundle::parse(&config)?;
    expect_own(&spec)?;
    let layers = storage::has_layers(&spec);
    if layers {
        storage::saved::expect_open(entry)?;
    }
    let images = absolute(&wanted.images)?;
    std::fs::create_dir_all(&images.directory).during(|| format!("make {}", images.directory.display()))?;
    let work = images.work.clone().unwrap_or_else(|| images.directory.clone());
    std::fs::create_dir_all(&work).during(|| format!("make {}", work.display()))?;
    let group = cgroup::path(&record)?;
    let arguments = arguments(&record, &spec, &Checkpoint { images, ..wanted.clone() }, &work, group.as_deref())?;
    if !wanted.pre_dump {
        keep_streams(&record, &wanted.images.directory)?;
        let file = wanted.images.directory.join(CGROUP);
        std::fs::write(&file, record.cgroup.as_deref().unwrap_or_default())
            .during(|| format!("write {}", file.display()))?;
    }
    let log = work.join(log_name(wanted.pre_dump));
    let terminal = spec.process().as_ref().is_some_and(|process| process.terminal() == Some(true));
    let (program, place) = (&wanted.images.criu, Surroundings::default());
    // Memory alone has no terminal and no files.
    if wanted.pre_dump || !(terminal || layers || criu::configuration(&spec).is_some()) {
        criu::run(program, arguments, &log, &place)?;
    } else {
        let seat = |_| Ok(Vec::new());
        let dumped = || match layers {
            true => storage::saved::save(entry, &record, &wanted.images.directory),
            false => Ok(()),
        };
        criu::ask(program, arguments, &log, &place, Beside { seat, dumped })?;
    }
    if wanted.pre_dump || wanted.leave_running {
        return Ok(());
    }
    // Its processes live in the images now.
    life::destroy(entry, &record)
}

fn log_name(pre_dump: bool) -> &'static str {
    if pre_dump { "pre-dump.log" } else { "dump.log" }
}

/// criu runs elsewhere.
pub(crate) fn absolute(images: &Images) -> Result<Images> {
    let path = |path: &Path| std::path::absolute(path).during(|| format!("find {}", path.display()));
    let work = images.work.as_deref().map(path).transpose()?;
    Ok(Images { directory: path(&images.directory)?, work, ..images.clone() })
}

/// What criu's images can't hold, as it isn't the container's own.
pub(crate) fn expect_own(spec: &Spec) -> Result<()> {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    if !namespaces.into_iter().flatten().any(|namespace| namespace.typ() == LinuxNamespaceType::Mount) {
        return Err(Error::new(
            "linux.namespaces: a container without a mount namespace can't be written down or made anew",
        ));
    }
    Ok(())
}

/// What criu is called with.
fn arguments(
    record: &Record,
    spec: &Spec,
    wanted: &Checkpoint,
    work: &Path,
    group: Option<&Path>,
) -> Result<Vec<OsString>> {
    let mut arguments: Vec<OsString> = vec![if wanted.pre_dump { "pre-dump" } else { "dump" }.into()];
    arguments.extend(wanted.images.arguments(work, log_name(wanted.pre_dump)));
    arguments.extend(["--tree".into(), record.pid.to_string().into(), "--root".into(), record.rootfs.clone().into()]);
    arguments.extend(group.iter().flat_map(|group| [OsString::from("--freeze-cgroup"), OsString::from(group)]));
    if wanted.leave_running && !wanted.pre_dump {
        arguments.push("--leave-running".into());
    }
    for (flag, on) in [
        ("--track-mem", wanted.pre_dump),
        ("--link-remap", wanted.link_remap),
        ("--skip-in-flight", wanted.skip_in_flight),
    ] {
        arguments.extend(on.then(|| flag.into()));
    }
    if let Some(parent) = &wanted.parent {
        let climbs = parent.is_absolute() || !wanted.images.directory.join(parent).is_dir();
        if climbs || parent.components().all(|part| part == Component::CurDir) {
            let why = "it must be a directory beside the images, by a path relative to theirs";
            return Err(Error::new(format!("--parent-path {}: {why}", parent.display())));
        }
        arguments.extend(["--prev-images-dir".into(), parent.into()]);
        if !wanted.pre_dump {
            arguments.push("--track-mem".into());
        }
    }
    if let Some(server) = &wanted.page_server {
        let (address, port) = server
            .rsplit_once(':')
            .filter(|(address, port)| !address.is_empty() && port.parse::<u16>().is_ok())
            .ok_or_else(|| Error::new(format!("--page-server {server:?}: it must be ADDRESS:PORT")))?;
        arguments.extend(["--page-server", "--address", address, "--port", port].map(OsString::from));
    }
    arguments.extend(wanted.status_fd.iter().flat_map(|fd| ["--status-fd".into(), fd.to_string().into()]));
    arguments.extend(criu::configuration(spec).into_iter().flat_map(|file| ["--config".into(), file.into()]));
    let root = format!("/proc/{}/root", record.pid);
    for (place, _) in externals(spec, Path::new(&record.bundle), Path::new(&root), record.cgroup.as_deref()) {
        arguments.extend(["--external".into(), format!("mnt[{place}]:{place}").into()]);
    }
    if let Some(path) = outer_network(spec)? {
        use std::os::unix::fs::MetadataExt;
        let inode = std::fs::metadata(&path).during(|| format!("open {path}"))?.ino();
        arguments.extend(["--external".into(), format!("net[{inode}]:{OUTER_NETWORK}").into()]);
    }
    Ok(arguments)
}

/// The mounts whose sources are outside: bound ones, the cgroup, devices, and what covers masked files. To name more than there
/// are does no harm. What is masked is looked for in `root`, and on the machine, which has the same `/proc` and `/sys`.
pub(crate) fn externals(spec: &Spec, bundle: &Path, root: &Path, cgroup: Option<&str>) -> Externals {
    let is_bind = |mount: &Mount| {
        let options = mount.options().iter().flatten();
        mount.typ().as_deref() == Some("bind") || options.clone().any(|option| option == "bind" || option == "rbind")
    };
    let mut found = Externals::new();
    for mount in spec.mounts().iter().flatten() {
        // As the kernel will have it.
        let place = clean(&mount.destination().to_string_lossy()).into_owned();
        if mount.typ().as_deref() == Some("cgroup") {
            found.push((place, format!("/sys/fs/cgroup{}", cgroup.unwrap_or_default())));
        } else if is_bind(mount) {
            let source = bundle.join(mount.source().as_deref().unwrap_or(Path::new("")));
            found.push((place, source.display().to_string()));
        }
    }
    let masked = spec.linux().as_ref().and_then(|linux| linux.masked_paths().as_ref());
    // Directories are covered by filesystems of the container's own.
    for path in masked.into_iter().flatten().filter(|path| !is_directory(root, path)) {
        found.push((path.clone(), "/dev/null".to_owned()));
    }
    let declared = spec.linux().as_ref().and_then(|linux| linux.devices().as_ref());
    let declared = declared.into_iter().flatten().map(|device| device.path().display().to_string());
    let standard = STANDARD_DEVICES.iter().map(|(name, _)| format!("/dev/{name}"));
    found.extend(standard.chain(declared).map(|device| (device.clone(), device)));
    found
}

fn is_directory(root: &Path, path: &str) -> bool {
    let inside = || {
        let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let place = paths::resolve(root.as_fd(), path, Links::Follow)?;
        rustix::fs::fstat(place).map(|stat| FileType::from_raw_mode(stat.st_mode))
    };
    inside().map_or_else(|_| Path::new(path).is_dir(), |kind| kind == FileType::Directory)
}

/// The network namespace that the container joined. Others that it didn't make itself can't be found again.
pub(crate) fn outer_network(spec: &Spec) -> Result<Option<String>> {
    let mut network = None;
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    for namespace in namespaces.into_iter().flatten() {
        let Some(path) = namespace.path() else { continue };
        if namespace.typ() != LinuxNamespaceType::Network {
            let why = "only a network namespace may be another's";
            return Err(Error::new(format!("the namespace {}: {why} in a checkpoint", path.display())));
        }
        network = Some(path.display().to_string());
    }
    Ok(network)
}

/// Notes what the standard streams are, so that others can take their places.
fn keep_streams(record: &Record, images: &Path) -> Result<()> {
    let link = |fd: i32| {
        let path = format!("/proc/{}/fd/{fd}", record.pid);
        let link = std::fs::read_link(&path);
        link.map(|link| link.display().to_string()).unwrap_or_default()
    };
    let json = serde_json::to_vec(&[link(0), link(1), link(2)]).unwrap_or_default();
    let file = images.join(STREAMS);
    std::fs::write(&file, json).during(|| format!("write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> Spec {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_is_outside_is_external() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("srv/secret")).unwrap();
        std::fs::write(root.path().join("usr"), "").unwrap();
        let spec = spec(
            r#"{"ociVersion":"1.3.0","mounts":[
                {"destination":"/proc","type":"proc","source":"proc"},
                {"destination":"//data/","type":"bind","source":"/srv/data"},
                {"destination":"/etc/hosts","type":"none","source":"hosts","options":["rbind","ro"]},
                {"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup"}],
              "linux":{"maskedPaths":["/proc/kcore","/proc","/srv/secret","/usr"],
                "devices":[{"path":"/dev/fuse","type":"c","major":10,"minor":229}]}}"#,
        );
        let pair = |place: &str, source: &str| (place.to_owned(), source.to_owned());
        let expected = [
            pair("/data", "/srv/data"),
            pair("/etc/hosts", "/bundle/hosts"),
            pair("/sys/fs/cgroup", "/sys/fs/cgroup/one"),
            pair("/proc/kcore", "/dev/null"),
            // A file there, whatever the machine has.
            pair("/usr", "/dev/null"),
        ];
        let found = externals(&spec, Path::new("/bundle"), root.path(), Some("/one"));
        assert_eq!(found[..5], expected);
        assert!(
            found[5..].contains(&pair("/dev/tty", "/dev/tty")) && found[5..].contains(&pair("/dev/fuse", "/dev/fuse"))
        );
    }

    #[test]
    fn only_a_network_may_be_another_s() {
        let of = |kind: &str| {
            let json =
                format!(r#"{{"ociVersion":"1.3.0","linux":{{"namespaces":[{{"type":"{kind}","path":"/x"}}]}}}}"#);
            outer_network(&spec(&json))
        };
        assert_eq!(of("network"), Ok(Some("/x".to_owned())));
        assert!(of("pid").unwrap_err().to_string().contains("only a network namespace"));
    }

    #[test]
    fn a_checkpoint_is_what_was_asked_for() {
        let record = Record { pid: 42, rootfs: "/rootfs".into(), bundle: "/bundle".into(), ..Record::default() };
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("parent")).unwrap();
        let images =
            Images { directory: directory.path().join("."), manage_cgroups: "soft".into(), ..Images::default() };
        let spec = spec(r#"{"ociVersion":"1.3.0"}"#);
        let text = |wanted: &Checkpoint| {
            let all = arguments(&record, &spec, wanted, Path::new("/logs"), Some(Path::new("/sys/fs/cgroup/one")));
            all.map(|all| all.iter().map(|word| word.display().to_string()).collect::<Vec<_>>().join(" "))
        };
        let dump = text(&Checkpoint { images: images.clone(), leave_running: true, ..Checkpoint::default() }).unwrap();
        assert!(dump.starts_with("dump -v4 --log-file dump.log --images-dir "), "{dump}");
        assert!(
            dump.contains(" --tree 42 --root /rootfs --freeze-cgroup /sys/fs/cgroup/one --leave-running --ext"),
            "{dump}"
        );
        let pre = Checkpoint { images: images.clone(), pre_dump: true, leave_running: true, ..Checkpoint::default() };
        let pre = text(&pre).unwrap();
        assert!(pre.starts_with("pre-dump ") && pre.contains(" --track-mem ") && !pre.contains("leave"), "{pre}");
        let from = |parent: &str| {
            let parent = Some(parent.into());
            text(&Checkpoint { images: images.clone(), parent, ..Checkpoint::default() })
        };
        assert!(from("parent").unwrap().contains(" --prev-images-dir parent --track-mem "));
        for wrong in ["/tmp", "absent", ".", ""] {
            assert!(from(wrong).unwrap_err().to_string().contains("--parent-path"), "{wrong:?}");
        }
        let sent = |server: &str| {
            let page_server = Some(server.to_owned());
            text(&Checkpoint { images: images.clone(), page_server, status_fd: Some(3), ..Checkpoint::default() })
        };
        assert!(sent("10.0.0.1:99").unwrap().contains(" --page-server --address 10.0.0.1 --port 99 --status-fd 3 "));
        for wrong in ["", "host", ":5", "host:", "host:70000"] {
            assert!(sent(wrong).unwrap_err().to_string().contains("--page-server"), "{wrong:?}");
        }
    }
}
