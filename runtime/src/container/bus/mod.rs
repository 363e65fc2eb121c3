//! A connection to a D-Bus message bus: one caller, one call at a time, waiting.
//!
//! By hand, as four calls to one service are all there is to it: the small library that would do (rustbus) is ten times this and
//! brings an outdated nix and its own derive macros; those that are well kept bring an async executor or link C.

pub(crate) mod message;

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use self::message::{Body, Incoming, Kind, Method, PREFIX};

/// How long an answer may take. A service manager that is busy with a job may take its time.
const PATIENCE: Duration = Duration::from_secs(30);
/// Signals that may come between a call and its answer and aren't forgotten.
const MOST_SIGNALS: usize = 1024;

const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";

/// Why a call failed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Failure {
    /// The service says no: name of the error and its text.
    Refused(String, String),
    /// The connection doesn't work.
    Broken(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(name, text) if text.is_empty() => f.write_str(name),
            Self::Refused(name, text) => write!(f, "{text} ({name})"),
            Self::Broken(text) => f.write_str(text),
        }
    }
}

type Result<T> = std::result::Result<T, Failure>;

fn broken(what: &str) -> impl FnOnce(std::io::Error) -> Failure + '_ {
    move |error| match error.kind() {
        std::io::ErrorKind::WouldBlock => Failure::Broken(format!("{what}: no answer within {} s", PATIENCE.as_secs())),
        _ => Failure::Broken(format!("{what}: {error}")),
    }
}

/// A connection that has said hello.
#[derive(Debug)]
pub(crate) struct Bus {
    stream: UnixStream,
    serial: u32,
    signals: Vec<Incoming>,
}

impl Bus {
    /// Connects to the first of the `addresses` that works (D-Bus Specification, "Server Addresses").
    pub(crate) fn connect(addresses: &str) -> Result<Self> {
        let mut failure = Failure::Broken(format!("{addresses:?} names no unix: address"));
        for address in addresses.split(';').filter_map(unix) {
            match UnixStream::connect_addr(&address) {
                Ok(stream) => return Self::greet(stream),
                Err(error) => failure = broken("connect")(error),
            }
        }
        Err(failure)
    }

    fn greet(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(PATIENCE)).map_err(broken("connect"))?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(broken("connect"))?;
        let mut bus = Self { stream, serial: 0, signals: Vec::new() };
        // Without a user id, as that differs inside and outside of a user namespace: the bus takes that of the socket's peer.
        bus.say(b"\0AUTH EXTERNAL\r\n", "DATA")?;
        bus.say(b"DATA\r\n", "OK")?;
        bus.stream.write_all(b"BEGIN\r\n").map_err(broken("authenticate"))?;
        bus.call(&bus_method("Hello"), &Body::default())?;
        Ok(bus)
    }

    fn say(&mut self, words: &[u8], expected: &str) -> Result<()> {
        self.stream.write_all(words).map_err(broken("authenticate"))?;
        let mut line = Vec::new();
        let mut byte = [0_u8; 1];
        while !line.ends_with(b"\r\n") && line.len() < 1024 {
            self.stream.read_exact(&mut byte).map_err(broken("authenticate"))?;
            line.extend(byte);
        }
        let line = String::from_utf8_lossy(&line).trim().to_owned();
        if line.split(' ').next() == Some(expected) {
            return Ok(());
        }
        Err(Failure::Broken(format!("authenticate: the bus says {line:?}")))
    }

    /// Calls a method and waits for its answer.
    pub(crate) fn call(&mut self, method: &Method, body: &Body) -> Result<Incoming> {
        self.serial += 1;
        self.stream.write_all(&message::call(self.serial, method, body)).map_err(broken(method.member))?;
        // Whatever others say meanwhile.
        let end = Instant::now() + PATIENCE;
        loop {
            let incoming = self.receive(method.member, end)?;
            match incoming.kind {
                Kind::Return if incoming.answers == self.serial => return Ok(incoming),
                Kind::Error if incoming.answers == self.serial => {
                    let text = incoming.text(0).unwrap_or_default().to_owned();
                    return Err(Failure::Refused(incoming.error, text));
                }
                Kind::Signal if self.signals.len() < MOST_SIGNALS => self.signals.push(incoming),
                _ => {}
            }
        }
    }

    /// Has signals of this kind sent to this connection (D-Bus Specification, "Match Rules").
    pub(crate) fn subscribe(&mut self, rule: &str) -> Result<()> {
        self.call(&bus_method("AddMatch"), &Body::default().text(rule)).map(drop)
    }

    /// Waits for a signal, also among those that came earlier.
    pub(crate) fn wait_for(&mut self, wanted: impl Fn(&Incoming) -> bool) -> Result<Incoming> {
        if let Some(index) = self.signals.iter().position(&wanted) {
            return Ok(self.signals.swap_remove(index));
        }
        let end = Instant::now() + PATIENCE;
        loop {
            let incoming = self.receive("wait for a signal", end)?;
            if incoming.kind == Kind::Signal && wanted(&incoming) {
                return Ok(incoming);
            }
        }
    }

    /// The next message, if it comes before the end of patience.
    fn receive(&mut self, what: &str, end: Instant) -> Result<Incoming> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::Broken(format!("{what}: no answer within {} s", PATIENCE.as_secs())));
        }
        self.stream.set_read_timeout(Some(left)).map_err(broken(what))?;
        let mut bytes = vec![0; PREFIX];
        self.stream.read_exact(&mut bytes).map_err(broken(what))?;
        let malformed = || Failure::Broken(format!("{what}: the bus sent what is no message"));
        let length = message::whole_length(&bytes).ok_or_else(malformed)?;
        bytes.resize(length, 0);
        let rest = bytes.get_mut(PREFIX..).ok_or_else(malformed)?;
        self.stream.read_exact(rest).map_err(broken(what))?;
        message::parse(&bytes).ok_or_else(malformed)
    }
}

