//! From `create` to `delete`, and what can be seen on the way.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::site::{DEADLINE, Site, copy_program, place, program, shell, until};
use crate::trials;

pub fn tests() -> Vec<Trial> {
    trials![
        a_life_has_its_states,
        run_passes_the_exit_status_on,
        run_leaves_nothing_unless_told_to_keep,
        run_detached_returns_at_once,
        signals_reach_the_program,
        all_processes_can_be_killed,
        who_is_killed_takes_all_along_without_a_pid_namespace,
        a_container_that_ignores_everything_is_deleted_by_force,
        a_frozen_container_that_was_never_started_holds_nobody_up,
        pause_and_resume,
        a_created_container_is_resumed_as_such,
        what_is_frozen_from_above_holds_nobody_up,
        a_caller_may_ignore_the_end_of_children,
        what_was_just_killed_can_be_deleted,
        a_directory_without_a_record_is_no_container,
        containers_and_processes_are_listed,
        the_configuration_counts_as_it_was_at_create,
        a_new_network_is_there_when_the_program_begins,
        a_new_network_may_go_with_clocks_that_are_joined,
        a_cgroup_is_the_user_s_of_a_user_namespace_that_is_joined,
        threads_with_a_cgroup_of_their_own_are_no_processes,
        a_program_lives_as_long_as_its_last_thread,
        who_has_lost_its_first_thread_is_killed_with_the_others,
        the_cgroup_is_where_the_configuration_says,
        a_cgroup_in_use_is_left_alone,
        a_cgroup_that_is_there_is_used,
        a_process_begins_in_a_cgroup_of_the_container_s,
        no_limit_needs_no_controller,
        the_pid_file_names_the_process,
        a_recycled_pid_is_not_taken_for_the_container,
        without_pivot_root,
        without_pivot_root_the_machine_s_proc_is_out_of_reach,
        features_and_version,
        run_forwards_signals,
        an_end_among_those_of_orphans_is_not_lost,
        containers_are_matched_by_a_regular_expression,
        a_configuration_has_the_name_that_is_asked_for,
    ]
}

fn a_life_has_its_states() {
    let site = shell("echo ran; sleep 60").change(|c| c["annotations"] = json!({"org.example.key": "value"}));
    let output = site.create(&[]);
    let state = site.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], site.id.as_str());
    assert_eq!(state["ociVersion"], "1.3.0");
    assert_eq!(state["bundle"], site.directory.canonicalize().unwrap().to_str().unwrap());
    assert_eq!(state["annotations"]["org.example.key"], "value");
    let pid = state["pid"].as_i64().unwrap();
    assert!(site.cgroup().exists());
    assert_eq!(std::fs::read_to_string(site.cgroup().join("cgroup.procs")).unwrap(), format!("{pid}\n"));
    // The program hasn't run.
    assert_eq!(std::fs::read_to_string(&output).unwrap().matches("ran").count(), 0);

    site.ok(&["start", &site.id]);
    assert_eq!((site.state()["status"].as_str().unwrap(), site.state()["pid"].as_i64().unwrap()), ("running", pid));
    until("it has run", || std::fs::read_to_string(&output).unwrap().ends_with("ran\n"));
    site.ok(&["kill", &site.id, "KILL"]);
    site.wait_for("stopped");
    assert_eq!(site.state()["pid"], 0);
    site.ok(&["delete", &site.id]);
    assert!(site.fails(&["state", &site.id]).contains("container does not exist"));
    site.assert_gone();
}

