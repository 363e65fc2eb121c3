//! Containers that may read the status, each on a socket of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use garboard_runtime::plan::{self, Restart};
use serde_json::{Value, json};

use crate::rig::{Rig, Setup, kill, shell, with};

/// By name.
pub const TESTS: &[(&str, fn())] = &[
    ("readers::a_container_reads_and_changes_nothing", a_container_reads_and_changes_nothing),
    ("readers::a_flood_of_requests_leaves_pid_1_to_others", a_flood_of_requests_leaves_pid_1_to_others),
    ("readers::who_asks_without_end_keeps_no_other_out", who_asks_without_end_keeps_no_other_out),
    ("readers::connections_are_bounded_and_the_oldest_goes", connections_are_bounded_and_the_oldest_goes),
    (
        "readers::replies_that_nobody_reads_are_small_and_not_for_ever",
        replies_that_nobody_reads_are_small_and_not_for_ever,
    ),
    ("readers::long_replies_wait_for_those_before_to_be_taken", long_replies_wait_for_those_before_to_be_taken),
    ("readers::sockets_are_there_again_after_a_crash", sockets_are_there_again_after_a_crash),
];

const PANIC: i32 = 34 + 8;

fn reader(name: &str) -> plan::Container {
    plan::Container { reads_status: true, ..with(Restart::Always, shell(name, "echo hello; sleep 10000")) }
}

pub fn connect(rig: &Rig, name: &str) -> BufReader<UnixStream> {
    let stream = UnixStream::connect(rig.status_socket(name)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    BufReader::new(stream)
}

pub fn ask(stream: &mut BufReader<UnixStream>, request: Value) -> Value {
    stream.get_mut().write_all(format!("{request}\n").as_bytes()).unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or(Value::Null)
}

fn a_container_reads_and_changes_nothing() {
    let mut rig = Rig::new(vec![reader("watcher"), shell("secret", "echo mine; sleep 10000")]);
    rig.wait_state("watcher", "running");
    rig.wait_state("secret", "running");
    rig.until("made", |rig| rig.status_socket("watcher").exists());
    assert!(!rig.status_socket("secret").exists(), "only who may read has a socket");
    let mut stream = connect(&rig, "watcher");
    let kind = |reply: &Value| reply["type"].as_str().unwrap_or_default().to_owned();
    assert_eq!(ask(&mut stream, json!({"id": 1, "request": "status"}))["snapshot"]["appliance"], "test");
    assert_eq!(kind(&ask(&mut stream, json!({"request": "events"}))), "events");
    assert_eq!(kind(&ask(&mut stream, json!({"request": "metrics"}))), "metrics");
    let own = ask(&mut stream, json!({"request": "logs", "container": "watcher"}));
    assert_eq!(own["lines"][0]["text"], "hello");
    for refused in [
        json!({"request": "logs", "container": "secret"}),
        json!({"request": "logs", "container": "secret", "follow": true}),
        json!({"request": "logs"}),
        json!({"request": "subscribe", "logs": ["secret"]}),
        json!({"request": "trace"}),
        json!({"request": "poweroff"}),
        json!({"request": "reboot"}),
    ] {
        assert_eq!(kind(&ask(&mut stream, refused.clone())), "error", "{refused}");
    }
    // All that it may read is its own.
    assert_eq!(kind(&ask(&mut stream, json!({"request": "subscribe", "logs": "all"}))), "subscribed");
    // A program that says all it has to say at once gets its answers.
    let mut once = connect(&rig, "watcher").into_inner();
    once.write_all(b"{\"request\":\"status\"}\n{\"request\":\"events\"}\n").unwrap();
    once.shutdown(std::net::Shutdown::Write).unwrap();
    let mut all = String::new();
    once.read_to_string(&mut all).unwrap();
    assert_eq!(all.lines().count(), 2, "{all}");
    // The control: on the machine's own port the same requests are granted.
    assert_eq!(rig.log("secret"), ["mine"]);
    assert_eq!(kind(&rig.ask(json!({"request": "poweroff"}))), "ok");
    assert_eq!(rig.end().0, 0);
}

/// Processor time of the supervisor, as a share of the time that passed while one container only asks.
fn share_under_flood(fate: &'static str) -> (f64, Duration) {
    let mut rig = Rig::with(vec![reader("hostile"), reader("calm")], Setup { fate, ..Setup::default() });
    rig.wait_state("hostile", "running");
    rig.wait_state("calm", "running");
    let path = rig.status_socket("hostile");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flood = |stalls: bool| {
        let (path, stop) = (path.clone(), std::sync::Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let Ok(mut stream) = UnixStream::connect(&path) else { continue };
                let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
                let _ = stream.set_write_timeout(Some(Duration::from_millis(20)));
                let requests = "{\"request\":\"status\"}\n".repeat(1000);
                let mut buffer = vec![0; 1 << 20];
                for _ in 0..100 {
                    if stream.write(requests.as_bytes()).is_err() && stalls {
                        break;
                    }
                    // One kind never reads what it asked for.
                    if !stalls && matches!(stream.read(&mut buffer), Ok(0)) {
                        break;
                    }
                }
            }
        })
    };
    let threads = [flood(false), flood(false), flood(true)];
    std::thread::sleep(Duration::from_millis(300));
    let ticks = |pid: i32| -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
    };
    let (begun, before) = (Instant::now(), ticks(rig.pid()));
    let mut slowest = Duration::ZERO;
    let mut other = connect(&rig, "calm");
    while begun.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        rig.ask(json!({"request": "events", "count": 1}));
        assert_eq!(ask(&mut other, json!({"request": "events", "count": 1}))["type"], "events");
        slowest = slowest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    let used = (ticks(rig.pid()) - before) / 100.0 / begun.elapsed().as_secs_f64();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    (used, slowest)
}

