//! A crowd is started by launch workers.

use std::collections::BTreeSet;

use garboard_runtime::launch::{Launch, Rlimit};
use garboard_runtime::plan::Restart;
use serde_json::Value;

use crate::rig::{Rig, Setup, find, kill, shell, with};

/// By name.
pub const TESTS: &[(&str, fn())] = &[
    ("launchers::a_crowd_is_started_by_launchers_that_then_end", a_crowd_is_started_by_launchers_that_then_end),
    ("launchers::who_dies_before_its_program_takes_nobody_along", who_dies_before_its_program_takes_nobody_along),
    ("launchers::launchers_that_are_killed_lose_nothing", launchers_that_are_killed_lose_nothing),
    ("launchers::without_launchers_pid_1_starts_all", without_launchers_pid_1_starts_all),
    ("launchers::one_that_stands_still_holds_nobody_else_up", one_that_stands_still_holds_nobody_else_up),
    ("launchers::a_crash_among_a_crowd_starts_nobody_twice", a_crash_among_a_crowd_starts_nobody_twice),
    ("launchers::whoever_starts_them_they_are_alike", whoever_starts_them_they_are_alike),
    ("launchers::what_fails_in_a_launcher_is_told_as_ever", what_fails_in_a_launcher_is_told_as_ever),
    ("launchers::a_crowd_that_is_not_wanted_any_more_ends", a_crowd_that_is_not_wanted_any_more_ends),
];

/// More than eight for each processor that a computer for tests may have.
const CROWD: usize = 150;
const FAULT: i32 = 34 + 9;

fn crowd(setup: Setup<'_>) -> Rig {
    let container = |number: usize| with(Restart::Always, shell(&format!("c{number}"), "exec sleep 10000"));
    Rig::with((0..CROWD).map(container).collect(), setup)
}

fn file(pid: i32, name: &str) -> String {
    String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default()).into_owned()
}

/// Launch workers, and children of theirs that have no program yet, which are in cgroups of their own.
fn launchers_and_lodgers(rig: &Rig) -> (Vec<i32>, Vec<i32>) {
    let own = file(rig.pid(), "cgroup");
    let children = rig.children().into_iter().map(|(pid, _)| pid);
    let named = children.filter(|pid| file(*pid, "cmdline").starts_with("garboard-worker\0launch\0"));
    named.partition(|pid| file(*pid, "cgroup") == own)
}

fn count(status: &Value, state: &str) -> usize {
    status["containers"].as_array().unwrap().iter().filter(|c| c["state"] == state).count()
}

/// All run, each of them once, as children of the supervisor, which has no others.
fn all_run_once(rig: &mut Rig) -> Value {
    let status = rig.wait("all running", |status| count(status, "running") == CROWD);
    rig.until("the launchers are gone", |rig| launchers_and_lodgers(rig).0.is_empty());
    let pids = status["containers"].as_array().unwrap().iter().map(|c| c["pid"].as_i64().unwrap() as i32);
    let pids: BTreeSet<i32> = pids.collect();
    let children: BTreeSet<i32> = rig.children().into_iter().map(|(pid, _)| pid).collect();
    assert_eq!(pids, children);
    assert_eq!(rig.processes(), CROWD, "in all cgroups");
    status
}

fn a_crowd_is_started_by_launchers_that_then_end() {
    let mut rig = crowd(Setup { frozen: true, ..Setup::default() });
    rig.until("launchers are at work", |rig| {
        let (launchers, lodgers) = launchers_and_lodgers(rig);
        launchers.len() > 1 && lodgers.len() >= launchers.len()
    });
    assert_eq!(count(&rig.status(), "running"), 0);
    rig.thaw();
    let status = all_run_once(&mut rig);
    let restarts = status["containers"].as_array().unwrap().iter().filter(|c| c["restarts"] != 0);
    assert_eq!(restarts.count(), 0);

    // A few aren't worth a process: PID 1 starts them.
    let before = file(rig.pid(), "cgroup");
    for name in ["c0", "c1", "c2"] {
        kill(find(&status, name)["pid"].as_i64().unwrap() as i32, 9);
    }
    let mut seen = false;
    rig.until("three are started again", |rig| {
        seen |= !launchers_and_lodgers(rig).0.is_empty();
        rig.children().len() == CROWD && file(rig.pid(), "cgroup") == before
    });
    rig.wait("running again", |status| ["c0", "c1", "c2"].iter().all(|c| find(status, c)["restarts"] == 1));
    assert!(!seen);
}

/// It may have been killed at anything, in its launcher's memory.
fn who_dies_before_its_program_takes_nobody_along() {
    let mut rig = crowd(Setup { frozen: true, ..Setup::default() });
    rig.until("two are made", |rig| launchers_and_lodgers(rig).1.len() > 1);
    let (launchers, lodgers) = launchers_and_lodgers(&rig);
    let victim = lodgers[0];
    let status = rig.wait("known", |status| {
        status["containers"].as_array().unwrap().iter().any(|container| container["pid"] == victim)
    });
    let name = status["containers"].as_array().unwrap().iter().find(|c| c["pid"] == victim).unwrap()["name"].clone();
    kill(victim, 9);
    rig.until("its launcher is gone, the others aren't", |rig| {
        launchers.iter().filter(|pid| !launchers_and_lodgers(rig).0.contains(pid)).count() == 1
    });
    rig.thaw();
    let status = all_run_once(&mut rig);
    for container in status["containers"].as_array().unwrap() {
        let expected = u64::from(container["name"] == name);
        assert_eq!(container["restarts"], expected, "{container}");
    }
}