fn run_passes_the_exit_status_on() {
    for (script, status) in [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -15 $$", 143)]
    {
        // The first process of a pid namespace can't signal itself, so a shell in between does.
        let site = shell(&format!("sh -c '{script}'; exit $?"));
        let done = site.run(&["run", &site.id]);
        assert_eq!(done.status, status, "{script}: {done:?}");
        site.assert_gone();
    }
    let site = shell("sleep 60");
    let mut child = site.command(&["run", &site.id]).spawn().unwrap();
    until("it runs", || site.plain_command(&["kill", &site.id, "KILL"]).output().unwrap().status.success());
    assert_eq!(child.wait().unwrap().code(), Some(137));
    site.assert_gone();
}

fn run_leaves_nothing_unless_told_to_keep() {
    let site = shell("echo out; echo err >&2");
    let done = site.run(&["run", &site.id]);
    assert_eq!(done.stdout, "out\n");
    assert!(done.stderr.ends_with("err\n"), "{done:?}");
    site.assert_gone();
    assert_eq!(site.run(&["run", "--keep", &site.id]).status, 0);
    assert_eq!(site.status(), "stopped");
    site.ok(&["delete", &site.id]);
    site.assert_gone();
}

fn run_detached_returns_at_once() {
    let site = shell("sleep 60");
    site.ok(&["run", "--detach", &site.id]);
    assert_eq!(site.status(), "running");
    site.ok(&["kill", &site.id, "SIGKILL"]);
    site.wait_for("stopped");
    site.ok(&["delete", &site.id]);
    site.assert_gone();
}

fn signals_reach_the_program() {
    for (signal, number) in [("TERM", 15), ("SIGUSR1", 10), ("12", 12), ("SIGRTMIN+3", 37)] {
        let site = shell(&format!("trap 'exit 42' {number}; echo ready; while :; do sleep 0.05; done"));
        let output = site.create(&[]);
        site.ok(&["start", &site.id]);
        until("the trap is set", || std::fs::read_to_string(&output).unwrap().contains("ready"));
        site.ok(&["kill", &site.id, "0"]);
        site.ok(&["kill", &site.id, signal]);
        site.wait_for("stopped");
        assert!(site.fails(&["kill", &site.id, "0"]).contains("container not running"));
        assert!(site.fails(&["kill", &site.id, signal]).contains("container not running"));
        site.ok(&["delete", &site.id]);
    }
    let site = shell("sleep 60");
    site.create(&[]);
    for wrong in ["SIGNONE", "65", "-1", "9x", ""] {
        assert!(site.fails(&["kill", "--", &site.id, wrong]).contains("is no signal"), "{wrong}");
    }
    assert_eq!(site.status(), "created");
}

fn all_processes_can_be_killed() {
    let site = shell("sleep 60 & sleep 60 & wait");
    site.create(&[]);
    site.ok(&["start", &site.id]);
    let count = || std::fs::read_to_string(site.cgroup().join("cgroup.procs")).unwrap().lines().count();
    until("all run", || count() == 3);
    // TERM ends the two, and the shell with them, which ignores it as the first process of its namespace.
    site.ok(&["kill", "--all", &site.id, "TERM"]);
    site.wait_for("stopped");
    // There is nobody left to be killed.
    site.ok(&["kill", "--all", &site.id, "KILL"]);
    site.ok(&["kill", "-a", &site.id]);
    assert!(site.fails(&["kill", &site.id, "KILL"]).contains("container not running"));
    site.ok(&["delete", &site.id]);
    site.assert_gone();
}

/// With a pid namespace of its own the kernel would see to that.
fn who_is_killed_takes_all_along_without_a_pid_namespace() {
    let site = shell("sleep 60 & sleep 60 & wait").change(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    });
    site.create(&[]);
    site.ok(&["start", &site.id]);
    let count = || std::fs::read_to_string(site.cgroup().join("cgroup.procs")).unwrap().lines().count();
    until("all run", || count() == 3);
    // Another signal is the first one's alone.
    site.ok(&["kill", &site.id, "0"]);
    assert_eq!(count(), 3);
    site.ok(&["kill", &site.id, "KILL"]);
    until("all are gone", || count() == 0);
    site.ok(&["delete", &site.id]);
    site.assert_gone();
}

/// Its gate has room for so many who look at it, and it looks after none of them.
fn a_frozen_container_that_was_never_started_holds_nobody_up() {
    let site = shell("true");
    site.create(&[]);
    site.ok(&["pause", &site.id]);
    for _ in 0..20 {
        site.ok(&["state", &site.id]);
    }
    assert!(site.ok(&["list"]).contains(&site.id));
    site.ok(&["kill", &site.id, "KILL"]);
    site.ok(&["delete", "--force", &site.id]);
    site.assert_gone();
}

fn a_container_that_ignores_everything_is_deleted_by_force() {
    let site = shell("trap '' TERM INT HUP; sleep 60 & while :; do sleep 60; done");
    site.create(&[]);
    site.ok(&["start", &site.id]);
    let error = site.fails(&["delete", &site.id]);
    assert!(error.contains("it is running") && error.contains("--force"), "{error}");
    assert_eq!(site.status(), "running");
    site.ok(&["delete", "--force", &site.id]);
    site.assert_gone();
    // There is nothing to do any more.
    site.ok(&["delete", "--force", &site.id]);
    assert!(site.fails(&["delete", &site.id]).contains("container does not exist"));
}