fn a_flood_of_requests_leaves_pid_1_to_others() {
    let (used, slowest) = share_under_flood("usual");
    assert!(used < 0.15, "PID 1 was busy for {used:.2} of the time");
    assert!(slowest < Duration::from_secs(5), "an answer to another took {slowest:?}");
    // The control: without the measure the same flood takes what it gets.
    let (without, _) = share_under_flood("unmeasured");
    assert!(without > 2.0 * used, "{without:.2} without, {used:.2} with it");
}

/// Of those who may ask the same, each is answered, and another one comes in.
fn who_asks_without_end_keeps_no_other_out() {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    // Answers that take as long as there is for them.
    let crowd = (0..300).map(|number| with(Restart::No, shell(&format!("ended-{number}"), "exit 0")));
    let mut rig = Rig::new([reader("busy")].into_iter().chain(crowd).collect());
    rig.wait("all ended", |status| {
        let containers = status["containers"].as_array().unwrap();
        containers.iter().filter(|container| container["state"] == "exited").count() == 300
    });
    let (stop, answers) = (AtomicBool::new(false), [const { AtomicU32::new(0) }; 2]);
    /// Ends the askers also where the test fails.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for count in &answers {
            let mut stream = connect(&rig, "busy");
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(ask(&mut stream, json!({"request": "status"}))["type"], "status");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let answered = || answers.iter().map(|count| count.load(Ordering::Relaxed)).min().unwrap();
        rig.until("both are answered", |_| answered() >= 3);
        for _ in 0..3 {
            let mut third = connect(&rig, "busy");
            assert_eq!(ask(&mut third, json!({"request": "events", "count": 1}))["type"], "events");
        }
        let before = answered();
        rig.until("both still are", |_| answered() >= before + 3);
    });
}

fn connections_are_bounded_and_the_oldest_goes() {
    let mut rig = Rig::new(vec![reader("many")]);
    rig.wait_state("many", "running");
    let before = rig.descriptors();
    let mut streams: Vec<_> = (0..4).map(|_| connect(&rig, "many")).collect();
    for stream in &mut streams {
        assert_eq!(ask(stream, json!({"request": "status"}))["type"], "status");
    }
    let mut fifth = connect(&rig, "many");
    assert_eq!(ask(&mut fifth, json!({"request": "status"}))["type"], "status");
    let mut end = String::new();
    assert_eq!(streams[0].read_line(&mut end).unwrap(), 0, "the oldest was closed");
    assert_eq!(ask(&mut streams[1], json!({"request": "status"}))["type"], "status");
    let more: Vec<_> = (0..200).map(|_| connect(&rig, "many")).collect();
    // One is let in before another one goes.
    rig.until("few again", |rig| rig.descriptors() <= before + 4);
    drop((more, streams, fifth));
    rig.until("closed", |rig| rig.descriptors() <= before);
}

