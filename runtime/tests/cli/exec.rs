//! Another process in a running container.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::site::{Site, finish, shell, until};
use crate::trials;

pub fn tests() -> Vec<Trial> {
    let mut tests = for_everybody();
    tests.extend(trials![
        the_container_s_rules_hold,
        users_and_groups,
        groups_are_kept_where_that_is_asked_for,
        capabilities_are_added_and_never_inheritable,
        a_capability_that_is_inheritable_is_added_to_the_ambient_ones,
        a_process_is_read_from_a_file,
        a_user_namespace_is_entered,
        a_network_of_the_machine_s_is_entered_from_a_user_namespace,
        a_paused_container_is_not_entered,
        a_container_in_a_cgroup_that_it_has_made_is_entered,
        a_container_whose_cgroup_is_gone_is_entered_where_it_is,
        the_agent_is_told_of_a_process,
        the_agent_is_told_when_the_container_is_created,
        the_program_can_t_be_overwritten,
        the_program_s_mount_stays_read_only,
        descriptors_are_preserved,
        streams_can_be_opened_by_name,
    ]);
    tests
}

/// Those that need no rights.
pub fn for_everybody() -> Vec<Trial> {
    trials![
        a_process_is_in_all_namespaces_and_the_cgroup,
        the_exit_status_is_passed_on,
        arguments_decide,
        detached_it_returns_at_once,
        a_terminal_is_shown,
        only_a_running_container_is_entered,
        a_wrong_user_is_never_root,
        a_working_directory_is_inside,
        what_can_t_be_executed_is_said,
        processors_are_those_of_an_exec,
        the_caller_s_processors_are_none_of_the_container_s,
        how_dear_it_is_to_the_kernel_is_the_container_s,
        the_last_word_on_a_variable_counts,
        a_filter_that_is_given_as_it_is_binds_every_process,
    ]
}

/// A container that runs until it is deleted.
/// By crun's annotation. It denies mkdir(2) on x86-64, where the configuration's own would deny everything.
fn a_filter_that_is_given_as_it_is_binds_every_process() {
    let filter = "IAAAAAAAAAAVAAABUwAAAAYAAAABAAUABgAAAAAA/38=";
    let site = shell("mkdir /tmp/one 2>&1; sleep 60").change(|c| {
        c["annotations"] = json!({"run.oci.seccomp_bpf_data": filter});
        c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_KILL_PROCESS"});
    });
    let output = site.create(&[]);
    site.ok(&["start", &site.id]);
    let denied = |said: &str| said.contains("Operation not permitted");
    until("it has tried", || denied(&std::fs::read_to_string(&output).unwrap()));
    let done = site.run(&["exec", &site.id, "/bin/mkdir", "/dev/two"]);
    assert!(done.status == 1 && denied(&done.stderr), "{done:?}");
    site.ok(&["delete", "--force", &site.id]);
    // The control.
    let site = shell("mkdir /dev/two");
    site.ok(&["run", &site.id]);
}

fn running() -> Site {
    start(shell("sleep 1000"))
}

fn start(site: Site) -> Site {
    site.create(&[]);
    site.ok(&["start", &site.id]);
    site
}

/// What a script in the container prints.
fn output(site: &Site, flags: &[&str], script: &str) -> String {
    let done = site.run(&[&["exec"], flags, &[site.id.as_str(), "/bin/sh", "-c", script]].concat());
    assert_eq!(done.status, 0, "{done:?}");
    done.stdout
}

fn a_process_is_in_all_namespaces_and_the_cgroup() {
    let site = running();
    let pid = site.state()["pid"].as_i64().unwrap();
    for kind in ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time"] {
        let expected = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        let found = output(&site, &[], &format!("readlink /proc/self/ns/{kind}"));
        assert_eq!(found.trim_end(), expected.to_str().unwrap());
    }
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    site.ok(&["exec", "--detach", "--pid-file", "pid", &site.id, "/bin/sleep", "1000"]);
    let second = std::fs::read_to_string(site.directory.join("pid")).unwrap();
    assert_eq!(std::fs::read_to_string(format!("/proc/{second}/cgroup")).unwrap(), own);
    // Its root is the container's, and nothing of the runtime is left with it.
    assert_eq!(
        output(&site, &[], "ls -di / /..")
            .split_whitespace()
            .step_by(2)
            .collect::<std::collections::BTreeSet<_>>()
            .len(),
        1
    );
    assert_eq!(output(&site, &[], "ls /proc/self/fd | wc -l"), "4\n", "0, 1, 2 and the directory that is read");
}

