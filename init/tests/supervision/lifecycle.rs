//! Starting, ending, starting again.

use garboard_runtime::plan::{Condition, Restart};

use crate::rig::{Rig, Setup, after, changed, find, kill, sharing_pids, shell, with};

/// By name.
pub const TESTS: &[(&str, fn())] = &[
    ("lifecycle::exact_ends_are_kept_and_the_policy_applied", exact_ends_are_kept_and_the_policy_applied),
    ("lifecycle::a_program_that_is_not_there_is_named", a_program_that_is_not_there_is_named),
    ("lifecycle::one_that_dies_before_its_program_has_not_started", one_that_dies_before_its_program_has_not_started),
    ("lifecycle::readiness_is_told", readiness_is_told),
    ("lifecycle::an_end_comes_before_answers", an_end_comes_before_answers),
    ("lifecycle::an_idle_supervisor_sleeps", an_idle_supervisor_sleeps),
    ("lifecycle::crash_loops_leak_nothing", crash_loops_leak_nothing),
    ("lifecycle::five_hundred_exits_at_once_are_all_seen", five_hundred_exits_at_once_are_all_seen),
    ("lifecycle::orphans_are_reaped", orphans_are_reaped),
];

fn exact_ends_are_kept_and_the_policy_applied() {
    let mut rig = Rig::new(vec![
        shell("good", "echo fine"),
        shell("bad", "echo out; echo err >&2; exit 7"),
        shell("killed", "sleep 1000"),
        with(Restart::OnFailure(Some(2)), shell("stubborn", "exit 3")),
        after(1, Condition::Completed, shell("hopeless", "echo never")),
        after(0, Condition::Completed, shell("later", "echo after good; sleep 1000")),
    ]);
    let pid = rig.wait_state("killed", "running")["pid"].as_i64().unwrap();
    kill(pid as i32, 9);
    let status = rig.wait("settled", |s| {
        find(s, "stubborn")["state"] == "failed"
            && find(s, "killed")["state"] == "failed"
            && find(s, "later")["as_declared"] == true
    });
    assert_eq!(
        (&find(&status, "good")["state"], &find(&status, "good")["exit"]["code"]),
        (&"exited".into(), &0.into())
    );
    assert_eq!((&find(&status, "bad")["state"], &find(&status, "bad")["exit"]["code"]), (&"failed".into(), &7.into()));
    assert_eq!(find(&status, "killed")["exit"]["signal"], 9);
    let stubborn = find(&status, "stubborn");
    assert_eq!(
        (&stubborn["restarts"], &stubborn["detail"]),
        (&2.into(), &"exited with status 3; given up after 2 restarts in a row".into())
    );
    let hopeless = find(&status, "hopeless");
    assert_eq!(
        (&hopeless["state"], &hopeless["detail"]),
        (&"failed".into(), &"waits for bad to be completed, which it can't be any more".into())
    );
    assert_eq!((&status["ready"], &status["state"]), (&false.into(), &"running".into()));
    // Nothing changes any more, so the console shows this very moment.
    let told: Vec<Row> = status["containers"].as_array().unwrap().iter().map(row_told).collect();
    rig.until(&format!("shown: {told:#?}"), |rig| shown(&rig.console()) == told);
    assert_eq!(rig.log("bad"), ["out", "err"]);
    rig.wait_console("good     | fine\n");
    rig.wait_console("garboard: bad exited with status 7\n");
    assert!(!rig.console().contains("never"));
    assert_eq!(rig.children().len(), 1, "only `later` is left");
}

/// Name, state, restarts and detail of a container.
type Row = [String; 4];