fn pause_and_resume() {
    let site = shell("while :; do echo x >> /tmp/count; sleep 0.01; done").change(|c| {
        c["mounts"].as_array_mut().unwrap().push(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}));
    });
    site.create(&[]);
    site.ok(&["start", &site.id]);
    assert!(site.fails(&["resume", &site.id]).contains("container not paused: it is running"));
    site.ok(&["pause", &site.id]);
    assert_eq!(site.status(), "paused");
    assert!(site.fails(&["pause", &site.id]).contains("it is paused"));
    let pid = site.state()["pid"].as_i64().unwrap();
    let count = || std::fs::metadata(format!("/proc/{pid}/root/tmp/count")).map_or(0, |m| m.len());
    let before = count();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(count(), before);
    site.ok(&["resume", &site.id]);
    assert_eq!(site.status(), "running");
    until("it goes on", || count() > before);
    // A paused container can be deleted by force, too.
    site.ok(&["pause", &site.id]);
    site.ok(&["delete", "--force", &site.id]);
    site.assert_gone();
}

fn containers_and_processes_are_listed() {
    let site = shell("sleep 60 & wait");
    assert_eq!(site.ok(&["list"]).split_whitespace().next(), Some("ID"));
    assert_eq!(site.ok(&["list", "--format", "json"]), "null\n");
    assert_eq!(site.ok(&["list", "-q"]), "");
    site.create(&[]);
    site.ok(&["start", &site.id]);
    let list: Value = serde_json::from_str(&site.ok(&["list", "-f", "json"])).unwrap();
    let pid = site.state()["pid"].as_i64().unwrap();
    assert_eq!(list[0]["id"], site.id.as_str());
    assert_eq!((list[0]["pid"].as_i64(), list[0]["status"].as_str()), (Some(pid), Some("running")));
    assert_eq!(list[0]["owner"], "root");
    let table = site.ok(&["list"]);
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((row[0], row[1], row[2]), (site.id.as_str(), pid.to_string().as_str(), "running"));
    assert_eq!(site.ok(&["list", "-q"]), format!("{}\n", site.id));

    let pids = || serde_json::from_str::<Vec<i64>>(&site.ok(&["ps", "--format", "json", &site.id])).unwrap();
    until("both run", || pids().len() == 2);
    assert!(pids().contains(&pid));
    let table = site.ok(&["ps", &site.id]);
    assert!(table.starts_with("UID") && table.contains("sleep 60") && table.lines().count() == 3, "{table}");
    let table = site.ok(&["ps", &site.id, "-o", "pid,comm", "-e"]);
    assert_eq!(table.lines().count(), 3, "{table}");
}

/// A threaded cgroup doesn't tell whose threads it has: the one above it does (cgroup-v2.rst, "Threads").
fn threads_with_a_cgroup_of_their_own_are_no_processes() {
    let site = shell("trap 'echo told; exit 7' TERM; while :; do sleep 0.1; done");
    let output = site.create(&[]);
    site.ok(&["start", &site.id]);
    let threaded = site.cgroup().join("threaded");
    let pid = site.state()["pid"].to_string();
    std::fs::create_dir(&threaded).unwrap();
    std::fs::write(threaded.join("cgroup.type"), "threaded").unwrap();
    std::fs::write(threaded.join("cgroup.threads"), &pid).unwrap();
    // The control: the container's own cgroup couldn't be asked alone.
    assert!(std::fs::read_to_string(threaded.join("cgroup.procs")).is_err());
    let pids: Vec<u64> = serde_json::from_str(&site.ok(&["ps", "--format", "json", &site.id])).unwrap();
    assert_eq!(pids.iter().filter(|found| found.to_string() == pid).count(), 1, "{pids:?}");
    site.ok(&["kill", "--all", &site.id, "TERM"]);
    site.wait_for("stopped");
    assert!(std::fs::read_to_string(output).unwrap().contains("told"));
    site.ok(&["delete", &site.id]);
    site.assert_gone();
}