fn the_exit_status_is_passed_on() {
    let site = running();
    for (script, status) in [("exit 0", 0), ("exit 9", 9), ("kill -9 $$", 137), ("kill -15 $$", 143)] {
        assert_eq!(site.run(&["exec", &site.id, "/bin/sh", "-c", script]).status, status, "{script}");
    }
    let mut command = site.command(&["exec", &site.id, "/bin/cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"through");
    // Signals go on to it.
    let script = "trap 'exit 44' TERM; echo ready; while :; do sleep 0.05; done";
    let log = site.directory.join("log");
    let mut command = site.command(&["exec", &site.id, "/bin/sh", "-c", script]);
    let mut child = command.stdout(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    until("the trap is set", || std::fs::read_to_string(&log).unwrap() == "ready\n");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(44));
    assert_eq!(site.status(), "running");
}

fn arguments_decide() {
    let site = start(shell("sleep 1000").change(|c| {
        c["process"]["env"] = json!(["PATH=/bin", "KEPT=1", "CHANGED=1"]);
    }));
    let text = output(&site, &["--env", "CHANGED=2", "-e", "NEW=3", "--cwd", "/tmp"], "echo $KEPT $CHANGED $NEW; pwd");
    assert_eq!(text, "1 2 3\n/tmp\n");
    // Flags of the program are the program's.
    assert_eq!(site.ok(&["exec", &site.id, "echo", "-n", "--env", "-t"]), "--env -t");
    assert!(site.fails(&["exec", "--env", "nonsense", &site.id, "true"]).contains("NAME=value"));
    assert!(site.fails(&["exec", &site.id]).contains("no program"));
    let done = site.run(&["exec", "--cap", "CAP_FLY", &site.id, "true"]);
    assert!(
        done.status == 0 && done.stderr.contains("warning: --cap \"CAP_FLY\": there is no such capability"),
        "{done:?}"
    );
}

fn detached_it_returns_at_once() {
    let site = running();
    site.ok(&["exec", "--detach", "--pid-file", "pid", &site.id, "/bin/sleep", "1000"]);
    let pid = std::fs::read_to_string(site.directory.join("pid")).unwrap();
    assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap(), "/bin/sleep\x001000\x00");
    let error = site.fails(&["exec", "--detach", &site.id, "/bin/absent"]);
    assert!(error.contains("exec /bin/absent: no such file or directory (ENOENT)"), "{error}");
}

fn a_terminal_is_shown() {
    let site = running();
    let text = site.ok(&["exec", "--tty", &site.id, "/bin/sh", "-c", "tty; stty size"]).replace('\r', "");
    assert!(text.starts_with("/dev/pts/0\n"), "{text}");
    assert_eq!(site.run(&["exec", "-t", &site.id, "/bin/sh", "-c", "exit 6"]).status, 6);
    let error = site.fails(&["exec", "-t", "-d", &site.id, "/bin/true"]);
    assert!(error.contains("--console-socket"), "{error}");
}

fn only_a_running_container_is_entered() {
    let site = shell("sleep 1000");
    assert!(site.fails(&["exec", &site.id, "/bin/true"]).contains("container does not exist"));
    site.create(&[]);
    site.ok(&["kill", &site.id, "KILL"]);
    site.wait_for("stopped");
    let error = site.fails(&["exec", &site.id, "/bin/true"]);
    assert!(error.contains("cannot exec in a stopped container") && error.contains("container not running"), "{error}");
}

fn a_wrong_user_is_never_root() {
    let site = running();
    for wrong in ["1x", "0x0", "-1", "+0", " 0", "0 ", "root", "", ":", "0:1x", "4294967295", "4294967296"] {
        let done = site.run(&["exec", &format!("--user={wrong}"), &site.id, "/bin/id", "-u"]);
        assert!(done.status == 255 && done.stdout.is_empty(), "{wrong:?}: {done:?}");
    }
    assert_eq!(site.ok(&["exec", "--user", "0", &site.id, "/bin/id", "-u"]), "0\n");
}

fn a_working_directory_is_inside() {
    let site = running();
    // The ways of CVE-2024-21626: a descriptor of the runtime as working directory.
    for fd in 3..12 {
        let done = site.run(&["exec", "--cwd", &format!("/proc/self/fd/{fd}"), &site.id, "/bin/ls"]);
        assert!(done.status == 255 && done.stderr.contains("enter working directory"), "{fd}: {done:?}");
    }
    for (cwd, errno) in [("/absent", "no such file or directory"), ("/bin/busybox", "not a directory")] {
        let error = site.fails(&["exec", "--cwd", cwd, &site.id, "/bin/true"]);
        assert!(error.contains(&format!("enter working directory {cwd}: {errno}")), "{error}");
    }
    assert_eq!(output(&site, &["--cwd", "/../.."], "pwd"), "/\n");
}

fn what_can_t_be_executed_is_said() {
    let site = running();
    let error = site.fails(&["exec", &site.id, "absent"]);
    assert!(error.contains("exec absent (in PATH") && error.contains("executable file not found in $PATH"), "{error}");
}

fn the_container_s_rules_hold() {
    let site = start(shell("sleep 1000").change(|c| {
        c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        ]});
    }));
    let status = output(&site, &[], "cat /proc/self/status");
    let field =
        |name: &str| status.lines().find_map(|l| l.strip_prefix(&format!("{name}:"))).unwrap().trim().to_owned();
    assert_eq!((field("NoNewPrivs").as_str(), field("Seccomp").as_str()), ("1", "2"));
    // CAP_KILL, CAP_NET_BIND_SERVICE, CAP_AUDIT_WRITE
    assert_eq!((field("CapEff").as_str(), field("CapBnd").as_str()), ("0000000020000420", "0000000020000420"));
    assert_eq!((field("CapInh").as_str(), field("CapAmb").as_str()), ("0000000000000000", "0000000000000000"));
    assert_eq!(
        output(&site, &[], "cat /proc/kcore | wc -c; (echo 1 > /proc/sys/kernel/sysrq) 2>/dev/null || echo denied"),
        "0\ndenied\n"
    );
    assert_eq!(
        output(&site, &[], "cat /proc/self/limits")
            .lines()
            .find(|l| l.contains("open files"))
            .unwrap()
            .split_whitespace()
            .nth(3),
        Some("1024")
    );
}

