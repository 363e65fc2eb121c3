//! Hooks of all six kinds: when, where, with what, and what their failure means.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::site::{Site, shell, until, wait};
use crate::trials;

pub fn tests() -> Vec<Trial> {
    trials![
        hooks_run_in_order_with_the_state,
        the_last_hooks_of_a_container_are_as_its_program,
        the_last_hooks_run_under_the_program_s_filter,
        hooks_before_the_container_find_themselves_in_the_bundle,
        hooks_run_on_the_caller_s_processors,
        hooks_write_where_annotations_say,
        hooks_run_where_the_specification_says,
        a_hook_that_cannot_be_executed_says_why,
        a_limit_on_files_is_none_on_the_state,
        a_failing_hook_of_create_undoes_it,
        a_failing_hook_of_create_gives_interfaces_back,
        a_failing_hook_of_start_destroys_the_container,
        a_failing_poststop_hook_is_a_warning,
        a_hook_past_its_timeout_is_killed,
        run_has_hooks_as_well,
        a_hook_may_look_at_its_container,
        a_container_in_the_making_is_not_killed,
        who_starts_with_a_hook_that_hangs_holds_no_deletion_up,
        who_creates_with_a_hook_that_hangs_holds_no_deletion_up,
        who_is_killed_in_its_last_hooks_leaves_them_to_their_work,
        who_changes_a_container_is_not_killed_by_its_deletion,
        hooks_find_the_root_where_the_configuration_says,
    ]
}

const KINDS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook that runs a script of the machine's shell.
fn hook(script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin", "HOOK=yes"]})
}

/// Each kind of hook appends its name and the state to a file of the machine. `startContainer` runs in the container, where
/// only /tmp is the machine's.
fn recorded(site: Site) -> Site {
    let log = site.directory.join("log");
    std::fs::create_dir(&log).unwrap();
    site.change(|c| {
        c["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/tmp", "type": "bind", "source": log, "options": ["bind", "rw"],
        }));
        for kind in KINDS {
            let directory = if kind == "startContainer" { "/tmp".to_owned() } else { log.display().to_string() };
            let script = |n: u32| hook(&format!("(echo {kind} {n} $HOOK; cat; echo) >> {directory}/all"));
            c["hooks"][kind] = json!([script(1), script(2)]);
        }
    })
}