fn bus_method(member: &'static str) -> Method {
    Method { destination: BUS, path: BUS_PATH, interface: BUS, member }
}

/// The socket of one address, `unix:path=…` or `unix:abstract=…`; `None`: it is of another kind or malformed.
fn unix(address: &str) -> Option<SocketAddr> {
    let value = |key: &str| {
        let pairs = address.strip_prefix("unix:")?.split(',');
        pairs.filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key).map(|(_, value)| unescape(value))
    };
    match (value("path"), value("abstract")) {
        (Some(path), _) => SocketAddr::from_pathname(PathBuf::from(String::from_utf8(path?).ok()?)).ok(),
        (None, Some(name)) => SocketAddr::from_abstract_name(name?).ok(),
        (None, None) => None,
    }
}

/// `%20` and the like as bytes.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            plain.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
        } else {
            plain.push(byte);
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    #[test]
    fn addresses_are_read() {
        let path = |address: &str| unix(address).and_then(|socket| Some(socket.as_pathname()?.to_owned()));
        assert_eq!(path("unix:path=/run/bus"), Some("/run/bus".into()));
        assert_eq!(path("unix:guid=5,path=/run/a%20b"), Some("/run/a b".into()));
        assert_eq!(unix("unix:abstract=x").unwrap().as_abstract_name(), Some(&b"x"[..]));
        for wrong in ["", "unix:", "tcp:host=localhost,port=1", "unix:path=%", "unix:path=%zz", "unix:dir=/tmp"] {
            assert!(unix(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn nobody_there_is_an_error() {
        let error = Bus::connect("tcp:host=x;unix:path=/absent/bus").unwrap_err().to_string();
        assert!(error.starts_with("connect: "), "{error}");
        assert!(Bus::connect("").unwrap_err().to_string().contains("no unix: address"));
    }

    struct Daemon(Child);

    impl Drop for Daemon {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// The judge is the reference implementation.
    #[test]
    fn dbus_daemon_understands() {
        let directory = tempfile::tempdir().unwrap();
        let address = format!("unix:path={}", directory.path().join("bus").display());
        let daemon = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--print-address=1", &format!("--address={address}")])
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon is installed");
        let mut daemon = Daemon(daemon);
        let mut line = [0_u8; 1];
        daemon.0.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();

        let mut bus = Bus::connect(&address).unwrap();
        let owner = |bus: &mut Bus, name: &str| bus.call(&bus_method("GetNameOwner"), &Body::default().text(name));
        assert_eq!(owner(&mut bus, BUS).unwrap().text(0), Some(BUS));
        match owner(&mut bus, "org.example.Absent") {
            Err(Failure::Refused(name, text)) => {
                assert_eq!(name, "org.freedesktop.DBus.Error.NameHasNoOwner");
                assert!(text.contains("org.example.Absent"), "{text}");
            }
            other => panic!("{other:?}"),
        }
        // A signal of its own: another connection says hello.
        bus.subscribe("type='signal',member='NameOwnerChanged'").unwrap();
        let other = Bus::connect(&address).unwrap();
        let signal = bus.wait_for(|signal| signal.member == "NameOwnerChanged").unwrap();
        assert!(signal.text(0).unwrap().starts_with(":1."));
        drop(other);
        // What is malformed closes the connection: the daemon does look at what it gets.
        bus.stream.write_all(&[b'x'; 64]).unwrap();
        assert!(matches!(bus.call(&bus_method("GetId"), &Body::default()), Err(Failure::Broken(_))));
    }
}
