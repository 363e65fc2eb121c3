//! A supervisor with its containers, and what is seen of it from outside.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use garboard_runtime::plan::Plan;
use serde_json::{Value, json};

use crate::site::{Site, Took};
use crate::trace;

/// Nothing takes longer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// After that the console's last table has been printed.
const QUIET: Duration = Duration::from_secs(35);
/// A question that a crash has swallowed is asked again.
const AGAIN: Duration = Duration::from_millis(5);
/// SIGRTMIN+9 has it fault.
const FAULT: &str = "-43";

pub struct Supervised<'a> {
    site: &'a Site,
    child: Child,
    port: BufReader<UnixStream>,
    trace: PathBuf,
    begun: Duration,
    next_id: u64,
    line: String,
}

/// What there is once all containers run. KiB.
pub struct Seen {
    pub resident: usize,
    pub private: usize,
    pub rings: usize,
    pub state: usize,
    pub descriptors: usize,
    /// Processes beneath it that are no container's first.
    pub others: usize,
}

impl<'a> Supervised<'a> {
    pub fn begin(site: &'a Site, plan: &Plan) -> Self {
        let (path, trace) = (site.path("plan"), site.path("trace"));
        std::fs::write(&path, plan.encode().expect("encode the plan")).expect("write the plan");
        let _ = std::fs::remove_file(&trace);
        let (ours, theirs) = UnixStream::pair().expect("socket pair");
        let mut command = site.within(&std::env::current_exe().expect("own path"));
        command.arg("supervisor").arg(&path).arg(site.path("run")).arg(site.cgroup_path()).arg(&trace);
        command.stdin(std::os::fd::OwnedFd::from(theirs)).stdout(Stdio::null());
        let begun = trace::now();
        let child = command.spawn().expect("start the supervisor");
        Self { site, child, port: BufReader::new(ours), trace, begun, next_id: 0, line: String::new() }
    }

    /// How long it took until every container ran.
    pub fn wait_running(&mut self) -> Took {
        let running = self.wait("running", 1)[0];
        Took { clock: running - self.begun, processor: self.site.used() }
    }

    /// How long each of so many actions took that followed from an exit; of processor time.
    pub fn wait_actions(&mut self, count: usize) -> [Vec<Duration>; 2] {
        // The first follows from the last start.
        ["action", "processor"].map(|word| self.wait(word, count + 1).split_off(1))
    }

    fn wait(&mut self, word: &str, count: usize) -> Vec<Duration> {
        let until = Instant::now() + PATIENCE;
        loop {
            let found = trace::read(&self.trace, word);
            if found.len() >= count {
                return found;
            }
            if Instant::now() >= until || self.child.try_wait().expect("wait").is_some() {
                panic!("only {} of {count} times {word}: {}", found.len(), self.ask(&json!({"request": "events"})));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn look(&mut self, count: usize) -> Seen {
        // Until what is due after the last start is done.
        std::thread::sleep(Duration::from_secs(3));
        let rollup = self.proc("smaps_rollup");
        let field = |name: &str| {
            let line = rollup.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.filter_map(|line| line.split_whitespace().next()?.parse::<usize>().ok()).sum::<usize>()
        };
        let mut files = 0;
        let (mut rings, mut state) = (0, 0);
        for entry in std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("descriptors").flatten() {
            files += 1;
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            let kib = || {
                std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(entry.path()).expect("memfd")) as usize / 2
            };
            match target.to_str() {
                Some(name) if name.contains("memfd:garboard-logs") => rings += kib(),
                Some(name) if name.contains("memfd:garboard-state") => state += kib(),
                _ => {}
            }
        }
        let (containers, others) = self.processes();
        assert_eq!(containers.len(), count, "containers that run");
        Seen {
            resident: field("Rss"),
            private: field("Private_Clean") + field("Private_Dirty"),
            rings,
            state,
            descriptors: files,
            others,
        }
    }

    /// Its children, and how many processes there are besides.
    fn processes(&self) -> (BTreeSet<i32>, usize) {
        let children = |pid: i32| -> Vec<i32> {
            let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
        };
        let own = children(self.child.id().cast_signed());
        let is_container = |pid: &i32| {
            let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            program.ends_with("bin/sleep")
        };
        let others = own.iter().map(|pid| children(*pid).len() + usize::from(!is_container(pid))).sum();
        (own.into_iter().filter(is_container).collect(), others)
    }

    fn proc(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).expect("the supervisor is there")
    }

    /// How often it was woken while nothing happened, and how much processor time it used.
    pub fn idle(&mut self, time: Duration) -> (u64, u64) {
        std::thread::sleep(QUIET);
        let before = self.activity();
        std::thread::sleep(time);
        let after = self.activity();
        (after.0 - before.0, after.1 - before.1)
    }

    fn activity(&self) -> (u64, u64) {
        let status = self.proc("status");
        let number = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
            line.trim().parse().expect("a number")
        };
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat.rsplit_once(") ").expect("fields").1.split(' ').collect();
        let ticks = |at: usize| fields[at].parse::<u64>().expect("ticks");
        (number("voluntary_ctxt_switches:"), ticks(11) + ticks(12))
    }