/// The lines that the hooks have written: `(kind, number, state)`.
fn log(site: &Site) -> Vec<(String, String, Value)> {
    let text = std::fs::read_to_string(site.directory.join("log/all")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines
        .chunks(2)
        .map(|pair| {
            let words: Vec<&str> = pair[0].split(' ').collect();
            assert_eq!(words[2], "yes", "the hook's own environment");
            (words[0].to_owned(), words[1].to_owned(), serde_json::from_str(pair[1]).unwrap())
        })
        .collect()
}

fn kinds(site: &Site) -> Vec<String> {
    log(site).iter().map(|(kind, n, _)| format!("{kind}{n}")).collect()
}

fn hooks_run_in_order_with_the_state() {
    let site = recorded(shell("sleep 60"));
    site.create(&[]);
    let created =
        ["prestart1", "prestart2", "createRuntime1", "createRuntime2", "createContainer1", "createContainer2"];
    assert_eq!(kinds(&site), created);
    let pid = site.state()["pid"].clone();
    for (kind, _, state) in log(&site) {
        assert_eq!(
            (state["status"].as_str(), state["id"].as_str()),
            (Some("created"), Some(site.id.as_str())),
            "{kind}"
        );
        // What the hook's own pid namespace calls it.
        assert_eq!(state["pid"], if kind == "createContainer" { json!(1) } else { pid.clone() }, "{kind}");
        assert_eq!(state["bundle"], site.directory.canonicalize().unwrap().to_str().unwrap());
    }
    site.ok(&["start", &site.id]);
    let started = ["startContainer1", "startContainer2", "poststart1", "poststart2"];
    assert_eq!(kinds(&site)[6..], started);
    assert_eq!((log(&site)[6].2["status"].as_str(), log(&site)[6].2["pid"].as_i64()), (Some("created"), Some(1)));
    assert_eq!((log(&site)[8].2["status"].as_str(), &log(&site)[8].2["pid"]), (Some("running"), &pid));
    site.ok(&["kill", &site.id, "KILL"]);
    site.wait_for("stopped");
    site.ok(&["delete", &site.id]);
    assert_eq!(kinds(&site)[10..], ["poststop1", "poststop2"]);
    assert_eq!(log(&site)[10].2["status"], "stopped");
    site.assert_gone();
}

fn hooks_run_where_the_specification_says() {
    let site = shell("sleep 60");
    let log = site.directory.join("log");
    std::fs::create_dir(&log).unwrap();
    let own = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    let site = site.change(|c| {
        c["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/tmp", "type": "bind", "source": log, "options": ["bind", "rw"],
        }));
        let script = |name: &str, directory: &str| {
            hook(&format!("for n in mnt net uts; do readlink /proc/self/ns/$n; done > {directory}/{name}; ls / > {directory}/{name}.root"))
        };
        for kind in KINDS {
            let directory = if kind == "startContainer" { "/tmp".to_owned() } else { log.display().to_string() };
            c["hooks"][kind] = json!([script(kind, &directory)]);
        }
    });
    site.create(&[]);
    site.ok(&["start", &site.id]);
    let pid = site.state()["pid"].as_i64().unwrap();
    let inside = |kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string();
    let of = |f: &dyn Fn(&str) -> String| ["mnt", "net", "uts"].map(f).join("\n") + "\n";
    let (outside, inside) = (of(&own), of(&inside));
    assert_ne!(outside, inside);
    site.ok(&["delete", "--force", &site.id]);
    for kind in KINDS {
        let seen = std::fs::read_to_string(log.join(kind)).unwrap();
        let container = matches!(kind, "createContainer" | "startContainer");
        assert_eq!(seen, if container { inside.clone() } else { outside.clone() }, "{kind}");
        // The root is changed between createContainer and startContainer.
        let root = std::fs::read_to_string(log.join(format!("{kind}.root"))).unwrap();
        assert_eq!(root.contains("boot"), kind != "startContainer", "{kind}: {root}");
    }
}

/// They are the container's programs, with its files: they may do no more, and know no more of the machine.
fn the_last_hooks_of_a_container_are_as_its_program() {
    use std::os::unix::fs::PermissionsExt;

    let site = shell("true");
    let log = site.directory.join("log");
    std::fs::create_dir(&log).unwrap();
    std::fs::set_permissions(&log, std::fs::Permissions::from_mode(0o777)).unwrap();
    let site = site.change(|c| {
        c["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/tmp", "type": "bind", "source": log, "options": ["bind", "rw"],
        }));
        c["process"]["user"] = json!({"uid": 1000, "gid": 1000, "umask": 0o27});
        c["process"]["env"] = json!(["ONE=two", "PATH=/bin"]);
        let script = "(umask; echo $ONE $HOME; cat /proc/self/status; echo $CARGO_PKG_NAME) > /tmp/seen";
        c["hooks"]["startContainer"] = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    });
    site.ok(&["run", &site.id]);
    let seen = std::fs::read_to_string(log.join("seen")).unwrap();
    let (first, rest) = seen.split_at(seen.find("Name:").unwrap());
    assert_eq!(first, "0027\ntwo /\n");
    let (status, last) = rest.trim_end_matches('\n').rsplit_once('\n').unwrap();
    assert!(
        status.contains("Uid:\t1000\t1000\t1000\t1000") && status.contains("CapEff:\t0000000000000000"),
        "{status}"
    );
    assert!(last.starts_with("nonvoluntary"), "nothing of the runtime's environment: {last}");
}

/// And only they do: what the runtime still has to do itself between them and the program isn't denied by it.
fn the_last_hooks_run_under_the_program_s_filter() {
    for no_new_privileges in [true, false] {
        let with = |calls: &[&str], action: &str| {
            shell("true").change(|c| {
                c["process"]["noNewPrivileges"] = json!(no_new_privileges);
                c["process"]["rlimits"] = json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]);
                c["linux"]["seccomp"] = json!({
                    "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": calls, "action": action}],
                });
                c["hooks"]["startContainer"] = json!([{"path": "/bin/sh", "args": ["sh", "-c", "mkdir /dev/shm/a"]}]);
            })
        };
        let site = with(&["mkdir", "mkdirat"], "SCMP_ACT_KILL");
        let error = site.fails(&["run", &site.id]);
        assert!(error.contains("error running startContainer hook #0") && error.contains("bad system call"), "{error}");
        site.assert_gone();
        let site = with(&["clone3", "waitid", "accept4", "write", "pidfd_open", "chmod"], "SCMP_ACT_ERRNO");
        site.create(&[]);
        site.ok(&["start", &site.id]);
    }
}

