//! A supervisor under test: its process, its console, its status port.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use garboard_runtime::launch::*;
use garboard_runtime::plan::{self, Addressing, Condition, Dependency, Network, PackedLaunch, Plan, Restart};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
use serde_json::Value;

/// Columns and rows of the console, if it is a terminal.
pub const TERMINAL: (u16, u16) = (100, 30);
/// Nothing in these tests takes longer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// A container that runs a shell script, as small as a container gets.
pub fn shell(name: &str, script: &str) -> plan::Container {
    let ids = vec![IdRange { inside: 0, outside: 1_000_000, size: 65_536 }];
    let filesystem =
        |fstype: &str| MountSource::Filesystem { fstype: fstype.into(), device: None, options: vec![], copy_up: false };
    let mount = |target: &str, source| Mount { target: target.into(), source, flags: MountFlags::default() };
    let launch = Launch {
        process: Process {
            args: ["/bin/sh", "-c", script].map(String::from).into(),
            env: vec!["PATH=/bin".into()],
            cwd: "/".into(),
            no_new_privileges: true,
            ..Process::default()
        },
        ids: Some(IdMap { uids: ids.clone(), gids: ids }),
        root: Root {
            source: RootSource::Layers { layers: vec![base().to_str().unwrap().into()], upper: Upper::None },
            readonly: true,
            ..Root::default()
        },
        mounts: vec![mount("/proc", filesystem("proc")), mount("/dev", filesystem("tmpfs"))],
        ..Launch::default()
    };
    plan::Container { image: "test".into(), ..plan::Container::bare(name, PackedLaunch::of(launch).unwrap()) }
}

/// The same, launched otherwise.
pub fn changed(mut container: plan::Container, change: impl FnOnce(&mut Launch)) -> plan::Container {
    container.launch.change(change).unwrap();
    container
}

/// The same in the supervisor's pid namespace.
pub fn sharing_pids(container: plan::Container) -> plan::Container {
    changed(container, |launch| {
        launch.namespaces.pid = Namespace::Host;
        // A new proc instance would show the wrong namespace; it isn't needed.
        launch.mounts.retain(|m| m.target != "/proc");
        launch.mounts.push(Mount {
            target: "/proc".into(),
            source: MountSource::Bind {
                path: "/proc".into(),
                recursive: true,
                idmap: IdMapping::None,
                links: EndLinks::Followed,
                create: None,
            },
            flags: MountFlags::default(),
        });
    })
}

/// The same, depending on the container at `on`.
pub fn after(on: u32, condition: Condition, container: plan::Container) -> plan::Container {
    plan::Container { depends_on: vec![Dependency { container: on, condition }], ..container }
}

pub fn with(restart: Restart, container: plan::Container) -> plan::Container {
    plan::Container { restart, ..container }
}

/// Busybox, and nothing else. Shared by all tests; left in the temporary directory of the build.
fn base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("base-{}", std::process::id()));
        for directory in ["bin", "proc", "dev", "mnt"] {
            std::fs::create_dir_all(base.join(directory)).unwrap();
        }
        std::fs::copy("/bin/busybox", base.join("bin/busybox")).expect("busybox-static is installed");
        for applet in ["sh", "sleep", "cat", "yes", "true", "usleep", "nc", "httpd", "mkdir", "hostname"] {
            std::os::unix::fs::symlink("busybox", base.join("bin").join(applet)).unwrap();
        }
        // What leads there need not be open to everybody, as the layers are mounted by root.
        base
    })
}

