//! From `run` to `rm`.

use libtest_mimic::Trial;

use super::{IMAGE, Podman};
use crate::command::{finish, on_a_terminal, until};
use crate::trials_of;

pub fn for_everybody(podman: &'static Podman) -> Vec<Trial> {
    trials_of![podman;
        status_and_streams_are_the_program_s,
        a_program_that_cannot_run_has_the_shells_status,
        a_detached_container_lives_until_it_is_removed,
        signals_stop_and_kill,
        programs_are_executed_inside,
        attaching_reaches_the_program,
        terminals_are_of_the_caller_s_size,
        processes_are_listed,
        an_init_reaps_and_forwards,
        health_is_checked,
        a_container_may_have_no_cgroup,
    ]
}

pub fn in_short(podman: &'static Podman) -> Vec<Trial> {
    trials_of![podman;
        status_and_streams_are_the_program_s,
        a_detached_container_lives_until_it_is_removed,
        programs_are_executed_inside,
        attaching_reaches_the_program,
        pausing_freezes,
    ]
}

pub fn for_root(podman: &'static Podman) -> Vec<Trial> {
    trials_of![podman; pausing_freezes, nothing_is_left, hooks_of_podman_run]
}

fn status_and_streams_are_the_program_s(podman: &'static Podman) {
    let script = "cat; echo error >&2; exit 7";
    let run = podman.command(&["run", "--rm", "--interactive", "--network=none", IMAGE, "sh", "-c", script]);
    let done = finish(run, "typed\n");
    assert_eq!((done.status, done.stdout.as_str()), (7, "typed\n"), "{done:?}");
    assert!(done.stderr.ends_with("error\n"), "{done:?}");
    let killed = podman.run(&["run", "--rm", "--init", "--network=none", IMAGE, "sh", "-c", "kill -9 $$"]);
    assert_eq!(killed.status, 137, "{killed:?}");
}

fn a_program_that_cannot_run_has_the_shells_status(podman: &'static Podman) {
    let run = |program: &str| podman.run(&["run", "--rm", "--network=none", IMAGE, program]);
    for (program, status) in [("absent", 127), ("/absent", 127), ("/tmp", 126)] {
        let done = run(program);
        assert_eq!(done.status, status, "{done:?}");
        assert!(done.stderr.starts_with(&format!("Error: garboard-runtime: create: exec {program}")), "{done:?}");
    }
    let container = podman.start(&[], "exec sleep 1000");
    for (program, status) in [("absent", 127), ("/tmp", 126)] {
        let done = podman.run(&["exec", &container.name, program]);
        assert_eq!(done.status, status, "{done:?}");
    }
}

fn a_detached_container_lives_until_it_is_removed(podman: &'static Podman) {
    let container = podman.start(&[], "echo out; echo err >&2; exec sleep 1000");
    let found = container.inspect();
    assert_eq!(found["OCIRuntime"], "garboard-runtime");
    assert_eq!(found["State"]["Status"], "running");
    let pid = found["State"]["Pid"].as_u64().unwrap();
    until("its output is logged", || {
        let logs = container.logs();
        logs["out"].ends_with("out\n") && logs["err"].ends_with("err\n")
    });
    assert!(podman.ok(&["ps", "--format", "{{.Names}}"]).lines().any(|name| name == container.name));
    container.ok(&["restart", "--time=0"]);
    let again = container.inspect()["State"]["Pid"].as_u64().unwrap();
    assert_ne!(again, pid);
    assert!(podman.run(&["rm", &container.name]).stderr.contains("running"));
    container.ok(&["kill"]);
    assert_eq!(container.ok(&["wait"]), "137");
    container.ok(&["start"]);
    assert_eq!(container.state(), "running");
    container.ok(&["rm", "--force", "--time=0"]);
    assert_ne!(podman.run(&["container", "exists", &container.name]).status, 0);
}

fn signals_stop_and_kill(podman: &'static Podman) {
    let script =
        "trap 'echo usr1' USR1; trap 'exit 42' TERM; trap 'exit 43' INT; echo ready; while :; do sleep 0.05; done";
    for (options, status) in [(&[][..], 42), (&["--stop-signal=INT"], 43)] {
        let container = podman.start(options, script);
        until("the traps are set", || container.logs()["out"].contains("ready"));
        container.ok(&["kill", "--signal=USR1"]);
        until("the signal arrived", || container.logs()["out"].contains("usr1"));
        container.ok(&["stop", "--time=200"]);
        assert_eq!(container.inspect()["State"]["ExitCode"], status);
    }
    let deaf = podman.start(&[], "trap '' TERM; while :; do sleep 0.05; done");
    deaf.ok(&["stop", "--time=0"]);
    assert_eq!(deaf.inspect()["State"]["ExitCode"], 137);
}

fn programs_are_executed_inside(podman: &'static Podman) {
    let container = podman.start(&["--env=OF=container", "--hostname=inside"], "exec sleep 1000");
    let print = "echo $PWD $OF $WITH; hostname; id -u; cat";
    let exec = ["exec", "--interactive", "--env=WITH=exec", "--workdir=/tmp", &container.name, "sh", "-c", print];
    let done = finish(podman.command(&exec), "through\n");
    assert_eq!(done.stdout, "/tmp container exec\ninside\n0\nthrough\n", "{done:?}");
    assert_eq!(podman.run(&["exec", &container.name, "sh", "-c", "exit 9"]).status, 9);
    assert!(container.exec(&["--tty"], &["tty"]).starts_with("/dev/pts/"));
    container.exec(&["--detach"], &["sh", "-c", "echo detached > /tmp/file; exec sleep 500"]);
    until("it has written", || podman.run(&["exec", &container.name, "grep", "detached", "/tmp/file"]).status == 0);
    assert!(container.exec(&[], &["ps"]).contains("sleep 500"));
}

