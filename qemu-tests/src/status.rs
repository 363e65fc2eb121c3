//! Asks the appliance how it is, over the status port: line-JSON with request ids.
//!
//! Nobody may be listening yet, and an answer may get lost while the machine starts; so a request is repeated with a new id until
//! one of its answers comes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Map, Value};

/// Pause after which an unanswered request is sent again.
const REPEAT: Duration = Duration::from_secs(2);
/// The longest answer accepted, in bytes.
const MAX_LINE: usize = 16 << 20;

/// How an appliance is, at one moment.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
#[derive(Default)]
pub struct Snapshot {
    /// The appliance's name.
    pub appliance: String,
    /// The machine's host name.
    pub hostname: String,
    /// `booting`, `running` or `stopping`.
    pub state: String,
    /// Every container is as declared.
    pub ready: bool,
    /// Milliseconds since the kernel started.
    pub uptime_ms: u64,
    /// Resident memory of PID 1.
    pub pid1_rss_bytes: u64,
    /// What the kernel can do.
    pub features: Vec<Feature>,
    /// The uplink.
    pub network: NetworkStatus,
    /// The data filesystem.
    pub data: DataStatus,
    /// Which boot of those that the data filesystem knows this is.
    pub boot: Option<u64>,
    /// How the one before ended, once that is known.
    pub previous: Option<Previous>,
    /// Every container.
    pub containers: Vec<ContainerStatus>,
}

impl Snapshot {
    /// The container of this name.
    pub fn container(&self, name: &str) -> Option<&ContainerStatus> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// A table for people: one line per container.
    pub fn table(&self) -> String {
        let longest = |of: fn(&ContainerStatus) -> &str| self.containers.iter().map(|c| of(c).len()).max().unwrap_or(0);
        let width = longest(|c| &c.name).max(9);
        // No column for what nobody is in.
        let pods = longest(|c| c.pod.as_deref().unwrap_or_default());
        let pod = |name: &str| if pods == 0 { String::new() } else { format!("  {name:0$}", pods.max(3)) };
        let mut text = format!(
            "{:width$}{}  {:9} {:9} {:>8}  {}\n",
            "CONTAINER",
            pod("POD"),
            "STATE",
            "HEALTH",
            "RESTARTS",
            "DETAIL"
        );
        for c in &self.containers {
            let pod = pod(c.pod.as_deref().unwrap_or("-"));
            let line = format!("{:width$}{pod}  {:9} {:9} {:>8}  {}", c.name, c.state, c.health, c.restarts, c.detail);
            text += line.trim_end();
            text += "\n";
        }
        text
    }
}

/// A kernel feature.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// The kernel option that gives it.
    pub config: String,
    /// `ok`, `degraded` or `missing`.
    pub verdict: String,
    /// What that means.
    pub detail: String,
}

/// The uplink.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NetworkStatus {
    /// Its interface.
    pub uplink: Option<String>,
    /// Its addresses with prefix.
    pub addresses: Vec<String>,
    /// `up`, `configuring`, `none` or `failed`.
    pub state: String,
    /// Why.
    pub detail: String,
}

/// The data filesystem.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct DataStatus {
    /// `mounted`, `absent`, `readonly`, `tmpfs` or `none`.
    pub state: String,
    /// Why.
    pub detail: String,
    /// Its size.
    pub bytes: u64,
}

/// How the boot before ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Previous {
    /// In a word: `reboot`, `poweroff`, `crash`, `unclean`; STATUS.md has them all.
    pub cause: String,
    /// In words.
    pub text: String,
    /// Its number.
    pub boot: Option<u64>,
    /// How long it was up.
    pub uptime_ms: Option<u64>,
    /// The kernel's last lines.
    pub kernel: Vec<String>,
}