/// The argument by which this executable is the program [`go_on_without_the_first_thread`].
pub const WITHOUT_FIRST_THREAD: &str = "--without-first-thread";

pub fn go_on_without_the_first_thread() -> ! {
    std::thread::spawn(|| {
        println!("threads run");
        std::thread::sleep(2 * DEADLINE);
        std::process::exit(0);
    });
    crate::sys::end_thread();
}

/// A bundle with this executable as `/threads`, with its libraries, and a shell that runs `script`.
fn threads(script: &str) -> Site {
    let site = shell(script);
    let root = site.directory.join("threads");
    for directory in ["bin", "lib", "lib64", "usr", "proc", "sys", "dev", "run"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    copy_program(&place().rootfs().join("bin/busybox"), &root.join("bin/sh"));
    copy_program(&std::env::current_exe().unwrap(), &root.join("threads"));
    site.change(|c| {
        c["root"]["path"] = json!(root);
        for directory in ["/lib", "/lib64", "/usr"] {
            let mount = json!({"destination": directory, "source": directory, "options": ["rbind", "ro"]});
            c["mounts"].as_array_mut().unwrap().push(mount);
        }
    })
}

fn state_of(pid: &str) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}

fn a_program_lives_as_long_as_its_last_thread() {
    for own_pids in [true, false] {
        let site = threads(&format!("exec /threads {WITHOUT_FIRST_THREAD}")).change(|c| {
            let namespaces = c["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| own_pids || namespace["type"] != "pid");
        });
        site.create(&[]);
        site.ok(&["start", &site.id]);
        let pid = site.state()["pid"].to_string();
        until("its first thread has ended", || state_of(&pid) == 'Z');
        assert_eq!(site.status(), "running");
        assert!(site.fails(&["delete", &site.id]).contains("not stopped"));
        site.ok(&["kill", &site.id, "0"]);
        site.ok(&["delete", "--force", &site.id]);
        site.assert_gone();
    }
}

fn who_has_lost_its_first_thread_is_killed_with_the_others() {
    let site = threads(&format!("/threads {WITHOUT_FIRST_THREAD} & wait")).change(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    });
    site.create(&[]);
    site.ok(&["start", &site.id]);
    let pids = || std::fs::read_to_string(site.cgroup().join("cgroup.procs")).unwrap_or_default();
    until("the first thread of one has ended", || pids().lines().any(|pid| state_of(pid) == 'Z'));
    site.ok(&["kill", &site.id, "KILL"]);
    until("all are gone", || pids().is_empty());
    site.ok(&["delete", &site.id]);
    site.assert_gone();
}

fn the_configuration_counts_as_it_was_at_create() {
    let mut site = shell("echo first");
    let output = site.create(&[]);
    site.config["process"]["args"] = json!(["/bin/echo", "second"]);
    site.config["hooks"] = json!({"poststop": [{"path": "/absent"}]});
    site.ok(&["start", &site.id]);
    site.wait_for("stopped");
    let done = site.run(&["delete", &site.id]);
    assert_eq!((done.status, done.stderr.as_str()), (0, ""));
    assert!(std::fs::read_to_string(&output).unwrap().ends_with("first\n"));
}

/// However it was made: beside the rest where nothing has to be done to it first, which the two differ in.
fn a_new_network_is_there_when_the_program_begins() {
    let site = shell("readlink /proc/self/ns/net; cat /sys/class/net/lo/flags; ls /sys/class/net; sleep 60");
    let mapped = shell("readlink /proc/self/ns/net; cat /sys/class/net/lo/flags; ls /sys/class/net; sleep 60");
    for site in [site, mapped.with_user_namespace()] {
        let output = site.create(&[]);
        let pid = site.state()["pid"].as_i64().unwrap();
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        let network = namespace(&pid.to_string());
        assert_ne!(network, namespace("self"));
        // Nobody but the container's process is left of those that made it.
        assert_eq!(super::faults::processes_of(&site.id), 1);
        site.ok(&["start", &site.id]);
        // IFF_UP and IFF_LOOPBACK.
        let expected = format!("{}\n0x9\nlo\n", network.display());
        until("all is shown", || std::fs::read_to_string(&output).unwrap() == expected);
        site.ok(&["delete", "--force", &site.id]);
    }
}

