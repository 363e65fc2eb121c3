//! Where the tests start containers, what they are made of, and how they are run to their end.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use garboard_runtime::cgroup::{self, AbsentController};
use garboard_runtime::compile;
use garboard_runtime::device_filter::DeviceFilters;
use garboard_runtime::failure::Failure;
use garboard_runtime::launch::{IdMap, IdRange, Launch, Root, RootSource, Upper};
use garboard_runtime::report::{self, Report};
use garboard_runtime::spec::{self, FileMetadata, ImageFiles, Options};
use garboard_runtime::start::{Site as StartSite, Started, Stdio, start};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::{WaitId, WaitIdOptions, waitid};

/// First id of the tests' containers on the machine.
pub const BASE_ID: u32 = 1_000_000;
/// No container of a test takes longer.
const DEADLINE: Duration = Duration::from_secs(30);

/// The tests' place, made once.
pub struct Place {
    scratch: tempfile::TempDir,
    /// The cgroup beneath which containers are made; an ordinary user has none.
    cgroup: Option<OwnedFd>,
    cgroup_path: PathBuf,
}

static PLACE: OnceLock<Place> = OnceLock::new();

pub fn place() -> &'static Place {
    PLACE.get().expect("entered by main")
}

/// Enters a mount namespace with a cgroup2 mount (as root) and lays out the base layer.
pub fn enter() -> &'static Place {
    let scratch = tempfile::tempdir().expect("scratch directory");
    std::fs::set_permissions(scratch.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let mut place = Place { cgroup: None, cgroup_path: PathBuf::new(), scratch };
    if rustix::process::geteuid().is_root() {
        private_mounts();
        let mount = place.scratch.path().join("cgroup");
        std::fs::create_dir(&mount).unwrap();
        rustix::mount::mount("cgroup2", &mount, "cgroup2", MountFlags::empty(), None).expect("mount cgroup2");
        place.cgroup_path = mount.join(format!("garboard-test-{}", std::process::id()));
        std::fs::create_dir(&place.cgroup_path).unwrap();
        place.cgroup = Some(open(&place.cgroup_path));
    }
    lay_out_base(&place.scratch.path().join("base"));
    PLACE.set(place).ok().expect("entered once");
    PLACE.get().unwrap()
}

impl Place {
    /// Removes the cgroup; the rest goes with the process and its namespace.
    pub fn leave(&self) {
        if self.cgroup.is_some() {
            std::fs::remove_dir(&self.cgroup_path).expect("a test left a cgroup behind");
            rustix::mount::unmount(self.scratch.path().join("cgroup"), rustix::mount::UnmountFlags::DETACH).unwrap();
        }
        // A static is never dropped.
        std::fs::remove_dir_all(self.scratch.path()).expect("remove scratch");
    }

    pub fn cgroup_path(&self) -> &Path {
        &self.cgroup_path
    }
}

/// A mount namespace of one's own.
pub fn private_mounts() {
    crate::sys::unshare_mounts().expect("unshare");
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .expect("private mounts");
}

pub fn open(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("open directory")
}

/// Busybox, this executable as `/probe`, and the libraries it has mapped.
fn lay_out_base(base: &Path) {
    for directory in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        std::fs::create_dir_all(base.join(directory)).unwrap();
    }
    std::fs::copy("/bin/busybox", base.join("bin/busybox")).expect("busybox-static is installed");
    for applet in [
        "sh", "cat", "ls", "id", "stat", "sleep", "echo", "kill", "touch", "chmod", "mkdir", "grep", "true", "env",
        "rm", "mount", "ip", "hostname", "wc", "head", "sort",
    ] {
        std::os::unix::fs::symlink("busybox", base.join("bin").join(applet)).unwrap();
    }
    std::fs::write(base.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:44::/srv:/bin/sh\n").unwrap();
    std::fs::write(base.join("etc/group"), "root:x:0:\nweb:x:44:\nextra:x:55:web\n").unwrap();
    std::fs::copy(std::env::current_exe().unwrap(), base.join("probe")).unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut libraries: Vec<&str> =
        maps.lines().filter_map(|line| line.split_whitespace().nth(5)).filter(|p| p.contains(".so")).collect();
    libraries.sort_unstable();
    libraries.dedup();
    for library in libraries {
        copy_into(base, Path::new(library));
    }
    // The program interpreter is named by this path whatever the library's own is.
    copy_into(base, Path::new("/lib64/ld-linux-x86-64.so.2"));
}

