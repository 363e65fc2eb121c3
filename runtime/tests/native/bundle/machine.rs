//! What is done outside the container for it: the seccomp agent, interfaces, its cgroup, RDT.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use super::{BASE, bundle, cgroup};
use crate::site::scratch;

pub fn tests() -> Vec<Trial> {
    trials![
        a_call_is_answered_by_the_agent,
        without_an_agent_nothing_starts,
        a_filter_may_forbid_all_that_the_runtime_itself_calls,
        an_interface_moves_with_its_addresses,
        an_interface_that_cannot_move_is_named,
        interfaces_that_cannot_all_move_are_as_they_were,
        a_writable_cgroup_is_the_container_s,
        without_rdt_a_class_is_an_error,
        devices_that_nobody_names_are_denied,
        a_great_many_device_rules_are_loaded,
    ]
}

/// The error that only the agent gives.
const AGENT_ERRNO: i32 = 74;

/// `agent SOCKET`: takes one container process state, prints it, and answers every call with an error.
pub fn agent(arguments: &[String]) -> i32 {
    let socket = UnixListener::bind(&arguments[0]).unwrap();
    let (mut connection, _) = socket.accept().unwrap();
    let mut first = [0; 4096];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [std::io::IoSliceMut::new(&mut first)];
    let length = recvmsg(&connection, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
    let fds: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    let mut text = String::from_utf8(first[..length].to_vec()).unwrap();
    // The other side closes the connection when it executes its program.
    connection.read_to_string(&mut text).unwrap();
    println!("{text}");
    while crate::sys::answer_notification(&fds[0], AGENT_ERRNO) {}
    0
}

fn a_call_is_answered_by_the_agent() {
    let socket = scratch("agent").join("socket");
    for no_new_privileges in [true, false] {
        let _ = std::fs::remove_file(&socket);
        let agent = Command::new(std::env::current_exe().unwrap())
            .arg("agent")
            .arg(&socket)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        while !socket.exists() {
            assert!(Instant::now() < until, "the agent listens");
            std::thread::sleep(Duration::from_millis(5));
        }
        let text = bundle("notified", "mkdir /tmp/new; true")
            .set("/process/noNewPrivileges", json!(no_new_privileges))
            .set("/annotations", json!({"com.example": "annotated"}))
            .set(
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket, "listenerMetadata": "meta",
                       "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
                       "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]}),
            )
            .output();
        assert!(text.contains("Bad message"), "{text}");
        let said = agent.wait_with_output().unwrap();
        let state: Value = serde_json::from_slice(&said.stdout).unwrap();
        assert_eq!((&state["fds"], &state["metadata"]), (&json!(["seccompFd"]), &json!("meta")));
        assert_eq!((&state["state"]["id"], &state["state"]["status"]), (&json!("bundle"), &json!("creating")));
        assert_eq!(state["state"]["annotations"]["com.example"], "annotated");
        let pid = state["pid"].as_i64().unwrap();
        assert!(pid > 1 && state["state"]["pid"] == pid, "its number outside: {state}");
    }
}

fn without_an_agent_nothing_starts() {
    let refusal = bundle("unanswered", "true")
        .set(
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/no/agent",
                   "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}),
        )
        .refusal();
    assert!(
        refusal.contains("failed to connect with seccomp agent /no/agent: no such file or directory (ENOENT): no seccomp agent listens"),
        "{refusal}"
    );
    // Where no call is handed over, the path is ignored.
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/no/agent"});
    bundle("ignored", "true").set("/linux/seccomp", profile).output();
}

/// The filter is the last thing before the program: setting it up needs no call that it could forbid, but exec.
fn a_filter_may_forbid_all_that_the_runtime_itself_calls() {
    let forbidden = [
        "write",
        "writev",
        "fcntl",
        "close",
        "close_range",
        "dup2",
        "dup3",
        "prctl",
        "capset",
        "capget",
        "setgroups",
        "setuid",
        "setresuid",
        "setgid",
        "setresgid",
        "setsid",
        "umask",
        "rt_sigaction",
        "rt_sigprocmask",
        "sendmsg",
        "sendto",
        "poll",
        "prlimit64",
        "landlock_restrict_self",
    ];
    let profile =
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": forbidden, "action": "SCMP_ACT_ERRNO"}]});
    for no_new_privileges in [true, false] {
        for user in [0, 33] {
            let config = bundle("forbidding", "exit 7")
                .set("/process/noNewPrivileges", json!(no_new_privileges))
                .set("/process/user", json!({"uid": user, "gid": user}))
                .set("/linux/seccomp", profile.clone());
            let ended = config.run().unwrap_or_else(|failure| panic!("{failure}"));
            assert_eq!(ended.status, 7, "{no_new_privileges} {user}: {}", ended.output);
        }
    }
    // It is in force, and the right to put it there is gone.
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]});
    for user in [0, 33] {
        let text = bundle("filtered", "mkdir /tmp/new; grep Cap /proc/self/status; true")
            .set("/process/user", json!({"uid": user, "gid": user}))
            .set(
                "/process/capabilities",
                json!({"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]}),
            )
            .set("/linux/seccomp", profile.clone())
            .output();
        assert!(text.contains("Operation not permitted"), "{text}");
        let held = if user == 0 { "0000000000000020" } else { "0000000000000000" };
        assert_eq!(crate::site::fields(&text)["CapPrm"], held, "{text}");
    }
}

/// A pair of interfaces of this test's own, which is gone when dropped.
struct Pair;

impl Pair {
    fn make() -> Self {
        ip("link add gbtest0 type veth peer name gbtest1");
        ip("address add 192.0.2.7/24 dev gbtest1");
        ip("address add 2001:db8::7/64 dev gbtest1 nodad");
        Self
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", "gbtest0"]).stderr(Stdio::null()).status();
    }
}

fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
}

