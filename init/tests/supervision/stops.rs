//! What a person has stopped stays stopped over a boot.

use std::path::Path;
use std::time::Duration;

use garboard_init::work::stopped;
use garboard_runtime::plan::{Access, Container, Plan, Restart};

use crate::console::HASH;
use crate::rig::{Rig, Setup, kill, shell, with};

/// By name.
pub const TESTS: &[(&str, fn())] = &[
    ("stops::what_was_stopped_by_hand_stays_so_over_a_boot", what_was_stopped_by_hand_stays_so_over_a_boot),
    ("stops::what_was_stopped_just_before_the_end_is_kept", what_was_stopped_just_before_the_end_is_kept),
    (
        "stops::what_is_wanted_before_it_is_known_who_was_stopped_counts",
        what_is_wanted_before_it_is_known_who_was_stopped_counts,
    ),
    ("stops::what_can_not_be_kept_is_told", what_can_not_be_kept_is_told),
];

const MOUNTED: &str = r#"{"state":"mounted","detail":"","bytes":1}"#;
/// The first, and one that is always started; also one that isn't there.
const REMEMBERED: &str = r#"{"state":"mounted","detail":"","bytes":1,"stopped":[0,1,7]}"#;
const PANIC: i32 = 34 + 8;

/// The body of the worker: the real one, with the working directory in place of `/data`. A file `hold-stopped` holds it up.
pub fn keep(arguments: &[String]) -> i32 {
    while Path::new("hold-stopped").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    stopped::run_in(Path::new("."), arguments)
}

fn containers() -> Vec<Container> {
    let idle = "trap 'exit 0' TERM; while true; do usleep 10000; done";
    vec![with(Restart::UnlessStopped, shell("web", idle)), with(Restart::Always, shell("db", idle))]
}

fn machine(files: &'static [(&'static str, &'static str)]) -> Rig {
    let access = Some(Access::Control(HASH.into()));
    Rig::with(containers(), Setup { data: Some(false), access, files, ..Setup::default() })
}

fn kept(rig: &Rig) -> Option<String> {
    std::fs::read_to_string(rig.file(".garboard/stopped")).ok()
}

fn wait_kept(rig: &Rig, text: &str) {
    rig.until(&format!("kept: {text:?}"), |rig| kept(rig).as_deref() == Some(text));
}

/// Opens the dashboard, and says the passphrase for a key on the first container.
fn begin(rig: &Rig, key: &str) {
    rig.press("\r");
    rig.wait_screen(">web");
    rig.press(key);
    rig.wait_screen("passphrase (not shown");
    rig.press("ahoy\r");
}

fn what_was_stopped_by_hand_stays_so_over_a_boot() {
    let mut rig = machine(&[("data", MOUNTED), ("hold-data", "")]);
    rig.wait_state("db", "running");
    let waiting = rig.container("web");
    assert_eq!(
        (&waiting["state"], &waiting["detail"]),
        (&"waiting".into(), &"waits for /data, which has whether it was stopped by hand".into())
    );
    std::fs::remove_file(rig.file("hold-data")).unwrap();
    rig.wait_state("web", "running");
    assert_eq!(kept(&rig), None, "nothing is to be kept");
    begin(&rig, "s");
    rig.wait_state("web", "exited");
    rig.press("js");
    rig.wait_state("db", "exited");
    wait_kept(&rig, "web\n");
    // The last word counts, also of several while nobody may write.
    std::fs::write(rig.file("hold-stopped"), "").unwrap();
    rig.press("ka");
    rig.wait_state("web", "running");
    rig.press("s");
    rig.wait_state("web", "exited");
    rig.press("a");
    rig.wait_state("web", "running");
    assert_eq!(kept(&rig).as_deref(), Some("web\n"));
    std::fs::remove_file(rig.file("hold-stopped")).unwrap();
    wait_kept(&rig, "");
    rig.press("s");
    wait_kept(&rig, "web\n");
    // A crash forgets none of it, and the end of the machine is nobody's wish.
    rig.wait_state("web", "exited");
    rig.press("ja");
    rig.wait_state("db", "running");
    kill(rig.pid(), PANIC);
    rig.wait("resumed", |s| s["notes"].to_string().contains("crashed"));
    let plan = Plan::decode(&std::fs::read(rig.file("plan")).unwrap()).unwrap();
    rig.ask(serde_json::json!({"request": "poweroff"}));
    rig.until("at its end", Rig::has_ended);
    assert_eq!(kept(&rig).as_deref(), Some("web\n"));
    assert_eq!(stopped::read_in(&rig.file("."), &plan), Ok(vec![0]));

    // The next boot.
    let mut rig = machine(&[("data", REMEMBERED)]);
    rig.wait_state("db", "running");
    let web = rig.wait_state("web", "exited");
    assert_eq!((&web["detail"], &web["pid"]), (&"stopped by hand".into(), &serde_json::Value::Null));
    let events = rig.events();
    assert!(events.iter().any(|e| e.1 == "web" && e.2.contains("in an earlier boot")), "{events:?}");
    assert!(!events.iter().any(|e| (e.0.as_str(), e.1.as_str()) == ("started", "web")), "{events:?}");
    begin(&rig, "a");
    rig.wait_state("web", "running");
    wait_kept(&rig, "");
}

fn what_was_stopped_just_before_the_end_is_kept() {
    let mut rig = machine(&[("data", MOUNTED), ("hold-stopped", "")]);
    rig.wait_state("web", "running");
    begin(&rig, "s");
    rig.wait_state("web", "exited");
    rig.ask(serde_json::json!({"request": "poweroff"}));
    rig.until("all have ended", |rig| rig.children().len() == 1);
    std::fs::remove_file(rig.file("hold-stopped")).unwrap();
    rig.until("at its end", Rig::has_ended);
    assert_eq!(kept(&rig).as_deref(), Some("web\n"));
}

fn what_is_wanted_before_it_is_known_who_was_stopped_counts() {
    let mut rig = machine(&[("data", REMEMBERED), ("hold-data", "")]);
    rig.wait_state("db", "running");
    begin(&rig, "a");
    rig.wait_screen("start web: asked");
    std::fs::remove_file(rig.file("hold-data")).unwrap();
    rig.wait_state("web", "running");
    wait_kept(&rig, "");
    let events = rig.events();
    assert!(!events.iter().any(|e| e.2.contains("in an earlier boot")), "{events:?}");
}

fn what_can_not_be_kept_is_told() {
    // Where its directory is to be there is a file.
    let mut rig = machine(&[("data", MOUNTED), (".garboard", "")]);
    rig.wait_state("web", "running");
    begin(&rig, "s");
    let told = rig.wait("told", |s| s["notes"].to_string().contains("stopped by hand is not kept"));
    let notes = told["notes"].to_string();
    assert!(notes.contains("write ./.garboard/stopped: Not a directory"), "{notes}");
}