/// As the status tells it.
fn row_told(container: &serde_json::Value) -> Row {
    ["name", "state", "restarts", "detail"].map(|key| match &container[key] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

/// As the newest table on the console shows it.
fn shown(console: &str) -> Vec<Row> {
    let lines: Vec<&str> = console.lines().collect();
    let Some(start) = lines.iter().rposition(|line| line.contains("  CONTAINER ")) else { return Vec::new() };
    let mut rows: Vec<Row> = Vec::new();
    for line in lines[start + 1..].iter().map_while(|line| line.strip_prefix("garboard:   ")) {
        match (line.strip_prefix("    "), rows.last_mut()) {
            // What was too long for the row before.
            (Some(detail), Some(row)) => row[3] = detail.to_owned(),
            _ => {
                let column =
                    |from: usize, to: usize| line.get(from..to.min(line.len())).unwrap_or_default().trim().to_owned();
                rows.push([column(0, 16), column(17, 25), column(26, 34), column(53, usize::MAX)]);
            }
        }
    }
    rows
}

fn a_program_that_is_not_there_is_named() {
    let container = changed(shell("typo", ""), |launch| launch.process.args = vec!["/bin/nonesuch".into()]);
    let mut rig = Rig::new(vec![container]);
    let detail = rig.wait_state("typo", "failed")["detail"].as_str().unwrap().to_owned();
    assert!(detail.starts_with("exec /bin/nonesuch: no such file or directory (ENOENT)"), "{detail}");
}

/// As one is that needs more memory for its set-up than it may have.
/// The child that sets it up stands still, and is killed. Its neighbour, the control, goes on.
fn one_that_dies_before_its_program_has_not_started() {
    let containers = vec![
        shell("victim", "true"),
        after(0, Condition::Started, shell("hopeless", "echo never")),
        shell("sound", "true"),
        after(2, Condition::Started, shell("later", "echo at last")),
    ];
    let mut rig = Rig::with(containers, Setup { frozen: true, ..Setup::default() });
    let status = rig.wait("launched", |s| ["victim", "sound"].iter().all(|name| find(s, name)["pid"].is_number()));
    kill(find(&status, "victim")["pid"].as_i64().unwrap() as i32, 9);
    let status = rig.wait("settled", |s| find(s, "hopeless")["state"] == "failed");
    assert_eq!(find(&status, "later")["state"], "waiting", "nobody has executed anything yet");
    rig.thaw();
    let status = rig.wait("ended", |s| find(s, "later")["state"] == "exited");
    let why = "it was killed by SIGKILL before its program was executed";
    assert_eq!(find(&status, "victim")["detail"], why);
    assert_eq!(find(&status, "hopeless")["detail"], "waits for victim to be started, which it can't be any more");
    rig.wait_console(&format!("garboard: victim could not be started: {why}"));
    assert_eq!(rig.log("hopeless"), Vec::<String>::new());
}

fn readiness_is_told() {
    let mut rig = Rig::new(vec![with(Restart::Always, shell("web", "echo up; sleep 1000")), shell("once", "true")]);
    let status = rig.wait("ready", |s| s["ready"] == true);
    assert_eq!((&status["state"], &status["appliance"]), (&"running".into(), &"test".into()));
    assert!(status["pid1_rss_bytes"].as_u64().unwrap() > 100_000);
    rig.wait_console("garboard: test is running, all containers are as declared");
    let trace = rig.ask(serde_json::json!({"request": "trace"}));
    let steps: Vec<_> = trace["steps"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    let place = |name: &str| steps.iter().position(|s| *s == name).unwrap_or_else(|| panic!("{name} in {steps:?}"));
    assert!(place("launched web") < place("executed web") && place("executed web") < place("first output of web"));
    let error = rig.ask(serde_json::json!({"request": "logs", "container": "nobody"}));
    assert_eq!((&error["type"], &error["message"]), (&"error".into(), &"no container is named \"nobody\"".into()));
}

/// With nothing to do, nothing is done.
/// Who asks in the same moment is told of the end already, and of what followed from it.
fn an_end_comes_before_answers() {
    let mut rig = Rig::new(vec![with(Restart::Always, shell("job", "sleep 10000"))]);
    let job = rig.wait_state("job", "running")["pid"].as_i64().unwrap();
    let supervisor = rig.pid();
    let is = |letter: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{supervisor}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with(letter)
    };
    // Not in the middle of a turn: it may still look for further requests behind the last one.
    rig.until("it waits", |_| is("S"));
    kill(supervisor, libc::SIGSTOP);
    rig.until("it stands still", |_| is("T"));
    kill(job.try_into().unwrap(), libc::SIGKILL);
    rig.until("it has ended", |rig| rig.children().iter().all(|(pid, state)| i64::from(*pid) != job || *state == 'Z'));
    let waker = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        kill(supervisor, libc::SIGCONT);
    });
    let after = rig.container("job");
    waker.join().unwrap();
    assert!(after["state"] != "running" && after["pid"] != job, "{after}");
}

