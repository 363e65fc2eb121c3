//! Containers that say how they are, and containers that are asked.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use garboard_runtime::plan::{self, Condition, HealthCheck, HealthTest, Restart, Supervision};

use crate::rig::{Rig, after, find, shell, with};

/// By name.
pub const TESTS: &[(&str, fn())] = &[
    ("watched::one_that_notifies_is_started_when_it_says_so", one_that_notifies_is_started_when_it_says_so),
    ("watched::readiness_that_never_comes_is_a_failure", readiness_that_never_comes_is_a_failure),
    ("watched::a_sign_of_life_that_is_missing_is_a_failure", a_sign_of_life_that_is_missing_is_a_failure),
    ("watched::who_says_that_it_stops_has_its_time_for_that", who_says_that_it_stops_has_its_time_for_that),
    ("watched::who_says_too_much_is_heard_before_it_is_killed", who_says_too_much_is_heard_before_it_is_killed),
    ("watched::a_flood_of_notifications_holds_nobody_up", a_flood_of_notifications_holds_nobody_up),
    ("watched::a_program_in_the_container_answers", a_program_in_the_container_answers),
    ("watched::a_port_of_the_container_answers", a_port_of_the_container_answers),
    ("watched::an_answer_that_takes_too_long_is_a_bad_one", an_answer_that_takes_too_long_is_a_bad_one),
    ("watched::questions_survive_a_crash", questions_survive_a_crash),
    ("watched::many_are_asked_a_few_at_a_time", many_are_asked_a_few_at_a_time),
    ("watched::who_never_answers_keeps_no_other_from_being_asked", who_never_answers_keeps_no_other_from_being_asked),
    ("watched::a_question_that_is_given_up_leaves_nothing_behind", a_question_that_is_given_up_leaves_nothing_behind),
    ("watched::a_pod_is_one_host_and_starts_as_one", a_pod_is_one_host_and_starts_as_one),
];

const PANIC: i32 = 34 + 8;

fn watched(supervision: Supervision, container: plan::Container) -> plan::Container {
    plan::Container { supervision, ..container }
}

pub fn notifying(container: plan::Container) -> plan::Container {
    watched(Supervision { notify: true, ..Supervision::default() }, container)
}

fn asked(test: HealthTest, container: plan::Container) -> plan::Container {
    let health = HealthCheck {
        test,
        interval_ms: 100,
        timeout_ms: 20_000,
        retries: 2,
        start_period_ms: 0,
        start_interval_ms: 100,
        restart: true,
    };
    watched(Supervision { health: Some(health), ..Supervision::default() }, container)
}

fn script(script: &str) -> HealthTest {
    HealthTest::Exec(["/bin/sh", "-c", script].map(str::to_owned).to_vec())
}

/// Says something in the name of a container.
pub fn say(rig: &Rig, name: &str, words: &str) {
    let socket = UnixDatagram::unbound().unwrap();
    socket.send_to(words.as_bytes(), rig.file("run").join(format!("notify/{name}.sock"))).unwrap();
}

fn one_that_notifies_is_started_when_it_says_so() {
    let mut rig = Rig::new(vec![
        notifying(shell("slow", "echo here; sleep 10000")),
        after(0, Condition::Started, shell("next", "sleep 10000")),
    ]);
    rig.wait_console("slow | here");
    assert_eq!(rig.container("slow")["state"], "starting");
    say(&rig, "slow", "STATUS=loading 7 of 9\nX_ODD=1");
    let status = rig.wait("heard", |s| find(s, "slow")["says"] == "loading 7 of 9");
    assert_eq!(find(&status, "next")["detail"], "waits for slow to be started");
    assert_eq!(
        (&find(&status, "next")["state"], &find(&status, "slow")["state"]),
        (&"waiting".into(), &"starting".into())
    );
    say(&rig, "slow", "READY=1");
    rig.wait_state("slow", "running");
    rig.wait_state("next", "running");
    // Over a crash the socket stays, and what was said.
    rig.signal(PANIC);
    rig.wait("resumed", |s| s["notes"].as_array().is_some_and(|n| !n.is_empty()));
    assert_eq!(rig.container("slow")["says"], "loading 7 of 9");
    say(&rig, "slow", "STATUS=done");
    rig.wait("heard", |s| find(s, "slow")["says"] == "done");
}

