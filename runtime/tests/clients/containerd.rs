//! containerd with its shim for runtimes like runc, driven by `ctr`. It is the tests' own, on directories and a socket of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use libtest_mimic::Trial;

use crate::command::{Done, finish, on_a_terminal, until, wait};
use crate::podman;
use crate::site::{CGROUPS, runtime, site};

/// containerd's own division, which is also a directory of cgroups and of states.
const NAMESPACE: &str = "garboard-clients";
pub const IMAGE: &str = "localhost/box:latest";

/// Each test's container is another.
static NEXT: AtomicUsize = AtomicUsize::new(0);
static DAEMON: Mutex<Option<Child>> = Mutex::new(None);
static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        vec![$(Trial::test(concat!("containerd::", stringify!($name)), || {
            $name();
            Ok(())
        })),*]
    };
}

pub fn tests() -> Vec<Trial> {
    let more = trials![
        a_program_that_cannot_run_is_named,
        terminals_are_the_container_s,
        attaching_shows_the_output,
        options_of_run_arrive,
        a_directory_is_a_root,
    ];
    in_short().into_iter().chain(more).collect()
}

/// What takes little time on an emulated machine.
pub fn in_short() -> Vec<Trial> {
    trials![status_and_streams_are_the_program_s, a_task_lives_until_it_is_removed]
}

/// Starts it, with the image in its store.
fn start() -> PathBuf {
    let directory = site().directory("containerd");
    std::fs::create_dir(&directory).unwrap();
    let at = directory.display();
    let configuration = format!(
        "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
         [grpc]\naddress = \"{at}/socket\"\n[ttrpc]\naddress = \"{at}/socket.ttrpc\"\n"
    );
    std::fs::write(directory.join("config.toml"), configuration).unwrap();
    let log = std::fs::File::create(directory.join("log")).unwrap();
    // Not to be left over, even by tests that are killed.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "containerd", "--config"]).arg(directory.join("config.toml"));
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    *DAEMON.lock().unwrap() = Some(spawn_for_good(command));
    until("containerd answers", || ctr(&directory, &["version"]).status == 0);
    let archive = directory.join("image.tar");
    podman::ROOT.ok(&["save", "--quiet", "--format=oci-archive", "--output", archive.to_str().unwrap(), podman::IMAGE]);
    let import = ["images", "import", snapshotter(), "--base-name=localhost/box", archive.to_str().unwrap()];
    let done = ctr(&directory, &import);
    assert_eq!(done.status, 0, "{done:?}");
    directory
}

/// By a thread that lives as long as the process: the signal comes at the thread's end.
pub fn spawn_for_good(mut command: Command) -> Child {
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        send.send(command.spawn().expect("setpriv is installed")).unwrap();
        loop {
            std::thread::park();
        }
    });
    receive.recv().unwrap()
}

/// Overlay where the kernel has it, as a made machine's has not.
fn snapshotter() -> &'static str {
    if site().machine { "--snapshotter=native" } else { "--snapshotter=overlayfs" }
}

/// Ends it and what it runs.
pub fn stop() {
    let Some(mut daemon) = DAEMON.lock().unwrap().take() else { return };
    for id in ok(&["task", "list", "--quiet"]).lines() {
        ctr(directory(), &["task", "delete", "--force", id]);
    }
    let pid = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    daemon.wait().unwrap();
    match std::fs::remove_dir(Path::new(CGROUPS).join(NAMESPACE)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => panic!("the containers' cgroups: {e}"),
        _ => {}
    }
}

pub fn directory() -> &'static Path {
    DIRECTORY.get_or_init(start)
}

fn command(arguments: &[&str]) -> Command {
    command_of(directory(), arguments)
}

fn command_of(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(directory.join("socket")).args(["--namespace", NAMESPACE]);
    command.args(arguments).stdin(Stdio::null());
    command
}

fn ctr(directory: &Path, arguments: &[&str]) -> Done {
    finish(command_of(directory, arguments), "")
}

/// What it printed; it must succeed.
pub fn ok(arguments: &[&str]) -> String {
    let done = ctr(directory(), arguments);
    assert_eq!(done.status, 0, "ctr {arguments:?}: {done:?}");
    done.stdout.trim_end().to_owned()
}

/// The words of `ctr run` with this runtime.
pub fn run<'a>(options: &[&'a str], container: &Task, program: &[&'a str]) -> Vec<String> {
    let binary = runtime();
    let head = ["run", snapshotter(), "--runc-binary", binary.to_str().unwrap()];
    let words = [&head, options, &[IMAGE, container.id.as_str()], program].concat();
    words.into_iter().map(str::to_owned).collect()
}

fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// A container's name; it is removed when the test is over.
pub struct Task {
    pub id: String,
}

impl Task {
    pub fn new() -> Self {
        Self { id: format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed)) }
    }

    /// One that runs this script.
    pub fn start(options: &[&str], script: &str) -> Self {
        let task = Self::new();
        ok(&words(&run(&[&["--detach"], options].concat(), &task, &["sh", "-c", script])));
        task
    }

    /// What a shell printed in a container that was removed after it; it must succeed.
    pub fn shell(options: &[&str], script: &str) -> String {
        ok(&words(&run(&[&["--rm"], options].concat(), &Self::new(), &["sh", "-ec", script])))
    }

    pub fn exec(&self, options: &[&str], script: &str) -> Done {
        let number = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
        ctr(directory(), &[&["task", "exec", "--exec-id", &number], options, &[&self.id, "sh", "-c", script]].concat())
    }

    /// `RUNNING`, `PAUSED`, `STOPPED`; nothing if there is no such task.
    pub fn status(&self) -> String {
        let list = ok(&["task", "list"]);
        let line =
            list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|words| words[0] == self.id);
        line.map(|words| words[2].to_owned()).unwrap_or_default()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // Also when the test has failed; it may be gone already.
        ctr(directory(), &["task", "delete", "--force", &self.id]);
        ctr(directory(), &["container", "delete", &self.id]);
    }
}