/// That is not the containers' fault, whatever becomes of those that fail.
fn launchers_that_are_killed_lose_nothing() {
    let container = |number: usize| with(Restart::No, shell(&format!("c{number}"), "exec sleep 10000"));
    let mut rig = Rig::new((0..CROWD).map(container).collect());
    let begun = std::time::Instant::now();
    let mut killed = BTreeSet::new();
    while killed.len() < 10 && count(&rig.status(), "running") < CROWD {
        for pid in launchers_and_lodgers(&rig).0 {
            // It may have ended meanwhile.
            let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).output();
            killed.insert(pid);
        }
    }
    assert!(killed.len() > 1, "{killed:?}");
    all_run_once(&mut rig);
    // None had to be given up first.
    assert!(begun.elapsed() < std::time::Duration::from_secs(50), "{:?}", begun.elapsed());
}

/// Whatever ails them.
fn without_launchers_pid_1_starts_all() {
    let mut rig = crowd(Setup { files: &[("no-launchers", "")], ..Setup::default() });
    let status = all_run_once(&mut rig);
    for container in status["containers"].as_array().unwrap() {
        assert_eq!(container["restarts"], 0, "{container}");
    }
    assert!(!rig.console().contains("could not be started"), "{}", rig.console());
}

fn one_that_stands_still_holds_nobody_else_up() {
    let mut rig = crowd(Setup::default());
    rig.until("there is one", |rig| !launchers_and_lodgers(rig).0.is_empty());
    let stopped = launchers_and_lodgers(&rig).0[0];
    kill(stopped, 19);
    // The one that it is at, if it is at one.
    rig.wait("the others run", |status| count(status, "running") >= CROWD - 1);
    kill(stopped, 18);
    all_run_once(&mut rig);
}

/// What of a process outlives exec, and may differ by who started it.
fn seen(pid: i32) -> String {
    const KEPT: [&str; 14] = [
        "Umask",
        "Uid",
        "Gid",
        "Groups",
        "SigBlk",
        "SigIgn",
        "SigCgt",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
    ];
    let status = file(pid, "status");
    let kept = status.lines().filter(|line| KEPT.iter().any(|key| line.split(':').next() == Some(key)));
    let kept = kept.map(|line| format!("{line}\n")).collect::<String>();
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let session = file(pid, "stat").rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap() == pid.to_string();
    format!("{kept}{}{}{descriptors} {session}", file(pid, "limits"), file(pid, "oom_score_adj"))
}

fn whoever_starts_them_they_are_alike() {
    let container = |number: usize| {
        let mut container = with(Restart::Always, shell(&format!("c{number}"), "exec sleep 10000"));
        let change = |launch: &mut Launch| match number % 3 {
            // What shares memory shares that, too.
            1 => launch.process.oom_score_adj = Some(500),
            2 => {
                let limit = |resource| Rlimit { resource, soft: 64 << 20, hard: 64 << 20 };
                launch.process.rlimits = vec![limit(libc::RLIMIT_AS), limit(libc::RLIMIT_DATA)];
            }
            _ => {}
        };
        container.launch.change(change).unwrap();
        container
    };
    let mut rig = Rig::new((0..CROWD).map(container).collect());
    let status = all_run_once(&mut rig);
    let pid = |status: &Value, number: usize| find(status, &format!("c{number}"))["pid"].as_i64().unwrap() as i32;
    let by_launchers: Vec<String> = (0..CROWD).map(|number| seen(pid(&status, number))).collect();
    // One by one they are PID 1's to start.
    for number in 0..3 {
        kill(pid(&status, number), 9);
        let name = format!("c{number}");
        rig.wait("again", |status| find(status, &name)["restarts"] == 1 && find(status, &name)["state"] == "running");
        let status = rig.status();
        let by_pid_1 = seen(pid(&status, number));
        for other in (number..CROWD).step_by(3) {
            assert_eq!(by_launchers[other], by_pid_1, "c{other}");
        }
    }
}

fn a_crash_among_a_crowd_starts_nobody_twice() {
    for running in [1, CROWD / 4, CROWD / 2] {
        let mut rig = crowd(Setup { quick: true, ..Setup::default() });
        rig.wait("some run", |status| count(status, "running") >= running);
        kill(rig.pid(), FAULT);
        rig.wait("resumed", |status| status["notes"].to_string().contains("crashed and goes on"));
        all_run_once(&mut rig);
    }
}

fn what_fails_in_a_launcher_is_told_as_ever() {
    let container = |number: usize| {
        let mut container = shell(&format!("c{number}"), "exec sleep 10000");
        if number % 2 == 1 {
            container.launch.change(|launch| launch.process.args = vec!["/no/such/program".into()]).unwrap();
        }
        container
    };
    let mut rig = Rig::new((0..CROWD).map(container).collect());
    let status =
        rig.wait("settled", |status| count(status, "running") == CROWD / 2 && count(status, "failed") == CROWD / 2);
    for number in (1..CROWD).step_by(2) {
        let reason = find(&status, &format!("c{number}"))["detail"].to_string();
        assert!(reason.contains("/no/such/program") && reason.contains("no such program"), "{reason}");
    }
    rig.until("the launchers are gone", |rig| launchers_and_lodgers(rig).0.is_empty());
}

fn a_crowd_that_is_not_wanted_any_more_ends() {
    let mut rig = crowd(Setup { quick: true, ..Setup::default() });
    rig.wait("one runs", |status| count(status, "running") > 0);
    rig.signal(15);
    let (status, console) = rig.end();
    assert_eq!(status, 10, "{console}");
}