fn cgroups() -> PathBuf {
    static MOUNT: OnceLock<PathBuf> = OnceLock::new();
    let mount = MOUNT.get_or_init(|| {
        assert!(rustix::process::geteuid().is_root(), "these tests make namespaces and cgroups: run them as root");
        // The unified hierarchy, wherever this machine has it.
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let existing = table.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [_, at, "cgroup2", ..] => Some(PathBuf::from(at)),
            _ => None,
        });
        existing.expect("a cgroup2 mount")
    });
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let path = mount.join(format!("garboard-init-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst)));
    std::fs::create_dir(&path).unwrap();
    path
}

pub struct Rig {
    child: Child,
    port: BufReader<UnixStream>,
    console: Arc<Mutex<String>>,
    /// What the watchdog is fed into.
    bowl: Option<OwnedFd>,
    /// What stands for the kernel's log.
    kernel: Option<OwnedFd>,
    /// The terminal's end of the console, if it is one; keeps an unread console open.
    line: Option<OwnedFd>,
    terminal: Arc<Mutex<vt100::Parser>>,
    /// Reads the console until it ends.
    reader: Option<JoinHandle<()>>,
    cgroup: PathBuf,
    scratch: tempfile::TempDir,
    next_id: u64,
    /// Lines that came without being asked for.
    told: VecDeque<Value>,
}

/// How a rig differs from the usual.
#[derive(Default)]
pub struct Setup<'a> {
    /// Short delays.
    pub quick: bool,
    /// Nobody reads the console.
    pub unread: bool,
    /// Workers are started, and the plan has a data filesystem; true: that is required.
    pub data: Option<bool>,
    /// The machine halts when it can't go on.
    pub halting: bool,
    /// What becomes of the supervisor as soon as it has begun: `starve` or `crash`; see `supervisor.rs`.
    pub fate: &'static str,
    /// Children stand still from their birth on, until [`Rig::thaw`].
    pub frozen: bool,
    /// So many pods.
    pub pods: u32,
    /// The plan's watchdog; its device is `watchdog` in the working directory.
    pub watchdog: Option<u32>,
    /// That device is there: a pipe.
    pub bowl: bool,
    /// The kernel has a log, and says what the test has it say.
    pub kernel: bool,
    /// What the appliance and the machine are called, if not `test`.
    pub name: Option<&'static str>,
    /// The console is a terminal of [`TERMINAL`] columns and rows, at which a person may do that.
    pub access: Option<plan::Access>,
    /// The directory that its data filesystem is, and the next rig's may be, too.
    pub disk: Option<&'a Path>,
    /// Files in the directory that is the supervisor's, and its workers', working directory.
    pub files: &'static [(&'static str, &'static str)],
}

impl Rig {
    pub fn new(containers: Vec<plan::Container>) -> Self {
        Self::with(containers, Setup::default())
    }

    /// With so many pods.
    pub fn in_pods(pods: u32, containers: Vec<plan::Container>) -> Self {
        Self::with(containers, Setup { pods, ..Setup::default() })
    }

