//! What happens is told: each thing once, in order, also over a crash.

use garboard_runtime::plan::{self, Condition, HealthCheck, HealthTest, Restart};
use serde_json::json;

use crate::last_words;
use crate::rig::{Rig, Setup, after, changed, kill, shell, with};

/// By name.
pub const TESTS: &[(&str, fn())] = &[
    ("events::what_the_kernel_says_is_kept_once_over_a_crash", what_the_kernel_says_is_kept_once_over_a_crash),
    ("events::everything_that_happens_is_an_event_once_and_in_order", everything_once_and_in_order),
    ("events::a_failure_says_what_happened", a_failure_says_what_happened),
    ("events::a_subscription_goes_on_over_a_crash", a_subscription_goes_on_over_a_crash),
    ("events::logs_are_followed_without_a_gap", logs_are_followed_without_a_gap),
    ("events::a_slow_subscriber_is_told_what_it_missed", a_slow_subscriber_is_told_what_it_missed),
    ("events::every_reply_keeps_the_schema", every_reply_keeps_the_schema),
];

const PANIC: i32 = 34 + 8;

/// Also what it says in the same moment, and what it says meanwhile; what is read again after a crash is passed over.
fn what_the_kernel_says_is_kept_once_over_a_crash() {
    let setup = Setup { kernel: true, data: Some(false), ..Setup::default() };
    let mut rig = Rig::with(vec![shell("web", "sleep 10000")], setup);
    // A record that was read is kept by the time that the next request is answered.
    let kept = |rig: &mut Rig| -> Vec<String> {
        rig.until("all read", Rig::kernel_was_heard);
        let reply = rig.ask(json!({"request": "logs"}));
        reply["lines"].as_array().unwrap().iter().map(|line| line["text"].as_str().unwrap().to_owned()).collect()
    };
    for (sequence, text) in [(7, "one"), (8, "two")] {
        rig.kernel_records(4, sequence, 5, text.as_bytes());
    }
    assert_eq!(kept(&mut rig), ["one", "two"]);
    rig.signal(PANIC);
    rig.wait("resumed", |s| s["notes"].to_string().contains("crashed and goes on"));
    for (sequence, text) in [(7, "one"), (8, "two"), (9, "three"), (9, "three"), (10, "four")] {
        rig.kernel_records(4, sequence, 5, text.as_bytes());
    }
    assert_eq!(kept(&mut rig), ["one", "two", "three", "four"]);
}

fn everything_once_and_in_order() {
    let broken = changed(shell("broken", "true"), |launch| launch.process.args = vec!["/nowhere".into()]);
    let mut rig = Rig::with(
        vec![
            with(Restart::OnFailure(Some(1)), shell("web", "sleep 0.1; exit 3")),
            after(0, Condition::Completed, shell("job", "true")),
            broken,
            shell("calm", "trap 'exit 0' TERM; echo ready; while true; do usleep 20000; done"),
        ],
        Setup { quick: true, ..Setup::default() },
    );
    rig.wait_state("web", "failed");
    rig.wait_state("job", "failed");
    rig.wait_state("broken", "failed");
    rig.wait_state("calm", "running");
    rig.wait_console("calm   | ready");
    let status = rig.status();
    let events = rig.events();
    assert_eq!(status["last_event"], events.len());
    assert_eq!(&events[0].0, "boot");
    let of = |name: &str| -> Vec<(String, String)> {
        events.iter().filter(|e| e.1 == name).map(|(kind, _, text)| (kind.clone(), text.clone())).collect()
    };
    let kinds = |name: &str| of(name).into_iter().map(|e| e.0).collect::<Vec<_>>();
    assert_eq!(kinds("web"), ["started", "exited", "started", "exited", "failed"], "{events:#?}");
    let web = of("web");
    assert!(web[1].1.starts_with("exited with status 3; starts again in "), "{web:?}");
    assert_eq!(web[3].1, "exited with status 3; given up after 1 restart");
    assert_eq!(kinds("job"), ["failed"]);
    assert!(of("job")[0].1.contains("waits for web to be completed"), "{events:#?}");
    assert_eq!(kinds("broken"), ["launch_failed", "failed"]);
    assert!(of("broken")[0].1.contains("/nowhere"), "{events:#?}");
    // The cause comes before what follows from it.
    let place = |name: &str, kind: &str| events.iter().rposition(|e| e.1 == name && e.0 == kind).unwrap();
    assert!(place("web", "exited") < place("job", "failed"));

    rig.ask(json!({"request": "subscribe", "events": true, "since": events.len()}));
    rig.ask(json!({"request": "poweroff"}));
    let mut last = Vec::new();
    while last.len() < 3 {
        let event = rig.told("event")["event"].clone();
        last.push(format!("{}: {}", event["kind"].as_str().unwrap(), event["text"].as_str().unwrap()));
    }
    let expected = [
        "shutdown: switching off: asked by the status port",
        "stopping: asked to stop, as the machine stops",
        "exited: exited with status 0",
    ];
    assert_eq!(last, expected);
}