/// Copies a library under all of its names, wherever the dynamic linker looks.
fn copy_into(base: &Path, file: &Path) {
    let canonical = file.canonicalize().unwrap();
    let beside = std::fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    for name in beside.filter(|path| path.canonicalize().is_ok_and(|found| found == canonical)) {
        for directory in [file.parent().unwrap(), Path::new("/lib64"), Path::new("/usr/lib/x86_64-linux-gnu")] {
            let to = base.join(directory.strip_prefix("/").unwrap());
            std::fs::create_dir_all(&to).unwrap();
            std::fs::copy(&canonical, to.join(name.file_name().unwrap())).unwrap();
        }
    }
}

/// One container under test.
pub struct Container {
    pub options: Options,
    /// Layers above the base, topmost first.
    pub layers: Vec<PathBuf>,
    pub upper: Upper,
    /// Last changes, such as taking a defence away.
    pub change: Box<dyn Fn(&mut Launch)>,
    pub name: String,
}

/// A container that runs a shell script, with every default.
pub fn shell(script: &str) -> Container {
    program(&["/bin/sh", "-c", script])
}

/// A container that runs this executable's probe.
pub fn probe(arguments: &[&str]) -> Container {
    program(&[&["/probe", "probe"], arguments].concat())
}

/// A container that runs a program.
pub fn program(arguments: &[&str]) -> Container {
    let options = Options {
        command: Some(arguments.iter().map(|a| (*a).to_owned()).collect()),
        ids: Some(ids(BASE_ID)),
        ..Options::default()
    };
    Container {
        options,
        layers: Vec::new(),
        upper: Upper::Tmpfs { size: 16 << 20 },
        change: Box::new(|_| {}),
        name: "container".to_owned(),
    }
}

/// 65,536 ids from `outside`.
pub fn ids(outside: u32) -> IdMap {
    let range = vec![IdRange { inside: 0, outside, size: 65_536 }];
    IdMap { uids: range.clone(), gids: range }
}

/// How a container ended.
#[derive(Debug)]
pub struct Ended {
    pub output: String,
    /// Exit status; 128 + signal number when killed.
    pub status: i32,
}