fn attaching_reaches_the_program(podman: &'static Podman) {
    let container = podman.start(&["--interactive"], "read line; echo got $line; exit 3");
    let done = finish(podman.command(&["attach", &container.name]), "typed\n");
    assert!(done.stdout.starts_with("got typed\n"), "{done:?}");
    assert_eq!(container.ok(&["wait"]), "3");
}

fn terminals_are_of_the_caller_s_size(podman: &'static Podman) {
    // The caller's size arrives a moment after the program has started.
    let script = "until [ \"$(stty size)\" = '33 99' ]; do sleep 0.05; done; tty; stty size; exit 6";
    let run = ["run", "--rm", "--interactive", "--tty", "--network=none", IMAGE, "sh", "-c", script];
    let (status, text) = on_a_terminal(podman.command(&run));
    assert!(status == 6 && text.contains("/dev/pts/0\n33 99\n"), "{status}: {text:?}");
    let container = podman.start(&[], "exec sleep 1000");
    let exec = ["exec", "--interactive", "--tty", &container.name, "sh", "-c", script];
    let (status, text) = on_a_terminal(podman.command(&exec));
    assert!(status == 6 && text.contains("33 99\n"), "{status}: {text:?}");
}

fn processes_are_listed(podman: &'static Podman) {
    let container = podman.start(&[], "sleep 1000 & exec sleep 2000");
    let listed = || container.ok(&["top"]);
    until("both run", || ["sleep 1000", "sleep 2000"].iter().all(|program| listed().contains(program)));
    let pids = podman.ok(&["top", &container.name, "pid"]);
    assert_eq!(pids.lines().nth(1).map(str::trim), Some("1"), "{pids}");
}

fn an_init_reaps_and_forwards(podman: &'static Podman) {
    let container = podman.start(&["--init"], "trap 'exit 8' TERM; echo ready; while :; do sleep 0.05; done");
    assert!(container.exec(&[], &["cat", "/proc/1/cmdline"]).contains("init"));
    until("the trap is set", || container.logs()["out"].contains("ready"));
    container.ok(&["stop", "--time=200"]);
    assert_eq!(container.inspect()["State"]["ExitCode"], 8);
}

fn health_is_checked(podman: &'static Podman) {
    let check = ["--health-cmd=test -e /tmp/healthy", "--health-interval=disable", "--health-retries=1"];
    let container = podman.start(&check, "exec sleep 1000");
    let verdict = || podman.run(&["healthcheck", "run", &container.name]).status;
    assert_eq!(verdict(), 1);
    assert_eq!(container.inspect()["State"]["Health"]["Status"], "unhealthy");
    container.exec(&[], &["touch", "/tmp/healthy"]);
    assert_eq!(verdict(), 0);
    assert_eq!(container.inspect()["State"]["Health"]["Status"], "healthy");
}

fn a_container_may_have_no_cgroup(podman: &'static Podman) {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find(|line| line.starts_with("0::")).unwrap_or_default();
    let container = podman.start(&["--cgroups=disabled"], "exec sleep 1000");
    let pid = container.inspect()["State"]["Pid"].as_u64().unwrap();
    let of_the_container = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(of_the_container.lines().any(|line| line == own), "{own} {of_the_container}");
    container.ok(&["stop", "--time=0"]);
}

fn pausing_freezes(podman: &'static Podman) {
    let container = podman.start(&[], "while :; do echo tick; sleep 0.02; done");
    container.ok(&["pause"]);
    assert_eq!(container.state(), "paused");
    assert!(podman.run(&["exec", &container.name, "true"]).stderr.contains("state improper"));
    let pid = container.inspect()["State"]["Pid"].as_u64().unwrap();
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    let frozen = std::fs::read_to_string(format!("{}/{path}/cgroup.events", crate::site::CGROUPS)).unwrap();
    assert!(frozen.contains("frozen 1"), "{frozen}");
    container.ok(&["unpause"]);
    assert_eq!(container.state(), "running");
    container.exec(&[], &["true"]);
}

fn nothing_is_left(podman: &'static Podman) {
    let container = podman.start(&[], "exec sleep 1000");
    let id = container.inspect()["Id"].as_str().unwrap().to_owned();
    let cgroup = std::path::Path::new(crate::site::CGROUPS).join("libpod_parent").join(format!("libpod-{id}"));
    let state = std::path::Path::new("/run/garboard-runtime").join(&id);
    assert!(cgroup.is_dir() && state.is_dir(), "{} {}", cgroup.display(), state.display());
    container.ok(&["rm", "--force", "--time=0"]);
    assert!(!cgroup.exists() && !state.exists(), "{} {}", cgroup.display(), state.display());
}

fn hooks_of_podman_run(podman: &'static Podman) {
    let directory = podman.directory();
    let file = directory.join("hooked");
    let script = format!("cat >> {}", file.display());
    let hook = serde_json::json!({
        "version": "1.0.0", "hook": {"path": "/bin/sh", "args": ["sh", "-c", script]},
        "when": {"annotations": {"^hooked$": "^yes$"}}, "stages": ["createRuntime", "poststop"],
    });
    std::fs::write(directory.join("hooks/hook.json"), hook.to_string()).unwrap();
    podman.shell(&["--annotation=hooked=yes"], "true");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(r#""status":"created""#) && text.contains(r#""status":"stopped""#), "{text}");
}