/// As it was named, which may be a link.
fn hooks_before_the_container_find_themselves_in_the_bundle() {
    for kind in ["prestart", "createRuntime"] {
        let site = shell("true").change(|c| c["hooks"][kind] = json!([hook("pwd -P >&2; cat >&2; exit 3")]));
        let told = |bundle: &str| format!("\"bundle\":\"{bundle}\"");
        let (bundle, link) = (site.directory.to_str().unwrap(), site.directory.join("link"));
        std::os::unix::fs::symlink(bundle, &link).unwrap();
        let link = link.to_str().unwrap();
        let mut command = site.command(&["run", "--bundle", link, &site.id]);
        command.current_dir("/");
        let done = crate::site::finish(command);
        assert!(done.stderr.starts_with(&format!("{bundle}\n")) && done.stderr.contains(&told(link)), "{done:?}");
    }
}

/// While the container is made the command goes from one to the other by itself.
fn hooks_run_on_the_caller_s_processors() {
    let allowed = |status: &str| status.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap().to_owned();
    let own = allowed(&std::fs::read_to_string("/proc/self/status").unwrap());
    for kind in ["createRuntime", "poststart"] {
        let site = shell("true").change(|c| c["hooks"][kind] = json!([hook("cat /proc/self/status >&2; exit 3")]));
        let done = site.run(&["run", &site.id]);
        assert_eq!(allowed(&done.stderr), own, "{kind}: {done:?}");
    }
    // Of a container that can't be made. There is enough to do before that is found out.
    let site = shell("true").change(|c| {
        c["hooks"]["poststop"] = json!([hook("cat /proc/self/status >&2")]);
        let bind = |source: &str| json!({"destination": "/tmp", "type": "bind", "source": source, "options": ["bind"]});
        let mounts = c["mounts"].as_array_mut().unwrap();
        mounts.extend((0..400).map(|_| bind("/tmp")).chain([bind("/absent")]));
    });
    let done = site.run(&["run", &site.id]);
    assert_eq!((done.status, allowed(&done.stderr)), (1, own), "{done:?}");
}

/// All of them, in the container or not; what the program writes is its own.
fn hooks_write_where_annotations_say() {
    let site = shell("echo program").change(|c| {
        for kind in KINDS {
            c["hooks"][kind] = json!([hook(&format!("echo {kind}; echo of {kind} >&2"))]);
        }
        c["annotations"] = json!({"run.oci.hooks.stdout": "told", "run.oci.hooks.stderr": "complained"});
    });
    std::fs::write(site.directory.join("told"), "before\n").unwrap();
    let done = site.run(&["run", &site.id]);
    assert_eq!((done.status, done.stdout.as_str(), done.stderr.as_str()), (0, "program\n", ""));
    let written = |name: &str| std::fs::read_to_string(site.directory.join(name)).unwrap();
    assert_eq!(written("told"), format!("before\n{}\n", KINDS.join("\n")));
    assert_eq!(written("complained"), KINDS.map(|kind| format!("of {kind}\n")).concat());
    // Nobody is waited for, no link is followed, and where there are no hooks nothing is opened.
    let wrong = |file: &str, hooked: bool| {
        shell("true").change(|c| {
            c["annotations"] = json!({"run.oci.hooks.stdout": file});
            if hooked {
                c["hooks"]["createRuntime"] = json!([hook("true")]);
            }
        })
    };
    let (fifo, link) = (site.directory.join("fifo"), site.directory.join("link"));
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    std::os::unix::fs::symlink(site.directory.join("target"), &link).unwrap();
    for (file, why) in
        [(fifo.to_str().unwrap(), "ENXIO"), (link.to_str().unwrap(), "ELOOP"), ("/absent/file", "ENOENT")]
    {
        let hooked = wrong(file, true);
        let error = hooked.fails(&["run", &hooked.id]);
        assert!(
            error.contains(&format!("open {file} (annotations[run.oci.hooks.stdout])")) && error.contains(why),
            "{error}"
        );
        hooked.assert_gone();
        let plain = wrong(file, false);
        plain.ok(&["run", &plain.id]);
    }
    assert!(!site.directory.join("target").exists());
}