/// How a container is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// Its image, as declared.
    pub image: String,
    /// `waiting`, `starting`, `running`, `backoff`, `stopping`, `exited` or `failed`.
    pub state: String,
    /// `none`, `starting`, `healthy` or `unhealthy`.
    pub health: String,
    /// Its first process, as the machine counts.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u64,
    /// How its last run ended.
    pub exit: Option<Exit>,
    /// Why it is in this state, for people.
    pub detail: String,
    /// Milliseconds since this run began.
    pub uptime_ms: Option<u64>,
    /// Memory of its cgroup.
    pub memory_bytes: Option<u64>,
    /// Its processes that were killed for want of memory.
    pub oom_kills: u64,
    /// Log lines dropped.
    pub log_dropped: u64,
    /// Bytes of its log that were to be kept, and are lost.
    #[serde(default)]
    pub log_unkept: u64,
    /// What the declaration takes from its isolation.
    pub weakened: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The pod that it is in.
    pub pod: Option<String>,
    /// It is as the declaration wants it.
    pub as_declared: bool,
}

impl ContainerStatus {
    /// Running, and its health check, if it has one, passes.
    pub fn is_healthy(&self) -> bool {
        self.state == "running" && matches!(self.health.as_str(), "none" | "healthy")
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// Why a request has no answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    TimedOut,
    /// QEMU closed the socket: the machine has ended.
    Closed,
    /// The appliance said no.
    Refused(String),
}

/// The host's end of the status port.
#[derive(Debug)]
pub(crate) struct StatusPort {
    path: PathBuf,
    stream: Option<UnixStream>,
    input: Vec<u8>,
    next_id: u64,
}

impl StatusPort {
    pub fn new(path: PathBuf) -> Self {
        Self { path, stream: None, input: Vec::new(), next_id: 1 }
    }

    /// Sends `request` with `arguments` until it is answered or `timeout` is over.
    pub fn request(
        &mut self,
        request: &str,
        arguments: &Map<String, Value>,
        timeout: Duration,
    ) -> Result<Value, Failure> {
        let deadline = Instant::now() + timeout;
        let mut ids = BTreeSet::new();
        loop {
            let repeat_at = (Instant::now() + REPEAT).min(deadline);
            let mut body = arguments.clone();
            body.insert("id".into(), self.next_id.into());
            body.insert("request".into(), request.into());
            ids.insert(self.next_id);
            self.next_id += 1;
            let line = format!("{}\n", Value::Object(body));
            if !self.send(line.as_bytes(), deadline)? {
                return Err(Failure::TimedOut);
            }
            if let Some(reply) = self.reply(&ids, repeat_at)? {
                return match reply.get("type").and_then(Value::as_str) {
                    Some("error") => Err(Failure::Refused(error_text(&reply))),
                    _ => Ok(reply),
                };
            }
            if Instant::now() >= deadline {
                return Err(Failure::TimedOut);
            }
        }
    }