impl Container {
    pub fn options(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    pub fn change(mut self, change: impl Fn(&mut Launch) + 'static) -> Self {
        self.change = Box::new(change);
        self
    }

    pub fn layer(mut self, layer: &Path) -> Self {
        self.layers.insert(0, layer.to_owned());
        self
    }

    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// What the deciding half makes of it.
    pub fn launch(&self) -> Launch {
        self.decide().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same, or why it can't be.
    pub fn decide(&self) -> Result<Launch, spec::Error> {
        let base = place().scratch.path().join("base");
        let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let container = spec::from_image(&serde_json::from_str(config).unwrap(), &self.options, &Files(base.clone()))?;
        let layers = self.layers.iter().chain([&base]).map(|path| path.to_str().unwrap().to_owned()).collect();
        let root = Root { source: RootSource::Layers { layers, upper: self.upper.clone() }, ..Root::default() };
        let mut launch = compile::launch(&container.spec, root, &container.volumes)?;
        launch.devices = container.nodes;
        launch.cgroup.devices = container.devices;
        (self.change)(&mut launch);
        Ok(launch)
    }

    pub fn start(&self, stdio: Stdio<'_>) -> Result<Started, Failure> {
        start_launch(&self.launch(), &self.name, stdio)
    }

    /// Runs it to its end. The failure is the launcher's or the child's.
    pub fn run(&self) -> Result<Ended, Failure> {
        run_launch(&self.launch(), &self.name)
    }

    pub fn remove_cgroup(&self) {
        remove_cgroup(&self.name);
    }

    /// Runs it and returns what it printed, which must have ended well.
    pub fn output(&self) -> String {
        let ended = self.run().unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(ended.status, 0, "{}", ended.output);
        ended.output
    }

    /// Why it doesn't start.
    pub fn refusal(&self) -> String {
        match self.run() {
            Err(failure) => failure.to_string(),
            Ok(ended) => panic!("it ran: {ended:?}"),
        }
    }
}

thread_local! {
    /// Kept from test to test, as PID 1 keeps them: what a test of devices sees is mostly the work of one that another has loaded.
    static FILTERS: DeviceFilters = DeviceFilters::new();
}

/// Starts a launch at the tests' place.
pub fn start_launch(launch: &Launch, name: &str, stdio: Stdio<'_>) -> Result<Started, Failure> {
    let place = place();
    FILTERS.with(|filters| {
        let site = StartSite {
            cgroup_parent: place.cgroup.as_ref().map(AsFd::as_fd),
            absent_controller: AbsentController::Record,
            device_filters: Some(filters),
            volumes: &[],
            root: None,
        };
        start(launch, name, &site, stdio)
    })
}

/// Runs a launch to its end. The failure is the launcher's or the child's.
pub fn run_launch(launch: &Launch, name: &str) -> Result<Ended, Failure> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let stdio = Stdio { stdin: None, stdout: Some(writer.as_fd()), stderr: Some(writer.as_fd()) };
    let started = start_launch(launch, name, stdio)?;
    drop(writer);
    let output = read_to_end(&reader, &started);
    let report = wait_for_report(&started);
    let status = reap(&started);
    remove_cgroup(name);
    match report {
        Report::Failed(failure) => Err(failure),
        Report::Died => panic!("it died before it executed its program: status {status}"),
        _ => Ok(Ended { output, status }),
    }
}

pub fn remove_cgroup(name: &str) {
    if let Some(parent) = &place().cgroup {
        let until = Instant::now() + DEADLINE;
        while let Err(failure) = cgroup::remove(parent, name) {
            assert!(Instant::now() < until, "{failure}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Polls the report until it says something, as PID 1's event loop does.
pub fn wait_for_report(started: &Started) -> Report {
    loop {
        match report::read(&started.report) {
            Report::Pending => wait_until(started.report.as_fd(), PollFlags::empty(), started),
            other => return other,
        }
    }
}

pub fn wait_readable(fd: std::os::fd::BorrowedFd<'_>, started: &Started) {
    wait_until(fd, PollFlags::IN, started);
}

/// Waits for that, or for the other end to be closed.
fn wait_until(fd: std::os::fd::BorrowedFd<'_>, event: PollFlags, started: &Started) {
    let timeout = Timespec { tv_sec: DEADLINE.as_secs().cast_signed(), tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(fd, event)];
    if poll(&mut fds, Some(&timeout)).unwrap() == 0 {
        let _ = rustix::process::pidfd_send_signal(&started.pidfd, rustix::process::Signal::KILL);
        panic!("nothing happened for {DEADLINE:?}");
    }
}

fn read_to_end(reader: &OwnedFd, started: &Started) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        wait_readable(reader.as_fd(), started);
        match rustix::io::read(reader, &mut buffer).unwrap() {
            0 => return String::from_utf8_lossy(&bytes).into_owned(),
            n => bytes.extend_from_slice(&buffer[..n]),
        }
    }
}

pub fn reap(started: &Started) -> i32 {
    wait_readable(started.pidfd.as_fd(), started);
    let status = waitid(WaitId::PidFd(started.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
    status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or(0))
}

/// Copies this program to execute it. Another process does so: a fork of this one, made by another test meanwhile, would hold the copy
/// open for writing for a moment, and what is open for writing can't be executed.
pub fn copy_self(to: &Path) {
    let copied = Command::new("cp").arg(std::env::current_exe().unwrap()).arg(to).status().unwrap();
    assert!(copied.success(), "copy this program to {}: {copied}", to.display());
}

/// A directory of this test's own.
pub fn scratch(name: &str) -> PathBuf {
    let path = place().scratch.path().join(name);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// The base layer's files, as an unpacked image.
struct Files(PathBuf);

impl ImageFiles for Files {
    fn read(&self, path: &str, _limit: usize) -> std::io::Result<Option<Vec<u8>>> {
        Ok(std::fs::read(self.0.join(path.trim_start_matches('/'))).ok())
    }

    fn metadata(&self, path: &str) -> std::io::Result<Option<FileMetadata>> {
        use std::os::unix::fs::MetadataExt;
        let found = std::fs::metadata(self.0.join(path.trim_start_matches('/'))).ok();
        Ok(found.map(|m| FileMetadata { directory: m.is_dir(), uid: m.uid(), gid: m.gid(), mode: m.mode() & 0o7777 }))
    }
}

/// `key: value` lines, as the probe and /proc/self/status print them.
pub fn fields(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(|l| l.split_once(':')).map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned())).collect()
}