fn a_hook_that_cannot_be_executed_says_why() {
    for kind in ["createRuntime", "createContainer", "startContainer"] {
        let site = shell("true").change(|c| c["hooks"][kind] = json!([{"path": "/no/such/hook"}]));
        let error = site.fails(&["run", &site.id]);
        assert!(
            error.contains(&format!(
                "error running {kind} hook #0: /no/such/hook: no such file or directory (ENOENT): there is no such program"
            )),
            "{error}"
        );
        site.assert_gone();
    }
}

/// The program's limits are its hooks', too, but what these are told isn't theirs.
fn a_limit_on_files_is_none_on_the_state() {
    let site = shell("true").change(|c| {
        c["process"]["rlimits"] = json!([{"type": "RLIMIT_FSIZE", "soft": 10, "hard": 10}]);
        let script = "test $(wc -c) -gt 100 && test $(ulimit -f) = 0";
        c["hooks"]["startContainer"] = json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]},
                                              {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}]);
    });
    site.ok(&["run", &site.id]);
}

fn a_failing_hook_of_create_undoes_it() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let site = recorded(shell("true"));
        let site = site.change(|c| c["hooks"][kind].as_array_mut().unwrap().push(hook("exit 3")));
        let error = site.fails(&["create", &site.id]);
        assert!(
            error.contains(&format!("error running {kind} hook #2: /bin/sh: {kind} hook failed with exit code 3")),
            "{error}"
        );
        // "Continue the lifecycle at step 12": destroyed, then poststop.
        assert_eq!(kinds(&site).iter().rev().take(2).collect::<Vec<_>>(), ["poststop2", "poststop1"], "{kind}");
        assert!(!kinds(&site).contains(&"startContainer1".to_owned()));
        site.assert_gone();
    }
}

fn ip(arguments: &str) -> String {
    let done = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {arguments}: {done:?}");
    String::from_utf8(done.stdout).unwrap()
}

/// A pair of interfaces of this test's own, which is gone when dropped.
struct Pair;

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", "gbcli1"]).stderr(Stdio::null()).status();
    }
}

fn a_failing_hook_of_create_gives_interfaces_back() {
    let _pair = Pair;
    ip("link add gbcli0 type veth peer name gbcli1");
    ip("address add 192.0.2.9/24 dev gbcli0");
    ip("link set gbcli0 up");
    ip("link set gbcli1 up");
    for kind in ["createRuntime", "createContainer"] {
        let site = shell("true").change(|c| {
            c["linux"]["netDevices"] = json!({"gbcli0": {"name": "inside"}});
            // By then it has moved.
            c["hooks"][kind] = json!([hook("[ ! -e /sys/class/net/gbcli0 ] && exit 3")]);
        });
        let error = site.fails(&["create", &site.id]);
        assert!(error.contains("exit code 3"), "{error}");
        site.assert_gone();
        let text = ip("address show gbcli0");
        assert!(text.contains("192.0.2.9/24") && text.contains(",UP"), "{text}");
    }
}

fn a_failing_hook_of_start_destroys_the_container() {
    for kind in ["startContainer", "poststart"] {
        let site = recorded(shell("sleep 60"));
        let site = site.change(|c| c["hooks"][kind].as_array_mut().unwrap().insert(0, hook("exit 3")));
        site.create(&[]);
        let error = site.fails(&["start", &site.id]);
        assert!(
            error.contains(&format!("error running {kind} hook #0: /bin/sh: {kind} hook failed with exit code 3")),
            "{error}"
        );
        assert!(!kinds(&site).contains(&format!("{kind}2")), "the remaining hooks of this kind ran");
        assert!(kinds(&site).contains(&"poststop2".to_owned()));
        site.assert_gone();
    }
}

