//! Networks and namespaces shared between containers.

use std::io::Read;
use std::net::TcpStream;

use libtest_mimic::Trial;

use super::{IMAGE, Podman};
use crate::command::until;
use crate::trials_of;

pub fn for_everybody(podman: &'static Podman) -> Vec<Trial> {
    trials_of![podman; the_machine_s_network_is_shared, namespaces_are_shared_between_containers, a_pod_is_one_network]
}

pub fn with_ids(podman: &'static Podman) -> Vec<Trial> {
    trials_of![podman; a_published_port_answers]
}

fn the_machine_s_network_is_shared(podman: &'static Podman) {
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(podman.shell(&["--network=host"], "readlink /proc/self/ns/net"), own.to_string_lossy());
    assert_ne!(podman.shell(&["--network=none"], "readlink /proc/self/ns/net"), own.to_string_lossy());
}

fn namespaces_are_shared_between_containers(podman: &'static Podman) {
    let first = podman.start(&["--ipc=shareable"], "exec sleep 1000");
    let script = "for n in net pid ipc uts mnt; do readlink /proc/self/ns/$n; done";
    let of_first = first.exec(&[], &["sh", "-c", script]);
    let of = |kind: &str| format!("--{kind}=container:{}", first.name);
    let second = podman.shell(&[&of("network"), &of("pid"), &of("ipc")], script);
    let (a, b): (Vec<&str>, Vec<&str>) = (of_first.lines().collect(), second.lines().collect());
    assert_eq!(a[..3], b[..3]);
    assert!(a[3] != b[3] && a[4] != b[4], "{a:?} {b:?}");
}

fn a_pod_is_one_network(podman: &'static Podman) {
    let name = podman.fresh();
    // Podman 4.3 denies the cgroup of a pod all devices, unless systemd makes it: the members aren't put beneath it.
    podman.ok(&["pod", "create", "--network=none", "--share-parent=false", "--name", &name]);
    let inside = "readlink /proc/self/ns/net; hostname";
    let run = |script: &str| podman.ok(&["run", "--rm", "--pod", &name, IMAGE, "sh", "-c", script]);
    let (first, second) = (run(inside), run(inside));
    assert_eq!(first, second);
    assert!(first.ends_with(&name), "{first}");
    podman.ok(&["pod", "rm", "--force", "--time=0", &name]);
}

fn a_published_port_answers(podman: &'static Podman) {
    // Each network has ports of its own, but both Podmans' tests run at once in this one.
    let port = if podman.is_root() { 8090 } else { 8091 };
    let publish = format!("127.0.0.1:{port}:80");
    let script = "while :; do echo hello from inside | nc -l -p 80; done";
    let _container = podman.start(&["-p", &publish], script);
    until("it answers", || {
        let mut text = String::new();
        TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| stream.read_to_string(&mut text)).is_ok()
            && text == "hello from inside\n"
    });
}