fn an_interface_moves_with_its_addresses() {
    for (user, name, expected) in [(false, "inside", "inside"), (true, "net%d", "net0"), (false, "", "gbtest1")] {
        let _pair = Pair::make();
        let config = bundle("moved", "ip -o link; ip -o addr");
        let config = if user { config.in_user_namespace() } else { config };
        let text = config.set("/linux/netDevices", json!({"gbtest1": {"name": name}})).output();
        let link =
            text.lines().find(|line| line.contains(&format!(": {expected}"))).unwrap_or_else(|| panic!("{text}"));
        assert!(link.contains("UP"), "{text}");
        assert!(text.contains("192.0.2.7/24") && text.contains("2001:db8::7/64"), "{text}");
    }
}

fn an_interface_that_cannot_move_is_named() {
    let refusal = bundle("absent", "true").set("/linux/netDevices", json!({"gbnone": {}})).refusal();
    assert!(
        refusal.contains(
            "move network interface gbnone as gbnone: no such device (ENODEV): the machine has no such interface"
        ),
        "{refusal}"
    );
    let _pair = Pair::make();
    let refusal = bundle("taken", "true").set("/linux/netDevices", json!({"gbtest1": {"name": "lo"}})).refusal();
    assert!(
        refusal.contains("gbtest1 as lo: file exists (EEXIST): the container has an interface of that name"),
        "{refusal}"
    );
    ip("link show gbtest1");
}

fn interfaces_that_cannot_all_move_are_as_they_were() {
    // By name, the one of them that moves first has addresses and is up.
    let check = |first: &str, devices: Value, expected: &str| {
        let _pair = Pair::make();
        if first != "gbtest1" {
            ip(&format!("address add 192.0.2.7/24 dev {first}"));
            ip(&format!("address add 2001:db8::7/64 dev {first} nodad"));
        }
        ip(&format!("link set {first} up"));
        ip(&format!("route add 198.51.100.0/24 dev {first}"));
        let refusal = bundle("half", "true").set("/linux/netDevices", devices).refusal();
        assert!(refusal.contains(expected), "{refusal}");
        let shown = Command::new("ip").args(["address", "show", first]).output().unwrap();
        let text = String::from_utf8(shown.stdout).unwrap();
        assert!(text.contains("192.0.2.7/24") && text.contains("2001:db8::7/64") && text.contains(",UP"), "{text}");
        // No route outlives a move.
        let routes = Command::new("ip").args(["route", "show", "dev", first]).output().unwrap().stdout;
        String::from_utf8(routes).unwrap().contains("198.51.100.0/24")
    };
    let absent = json!({"gbtest1": {"name": "inside"}, "gbtest9": {}});
    assert!(check("gbtest1", absent, "gbtest9 as gbtest9: no such device"), "it was moved before all were looked for");
    // Where the first gets the name that the second is to have, that shows when it has moved.
    let taken = json!({"gbtest0": {"name": "same%d"}, "gbtest1": {"name": "same0"}});
    assert!(!check("gbtest0", taken, "gbtest1 as same0: file exists"), "it has never moved, and so not back");
}

