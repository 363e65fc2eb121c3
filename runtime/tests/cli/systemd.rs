//! The systemd cgroup driver: with a real systemd, which runs in a container of the runtime under test with the machine's own
//! files as its root, and with buses that fail in every way.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use serde_json::json;

use crate::images::fake;
use crate::site::{Done, Site, place, program, runtime, shell, until};
use crate::trials;

pub fn tests() -> Vec<Trial> {
    trials![
        a_scope_is_made_changed_and_ended,
        a_bus_that_fails_leaves_nothing,
        only_systemd_says_that_a_scope_is_made,
        a_runtime_killed_at_the_bus_leaves_nothing_that_delete_can_t_remove,
        a_path_must_be_slice_prefix_name,
    ]
}

/// For an ordinary user.
pub fn without_a_manager() -> Vec<Trial> {
    trials![an_ordinary_user_has_a_bus_of_its_own]
}

const TARGET: &str = "[Unit]\nDefaultDependencies=no\nWants=dbus.service manager.service\n";
const USER_TARGET: &str = "[Unit]\nDefaultDependencies=no\nWants=dbus.service\n";
const SOCKET: &str = "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n";
const DAEMON: &str = "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\nAfter=dbus.socket\n[Service]\nType=notify\n\
    ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation --syslog-only\n";

/// An ordinary user's own systemd, as a login would start it.
const MANAGER: &str = "[Unit]\nDefaultDependencies=no\nAfter=dbus.service\n[Service]\nType=notify\nUser=65534\n\
    Slice=test-users.slice\nDelegate=yes\nEnvironment=XDG_RUNTIME_DIR=/run/manager\nRuntimeDirectory=manager\n\
    ExecStart=/usr/lib/systemd/systemd --user --unit=test.target\n";
/// Where the runtime under test is in the container, for everybody.
const RUNTIME: &str = "/run/garboard-runtime";

/// A container with systemd as its first process, and a bus, and nothing else.
struct Systemd {
    site: Site,
    bundle: PathBuf,
}

impl Systemd {
    fn boot() -> Self {
        let site = program(&["/usr/lib/systemd/systemd", "--system", "--unit=test.target"]);
        let units = site.directory.join("systemd");
        std::fs::create_dir_all(units.join("system")).unwrap();
        std::fs::create_dir_all(units.join("user")).unwrap();
        for (name, text) in [
            ("system/test.target", TARGET),
            ("system/dbus.socket", SOCKET),
            ("system/dbus.service", DAEMON),
            ("system/manager.service", MANAGER),
            ("user/test.target", USER_TARGET),
            ("user/dbus.socket", &SOCKET.replace("/run/dbus/system_bus_socket", "%t/bus")),
            ("user/dbus.service", &DAEMON.replace("--system ", "--session ")),
        ] {
            std::fs::write(units.join(name), text).unwrap();
        }
        let tmpfs = |at: &str| json!({"destination": at, "type": "tmpfs", "source": "tmpfs"});
        let all: Vec<String> = [
            "CHOWN",
            "DAC_OVERRIDE",
            "FOWNER",
            "FSETID",
            "KILL",
            "SETGID",
            "SETUID",
            "SETPCAP",
            "NET_ADMIN",
            "SYS_CHROOT",
            "SYS_PTRACE",
            "SYS_ADMIN",
            "MKNOD",
            "AUDIT_WRITE",
            "SETFCAP",
        ]
        .map(|name| format!("CAP_{name}"))
        .to_vec();
        let site = site.change(|c| {
            c["root"] = json!({"path": "/", "readonly": true});
            c["process"]["env"] = json!(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "container=garboard"]);
            c["process"]["noNewPrivileges"] = false.into();
            for set in ["bounding", "effective", "permitted"] {
                c["process"]["capabilities"][set] = json!(all);
            }
            c["linux"]["maskedPaths"] = json!([]);
            c["linux"]["readonlyPaths"] = json!([]);
            c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "cgroup");
            c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
            let mounts = c["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
            let cgroup =
                json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]});
            let own =
                json!({"destination": "/etc/systemd", "type": "bind", "source": units, "options": ["rbind", "ro"]});
            let program =
                json!({"destination": RUNTIME, "type": "bind", "source": runtime(), "options": ["bind", "ro"]});
            mounts.extend([cgroup, tmpfs("/run"), own, program]);
        });
        let inner = shell("sleep 60").change(|c| {
            c["linux"]["cgroupsPath"] = json!("test-deep.slice:inner:one");
            c["annotations"] = json!({"org.systemd.property.TimeoutStopUSec": "uint64 1230000"});
        });
        let bundle = site.directory.join("inner");
        std::fs::create_dir(&bundle).unwrap();
        std::fs::write(bundle.join("config.json"), inner.config.to_string()).unwrap();
        site.create(&[]);
        site.ok(&["start", &site.id]);
        let systemd = Self { site, bundle };
        until("systemd is on its bus", || systemd.run(&["busctl", "status", "org.freedesktop.systemd1"]).status == 0);
        systemd
    }

    /// Another configuration in the bundle, changed from the first.
    fn configure(&self, name: &str, change: impl FnOnce(&mut serde_json::Value)) {
        let mut config = serde_json::from_slice(&std::fs::read(self.bundle.join("config.json")).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(self.bundle.join(name), config.to_string()).unwrap();
    }

    /// A program beside systemd.
    fn run(&self, program: &[&str]) -> Done {
        self.site.run(&[&["exec", &self.site.id], program].concat())
    }

    /// The runtime beside systemd.
    fn runtime(&self, arguments: &[&str]) -> Done {
        self.run(&[&[RUNTIME, "--root", "/run/inner"], arguments].concat())
    }

    /// A program as the ordinary user.
    fn as_user(&self, program: &[&str]) -> Done {
        let user = ["exec", "--user", "65534:65534", "--env", "XDG_RUNTIME_DIR=/run/manager", &self.site.id];
        self.site.run(&[&user, program].concat())
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let done = self.runtime(arguments);
        assert_eq!(done.status, 0, "{arguments:?}: {done:?}");
        done.stdout
    }

    fn property(&self, unit: &str, name: &str) -> String {
        let done = self.run(&["systemctl", "show", unit, "--value", "--property", name]);
        done.stdout.trim().to_owned()
    }
}

