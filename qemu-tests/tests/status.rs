//! The status of a real machine, asked from outside while PID 1 crashes, and by people's commands.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use garboard_qemu::{Image, Vm, secs};
use serde_json::Value;
use support::{BOOT, Project, fixture, text};

/// `saboteur` crashes PID 1 once somebody has connected to port 7000.
fn declaration() -> String {
    r#"
    name = "watched"

    [containers.web]
    image = "BUSYBOX"
    command = ["sh", "-c", "i=0; while :; do echo beat $((i += 1)); sleep 1; done"]
    restart = "always"

    [containers.saboteur]
    image = "BUSYBOX"
    command = ["sh", "-c", "nc -l -p 7000 </dev/null; kill -SEGV 1; exec sleep 1000000"]
    network_mode = "host"
    ports = ["7000:7000"]
    pid = "host"
    userns_mode = "host"
    cap_add = ["KILL"]
    restart = "always"
    "#
    .replace("BUSYBOX", &fixture("oci", "busybox"))
}

#[test]
fn a_subscription_goes_on_over_a_crash_of_pid_1() {
    let project = Project::new(&declaration());
    let image = Image::load(project.build_without_disk()).unwrap();
    let vm = Vm::boot(&image).unwrap();
    vm.wait_console("beat 1", BOOT).unwrap();
    // QEMU serves one program at a time: from here on this is the one.
    let stream = UnixStream::connect(vm.status_socket()).unwrap();
    stream.set_read_timeout(Some(secs(2))).unwrap();
    let mut port = BufReader::new(stream);
    let deadline = Instant::now() + garboard_qemu::scaled(secs(120));
    let (mut numbers, mut crashed, mut beats, mut asked) = (Vec::new(), false, 0, None::<Instant>);
    while !(crashed && beats > 2) {
        assert!(Instant::now() < deadline, "{numbers:?}\n{}", vm.console().tail(40));
        // What was said before PID 1 listened got lost.
        if numbers.is_empty() && asked.is_none_or(|at| at.elapsed() > secs(2)) {
            let request = b"\n{\"id\":1,\"request\":\"subscribe\",\"events\":true,\"logs\":[\"web\"],\"since\":0}\n";
            port.get_mut().write_all(request).unwrap();
            asked = Some(Instant::now());
        }
        let mut line = String::new();
        let _ = port.read_line(&mut line);
        let told: Value = serde_json::from_str(&line).unwrap_or_default();
        if told["type"] == "subscribed" {
            // All come again, if both requests were heard.
            numbers.clear();
        }
        if let Some(number) = told["event"]["number"].as_u64() {
            numbers.push(number);
            crashed |= told["event"]["kind"] == "crash";
            let text = told["event"]["text"].as_str().unwrap();
            assert!(told["event"]["kind"] != "crash" || text.contains("fatal signal 11 sent by process"), "{told}");
        }
        beats += u32::from(crashed && told["type"] == "log");
        if !crashed && numbers.len() > 2 {
            // When it has struck nobody listens any more.
            let _ = TcpStream::connect(vm.address(7000).unwrap());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    // Numbers go on. One that was on its way when PID 1 crashed may have come twice.
    numbers.dedup();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    drop(port);
    let events = vm.request("events", &serde_json::Map::from_iter([("since".to_owned(), 0.into())])).unwrap();
    let crashes = events["events"].as_array().unwrap().iter().filter(|event| event["kind"] == "crash").count();
    assert_eq!(crashes, 1, "{events}");
    vm.power_off(secs(60)).unwrap();
}

#[test]
fn a_detached_machine_is_asked_and_switched_off() {
    let project = Project::new(&declaration());
    project.build_without_disk();
    let output = project.garboard(["run", "--detach"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let started = text(&output.stdout);
    let pid = started.split("process ").nth(1).and_then(|rest| rest.split(';').next()).unwrap().to_owned();
    let mut seen = String::new();
    let deadline = Instant::now() + garboard_qemu::scaled(BOOT);
    while !seen.contains("beat 3") && Instant::now() < deadline {
        seen = text(&project.garboard(["logs", "web"]).stdout).to_owned();
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(seen.contains("beat 3"), "{seen}");
    let status = text(&project.garboard(["status"]).stdout).to_owned();
    assert!(status.starts_with("watched is ") && status.contains("\nweb "), "{status}");
    assert!(!status.contains('\x1b'), "no colours without a terminal: {status:?}");
    let json: Value = serde_json::from_slice(&project.garboard(["status", "--json"]).stdout).unwrap();
    assert_eq!(json["appliance"], "watched");
    let events = text(&project.garboard(["events"]).stdout).to_owned();
    assert!(events.lines().next().unwrap().contains(" boot "), "{events}");
    assert!(events.lines().any(|line| line.contains("web") && line.contains("started")), "{events}");
    let refused = project.garboard(["logs", "nobody"]);
    assert!(text(&refused.stderr).contains("no container is named \"nobody\""), "{}", text(&refused.stderr));
    // One is enough.
    let second = project.garboard(["run", "--detach"]);
    assert!(text(&second.stderr).contains("runs already"), "{}", text(&second.stderr));
    let second = project.garboard(["run"]);
    assert!(text(&second.stderr).contains(&format!("runs already (process {pid})")), "{}", text(&second.stderr));
    // One that keeps nothing may be there besides, and takes nothing along when it ends.
    let fresh = project.garboard(["run", "--fresh", "--until-ready"]);
    assert!(fresh.status.success(), "{}", text(&fresh.stderr));
    assert!(project.garboard(["status"]).status.success(), "the first is out of reach");
    assert!(std::process::Command::new("kill").arg(&pid).status().unwrap().success());
    let deadline = Instant::now() + garboard_qemu::scaled(secs(90));
    while project.garboard(["status"]).status.success() || std::path::Path::new(&format!("/proc/{pid}/exe")).exists() {
        assert!(Instant::now() < deadline, "it is still there");
        std::thread::sleep(Duration::from_millis(200));
    }
    let gone = project.garboard(["status"]);
    assert!(text(&gone.stderr).contains("no machine of out is running"), "{}", text(&gone.stderr));
}