fn a_failure_says_what_happened() {
    let missing = changed(shell("missing", "true"), |launch| launch.process.args = vec!["/nowhere".into()]);
    let calm = "trap 'exit 0' TERM; while true; do usleep 20000; done";
    let mut sick = with(Restart::OnFailure(Some(1)), shell("sick", calm));
    sick.supervision.health = Some(HealthCheck {
        test: HealthTest::Exec(["/bin/sh", "-c", "exit 1"].map(String::from).into()),
        interval_ms: 100,
        timeout_ms: 20_000,
        retries: 1,
        start_period_ms: 0,
        start_interval_ms: 100,
        restart: true,
    });
    let in_pod = |container: plan::Container| plan::Container { pod: Some(0), ..container };
    let mut rig = Rig::with(
        vec![
            with(Restart::OnFailure(Some(2)), missing),
            sick,
            shell("once", "exit 3"),
            in_pod(shell("fragile", "sleep 0.5; exit 1")),
            in_pod(with(Restart::Always, shell("friend", calm))),
        ],
        Setup { quick: true, pods: 1, ..Setup::default() },
    );
    let names = ["missing", "sick", "once", "fragile", "friend"];
    names.iter().for_each(|name| drop(rig.wait_state(name, "failed")));
    let events = rig.events();
    let why = |name: &str| events.iter().rfind(|e| e.1 == name && e.0 == "failed").map(|e| e.2.as_str());
    let declared = "given up: its declaration doesn't have it started again";
    let expected = [
        "given up after 2 restarts in a row",
        "given up after 1 restart",
        declared,
        declared,
        "given up: fragile of its pod was given up",
    ];
    assert_eq!(names.map(why), expected.map(Some), "{events:#?}");
    // The status says it, too, and what the last attempt failed of.
    for (name, cause, end) in [("missing", "/nowhere", expected[0]), ("sick", "unhealthy: status 1", expected[1])] {
        let detail = rig.container(name)["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(cause) && detail.ends_with(&format!("; {end}")), "{detail}");
    }
}

fn a_subscription_goes_on_over_a_crash() {
    let mut rig = Rig::new(vec![
        with(Restart::Always, shell("web", "sleep 10000")),
        with(Restart::Always, shell("talker", "i=0; while true; do echo line $i; i=$((i+1)); usleep 50000; done")),
    ]);
    rig.wait_state("web", "running");
    let reply = rig.ask(json!({"request": "subscribe", "events": true, "logs": ["talker"], "since": 0}));
    assert_eq!((&reply["type"], &reply["since"]), (&"subscribed".into(), &0.into()));
    let pid = rig.container("web")["pid"].as_i64().unwrap() as i32;
    rig.told("log");
    kill(rig.pid(), PANIC);
    let mut numbers = Vec::new();
    loop {
        let event = rig.told("event")["event"].clone();
        numbers.push(event["number"].as_u64().unwrap());
        match event["kind"].as_str().unwrap() {
            "crash" => {
                let text = event["text"].as_str().unwrap();
                assert!(text.contains("panic at") && text.contains("asked to"), "{text}");
                // Still heard, and still told.
                rig.told("log");
                kill(pid, 9);
            }
            "exited" => {
                let text = event["text"].as_str().unwrap();
                assert!(text.starts_with("was killed by SIGKILL; starts again in"), "{text}");
                break;
            }
            _ => {}
        }
    }
    // None is missing. Those that were on their way when PID 1 crashed may have come twice, once in order each time.
    assert_eq!(numbers[0], 1);
    let (on, other): (Vec<_>, Vec<_>) = numbers.windows(2).partition(|pair| pair[1] == pair[0] + 1);
    assert!(other.len() <= 1 && other.iter().all(|pair| pair[1] <= pair[0]), "{numbers:?}");
    assert!(on.len() >= 3, "{numbers:?}");
    let crashes = rig.events().into_iter().filter(|e| e.0 == "crash").count();
    assert_eq!(crashes, 1);
    assert_eq!(rig.ask(json!({"request": "unsubscribe"}))["type"], "ok");
}

fn logs_are_followed_without_a_gap() {
    let script = "i=0; while true; do echo line $i; i=$((i+1)); usleep 5000; done";
    let mut rig = Rig::new(vec![with(Restart::Always, shell("web", script))]);
    rig.wait_state("web", "running");
    std::thread::sleep(std::time::Duration::from_millis(100));
    let reply = rig.ask(json!({"request": "logs", "container": "web", "tail": 100_000, "follow": true}));
    let text = |line: &serde_json::Value| line["text"].as_str().unwrap().to_owned();
    let mut lines: Vec<String> = reply["lines"].as_array().unwrap().iter().map(text).collect();
    for n in 0..100 {
        if n == 50 {
            // Replies come between them.
            rig.status();
        }
        let line = rig.told("log");
        assert_eq!((&line["container"], &line["id"]), (&"web".into(), &serde_json::Value::Null));
        lines.push(text(&line));
    }
    assert!(lines.iter().enumerate().all(|(n, line)| *line == format!("line {n}")), "{lines:?}");
}

fn a_slow_subscriber_is_told_what_it_missed() {
    let mut rig = Rig::new(vec![
        with(Restart::Always, shell("loud", "exec yes all work and no play")),
        with(Restart::Always, shell("web", "sleep 10000")),
    ]);
    rig.wait_state("web", "running");
    let before = rig.status()["pid1_rss_bytes"].as_u64().unwrap();
    rig.ask(json!({"request": "subscribe", "events": true, "logs": "all", "since": 0}));
    // Nobody reads for a while.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let missed = rig.told("missed")["lines"].as_u64().unwrap();
    assert!(missed > 0, "{missed}");
    let after = rig.status()["pid1_rss_bytes"].as_u64().unwrap();
    assert!(after < before + (1 << 20), "{before} → {after}");
    rig.ask(json!({"request": "unsubscribe"}));
}

fn every_reply_keeps_the_schema() {
    let schema: serde_json::Value = serde_json::from_str(include_str!("../../status.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let containers = vec![
        with(Restart::Always, shell("web", "while true; do echo hello; usleep 100000; done")),
        shell("ended", "exit 3"),
    ];
    let disk = tempfile::tempdir().unwrap();
    let mut rig = last_words::boot(disk.path(), containers);
    rig.wait_state("web", "running");
    rig.wait_state("ended", "failed");
    rig.wait("counted", |s| s["boot"] == 1 && s["network"]["state"] == "up");
    let mut seen = std::collections::BTreeSet::new();
    let mut check = |reply: &serde_json::Value| {
        let faults: Vec<String> = validator.iter_errors(reply).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(faults.is_empty(), "{reply:#}\n{faults:#?}");
        seen.insert(reply["type"].as_str().unwrap().to_owned());
    };
    // Numbers of another boot would mean nothing here.
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    for request in [json!({"request": "events"}), json!({"request": "subscribe", "events": true, "since": 0})] {
        assert_eq!(rig.ask(request)["boot"], boot.trim_end());
    }
    for request in [
        json!({"request": "status"}),
        json!({"request": "logs", "container": "web"}),
        json!({"request": "logs", "container": null, "tail": 3}),
        json!({"request": "logs", "container": "nobody"}),
        json!({"request": "events"}),
        json!({"request": "metrics"}),
        json!({"request": "trace"}),
        json!({"request": "dance"}),
        json!({"request": "subscribe", "events": true, "logs": "all", "since": 0}),
    ] {
        check(&rig.ask(request));
    }
    check(&rig.told("event"));
    check(&rig.told("log"));
    check(&json!({"v": 1, "id": null, "type": "missed", "lines": 3}));
    // So do the examples of STATUS.md.
    for line in include_str!("../../STATUS.md").lines().filter_map(|line| line.strip_prefix("    {\"v\"")) {
        check(&serde_json::from_str(&format!("{{\"v\"{line}")).expect(line));
    }
    check(&rig.ask(json!({"request": "poweroff"})));
    // What is no reply is told apart.
    for wrong in [json!({"v": 1, "id": 1, "type": "other"}), json!({"v": 1, "id": 1, "type": "logs"}), json!({})] {
        assert!(!validator.is_valid(&wrong), "{wrong}");
    }
    let all = ["status", "logs", "events", "metrics", "trace", "error", "subscribed", "event", "log", "missed", "ok"];
    assert_eq!(seen, all.map(String::from).into());
}
