//! Processes that are killed for want of memory are told of, whichever they are. The kernel that runs the tests need not have the memory
//! controller: files in the working directory take the place of what it counts.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::rig::{Rig, Setup, find, kill, shell};

/// By name.
pub const TESTS: &[(&str, fn())] = &[
    ("memory::one_that_is_killed_is_told_of_while_the_container_goes_on", one_that_is_killed_is_told_of),
    ("memory::kills_without_end_are_told_of_now_and_then", kills_without_end_are_told_of_now_and_then),
    ("memory::kills_during_a_crash_are_told_of_once", kills_during_a_crash_are_told_of_once),
    ("memory::without_a_watch_the_end_tells", without_a_watch_the_end_tells),
];

const PANIC: i32 = 34 + 8;
const NONE: &str = "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n";
const COUNTS: &[(&str, &str)] =
    &[("counts/memory.events", NONE), ("counts/web/memory.events", NONE), ("counts/calm/memory.events", NONE)];

fn containers() -> Vec<garboard_runtime::plan::Container> {
    ["web", "calm"].map(|name| shell(name, "exec sleep 10000")).into()
}

fn running(files: &'static [(&str, &str)]) -> Rig {
    let mut rig = Rig::with(containers(), Setup { files, ..Setup::default() });
    rig.wait("running", |status| status["containers"].as_array().unwrap().iter().all(|c| c["state"] == "running"));
    rig
}

/// Its watch, which a descriptor of our own is of, too.
fn watch(rig: &Rig) -> OwnedFd {
    let number = rig.descriptor("anon_inode:inotify");
    let number = number.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(rig.pid()).unwrap();
    let supervisor = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    rustix::process::pidfd_getfd(supervisor, number, rustix::process::PidfdGetfdFlags::empty()).unwrap()
}

/// Writes as the kernel counts: in one step, and what it counted before is no more than what it counts now.
fn count(directory: &Path, reclaimed: u64, killed: u64) {
    let text = format!("low 0\nhigh 0\nmax {reclaimed}\noom {killed}\noom_kill {killed}\noom_group_kill 0\n");
    let file = std::fs::OpenOptions::new().write(true).open(directory.join("memory.events")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, text.as_bytes(), 0).unwrap();
}

/// So many processes of `web` were killed in all.
fn killed(rig: &Rig, number: u64) {
    count(&rig.file("counts/web"), 0, number);
    count(&rig.file("counts"), 0, number);
}

/// What was told of one container's memory, and of its end.
fn told(rig: &mut Rig, name: &str) -> Vec<(String, String)> {
    let wanted = |kind: &str| ["out_of_memory", "exited"].contains(&kind);
    let events = rig.events().into_iter().filter(|(kind, container, _)| container == name && wanted(kind));
    events.map(|(kind, _, text)| (kind, text)).collect()
}

fn event(many: &str) -> (String, String) {
    ("out_of_memory".into(), format!("the kernel killed {many} of its processes for want of memory"))
}

fn wait_kills(rig: &mut Rig, number: u64) -> serde_json::Value {
    rig.wait("counted", |status| find(status, "web")["oom_kills"] == number)
}

fn one_that_is_killed_is_told_of() {
    let mut rig = running(COUNTS);
    let before = rig.container("web");
    // The control: nobody looks unless the kernel says that it counted something.
    count(&rig.file("counts/web"), 0, 1);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!((told(&mut rig, "web"), rig.container("web")["oom_kills"].clone()), (vec![], 0.into()));
    killed(&rig, 1);
    let status = wait_kills(&mut rig, 1);
    assert_eq!(told(&mut rig, "web"), [event("one")]);
    rig.wait_console("web: the kernel killed one of its processes for want of memory");
    let web = find(&status, "web");
    assert_eq!((&web["state"], &web["pid"], &web["restarts"]), (&"running".into(), &before["pid"], &0.into()));
    assert_eq!(web["detail"], "one of its processes was killed for want of memory");
    assert_eq!((&find(&status, "calm")["oom_kills"], &find(&status, "calm")["detail"]), (&0.into(), &"".into()));
    let metrics = rig.ask(json!({"request": "metrics"}));
    for line in ["oom_kills_total{container=\"web\"} 1\n", "oom_kills_total{container=\"calm\"} 0\n"] {
        assert!(metrics["text"].as_str().unwrap().contains(line), "{line}: {metrics}");
    }

    // An end that follows at once is for that; one without it is not.
    killed(&rig, 2);
    wait_kills(&mut rig, 2);
    for name in ["web", "calm"] {
        kill(rig.container(name)["pid"].as_i64().unwrap() as i32, 9);
        rig.wait_state(name, "failed");
    }
    let end = ("exited".to_owned(), "was killed by SIGKILL: out of memory".to_owned());
    assert_eq!(told(&mut rig, "web"), [event("one"), event("one"), end]);
    assert_eq!(told(&mut rig, "calm"), [("exited".to_owned(), "was killed by SIGKILL".to_owned())]);
}

