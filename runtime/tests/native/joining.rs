//! Namespaces joined by path, as an appliance may: five of the eight kinds. All eight are in `bundle/namespaces.rs`.

use std::rc::Rc;

use garboard_runtime::cgroup;
use garboard_runtime::launch::Namespace;
use garboard_runtime::report::Report;
use garboard_runtime::shared::Shared;
use garboard_runtime::spec::{NamespaceChoice, Options};
use garboard_runtime::start::{Started, Stdio};
use libtest_mimic::Trial;

use crate::site::{Container, reap, scratch, shell, wait_for_report};

pub fn tests() -> Vec<Trial> {
    trials![
        each_kind_of_namespace_can_be_joined,
        all_five_are_joined_at_once,
        what_is_no_namespace_of_the_kind_is_refused,
        a_failure_after_joining_leads_back,
        containers_that_share_namespaces_are_each_other_s_neighbours,
    ]
}

const KINDS: [&str; 5] = ["pid", "net", "ipc", "uts", "cgroup"];

/// A container whose namespaces others join, with the machine's user namespace, as theirs must be for all five.
fn host() -> (Container, Started) {
    let container = shell("sleep 20").named("first").options(|o| o.ids = None);
    let started = container.start(Stdio::default()).unwrap();
    assert_eq!(wait_for_report(&started), Report::Executed);
    (container, started)
}

fn end((container, started): (Container, Started)) {
    cgroup::kill(started.cgroup.as_ref().unwrap()).unwrap();
    assert_eq!(reap(&started), 137);
    container.remove_cgroup();
}

/// Every namespace of a process, as `kind:[inode]`.
fn namespaces(process: &str) -> Vec<String> {
    let kinds = KINDS.iter().chain(&["mnt", "user", "time", "pid_for_children"]);
    kinds
        .map(|kind| std::fs::read_link(format!("/proc/{process}/ns/{kind}")).unwrap().to_str().unwrap().to_owned())
        .collect()
}

fn choice<'a>(options: &'a mut Options, kind: &str) -> &'a mut NamespaceChoice {
    match kind {
        "pid" => &mut options.pid,
        "net" => &mut options.network,
        "ipc" => &mut options.ipc,
        "uts" => &mut options.uts,
        _ => &mut options.cgroup,
    }
}

/// A container that shows its namespaces and joins those of `pid`.
fn joining(kinds: &[&str], pid: i32) -> Container {
    shell("for n in pid net ipc uts cgroup; do stat -c %N /proc/self/ns/$n; done").options(|o| {
        o.ids = None;
        for kind in kinds {
            *choice(o, kind) = NamespaceChoice::Path(format!("/proc/{pid}/ns/{kind}"));
        }
    })
}

fn each_kind_of_namespace_can_be_joined() {
    let first = host();
    let (own, its) = (namespaces("self"), namespaces(&first.1.pid.to_string()));
    for (number, kind) in KINDS.iter().enumerate() {
        let text = joining(&[kind], first.1.pid).output();
        let shared: Vec<bool> = its[..5].iter().map(|namespace| text.contains(namespace.as_str())).collect();
        let expected: Vec<bool> = (0..5).map(|n| n == number).collect();
        assert_eq!(shared, expected, "{kind} and no other: {text}");
        assert_eq!(namespaces("self"), own, "the launcher is back from {kind}");
    }
    end(first);
}

fn all_five_are_joined_at_once() {
    let first = host();
    let (own, its) = (namespaces("self"), namespaces(&first.1.pid.to_string()));
    let text = joining(&KINDS, first.1.pid).output();
    assert!(its[..5].iter().all(|namespace| text.contains(namespace.as_str())), "{its:?}: {text}");
    assert_eq!(namespaces("self"), own, "the launcher is back");
    end(first);
}

