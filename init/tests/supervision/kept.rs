//! Logs that are kept on the data filesystem, by the real worker.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use garboard_runtime::plan::{Container, KeptLog, Restart};
use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::{Value, json};

use crate::rig::{Rig, Setup, find, kill, shell, with};

/// By name.
pub const TESTS: &[(&str, fn())] = &[
    ("kept::each_line_is_kept_once_whoever_dies", each_line_is_kept_once_whoever_dies),
    ("kept::a_flood_is_bounded_and_what_is_missing_is_told", a_flood_is_bounded_and_what_is_missing_is_told),
    ("kept::a_worker_that_stands_still_holds_nobody_up", a_worker_that_stands_still_holds_nobody_up),
    ("kept::a_full_disk_is_told_and_kept_on_when_it_has_room", a_full_disk_is_told_and_kept_on_when_it_has_room),
    ("kept::without_a_disk_that_keeps_nothing_is_kept", without_a_disk_that_keeps_nothing_is_kept),
    ("kept::what_lies_in_the_way_is_not_followed", what_lies_in_the_way_is_not_followed),
    ("kept::earlier_boots_are_read_whatever_the_files_hold", earlier_boots_are_read_whatever_the_files_hold),
    ("kept::nobody_is_woken_when_nothing_is_printed", nobody_is_woken_when_nothing_is_printed),
];

const PANIC: i32 = 34 + 8;
const STOP: i32 = 19;
const MOUNTED: &str = r#"{"state":"mounted","detail":"","bytes":1048576}"#;

fn kept(file_size: u64, files: u32, container: Container) -> Container {
    Container { kept_log: Some(KeptLog { file_size, files }), ..with(Restart::Always, container) }
}

/// A rig whose data filesystem is there when it [`settle`]s.
fn rig(containers: Vec<Container>) -> Rig {
    let files = &[("hold-data", ""), ("data", MOUNTED)];
    let rig = Rig::with(containers, Setup { data: Some(false), files, ..Setup::default() });
    std::fs::create_dir(rig.file("disk")).unwrap();
    rig
}

fn settle(rig: &Rig) {
    std::fs::remove_file(rig.file("hold-data")).unwrap();
}

fn is(state: &'static str) -> impl Fn(&Value) -> bool {
    move |status| status["kept_logs"]["state"] == state
}

fn logs(rig: &Rig, name: &str) -> std::path::PathBuf {
    rig.file("disk/.garboard/logs").join(name)
}

/// All that is kept of a container, oldest first.
fn text(directory: &Path) -> String {
    let files = (0..100).rev().map(|n| if n == 0 { "log".to_owned() } else { format!("log.{n}") });
    let bytes: Vec<u8> = files.filter_map(|name| std::fs::read(directory.join(name)).ok()).flatten().collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What was printed, whole.
fn printed(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.splitn(4, ' ');
        let (_, stream, tag, said) = (words.next(), words.next(), words.next(), words.next().expect(line));
        assert_eq!(stream, Some("stdout"), "{line}");
        lines.last_mut().unwrap().push_str(said);
        if tag == Some("F") {
            lines.push(String::new());
        }
    }
    lines.pop();
    lines
}

fn worker(rig: &Rig) -> Option<i32> {
    let is_it = |pid: &i32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.starts_with(b"garboard-worker\0keep\0")
    };
    rig.children().into_iter().map(|(pid, _)| pid).find(is_it)
}

fn previous(rig: &mut Rig, name: &str, tail: usize) -> Value {
    rig.ask(json!({"request": "logs", "container": name, "previous": true, "tail": tail}))
}

