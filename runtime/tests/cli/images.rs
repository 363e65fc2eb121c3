//! `checkpoint` and `restore`, with a fake criu that notes what it is asked for. The real one is for a machine that it works on.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use libtest_mimic::Trial;
use serde_json::json;

use crate::images_of_terminals::TALK;
use crate::rootless::by_user;
use crate::site::{Site, shell};
use crate::trials;

pub fn tests() -> Vec<Trial> {
    trials![
        a_checkpoint_is_written_and_the_container_deleted,
        a_container_may_go_on_after_its_checkpoint,
        a_failed_checkpoint_leaves_the_container_running,
        what_can_t_be_written_down_is_refused,
        an_ordinary_user_is_refused,
        a_container_is_made_anew,
        the_exit_status_of_a_restored_program_is_passed_on,
        a_failed_restore_leaves_nothing,
    ]
}

/// Notes its arguments, cgroup and mounts, and does what can be seen from outside.
const FAKE: &str = r#"#!/bin/bash
here=${0%/*}
[ $1 = swrk ] && exec TALK $here <&$2
printf '%s\n' "$@" > $here/called
cp /proc/self/cgroup /proc/self/mountinfo $here/
while [ $# -gt 0 ]; do
    case $1 in
    dump | pre-dump | restore) command=$1 ;;
    --pidfile) pidfile=$2 ;;
    --work-dir) work=$2 ;;
    --images-dir) images=$2 ;;
    --log-file) log=$2 ;;
    esac
    shift
done
if [ -e $here/fail ]; then
    echo "(00.017) Error (criu/fake.c:42): it was told to fail" > $work/$log
    exit 1
fi
if [ $command = restore ]; then
    sh -c "$(cat $here/program)" &
    if [ -e $here/pid ]; then cp $here/pid $pidfile; else echo $! > $pidfile; fi
else
    echo image > $images/pages-1.img
fi
"#;

pub fn fake(site: &Site) -> String {
    let path = site.directory.join("criu");
    let this = std::env::current_exe().unwrap();
    std::fs::write(&path, FAKE.replace("TALK", &format!("{} {TALK}", this.display()))).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(site.directory.join("program"), "exec sleep 60").unwrap();
    path.to_str().unwrap().to_owned()
}

fn running() -> (Site, String) {
    let site = shell("sleep 60").change(|c| {
        let bound = json!({"destination": "/tmp", "type": "bind", "source": "/tmp", "options": ["rbind", "ro"]});
        c["mounts"].as_array_mut().unwrap().push(bound);
    });
    let criu = fake(&site);
    site.ok(&["run", "--detach", &site.id]);
    (site, criu)
}

fn called(site: &Site) -> Vec<String> {
    let text = std::fs::read_to_string(site.directory.join("called")).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn has(called: &[String], flag: &str, value: &str) -> bool {
    called.windows(2).any(|pair| pair[0] == flag && pair[1] == value)
}

fn images(site: &Site) -> PathBuf {
    site.directory.join("images")
}

fn a_checkpoint_is_written_and_the_container_deleted() {
    let (site, criu) = running();
    let pid = site.state()["pid"].to_string();
    let images = images(&site);
    let path = images.to_str().unwrap();
    let flags = [
        "--tcp-established",
        "--ext-unix-sk",
        "--shell-job",
        "--file-locks",
        "--lazy-pages",
        "--auto-dedup",
        "--link-remap",
    ];
    let more = [
        "--manage-cgroups-mode",
        "ignore",
        "--empty-ns",
        "network",
        "--page-server",
        "127.0.0.1:9",
        "--network-lock",
        "skip",
        "--tcp-skip-in-flight",
    ];
    site.ok(&[&["--criu", &criu, "checkpoint", "--image-path", path], &flags[..], &more, &[&site.id]].concat());
    let called = called(&site);
    assert_eq!(called[0], "dump");
    for flag in flags {
        assert!(called.iter().any(|word| word == flag), "{flag}: {called:?}");
    }
    for (flag, value) in [
        ("--tree", pid.as_str()),
        ("--images-dir", path),
        ("--work-dir", path),
        ("--empty-ns", "net"),
        ("--port", "9"),
        ("--network-lock", "skip"),
        ("--external", "mnt[/tmp]:/tmp"),
        ("--external", "mnt[/sys/fs/cgroup]:/sys/fs/cgroup"),
        ("--external", "mnt[/proc/kcore]:/proc/kcore"),
        ("--freeze-cgroup", site.cgroup().to_str().unwrap()),
    ] {
        assert!(has(&called, flag, value), "{flag} {value}: {called:?}");
    }
    // As criu calls them.
    for flag in ["--manage-cgroups=ignore", "--skip-in-flight"] {
        assert!(called.iter().any(|word| word == flag), "{flag}: {called:?}");
    }
    let streams: Vec<String> =
        serde_json::from_slice(&std::fs::read(images.join("descriptors.json")).unwrap()).unwrap();
    assert_eq!(streams[0], "/dev/null");
    assert!(images.join("pages-1.img").exists());
    assert_eq!(std::fs::read_to_string(images.join("cgroup.path")).unwrap(), format!("/{}", site.id));
    site.assert_gone();
}

fn a_container_may_go_on_after_its_checkpoint() {
    let (site, criu) = running();
    site.ok(&["--criu", &criu, "checkpoint", "--image-path", "parent", "--pre-dump", &site.id]);
    assert_eq!(called(&site)[0], "pre-dump");
    assert!(!site.directory.join("parent/descriptors.json").exists());
    assert_eq!(site.status(), "running");
    let then = ["--image-path", "images", "--parent-path", "../parent", "--work-path", "work", "--leave-running"];
    site.ok(&[&["--criu", &criu, "checkpoint"], &then[..], &[&site.id]].concat());
    let called = called(&site);
    assert!(has(&called, "--prev-images-dir", "../parent"), "{called:?}");
    assert!(has(&called, "--work-dir", site.directory.join("work").to_str().unwrap()), "{called:?}");
    assert!(called.iter().any(|word| word == "--leave-running"), "{called:?}");
    assert_eq!(site.status(), "running");
}

fn a_failed_checkpoint_leaves_the_container_running() {
    let (site, criu) = running();
    std::fs::write(site.directory.join("fail"), "").unwrap();
    let error = site.fails(&["--criu", &criu, "checkpoint", &site.id]);
    assert!(error.contains("Error (criu/fake.c:42): it was told to fail") && error.contains("dump.log"), "{error}");
    let error = site.fails(&["--criu", "no-such-criu", "checkpoint", &site.id]);
    assert!(error.contains("no-such-criu") && error.contains("criu isn't installed"), "{error}");
    let text = site.directory.join("no-program");
    std::fs::write(&text, "text").unwrap();
    assert!(site.fails(&["--criu", text.to_str().unwrap(), "checkpoint", &site.id]).contains("it can't be executed"));
    assert_eq!(site.status(), "running");
}

fn what_can_t_be_written_down_is_refused() {
    let (site, criu) = running();
    let refused = |more: &[&str]| site.run(&[&["--criu", &criu, "checkpoint"], more, &[&site.id]].concat());
    for (flags, named) in [
        (&["--parent-path", "/tmp"][..], "--parent-path /tmp"),
        (&["--parent-path", "absent"], "--parent-path absent"),
        (&["--page-server", "nowhere"], "--page-server \"nowhere\""),
        (&["--manage-cgroups-mode", "soap"], "--manage-cgroups-mode"),
        (&["--empty-ns", "pid"], "--empty-ns"),
        (&["--image-path", "/dev/null/images"], "/dev/null/images"),
    ] {
        let done = refused(flags);
        assert!(done.status == 1 && done.stderr.contains(named), "{flags:?}: {done:?}");
    }
    assert_eq!(site.status(), "running");
    site.ok(&["pause", &site.id]);
    assert!(refused(&[]).stderr.contains("it is paused"));
    site.ok(&["resume", &site.id]);
    site.ok(&["kill", &site.id, "KILL"]);
    site.wait_for("stopped");
    assert!(refused(&[]).stderr.contains("container not running"));
    assert!(!site.directory.join("called").exists(), "criu was called");
    // One that shares another's processes.
    let site = shell("sleep 60").change(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "ipc");
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "ipc", "path": "/proc/self/ns/ipc"}));
    });
    let criu = fake(&site);
    site.ok(&["run", "--detach", &site.id]);
    assert!(site.fails(&["--criu", &criu, "checkpoint", &site.id]).contains("only a network namespace"));
}

fn an_ordinary_user_is_refused() {
    let site = by_user(shell("sleep 60"), &[]);
    let criu = fake(&site);
    site.ok(&["run", "--detach", &site.id]);
    let error = site.fails(&["--criu", &criu, "checkpoint", "--image-path", "images", &site.id]);
    assert!(error.contains(&format!("checkpoint container {}: criu needs root of the machine", site.id)), "{error}");
    assert_eq!(site.status(), "running");
    std::fs::create_dir(images(&site)).unwrap_or_else(|error| panic!("it was made for nothing: {error}"));
    let other = format!("{}-other", site.id);
    let error = site.fails(&["--criu", &criu, "restore", "--image-path", "images", &other]);
    assert!(error.contains(&format!("restore container {other}: criu needs root of the machine")), "{error}");
    assert!(!site.directory.join("called").exists(), "criu was called");
    site.ok(&["delete", "--force", &site.id]);
    site.assert_gone();
}

/// The site with images to make it from.
fn written(streams: &[&str]) -> (Site, String) {
    let site = shell("true");
    let criu = fake(&site);
    std::fs::create_dir(images(&site)).unwrap();
    std::fs::write(images(&site).join("descriptors.json"), json!(streams).to_string()).unwrap();
    (site, criu)
}

fn a_container_is_made_anew() {
    let (site, criu) = written(&["/dev/null", "pipe:[4711]", "pipe:[4712]"]);
    let poststart = site.directory.join("poststart");
    let touch = json!([{"path": "/bin/touch", "args": ["touch", poststart]}]);
    let site = site.change(|c| c["hooks"] = json!({"poststart": touch}));
    let restore = ["--criu", &criu, "restore", "--detach", "--image-path", "images", "--pid-file", "pid-file"];
    let more = ["--tcp-established", "--tcp-close", "--lsm-profile", "apparmor:other"];
    site.ok(&[&restore[..], &more, &[&site.id]].concat());
    let called = called(&site);
    assert_eq!(called[0], "restore");
    assert!(called.iter().any(|word| word == "--tcp-close"), "{called:?}");
    let rootfs = site.config["root"]["path"].as_str().unwrap().to_owned();
    for (flag, value) in [
        ("--root", rootfs.as_str()),
        ("--images-dir", images(&site).to_str().unwrap()),
        ("--lsm-profile", "apparmor:other"),
        ("--external", &format!("mnt[/sys/fs/cgroup]:/sys/fs/cgroup/{}", site.id)),
        ("--external", "mnt[/proc/kcore]:/dev/null"),
    ] {
        assert!(has(&called, flag, value), "{flag} {value}: {called:?}");
    }
    // Images that don't say where the cgroup was.
    assert!(has(&called, "--cgroup-root", &format!("/{}", site.id)), "{called:?}");
    let inherited = |link: &str| called.iter().any(|word| word.starts_with("fd[") && word.ends_with(link));
    assert!(inherited("pipe:[4711]") && inherited("pipe:[4712]") && !inherited("/dev/null"), "{called:?}");
    // criu had the cgroup and the root as a mount, and neither is left behind here.
    let seen = |name: &str| std::fs::read_to_string(site.directory.join(name)).unwrap();
    assert!(seen("cgroup").contains(&format!("0::/{}", site.id)), "{}", seen("cgroup"));
    assert!(seen("mountinfo").contains(&rootfs));
    assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&rootfs));

    let state = site.state();
    assert_eq!(state["status"], "running");
    let pid = state["pid"].to_string();
    assert_eq!(std::fs::read_to_string(site.directory.join("pid-file")).unwrap(), pid);
    // It may have begun what it does by now, by a process of its own.
    let processes = std::fs::read_to_string(site.cgroup().join("cgroup.procs")).unwrap();
    assert!(processes.lines().any(|line| line == pid), "{processes}");
    assert!(poststart.exists());
    assert!(site.fails(&["--criu", &criu, "restore", "--image-path", "images", &site.id]).contains("already exists"));
    site.ok(&["delete", "--force", &site.id]);
    site.assert_gone();
}

fn the_exit_status_of_a_restored_program_is_passed_on() {
    let (site, criu) = written(&[]);
    std::fs::write(site.directory.join("program"), "sleep 0.2; exit 7").unwrap();
    let done = site.run(&["--criu", &criu, "restore", "--image-path", "images", &site.id]);
    assert_eq!(done.status, 7, "{done:?}");
    site.assert_gone();
    // Where its cgroup is where it was, criu does with it what it does by itself; without one, nothing.
    std::fs::write(images(&site).join("cgroup.path"), format!("/{}", site.id)).unwrap();
    site.run(&["--criu", &criu, "restore", "--image-path", "images", &site.id]);
    assert!(!called(&site).iter().any(|word| word == "--cgroup-root" || word == "--manage-cgroups=ignore"));
    site.run(&["--criu", &criu, "--cgroup-manager=disabled", "restore", "--image-path", "images", &site.id]);
    let called = called(&site);
    assert!(called.iter().any(|word| word == "--manage-cgroups=ignore"), "{called:?}");
    assert!(!called.iter().any(|word| word == "--cgroup-root"), "{called:?}");
}

fn a_failed_restore_leaves_nothing() {
    let (site, criu) = written(&[]);
    let fails = |named: &str| {
        let error = site.fails(&["--criu", &criu, "restore", "--image-path", "images", &site.id]);
        assert!(error.contains(named), "{named}: {error}");
        site.assert_gone();
    };
    let file = |name: &str| site.directory.join(name);
    std::fs::write(file("fail"), "").unwrap();
    fails("it was told to fail");
    std::fs::remove_file(file("fail")).unwrap();
    for wrong in ["", "x", "-1", "0", "99999999999"] {
        std::fs::write(file("pid"), wrong).unwrap();
        fails("criu says no process id");
    }
    // A process that has ended at once.
    std::fs::write(file("pid"), "4194300").unwrap();
    fails("its process has ended already");
    std::fs::remove_file(file("pid")).unwrap();
    std::fs::write(images(&site).join("descriptors.json"), "{").unwrap();
    fails("descriptors.json");
    std::fs::remove_file(images(&site).join("descriptors.json")).unwrap();
    let error = site.fails(&["--criu", &criu, "restore", "--image-path", "absent", &site.id]);
    assert!(error.contains("there is no such directory"), "{error}");
    assert!(
        site.fails(&["--criu", "no-such-criu", "restore", "--image-path", "images", &site.id])
            .contains("criu isn't installed")
    );
    // There is no systemd to make a scope.
    let error = site.fails(&["--systemd-cgroup", "--criu", &criu, "restore", "--image-path", "images", &site.id]);
    assert!(error.contains("the system bus at ") && error.contains("--cgroup-manager=cgroupfs"), "{error}");
    site.assert_gone();
}