fn a_scope_is_made_changed_and_ended() {
    let systemd = Systemd::boot();
    let bundle = systemd.bundle.to_str().unwrap().to_owned();
    let unit = "inner-one.scope";
    let directory = systemd.site.cgroup().join("test.slice/test-deep.slice").join(unit);
    // Twice, as the name must be free again.
    for _ in 0..2 {
        systemd.ok(&["--systemd-cgroup", "create", "--bundle", &bundle, "one"]);
        assert_eq!(systemd.property(unit, "ActiveState"), "active");
        assert_eq!(systemd.property(unit, "Slice"), "test-deep.slice");
        assert_eq!(systemd.property(unit, "Delegate"), "yes");
        assert_eq!(systemd.property(unit, "TimeoutStopUSec"), "1.230000s");
        assert_eq!(systemd.property(unit, "Description"), "garboard-runtime container one");
        let pids = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap();
        assert_eq!(pids.lines().count(), 1, "{pids}");
        systemd.ok(&["start", "one"]);
        assert!(systemd.ok(&["state", "one"]).contains("\"running\""));
        // A new process is where the container is, and it is frozen and thawed there.
        assert_eq!(systemd.ok(&["exec", "one", "cat", "/proc/self/cgroup"]).lines().last(), Some("0::/"));
        systemd.ok(&["pause", "one"]);
        assert!(std::fs::read_to_string(directory.join("cgroup.events")).unwrap().contains("frozen 1"));
        systemd.ok(&["resume", "one"]);
        // There may be no controller here: what systemd isn't told of, and what it can't be told.
        let done = systemd.runtime(&["update", "--pids-limit", "-1", "one"]);
        assert_eq!(done.status, 0, "{done:?}");
        systemd.ok(&["delete", "--force", "one"]);
        assert!(!directory.exists());
        assert_eq!(systemd.property(unit, "LoadState"), "not-found");
    }
    // The control: without the flag no unit is made, and the path is one of directories.
    systemd.ok(&["create", "--bundle", &bundle, "one"]);
    assert!(systemd.site.cgroup().join("test-deep.slice:inner:one").exists());
    assert_eq!(systemd.property(unit, "LoadState"), "not-found");
    systemd.ok(&["delete", "--force", "one"]);

    a_cgroup_in_the_scope_may_be_the_container_s(&systemd, &directory);
    a_container_is_restored_into_a_scope(&systemd, &directory);
    a_name_in_use_is_refused(&systemd, &bundle);
    an_ordinary_user_has_scopes_too(&systemd);
    a_property_that_systemd_refuses_leaves_nothing(&systemd);
    limits_are_properties(&systemd);
}