fn users_and_groups() {
    let site = running();
    assert_eq!(output(&site, &["--user", "1000:100"], "id -u; id -g; id -G"), "1000\n100\n100\n");
    assert_eq!(output(&site, &["--user", "1000", "-g", "7", "-g", "8"], "id -u; id -g; id -G"), "1000\n0\n0 7 8\n");
}

fn capabilities_are_added_and_never_inheritable() {
    let site = running();
    let text = output(&site, &["--cap", "CAP_CHOWN", "--cap", "fowner"], "cat /proc/self/status");
    let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(&format!("{name}:"))).unwrap().trim().to_owned();
    assert_eq!((field("CapEff").as_str(), field("CapBnd").as_str()), ("0000000020000429", "0000000020000429"));
    assert_eq!((field("CapInh").as_str(), field("CapAmb").as_str()), ("0000000000000000", "0000000000000000"));
}

/// Otherwise a user's program would have nothing of it.
fn a_capability_that_is_inheritable_is_added_to_the_ambient_ones() {
    let site = start(shell("sleep 1000").change(|c| {
        c["process"]["capabilities"] =
            json!({"bounding": ["CAP_FOWNER"], "permitted": ["CAP_FOWNER"], "inheritable": ["CAP_FOWNER"]});
    }));
    for (caps, effective) in [(&["fowner", "chown"][..], "0000000000000008"), (&["chown"], "0000000000000000")] {
        let flags: Vec<&str> = caps.iter().flat_map(|cap| ["--cap", cap]).chain(["--user", "1000"]).collect();
        let text = output(&site, &flags, "cat /proc/self/status");
        let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(&format!("{name}:"))).unwrap().trim();
        assert_eq!((field("CapEff"), field("CapAmb")), (effective, effective), "{caps:?}");
        assert_eq!(field("CapInh"), "0000000000000008", "{caps:?}");
    }
}