    /// Writes all of `bytes`; `false` if there was no time to.
    fn send(&mut self, bytes: &[u8], deadline: Instant) -> Result<bool, Failure> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(left) = time_left(deadline) else {
                // Half a line must not become the beginning of the next one.
                if rest.len() < bytes.len() {
                    self.stream = None;
                }
                return Ok(false);
            };
            let Some(stream) = self.connect(deadline)? else { return Ok(false) };
            let written = stream.set_write_timeout(Some(left)).and_then(|()| (&*stream).write(rest));
            match written {
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                Err(e) if is_pause(&e) => {}
                Err(_) => return Err(self.closed()),
            }
        }
        Ok(true)
    }

    /// The first answer to one of `ids` that comes before `deadline`.
    fn reply(&mut self, ids: &BTreeSet<u64>, deadline: Instant) -> Result<Option<Value>, Failure> {
        let mut chunk = vec![0; 64 << 10];
        loop {
            while let Some(end) = self.input.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                // Whatever isn't an answer to us (noise of a starting machine, a late answer) is passed over.
                let value = serde_json::from_slice::<Value>(&line).ok();
                let id = value.as_ref().and_then(|value| value.get("id")?.as_u64());
                if id.is_some_and(|id| ids.contains(&id)) {
                    return Ok(value);
                }
            }
            if self.input.len() > MAX_LINE {
                self.input.clear();
            }
            let Some(left) = time_left(deadline) else { return Ok(None) };
            let Some(stream) = self.connect(deadline)? else { return Ok(None) };
            match stream.set_read_timeout(Some(left)).and_then(|()| (&*stream).read(&mut chunk)) {
                Ok(0) => return Err(self.closed()),
                Ok(n) => self.input.extend_from_slice(&chunk[..n]),
                Err(e) if is_pause(&e) => {}
                Err(_) => return Err(self.closed()),
            }
        }
    }

    /// The connection; QEMU may need a moment to make its socket.
    fn connect(&mut self, deadline: Instant) -> Result<Option<&UnixStream>, Failure> {
        while self.stream.is_none() {
            match UnixStream::connect(&self.path) {
                Ok(stream) => self.stream = Some(stream),
                Err(_) if time_left(deadline).is_none() => return Ok(None),
                Err(_) if !self.path.parent().is_some_and(|directory| directory.exists()) => {
                    return Err(Failure::Closed);
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        Ok(self.stream.as_ref())
    }

    fn closed(&mut self) -> Failure {
        self.stream = None;
        Failure::Closed
    }
}

/// What an error reply says.
fn error_text(reply: &Value) -> String {
    let text = ["message", "error", "detail"].iter().find_map(|key| reply.get(key)?.as_str());
    text.map_or_else(|| reply.to_string(), str::to_owned)
}

fn time_left(deadline: Instant) -> Option<Duration> {
    Some(deadline.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
}

fn is_pause(e: &std::io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    /// A guest that answers each request with what `answer` makes of its id.
    fn guest(answer: impl Fn(u64, &str) -> String + Send + 'static) -> (tempfile::TempDir, StatusPort) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
                let request: Value = serde_json::from_str(&line).unwrap();
                let text = answer(request["id"].as_u64().unwrap(), request["request"].as_str().unwrap());
                if text == "close" || (&stream).write_all(text.as_bytes()).is_err() {
                    break;
                }
            }
        });
        (directory, StatusPort::new(path))
    }

    fn ask(port: &mut StatusPort, timeout: u64) -> Result<Value, Failure> {
        port.request("status", &Map::new(), Duration::from_millis(timeout))
    }

    #[test]
    fn passes_noise_and_answers_to_others_over() {
        let (_guard, mut port) =
            guest(|id, _| format!("\0noise{{\n{{\"id\":99}}\n{{\"id\":{id},\"type\":\"ok\",\"v\":1}}\n"));
        assert_eq!(ask(&mut port, 5000).unwrap()["type"], "ok");
        assert_eq!(ask(&mut port, 5000).unwrap()["id"], 2);
    }

    #[test]
    fn asks_again_when_there_is_no_answer() {
        let (_guard, mut port) =
            guest(|id, _| if id == 1 { String::new() } else { format!("{{\"id\":{id},\"type\":\"ok\"}}\n") });
        assert_eq!(ask(&mut port, 10_000).unwrap()["id"], 2);
    }

    #[test]
    fn says_why_there_is_none() {
        let (_guard, mut port) = guest(|_, _| String::new());
        assert_eq!(ask(&mut port, 100), Err(Failure::TimedOut));
        let (_guard, mut port) = guest(|_, _| "close".into());
        assert_eq!(ask(&mut port, 5000), Err(Failure::Closed));
        let (_guard, mut port) = guest(|id, r| format!("{{\"id\":{id},\"type\":\"error\",\"message\":\"no {r}\"}}\n"));
        assert_eq!(ask(&mut port, 5000), Err(Failure::Refused("no status".into())));
    }

    #[test]
    fn reads_a_snapshot() {
        let text = r#"{"appliance":"demo","ready":false,"containers":[
            {"name":"web","state":"running","health":"healthy","pid":7,"restarts":0,"exit":null,"as_declared":true},
            {"name":"flaky","state":"backoff","health":"none","restarts":2,"exit":{"code":3},"detail":"exited with 3"}],"new":1}"#;
        let snapshot: Snapshot = serde_json::from_str(text).unwrap();
        assert!(snapshot.container("web").unwrap().is_healthy());
        assert_eq!(snapshot.container("flaky").unwrap().exit, Some(Exit::Code(3)));
        let table = snapshot.table();
        assert!(table.lines().count() == 3 && table.contains("exited with 3"), "{table}");
        assert!(!table.contains("POD"), "{table}");
        let mut in_pod = snapshot.clone();
        in_pod.containers[0].pod = Some("front".into());
        let table = in_pod.table();
        let pods: Vec<_> = table.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
        assert_eq!(pods, ["POD", "front", "-"], "{table}");
    }
}