    pub fn with(containers: Vec<plan::Container>, setup: Setup<'_>) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let plan = Plan {
            appliance: setup.name.unwrap_or("test").into(),
            hostname: setup.name.map_or("test".into(), |name| format!("{name}-1")),
            modules: vec![],
            needs: vec![],
            sysctls: vec![],
            network: Network { address: Addressing::None, interface: None, dns: vec![] },
            data: setup.data.map(|required| plan::Data { uuid: [7; 16], required }),
            memory_volumes: vec![],
            console: plan::Console {
                logs: true,
                status: true,
                access: setup.access.clone().unwrap_or(plan::Access::Off),
            },
            log_budget: 16 << 20,
            watchdog_seconds: setup.watchdog,
            status_vsock: None,
            pods: (0..setup.pods).map(|n| plan::Pod { name: format!("pod{n}") }).collect(),
            containers,
        };
        let plan_path = scratch.path().join("plan");
        std::fs::write(&plan_path, plan.encode().unwrap()).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        let cgroup = cgroups();
        if setup.frozen {
            std::fs::write(cgroup.join("cgroup.freeze"), "1").unwrap();
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("supervisor").arg(&plan_path).arg(scratch.path().join("run")).arg(&cgroup);
        command.arg(match setup {
            Setup { data: Some(_), halting: true, .. } => "halting",
            Setup { data: Some(_), .. } => "workers",
            Setup { quick: true, .. } => "quick",
            _ => "usual",
        });
        command.arg(setup.fate).current_dir(scratch.path());
        for (name, content) in setup.files {
            let path = scratch.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        if let Some(disk) = setup.disk {
            std::os::unix::fs::symlink(disk, scratch.path().join("disk")).unwrap();
        }
        let bowl = setup.bowl.then(|| make_bowl(&scratch.path().join("watchdog")));
        let kernel = setup.kernel.then(|| make_bowl(&scratch.path().join("kmsg")));
        let (reader, writer) = match setup.access {
            Some(_) => pseudo_terminal(),
            None => rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap(),
        };
        let child = command.stdin(OwnedFd::from(theirs)).stdout(writer).spawn().expect("start the supervisor");
        drop(command);
        let console = Arc::new(Mutex::new(String::new()));
        let (columns, rows) = TERMINAL;
        let emulator = vt100::Parser::new(rows.try_into().unwrap(), columns.try_into().unwrap(), 0);
        let terminal = Arc::new(Mutex::new(emulator));
        let line = setup.access.is_some().then(|| reader.try_clone().unwrap());
        let (mut unread, mut thread) = (None, None);
        if setup.unread {
            unread = Some(reader);
        } else {
            let (text, terminal) = (Arc::clone(&console), Arc::clone(&terminal));
            thread = Some(std::thread::spawn(move || collect(reader, &text, &terminal)));
        }
        let line = line.or(unread);
        let port = BufReader::new(ours);
        let told = VecDeque::new();
        Self { child, port, console, line, terminal, reader: thread, bowl, kernel, cgroup, scratch, next_id: 0, told }
    }

    /// Processes in its containers' cgroups.
    pub fn processes(&self) -> usize {
        let groups = std::fs::read_dir(&self.cgroup).unwrap().flatten();
        let lines = |group: std::fs::DirEntry| {
            std::fs::read_to_string(group.path().join("cgroup.procs")).map_or(0, |text| text.lines().count())
        };
        groups.map(lines).sum()
    }

    /// Lets the children of a frozen rig go on.
    pub fn thaw(&self) {
        std::fs::write(self.cgroup.join("cgroup.freeze"), "0").unwrap();
    }

    /// A file in its working directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The watchdog's food so far, out of the bowl.
    pub fn eaten(&self) -> Vec<u8> {
        eaten(self.bowl.as_ref().expect("a bowl"))
    }

    /// The kernel says something of this priority (below 8: its own words), so many seconds after it began.
    pub fn kernel_says(&self, priority: u32, seconds: u64, text: &[u8]) {
        self.kernel_records(priority, seconds, seconds, text);
    }

    /// The same as the record of this number.
    pub fn kernel_records(&self, priority: u32, sequence: u64, seconds: u64, text: &[u8]) {
        let record = [format!("{priority},{sequence},{seconds}000000,-;").as_bytes(), text, b"\n"].concat();
        // A read of the real one gives one record.
        self.until("read", Self::kernel_was_heard);
        rustix::io::write(self.kernel.as_ref().expect("a kernel's log"), &record).unwrap();
    }

    /// All that the kernel has said was read.
    pub fn kernel_was_heard(&self) -> bool {
        rustix::io::ioctl_fionread(self.kernel.as_ref().expect("a kernel's log")).unwrap() == 0
    }

    /// The bowl itself, for when the rig is gone.
    pub fn bowl(&self) -> OwnedFd {
        self.bowl.as_ref().expect("a bowl").try_clone().unwrap()
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub fn ask(&mut self, mut request: Value) -> Value {
        self.next_id += 1;
        request["id"] = self.next_id.into();
        self.port.get_mut().write_all(format!("{request}\n").as_bytes()).unwrap();
        loop {
            let reply = self.line();
            if reply["id"] == self.next_id {
                return reply;
            }
            self.told.push_back(reply);
        }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        let read = self.port.read_line(&mut line).expect("a reply");
        assert_ne!(read, 0, "the supervisor is gone\n{}", self.last_words());
        serde_json::from_str(&line).unwrap_or(Value::Null)
    }

    /// The next line of this type that comes without being asked for; those of other types are kept.
    pub fn told(&mut self, kind: &str) -> Value {
        loop {
            if let Some(place) = self.told.iter().position(|line| line["type"] == kind) {
                return self.told.remove(place).unwrap();
            }
            let next = self.line();
            self.told.push_back(next);
        }
    }

    /// All events so far, as `(kind, container, text)`; their numbers are without a gap.
    pub fn events(&mut self) -> Vec<(String, String, String)> {
        let reply = self.ask(serde_json::json!({"request": "events", "since": 0, "count": 10_000}));
        let events = reply["events"].as_array().unwrap();
        let numbers: Vec<u64> = events.iter().map(|e| e["number"].as_u64().unwrap()).collect();
        assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1), "{numbers:?}");
        assert_eq!(numbers.last(), reply["newest"].as_u64().as_ref());
        let text = |e: &Value, key: &str| e[key].as_str().unwrap_or_default().to_owned();
        events.iter().map(|e| (text(e, "kind"), text(e, "container"), text(e, "text"))).collect()
    }

