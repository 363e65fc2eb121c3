//! Shortages, crashes and races.

use std::process::Stdio;

use libtest_mimic::Trial;
use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::json;

use crate::site::{Site, finish, shell, until, wait};
use crate::trials;

pub fn tests() -> Vec<Trial> {
    trials![
        a_runtime_killed_at_any_step_of_create_leaves_nothing_that_delete_can_t_remove,
        a_runtime_killed_at_any_step_of_delete_leaves_nothing_that_delete_can_t_remove,
        a_full_filesystem_is_an_error_that_leaves_nothing,
        too_few_descriptors_are_an_error_that_leaves_nothing,
        one_of_many_deletes_wins,
        one_of_many_creates_wins,
        one_of_many_starts_wins,
        a_damaged_record_is_named,
    ]
}

/// Steps between those at which the runtime is killed. Odd, so that both halves of pairs of calls have their turn.
const STRIDE: usize = 3;

fn a_runtime_killed_at_any_step_of_create_leaves_nothing_that_delete_can_t_remove() {
    let site = shell("sleep 60").change(|c| {
        c["hooks"]["createRuntime"] = json!([{"path": "/bin/true"}]);
        c["hooks"]["createContainer"] = json!([{"path": "/bin/true"}]);
    });
    survives_kills_during_create(&site, |_, _| {});
}

/// Kills the runtime at one step of `create` after the other. `look` finds what may be left then after `delete`.
pub fn survives_kills_during_create(site: &Site, look: impl Fn(&Site, &str)) {
    let mut kills = 0;
    for n in (1..).step_by(STRIDE) {
        let mut command = site.command(&["create", &site.id]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        if !crate::sys::kill_before_call(command, n) {
            break;
        }
        kills += 1;
        let done = site.run(&["delete", "--force", &site.id]);
        let when = format!("killed before call {n}");
        assert_eq!((done.status, done.stderr.as_str()), (0, ""), "{when}");
        site.assert_gone();
        look(site, &when);
    }
    assert!(kills > 30, "{kills} kills");
    // It did come to be in the end.
    assert_eq!(site.status(), "created");
    site.ok(&["delete", "--force", &site.id]);
    // Children of the killed ones have nobody to be started by, and end.
    until("no process is left", || processes_of(&site.id) == 0);
}

/// How many processes have this name among their arguments.
pub fn processes_of(id: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok());
    let lines = processes.filter_map(|process| std::fs::read_to_string(process.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(id)).count()
}

fn a_runtime_killed_at_any_step_of_delete_leaves_nothing_that_delete_can_t_remove() {
    let site = shell("sleep 60");
    let mut kills = 0;
    for n in (1..).step_by(STRIDE) {
        site.create(&[]);
        let mut command = site.command(&["delete", "--force", &site.id]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let killed = crate::sys::kill_before_call(command, n);
        let done = site.run(&["delete", "--force", &site.id]);
        assert_eq!((done.status, done.stderr.as_str()), (0, ""), "killed before call {n}");
        // A state directory that had lost its name already is no container's any more, and goes with the next of that name.
        let grave = site.directory.join("state").join(format!("~{}", site.id));
        if grave.exists() {
            site.create(&[]);
            site.ok(&["delete", "--force", &site.id]);
        }
        site.assert_gone();
        if !killed {
            break;
        }
        kills += 1;
    }
    assert!(kills > 10, "{kills} kills");
}

fn a_full_filesystem_is_an_error_that_leaves_nothing() {
    let site = shell("true");
    let state = site.directory.join("state");
    std::fs::create_dir(&state).unwrap();
    rustix::mount::mount("tmpfs", &state, "tmpfs", MountFlags::empty(), Some(c"size=8192,nr_inodes=100")).unwrap();
    let filler = state.join("~filler");
    // From nothing at all to everything but a page.
    for free in [0, 4096] {
        std::fs::write(&filler, vec![0; 8192 - free]).unwrap();
        let error = site.fails(&["create", &site.id]);
        assert!(error.contains("no space left on device (ENOSPC)"), "{error}");
        assert_eq!(std::fs::read_dir(&state).unwrap().count(), 1);
        assert!(!site.cgroup().exists());
    }
    std::fs::remove_file(&filler).unwrap();
    rustix::mount::unmount(&state, UnmountFlags::DETACH).unwrap();
    // There was nothing else wrong with it.
    assert_eq!(site.run(&["run", &site.id]).status, 0);
}

fn too_few_descriptors_are_an_error_that_leaves_nothing() {
    let site = shell("true").change(|c| c["process"]["rlimits"] = json!([]));
    let mut refused = 0;
    for most in 3..200 {
        let mut command = site.command(&["run", &site.id]);
        crate::sys::limit_descriptors(&mut command, most);
        let done = finish(command);
        site.assert_gone();
        if done.status == 0 {
            break;
        }
        if done.stderr.contains("shared libraries") {
            // A dynamically linked build of the tests doesn't come as far as that.
            continue;
        }
        assert_eq!(done.status, 1, "{done:?}");
        assert!(done.stderr.contains("EMFILE") || done.stderr.contains("descriptor"), "with {most}: {done:?}");
        refused += 1;
    }
    assert!((5..100).contains(&refused), "{refused} limits were too low");
}

fn race(site: &Site, arguments: &[&str]) -> Vec<i32> {
    let children: Vec<_> = (0..8)
        .map(|_| site.plain_command(arguments).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
        .collect();
    children.into_iter().map(wait).collect()
}

fn one_of_many_deletes_wins() {
    let site = shell("true");
    site.create(&[]);
    site.ok(&["kill", &site.id, "KILL"]);
    site.wait_for("stopped");
    let results = race(&site, &["delete", &site.id]);
    assert_eq!(results.iter().filter(|status| **status == 0).count(), 1, "{results:?}");
    site.assert_gone();
    // By force, everybody gets what they want.
    site.create(&[]);
    let results = race(&site, &["delete", "--force", &site.id]);
    assert_eq!(results, [0; 8]);
    site.assert_gone();
}

fn one_of_many_creates_wins() {
    let site = shell("sleep 60");
    drop(site.command(&[]));
    let results = race(&site, &["create", &site.id]);
    assert_eq!(results.iter().filter(|status| **status == 0).count(), 1, "{results:?}");
    assert_eq!(site.status(), "created");
    assert_eq!(std::fs::read_to_string(site.cgroup().join("cgroup.procs")).unwrap().lines().count(), 1);
}

fn one_of_many_starts_wins() {
    let site = shell("echo ran; sleep 60");
    let output = site.create(&[]);
    let results = race(&site, &["start", &site.id]);
    assert_eq!(results.iter().filter(|status| **status == 0).count(), 1, "{results:?}");
    until("it runs", || std::fs::read_to_string(&output).unwrap().contains("ran"));
    assert_eq!(std::fs::read_to_string(&output).unwrap().matches("ran").count(), 1);
}

fn a_damaged_record_is_named() {
    let site = shell("true");
    site.create(&[]);
    let file = site.directory.join("state").join(&site.id).join("state.json");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, "{\"pid\": \"many\"}").unwrap();
    for command in ["state", "start", "delete"] {
        let error = site.fails(&[command, &site.id]);
        assert!(error.contains("state.json") && error.contains("invalid type"), "{error}");
    }
    // The others are still listed.
    assert!(site.run(&["list"]).stderr.contains("warning"));
    std::fs::write(&file, good).unwrap();
    site.ok(&["delete", "--force", &site.id]);
    site.assert_gone();
}