/// PID 1 and its worker die again and again while a container prints; its last words come when the machine stops.
fn each_line_is_kept_once_whoever_dies() {
    let long = "x".repeat(3000);
    let script = format!(
        "trap 'echo last words; exit 0' TERM; echo before; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i {}; \
         [ $((i%100)) = 0 ] && echo {long} && usleep 10000; done; echo done; while true; do usleep 10000; done",
        "y".repeat(40)
    );
    let mut rig = rig(vec![kept(64 << 10, 100, shell("web", &script))]);
    // What is printed before the data filesystem is there is kept, too.
    rig.wait_console("web | before");
    settle(&rig);
    rig.wait("kept", is("kept"));
    let mut killed = None;
    for n in 0..6 {
        std::thread::sleep(Duration::from_millis(30));
        if n == 3 {
            kill(rig.pid(), PANIC);
            rig.wait("resumed", |s| s["notes"].to_string().contains("PID 1 crashed"));
        } else {
            let before = killed;
            rig.until("another at work", |rig| {
                killed = worker(rig).filter(|pid| Some(*pid) != before);
                killed.is_some()
            });
            kill(killed.unwrap(), 9);
        }
    }
    while rig.log("web").last().is_none_or(|last| last != "done") {
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = rig.status();
    assert_eq!(find(&status, "web")["log_unkept"], 0);
    let note = "logs are not kept: its worker was killed by SIGKILL";
    assert!(status["notes"].as_array().unwrap().contains(&note.into()), "{status:#}");
    // It would be started again only after a while, which the last words don't wait for.
    if let Some(worker) = worker(&rig) {
        kill(worker, 9);
    }
    rig.ask(json!({"request": "poweroff"}));
    let directory = logs(&rig, "web");
    rig.until("it has ended", |rig| rig.console().contains("web exited"));
    rig.until("all is written", |_| text(&directory).contains("last words"));
    let text = text(&directory);
    let mut expected = vec!["before".to_owned()];
    for i in 1..=3000 {
        expected.push(format!("line {i} {}", "y".repeat(40)));
        if i % 100 == 0 {
            expected.push(long.clone());
        }
    }
    expected.extend(["done".to_owned(), "last words".to_owned()]);
    let printed = printed(&text);
    let differs = printed.iter().zip(&expected).position(|(a, b)| a != b);
    assert_eq!((printed.len(), differs), (expected.len(), None), "{:?}", differs.map(|at| &printed[at]));
    assert!(std::fs::read_dir(&directory).unwrap().count() > 3, "it was rotated");
    for path in [directory.clone(), directory.parent().unwrap().to_owned()] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
    }
    assert!(!text.contains("# missing"));
    assert_eq!(rig.end().0, 0);
}