/// How often a process has waited.
fn waits(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

fn kills_without_end_are_told_of_now_and_then() {
    let mut rig = running(COUNTS);
    rig.wait_console("STATE");
    let (begun, before) = (Instant::now(), waits(rig.pid()));
    // First what is reclaimed alone is counted, then what is killed.
    for number in 1..=300 {
        count(&rig.file("counts"), number, 0);
        std::thread::sleep(Duration::from_millis(5));
    }
    for number in 1..=300 {
        killed(&rig, number);
        std::thread::sleep(Duration::from_millis(5));
    }
    let often = waits(rig.pid()) - before;
    assert!(often <= 20 + 6 * begun.elapsed().as_secs(), "it was woken {often} times in {:?}", begun.elapsed());
    wait_kills(&mut rig, 300);
    let first = told(&mut rig, "web").len();
    let most = 1 + usize::try_from(begun.elapsed().as_secs() / 10).unwrap();
    assert!((1..=most).contains(&first), "{first} events in {:?}", begun.elapsed());
    kill(rig.container("web")["pid"].as_i64().unwrap() as i32, 9);
    rig.wait_state("web", "failed");
    let all = told(&mut rig, "web");
    let numbers = numbers(&all);
    assert_eq!(numbers.iter().sum::<u64>(), 300, "{all:?}");
    assert_eq!(all.last().unwrap().1, "was killed by SIGKILL: out of memory", "{all:?}");
}

/// How many were killed, by each event.
fn numbers(told: &[(String, String)]) -> Vec<u64> {
    let kills = told.iter().filter_map(|(_, text)| text.strip_prefix("the kernel killed ")?.split(' ').next());
    kills.map(|word| if word == "one" { 1 } else { word.parse().unwrap() }).collect()
}

fn kills_during_a_crash_are_told_of_once() {
    let mut rig = running(COUNTS);
    killed(&rig, 2);
    wait_kills(&mut rig, 2);
    let watch = watch(&rig);
    // While it stands still nobody hears of these, and then it crashes.
    kill(rig.pid(), 19);
    killed(&rig, 5);
    kill(rig.pid(), PANIC);
    rig.signal(18);
    rig.wait("resumed", |s| s["notes"].as_array().is_some_and(|n| !n.is_empty()));
    wait_kills(&mut rig, 5);
    // It is watched again, by the same watch: by then there might be none to have. What it hears of is read, or it would be another.
    killed(&rig, 6);
    wait_kills(&mut rig, 6);
    rig.until("read", |_| rustix::io::ioctl_fionread(&watch).unwrap() == 0);
    kill(rig.container("web")["pid"].as_i64().unwrap() as i32, 9);
    rig.wait_state("web", "failed");
    let numbers = numbers(&told(&mut rig, "web"));
    assert_eq!((numbers[0], numbers.iter().sum::<u64>()), (2, 6), "{numbers:?}");
    assert_eq!(rig.container("web")["oom_kills"], 6);
}

fn without_a_watch_the_end_tells() {
    // No file to watch: only the container's own is there.
    let mut rig = running(&[("counts/web/memory.events", NONE)]);
    count(&rig.file("counts/web"), 0, 1);
    kill(rig.container("web")["pid"].as_i64().unwrap() as i32, 9);
    rig.wait_state("web", "failed");
    let end = ("exited".to_owned(), "was killed by SIGKILL: out of memory".to_owned());
    assert_eq!(told(&mut rig, "web"), [event("one"), end]);
}