fn a_failing_poststop_hook_is_a_warning() {
    let site = recorded(shell("true"));
    let site = site.change(|c| c["hooks"]["poststop"].as_array_mut().unwrap().insert(0, hook("exit 3")));
    let done = site.run(&["run", &site.id]);
    assert_eq!(done.status, 0, "{done:?}");
    assert!(
        done.stderr.contains("warning: error running poststop hook #0: /bin/sh: poststop hook failed with exit code 3"),
        "{done:?}"
    );
    assert!(kinds(&site).contains(&"poststop2".to_owned()));
    site.assert_gone();
}

fn a_hook_past_its_timeout_is_killed() {
    let site = shell("true");
    let mark = site.directory.join("alive");
    let mut slow = hook(&format!("echo $$ > {}; exec sleep 1000", mark.display()));
    slow["timeout"] = json!(1);
    let site = site.change(|c| c["hooks"]["createRuntime"] = json!([slow]));
    let error = site.fails(&["create", &site.id]);
    assert!(error.contains("timed out (ETIMEDOUT): it took longer than its timeout"), "{error}");
    let pid = std::fs::read_to_string(mark).unwrap();
    assert!(!std::path::Path::new("/proc").join(pid.trim()).exists());
    site.assert_gone();
}

fn run_has_hooks_as_well() {
    let site = recorded(shell("true"));
    assert_eq!(site.run(&["run", &site.id]).status, 0);
    let mut expected: Vec<String> = KINDS.iter().flat_map(|kind| [format!("{kind}1"), format!("{kind}2")]).collect();
    let mut seen = kinds(&site);
    // The program is already under way when poststart hooks run, but nothing else overtakes anything.
    assert_eq!(seen, expected);
    expected.sort();
    seen.sort();
    assert_eq!(seen, expected);
    site.assert_gone();
}

fn a_hook_may_look_at_its_container() {
    let site = shell("sleep 60");
    let output = site.directory.join("seen");
    let command = format!(
        "{} --root {} state {} >> {}",
        crate::site::runtime().display(),
        site.directory.join("state").display(),
        site.id,
        output.display()
    );
    let site = site.change(|c| {
        c["hooks"]["createRuntime"] = json!([hook(&command)]);
        c["hooks"]["poststart"] = json!([hook(&command)]);
    });
    site.create(&[]);
    assert!(std::fs::read_to_string(&output).unwrap().contains("\"creating\""));
    site.ok(&["start", &site.id]);
    assert!(std::fs::read_to_string(&output).unwrap().contains("\"running\""));
}