/// By crun's annotations: what limits it is beneath the scope, and its process beneath that.
fn a_cgroup_in_the_scope_may_be_the_container_s(systemd: &Systemd, scope: &Path) {
    let bundle = systemd.bundle.to_str().unwrap();
    systemd.configure("beneath.json", |config| {
        config["annotations"] = json!({"run.oci.systemd.subgroup": "inside", "run.oci.delegate-cgroup": "/init"});
        config["linux"]["resources"] = json!({"unified": {"cgroup.max.depth": "7"}});
    });
    systemd.ok(&["--systemd-cgroup", "run", "--detach", "--bundle", bundle, "--config", "beneath.json", "one"]);
    let read = |file: &str| std::fs::read_to_string(scope.join(file)).unwrap();
    assert_eq!((read("cgroup.procs").as_str(), read("inside/cgroup.procs").as_str()), ("", ""));
    assert_eq!(read("inside/init/cgroup.procs").lines().count(), 1);
    assert_eq!((read("cgroup.max.depth").as_str(), read("inside/cgroup.max.depth").as_str()), ("max\n", "7\n"));
    systemd.ok(&["pause", "one"]);
    assert!(read("inside/init/cgroup.events").contains("frozen 1"));
    systemd.ok(&["delete", "--force", "one"]);
    assert!(!scope.exists());
}

/// With a fake criu, which is in the scope before it makes anything.
fn a_container_is_restored_into_a_scope(systemd: &Systemd, scope: &Path) {
    let bundle = systemd.bundle.to_str().unwrap();
    let criu = fake(&systemd.site);
    // Where it may write.
    let copy = format!("mkdir /run/fake /run/images && cp {criu} {} /run/fake/", criu.replace("criu", "program"));
    assert_eq!(systemd.run(&["sh", "-c", &copy]).status, 0);
    let restore = ["--systemd-cgroup", "--criu", "/run/fake/criu", "restore", "--detach", "--bundle", bundle];
    systemd.ok(&[&restore[..], &["--image-path", "/run/images", "one"]].concat());
    assert!(systemd.ok(&["state", "one"]).contains("\"running\""));
    // criu itself has ended.
    let pids = || std::fs::read_to_string(scope.join("cgroup.procs")).unwrap();
    until("the program is alone", || pids().lines().count() == 1);
    let path = "/test.slice/test-deep.slice/inner-one.scope";
    let asked = |words: &str| systemd.run(&["grep", "-aqF", words, "/run/fake/request"]).status == 0;
    assert!(asked(path) && asked(&format!("mnt[/sys/fs/cgroup]:/sys/fs/cgroup{path}")));
    systemd.ok(&["delete", "--force", "one"]);
    assert!(!scope.exists());
    // What fails leaves neither.
    assert_eq!(systemd.run(&["touch", "/run/fake/fail"]).status, 0);
    let done = systemd.runtime(&[&restore[..], &["--image-path", "/run/images", "one"]].concat());
    assert!(done.status == 1 && done.stderr.contains("exit status 1"), "{done:?}");
    assert_eq!(systemd.runtime(&["state", "one"]).status, 1);
    assert!(!scope.exists());
}

/// systemd takes every property that there is for a limit. Whether the limits then hold is a question of controllers.
fn limits_are_properties(systemd: &Systemd) {
    let limits = json!({
        "memory": {"limit": 1 << 26, "reservation": 1 << 25, "swap": 1 << 27},
        "cpu": {"shares": 512, "quota": 50000, "period": 100_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 64},
        "unified": {"memory.high": "max", "memory.min": "0", "io.weight": "default 50"},
    });
    systemd.configure("limits.json", |config| config["linux"]["resources"] = limits);
    let bundle = systemd.bundle.to_str().unwrap();
    let done =
        systemd.runtime(&["--systemd-cgroup", "create", "--bundle", bundle, "--config", "limits.json", "limits"]);
    assert!(done.status == 0 || done.stderr.contains("create: error: set cgroup "), "{done:?}");
    systemd.ok(&["delete", "--force", "limits"]);
    assert_eq!(systemd.property("inner-one.scope", "LoadState"), "not-found");
}

