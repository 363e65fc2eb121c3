//! Docker: a daemon of the tests' own, beside their containerd, with this runtime as its default, and Debian's `docker`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::command::{Done, finish, on_a_terminal, until, wait};
use crate::containerd;
use crate::site::{CGROUPS, mount, runtime, site};

const IMAGE: &str = "box";

static NEXT: AtomicUsize = AtomicUsize::new(0);
static DAEMON: Mutex<Option<Child>> = Mutex::new(None);
static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        vec![$(Trial::test(concat!("docker::", stringify!($name)), || {
            $name();
            Ok(())
        })),*]
    };
}

pub fn tests() -> Vec<Trial> {
    trials![
        status_and_streams_are_the_program_s,
        a_detached_container_lives_until_it_is_removed,
        a_stop_is_the_signal_that_was_asked_for,
        programs_are_executed_inside,
        attaching_reaches_the_program,
        pausing_freezes,
        who_fails_is_started_again,
        volumes_and_binds_are_there,
        what_can_t_be_mounted_is_said_in_words_that_it_knows,
        a_container_is_confined,
        options_of_run_arrive,
    ]
}

/// Starts it, with the image in its store.
fn start() -> PathBuf {
    let directory = site().directory("docker");
    std::fs::create_dir(&directory).unwrap();
    // It keeps a key there, wherever everything else is.
    mount("tmpfs", "/etc/docker");
    let place = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let socket = containerd::directory().join("socket");
    let log = std::fs::File::create(place("log")).unwrap();
    // Not to be left over, even by tests that are killed.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false"]);
    command.args(["--data-root", &place("data"), "--exec-root", &place("exec"), "--pidfile", &place("pid")]);
    command.arg("--containerd").arg(socket).args(["--host", &format!("unix://{}", place("socket"))]);
    command.arg("--add-runtime").arg(format!("garboard={}", runtime().display())).arg("--default-runtime=garboard");
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    *DAEMON.lock().unwrap() = Some(containerd::spawn_for_good(command));
    until("dockerd answers", || finish(command_of(&directory, &["version"]), "").status == 0);
    let done = finish(command_of(&directory, &["import", site().image().to_str().unwrap(), IMAGE]), "");
    assert_eq!(done.status, 0, "{done:?}");
    directory
}

/// Ends it and what it runs; nothing of that may be left.
pub fn stop() {
    let Some(mut daemon) = DAEMON.lock().unwrap().take() else { return };
    if DIRECTORY.get().is_some() {
        for id in ok(&["ps", "--all", "--quiet"]).lines() {
            docker(&["rm", "--force", id]);
        }
    }
    let pid = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    daemon.wait().unwrap();
    match std::fs::remove_dir(Path::new(CGROUPS).join("docker")) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => panic!("the containers' cgroups: {e}"),
        _ => {}
    }
}

fn directory() -> &'static Path {
    DIRECTORY.get_or_init(start)
}

fn command(arguments: &[&str]) -> Command {
    command_of(directory(), arguments)
}