fn what_is_no_namespace_of_the_kind_is_refused() {
    let own = namespaces("self");
    let directory = scratch("joining");
    let (file, pipe) = (directory.join("file"), directory.join("pipe"));
    std::fs::write(&file, "").unwrap();
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let cases = [
        (path(&directory.join("absent")), "no such file or directory (ENOENT): it doesn't exist on the machine"),
        (path(&file), "is no namespace"),
        // Nobody writes to it: opening it must not wait.
        (path(&pipe), "is no namespace"),
        (path(&directory), "is no namespace"),
        ("/proc/self/ns/mnt".to_owned(), "invalid argument (EINVAL): the file is a namespace of another kind"),
        ("/proc/self/ns/user".to_owned(), "invalid argument (EINVAL): the file is a namespace of another kind"),
    ];
    for kind in KINDS {
        for (path, expected) in &cases {
            // Behind a good one, so that there is something to step back from.
            let text = shell("").options(|o| {
                *choice(o, if kind == "net" { "uts" } else { "net" }) =
                    NamespaceChoice::Path(format!("/proc/self/ns/{}", if kind == "net" { "uts" } else { "net" }));
                *choice(o, kind) = NamespaceChoice::Path(path.clone());
            });
            let text = text.refusal();
            assert!(text.contains(expected) && text.contains(path.as_str()), "{kind} {path}: {text}");
            assert_eq!(namespaces("self"), own, "{kind} {path}: the launcher is back");
        }
    }
}

fn a_failure_after_joining_leads_back() {
    let first = host();
    let own = namespaces("self");
    let network = Namespace::Path(format!("/proc/{}/ns/net", first.1.pid));
    // The child is made, and then the launcher can't do its part.
    let text = shell("")
        .change(move |l| (l.namespaces.network, l.process.oom_score_adj) = (network.clone(), Some(5000)))
        .refusal();
    assert!(text.contains("oom_score_adj"), "{text}");
    assert_eq!(namespaces("self"), own);
    assert_eq!(std::fs::read_to_string("/proc/thread-self/children").unwrap().split_whitespace().count(), 1);
    end(first);
}

/// With a user namespace and with the machine's.
fn containers_that_share_namespaces_are_each_other_s_neighbours() {
    for own_ids in [true, false] {
        let container = |script: &str| {
            let container = shell(script);
            if own_ids { container } else { container.options(|o| o.ids = None) }
        };
        let own = namespaces("self");
        let shared = Rc::new(Shared::of(&container("").launch()).unwrap());
        assert_eq!(shared.user.is_some(), own_ids);
        assert_eq!(namespaces("self"), own, "the launcher is back");
        let member = |name: &str, script: &str| {
            let shared = Rc::clone(&shared);
            container(script).named(name).change(move |launch| shared.join(launch))
        };
        // What one has said on the loopback interface and set as its host name, the other finds; not so its processes.
        let serve = "hostname neighbour; cat /proc/net/dev | grep -q lo: && nc -l -p 7 -e echo hello";
        let first = member("first", serve).options(|o| o.cap_add = vec!["SYS_ADMIN".to_owned()]);
        let started = first.start(Stdio::default()).unwrap();
        assert_eq!(wait_for_report(&started), Report::Executed);
        let ask = "for i in 1 2 3 4 5 6 7 8 9; do nc 127.0.0.1 7 </dev/null 2>/dev/null && break; usleep 200000; done; hostname; \
                   ls -d /proc/[0-9]* | wc -l; touch /sys/x 2>/dev/null; stat -c %u:%g /dev/mqueue; ls /sys/class/net";
        let heard = member("second", ask).output();
        assert!(heard.starts_with("hello\nneighbour\n"), "{own_ids}: {heard}");
        assert!(heard.ends_with("\n0:0\nlo\n"), "{own_ids}: {heard}");
        cgroup::kill(started.cgroup.as_ref().unwrap()).unwrap();
        reap(&started);
        first.remove_cgroup();
        // Control: who doesn't share hears nothing.
        let alone = container("nc 127.0.0.1 7 </dev/null || echo nobody").named("alone").output();
        assert!(alone.contains("nobody"), "{alone}");
    }
}