fn groups_are_kept_where_that_is_asked_for() {
    let groups = |value: Option<&str>| {
        let mut site = shell("id -G; sleep 1000").change(|c| {
            c["process"]["user"] = json!({"uid": 0, "gid": 7});
            c["annotations"] = value.map_or(Value::Null, |value| json!({"run.oci.keep_original_groups": value}));
        });
        site.before = ["setpriv", "--groups", "5,6"].iter().map(|word| (*word).to_owned()).collect();
        site.before.push(crate::site::runtime().display().to_string());
        let output_of_first = site.create(&[]);
        site.ok(&["start", &site.id]);
        until("it has said which", || !std::fs::read_to_string(&output_of_first).unwrap().is_empty());
        (std::fs::read_to_string(&output_of_first).unwrap(), output(&site, &[], "id -G"))
    };
    assert_eq!(groups(Some("1")), ("7 5 6\n".to_owned(), "7 5 6\n".to_owned()));
    assert_eq!(groups(None), ("7\n".to_owned(), "7\n".to_owned()));
}

fn a_process_is_read_from_a_file() {
    let site = running();
    let mut process: Value = site.config["process"].clone();
    process["args"] = json!(["/bin/sh", "-c", "id -u; echo $ONLY $KEPT; pwd"]);
    process["env"] = json!(["ONLY=this"]);
    process["user"] = json!({"uid": 12, "gid": 13});
    process["cwd"] = json!("/etc");
    std::fs::write(site.directory.join("process.json"), process.to_string()).unwrap();
    let text = site.ok(&["exec", "--process", "process.json", &site.id]);
    assert_eq!(text, "12\nthis\n/etc\n");
    // Capabilities that it doesn't mention are the container's, and those that it denies are denied.
    let capabilities = |sets: Value| {
        let mut process = process.clone();
        process["args"] = json!(["/bin/grep", "CapBnd", "/proc/self/status"]);
        process["capabilities"] = sets;
        if process["capabilities"].is_null() {
            process.as_object_mut().unwrap().remove("capabilities");
        }
        std::fs::write(site.directory.join("capable.json"), process.to_string()).unwrap();
        site.ok(&["exec", "--process", "capable.json", &site.id])
    };
    assert_eq!(capabilities(json!(null)), output(&site, &[], "grep CapBnd /proc/self/status"));
    assert_eq!(capabilities(json!({})), "CapBnd:\t0000000000000000\n");
    // Root's, where nothing is said; what there isn't is left out.
    process.as_object_mut().unwrap().remove("user");
    process["capabilities"]["bounding"].as_array_mut().unwrap().push(json!("CAP_FLY"));
    std::fs::write(site.directory.join("process.json"), process.to_string()).unwrap();
    let done = site.run(&["exec", "--process", "process.json", &site.id]);
    assert!(done.stdout.starts_with("0\n") && done.stderr.contains("CAP_FLY"), "{done:?}");
    std::fs::write(site.directory.join("process.json"), "{").unwrap();
    assert!(site.fails(&["exec", "--process", "process.json", &site.id]).contains("parse process.json"));
    assert!(
        site.fails(&["exec", "--process", "absent.json", &site.id])
            .contains("read absent.json: no such file or directory (ENOENT)")
    );
}