/// Which takes a launcher that shares its memory with nobody.
fn a_new_network_may_go_with_clocks_that_are_joined() {
    let first = shell("sleep 1000").change(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        c["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000}});
    });
    first.create(&[]);
    let namespace = format!("/proc/{}/ns/time", first.state()["pid"]);
    let second = shell("cat /sys/class/net/lo/flags; cut -d. -f1 /proc/uptime; sleep 60").change(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time", "path": namespace}));
    });
    let output = second.create(&[]);
    second.ok(&["start", &second.id]);
    until("all is shown", || std::fs::read_to_string(&output).unwrap().lines().count() == 2);
    let shown = std::fs::read_to_string(&output).unwrap();
    let uptime: u64 = shown.lines().nth(1).unwrap().parse().unwrap();
    assert!(shown.starts_with("0x9\n") && uptime >= 1_000_000, "{shown}");
}

/// Its maps are the namespace's, whatever the configuration says of them.
fn a_cgroup_is_the_user_s_of_a_user_namespace_that_is_joined() {
    let first = shell("sleep 1000").with_user_namespace();
    first.create(&[]);
    let namespace = format!("/proc/{}/ns/user", first.state()["pid"]);
    for uid in [0, 7] {
        let second = shell("busybox stat -c %u /sys/fs/cgroup/cgroup.procs").change(|c| {
            c["process"]["user"] = json!({"uid": uid, "gid": uid});
            c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user", "path": namespace}));
            c["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/sys/fs/cgroup");
            c["mounts"].as_array_mut().unwrap().push(json!({
                "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "rw"],
            }));
        });
        assert_eq!(second.ok(&["run", &second.id]), format!("{uid}\n"));
    }
}

fn the_cgroup_is_where_the_configuration_says() {
    let site = shell("sleep 60");
    let parent = format!("garboard-cli-parent-{}", std::process::id());
    let site = site.change(|c| c["linux"]["cgroupsPath"] = json!(format!("/{parent}/other/../deeper/own")));
    site.create(&[]);
    let path = std::path::Path::new("/sys/fs/cgroup").join(&parent);
    let pid = site.state()["pid"].as_i64().unwrap();
    assert_eq!(std::fs::read_to_string(path.join("deeper/own/cgroup.procs")).unwrap(), format!("{pid}\n"));
    site.ok(&["delete", "--force", &site.id]);
    // What is above may be others' as well.
    assert!(path.join("deeper").exists() && !path.join("deeper/own").exists());
    std::fs::remove_dir(path.join("deeper")).unwrap();
    std::fs::remove_dir(path).unwrap();
    for wrong in ["/", "/a/.."] {
        let site = shell("true").change(|c| c["linux"]["cgroupsPath"] = json!(wrong));
        assert!(site.fails(&["create", &site.id]).contains("linux.cgroupsPath"), "{wrong}");
        site.assert_gone();
    }
}

fn a_cgroup_in_use_is_left_alone() {
    let first = shell("sleep 60");
    first.create(&[]);
    first.ok(&["start", &first.id]);
    let second = shell("true").change(|c| c["linux"]["cgroupsPath"] = json!(first.id));
    for command in ["create", "run"] {
        let error = second.fails(&[command, &second.id]);
        assert!(error.contains("container's cgroup is not empty: processes of something else live in it"), "{error}");
        second.assert_gone();
    }
    assert_eq!(first.status(), "running");
}