fn replies_that_nobody_reads_are_small_and_not_for_ever() {
    // Each byte of it takes six in JSON.
    let line = "x=$(printf '\\001'); while [ ${#x} -lt 1000 ]; do x=$x$x; done";
    let print = format!("{line}; i=0; while [ $((i += 1)) -le 200 ]; do echo $x; done; echo all; sleep 10000");
    let hostile = plan::Container { reads_status: true, ..with(Restart::Always, shell("hostile", &print)) };
    let mut rig = Rig::new(vec![hostile]);
    let until = Instant::now() + Duration::from_secs(60);
    while rig.log("hostile").last().is_none_or(|last| last != "all") {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(100));
    }
    let logs = json!({"request": "logs", "container": "hostile", "tail": 1_000_000});
    let mut calm = connect(&rig, "hostile");
    let reply = ask(&mut calm, logs.clone());
    let text = |line: &Value| line["text"].as_str().unwrap().to_owned();
    let lines: Vec<String> = reply["lines"].as_array().unwrap().iter().map(text).collect();
    assert!(lines.len() > 5 && reply.to_string().len() < 64 << 10, "{} lines", lines.len());
    assert_eq!((lines[0].len(), lines[lines.len() - 1].as_str()), (1024, "all"), "the newest");
    // The control: who may ask everything gets all that is kept of it.
    assert!(rig.log("hostile").len() > 100);
    let resident = |rig: &Rig| {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", rig.pid())).unwrap();
        text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4
    };
    let (before, open, begun) = (resident(&rig), rig.descriptors(), Instant::now());
    let requests = format!("{logs}\n").repeat(20);
    let streams: Vec<_> = (0..3)
        .map(|_| {
            let mut stream = connect(&rig, "hostile").into_inner();
            stream.write_all(requests.as_bytes()).unwrap();
            stream
        })
        .collect();
    let mut most = 0;
    while begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(50));
        most = most.max(resident(&rig).saturating_sub(before));
    }
    assert!(most < 700, "{most} KiB more");
    // Who takes nothing is closed after a while; who has nothing to take is not.
    rig.until("closed", |rig| rig.descriptors() <= open);
    let passed = begun.elapsed();
    assert!(passed > Duration::from_secs(9), "{passed:?}");
    for mut stream in streams {
        let mut taken = Vec::new();
        let _ = stream.read_to_end(&mut taken);
        assert!(taken.split(|byte| *byte == b'\n').count() < 10);
    }
    assert_eq!(ask(&mut calm, json!({"request": "events"}))["type"], "events");
}

/// A status as long as that of hundreds of containers, asked for on each of a container's connections, and taken on none.
fn long_replies_wait_for_those_before_to_be_taken() {
    let mut long = reader("hostile");
    long.labels = vec![("long".to_owned(), "x".repeat(1 << 20))];
    let mut rig = Rig::new(vec![long, reader("calm")]);
    rig.wait_state("hostile", "running");
    rig.wait_state("calm", "running");
    let request = b"{\"request\":\"status\"}\n";
    let mut streams: Vec<_> = (0..4).map(|_| connect(&rig, "hostile")).collect();
    for stream in &mut streams {
        stream.get_mut().write_all(request).unwrap();
    }
    let waiting = |streams: &[BufReader<UnixStream>]| {
        streams.iter().filter(|stream| rustix::io::ioctl_fionread(stream.get_ref()).unwrap() > 0).count()
    };
    // Others are answered meanwhile, and PID 1 has nothing to do.
    let mut calm = connect(&rig, "calm");
    assert_eq!(ask(&mut calm, json!({"request": "status"}))["type"], "status");
    std::thread::sleep(Duration::from_secs(1));
    let before = rig.cpu_time();
    std::thread::sleep(Duration::from_secs(1));
    assert!(rig.cpu_time() - before < Duration::from_millis(100), "it waits by asking again and again");
    assert_eq!(waiting(&streams), 1);
    // Each is answered when the one before was taken.
    for left in (0..4).rev() {
        rig.until("one more", |_| waiting(&streams) > 0);
        let next = streams.iter().position(|s| rustix::io::ioctl_fionread(s.get_ref()).unwrap() > 0).unwrap();
        let mut line = String::new();
        streams.swap_remove(next).read_line(&mut line).unwrap();
        assert!(line.len() > 1 << 20 && line.ends_with("}\n"), "{left} are left");
    }
}

fn sockets_are_there_again_after_a_crash() {
    let mut rig = Rig::new(vec![reader("watcher")]);
    rig.wait_state("watcher", "running");
    let mut stream = connect(&rig, "watcher");
    assert_eq!(ask(&mut stream, json!({"request": "status"}))["type"], "status");
    let inode =
        |rig: &Rig| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(rig.status_socket("watcher")).unwrap());
    let before = inode(&rig);
    kill(rig.pid(), PANIC);
    rig.wait_console("crashed and goes on");
    // It is told by the end of the connection, and the socket is the one that its container has mounted.
    let mut end = String::new();
    assert_eq!(stream.read_line(&mut end).unwrap(), 0);
    assert_eq!(inode(&rig), before);
    let mut stream = connect(&rig, "watcher");
    let events = ask(&mut stream, json!({"request": "events", "since": 0}));
    assert!(events["events"].as_array().unwrap().iter().any(|e| e["kind"] == "crash"), "{events}");
}
