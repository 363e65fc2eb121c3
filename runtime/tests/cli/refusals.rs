//! What isn't done, and how that is said.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::site::{program, shell};
use crate::trials;

pub fn tests() -> Vec<Trial> {
    trials![
        a_name_is_taken_once,
        a_name_is_plain,
        what_is_absent_is_named,
        a_wrong_configuration_is_refused_before_anything_is_made,
        a_container_is_started_once,
        a_container_without_a_process_is_not_started,
        what_has_not_been_created_is_not_started,
        the_wrong_program_is_an_error_of_create,
        errors_are_logged_as_callers_read_them,
        wrong_flags_are_refused,
    ]
}

fn a_name_is_taken_once() {
    let site = shell("sleep 60");
    site.create(&[]);
    let before = site.state();
    for command in ["create", "run"] {
        let error = site.fails(&[command, &site.id]);
        assert!(error.contains("container with given ID already exists"), "{error}");
    }
    assert_eq!(site.state(), before);
}

fn a_name_is_plain() {
    let site = shell("true");
    for id in ["../x", "a/b", ".", "..", "a b", "a\nb", "", "é"] {
        for command in ["create", "state", "delete"] {
            assert!(site.fails(&[command, "--", id]).contains("invalid container ID format"), "{command} {id:?}");
        }
    }
    site.assert_gone();
    // A name that begins with a dot is one like others.
    let mut hidden = shell("exit 3");
    hidden.id = format!(".{}", hidden.id);
    assert_eq!(hidden.run(&["run", &hidden.id]).status, 3);
    hidden.assert_gone();
}

/// "This property is REQUIRED when `start` is called", and not before.
fn a_container_without_a_process_is_not_started() {
    let site = shell("true").change(|c| drop(c.as_object_mut().unwrap().remove("process")));
    assert!(site.fails(&["run", &site.id]).contains("process: missing"));
    site.assert_gone();
    site.create(&[]);
    assert_eq!(site.status(), "created");
    assert!(site.fails(&["exec", &site.id, "/bin/true"]).contains("process: missing"));
    assert!(site.fails(&["start", &site.id]).contains("config.json: process: missing"));
    site.wait_for("stopped");
    site.ok(&["delete", &site.id]);
    site.assert_gone();
}

fn what_is_absent_is_named() {
    let site = shell("true");
    let error = site.fails(&["create", "--bundle", "/absent/bundle", &site.id]);
    assert!(error.contains("open the bundle /absent/bundle: no such file or directory (ENOENT)"), "{error}");
    let empty = site.directory.join("empty");
    std::fs::create_dir(&empty).unwrap();
    let error = site.fails(&["create", "--bundle", "empty", &site.id]);
    assert!(error.contains("config.json: no such file or directory (ENOENT)"), "{error}");
    for command in ["state", "start", "kill", "delete", "pause", "resume", "ps"] {
        assert!(site.fails(&[command, &site.id]).contains("container does not exist"), "{command}");
    }
    let site = site.change(|c| c["root"]["path"] = json!("absent"));
    let error = site.fails(&["create", &site.id]);
    assert!(
        error.contains("root directory") && error.contains("absent: no such file or directory (ENOENT)"),
        "{error}"
    );
    site.assert_gone();
}