fn a_user_namespace_is_entered() {
    let site = start(shell("sleep 1000").with_user_namespace());
    site.ok(&["exec", "--detach", "--user", "5:6", "--pid-file", "pid", &site.id, "/bin/sleep", "1000"]);
    let pid = std::fs::read_to_string(site.directory.join("pid")).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Uid:\t1000005\t1000005\t1000005\t1000005"), "{status}");
    assert!(
        status.contains("Gid:\t1000006\t1000006\t1000006\t1000006") && status.contains("\nGroups:\t \n"),
        "{status}"
    );
    assert!(output(&site, &[], "cat /proc/self/uid_map").contains("1000000"));
}

/// As network plugins make it, who know nothing of the container's user namespace.
fn a_network_of_the_machine_s_is_entered_from_a_user_namespace() {
    let mut maker = std::process::Command::new("unshare");
    // With the test, whatever becomes of it.
    let arguments = ["--net", "sh", "-c", "exec >/dev/null 2>&1; read end"];
    let mut maker = maker.args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    let path = format!("/proc/{}/ns/net", maker.id());
    until("it is made", || std::fs::read_link(&path).is_ok_and(|network| network != own));
    let site = start(shell("sleep 1000").with_user_namespace().change(|c| {
        let namespaces = c["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({"type": "network", "path": path}));
        c["mounts"].as_array_mut().unwrap().retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/sys"));
    }));
    let network = site.ok(&["exec", &site.id, "readlink", "/proc/self/ns/net"]);
    let expected = std::fs::read_link(&path).unwrap();
    // Which closes its input.
    let _ = maker.wait();
    assert_eq!(network.trim(), expected.to_str().unwrap());
}

fn a_paused_container_is_not_entered() {
    let site = running();
    site.ok(&["pause", &site.id]);
    assert!(site.fails(&["exec", &site.id, "/bin/true"]).contains("cannot exec in a paused container"));
    // Whoever insists waits until it goes on.
    let mut insistent =
        site.command(&["exec", "--ignore-paused", &site.id, "/bin/sh", "-c", "exit 3"]).spawn().unwrap();
    let count = || std::fs::read_to_string(site.cgroup().join("cgroup.procs")).unwrap().lines().count();
    until("it has come in", || count() > 1);
    assert!(insistent.try_wait().unwrap().is_none());
    site.ok(&["resume", &site.id]);
    assert_eq!(insistent.wait().unwrap().code(), Some(3));
    site.ok(&["exec", &site.id, "/bin/true"]);
}

/// As systemd in a container does: then the container's own cgroup takes no process any more.
fn a_container_in_a_cgroup_that_it_has_made_is_entered() {
    let site = running();
    let own = site.cgroup();
    let inner = own.join("inner");
    let controllers = std::fs::read_to_string(own.join("cgroup.controllers")).unwrap();
    let controller = controllers.split_whitespace().next().expect("a controller of cgroup v2");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(inner.join("cgroup.procs"), site.state()["pid"].to_string()).unwrap();
    std::fs::write(own.join("cgroup.subtree_control"), format!("+{controller}")).unwrap();
    let text = output(&site, &[], "cat /proc/self/cgroup");
    assert!(text.lines().any(|line| line.starts_with("0::") && line.ends_with("/inner")), "{text}");
    let error = site.fails(&["exec", "--cgroup", "/", &site.id, "/bin/true"]);
    assert!(error.contains("adding pid of the new process to cgroups: clone3"), "{error}");
    assert!(error.contains("device or resource busy"), "{error}");
    site.ok(&["exec", "--cgroup", "inner", &site.id, "/bin/true"]);
    for outside in ["..", "/..", "inner/../.."] {
        let error = site.fails(&["exec", "--cgroup", outside, &site.id, "/bin/true"]);
        assert!(error.contains("bad sub cgroup path"), "{outside}: {error}");
    }
    let error = site.fails(&["exec", "--cgroup", "absent", &site.id, "/bin/true"]);
    assert!(error.contains("adding pid of the new process to cgroups: open cgroup absent"), "{error}");
    assert!(error.contains("no such file or directory"), "{error}");
    site.ok(&["delete", "--force", &site.id]);
    site.assert_gone();
}

/// A container without a cgroup namespace may leave its cgroup for another, and whoever likes removes the empty one.
fn a_container_whose_cgroup_is_gone_is_entered_where_it_is() {
    let site = running();
    let own = site.cgroup();
    let other = own.with_file_name(format!("{}-other", site.id));
    let pid = site.state()["pid"].to_string();
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("cgroup.procs"), &pid).unwrap();
    // The control: as long as it is there it is the place.
    assert!(output(&site, &[], "cat /proc/self/cgroup").lines().any(|line| line == "0::/"));
    std::fs::remove_dir(&own).unwrap();
    let text = output(&site, &[], "cat /proc/self/cgroup");
    assert!(text.lines().any(|line| line.starts_with("0::") && line.ends_with("-other")), "{text}");
    for beneath in ["/", "inner"] {
        let done = site.run(&["exec", "--cgroup", beneath, &site.id, "/bin/true"]);
        assert!(done.status != 0 && done.stderr.contains("it is gone"), "{done:?}");
    }
    site.ok(&["delete", "--force", &site.id]);
    until("nobody is left", || std::fs::read_to_string(other.join("cgroup.procs")).unwrap().is_empty());
    std::fs::remove_dir(other).unwrap();
    site.assert_gone();
}

