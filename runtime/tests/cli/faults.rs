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
        a_class_is_written_down_before_it_is_made,
        a_runtime_killed_at_any_step_of_run_leaves_nothing_that_delete_can_t_remove,
        a_runtime_killed_at_any_step_of_a_change_leaves_nothing_that_delete_can_t_remove,
        a_runtime_killed_at_any_step_of_exec_leaves_nobody_in_the_container,
        a_process_killed_at_any_step_of_create_is_an_error_that_leaves_nothing,
        a_full_filesystem_is_an_error_that_leaves_nothing,
        too_few_descriptors_are_an_error_that_leaves_nothing,
        one_of_many_deletes_wins,
        one_of_many_creates_wins,
        one_of_many_starts_wins,
        a_damaged_record_is_named,
    ]
}

/// One in so many steps is tried in a run, the first of them another one each time. Prime, so that all halves of pairs have their turn.
/// `GARBOARD_EVERY_STEP=1` tries all.
const STRIDE: usize = 29;

/// Has `kill_at` kill a command at one step after the other until it comes to its end (`false`). Each step is told in words for errors.
pub fn at_steps(what: &str, mut kill_at: impl FnMut(usize, &str) -> bool) {
    let stride = if std::env::var_os("GARBOARD_EVERY_STEP").is_some() { 1 } else { STRIDE };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let first = 1 + usize::try_from(now.subsec_micros()).unwrap() % stride;
    let mut kills = 0;
    for n in (first..).step_by(stride) {
        if !kill_at(n, &format!("{what} killed before call {n}")) {
            break;
        }
        kills += 1;
    }
    // The shortest of commands reads a record under a lock.
    assert!(kills * stride > 40, "{what}: {kills} kills");
}

/// Starts the runtime and kills it right before its `n`th call. Returns whether it came that far.
fn kill_at(site: &Site, arguments: &[&str], n: usize) -> bool {
    let mut command = site.command(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    crate::sys::kill_before_call(command, n)
}

/// `delete --force`, after which nothing is left.
fn cleared(site: &Site, when: &str) {
    let done = site.run(&["delete", "--force", &site.id]);
    assert_eq!((done.status, done.stderr.as_str()), (0, ""), "{when}");
    // A state directory that had lost its name already is no container's any more, and goes with the next of that name.
    let grave = site.directory.join("state").join(format!("~{}", site.id));
    if grave.exists() {
        site.run(&["create", &site.id]);
        site.ok(&["delete", "--force", &site.id]);
    }
    site.assert_gone();
}

fn with_hooks(script: &str) -> Site {
    shell(script).change(|c| {
        for kind in ["createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
            c["hooks"][kind] = json!([{"path": "/bin/true"}]);
        }
    })
}

fn a_runtime_killed_at_any_step_of_create_leaves_nothing_that_delete_can_t_remove() {
    survives_kills_during_create(&with_hooks("sleep 60"), |_, _| {});
}

/// There are as few classes as the processor has. No machine of the tests has any, so making this one fails.
fn a_class_is_written_down_before_it_is_made() {
    let site = shell("true").change(|c| c["linux"]["intelRdt"] = json!({"enableMonitoring": true}));
    let file = site.directory.join("state").join(&site.id).join("state.json");
    let mut intended = 0;
    at_steps("create with a class", |n, when| {
        let killed = kill_at(&site, &["create", &site.id], n);
        if let Ok(text) = std::fs::read(&file) {
            let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!((&record["pid"], &record["resctrl"]["monitored"]), (&json!(0), &json!(true)), "{when}");
            assert!(site.fails(&["state", &site.id]).contains("container does not exist"), "{when}");
            intended += 1;
        }
        cleared(&site, when);
        killed
    });
    assert!(intended > 0);
}

/// Kills the runtime at one step of `create` after the other. `look` finds what may be left then after `delete`.
pub fn survives_kills_during_create(site: &Site, look: impl Fn(&Site, &str)) {
    at_steps("create", |n, when| {
        let killed = kill_at(site, &["create", &site.id], n);
        if !killed {
            // It did come to be in the end.
            assert_eq!(site.status(), "created");
        }
        cleared(site, when);
        look(site, when);
        killed
    });
    // Children of the killed ones have nobody to be started by, and end.
    until("no process is left", || processes_of(&site.id) == 0);
}

/// How many processes have this name among their arguments.
pub fn processes_of(id: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok());
    let lines = processes.filter_map(|process| std::fs::read_to_string(process.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(id)).count()
}

fn a_runtime_killed_at_any_step_of_run_leaves_nothing_that_delete_can_t_remove() {
    for (script, arguments) in [("sleep 60", &["run", "--detach"][..]), ("true", &["run"])] {
        let site = with_hooks(script);
        let arguments = [arguments, &[site.id.as_str()]].concat();
        at_steps(&arguments.join(" "), |n, when| {
            let killed = kill_at(&site, &arguments, n);
            cleared(&site, when);
            killed
        });
        until("no process is left", || processes_of(&site.id) == 0);
    }
}

/// Of each command that changes a container that is there, after `before`.
fn a_runtime_killed_at_any_step_of_a_change_leaves_nothing_that_delete_can_t_remove() {
    let update = ["update", "--l3-cache-schema", "L3:0=f"];
    let changes: [(&[&str], &[&str]); 5] = [
        (&[], &["start"]),
        (&["start"], &["pause"]),
        (&["start", "pause"], &["resume"]),
        (&["start"], &update),
        (&[], &["delete", "--force"]),
    ];
    let site = with_hooks("sleep 60");
    for (before, change) in changes {
        at_steps(change[0], |n, when| {
            site.create(&[]);
            for command in before {
                site.ok(&[command, &site.id]);
            }
            let killed = kill_at(&site, &[change, &[site.id.as_str()]].concat(), n);
            cleared(&site, when);
            killed
        });
    }
    until("no process is left", || processes_of(&site.id) == 0);
}

fn a_runtime_killed_at_any_step_of_exec_leaves_nobody_in_the_container() {
    let site = shell("sleep 60");
    site.create(&[]);
    site.ok(&["start", &site.id]);
    at_steps("exec", |n, _| kill_at(&site, &["exec", &site.id, "true"], n));
    let procs = site.cgroup().join("cgroup.procs");
    until("nobody else is left", || std::fs::read_to_string(&procs).unwrap().lines().count() == 1);
    assert_eq!(processes_of(&site.id), 0);
    assert_eq!(site.status(), "running");
    cleared(&site, "in the end");
}

/// As is one for want of memory. A time namespace takes one more on the way there.
fn a_process_killed_at_any_step_of_create_is_an_error_that_leaves_nothing() {
    let staged = shell("sleep 60").change(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    });
    for site in [with_hooks("sleep 60"), staged] {
        at_steps("a child of create", |n, when| {
            let mut command = site.command(&["create", &site.id]);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let status = crate::sys::kill_child_before_call(command, n);
            // It may have come to its gate by then.
            if status.is_none_or(|status| status.success()) {
                assert_eq!(site.status(), "stopped", "{when}");
                site.ok(&["delete", &site.id]);
            } else {
                assert_eq!(status.and_then(|status| status.code()), Some(1), "{when}");
            }
            site.assert_gone();
            status.is_some()
        });
        until("no process is left", || processes_of(&site.id) == 0);
    }
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