fn a_name_in_use_is_refused(systemd: &Systemd, bundle: &str) {
    systemd.ok(&["--systemd-cgroup", "run", "--detach", "--bundle", bundle, "one"]);
    let done = systemd.runtime(&["--systemd-cgroup", "create", "--bundle", bundle, "two"]);
    assert_eq!(done.status, 1, "{done:?}");
    assert!(
        done.stderr.contains("have systemd make inner-one.scope") && done.stderr.contains("UnitExists"),
        "{done:?}"
    );
    assert_eq!(systemd.runtime(&["state", "two"]).status, 1);
    assert!(systemd.ok(&["state", "one"]).contains("\"running\""));
    systemd.ok(&["delete", "--force", "one"]);
}

/// From a cgroup that the user's own systemd has nothing to say in, as that of a login session.
fn an_ordinary_user_has_scopes_too(systemd: &Systemd) {
    let as_user = |arguments: &[&str]| {
        let done = systemd.as_user(&[&[RUNTIME], arguments].concat());
        assert_eq!(done.status, 0, "{arguments:?}: {done:?}");
        done.stdout
    };
    until("the user's bus is there", || {
        systemd.as_user(&["busctl", "--user", "status", "org.freedesktop.systemd1"]).status == 0
    });
    let map = json!([{"containerID": 0, "hostID": 65534, "size": 1}]);
    let mut config = json!({
        "ociVersion": "1.3.0",
        "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/bin/sh", "-c", "sleep 60"], "env": ["PATH=/bin"]},
        "root": {"path": place().rootfs(), "readonly": true},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        ],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "user"}, {"type": "cgroup"}],
            "uidMappings": map, "gidMappings": map, "cgroupsPath": ":inner:mine",
        },
    });
    let bundle = systemd.bundle.to_str().unwrap();
    let scope = "test.slice/test-users.slice/manager.service/user.slice/inner-mine.scope";
    let directory = systemd.site.cgroup().join(scope);
    let beneath = json!({"run.oci.systemd.subgroup": "inside", "run.oci.delegate-cgroup": "init"});
    for (annotations, place) in [(json!({}), directory.clone()), (beneath, directory.join("inside/init"))] {
        config["annotations"] = annotations;
        std::fs::write(systemd.bundle.join("ordinary.json"), config.to_string()).unwrap();
        as_user(&["--systemd-cgroup", "create", "--bundle", bundle, "--config", "ordinary.json", "mine"]);
        let count = || std::fs::read_to_string(place.join("cgroup.procs")).unwrap().lines().count();
        assert_eq!(count(), 1);
        as_user(&["start", "mine"]);
        // It is the container's cgroup that the new process is in.
        as_user(&["exec", "--detach", "mine", "sleep", "60"]);
        assert_eq!(count(), 2);
        as_user(&["delete", "--force", "mine"]);
        assert!(!directory.exists());
    }
}

fn a_property_that_systemd_refuses_leaves_nothing(systemd: &Systemd) {
    let annotations = json!({"org.systemd.property.NoSuchThing": "true"});
    systemd.configure("wrong.json", |config| config["annotations"] = annotations);
    let bundle = systemd.bundle.to_str().unwrap();
    let done = systemd.runtime(&["--systemd-cgroup", "run", "--bundle", bundle, "--config", "wrong.json", "wrong"]);
    assert_eq!(done.status, 1, "{done:?}");
    assert!(done.stderr.contains("NoSuchThing"), "{done:?}");
    assert_eq!(systemd.runtime(&["state", "wrong"]).status, 1);
    assert_eq!(systemd.property("inner-one.scope", "LoadState"), "not-found");
}

fn a_path_must_be_slice_prefix_name() {
    for wrong in ["/a/b", "a.slice:b", "a:b:c", "a.slice:b:"] {
        let site = shell("true").change(|c| c["linux"]["cgroupsPath"] = json!(wrong));
        let error = site.fails(&["--systemd-cgroup", "create", &site.id]);
        assert!(error.contains("linux.cgroupsPath") && error.contains("slice"), "{wrong}: {error}");
        site.assert_gone();
    }
    let site = shell("true").change(|c| c["annotations"] = json!({"org.systemd.property.X": "uint64 x"}));
    assert!(
        site.fails(&["--cgroup-manager=systemd", "create", &site.id]).contains("annotations[org.systemd.property.X]")
    );
    site.assert_gone();
}

