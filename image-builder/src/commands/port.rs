//! The status port of a running appliance, from outside: see `init/STATUS.md`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::{Value, json};

use crate::cli::Target;
use crate::commands::run::state_directory;
use crate::plain::plain;
use crate::sys;

/// An answer takes no longer; a machine that has only just begun needs a moment.
const PATIENCE: Duration = Duration::from_secs(15);
/// An unanswered request is sent again after this: what is said before PID 1 listens gets lost.
const REPEAT: Duration = Duration::from_secs(2);

/// Who follows looks so often whether the port is still wanted.
const LOOK: Duration = Duration::from_secs(1);

/// No line is longer, in bytes.
const LONGEST: usize = 16 << 20;

/// A connection.
pub struct Port {
    name: String,
    input: BufReader<File>,
    output: File,
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
    /// What a subscription told while something was asked.
    aside: VecDeque<Value>,
    next_id: u64,
    patience: Duration,
    /// The boot whose subscription is followed, by the kernel's name of it.
    boot: Option<String>,
    /// The link that led to it, and what it said.
    link: Option<(PathBuf, PathBuf)>,
}

/// What comes of waiting for a subscription.
#[derive(Debug, PartialEq)]
pub enum Told {
    /// This line.
    Line(Value),
    /// The machine has started over, and knows of no subscription: it must be asked for again.
    StartedOver,
    /// Nobody reads what is printed any more.
    Unread,
}

impl Port {
    /// Connects to the appliance that is meant.
    pub fn open(target: &Target) -> Result<Self> {
        let mut followed = None;
        let (name, fd) = match (&target.vsock, &target.socket) {
            (Some((cid, port)), _) => {
                let fd = sys::connect_vsock(*cid, *port).with_context(|| {
                    format!(
                        "connect to vsock {cid}:{port}: is the machine running, and does its declaration name the port?"
                    )
                })?;
                (format!("vsock {cid}:{port}"), fd)
            }
            (None, Some(path)) => (path.display().to_string(), connect(path)?),
            (None, None) => {
                let (link, path) = link(&target.directory, "status")?;
                let fd = connect(&path)?;
                let name = path.display().to_string();
                followed = Some((link, path));
                (name, fd)
            }
        };
        let output = File::from(fd);
        let input = BufReader::new(output.try_clone().context("duplicate the connection")?);
        // Ids of an earlier asker, whose answers may still come, are others.
        let next_id = u64::from(std::process::id()) << 20;
        Ok(Self {
            name,
            input,
            output,
            begun: Vec::new(),
            aside: VecDeque::new(),
            next_id,
            patience: PATIENCE,
            boot: None,
            link: followed,
        })
    }

    /// Asks until it is answered.
    pub fn ask(&mut self, request: &Value) -> Result<Value> {
        match self.try_ask(request)? {
            Some(reply) => {
                // What was told before is what somebody else had asked for.
                self.aside.clear();
                Ok(reply)
            }
            None => bail!(
                "no answer on {} within {} s: the machine may still be starting, or another program uses its status port, \
                 which has room for one",
                self.name,
                self.patience.as_secs()
            ),
        }
    }

    /// Remembers the boot that this answer to a subscription is of. Not every one names it.
    pub fn follow(&mut self, reply: &Value) -> Result<()> {
        self.boot = match reply["boot"].as_str() {
            Some(boot) => Some(boot.to_owned()),
            None => self.boot()?,
        };
        Ok(())
    }

    /// The kernel's name of the machine's present boot; `None`: the machine doesn't answer, as when it is starting.
    fn boot(&mut self) -> Result<Option<String>> {
        let reply = self.try_ask(&json!({"request": "events", "count": 1}))?;
        Ok(reply.and_then(|reply| reply["boot"].as_str().map(str::to_owned)))
    }

    /// Asks again and again for a while.
    fn try_ask(&mut self, request: &Value) -> Result<Option<Value>> {
        let deadline = Instant::now() + self.patience;
        let first = self.next_id;
        while Instant::now() < deadline {
            let mut request = request.clone();
            request["id"] = self.next_id.into();
            self.next_id += 1;
            // What an earlier asker left unfinished ends with the line feed.
            let sent = self.output.write_all(format!("\n{request}\n").as_bytes());
            sent.with_context(|| format!("write to {}: the machine has ended", self.name))?;
            let again = Instant::now() + REPEAT;
            while let Some(reply) = self.line(again.min(deadline))? {
                if reply["id"].is_null() {
                    self.aside.push_back(reply);
                } else if reply["id"].as_u64().is_some_and(|id| (first..self.next_id).contains(&id)) {
                    if reply["type"] == "error" {
                        bail!(
                            "the appliance refuses: {}",
                            plain(reply["message"].as_str().unwrap_or("it does not say why"))
                        );
                    }
                    return Ok(Some(reply));
                }
            }
        }
        Ok(None)
    }