fn status_and_streams_are_the_program_s() {
    let task = Task::new();
    let run = run(&["--rm"], &task, &["sh", "-c", "read line; echo got $line; echo error >&2; exit 7"]);
    let done = finish(command(&words(&run)), "typed\n");
    assert_eq!((done.status, done.stdout.as_str()), (7, "got typed\n"), "{done:?}");
    assert!(done.stderr.contains("error\n"), "{done:?}");
}

fn a_task_lives_until_it_is_removed() {
    let log = directory().join("task.log");
    let log_uri = format!("file://{}", log.display());
    let script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let task = Task::start(&["--log-uri", &log_uri], script);
    assert_eq!(task.status(), "RUNNING");
    until("its output is logged", || std::fs::read_to_string(&log).unwrap_or_default() == "ready\n");
    let cgroup = Path::new(CGROUPS).join(NAMESPACE).join(&task.id);
    let state = Path::new("/run/containerd/runc").join(NAMESPACE).join(&task.id);
    assert!(cgroup.is_dir() && state.is_dir(), "{} {}", cgroup.display(), state.display());

    let done = task.exec(&["--cwd=/tmp"], "pwd; exit 5");
    assert_eq!((done.status, done.stdout.as_str()), (5, "/tmp\n"), "{done:?}");
    let pids = ok(&["task", "ps", &task.id]);
    assert!(pids.lines().count() >= 2, "{pids}");

    ok(&["task", "pause", &task.id]);
    assert_eq!(task.status(), "PAUSED");
    ok(&["task", "resume", &task.id]);
    assert_eq!(task.status(), "RUNNING");

    ok(&["task", "kill", &task.id]);
    until("it has ended", || task.status() == "STOPPED");
    let done = ctr(directory(), &["task", "delete", &task.id]);
    assert!(done.stderr.contains("non-zero exit code 3"), "{done:?}");
    ok(&["container", "delete", &task.id]);
    assert!(!cgroup.exists() && !state.exists(), "{} {}", cgroup.display(), state.display());
}

fn a_program_that_cannot_run_is_named() {
    let task = Task::new();
    let done = ctr(directory(), &words(&run(&["--rm"], &task, &["absent"])));
    assert!(done.status != 0 && done.stderr.contains("exec absent"), "{done:?}");
    let task = Task::start(&[], "exec sleep 1000");
    let done = ctr(directory(), &["task", "exec", "--exec-id=absent", &task.id, "absent"]);
    assert!(done.status != 0 && done.stderr.contains("exec absent"), "{done:?}");
}

fn terminals_are_the_container_s() {
    let script = "until [ \"$(stty size)\" = '33 99' ]; do sleep 0.05; done; tty; stty size; exit 6";
    let (status, text) = on_a_terminal(command(&words(&run(&["--rm", "--tty"], &Task::new(), &["sh", "-c", script]))));
    assert!(status == 6 && text.contains("/dev/pts/0\n33 99\n"), "{status}: {text:?}");
    let task = Task::start(&[], "exec sleep 1000");
    let exec = ["task", "exec", "--tty", "--exec-id=terminal", &task.id, "sh", "-c", script];
    let (status, text) = on_a_terminal(command(&exec));
    assert!(status == 6 && text.contains("33 99\n"), "{status}: {text:?}");
}

fn attaching_shows_the_output() {
    let task = Task::start(&[], "while :; do echo tick; sleep 0.05; done");
    let shown = directory().join("attached");
    let mut attach = command(&["task", "attach", &task.id]);
    let child = attach.stdout(std::fs::File::create(&shown).unwrap()).stderr(Stdio::null()).spawn().unwrap();
    until("it is shown", || std::fs::read_to_string(&shown).unwrap().contains("tick"));
    ok(&["task", "kill", "--signal=KILL", &task.id]);
    assert_eq!(wait(child), 137);
}

fn options_of_run_arrive() {
    let options = ["--env=A=b", "--cwd=/tmp", "--read-only", "--seccomp", "--net-host"];
    let script = "echo $A; pwd; ! touch /file 2>/dev/null; grep Seccomp: /proc/self/status | tr -d '\\t'; readlink /proc/self/ns/net";
    let found = Task::shell(&options, script);
    let network = std::fs::read_link("/proc/self/ns/net").unwrap();
    let wanted = ["b", "/tmp", "Seccomp:2", network.to_str().unwrap()];
    assert_eq!(found.lines().collect::<Vec<_>>(), wanted);
    let source = directory().join("mounted");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "from outside\n").unwrap();
    let mount = format!("type=bind,src={},dst=/mnt,options=rbind:ro", source.display());
    assert_eq!(Task::shell(&["--mount", &mount], "cat /mnt/file; ! touch /mnt/file 2>/dev/null"), "from outside");
    let privileged = "mount -t tmpfs tmpfs /mnt && echo mounted";
    assert_eq!(Task::shell(&["--privileged"], privileged), "mounted");
    assert!(!Task::shell(&[], &format!("{privileged} || true")).contains("mounted"));
}

fn a_directory_is_a_root() {
    let task = Task::new();
    let binary = runtime();
    let root = site().directory("box");
    let head = ["run", "--rm", "--runc-binary", binary.to_str().unwrap(), "--rootfs", root.to_str().unwrap()];
    assert_eq!(ok(&[&head, &[task.id.as_str(), "cat", "/data/of-the-image"][..]].concat()), "image");
}