/// What is heard, and what is said then.
type Answers = &'static [(&'static str, &'static [u8])];

/// Listens once, hears and answers as told, and hangs up.
fn bus(answers: Answers) -> (String, std::thread::JoinHandle<()>) {
    bus_then(answers, || {})
}

/// The same, and does something before it hangs up.
fn bus_then(answers: Answers, then: impl FnOnce() + Send + 'static) -> (String, std::thread::JoinHandle<()>) {
    let directory = tempfile::Builder::new().tempdir_in(place().rootfs().parent().unwrap()).unwrap().keep();
    let path = directory.join("bus");
    let listener = UnixListener::bind(&path).unwrap();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut heard = Vec::new();
        for (until, answer) in answers {
            while !String::from_utf8_lossy(&heard).contains(until) {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    return;
                }
                heard.extend(byte);
            }
            // It may have hung up first.
            let _ = stream.write_all(answer);
        }
        then();
    });
    (format!("unix:path={}", path.display()), peer)
}

/// The bus takes the caller for who it says it is.
const OK: &[u8] = b"OK 0123456789abcdef0123456789abcdef\r\n";
/// Empty answers to the first two calls.
const HELLO: &[u8] = b"l\x02\x01\x01\0\0\0\0\x01\0\0\0\x08\0\0\0\x05\x01u\0\x01\0\0\0";
const MATCH: &[u8] = b"l\x02\x01\x01\0\0\0\0\x02\0\0\0\x08\0\0\0\x05\x01u\0\x02\0\0\0";

fn a_bus_that_fails_leaves_nothing() {
    const TRUNCATED: &[u8] = b"l\x02\x00\x01\x08\x00\x00\x00\x01\x00\x00\x00";
    const ENDLESS: &[u8] = b"l\x02\x00\x01\xff\xff\xff\xff\x01\x00\x00\x00\xff\xff\xff\xff";
    let cases: [(Answers, &str); 6] = [
        (&[], "authenticate: "),
        (&[("AUTH", b"REJECTED ANONYMOUS\r\n")], "the bus says \"REJECTED ANONYMOUS\""),
        (&[("AUTH", b"DATA\r\n"), ("DATA\r\n", b"ERROR\r\n")], "the bus says \"ERROR\""),
        (&[("AUTH", b"DATA\r\n"), ("DATA\r\n", OK), ("Hello", TRUNCATED)], "Hello: "),
        (&[("AUTH", b"DATA\r\n"), ("DATA\r\n", OK), ("Hello", ENDLESS)], "the bus sent what is no message"),
        (
            &[("AUTH", b"DATA\r\n"), ("DATA\r\n", OK), ("Hello", b"garbage garbage garbage ")],
            "the bus sent what is no message",
        ),
    ];
    for (answers, named) in cases {
        let (address, peer) = bus(answers);
        let site = shell("sleep 60");
        let mut command = site.command(&["--systemd-cgroup", "create", &site.id]);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", &address);
        let done = crate::site::finish(command);
        assert_eq!(done.status, 1, "{named}: {done:?}");
        assert!(
            done.stderr.contains(&format!("the system bus at {address}: ")) && done.stderr.contains(named),
            "{named}: {done:?}"
        );
        assert!(done.stderr.contains("--cgroup-manager=cgroupfs"), "{done:?}");
        peer.join().unwrap();
        site.assert_gone();
    }
    let site = shell("sleep 60");
    let mut command = site.command(&["--systemd-cgroup", "create", &site.id]);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/absent");
    let done = crate::site::finish(command);
    assert!(done.status == 1 && done.stderr.contains("connect: No such file or directory"), "{done:?}");
    site.assert_gone();
}

/// Adds a text, where one may stand (D-Bus Specification, "Marshaling").
fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

/// A message of that kind, its body marshaled already; an answer is one to the third call.
fn message(kind: u8, sender: &str, signature: &str, body: &[u8]) -> Vec<u8> {
    let mut fields = Vec::new();
    let mut field = |code: u8, kind: u8, value: &dyn Fn(&mut Vec<u8>)| {
        fields.resize(fields.len().next_multiple_of(8), 0);
        fields.extend([code, 1, kind, 0]);
        value(&mut fields);
    };
    match kind {
        2 => field(5, b'u', &|bytes| bytes.extend(3_u32.to_le_bytes())),
        _ => field(3, b's', &|bytes| put_text(bytes, "JobRemoved")),
    }
    field(7, b's', &|bytes| put_text(bytes, sender));
    field(8, b'g', &|bytes| {
        bytes.push(signature.len() as u8);
        bytes.extend(signature.as_bytes());
        bytes.push(0);
    });
    let mut bytes = vec![b'l', kind, 0, 1];
    for number in [body.len(), 1, fields.len()] {
        bytes.extend((number as u32).to_le_bytes());
    }
    bytes.extend(fields);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(body);
    bytes
}

