//! The same commands for an ordinary user: one id, no cgroup.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::site::{shell, until};
use crate::trials;

pub fn tests() -> Vec<Trial> {
    trials![
        a_life_has_its_states,
        run_passes_the_exit_status_on,
        signals_reach_the_program,
        a_terminal_is_shown,
        hooks_run,
        limits_without_a_cgroup_are_refused,
        processes_are_found_without_a_cgroup,
        who_can_t_be_killed_is_warned_of,
        the_state_directory_needs_a_place,
        a_user_namespace_is_needed,
        rootless_is_true_false_or_auto,
        layers_are_put_together,
    ]
}

fn a_life_has_its_states() {
    let site = shell("id -u; sleep 60");
    let output = site.create(&[]);
    assert_eq!(site.status(), "created");
    site.ok(&["start", &site.id]);
    assert_eq!(site.status(), "running");
    until("it speaks", || std::fs::read_to_string(&output).unwrap().ends_with("0\n"));
    let pid = site.state()["pid"].as_i64().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let own = rustix::process::getuid().as_raw();
    assert!(status.contains(&format!("Uid:\t{own}\t{own}\t{own}\t{own}")), "{status}");
    assert!(site.fails(&["delete", &site.id]).contains("it is running"));
    assert!(site.fails(&["pause", &site.id]).contains("no cgroup to freeze"));
    site.ok(&["delete", "--force", &site.id]);
    site.assert_gone();
}

fn run_passes_the_exit_status_on() {
    let site = shell("echo out; exit 9");
    let done = site.run(&["run", &site.id]);
    assert_eq!((done.status, done.stdout.as_str()), (9, "out\n"), "{done:?}");
    site.assert_gone();
}

fn signals_reach_the_program() {
    let site = shell("trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done");
    let output = site.create(&[]);
    site.ok(&["start", &site.id]);
    until("the trap is set", || std::fs::read_to_string(&output).unwrap().contains("ready"));
    site.ok(&["kill", &site.id]);
    site.wait_for("stopped");
    site.ok(&["delete", &site.id]);
    site.assert_gone();
}

fn a_terminal_is_shown() {
    let site = shell("tty; stat -c %u /dev/pts/0").change(|c| c["process"]["terminal"] = true.into());
    assert_eq!(site.ok(&["run", &site.id]).replace('\r', ""), "/dev/pts/0\n0\n");
}

fn hooks_run() {
    let site = shell("true");
    let file = site.directory.join("hooks");
    let hook =
        |text: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo {text} >> {}", file.display())]}]);
    let site = site.change(|c| {
        for kind in ["createRuntime", "createContainer", "poststart", "poststop"] {
            c["hooks"][kind] = hook(kind);
        }
    });
    assert_eq!(site.run(&["run", &site.id]).status, 0);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "createRuntime\ncreateContainer\npoststart\npoststop\n");
}

fn limits_without_a_cgroup_are_refused() {
    let site = shell("true").change(|c| c["linux"]["resources"] = json!({"pids": {"limit": 10}}));
    let error = site.fails(&["run", &site.id]);
    assert!(
        error.contains("cannot set pids limit: container could not join or create cgroup for pids.max=10"),
        "{error}"
    );
    site.assert_gone();
    // Rules of devices an ordinary user can't break anyway.
    let rules = json!([{"allow": false, "access": "rwm"}]);
    let site = shell("echo x > /dev/null").change(|c| c["linux"]["resources"] = json!({"devices": rules}));
    assert_eq!(site.run(&["run", &site.id]).status, 0);
}

fn who_can_t_be_killed_is_warned_of() {
    const WORDS: &str = "Such configuration is strongly discouraged";
    let bound = shell("true");
    let unbound = shell("true").change(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
        for mount in c["mounts"].as_array_mut().unwrap().iter_mut().filter(|mount| mount["type"] == "proc") {
            *mount = json!({"destination": "/proc", "source": "/proc", "options": ["rbind"]});
        }
    });
    for (site, warned) in [(bound, false), (unbound, true)] {
        let done = site.run(&["run", &site.id]);
        assert_eq!((done.status, done.stderr.contains(WORDS)), (0, warned), "{done:?}");
    }
}

fn processes_are_found_without_a_cgroup() {
    let site = shell("sleep 60 & wait");
    site.create(&[]);
    site.ok(&["start", &site.id]);
    let pids = || serde_json::from_str::<Vec<Value>>(&site.ok(&["ps", "-f", "json", &site.id])).unwrap().len();
    until("both run", || pids() == 2);
    site.ok(&["kill", "--all", &site.id, "KILL"]);
    site.wait_for("stopped");
}

fn the_state_directory_needs_a_place() {
    let site = shell("true");
    let mut command = std::process::Command::new(crate::site::runtime());
    let output = command.arg("list").env_remove("XDG_RUNTIME_DIR").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("XDG_RUNTIME_DIR isn't set"), "{output:?}");
    let mut command = std::process::Command::new(crate::site::runtime());
    let output = command.args(["run", "--bundle"]).arg(&site.directory).arg(&site.id);
    drop(site.command(&[]));
    let output = output.env("XDG_RUNTIME_DIR", &site.directory).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(site.directory.join("garboard-runtime").is_dir());
}

fn a_user_namespace_is_needed() {
    let site = shell("true").change(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "user");
        for field in ["uidMappings", "gidMappings"] {
            c["linux"].as_object_mut().unwrap().remove(field);
        }
    });
    let error = site.fails(&["run", &site.id]);
    assert!(
        error.contains("linux.namespaces: an ordinary user needs a user namespace")
            && error.contains("spec --rootless"),
        "{error}"
    );
    site.assert_gone();
}

fn rootless_is_true_false_or_auto() {
    for value in ["--rootless", "--rootless=true", "--rootless=auto"] {
        let site = shell("exit 7");
        assert_eq!(site.run(&[value, "run", &site.id]).status, 7, "{value}");
    }
    let site = shell("true");
    assert!(
        site.fails(&["--rootless=perhaps", "run", &site.id])
            .contains("--rootless=perhaps: it must be true, false or auto")
    );
}

/// The third driver takes `/dev/fuse`, which not every machine opens to users: `layers.rs` has them all.
fn layers_are_put_together() {
    let site = shell("cat /file && echo written > /file && cat /file && mount | head -n 1");
    let [top, place] = ["top", "place"].map(|name| site.directory.join(name));
    std::fs::create_dir(&top).unwrap();
    std::fs::create_dir(&place).unwrap();
    std::fs::write(top.join("file"), "kept\n").unwrap();
    let base = crate::site::place().rootfs();
    for (driver, root) in [("overlay", "overlay on / type overlay"), ("copy", " on / ")] {
        let mut config = site.config.clone();
        config["root"] = json!({"path": place});
        config["annotations"] = json!({
            "org.garboard.layers": format!("{}:{}", top.display(), base.display()),
            "org.garboard.layers.driver": driver,
        });
        std::fs::write(site.directory.join("config.json"), config.to_string()).unwrap();
        let done = crate::site::finish(site.plain_command(&["run", &site.id]));
        assert!(done.status == 0 && done.stdout.starts_with("kept\nwritten\n"), "{driver}: {done:?}");
        assert!(done.stdout.contains(root), "{driver}: {done:?}");
        assert_eq!(std::fs::read_to_string(top.join("file")).unwrap(), "kept\n");
        assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
        site.assert_gone();
    }
}