/// An agent that takes the listener and never answers: calls that are handed over don't exist then.
fn the_agent_is_told_of_a_process() {
    let site = shell("sleep 1000");
    let path = site.directory.join("agent");
    let agent = UnixListener::bind(&path).unwrap();
    let told = std::thread::spawn(move || {
        let mut states = Vec::new();
        for _ in 0..2 {
            let mut text = String::new();
            agent.accept().unwrap().0.read_to_string(&mut text).unwrap();
            states.push(serde_json::from_str::<Value>(&text).unwrap());
        }
        states
    });
    let site = start(site.change(|c| {
        c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "meta",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]});
    }));
    let pid = site.state()["pid"].clone();
    assert_eq!(
        output(&site, &[], "mkdir /tmp/new 2>&1; echo ran"),
        "mkdir: can't create directory '/tmp/new': Function not implemented\nran\n"
    );
    let states = told.join().unwrap();
    assert_eq!(
        (&states[0]["pid"], &states[0]["state"]["pid"], &states[0]["state"]["status"]),
        (&pid, &pid, &json!("creating"))
    );
    assert_eq!((&states[1]["state"]["pid"], &states[1]["state"]["status"]), (&pid, &json!("running")));
    assert!(states[1]["pid"] != pid && states[1]["pid"].is_i64() && states[1]["metadata"] == "meta", "{states:?}");
    // An exec without an agent doesn't run without its filter.
    std::fs::remove_file(&path).unwrap();
    assert!(site.fails(&["exec", &site.id, "/bin/true"]).contains("no seccomp agent listens"));
}

/// As with runc, so that callers needn't start it to learn who asks. Unless the filter denies what the runtime itself still has to do.
fn the_agent_is_told_when_the_container_is_created() {
    for early in [true, false] {
        let site = shell("mkdir /tmp/new 2>/dev/null || echo refused");
        let path = site.directory.join("agent");
        let agent = UnixListener::bind(&path).unwrap();
        let site = site.change(|c| {
            let denied = if early { "chroot" } else { "accept4" };
            c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "syscalls": [
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}, {"names": [denied], "action": "SCMP_ACT_ERRNO"}]});
        });
        let output = site.create(&[]);
        let mut connection = agent.accept().unwrap().0;
        connection.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        let mut text = String::new();
        let whole = connection.read_to_string(&mut text);
        assert_eq!(whole.is_ok(), early, "{text}");
        site.ok(&["start", &site.id]);
        // Who reads like this doesn't take the listener, so that calls aren't handed over any more.
        connection.read_to_string(&mut text).unwrap();
        until("it has run", || std::fs::read_to_string(&output).unwrap() == "refused\n");
        let state: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(state["state"]["status"], "creating");
    }
}