    /// The next line that is asked for by a subscription, as long as somebody reads what is printed: who follows (`| grep -m1`) would
    /// hold the port for nothing. After a silence the machine is asked whether it is still in the boot that is followed.
    pub fn told(&mut self) -> Result<Told> {
        let mut silence = Instant::now() + self.patience;
        loop {
            if super::unread() {
                return Ok(Told::Unread);
            }
            if self.link.as_ref().is_some_and(|(link, path)| std::fs::read_link(link).ok().as_ref() != Some(path)) {
                bail!("the machine is being switched off");
            }
            if let Some(line) = self.aside.pop_front() {
                return Ok(Told::Line(line));
            }
            let until = silence.min(Instant::now() + LOOK);
            while let Some(line) = self.line(until)? {
                if line["id"].is_null() {
                    return Ok(Told::Line(line));
                }
            }
            if Instant::now() < silence {
                continue;
            }
            silence = Instant::now() + self.patience;
            let present = self.boot()?;
            if present.is_some() && present != self.boot {
                self.boot = present;
                return Ok(Told::StartedOver);
            }
        }
    }

    /// The next line of JSON whose end comes in time. The beginning of another is kept for the next call.
    fn line(&mut self, deadline: Instant) -> Result<Option<Value>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            sockopt::set_socket_timeout(self.input.get_ref(), Timeout::Recv, Some(left)).context("set a time limit")?;
            let came = match self.input.fill_buf() {
                Ok([]) => bail!("{} was closed: the machine has ended", self.name),
                Ok(came) => came,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::TimedOut) => {
                    continue;
                }
                Err(e) => return Err(e).with_context(|| format!("read from {}", self.name)),
            };
            let end = came.iter().position(|byte| *byte == b'\n');
            let part = &came[..end.unwrap_or(came.len())];
            self.begun.extend_from_slice(part);
            let used = part.len() + usize::from(end.is_some());
            self.input.consume(used);
            if self.begun.len() > LONGEST {
                bail!("{} says a line of more than {LONGEST} bytes, which no appliance does", self.name);
            }
            // What is no JSON is the rest of somebody else's answer.
            if end.is_some()
                && let Ok(value) = serde_json::from_slice(&std::mem::take(&mut self.begun))
            {
                return Ok(Some(value));
            }
        }
    }
}

/// Asks once.
pub fn ask(target: &Target, request: Value) -> Result<Value> {
    Port::open(target)?.ask(&request)
}

/// A request for what a subscription tells.
pub fn subscription(since: u64) -> Value {
    json!({"request": "subscribe", "events": true, "since": since})
}

/// The link of this name of the machine that runs what is in `directory`, and the socket that it leads to.
pub fn link(directory: &Path, name: &str) -> Result<(PathBuf, PathBuf)> {
    let state = state_directory(directory)?;
    let link = state.join(name);
    // The link's end is a short path; its own may be longer than an address of a socket.
    let socket = std::fs::read_link(&link).with_context(|| {
        let how = if name == "console" { "garboard run --detach" } else { "garboard run" };
        format!("no machine of {} is running: start one with `{how} {}`", directory.display(), directory.display())
    })?;
    Ok((link, socket))
}

/// Connects to a Unix socket. Where others wait to be let in and there is no room for one more, that is waited for, but not for ever.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    let until = Instant::now() + PATIENCE;
    loop {
        match try_connect(path) {
            Err(Errno::AGAIN) if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
            Err(Errno::AGAIN) => {
                bail!("connect to {}: another program uses it, which has room for one, and others wait", path.display())
            }
            other => {
                return other
                    .with_context(|| format!("connect to {}: the machine has ended, or never ran", path.display()));
            }
        }
    }
}

/// The same without waiting: EAGAIN, somebody listens and has no room.
pub fn try_connect(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(socket)
}