fn a_flood_is_bounded_and_what_is_missing_is_told() {
    let (size, files) = (64 << 10, 3);
    let mut rig = rig(vec![
        kept(size, files, shell("loud", "exec yes all work and no play")),
        with(Restart::Always, shell("other", "sleep 10000")),
    ]);
    settle(&rig);
    rig.wait("flooded", |s| find(s, "loud")["log_dropped"].as_u64() > Some(4 << 20));
    let directory = logs(&rig, "loud");
    for _ in 0..100 {
        let sizes = (0..files).map(|n| if n == 0 { "log".to_owned() } else { format!("log.{n}") });
        let sizes: Vec<u64> =
            sizes.filter_map(|name| std::fs::metadata(directory.join(name)).ok()).map(|file| file.len()).collect();
        assert!(sizes.iter().all(|each| *each <= size), "{sizes:?}");
        rig.status();
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(std::fs::read_dir(&directory).unwrap().count() <= files as usize);
    // A container whose log isn't declared to be kept has none.
    assert!(!logs(&rig, "other").exists());
    assert_eq!(previous(&mut rig, "other", 1)["type"], "error");
    rig.until("told", |_| text(&directory).contains("# missing "));
    // Files that are renamed while they are read would be read twice or not at all.
    let stopped = worker(&rig).unwrap();
    kill(stopped, STOP);
    rig.until("nothing is written", |rig| rig.children().contains(&(stopped, 'T')));
    let lines = printed(&text(&directory));
    // The first one may go on from a file that is gone.
    let strange = lines.iter().skip(1).find(|line| *line != "all work and no play");
    assert!(lines.len() > 100 && strange.is_none(), "{} lines, {strange:?}", lines.len());
}

fn a_worker_that_stands_still_holds_nobody_up() {
    let mut rig = rig(vec![kept(64 << 10, 2, shell("loud", "exec yes all work and no play"))]);
    settle(&rig);
    rig.wait("kept", is("kept"));
    let stopped = worker(&rig).unwrap();
    kill(stopped, STOP);
    // More is printed than the ring holds.
    let status = rig.wait("lost", |s| find(s, "loud")["log_unkept"].as_u64() > Some(1 << 20));
    assert_eq!(find(&status, "loud")["state"], "running");
    rig.ask(json!({"request": "poweroff"}));
    assert_eq!(rig.end().0, 0, "it is not waited for");
}

fn a_full_disk_is_told_and_kept_on_when_it_has_room() {
    let script = "i=0; while true; do i=$((i+1)); echo line $i; usleep 1000; done";
    let mut rig = rig(vec![kept(64 << 10, 100, shell("web", script))]);
    let data = rig.file("disk");
    let _mount = Tmpfs::at(&data, c"size=40k");
    settle(&rig);
    let status = rig.wait("full", is("failed"));
    assert_eq!(status["kept_logs"]["detail"], "write logs/web/log: No space left on device (os error 28)");
    assert_eq!(find(&status, "web")["state"], "running");
    rustix::mount::mount_remount(&data, MountFlags::empty(), c"size=8m").unwrap();
    rig.wait("kept again", is("kept"));
    let directory = logs(&rig, "web");
    rig.until("much is kept", |_| text(&directory).len() > 100 << 10);
    rig.ask(json!({"request": "poweroff"}));
    rig.until("stopped", |rig| worker(rig).is_none());
    let lines = printed(&text(&directory));
    let expected: Vec<String> = (1..=lines.len()).map(|i| format!("line {i}")).collect();
    assert_eq!(lines, expected, "nothing is missing, and nothing is there twice");
}

fn without_a_disk_that_keeps_nothing_is_kept() {
    for (state, told) in [("readonly", "read-only"), ("tmpfs", "in memory only"), ("absent", "absent")] {
        let report = json!({"state": state, "detail": "why", "bytes": 0}).to_string();
        let files = Box::leak(Box::new([("data", &*Box::leak(report.into_boxed_str()))]));
        let mut rig = Rig::with(
            vec![kept(64 << 10, 2, shell("web", "echo hello; sleep 10000"))],
            Setup { data: Some(false), files, ..Setup::default() },
        );
        let status = rig.wait("told", is("absent"));
        assert_eq!(status["kept_logs"]["detail"], format!("the data filesystem is {told}: why"));
        rig.wait_console(&format!("logs are not kept: the data filesystem is {told}: why"));
        rig.wait_state("web", "running");
        assert_eq!(worker(&rig), None);
        let reply = previous(&mut rig, "web", 9);
        match state {
            "readonly" => assert_eq!(reply["lines"], json!([]), "it can be read"),
            _ => assert_eq!(reply["message"], "the data filesystem is not there: why"),
        }
    }
}

/// Links, pipes, directories and other containers' logs, as somebody may have put them there.
fn what_lies_in_the_way_is_not_followed() {
    let names = ["linked", "piped", "blocked", "shared", "away"];
    let rig = rig(names.map(|name| kept(64 << 10, 2, shell(name, "echo hello; sleep 10000"))).into());
    let victim = rig.file("victim");
    std::fs::create_dir(&victim).unwrap();
    for name in ["log", "other"] {
        std::fs::write(victim.join(name), "precious").unwrap();
    }
    let root = rig.file("disk/.garboard/logs");
    std::fs::create_dir_all(&root).unwrap();
    for name in ["linked", "piped", "blocked", "shared", "undeclared/deep"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    symlink(victim.join("log"), root.join("linked/log")).unwrap();
    symlink(victim.join("other"), root.join("linked/log.1")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, root.join("piped/log"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    std::fs::create_dir_all(root.join("blocked/log/deep")).unwrap();
    std::fs::hard_link(victim.join("log"), root.join("shared/log")).unwrap();
    symlink(&victim, root.join("away")).unwrap();
    std::fs::write(root.join("undeclared/deep/log"), "of a container that is no more").unwrap();
    std::fs::write(root.join("linked/log.7"), "more than declared").unwrap();
    settle(&rig);
    for name in names {
        rig.until("kept", |_| text(&root.join(name)).contains(" F hello\n"));
        assert!(!std::fs::symlink_metadata(root.join(name)).unwrap().is_symlink());
        assert!(std::fs::symlink_metadata(root.join(name).join("log")).unwrap().is_file());
    }
    for name in ["log", "other"] {
        assert_eq!(std::fs::read_to_string(victim.join(name)).unwrap(), "precious");
    }
    let found: BTreeSet<String> =
        std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, names.map(String::from).into(), "those of containers that are no more are gone");
    assert!(!root.join("linked/log.7").exists());
}

fn earlier_boots_are_read_whatever_the_files_hold() {
    let reader =
        |name: &str| Container { reads_status: true, ..kept(1 << 20, 2, shell(name, "echo now; sleep 10000")) };
    let mut rig = rig(vec![reader("web"), kept(64 << 10, 2, shell("secret", "echo now; sleep 10000"))]);
    for name in ["web", "secret"] {
        std::fs::create_dir_all(logs(&rig, name)).unwrap();
    }
    let old = "# boot one began 2026-03-01T12:00:00.000Z\n2026-03-01T12:00:01.000Z stdout F first\n";
    let torn = [
        b"# boot two began 2026-03-02T12:00:00.000Z\n2026-03-02T12:00:01.500Z stdout P of two\n".to_vec(),
        b"2026-03-02T12:00:01.500Z stdout F parts\n# missing 7 bytes\n".to_vec(),
        b"\x00\xff\x1b[2J{\"v\":1}\r\n".to_vec(),
        vec![b'x'; 100_000],
        b"\n2026-03-02T12:0".to_vec(),
    ]
    .concat();
    std::fs::write(logs(&rig, "web").join("log.1"), old).unwrap();
    std::fs::write(logs(&rig, "web").join("log"), torn).unwrap();
    std::fs::write(logs(&rig, "secret").join("log"), old).unwrap();
    settle(&rig);
    let directory = logs(&rig, "web");
    rig.until("kept", |_| text(&directory).contains("stdout F now"));
    // The line that was torn stays, and the next one begins on its own.
    assert!(text(&directory).contains("\n2026-03-02T12:0\n# boot "));

    let reply = previous(&mut rig, "web", 100);
    let schema: Value = serde_json::from_str(include_str!("../../status.schema.json")).unwrap();
    assert!(jsonschema::validator_for(&schema).unwrap().is_valid(&reply), "{reply:#}");
    let lines = reply["lines"].as_array().unwrap();
    let texts: Vec<&str> = lines.iter().map(|line| line["text"].as_str().unwrap()).collect();
    let long = "x".repeat(1024);
    assert_eq!(texts, ["first", "of two", "parts", "\\x00\\xff\\x1b[2J{\"v\":1}\\x0d", &long, "2026-03-02T12:0"]);
    let first = json!({"time_ms": 1000, "text": "first", "continues": false, "time": "2026-03-01T12:00:01.000Z", "boot": "one"});
    assert_eq!((&lines[0], &lines[2]["continues"], &lines[2]["boot"]), (&first, &true.into(), &"two".into()));
    assert_eq!((&lines[3]["time"], &reply["dropped"]), (&Value::Null, &7.into()));
    assert_eq!(previous(&mut rig, "web", 1)["lines"].as_array().unwrap().len(), 1);
    // The next answer comes after this one, also when it is there at once.
    assert_eq!(previous(&mut rig, "nobody", 1)["type"], "error");
    let following = rig.ask(json!({"request": "logs", "container": "web", "previous": true, "follow": true}));
    assert_eq!(following["type"], "error");
    let kernel = rig.ask(json!({"request": "logs", "previous": true}));
    assert_eq!(kernel["type"], "error");

    // A container reads its own, and no other's.
    let mut socket = crate::readers::connect(&rig, "web");
    let mut ask = |name: &str| {
        crate::readers::ask(&mut socket, json!({"request": "logs", "container": name, "previous": true, "tail": 1}))
    };
    assert_eq!(ask("web")["lines"][0]["text"], "2026-03-02T12:0");
    assert_eq!(ask("secret")["type"], "error");
    assert_eq!(previous(&mut rig, "secret", 9)["lines"][0]["text"], "first", "the control: it is there");
    // One who goes away while it is read is waited for by nobody.
    for _ in 0..20 {
        let mut gone = crate::readers::connect(&rig, "web");
        std::io::Write::write_all(
            gone.get_mut(),
            b"{\"request\":\"logs\",\"container\":\"web\",\"previous\":true}\n{\"request\":\"status\"}\n",
        )
        .unwrap();
    }
    rig.until("their workers are gone", |rig| rig.children().len() == 4);
}

fn nobody_is_woken_when_nothing_is_printed() {
    let mut rig = rig(vec![kept(64 << 10, 2, shell("web", "echo hello; sleep 10000"))]);
    settle(&rig);
    let directory = logs(&rig, "web");
    rig.wait("kept", is("kept"));
    rig.until("written", |_| text(&directory).contains("hello"));
    let worker = worker(&rig).unwrap();
    // It is synced, and the console has said all that it had to.
    std::thread::sleep(Duration::from_secs(4));
    let switches = |pid: i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
        lines.map(|line| line.split_whitespace().last().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    let before = (switches(worker), switches(rig.pid()));
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(switches(worker), before.0, "the worker");
    assert!(switches(rig.pid()) <= before.1, "PID 1");
    // The control: a line wakes both.
    kill(rig.container("web")["pid"].as_i64().unwrap() as i32, 9);
    rig.until("woken", |_| text(&directory).matches("hello").count() == 2);
    assert!(switches(worker) > before.0);
}

struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    fn at(path: &Path, options: &std::ffi::CStr) -> Self {
        rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::empty(), Some(options)).unwrap();
        Self(path.to_owned())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}