/// With the limits and the owner that an administrator gave it; as with runc it goes with the container.
/// By crun's annotation: what limits it is above, and what it makes beside its own is its business.
fn a_process_begins_in_a_cgroup_of_the_container_s() {
    let script =
        "cat /proc/self/cgroup; mkdir /sys/fs/cgroup/payload/more /sys/fs/cgroup/other; touch /dev/done; sleep 60";
    let site = shell(script).with_user_namespace().change(|c| {
        c["annotations"] = json!({"run.oci.delegate-cgroup": "/payload/init"});
        c["linux"]["resources"]["unified"] = json!({"cgroup.max.depth": "3"});
        let mounts = c["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        mounts.push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]}));
    });
    let output = site.create(&[]);
    let read = |file: &str| std::fs::read_to_string(site.cgroup().join(file)).unwrap();
    // Before it begins, and with what limits it out of its way.
    assert_eq!((read("cgroup.procs").as_str(), read("payload/init/cgroup.procs").lines().count()), ("", 1));
    assert_eq!((read("cgroup.max.depth").as_str(), read("payload/cgroup.max.depth").as_str()), ("3\n", "max\n"));
    site.ok(&["start", &site.id]);
    until("it is done", || site.run(&["exec", &site.id, "/bin/ls", "/dev/done"]).status == 0);
    let said = std::fs::read_to_string(&output).unwrap();
    assert!(said.ends_with("0::/payload/init\n"), "{said}");
    assert!(site.cgroup().join("payload/more").exists() && site.cgroup().join("other").exists());
    let pid = site.state()["pid"].to_string();
    assert!(site.ok(&["ps", "--format", "json", &site.id]).contains(&pid));
    site.ok(&["delete", "--force", &site.id]);
    site.assert_gone();
    // With a namespace of the machine's it sees where it is; `run` doesn't wait for a gate.
    let site = shell("cat /proc/self/cgroup").change(|c| {
        c["annotations"] = json!({"run.oci.delegate-cgroup": "init"});
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "cgroup");
    });
    assert!(site.ok(&["run", &site.id]).ends_with(&format!("0::/{}/init\n", site.id)));
    site.assert_gone();
    let site = site.change(|c| c["annotations"] = json!({"run.oci.delegate-cgroup": "../up"}));
    assert!(site.fails(&["run", &site.id]).contains("annotations[run.oci.delegate-cgroup]: \"../up\" isn't a path"));
    site.assert_gone();
}

fn a_cgroup_that_is_there_is_used() {
    use std::os::unix::fs::MetadataExt;

    let site = shell("sleep 60");
    let site = site.change(|c| c["linux"]["resources"]["unified"] = json!({"cgroup.max.depth": "3"}));
    let read = |file: &str| std::fs::read_to_string(site.cgroup().join(file)).unwrap();
    std::fs::create_dir(site.cgroup()).unwrap();
    std::fs::write(site.cgroup().join("cgroup.max.descendants"), "7").unwrap();
    std::os::unix::fs::chown(site.cgroup(), Some(1000), None).unwrap();
    // Nothing would ever start in it.
    std::fs::write(site.cgroup().join("cgroup.freeze"), "1").unwrap();
    assert!(site.fails(&["create", &site.id]).contains("container's cgroup unexpectedly frozen"));
    std::fs::write(site.cgroup().join("cgroup.freeze"), "0").unwrap();
    site.create(&[]);
    assert_eq!((read("cgroup.max.descendants").as_str(), read("cgroup.max.depth").as_str()), ("7\n", "3\n"));
    assert_eq!(std::fs::metadata(site.cgroup()).unwrap().uid(), 1000);
    site.ok(&["delete", "--force", &site.id]);
    site.assert_gone();
    // One with others beneath it takes no processes: it is made anew.
    let site = shell("true");
    std::fs::create_dir_all(site.cgroup().join("left")).unwrap();
    std::fs::write(site.cgroup().join("cgroup.max.descendants"), "7").unwrap();
    site.ok(&["run", &site.id]);
    site.assert_gone();
}

fn no_limit_needs_no_controller() {
    let limited =
        |value: &str| shell("true").change(|c| c["linux"]["resources"]["unified"] = json!({"absent.max": value}));
    let site = limited("max");
    assert_eq!(site.run(&["run", &site.id]).status, 0);
    let site = limited("1");
    assert!(site.fails(&["run", &site.id]).contains(
        "set cgroup absent.max=1: the requested cgroup controller `absent` is not available: operation not supported"
    ));
    site.assert_gone();
}

fn the_pid_file_names_the_process() {
    let site = shell("sleep 60");
    let file = site.directory.join("pid");
    site.create(&["--pid-file", file.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(file).unwrap(), site.state()["pid"].to_string());
}

fn a_recycled_pid_is_not_taken_for_the_container() {
    let site = shell("sleep 60");
    site.create(&[]);
    // As if the container had ended and its id were this innocent process's now.
    // Start times are told in hundredths of a second; ids don't come round that fast.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let mut innocent = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let file = site.directory.join("state").join(&site.id).join("state.json");
    let mut record: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let own = record["pid"].clone();
    record["pid"] = json!(innocent.id());
    std::fs::write(&file, record.to_string()).unwrap();
    assert_eq!(site.status(), "stopped");
    assert!(site.fails(&["kill", &site.id, "KILL"]).contains("container not running"));
    site.ok(&["delete", &site.id]);
    assert!(innocent.try_wait().unwrap().is_none(), "the innocent process was killed");
    innocent.kill().unwrap();
    innocent.wait().unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{own}/exe")).exists());
    site.assert_gone();
}

fn without_pivot_root() {
    let site = program(&["/bin/sh", "-c", "ls -di / /..; ls /; cat /proc/self/mountinfo | wc -l"]);
    let pivoted = site.ok(&["run", &site.id]);
    let moved = site.ok(&["run", "--no-pivot", &site.id]);
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&pivoted)[0], words(&pivoted)[2]);
    assert_eq!(words(&moved), words(&pivoted));
}