/// With a pid namespace of its own or without, where a kill is for all of the cgroup.
fn a_container_in_the_making_is_not_killed() {
    for own_pids in [true, false] {
        let site = shell("echo program").change(|c| {
            c["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| own_pids || namespace["type"] != "pid");
        });
        let state = site.directory.join("state");
        let kill = format!("{} --root {} kill {} KILL", crate::site::runtime().display(), state.display(), site.id);
        let all = kill.replace(" kill ", " kill --all ");
        let site = site.change(|c| c["hooks"]["createRuntime"] = json!([hook(&format!("! {kill} && ! {all}"))]));
        let done = site.run(&["run", &site.id]);
        assert_eq!((done.status, done.stdout.as_str()), (0, "program\n"), "{done:?}");
        assert!(done.stderr.contains("container not running"), "{done:?}");
    }
}

/// `delete --force` in less time than any hook takes here.
fn deleted_at_once(site: &Site) {
    let begin = Instant::now();
    site.ok(&["delete", "--force", &site.id]);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    site.assert_gone();
}

fn who_starts_with_a_hook_that_hangs_holds_no_deletion_up() {
    for own_pids in [true, false] {
        let site = shell("echo program").change(|c| {
            c["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| own_pids || namespace["type"] != "pid");
            c["hooks"]["startContainer"] = json!([{"path": "/bin/sleep", "args": ["sleep", "60"]}]);
        });
        let output = site.create(&[]);
        let start = site.command(&["start", &site.id]).stderr(Stdio::null()).spawn().unwrap();
        let procs = site.cgroup().join("cgroup.procs");
        until("the hook runs", || std::fs::read_to_string(&procs).unwrap().lines().count() == 2);
        deleted_at_once(&site);
        assert_eq!(wait(start), 1);
        assert!(!std::fs::read_to_string(output).unwrap().contains("program"));
    }
}

fn who_creates_with_a_hook_that_hangs_holds_no_deletion_up() {
    for kind in ["createRuntime", "createContainer"] {
        let site = shell("true");
        let said = site.directory.join("said");
        let script = format!("echo $$ > {said}.new; mv {said}.new {said}; exec sleep 60", said = said.display());
        // What runs in the container's mount namespace has no path to there.
        let site = site.change(|c| {
            c["hooks"][kind] = json!([hook(if kind == "createRuntime" { &script } else { "exec sleep 60" })]);
        });
        let create = site.command(&["create", &site.id]).stderr(Stdio::null()).spawn().unwrap();
        let procs = site.cgroup().join("cgroup.procs");
        let in_cgroup = || std::fs::read_to_string(&procs).unwrap_or_default().lines().count();
        until("the hook runs", || said.exists() || in_cgroup() == 2);
        deleted_at_once(&site);
        assert_eq!(wait(create), 128 + 9);
        // What its maker has started ends with that.
        if let Ok(pid) = std::fs::read_to_string(&said) {
            until("the hook is gone", || !std::path::Path::new("/proc").join(pid.trim()).exists());
        }
    }
}

/// They clear away what nobody else would: the container is gone by then.
fn who_is_killed_in_its_last_hooks_leaves_them_to_their_work() {
    let site = shell("true");
    let file = |name: &str| site.directory.join(name);
    let (said, go, done) = (file("said"), file("go"), file("done"));
    let script = format!(
        "touch {}; until [ -e {} ]; do sleep 0.1; done; touch {}",
        said.display(),
        go.display(),
        done.display()
    );
    let site = site.change(|c| c["hooks"]["poststop"] = json!([hook(&script)]));
    site.create(&[]);
    let mut delete = site.command(&["delete", &site.id]).spawn().unwrap();
    until("the hook runs", || said.exists());
    delete.kill().unwrap();
    assert_eq!(wait(delete), 128 + 9);
    std::fs::write(&go, "").unwrap();
    until("the hook has done its work", || done.exists());
}

/// Nor has a container in the making, when somebody else than its maker has the lock.
fn who_changes_a_container_is_not_killed_by_its_deletion() {
    let site = shell("sleep 60");
    site.create(&[]);
    let pid = site.state()["pid"].as_i64().unwrap();
    let path = site.directory.join("state").join(&site.id).join("lock");
    let mut lock = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    rustix::fs::fcntl_lock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    lock.write_all(b"creating ").unwrap();
    let mut deletion = site.command(&["delete", "--force", &site.id]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(deletion.try_wait().unwrap().is_none());
    assert!(std::path::Path::new(&format!("/proc/{pid}/ns/pid")).exists());
    drop(lock);
    assert_eq!(wait(deletion), 0);
    site.assert_gone();
}

fn hooks_find_the_root_where_the_configuration_says() {
    let rootfs = crate::site::place().rootfs();
    let rootfs = rootfs.display();
    let site = shell("cat /tmp/from-hook; ls -di / /..");
    let seen = site.directory.join("seen");
    let site = site.change(|c| {
        // From outside, in the container's mount namespace: as device and library hooks do.
        let look = format!(
            "read s; pid=${{s#*pid\\\":}}; pid=${{pid%%,*}}; nsenter -t $pid -m ls {rootfs}/proc/self > {}",
            seen.display()
        );
        let mount = format!("mount -t tmpfs tmpfs {rootfs}/tmp && echo hooked > {rootfs}/tmp/from-hook");
        c["hooks"]["createRuntime"] = json!([hook(&look)]);
        c["hooks"]["createContainer"] = json!([hook(&mount)]);
    });
    let text = site.ok(&["run", &site.id]);
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words[0], "hooked", "{text}");
    assert_eq!(words[1], words[3], "{text}");
    // The directory that the image ships is empty.
    assert!(std::fs::read_to_string(seen).unwrap().contains("/proc/self"));
    site.assert_gone();
}