fn an_idle_supervisor_sleeps() {
    let mut rig = Rig::new(vec![with(Restart::Always, shell("web", "exec sleep 10000"))]);
    rig.wait("ready", |s| s["ready"] == true);
    rig.wait_console("all containers are as declared");
    let switches = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", rig.pid())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:")).unwrap().trim().to_owned();
        line.parse::<u64>().unwrap()
    };
    // The table's own writes are over by then.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let before = switches();
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(switches(), before, "it woke up for nothing");
}

/// Many instant crashes leave nothing behind.
fn crash_loops_leak_nothing() {
    let crashing = |n: u32| with(Restart::Always, shell(&format!("c{n}"), "exit 1"));
    let mut rig = Rig::with((0..8).map(crashing).collect(), Setup { quick: true, ..Setup::default() });
    let restarts = |s: &serde_json::Value| -> u64 {
        s["containers"].as_array().unwrap().iter().map(|c| c["restarts"].as_u64().unwrap()).sum()
    };
    // As many events as are kept have happened by then.
    let before = rig.wait("warm", |s| restarts(s) >= 2_000);
    let descriptors = rig.least_descriptors();
    let mut after = before.clone();
    for goal in [4_000, 6_000, 8_000, 10_000] {
        after = rig.wait("long at it", |s| restarts(s) >= goal);
    }
    let rss = |s: &serde_json::Value| s["pid1_rss_bytes"].as_u64().unwrap();
    assert!(rss(&after) <= rss(&before) + (256 << 10), "{} → {}", rss(&before), rss(&after));
    // What leaked by the crash would be eight thousand; as many starts as there are containers may always be under way.
    let now = rig.least_descriptors();
    assert!(now <= descriptors + 8 * 4, "{descriptors} → {now}");
}

/// All exits at once, while the supervisor is stopped.
fn five_hundred_exits_at_once_are_all_seen() {
    let count = 500;
    let mut rig = Rig::new((0..count).map(|n| shell(&format!("c{n}"), "sleep 10000")).collect());
    let status =
        rig.wait("all running", |s| s["containers"].as_array().unwrap().iter().all(|c| c["state"] == "running"));
    let pids: Vec<String> = status["containers"].as_array().unwrap().iter().map(|c| c["pid"].to_string()).collect();
    assert_eq!(rig.children().len(), count);
    rig.signal(19);
    assert!(std::process::Command::new("kill").arg("-9").args(&pids).status().unwrap().success());
    while rig.children().iter().any(|(_, state)| *state != 'Z') {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    rig.signal(18);
    rig.wait("all ended", |s| s["containers"].as_array().unwrap().iter().all(|c| c["exit"]["signal"] == 9));
    assert_eq!(rig.children(), []);
}

/// Grandchildren whose parents end come to the supervisor when the container shares its pid namespace.
fn orphans_are_reaped() {
    // Fifty thousand that end at once, with some between them that stay for a moment.
    let script = "i=0; while [ $i -lt 50000 ]; do case $i in *00) (sleep 0.2 &) ;; *) (: &) ;; esac; i=$((i+1)); done; \
                  echo made; sleep 10000";
    let container = sharing_pids(shell("parent", script));
    let mut rig = Rig::new(vec![container]);
    rig.wait_state("parent", "running");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(180);
    let mut most = 0;
    loop {
        let children = rig.children();
        most = most.max(children.len());
        if children.len() == 1 && rig.log("parent") == ["made"] {
            break;
        }
        assert!(std::time::Instant::now() < until, "{most} orphans seen, {children:?} left");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(most > 1, "they come to the supervisor");
    // Its own end takes every process that outlived it.
    kill(rig.children()[0].0, 9);
    rig.wait_state("parent", "failed");
}