/// Whoever else sends the signal that the job is done, even before it has begun.
fn only_systemd_says_that_a_scope_is_made() {
    let removed = |result: &str| {
        let mut body = 1_u32.to_le_bytes().to_vec();
        ["/job", "x.scope", result].iter().for_each(|text| put_text(&mut body, text));
        body
    };
    let mut job = Vec::new();
    put_text(&mut job, "/job");
    let said = |by: &str| {
        let forged = message(4, by, "uoss", &removed("done"));
        let told: &'static [u8] =
            [forged, message(2, ":1.5", "o", &job), message(4, ":1.5", "uoss", &removed("failed"))].concat().leak();
        let answers: Answers = vec![
            ("AUTH", &b"DATA\r\n"[..]),
            ("DATA\r\n", OK),
            ("Hello", HELLO),
            ("AddMatch", MATCH),
            ("StartTransientUnit", told),
        ]
        .leak();
        let (address, peer) = bus(answers);
        let site = shell("sleep 60");
        let mut command = site.command(&["--systemd-cgroup", "create", &site.id]);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", &address);
        let done = crate::site::finish(command);
        peer.join().unwrap();
        site.assert_gone();
        assert_eq!(done.status, 1, "{done:?}");
        done.stderr
    };
    let stderr = said(":1.666");
    assert!(stderr.contains("the job's result is \"failed\""), "{stderr}");
    // Control: from systemd it would be believed; but its own word isn't enough for a cgroup of another name.
    let stderr = said(":1.5");
    assert!(stderr.contains("it says that it has, but process"), "{stderr}");
}

/// The container's process is there by then, and waits for a launcher that never comes.
fn a_runtime_killed_at_the_bus_leaves_nothing_that_delete_can_t_remove() {
    const ANSWERS: Answers =
        &[("AUTH", b"DATA\r\n"), ("DATA\r\n", OK), ("Hello", HELLO), ("AddMatch", MATCH), ("StartTransientUnit", b"")];
    let (heard, hears) = std::sync::mpsc::channel();
    let (hang_up, hangs_up) = std::sync::mpsc::channel::<()>();
    let (address, peer) = bus_then(ANSWERS, move || {
        heard.send(()).unwrap();
        // Until the runtime is dead.
        let _ = hangs_up.recv();
    });
    let site = shell("sleep 60");
    let mut command = site.command(&["--systemd-cgroup", "create", &site.id]);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", &address).stdout(std::process::Stdio::null());
    let mut runtime = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    hears.recv_timeout(crate::site::DEADLINE).expect("systemd is asked for a scope");
    // The runtime and the fork of it that is to be the container.
    assert_eq!(crate::faults::processes_of(&site.id), 2);
    runtime.kill().unwrap();
    runtime.wait().unwrap();
    hang_up.send(()).unwrap();
    peer.join().unwrap();
    site.ok(&["delete", "--force", &site.id]);
    site.assert_gone();
    until("no process is left", || crate::faults::processes_of(&site.id) == 0);
}

fn an_ordinary_user_has_a_bus_of_its_own() {
    let site = shell("true");
    let mut command = site.command(&["--systemd-cgroup", "run", &site.id]);
    command.env_remove("DBUS_SESSION_BUS_ADDRESS").env_remove("XDG_RUNTIME_DIR");
    let done = crate::site::finish(command);
    assert!(
        done.status == 1 && done.stderr.contains("neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR"),
        "{done:?}"
    );
    let mut command = site.command(&["--systemd-cgroup", "run", &site.id]);
    command.env_remove("DBUS_SESSION_BUS_ADDRESS").env("XDG_RUNTIME_DIR", &site.directory);
    let done = crate::site::finish(command);
    let address = format!("the user's bus at unix:path={}/bus", site.directory.display());
    assert!(done.status == 1 && done.stderr.contains(&address), "{done:?}");
    site.assert_gone();
}