    /// The socket on which a container reads the status, as the machine sees it.
    pub fn status_socket(&self, name: &str) -> PathBuf {
        plan::status_socket(self.scratch.path().join("run").to_str().unwrap(), name).into()
    }

    pub fn status(&mut self) -> Value {
        let mut reply = self.ask(serde_json::json!({"request": "status"}));
        assert_eq!((&reply["v"], &reply["type"]), (&1.into(), &"status".into()));
        reply["snapshot"].take()
    }

    /// One container's part of the status.
    pub fn container(&mut self, name: &str) -> Value {
        let mut status = self.status();
        let all = status["containers"].as_array_mut().unwrap();
        all.iter_mut().find(|c| c["name"] == name).map(Value::take).expect("a container of that name")
    }

    /// Asks until it is so.
    pub fn wait(&mut self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if holds(&status) {
                return status;
            }
            assert!(Instant::now() < until, "not {what}: {status:#}\n{}", self.last_words());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn wait_state(&mut self, name: &str, state: &str) -> Value {
        self.wait(&format!("{name} {state}"), |s| find(s, name)["state"] == state);
        self.container(name)
    }

    pub fn log(&mut self, name: &str) -> Vec<String> {
        let reply = self.ask(serde_json::json!({"request": "logs", "container": name, "tail": 100_000}));
        assert_eq!(reply["type"], "logs", "{reply}");
        reply["lines"].as_array().unwrap().iter().map(|l| l["text"].as_str().unwrap().to_owned()).collect()
    }

    /// What was printed; a line of PID 1's own that is broken at the terminal's width is one.
    pub fn console(&self) -> String {
        self.rows().replace("\r\ngarboard> ", "").replace("\ngarboard> ", "")
    }

    /// What was printed, as it came.
    pub fn rows(&self) -> String {
        self.console.lock().unwrap().clone()
    }

    /// The end of the console, to be shown when a test fails.
    fn last_words(&self) -> String {
        let text = self.console();
        text[text.ceil_char_boundary(text.len().saturating_sub(3000))..].to_owned()
    }

    /// Presses keys at the console.
    pub fn press(&self, keys: &str) {
        rustix::io::write(self.line.as_ref().expect("a terminal"), keys.as_bytes()).unwrap();
    }

    /// Path of the console's terminal.
    pub fn terminal(&self) -> PathBuf {
        let name = ptsname(self.line.as_ref().expect("a terminal"), Vec::new()).unwrap();
        PathBuf::from(name.into_string().unwrap())
    }

    /// What the console's terminal shows.
    pub fn screen(&self) -> vt100::Screen {
        self.terminal.lock().unwrap().screen().clone()
    }

    pub fn wait_screen(&self, text: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.screen().contents().contains(text) {
            assert!(Instant::now() < until, "not shown: {text:?}\n{}", self.screen().contents());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn wait_console(&self, text: &str) {
        self.until(&format!("said: {text:?}"), |rig| rig.console().contains(text));
    }

    /// Sends a signal to the supervisor; real-time ones too.
    pub fn signal(&self, number: i32) {
        kill(self.pid(), number);
    }

    /// Waits until something is so.
    pub fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < until, "not {what}\n{}", self.last_words());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// It has ended, and nobody has asked for its status yet.
    pub fn has_ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
    }

    /// Waits for its end; its status and all that it printed.
    pub fn end(mut self) -> (i32, String) {
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "it does not end\n{}", self.last_words());
            std::thread::sleep(Duration::from_millis(10));
        };
        std::thread::sleep(Duration::from_millis(50));
        // A pipe ends with the last one who could print. A terminal doesn't.
        let until = Instant::now() + Duration::from_secs(2);
        let reader = self.reader.take().filter(|_| self.line.is_none());
        while reader.as_ref().is_some_and(|reader| !reader.is_finished()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        (status.code().unwrap_or(-1), self.console())
    }

