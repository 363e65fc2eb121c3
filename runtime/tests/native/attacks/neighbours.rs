//! R10: one container against another.

use std::os::fd::AsFd;

use garboard_runtime::cgroup;
use garboard_runtime::spec::{NamespaceChoice, Options};
use garboard_runtime::start::{Started, Stdio};
use libtest_mimic::Trial;
use rustix::pipe::{PipeFlags, pipe_with};

use super::{as_machine_root, powerful};
use crate::site::{BASE_ID, Container, ids, probe, reap, wait_readable};

pub fn tests() -> Vec<Trial> {
    trials![
        r10_sockets_and_shared_memory_are_out_of_reach,
        r10_other_processes_are_out_of_reach,
        r10_every_wall_before_a_process_stands_alone,
    ]
}

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const ECONNREFUSED: i32 = 111;

/// What the victim is asked for by: its abstract socket and POSIX shared memory, its System V segment.
const NAME: &str = "garboard-victim";
const KEY: &str = "1078071040";

/// A running container that has a socket, shared memory of both kinds, and a file open.
struct Victim {
    container: Container,
    started: Started,
}

impl Victim {
    fn start(change: impl FnOnce(&mut Options)) -> Self {
        Self::run(&["victim", NAME, KEY], change)
    }

    fn run(arguments: &[&str], change: impl FnOnce(&mut Options)) -> Self {
        let container = probe(arguments).named("victim").options(change);
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let stdio = Stdio { stdin: None, stdout: Some(writer.as_fd()), stderr: None };
        let started = container.start(stdio).unwrap();
        drop(writer);
        wait_readable(reader.as_fd(), &started);
        let mut said = [0; 16];
        let n = rustix::io::read(&reader, &mut said).unwrap();
        assert_eq!(&said[..n], b"ready\n");
        Self { container, started }
    }

    fn pid(&self) -> String {
        self.started.pid.to_string()
    }

    fn namespace(&self, kind: &str) -> NamespaceChoice {
        NamespaceChoice::Path(format!("/proc/{}/ns/{kind}", self.started.pid))
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        cgroup::kill(self.started.cgroup.as_ref().unwrap()).unwrap();
        reap(&self.started);
        self.container.remove_cgroup();
    }
}

/// The attacker: another container, with ids of its own as the builder gives them. Its errno, 0 for success.
fn attacker(arguments: &[&str]) -> Container {
    probe(arguments).options(|o| o.ids = Some(ids(BASE_ID + 65_536)))
}

fn errno(container: Container) -> i32 {
    container.run().unwrap().status
}

fn r10_sockets_and_shared_memory_are_out_of_reach() {
    let (socket, segment, memory) = (["abstract", NAME], ["shm", KEY], ["posix-shm", NAME]);
    let victim = Victim::start(|_| {});
    let found = [&socket, &segment, &memory].map(|attack| errno(attacker(attack)));
    // Control: joined by declaration, as containers of one pod are.
    let (network, ipc) = (victim.namespace("net"), victim.namespace("ipc"));
    let joined = [
        errno(attacker(&socket).options(|o| o.network = network)),
        errno(attacker(&segment).options(|o| o.ipc = ipc.clone())),
    ];
    // Who joins System V memory by its namespace gets neither the other's `/dev/shm` by it nor the machine's.
    let by_namespace = errno(attacker(&memory).options(|o| o.ipc = ipc));
    drop(victim);
    assert_eq!(found, [ECONNREFUSED, ENOENT, ENOENT]);
    assert_eq!(joined, [0, 0], "control: in shared namespaces each succeeds");
    assert_eq!(by_namespace, ENOENT);

    // Without the System V segment, which would outlive it in the machine's namespace.
    let victim = Victim::run(&["victim", NAME], |o| o.ipc = NamespaceChoice::Host);
    let shared = errno(attacker(&memory).options(|o| o.ipc = NamespaceChoice::Host));
    let apart = errno(attacker(&memory));
    drop(victim);
    // It is the machine's own directory.
    std::fs::remove_file(format!("/dev/shm/{NAME}")).unwrap();
    assert_eq!((shared, apart), (0, ENOENT), "control: `ipc: host` on both sides shares it");
}

fn r10_other_processes_are_out_of_reach() {
    let attacks = ["kill", "ptrace", "getfd"];
    let victim = Victim::start(|_| {});
    let pid = victim.pid();
    // With every capability of its own user namespace and without a filter.
    let found = attacks.map(|attack| errno(attacker(&[attack, &pid]).change(powerful)));
    drop(victim);
    assert_eq!(found, [ESRCH; 3]);

    let victim = Victim::start(|o| o.ids = None);
    let pid = victim.pid();
    let root = |attack| as_machine_root(probe(&[attack, &pid])).options(|o| o.pid = NamespaceChoice::Host);
    let shared = attacks.map(|attack| errno(root(attack)));
    drop(victim);
    assert_eq!(shared, [0; 3], "control: user and pid namespace shared, no filter");
}

fn r10_every_wall_before_a_process_stands_alone() {
    let attacks = ["kill", "ptrace", "getfd"];
    let victim = Victim::start(|_| {});
    let pid = victim.pid();
    // `pid: host` lets it see the process; its user namespace still isn't theirs.
    let seen = attacks
        .map(|attack| errno(attacker(&[attack, &pid]).options(|o| o.pid = NamespaceChoice::Host).change(powerful)));
    // The machine's own root in a pid namespace of its own doesn't even see it.
    let unseen = attacks.map(|attack| errno(as_machine_root(probe(&[attack, &pid]))));
    // With both shared, the filter still denies what reaches into a process.
    let filtered = ["ptrace", "getfd"]
        .map(|attack| errno(probe(&[attack, &pid]).options(|o| (o.ids, o.pid) = (None, NamespaceChoice::Host))));
    drop(victim);
    assert_eq!((seen, unseen, filtered), ([EPERM; 3], [ESRCH; 3], [EPERM; 2]));
}
