//! How a boot ends is told in the next one. A boot is a supervisor here, and what the two share is a directory.

use std::path::Path;

use garboard_runtime::plan::{Container, OnFailure, Restart, Supervision};
use serde_json::{Value, json};

use crate::crash::PANIC;
use crate::rig::{Rig, Setup, kill, shell, with};

/// By name.
pub const TESTS: &[(&str, fn())] = &[
    ("last_words::each_end_is_told_in_the_next_boot", each_end_is_told_in_the_next_boot),
    ("last_words::what_can_not_be_kept_is_said_once", what_can_not_be_kept_is_said_once),
    ("last_words::without_a_data_filesystem_nothing_is_known", without_a_data_filesystem_nothing_is_known),
];

const FAULT: i32 = PANIC + 1;
const MOUNTED: &[(&str, &str)] = &[("data", r#"{"state":"mounted","detail":"","bytes":0}"#)];

/// A supervisor with that data filesystem.
pub fn boot(disk: &Path, containers: Vec<Container>) -> Rig {
    Rig::with(containers, Setup { data: Some(false), files: MOUNTED, disk: Some(disk), ..Setup::default() })
}

/// How the boot before ended, once this one's number is kept: it is under way then.
fn told(rig: &mut Rig, number: u64) -> Value {
    rig.wait("kept", |s| s["boot"] == number)["previous"].take()
}

fn events(rig: &mut Rig) -> Vec<String> {
    rig.events().into_iter().filter(|(kind, ..)| kind == "previous").map(|(.., text)| text).collect()
}

fn each_end_is_told_in_the_next_boot() {
    let disk = tempfile::tempdir().unwrap();
    let web = || with(Restart::Always, shell("web", "sleep 10000"));

    let mut first = boot(disk.path(), vec![web()]);
    assert_eq!(told(&mut first, 1)["cause"], "first_boot");
    first.ask(json!({"request": "poweroff"}));
    assert_eq!(first.end().0, 0);

    // In order, with the reason.
    let mut second = boot(disk.path(), vec![web()]);
    let previous = told(&mut second, 2);
    assert_eq!((&previous["cause"], &previous["boot"]), (&"poweroff".into(), &1.into()), "{previous}");
    assert_eq!(previous["text"], "switched off: asked by the status port");
    assert!(previous["uptime_ms"].is_u64(), "{previous}");
    let said = events(&mut second);
    assert!(said.len() == 1 && said[0].ends_with("switched off: asked by the status port"), "{said:?}");
    second.wait_console(&format!("garboard: {}\n", said[0]));
    kill(second.pid(), 9);
    assert_eq!(second.end().0, -1);

    // Cut off. A crash that is survived is no end, and forgets nothing.
    let mut third = boot(disk.path(), vec![web()]);
    let previous = told(&mut third, 3);
    assert_eq!((&previous["cause"], &previous["boot"]), (&"unclean".into(), &2.into()), "{previous}");
    assert_eq!(previous["uptime_ms"], Value::Null);
    kill(third.pid(), PANIC);
    third.wait("resumed", |s| s["notes"].as_array().is_some_and(|notes| !notes.is_empty()));
    assert_eq!(told(&mut third, 3), previous);
    assert_eq!(events(&mut third).len(), 1);
    kill(third.pid(), FAULT);
    assert_eq!(third.end().0, 70);

    // Two crashes, both told; and one that was survived before an end in order is only that.
    let critical = Container {
        supervision: Supervision { on_failure: OnFailure::Reboot, ..Default::default() },
        ..shell("critical", "sleep 10000; exit 3")
    };
    let mut fourth = boot(disk.path(), vec![critical]);
    let previous = told(&mut fourth, 4);
    assert_eq!((&previous["cause"], &previous["boot"]), (&"crash".into(), &3.into()), "{previous}");
    let text = previous["text"].as_str().unwrap();
    assert!(text.contains("panic at init/src/event_loop/signals.rs"), "{text}");
    assert!(text.contains("fatal signal 11 at address 0x8"), "{text}");
    kill(fourth.pid(), PANIC);
    fourth.wait("resumed", |s| s["notes"].as_array().is_some_and(|notes| !notes.is_empty()));
    let pid = fourth.wait_state("critical", "running")["pid"].as_i64().unwrap();
    kill(i32::try_from(pid).unwrap(), 9);
    assert_eq!(fourth.end().0, 10);

    let mut fifth = boot(disk.path(), vec![web()]);
    let previous = told(&mut fifth, 5);
    assert_eq!(previous["text"], "started over: critical was given up, and its declaration wants that");
    fifth.signal(15);
    assert_eq!(fifth.end().0, 10);

    // A sender of the same pid namespace, as any is here.
    let mut last = boot(disk.path(), vec![web()]);
    let text = told(&mut last, 6)["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("started over: signal 15 of process "), "{text}");
}

fn what_can_not_be_kept_is_said_once() {
    let disk = tempfile::tempdir().unwrap();
    std::fs::write(disk.path().join(".garboard"), "somebody's").unwrap();
    let mut rig = boot(disk.path(), vec![with(Restart::Always, shell("web", "sleep 10000"))]);
    let status = rig.wait("said", |s| s["notes"].as_array().is_some_and(|n| n.len() > 1));
    let about =
        |note: &&Value| note.as_str().unwrap().contains("keep in disk/.garboard how this boot goes: Not a directory");
    assert_eq!(status["notes"].as_array().unwrap().iter().filter(about).count(), 1, "{status}");
    assert_eq!((&status["previous"]["cause"], &status["boot"]), (&"unreadable".into(), &Value::Null));
    rig.wait_state("web", "running");
    rig.ask(json!({"request": "poweroff"}));
    assert_eq!(rig.end().0, 0);
    assert_eq!(std::fs::read(disk.path().join(".garboard")).unwrap(), b"somebody's");
}

fn without_a_data_filesystem_nothing_is_known() {
    let disk = tempfile::tempdir().unwrap();
    let setup = Setup { data: Some(false), disk: Some(disk.path()), ..Setup::default() };
    let mut rig = Rig::with(vec![with(Restart::Always, shell("web", "sleep 10000"))], setup);
    let status = rig.wait("known", |s| s["previous"] != Value::Null);
    assert_eq!((&status["previous"]["cause"], &status["boot"]), (&"unknown".into(), &Value::Null), "{status}");
    assert_eq!(events(&mut rig), Vec::<String>::new());
    rig.ask(json!({"request": "reboot"}));
    assert_eq!(rig.end().0, 10);
    assert_eq!(std::fs::read_dir(disk.path()).unwrap().count(), 0);
}
