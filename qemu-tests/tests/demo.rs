//! The demo appliance on every kind of machine, by `garboard run` as a person or a script uses it.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use garboard_qemu::{Image, Vm, scaled, secs};
use support::{text, tool};
use tempfile::TempDir;

/// Time that an emulated machine may need until the demo is as declared, in seconds.
const READY: &str = "240";

/// The demo, baked once for all tests here.
fn demo() -> &'static Path {
    static DEMO: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    &DEMO
        .get_or_init(|| {
            let directory = tempfile::Builder::new().prefix("garboard-test-").tempdir().unwrap();
            support::remove_at_exit(directory.path());
            let project = directory.path().join("demo");
            garboard(&["new", "--demo", project.to_str().unwrap()]);
            let (file, out) = (project.join("appliance.toml"), project.join("out"));
            let output = garboard(&["build", "-f", file.to_str().unwrap(), "-o", out.to_str().unwrap()]);
            assert!(output.status.success(), "{}", text(&output.stderr));
            (directory, out)
        })
        .1
}

fn garboard(arguments: &[&str]) -> Output {
    Command::new(tool()).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// `garboard run --until-ready` ends by itself, with the status table.
fn becomes_ready(out: &Path, further: &[&str]) {
    let mut arguments = vec!["run", out.to_str().unwrap(), "--until-ready", "--timeout", READY];
    arguments.extend(further);
    let output = garboard(&arguments);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}\n{stdout}\n{stderr}", output.status);
    let (_console, table) = stdout.split_once("\nCONTAINER").unwrap_or_else(|| panic!("no table: {stdout}"));
    for (name, state) in [("web", "running"), ("client", "running"), ("flaky", "exited")] {
        let line = table.lines().find(|line| line.starts_with(name));
        assert!(line.is_some_and(|line| line.contains(state)), "{name} is not shown as {state}: {table}");
    }
    // However slow the machine: client waits for flaky, and the appliance isn't ready without client.
    let flaky = table.lines().find(|line| line.starts_with("flaky")).unwrap();
    assert!(flaky.split_whitespace().nth(3) == Some("2"), "flaky was not started again twice: {flaky}");
    assert!(stdout.contains("flaky  | attempt 3: recovered"), "{stdout}");
    assert!(stderr.contains("is switched off"), "{stderr}");
}

#[test]
fn becomes_ready_on_a_microvm_and_keeps_its_volumes() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("built");
    support::copy_tree(demo(), &out);
    let data = directory.path().join("built.state/data.ext4");

    becomes_ready(&out, &["--machine", "microvm", "--fresh"]);
    assert!(!data.exists(), "--fresh left volumes behind");
    becomes_ready(&out, &["--machine", "microvm", "--data-size", "100"]);
    assert_eq!(fs::metadata(&data).unwrap().len(), 100 << 20);
    // What flaky noted on its volume, and that the filesystem was left in order and has grown into its disk.
    let note = support::judge("debugfs", ["-R", "cat /volumes/state/failures", data.to_str().unwrap()]);
    assert!(note.contains(" 2\n"), "{note}");
    support::judge("e2fsck", ["-f", "-n", data.to_str().unwrap()]);
    let superblock = support::judge("dumpe2fs", ["-h", data.to_str().unwrap()]);
    let blocks = superblock.lines().find_map(|line| line.strip_prefix("Block count:")).unwrap().trim();
    assert!(blocks.parse::<u64>().unwrap() > 24_000, "{superblock}");
    assert!(superblock.contains("Filesystem state:         clean"), "{superblock}");
}

#[test]
fn becomes_ready_on_a_pc() {
    becomes_ready(demo(), &["--machine", "q35", "--fresh", "--cpus", "2", "--memory", "300"]);
}

#[test]
fn becomes_ready_from_a_disk_by_uefi() {
    becomes_ready(demo(), &["--machine", "uefi", "--fresh"]);
}