/// Milliseconds since boot, for people.
pub fn time(ms: &Value) -> String {
    let ms = ms.as_u64().unwrap_or(0);
    format!("{:>8}.{:03}", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn target(socket: &Path) -> Target {
        Target { directory: "out".into(), socket: Some(socket.to_owned()), vsock: None, json: false }
    }

    #[test]
    fn answers_are_told_from_noise_and_a_lost_request_is_sent_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut requests = Vec::new();
            while requests.len() < 2 {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                // The first one gets lost.
                requests.extend(serde_json::from_str::<Value>(&line).ok());
            }
            let id = &requests[1]["id"];
            let text = format!("half of\n{{\"id\":3,\"type\":\"ok\"}}\n{{\"v\":1,\"id\":{id},\"type\":\"trace\"}}\n");
            stream.get_mut().write_all(text.as_bytes()).unwrap();
        });
        let mut port = Port::open(&target(&path)).unwrap();
        assert_eq!(port.ask(&json!({"request": "trace"})).unwrap()["type"], "trace");
        server.join().unwrap();
        let error = port.told().unwrap_err().to_string();
        assert!(error.contains("the machine has ended"), "{error}");
    }

    #[test]
    fn what_is_told_while_something_is_asked_is_not_lost_and_silence_has_an_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let mut port = Port { patience: Duration::from_secs(1), ..Port::open(&target(&path)).unwrap() };
        let mut machine = BufReader::new(listener.accept().unwrap().0);
        let server = std::thread::spawn(move || {
            let mut answer = |boot: &str, before: &str, after: &str| {
                let mut line = String::new();
                while !line.contains("request") {
                    line.clear();
                    machine.read_line(&mut line).unwrap();
                }
                let request: Value = serde_json::from_str(line.trim()).unwrap();
                let reply = json!({"id": request["id"], "type": "events", "boot": boot});
                machine.get_mut().write_all(format!("{before}\n{reply}\n{after}\n").as_bytes()).unwrap();
                request["request"].clone()
            };
            assert_eq!(answer("first", "", ""), "subscribe");
            assert_eq!(answer("second", r#"{"line": 1}"#, ""), "events");
            assert_eq!(answer("second", "", r#"{"line": 2}"#), "events");
            machine
        });
        let reply = port.ask(&subscription(0)).unwrap();
        port.follow(&reply).unwrap();
        assert_eq!(port.told().unwrap(), Told::StartedOver, "asked after a silence");
        assert_eq!(port.told().unwrap(), Told::Line(json!({"line": 1})), "told while it was asked");
        assert_eq!(
            port.told().unwrap(),
            Told::Line(json!({"line": 2})),
            "a silence in the same boot is none of the callers' business"
        );
        let _machine = server.join().unwrap();
        assert_eq!(port.boot().unwrap(), None, "it starts");
    }

    #[test]
    fn who_follows_leaves_a_machine_that_is_switched_off() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("s"), directory.path().join("status"));
        let _listener = UnixListener::bind(&path).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut port = Port { link: Some((link.clone(), path.clone())), ..Port::open(&target(&path)).unwrap() };
        port.aside.push_back(json!({"line": 1}));
        assert_eq!(port.told().unwrap(), Told::Line(json!({"line": 1})), "control: it is there");
        std::fs::remove_file(&link).unwrap();
        assert!(port.told().unwrap_err().to_string().contains("switched off"));
    }

    #[test]
    fn a_port_without_room_is_not_waited_for_without_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        // As many as it lets wait; nobody lets them in.
        let waiting: Vec<_> = std::iter::from_fn(|| try_connect(&path).ok()).take(100_000).collect();
        assert_eq!(try_connect(&path).err(), Some(Errno::AGAIN), "{} wait", waiting.len());
        drop(listener);
        assert_eq!(try_connect(&path).err(), Some(Errno::CONNREFUSED));
    }

    #[test]
    fn a_line_may_come_in_parts_and_has_an_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let mut port = Port::open(&target(&path)).unwrap();
        let mut machine = listener.accept().unwrap().0;
        let soon = || Instant::now() + Duration::from_millis(50);
        machine.write_all(b"{\"half\":").unwrap();
        assert_eq!(port.line(soon()).unwrap(), None);
        machine.write_all(b"1}\n{}\n").unwrap();
        assert_eq!(port.line(soon()).unwrap(), Some(json!({"half": 1})));
        assert_eq!(port.line(soon()).unwrap(), Some(json!({})));
        // It ends when it is told so, or when nobody reads on.
        let endless = std::thread::spawn(move || while machine.write_all(&[b' '; 1 << 16]).is_ok() {});
        let error = port.line(Instant::now() + PATIENCE).unwrap_err().to_string();
        assert!(error.contains("a line of more than"), "{error}");
        drop(port);
        endless.join().unwrap();
    }

    #[test]
    fn what_is_not_there_is_told_with_the_way_to_have_it() {
        let directory = tempfile::tempdir().unwrap();
        let error = format!("{:#}", link(directory.path(), "status").unwrap_err());
        assert!(error.contains("start one with `garboard run"), "{error}");
        let error = format!("{:#}", Port::open(&target(Path::new("/nowhere"))).err().unwrap());
        assert!(error.contains("connect to /nowhere"), "{error}");
    }
}