/// CVE-2019-5736: who holds the runtime's /proc/PID/exe writes to it when nobody executes it any more. In a container that is in
/// a user namespace that one has no right to, so there the mount isn't read-only, which makes it the control.
fn the_program_can_t_be_overwritten() {
    use rustix::fs::{Mode, OFlags};
    // This test is the machine's root, as the container's is without a user namespace.
    let hold = |pid: &str| rustix::fs::open(format!("/proc/{pid}/exe"), OFlags::PATH, Mode::empty()).unwrap();
    let overwrite = |held: std::os::fd::OwnedFd| {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
        rustix::fs::open(path, OFlags::WRONLY, Mode::empty()).map(drop)
    };
    let attack = |user_namespace: bool| {
        let site = shell("true");
        let site = if user_namespace { site.with_user_namespace() } else { site };
        let copy = site.directory.join("runtime");
        crate::site::copy_program(&crate::site::runtime(), &copy);
        let mut command = site.command(&[]);
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        command = std::process::Command::new(&copy);
        command.args(arguments).args(["create", &site.id]).current_dir(&site.directory);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().unwrap().success());
        let held = hold(&site.state()["pid"].to_string());
        site.ok(&["delete", "--force", &site.id]);
        overwrite(held)
    };
    assert_eq!(attack(true), Err(rustix::io::Errno::ROFS));
    assert_eq!(attack(false), Err(rustix::io::Errno::ROFS));
    // Where it can't protect itself, it says so.
    let mut site = shell("true");
    let without_proc = ["unshare", "-m", "sh", "-c", "umount -l /proc && exec \"$0\" \"$@\""];
    site.before = without_proc.iter().map(|word| (*word).to_owned()).collect();
    site.before.push(crate::site::runtime().display().to_string());
    let mut command = site.command(&["run", &site.id]);
    // Before Linux 6.4 there was no `PR_GET_AUXV`.
    crate::sys::without_prctl(&mut command, 0x4155_5856);
    let done = finish(command);
    assert!(done.status == 0 && done.stderr.contains("own program is on a writable mount"), "{done:?}");
    // Control: a program that doesn't protect itself.
    let site = shell("true");
    let copy = site.directory.join("busybox");
    crate::site::copy_program("/bin/busybox".as_ref(), &copy);
    let mut unprotected = std::process::Command::new(&copy).args(["sleep", "1000"]).spawn().unwrap();
    let held = hold(&unprotected.id().to_string());
    unprotected.kill().unwrap();
    unprotected.wait().unwrap();
    assert_eq!(overwrite(held), Ok(()));
}

/// Its mount is nobody's to change: neither while a process is made in the container, where one with CAP_SYS_ADMIN may look on, nor later.
fn the_program_s_mount_stays_read_only() {
    use rustix::fs::{CWD, Mode, OFlags};
    use rustix::io::Errno;
    use rustix::mount::{OpenTreeFlags, open_tree};
    let site = running();
    site.ok(&["pause", &site.id]);
    // It stops where it is in the container's cgroup, and has not come to its program.
    let mut exec = site.command(&["exec", "--ignore-paused", &site.id, "/bin/true"]).spawn().unwrap();
    let procs = || std::fs::read_to_string(site.cgroup().join("cgroup.procs")).unwrap();
    until("somebody enters", || procs().lines().count() > 1);
    let held = rustix::fs::open(format!("/proc/{}/exe", exec.id()), OFlags::PATH, Mode::empty()).unwrap();
    assert_eq!(crate::sys::make_writable(&held), Err(Errno::INVAL));
    site.ok(&["resume", &site.id]);
    assert!(exec.wait().unwrap().success());
    assert_eq!(crate::sys::make_writable(&held), Err(Errno::INVAL));
    // Control: a mount whose descriptor is open.
    let open =
        open_tree(CWD, "/bin/busybox", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC).unwrap();
    assert_eq!(crate::sys::make_writable(&open), Ok(()));
}