/// The kernel lets a user namespace mount what is to be seen in full in its mount namespace, wherever that is.
fn without_pivot_root_the_machine_s_proc_is_out_of_reach() {
    let nested = "busybox unshare -U -r -m -p -f busybox mount -t proc proc /tmp && echo mounted || echo refused";
    let ordinary =
        || program(&["/bin/sh", "-c", nested]).change(|c| c["process"]["user"] = json!({"uid": 1000, "gid": 1000}));
    let site = ordinary();
    for arguments in [&["run"][..], &["run", "--no-pivot"]] {
        let done = site.run(&[arguments, &[&site.id]].concat());
        assert_eq!(done.stdout.trim(), "refused", "{arguments:?}: {done:?}");
    }
    let unmasked = ordinary().change(|c| {
        c["linux"]["maskedPaths"] = json!([]);
        c["linux"]["readonlyPaths"] = json!([]);
    });
    let done = unmasked.run(&["run", "--no-pivot", &unmasked.id]);
    assert_eq!(done.stdout.trim(), "mounted", "the control: {done:?}");
}

fn features_and_version() {
    let site = shell("true");
    let features: Value = serde_json::from_str(&site.ok(&["features"])).unwrap();
    assert_eq!(
        (features["ociVersionMin"].as_str(), features["ociVersionMax"].as_str()),
        (Some("1.0.0"), Some("1.3.0"))
    );
    assert_eq!(features["hooks"].as_array().unwrap().len(), 6);
    assert_eq!(features["linux"]["cgroup"]["v2"], true);
    let version = site.ok(&["--version"]);
    assert!(version.starts_with("garboard-runtime version ") && version.contains("\nspec: 1.3.0\n"), "{version}");
    assert!(!version.contains("commit:"), "nobody has said which: {version}");
}

fn run_forwards_signals() {
    let site = shell("trap 'exit 43' TERM; echo ready; while :; do sleep 0.05; done");
    let output = site.directory.join("output");
    let mut command = site.command(&["run", &site.id]);
    let mut child = command.stdout(std::fs::File::create(&output).unwrap()).spawn().unwrap();
    until("the trap is set", || std::fs::read_to_string(&output).unwrap().contains("ready"));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(43));
    site.assert_gone();
}

fn an_end_among_those_of_orphans_is_not_lost() {
    // Without a pid namespace what the program leaves behind is the runtime's to reap, and here it all ends at once.
    let site = shell("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do (true &); done; exit 7").change(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    });
    for _ in 0..30 {
        let done = site.run(&["run", &site.id]);
        assert_eq!(done.status, 7, "{done:?}");
    }
}

fn containers_are_matched_by_a_regular_expression() {
    let site = shell("trap 'exit 9' TERM; while :; do sleep 0.05; done");
    let other = |name: &str| format!("{}-{name}", site.id);
    for name in ["web1", "web2", "db"] {
        site.ok(&["run", "--detach", &other(name)]);
    }
    let status = |name: &str| site.ok(&["state", &other(name)]).contains("\"running\"");
    // All that match, and no others.
    site.ok(&["kill", "--all", "--regex", &format!("^{}-web[0-9]$", site.id), "KILL"]);
    until("both have ended", || !status("web1") && !status("web2"));
    assert!(status("db"));
    // Those that can be deleted are, whatever becomes of the rest.
    let done = site.run(&["delete", "-r", &site.id]);
    assert!(
        done.status == 1
            && done
                .stderr
                .contains(&format!("cannot delete container {} that is not stopped: it is running", other("db"))),
        "{done:?}"
    );
    assert_eq!(site.ok(&["list", "--quiet"]), format!("{}\n", other("db")));
    // None is as good as some. What isn't an expression is an error, and without the flag it is a name.
    site.ok(&["kill", "-r", "^absent$", "KILL"]);
    assert!(site.fails(&["delete", "--regex", "("]).contains("is no regular expression"));
    assert!(site.fails(&["delete", ".*"]).contains("invalid container ID"));
    site.ok(&["delete", "--force", "--regex", ".*"]);
    assert_eq!(site.ok(&["list", "--quiet"]), "");
}