fn a_writable_cgroup_is_the_container_s() {
    let owners = |options: Value| {
        let config = bundle("delegated", "stat -c '%u:%g %n' /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/cgroup.threads /sys/fs/cgroup/cgroup.freeze; mkdir /sys/fs/cgroup/sub && echo made; true")
            .in_user_namespace()
            .mount(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options}));
        config.output()
    };
    let text = owners(json!(["nosuid"]));
    assert!(
        text.starts_with("0:0 /sys/fs/cgroup/cgroup.procs\n0:0 /sys/fs/cgroup/cgroup.threads\n65534:65534 "),
        "{text}"
    );
    assert!(text.ends_with("made\n"), "{text}");
    let text = owners(json!(["nosuid", "ro"]));
    assert!(text.starts_with("65534:65534 ") && !text.contains("made"), "{text}");
    assert!(!cgroup().exists() && std::fs::metadata("/sys").unwrap().uid() != BASE);
}

/// No machine that these tests run on has it; what is written where one has, unit tests tell.
fn without_rdt_a_class_is_an_error() {
    let refusal = bundle("rdt", "true").set("/linux/intelRdt", json!({"closID": "gold"})).refusal();
    assert!(
        refusal.contains(
            "no resctrl filesystem is mounted on the machine: no such device (ENODEV): the processor has no RDT"
        ),
        "{refusal}"
    );
}

/// Numbers that no driver has: what the filter lets through gives ENXIO.
fn devices_that_nobody_names_are_denied() {
    let declared = json!([
        {"path": "/dev/declared", "type": "c", "major": 240, "minor": 8},
        {"path": "/dev/pipe", "type": "p"}
    ]);
    let script = "/bin/busybox mknod /tmp/made c 240 7; cat < /tmp/made; cat < /dev/declared; echo x > /dev/null; \
                  head -c 4 /dev/zero | wc -c";
    for resources in [json!(null), json!({}), json!({"devices": []}), json!({"pids": {"limit": 50}})] {
        let text = bundle("rules", script)
            .set("/linux/devices", declared.clone())
            .set("/linux/resources", resources.clone())
            .output();
        assert!(text.contains("/tmp/made: Operation not permitted"), "{resources}: {text}");
        assert!(
            text.contains("/dev/declared: No such device or address") && text.ends_with("\n4\n"),
            "{resources}: {text}"
        );
    }
    // A list says it all, but for what every container has.
    let rules =
        json!({"devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 240, "minor": 7}]});
    let text = bundle("listed", script).set("/linux/devices", declared).set("/linux/resources", rules).output();
    assert!(text.contains("/tmp/made: No such device or address"), "{text}");
    assert!(text.contains("/dev/declared: Operation not permitted") && text.ends_with("\n4\n"), "{text}");
}

fn a_great_many_device_rules_are_loaded() {
    // With the first and the last, and those of default devices, as many as are taken.
    const COUNT: u32 = 8000 - 1 - 2 - 10;
    let rule = |number: u32| {
        let (kind, access) = (["b", "c"][number as usize % 2], ["r", "w", "rw", "rwm", "m"][number as usize % 5]);
        json!({"allow": !number.is_multiple_of(3), "type": kind, "major": number % 240, "minor": number / 240, "access": access})
    };
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    rules.extend((0..COUNT).map(rule));
    rules.push(json!({"allow": true, "type": "c", "major": 240, "minor": 7, "access": "r"}));
    rules.push(json!({"allow": true, "type": "c", "major": 240, "minor": 7, "access": "w"}));
    let script = "/bin/busybox mknod /tmp/made c 240 7; cat <> /tmp/made; true";
    let text = bundle("many", script).set("/linux/resources", json!({"devices": rules})).output();
    assert!(text.contains("/tmp/made: No such device or address"), "{text}");
}