fn a_wrong_configuration_is_refused_before_anything_is_made() {
    let refused = |change: fn(&mut Value), expected: &str| {
        let site = shell("true").change(change);
        let error = site.fails(&["create", &site.id]);
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
        site.assert_gone();
    };
    refused(|c| c["ociVersion"] = json!("2.0.0"), "ociVersion");
    refused(|c| c["ociVersion"] = json!(1), "expected a string");
    // Whatever else is wrong: it may be right there.
    let wrong_twice = |c: &mut Value| {
        c["ociVersion"] = json!("2.0.0");
        c["linux"]["namespaces"] = json!([{"type": "pid"}, {"type": "pid"}]);
    };
    refused(wrong_twice, "ociVersion");
    refused(|c| c["process"]["cwd"] = json!("relative"), "process.cwd");
    refused(|c| c["process"]["args"] = json!([]), "process.args");
    refused(|c| c["hooks"] = json!({"poststop": [{"path": "relative"}]}), "hooks.poststop");
    refused(|c| c["hooks"] = json!({"prestart": [{"path": "/bin/true", "timeout": 0}]}), "hooks.prestart");
    refused(|c| c["root"] = Value::Null, "root");
    let site = shell("true");
    for text in ["", "{", "[]", "null", "\u{0}"] {
        std::fs::write(site.directory.join("config.json"), text).unwrap();
        let output = site.plain_command(&["create", &site.id]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{text:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("config.json"), "{output:?}");
    }
    site.assert_gone();
}

fn a_container_is_started_once() {
    let site = shell("sleep 60");
    site.create(&[]);
    site.ok(&["start", &site.id]);
    let pid = site.state()["pid"].clone();
    assert!(site.fails(&["start", &site.id]).contains("cannot start an already running container"));
    assert_eq!((site.status().as_str(), site.state()["pid"].clone()), ("running", pid));
    site.ok(&["kill", &site.id, "KILL"]);
    site.wait_for("stopped");
    assert!(site.fails(&["start", &site.id]).contains("cannot start a container that has stopped"));
}

fn what_has_not_been_created_is_not_started() {
    // Its process was killed at the gate.
    let site = shell("true");
    site.create(&[]);
    site.ok(&["kill", &site.id, "KILL"]);
    site.wait_for("stopped");
    assert!(site.fails(&["start", &site.id]).contains("cannot start a container that has stopped"));
    site.ok(&["delete", &site.id]);
    site.assert_gone();
}

fn the_wrong_program_is_an_error_of_create() {
    for command in ["create", "run"] {
        let site = program(&["/bin/absent"]);
        let error = site.fails(&[command, &site.id]);
        assert!(error.contains("exec /bin/absent: no such file or directory (ENOENT)"), "{error}");
        site.assert_gone();
        let site = program(&["absent"]);
        assert!(site.fails(&[command, &site.id]).contains("executable file not found in $PATH"), "{command}");
        site.assert_gone();
        let site = program(&["/etc"]);
        assert!(site.fails(&[command, &site.id]).contains("permission denied (EACCES)"), "{command}");
        site.assert_gone();
    }
    // What only exec finds out is `start`'s to say.
    let broken = program(&["/tmp/broken"]);
    let file = crate::site::place().rootfs().join("tmp/broken");
    std::fs::write(&file, "\u{7f}ELF nonsense").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    broken.create(&[]);
    let error = broken.fails(&["start", &broken.id]);
    assert!(error.contains("exec /tmp/broken: exec format error (ENOEXEC)"), "{error}");
    broken.wait_for("stopped");
    broken.ok(&["delete", &broken.id]);
    broken.assert_gone();
}

fn errors_are_logged_as_callers_read_them() {
    let site = program(&["/bin/absent"]);
    let log = site.directory.join("log");
    let path = log.to_str().unwrap();
    assert_eq!(site.run(&["--log", path, "--log-format", "json", "create", &site.id]).status, 1);
    let line: Value = serde_json::from_str(&std::fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(
        line["msg"].as_str().unwrap().contains("create: exec /bin/absent: no such file or directory (ENOENT)"),
        "{line}"
    );
    assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    std::fs::remove_file(&log).unwrap();
    assert_eq!(site.run(&["--log", path, "create", &site.id]).status, 1);
    assert!(std::fs::read_to_string(&log).unwrap().starts_with("time="));
    std::fs::remove_file(&log).unwrap();
    // With --debug, what the filter is loaded with, too.
    let site = shell("true").change(|c| {
        c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"]});
    });
    let marked = format!("file:{path}");
    for (debug, told) in [(&["--debug"][..], true), (&[], false)] {
        site.ok(&[debug, &["--log", &marked, "run", &site.id]].concat());
        let text = std::fs::read_to_string(&log).unwrap();
        assert_eq!(text.contains("level=debug msg=\"run: seccomp filter flags: 2\""), told, "{text}");
        std::fs::remove_file(&log).unwrap();
    }
    let error = site.fails(&["--log", "/absent/log", "create", &site.id]);
    assert!(error.contains("open the log /absent/log: no such file or directory (ENOENT)"), "{error}");
}

fn wrong_flags_are_refused() {
    let site = shell("true");
    for arguments in [&["create"][..], &["unknown"], &["--unknown", "list"], &["list", "--format", "xml"], &[]] {
        let done = site.run(arguments);
        assert_eq!(done.status, 1, "{arguments:?}: {done:?}");
        assert!(!done.stderr.is_empty());
    }
    let error = site.fails(&["--systemd-cgroup", "create", &site.id]);
    assert!(error.contains("systemd"), "{error}");
    let done = site.run(&["--rootless=perhaps", "list"]);
    assert!(done.status == 1 && done.stderr.contains("true, false or auto"), "{done:?}");
}