fn a_configuration_has_the_name_that_is_asked_for() {
    let site = shell("true");
    site.ok(&["spec", "--file", "other.json"]);
    assert!(site.directory.join("other.json").exists());
    assert!(site.fails(&["spec", "-f", "other.json"]).contains("other.json"));
    site.ok(&["spec", "-b", site.directory.to_str().unwrap(), "-f", "third.json"]);
    assert!(site.directory.join("third.json").exists());
    for version in ["-v", "-V"] {
        assert_eq!(site.ok(&[version]), site.ok(&["--version"]));
    }
}

fn a_created_container_is_resumed_as_such() {
    let site = shell("sleep 60");
    site.create(&[]);
    site.ok(&["pause", &site.id]);
    assert_eq!(site.state()["status"], "paused");
    // Its process wouldn't come to its gate.
    let refused = site.fails(&["start", &site.id]);
    assert!(refused.contains("it is paused, not created"), "{refused}");
    assert!(site.fails(&["exec", &site.id, "/bin/true"]).contains("paused"));
    site.ok(&["resume", &site.id]);
    assert_eq!(site.state()["status"], "created");
    site.ok(&["start", &site.id]);
    assert_eq!(site.state()["status"], "running");
    site.ok(&["delete", "--force", &site.id]);
}

fn a_caller_may_ignore_the_end_of_children() {
    let mut site = shell("exit 3").change(|c| {
        for kind in ["createRuntime", "createContainer"] {
            c["hooks"][kind] = json!([{"path": "/bin/sh", "args": ["sh", "-c", "/bin/true; /bin/true"]}]);
        }
    });
    site.before = ["sh", "-c", "trap '' CHLD; exec \"$@\"", "sh"].iter().map(|word| (*word).to_owned()).collect();
    site.before.push(crate::site::runtime().display().to_string());
    let done = site.run(&["run", &site.id]);
    assert_eq!(done.status, 3, "{done:?}");
    site.assert_gone();
}

fn what_was_just_killed_can_be_deleted() {
    let site = shell("sleep 60");
    for _ in 0..10 {
        site.create(&[]);
        site.ok(&["start", &site.id]);
        assert!(site.fails(&["delete", &site.id]).contains("kill it first"), "control: it is waited for, not killed");
        site.ok(&["kill", &site.id, "KILL"]);
        site.ok(&["delete", &site.id]);
    }
}

fn a_directory_without_a_record_is_no_container() {
    let site = shell("sleep 60");
    site.create(&[]);
    let root = site.directory.join("state/junk");
    std::fs::create_dir(&root).unwrap();
    assert!(site.fails(&["state", "junk"]).contains("container does not exist: junk"));
    let done = site.run(&["list"]);
    assert!(done.stdout.contains(&site.id) && !done.stdout.contains("junk"), "{done:?}");
    // It can be removed all the same.
    site.ok(&["delete", "--force", "junk"]);
    assert!(!root.exists());
    site.ok(&["delete", "--force", &site.id]);
}

fn what_is_frozen_from_above_holds_nobody_up() {
    let parent = format!("garboard-cli-frozen-{}", std::process::id());
    let site = shell("sleep 60").change(|c| c["linux"]["cgroupsPath"] = json!(format!("/{parent}/own")));
    site.create(&[]);
    let path = std::path::Path::new("/sys/fs/cgroup").join(&parent);
    std::fs::write(path.join("cgroup.freeze"), "1").unwrap();
    site.wait_for("paused");
    let error = site.fails(&["resume", &site.id]);
    assert!(error.contains("it still is frozen: a cgroup above its own must be"), "{error}");
    std::fs::write(path.join("cgroup.freeze"), "0").unwrap();
    site.wait_for("created");
    site.ok(&["delete", "--force", &site.id]);
    std::fs::remove_dir(path).unwrap();
}