fn descriptors_are_preserved() {
    let site = running();
    let path = site.directory.join("three");
    std::fs::write(&path, "three\n").unwrap();
    let file = std::fs::File::open(path).unwrap();
    let mut command =
        site.command(&["exec", "--preserve-fds", "1", &site.id, "/bin/sh", "-c", "cat <&3; ls /proc/self/fd | wc -l"]);
    crate::sys::pass_descriptors(&mut command, vec![std::os::fd::AsRawFd::as_raw_fd(&file); 3]);
    assert_eq!(finish(command).stdout, "three\n5\n");
}

/// A caller that is confined to some confines nobody else; a cpuset of the container's cgroup would.
fn the_caller_s_processors_are_none_of_the_container_s() {
    const ALLOWED: &str = "grep Cpus_allowed_list: /proc/self/status";
    let confined = |site: Site| {
        let mut site = site;
        site.before = ["taskset", "-c", "0"].iter().map(|word| (*word).to_owned()).collect();
        site.before.push(crate::site::runtime().display().to_string());
        site
    };
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let all = status.lines().find(|line| line.starts_with("Cpus_allowed_list:")).unwrap();
    assert_ne!(all, "Cpus_allowed_list:\t0", "this test needs two processors");
    let site = confined(shell(ALLOWED));
    assert_eq!(site.ok(&["run", &site.id]).trim_end(), all);
    let site = confined(running());
    assert_eq!(output(&site, &[], ALLOWED).trim_end(), all);
    // The control: the caller itself is.
    let mut caller = std::process::Command::new("taskset");
    let told = caller.args(["-c", "0", "grep", "Cpus_allowed_list:", "/proc/self/status"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&told.stdout).trim_end(), "Cpus_allowed_list:\t0");
}

/// Of the container's first process they aren't.
fn processors_are_those_of_an_exec() {
    const ALLOWED: &str =
        "while read key value; do [ $key = Cpus_allowed_list: ] && echo $value; done < /proc/self/status; true";
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let all = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned();
    let first = all.split(['-', ',']).next().unwrap();
    for (affinity, expected) in [
        (json!({"initial": first, "final": first}), first),
        (json!({"final": first}), first),
        // Without a final list, all that the container has.
        (json!({"initial": first}), all.as_str()),
    ] {
        let site = start(shell("sleep 1000").change(|c| c["process"]["execCPUAffinity"] = affinity.clone()));
        assert_eq!(output(&site, &[], ALLOWED).trim_end(), expected, "{affinity}");
        let told = site.run(&["--debug", "exec", &site.id, "/bin/true"]).stderr;
        let mask =
            affinity.get("initial").map(|_| format!("affinity: {:#x}\n", 1_u64 << first.parse::<u32>().unwrap()));
        assert!(mask.as_ref().map_or(!told.contains("affinity"), |mask| told.ends_with(mask)), "{affinity}: {told}");
        let pid = site.state()["pid"].as_i64().unwrap();
        let its = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(its.contains(&format!("Cpus_allowed_list:\t{all}\n")), "{its}");
    }
}

/// By users of the container, too, though the pipes are the caller's.
fn streams_can_be_opened_by_name() {
    for site in [running(), start(shell("sleep 1000").with_user_namespace())] {
        let script = "echo out > /dev/stdout; echo err > /dev/stderr";
        let done = site.command(&["exec", "--user", "1000:1000", &site.id, "/bin/sh", "-c", script]).output().unwrap();
        assert_eq!((done.stdout.as_slice(), done.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    }
}

fn how_dear_it_is_to_the_kernel_is_the_container_s() {
    let site = start(shell("sleep 1000").change(|c| c["process"]["oomScoreAdj"] = json!(700)));
    assert_eq!(output(&site, &[], "cat /proc/self/oom_score_adj"), "700\n");
}

fn the_last_word_on_a_variable_counts() {
    let site = start(
        shell("sleep 1000").change(|c| c["process"]["env"] = json!(["PATH=/nowhere", "A=1", "PATH=/bin", "HOME="])),
    );
    // Found by the second PATH, and shown once.
    let text = output(
        &site,
        &["--env", "A=2", "--env", "A=3"],
        "busybox env | busybox grep -c ^A=; echo $A ${HOME:+set} $PATH",
    );
    assert_eq!(text, "1\n3 set /bin\n");
}
