//! Logs that outlive the machine: over a power cut, and with the last words of an orderly end.

mod support;

use std::time::Instant;

use garboard_qemu::{Image, Vm, scaled, secs};
use serde_json::{Map, Value, json};
use support::{BOOT, Project, fixture, judge, text};

fn declaration() -> String {
    r#"
    name = "kept"

    [containers.web]
    image = "BUSYBOX"
    command = ["sh", "-c", """
        trap 'echo last words; exit 0' TERM
        i=0; while :; do i=$((i + 1)); echo line $i; sleep 0.1; done
    """]
    restart = "always"
    logging = { driver = "local", options = { max-size = "64k", max-file = 3 } }
    "#
    .replace("BUSYBOX", &fixture("oci", "busybox"))
}

/// The number of the newest line that PID 1 has.
fn newest(vm: &Vm) -> usize {
    vm.logs("web", 1).unwrap().last().and_then(|line| line.strip_prefix("line ")?.parse().ok()).unwrap_or(0)
}

/// Asserts that these are the first lines, without a gap, and says how many.
fn from_the_first(lines: &[&str]) -> usize {
    let expected: Vec<String> = (1..=lines.len()).map(|n| format!("line {n}")).collect();
    assert_eq!(lines, expected);
    lines.len()
}

#[test]
fn kept_logs_survive_a_power_cut_and_have_the_last_words() {
    let project = Project::new(&declaration());
    let image = Image::load(project.build_without_disk()).unwrap();
    let state = project.path("state");
    let boot = || Vm::builder(&image).state(&state).boot().unwrap();

    let vm = boot();
    vm.wait_console("line 20", BOOT).unwrap();
    let kept = json!({"state": "kept", "detail": ""});
    let kept = |_: &_| Ok(vm.request("status", &Map::new())?["snapshot"]["kept_logs"] == kept);
    vm.wait_status("logs that are kept", BOOT, kept).unwrap();
    let seen = newest(&vm);
    assert!(seen >= 20);
    // By the machine's own clock, as it may be a slow one: what is older than this is to survive.
    let (at, deadline) = (vm.status().unwrap().uptime_ms, Instant::now() + scaled(secs(120)));
    while vm.status().unwrap().uptime_ms < at + 6_000 {
        assert!(Instant::now() < deadline, "its clock stands still");
        std::thread::sleep(secs(1));
    }
    let printed = newest(&vm);
    vm.hard_stop();
    drop(vm);

    let vm = boot();
    vm.wait_console("line 3", BOOT).unwrap();
    let socket = vm.status_socket().display().to_string();
    let arguments = ["logs", "--previous", "-n1000", "web", "--socket", &socket];
    let (mut output, deadline) = (project.garboard(arguments), Instant::now() + scaled(secs(60)));
    while text(&output.stderr).contains("not yet mounted") && Instant::now() < deadline {
        output = project.garboard(arguments);
    }
    let told = text(&output.stdout);
    assert!(output.status.success() && told.starts_with("20"), "{told}\n{}", text(&output.stderr));
    let lines: Vec<&str> = told.lines().map(|line| line.split_once("Z ").expect(line).1).collect();
    let kept = from_the_first(&lines);
    assert!(kept >= seen && kept <= printed + 100, "{seen} seen, {kept} kept, {printed} printed");
    let ask = Map::from_iter([("container".to_owned(), "web".into()), ("previous".to_owned(), true.into())]);
    let reply = vm.request("logs", &ask).unwrap();
    let lines = reply["lines"].as_array().unwrap();
    assert_eq!(lines.len(), kept.min(100), "as many as nobody asks for");
    let boots: Vec<&Value> = lines.iter().map(|line| &line["boot"]).collect();
    assert!(boots[0].as_str().is_some_and(|id| id.len() == 36) && boots.iter().all(|id| id == &boots[0]), "{boots:?}");
    assert!(lines.windows(2).all(|w| w[0]["time_ms"].as_u64() <= w[1]["time_ms"].as_u64()), "{lines:?}");
    let firsts = vm.logs("web", 1000).unwrap().into_iter().filter(|line| line == "line 1").count();
    assert_eq!(firsts, 1, "this boot's are its own");
    vm.power_off(secs(60)).unwrap();

    // On another machine.
    let data = state.join("data.ext4");
    judge("e2fsck", ["-f", "-n", data.to_str().unwrap()]);
    let file = judge("debugfs", ["-R", "cat /.garboard/logs/web/log", data.to_str().unwrap()]);
    let file: Vec<&str> = file.lines().filter(|line| !line.starts_with("debugfs")).collect();
    let marks: Vec<usize> = (0..file.len()).filter(|at| file[*at].starts_with("# boot ")).collect();
    let [first, second] = marks[..] else { panic!("two boots: {file:#?}") };
    assert!(file[first].contains(boots[0].as_str().unwrap()) && file[first].contains(" began 20"), "{}", file[first]);
    let texts = |lines: &[&str]| -> Vec<String> {
        lines.iter().map(|line| line.split_once(" stdout F ").expect(line).1.to_owned()).collect()
    };
    let (before, mut after) = (texts(&file[first + 1..second]), texts(&file[second + 1..]));
    assert_eq!(from_the_first(&before.iter().map(String::as_str).collect::<Vec<_>>()), kept);
    assert_eq!(after.pop().as_deref(), Some("last words"));
    from_the_first(&after.iter().map(String::as_str).collect::<Vec<_>>());
}