fn readiness_that_never_comes_is_a_failure() {
    let supervision = Supervision { notify: true, start_timeout_ms: 700, ..Supervision::default() };
    let mut rig = Rig::new(vec![
        watched(supervision, shell("silent", "sleep 10000")),
        after(0, Condition::Started, shell("next", "echo never")),
    ]);
    let failed = rig.wait_state("silent", "failed");
    assert!(failed["detail"].as_str().unwrap().contains("ready"), "{failed}");
    let next = rig.wait_state("next", "failed");
    assert_eq!(next["detail"], "waits for silent to be started, which it can't be any more");
    assert!(!rig.console().contains("never"));
    // The control: who needn't say so has started at once.
    let mut rig =
        Rig::new(vec![shell("silent", "sleep 10000"), after(0, Condition::Started, shell("next", "sleep 10000"))]);
    rig.wait_state("next", "running");
}

fn a_sign_of_life_that_is_missing_is_a_failure() {
    let supervision = Supervision { notify: true, watchdog_ms: Some(1000), ..Supervision::default() };
    let mut rig = Rig::new(vec![with(Restart::Always, watched(supervision, shell("heart", "sleep 10000")))]);
    rig.until("it has a socket", |rig| rig.file("run/notify/heart.sock").exists());
    say(&rig, "heart", "READY=1");
    let first = rig.wait_state("heart", "running")["pid"].clone();
    for _ in 0..8 {
        say(&rig, "heart", "WATCHDOG=1");
        std::thread::sleep(Duration::from_millis(200));
    }
    let alive = rig.container("heart");
    assert_eq!((&alive["pid"], &alive["restarts"]), (&first, &0.into()));
    // Nobody says anything any more.
    let again = rig.wait("restarted", |s| find(s, "heart")["restarts"].as_u64() > Some(0));
    let told = rig.console();
    assert_ne!(find(&again, "heart")["pid"], first);
    assert!(told.contains("heart was killed by SIGKILL, as it did not say in time that it is alive; starts"), "{told}");
}

/// It says nothing else any more, and doesn't end either.
fn who_says_that_it_stops_has_its_time_for_that() {
    let supervision = Supervision { notify: true, watchdog_ms: Some(300), ..Supervision::default() };
    let lingering = watched(supervision, shell("lingering", "sleep 10000"));
    let mut rig = Rig::new(vec![plan::Container { stop_grace_ms: 2_000, ..with(Restart::Always, lingering) }]);
    rig.until("it has a socket", |rig| rig.file("run/notify/lingering.sock").exists());
    // In one, as its sign of life would be missing between the two.
    say(&rig, "lingering", "READY=1\nSTOPPING=1");
    let first = rig.wait("heard", |s| find(s, "lingering")["says"] == "stopping");
    let begun = Instant::now();
    let again = rig.wait("restarted", |s| find(s, "lingering")["restarts"].as_u64() > Some(0));
    assert!(begun.elapsed() > Duration::from_millis(1_000), "it was watched on: {:?}", begun.elapsed());
    assert_ne!(find(&again, "lingering")["pid"], find(&first, "lingering")["pid"]);
    let told = rig.console();
    assert!(
        told.contains("lingering was killed by SIGKILL, as it said that it stops, and did not in time; starts"),
        "{told}"
    );
}