#[test]
fn is_reached_from_outside_by_its_declared_port() {
    let vm = Vm::boot(&Image::load(demo()).unwrap()).unwrap();
    vm.wait_ready(secs(240)).unwrap();
    let mut web = TcpStream::connect(vm.address(8080).unwrap()).unwrap();
    web.set_read_timeout(Some(secs(30))).unwrap();
    web.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut page = String::new();
    web.read_to_string(&mut page).unwrap();
    assert!(page.starts_with("HTTP/1.") && page.contains("Hello from Garboard"), "{page}");
    assert!(vm.port(81).unwrap_err().to_string().contains("81"));
    vm.power_off(secs(60)).unwrap();
}

#[test]
fn says_when_it_is_not_ready_in_time() {
    let output = garboard(&["run", demo().to_str().unwrap(), "--fresh", "--until-ready", "--timeout", "0"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("no appliance as declared within"), "{stderr}");
}

#[test]
fn says_what_can_not_be_run() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().to_str().unwrap();
    support::assert_refused(&garboard(&["run", out]), &["image.json", "garboard build"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let forward = format!("{port}:8080");
    let output = garboard(&["run", demo().to_str().unwrap(), "--fresh", "--port", &forward]);
    support::assert_refused(&output, &[&port, "taken"]);
}

/// On a terminal the console is attached, and Ctrl-a x ends the machine.
#[test]
fn gives_a_person_the_console() {
    // `script` of util-linux is the terminal.
    let command = format!("{} run {} --fresh --port {}:8080", tool().display(), demo().display(), free_port());
    let mut script = Command::new("script");
    script.args(["-q", "-e", "-c", &command, "/dev/null"]);
    let mut terminal = Child(script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut output = terminal.0.stdout.take().unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = output.read(&mut buffer) {
            if send.send(buffer[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    let mut seen = Vec::new();
    let deadline = Instant::now() + scaled(secs(240));
    while !text(&seen).contains("web    | listening") {
        match receive.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(bytes) => seen.extend(bytes),
            Err(e) => panic!("{e}: {}", text(&seen)),
        }
    }
    assert!(text(&seen).contains("Ctrl-a x quits"), "{}", text(&seen));
    terminal.0.stdin.as_mut().unwrap().write_all(b"\x01x").unwrap();
    let status = terminal.wait(secs(60));
    assert!(status.success(), "{status}");
}

/// A signal switches the machine off in order, and nothing of it is left. At the end of its patience a script may send another.
#[test]
fn a_signal_switches_it_off() {
    let temporary = tempfile::tempdir().unwrap();
    let run = || {
        let mut run = Command::new(tool());
        run.arg("run").arg(demo()).args(["--fresh", "--port", &format!("{}:8080", free_port())]);
        run.env("TMPDIR", temporary.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Child(run.spawn().unwrap());
        let mut console = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        let listening = console.find(|line| line.contains("web    | listening"));
        assert!(listening.is_some(), "the machine ended");
        (child, console)
    };
    let signal = |child: &Child, name: &str| {
        support::judge("sh", ["-c", &format!("kill -{name} {}", child.0.id())]);
    };
    for name in ["TERM", "INT"] {
        let (mut child, console) = run();
        signal(&child, name);
        let rest: Vec<String> = console.collect();
        let status = child.wait(secs(60));
        assert!(status.success(), "{status}: {rest:#?}");
        assert!(
            rest.iter().any(|line| line.contains("switching off") && line.contains("stopping containers")),
            "{rest:#?}"
        );
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
    }
}

/// A process that ends with its test, whatever becomes of that: `garboard run` takes its machine along.
struct Child(std::process::Child);

impl Child {
    fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let deadline = Instant::now() + scaled(timeout);
        loop {
            match self.0.try_wait().unwrap() {
                Some(status) => return status,
                None if Instant::now() > deadline => panic!("it didn't end within {timeout:?}"),
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Its terminal goes with it, so what runs there is hung up.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