    /// Processor time that the supervisor has used.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    /// The path of its descriptor of a file that the kernel calls so.
    pub fn descriptor(&self, file: &str) -> PathBuf {
        let all = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().map(|entry| entry.unwrap().path());
        let is_it = |path: &PathBuf| std::fs::read_link(path).is_ok_and(|link| link == Path::new(file));
        all.into_iter().find(is_it).unwrap_or_else(|| panic!("it has no {file}"))
    }

    /// Open descriptors of the supervisor.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// What stays open, without what is at work at one moment needs for it.
    pub fn least_descriptors(&self) -> usize {
        let sample = |_| {
            std::thread::sleep(Duration::from_millis(5));
            self.descriptors()
        };
        (0..100).map(sample).min().unwrap()
    }

    /// Children of the supervisor, as `(pid, state letter)`.
    pub fn children(&self) -> Vec<(i32, char)> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid());
        let pids = std::fs::read_to_string(path).unwrap_or_default();
        let state = |pid: &str| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid.parse().ok()?, stat.rsplit_once(") ")?.1.chars().next()?))
        };
        pids.split_whitespace().filter_map(state).collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Its workers are in no cgroup of theirs, and some stay for ever.
        for (pid, _) in self.children() {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::write(self.cgroup.join("cgroup.kill"), "1");
        for _ in 0..500 {
            for entry in std::fs::read_dir(&self.cgroup).into_iter().flatten().flatten() {
                let _ = std::fs::remove_dir(entry.path());
            }
            if std::fs::remove_dir(&self.cgroup).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

pub fn find<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["containers"].as_array().unwrap().iter().find(|c| c["name"] == name).expect("a container of that name")
}

/// What is in a bowl.
pub fn eaten(bowl: &OwnedFd) -> Vec<u8> {
    let mut food = vec![0; 4096];
    let n = rustix::io::read(bowl, &mut food).unwrap_or(0);
    food.truncate(n);
    food
}

/// A pipe with a name, open at both ends.
fn make_bowl(path: &Path) -> OwnedFd {
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    rustix::fs::open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

pub fn kill(pid: i32, number: i32) {
    // The shell's own `kill` has numbers for real-time signals too.
    let status = Command::new("kill").arg(format!("-{number}")).arg(pid.to_string()).stderr(Stdio::null()).status();
    assert!(status.unwrap().success(), "kill -{number} {pid}");
}

/// The line to a terminal, and the terminal.
fn pseudo_terminal() -> (OwnedFd, OwnedFd) {
    let line = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    unlockpt(&line).unwrap();
    let name = ptsname(&line, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    (line, rustix::fs::open(name, flags, Mode::empty()).unwrap())
}

fn collect(reader: OwnedFd, text: &Arc<Mutex<String>>, terminal: &Mutex<vt100::Parser>) {
    let mut reader = std::fs::File::from(reader);
    let mut buffer = [0; 4096];
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            // A terminal that has hung up may be opened again, as long as there is somebody to do it.
            Err(_) if Arc::strong_count(text) > 1 => {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
            Err(_) => break,
        };
        // Both at once: what one of them shows, the other has.
        let (mut text, mut terminal) = (text.lock().unwrap(), terminal.lock().unwrap());
        terminal.process(&buffer[..n]);
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
        // Asked where the cursor gets to, a terminal says its size.
        if buffer[..n].windows(4).any(|bytes| bytes == b"\x1b[6n") {
            let (columns, rows) = TERMINAL;
            reader.write_all(format!("\x1b[{rows};{columns}R").as_bytes()).unwrap();
        }
    }
}