    /// Makes it crash while somebody asks it questions: the longest time until an answer, and how much of that it waited for a processor
    /// that was busy with something else. No container is lost.
    pub fn crash(&mut self, count: usize) -> (Duration, Duration) {
        let before = self.processes().0;
        self.port.get_ref().set_read_timeout(Some(AGAIN)).expect("timeout");
        let mut longest = (Duration::ZERO, Duration::ZERO);
        let begun = Instant::now();
        let (mut struck, mut killer) = (false, None);
        while begun.elapsed() < Duration::from_secs(2) {
            if !struck && begun.elapsed() > Duration::from_millis(500) {
                struck = true;
                let pid = self.child.id().to_string();
                // Not waited for here: that would count.
                killer = Some(Command::new("kill").args([FAULT, &pid]).spawn().expect("kill"));
            }
            let (asked, waited) = (Instant::now(), self.waited());
            self.answer();
            if struck {
                longest = longest.max((asked.elapsed(), self.waited().saturating_sub(waited)));
            }
        }
        let status = killer.as_mut().map(Child::wait).expect("a killer").expect("wait");
        assert!(status.success(), "kill: {status}");
        self.port.get_ref().set_read_timeout(Some(PATIENCE)).expect("timeout");
        let status = self.ask(&json!({"request": "status"}));
        let snapshot = &status["snapshot"];
        assert!(snapshot["notes"].to_string().contains("crashed and goes on"), "{}", snapshot["notes"]);
        let containers = snapshot["containers"].as_array().expect("containers");
        let well = |c: &&Value| c["state"] == "running" && c["restarts"] == 0;
        assert_eq!(containers.iter().filter(well).count(), count, "containers that run as before");
        assert!(before == self.processes().0, "the same processes");
        longest
    }

    /// How long it was ready to run and didn't, ever.
    fn waited(&self) -> Duration {
        let numbers = self.proc("schedstat");
        Duration::from_nanos(numbers.split(' ').nth(1).and_then(|number| number.parse().ok()).unwrap_or(0))
    }

    /// Asks for little until it is answered.
    fn answer(&mut self) {
        loop {
            self.send(&json!({"request": "events", "count": 1}));
            if self.receive().is_some() {
                return;
            }
        }
    }

    fn ask(&mut self, request: &Value) -> Value {
        self.send(request);
        loop {
            let reply = self.receive().expect("a reply");
            if reply["id"] == self.next_id {
                return reply;
            }
        }
    }

    fn send(&mut self, request: &Value) {
        self.next_id += 1;
        let mut request = request.clone();
        request["id"] = self.next_id.into();
        self.port.get_mut().write_all(format!("\n{request}\n").as_bytes()).expect("write to the port");
    }

    /// The next line; `None` if there was none in time.
    fn receive(&mut self) -> Option<Value> {
        match self.port.read_line(&mut self.line) {
            Ok(0) => panic!("the supervisor is gone"),
            Ok(_) => serde_json::from_str(&std::mem::take(&mut self.line)).ok().or(Some(Value::Null)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("read from the port: {error}"),
        }
    }
}

impl Drop for Supervised<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