/// Debian's, whichever others are in the way.
fn command_of(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("/usr/bin/docker");
    command
        .env("DOCKER_CONFIG", directory)
        .env("DOCKER_HOST", format!("unix://{}", directory.join("socket").display()));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn docker(arguments: &[&str]) -> Done {
    finish(command(arguments), "")
}

/// What it printed; it must succeed.
fn ok(arguments: &[&str]) -> String {
    let done = docker(arguments);
    assert_eq!(done.status, 0, "docker {arguments:?}: {done:?}");
    done.stdout.trim_end().to_owned()
}

fn fresh() -> String {
    format!("c{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What a shell printed in a container that was removed after it; it must succeed.
fn shell(options: &[&str], script: &str) -> String {
    ok(&[&["run", "--rm"], options, &[IMAGE, "sh", "-ec", script]].concat())
}

/// A container's name; it is removed when the test is over.
struct Container(String);

impl Container {
    /// One that runs this script.
    fn start(options: &[&str], script: &str) -> Self {
        let container = Self(fresh());
        ok(&[&["run", "--detach", "--name", &container.0], options, &[IMAGE, "sh", "-c", script]].concat());
        container
    }

    /// A command about it, which must succeed.
    fn ok(&self, command: &[&str]) -> String {
        ok(&[command, &[&self.0]].concat())
    }

    fn exec(&self, options: &[&str], script: &str) -> Done {
        docker(&[&["exec"], options, &[&self.0, "sh", "-c", script]].concat())
    }

    fn inspect(&self) -> Value {
        let all: Value = serde_json::from_str(&self.ok(&["inspect"])).unwrap();
        all[0].clone()
    }

    fn logs(&self) -> String {
        self.ok(&["logs"])
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Also when the test has failed; it may be gone already.
        docker(&["rm", "--force", &self.0]);
    }
}

fn status_and_streams_are_the_program_s() {
    let script = "cat; echo error >&2; exit 7";
    let done = finish(command(&["run", "--rm", "--interactive", IMAGE, "sh", "-c", script]), "typed\n");
    assert_eq!((done.status, done.stdout.as_str(), done.stderr.as_str()), (7, "typed\n", "error\n"));
    for (program, status) in [("absent", 127), ("/absent", 127), ("/tmp", 126)] {
        let done = docker(&["run", "--rm", IMAGE, program]);
        assert!(done.status == status && done.stderr.contains(&format!("exec {program}")), "{done:?}");
    }
    let script = "until [ \"$(stty size)\" = '33 99' ]; do sleep 0.05; done; tty; exit 6";
    let (status, text) = on_a_terminal(command(&["run", "--rm", "--interactive", "--tty", IMAGE, "sh", "-c", script]));
    assert!(status == 6 && text.contains("/dev/pts/0\n"), "{status}: {text:?}");
}

fn a_detached_container_lives_until_it_is_removed() {
    let container = Container::start(&[], "echo out; exec sleep 1000");
    let found = container.inspect();
    assert_eq!((&found["HostConfig"]["Runtime"], &found["State"]["Status"]), (&"garboard".into(), &"running".into()));
    until("its output is logged", || container.logs() == "out");
    let id = found["Id"].as_str().unwrap();
    let cgroup = Path::new(CGROUPS).join("docker").join(id);
    let state = directory().join("exec/runtime-runc/moby").join(id);
    assert!(cgroup.is_dir() && state.is_dir(), "{} {}", cgroup.display(), state.display());

    container.ok(&["restart", "--time=0"]);
    assert_ne!(container.inspect()["State"]["Pid"], found["State"]["Pid"]);
    assert!(docker(&["rm", &container.0]).stderr.contains("running container"));
    container.ok(&["kill"]);
    assert_eq!(container.ok(&["wait"]), "137");
    container.ok(&["start"]);
    assert_eq!(container.inspect()["State"]["Status"], "running");
    container.ok(&["rm", "--force"]);
    assert!(!cgroup.exists() && !state.exists(), "{} {}", cgroup.display(), state.display());
}

fn a_stop_is_the_signal_that_was_asked_for() {
    let script =
        "trap 'echo usr1' USR1; trap 'exit 42' TERM; trap 'exit 43' INT; echo ready; while :; do sleep 0.05; done";
    for (options, status) in [(&[][..], 42), (&["--stop-signal=INT"], 43), (&["--init"], 42)] {
        let container = Container::start(options, script);
        until("the traps are set", || container.logs().contains("ready"));
        container.ok(&["kill", "--signal=USR1"]);
        until("the signal arrived", || container.logs().contains("usr1"));
        container.ok(&["stop", "--time=200"]);
        assert_eq!(container.inspect()["State"]["ExitCode"], status, "{options:?}");
    }
    let deaf = Container::start(&["--init"], "trap '' TERM; while :; do sleep 0.05; done");
    assert!(deaf.exec(&[], "cat /proc/1/cmdline").stdout.contains("init"));
    deaf.ok(&["stop", "--time=0"]);
    assert_eq!(deaf.inspect()["State"]["ExitCode"], 137);
}

fn programs_are_executed_inside() {
    let container = Container::start(&["--env=OF=container", "--hostname=inside"], "exec sleep 1000");
    let words = ["exec", "--interactive", "--env=WITH=exec", "--workdir=/tmp", &container.0, "sh", "-c"];
    let done = finish(command(&[&words[..], &["echo $PWD $OF $WITH; hostname; cat; exit 9"]].concat()), "through\n");
    assert_eq!((done.status, done.stdout.as_str()), (9, "/tmp container exec\ninside\nthrough\n"), "{done:?}");
    assert_eq!(container.exec(&["--user=7:8"], "id -u; id -g").stdout, "7\n8\n");
    assert!(container.exec(&["--tty"], "tty").stdout.starts_with("/dev/pts/"));
    let capabilities = |options: &[&str]| container.exec(options, "grep CapEff: /proc/self/status").stdout;
    assert_ne!(capabilities(&["--privileged"]), capabilities(&[]));
    container.exec(&["--detach"], "exec sleep 500");
    until("both are listed", || {
        let listed = container.ok(&["top"]);
        ["sleep 1000", "sleep 500"].iter().all(|program| listed.contains(program))
    });
    // Docker's one status for all of them.
    for program in ["absent", "/tmp"] {
        let done = docker(&["exec", &container.0, program]);
        assert!(done.status == 126 && format!("{done:?}").contains(&format!("exec {program}")), "{done:?}");
    }
}

fn attaching_reaches_the_program() {
    let container = Container(fresh());
    let script = "read line; echo got $line; exit 3";
    ok(&["create", "--interactive", "--name", &container.0, IMAGE, "sh", "-c", script]);
    let done = finish(command(&["start", "--attach", "--interactive", &container.0]), "typed\n");
    assert_eq!((done.status, done.stdout.as_str()), (3, "got typed\n"), "{done:?}");

    let ticking = Container::start(&[], "trap 'exit 4' TERM; while :; do echo tick; sleep 0.05; done");
    let shown = directory().join("attached");
    let mut attach = command(&["attach", "--no-stdin", &ticking.0]);
    let child = attach.stdout(std::fs::File::create(&shown).unwrap()).stderr(Stdio::null()).spawn().unwrap();
    until("it is shown", || std::fs::read_to_string(&shown).unwrap().contains("tick"));
    ticking.ok(&["kill", "--signal=TERM"]);
    assert_eq!(wait(child), 4);
}

fn pausing_freezes() {
    let container = Container::start(&[], "exec sleep 1000");
    container.ok(&["pause"]);
    let found = container.inspect();
    assert_eq!(found["State"]["Status"], "paused");
    let events = Path::new(CGROUPS).join("docker").join(found["Id"].as_str().unwrap()).join("cgroup.events");
    let frozen = || std::fs::read_to_string(&events).unwrap().contains("frozen 1");
    assert!(frozen() && container.exec(&[], "true").stderr.contains("is paused"));
    container.ok(&["unpause"]);
    assert!(!frozen() && container.exec(&[], "true").status == 0);
}

fn who_fails_is_started_again() {
    let container = Container::start(&["--restart=on-failure:2"], "echo run >> /tmp/runs; cat /tmp/runs; exit 3");
    until("it is given up", || {
        let found = container.inspect();
        found["RestartCount"] == 2 && found["State"]["Status"] == "exited"
    });
    assert_eq!((container.logs().lines().count(), container.ok(&["wait"]).as_str()), (1 + 2 + 3, "3"));
}

fn volumes_and_binds_are_there() {
    let name = fresh();
    let volume = format!("{name}:/data");
    // What the image has there is in a new volume.
    shell(&["--volume", &volume], "cat /data/of-the-image; echo kept > /data/file");
    assert_eq!(shell(&["--volume", &volume], "cat /data/of-the-image /data/file"), "image\nkept");
    ok(&["volume", "rm", &name]);
    let bound = directory().join(&name);
    std::fs::create_dir(&bound).unwrap();
    std::fs::write(bound.join("file"), "from outside\n").unwrap();
    let read_only = format!("type=bind,source={},destination=/mnt,readonly", bound.display());
    assert_eq!(shell(&["--mount", &read_only], "cat /mnt/file; ! touch /mnt/file 2>/dev/null"), "from outside");
    let script = "! touch /file 2>/dev/null; echo a > /scratch/file; cat /scratch/file";
    assert_eq!(shell(&["--read-only", "--tmpfs=/scratch"], script), "a");
}

fn what_can_t_be_mounted_is_said_in_words_that_it_knows() {
    let file = directory().join("log");
    let refused = |source: &Path, destination: &str| {
        let volume = format!("{}:{destination}", source.display());
        let done = docker(&["run", "--rm", "--volume", &volume, IMAGE, "true"]);
        assert_ne!(done.status, 0, "{destination}");
        done.stderr
    };
    for (source, destination) in [(file.as_path(), "/etc"), (directory(), "/bin/busybox")] {
        let error = refused(source, destination);
        assert!(error.contains("Are you trying to mount a directory onto a file (or vice-versa)?"), "{error}");
    }
    assert!(refused(directory(), "/proc/self").contains("mount target /proc/self"));
    let meminfo = format!("{}:/proc/meminfo:ro", file.display());
    assert!(shell(&["--volume", &meminfo], "cat /proc/meminfo").contains("level=info"), "control: as LXCFS does it");
}

fn a_container_is_confined() {
    let status = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'";
    let found = shell(&["--cap-drop=all", "--cap-add=chown", "--security-opt=no-new-privileges"], status);
    assert_eq!(found, "CapEff:0000000000000001\nCapBnd:0000000000000001\nNoNewPrivs:1\nSeccomp:2");
    let script = "! mount -t tmpfs tmpfs /mnt 2>/dev/null; test ! -s /proc/keys; ! touch /proc/sys/kernel/x 2>/dev/null; \
                  ! cat /proc/kcore 2>/dev/null; ! mknod /tmp/tun c 10 200 || ! cat /tmp/tun 2>/dev/null; echo held";
    assert_eq!(shell(&[], script), "held");
    let privileged = "grep Seccomp: /proc/self/status | tr -d '\\t'; mount -t tmpfs tmpfs /mnt && echo mounted";
    assert_eq!(shell(&["--privileged"], privileged), "Seccomp:0\nmounted", "control");
}

fn options_of_run_arrive() {
    let options = [
        "--user=1000:1001",
        "--group-add=1002",
        "--workdir=/tmp",
        "--ulimit=nofile=100:200",
        "--oom-score-adj=321",
        "--sysctl=net.ipv4.ip_default_ttl=77",
        "--shm-size=65536",
        "--device=/dev/zero:/dev/mine:r",
        // What this machine has no controllers for the daemon leaves out.
        "--memory=64m",
        "--pids-limit=40",
    ];
    let script = "id -u; id -g; id -G; pwd; ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; \
                  cat /proc/sys/net/ipv4/ip_default_ttl; df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2; \
                  head -c 3 /dev/mine | wc -c; cat /proc/self/cgroup | grep ^0:";
    let wanted = ["1000", "1001", "1001 1002", "/tmp", "100", "200", "321", "77", "64", "3", "0::/"];
    assert_eq!(shell(&options, script).lines().collect::<Vec<_>>(), wanted);
}