/// A hundred datagrams are heard in a second; the sign of life is the next one.
fn who_says_too_much_is_heard_before_it_is_killed() {
    let supervision = Supervision { notify: true, watchdog_ms: Some(400), ..Supervision::default() };
    let mut rig = Rig::new(vec![with(Restart::Always, watched(supervision, shell("heart", "sleep 10000")))]);
    rig.until("it has a socket", |rig| rig.file("run/notify/heart.sock").exists());
    let path = rig.file("run/notify/heart.sock");
    let socket = UnixDatagram::unbound().unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    let mut alive_at = Instant::now();
    socket.send_to(b"READY=1", &path).unwrap();
    while Instant::now() < until {
        socket.send_to(b"STATUS=busy", &path).unwrap();
        if alive_at.elapsed() > Duration::from_millis(100) {
            alive_at = Instant::now();
            socket.send_to(b"WATCHDOG=1", &path).unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let heart = rig.container("heart");
    assert_eq!((&heart["state"], &heart["restarts"]), (&"running".into(), &0.into()), "{}", rig.console());
}

fn a_flood_of_notifications_holds_nobody_up() {
    let mut rig = Rig::new(vec![notifying(shell("loud", "sleep 10000")), shell("other", "sleep 10000")]);
    rig.until("it has a socket", |rig| rig.file("run/notify/loud.sock").exists());
    say(&rig, "loud", "READY=1");
    rig.wait_state("loud", "running");
    let path = rig.file("run/notify/loud.sock");
    let until = Instant::now() + Duration::from_secs(3);
    let flood = std::thread::spawn(move || {
        let socket = UnixDatagram::unbound().unwrap();
        socket.set_nonblocking(true).unwrap();
        let words = ["STATUS=x".to_owned(), "y\n".repeat(1900)].concat();
        let mut sent = 0_u64;
        while Instant::now() < until {
            sent += u64::from(socket.send_to(words.as_bytes(), &path).is_ok());
        }
        sent
    });
    let before = rig.cpu_time();
    let mut answers = 0;
    while Instant::now() < until {
        rig.status();
        answers += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    let sent = flood.join().unwrap();
    assert!(answers > 10, "{answers} answers in 3 s");
    // A hundred a second are heard, and what waits meanwhile is a socket full.
    assert!(sent < 1500, "{sent} datagrams were taken in 3 s");
    let spent = rig.cpu_time() - before;
    assert!(spent < Duration::from_secs(2), "{spent:?} of processor time for it");
    // Afterwards it is heard as before.
    std::thread::sleep(Duration::from_millis(1100));
    rig.until("heard again", |rig| {
        say(rig, "loud", "STATUS=calm");
        rig.file("run").exists()
    });
    rig.wait("heard again", |s| find(s, "loud")["says"] == "calm");
}

fn a_program_in_the_container_answers() {
    let life = "trap 'exit 3' TERM; echo 1 >/dev/ok; while true; do usleep 50000; done";
    let mut rig = Rig::new(vec![
        with(
            Restart::Always,
            asked(
                script("echo looked; read x </dev/ok; [ $x = 1 ] || echo it says $x; echo; [ $x = 1 ]"),
                shell("web", life),
            ),
        ),
        after(0, Condition::Healthy, shell("next", "sleep 10000")),
    ]);
    rig.wait("healthy", |s| find(s, "web")["health"] == "healthy");
    rig.wait_state("next", "running");
    let first = rig.container("web")["pid"].as_i64().unwrap();
    // Its own view of the container, as its own user: what it sees there is what was changed.
    std::fs::write(format!("/proc/{first}/root/dev/ok"), "0\n").unwrap();
    rig.wait("restarted", |s| find(s, "web")["restarts"].as_u64() > Some(0));
    let told = rig.console();
    assert!(told.contains(", as it was unhealthy: status 1: looked; it says 0; starts again"), "{told}");
    // A new run, a new question.
    rig.wait("healthy again", |s| find(s, "web")["health"] == "healthy" && find(s, "web")["state"] == "running");
    assert_eq!(rig.container("next")["restarts"], 0, "a dependent is left alone");
}

fn a_port_of_the_container_answers() {
    let serve = "mkdir /dev/www; echo hello >/dev/www/index.html; exec httpd -f -p 8080 -h /dev/www";
    let get = |path: &str| HealthTest::Http { port: 8080, path: path.to_owned() };
    let but = |change: fn(&mut HealthCheck), mut container: plan::Container| {
        container.supervision.health.as_mut().into_iter().for_each(change);
        container
    };
    let ignored = |container| but(|health| health.restart = false, container);
    // Its server may take a while to begin, and a good answer counts at once.
    let begins = |container| but(|health| health.start_period_ms = 30_000, container);
    let mut rig = Rig::new(vec![
        begins(asked(HealthTest::Tcp(8080), shell("tcp", serve))),
        begins(asked(get("/index.html"), shell("http", serve))),
        ignored(asked(get("/absent"), shell("absent", serve))),
        ignored(asked(HealthTest::Tcp(81), shell("closed", serve))),
    ]);
    for (name, health) in [("tcp", "healthy"), ("http", "healthy"), ("absent", "unhealthy"), ("closed", "unhealthy")] {
        rig.wait(&format!("{name} {health}"), |s| find(s, name)["health"] == health);
        assert_eq!(rig.container(name)["state"], "running", "{name}");
    }
}

fn an_answer_that_takes_too_long_is_a_bad_one() {
    let mut slow = asked(script("echo $$ >/dev/asked; sleep 1000"), shell("web", "sleep 10000"));
    if let Some(health) = &mut slow.supervision.health {
        (health.timeout_ms, health.retries) = (300, 1);
    }
    let mut rig = Rig::new(vec![slow]);
    let failed = rig.wait_state("web", "failed");
    assert!(failed["detail"].as_str().unwrap().contains("no answer in time"), "{failed}");
    rig.until("nothing is left", |rig| rig.children().is_empty());
}

fn questions_survive_a_crash() {
    let mut rig = Rig::new(vec![asked(
        script("usleep 300000; read x </dev/ok; [ $x = 1 ]"),
        shell("web", "echo 1 >/dev/ok; exec sleep 10000"),
    )]);
    rig.wait("healthy", |s| find(s, "web")["health"] == "healthy");
    let pid = rig.container("web")["pid"].as_i64().unwrap();
    // Most of the time a question is on its way.
    rig.signal(PANIC);
    rig.wait("resumed", |s| s["notes"].as_array().is_some_and(|n| !n.is_empty()));
    assert_eq!(rig.container("web")["health"], "healthy");
    std::fs::write(format!("/proc/{pid}/root/dev/ok"), "0\n").unwrap();
    let failed = rig.wait_state("web", "failed");
    assert!(failed["detail"].as_str().unwrap().contains("unhealthy: status 1"), "{failed}");
}

fn many_are_asked_a_few_at_a_time() {
    let containers = (0..30).map(|n| asked(script("usleep 50000"), shell(&format!("c{n}"), "sleep 10000")));
    let mut rig = Rig::new(containers.collect());
    let all =
        |s: &serde_json::Value, health: &str| s["containers"].as_array().unwrap().iter().all(|c| c["health"] == health);
    let mut most = 0;
    let until = Instant::now() + Duration::from_secs(60);
    while !all(&rig.status(), "healthy") {
        // A worker, and the program that it executes, which is PID 1's child for a moment when the worker ends first.
        most = most.max(rig.children().len().saturating_sub(30));
        assert!(Instant::now() < until, "{:#}", rig.status());
    }
    assert!((1..=16).contains(&most), "{most} at once");
}

/// Another check.
fn but(change: fn(&mut HealthCheck), mut container: plan::Container) -> plan::Container {
    container.supervision.health.as_mut().into_iter().for_each(change);
    container
}

fn who_never_answers_keeps_no_other_from_being_asked() {
    let hangs = |health: &mut HealthCheck| (health.timeout_ms, health.restart) = (10_000, false);
    let silent = (0..20).map(|n| but(hangs, asked(script("sleep 1000"), shell(&format!("c{n}"), "sleep 10000"))));
    // Its turn comes when all of them are asked, or wait to be.
    let later = |health: &mut HealthCheck| health.interval_ms = 2_000;
    let sound = but(later, asked(script("true"), shell("sound", "sleep 10000")));
    let next = after(20, Condition::Healthy, shell("next", "sleep 10000"));
    let mut rig = Rig::new(silent.chain([sound, next]).collect());
    rig.wait_state("sound", "running");
    rig.wait_state("next", "running");
    let waited = rig.container("sound")["uptime_ms"].as_u64().unwrap();
    assert!(waited < 9_000, "{waited} ms until it was found healthy");
    // All of them are asked at the same time by then, or soon.
    rig.until("all are asked", |rig| rig.children().len() >= 22 + 20);
    rig.signal(PANIC);
    rig.wait("resumed", |s| s["notes"].as_array().is_some_and(|n| !n.is_empty()));
    // The incarnation after a crash knows them all: each is told of in its time, and asked again.
    rig.wait("told of", |s| (0..20).all(|n| find(s, &format!("c{n}"))["health"] == "unhealthy"));
    assert!(!rig.console().contains("is a worker that nobody knows"), "{}", rig.console());
}

/// A worker that stands still is killed; the program that it has executed in the container is not what goes on.
fn a_question_that_is_given_up_leaves_nothing_behind() {
    let short = |health: &mut HealthCheck| (health.timeout_ms, health.restart) = (2_000, false);
    let mut rig = Rig::new(vec![but(short, asked(script("sleep 4321; true"), shell("web", "sleep 10000")))]);
    let programs = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let line = |entry: &std::fs::DirEntry| std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        all.map(|entry| line(&entry)).filter(|line| line == b"sleep\x004321\0").count()
    };
    rig.wait_state("web", "running");
    let (mut stopped, until) = (0, Instant::now() + Duration::from_secs(60));
    while stopped < 2 {
        assert!(Instant::now() < until);
        // One whose program runs.
        let asking = rig.children().into_iter().find(|(pid, state)| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            *state != 'T' && *state != 'Z' && line.starts_with(b"garboard-worker\0health") && programs() > 0
        });
        // Unless it has ended in this moment.
        let stop = |pid| rustix::process::kill_process(pid, rustix::process::Signal::STOP).is_ok();
        if let Some((pid, _)) = asking
            && rustix::process::Pid::from_raw(pid).is_some_and(stop)
        {
            stopped += 1;
            rig.until("it is given up", |rig| rig.children().iter().all(|(other, _)| *other != pid));
        }
    }
    rig.wait("told of", |s| find(s, "web")["health"] == "unhealthy");
    assert!(programs() <= 1, "{} programs of one check", programs());
}

fn a_pod_is_one_host_and_starts_as_one() {
    let in_pod = |container: plan::Container| plan::Container { pod: Some(0), ..container };
    let serve = "mkdir /dev/www; echo hello >/dev/www/index.html; exec httpd -f -p 8080 -h /dev/www";
    let look = "hostname; i=0; while [ $((i += 1)) -lt 200 ]; do nc 127.0.0.1 8080 </dev/null >/dev/null 2>&1 && echo reached && break; usleep 50000; done; exec sleep 10000";
    let mut rig = Rig::in_pods(
        1,
        vec![
            shell("first", "usleep 500000"),
            in_pod(shell("web", serve)),
            in_pod(after(0, Condition::Completed, shell("client", look))),
            shell("stranger", "nc 127.0.0.1 8080 </dev/null >/dev/null 2>&1 || echo nobody; exec sleep 10000"),
        ],
    );
    // `web` needs nobody, and waits for what the other waits for.
    let early = rig.status();
    if find(&early, "first")["state"] != "exited" {
        assert_eq!(find(&early, "web")["state"], "waiting", "{early:#}");
    }
    assert_eq!(
        (&find(&early, "web")["pod"], &find(&early, "first")["pod"]),
        (&"pod0".into(), &serde_json::Value::Null)
    );
    rig.wait_console("client   | reached");
    rig.wait_console("stranger | nobody");
    let namespaces = |rig: &mut Rig, name: &str| {
        let pid = rig.wait_state(name, "running")["pid"].as_i64().unwrap();
        ["user", "net", "ipc", "uts", "pid", "mnt"]
            .map(|kind| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap())
    };
    let (web, client, stranger) =
        (namespaces(&mut rig, "web"), namespaces(&mut rig, "client"), namespaces(&mut rig, "stranger"));
    assert_eq!(web[..4], client[..4]);
    assert!(web[4..].iter().zip(&client[4..]).all(|(a, b)| a != b));
    assert!(web.iter().zip(&stranger).all(|(a, b)| a != b));
    // Over a crash, too, one that is started again joins the other.
    rig.signal(PANIC);
    rig.wait("resumed", |s| s["notes"].as_array().is_some_and(|n| !n.is_empty()));
    let pid = rig.container("client")["pid"].as_i64().unwrap();
    crate::rig::kill(pid as i32, 9);
    rig.wait("given up as one", |s| find(s, "client")["state"] == "failed" && find(s, "web")["state"] == "failed");
    assert_eq!(rig.container("web")["detail"], "client of its pod was given up");
    assert_eq!(rig.container("stranger")["state"], "running");
}
