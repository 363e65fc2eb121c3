//! A running machine.

use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::builder::Builder;
use crate::console::{Console, Found};
use crate::error::{Error, Result, evidence};
use crate::image::Image;
use crate::machine::{Disk, Forward, Hardware};
use crate::process::Process;
use crate::qmp::{Ending, Monitor};
use crate::scaled;
use crate::status::{ContainerStatus, Failure, Snapshot, StatusPort};

/// Pause between two looks at a machine that is waited for, at least.
const PAUSE: Duration = Duration::from_millis(50);
/// And at most. In between it is twice what a look takes: an emulated machine has other things to do than to answer.
const LONG_PAUSE: Duration = Duration::from_secs(1);
/// Time for one answer of the status port, once the machine runs.
const ANSWER: Duration = Duration::from_secs(30);
/// Console lines in an error message.
const TAIL: usize = 40;

/// A running machine. Dropping it stops it hard and removes its temporary files.
#[derive(Debug)]
pub struct Vm {
    process: Process,
    console: Console,
    status: Mutex<StatusPort>,
    monitor: Monitor,
    forwards: Vec<Forward>,
    disks: Vec<Disk>,
    started: Instant,
    /// Sockets and disk copies; removed last.
    directory: TempDir,
}

impl Vm {
    /// Boots `image` on a [`crate::Machine::Microvm`] with everything else by default.
    ///
    /// # Errors
    /// As [`Builder::boot`].
    pub fn boot(image: &Image) -> Result<Self> {
        Self::builder(image).boot()
    }

    /// Says what machine to boot `image` on.
    pub fn builder(image: &Image) -> Builder {
        Builder::new(image)
    }

    /// Takes over a started QEMU.
    pub(crate) fn attach(
        mut process: Process,
        connection: BufReader<UnixStream>,
        hardware: &Hardware,
        directory: TempDir,
        echo: Option<Box<dyn Write + Send>>,
        read_console: bool,
    ) -> Self {
        let console = Console::new(process.started, process.stdin.take());
        if read_console && let Some(output) = process.stdout.take() {
            console.read_from(output, echo);
        } else if let Some(output) = &process.stdout {
            // The kernel's default would swallow a whole boot's output.
            let _ = rustix::pipe::fcntl_setpipe_size(output, 4096);
        }
        Self {
            started: process.started,
            process,
            console,
            status: Mutex::new(StatusPort::new(hardware.status.clone())),
            monitor: Monitor::listen(connection),
            forwards: hardware.network.clone().unwrap_or_default(),
            disks: hardware.disks.clone(),
            directory,
        }
    }

    /// The serial console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// The Unix socket of the status port. QEMU serves one program at a time; the next one waits until that has gone.
    pub fn status_socket(&self) -> PathBuf {
        self.directory.path().join("status")
    }

    /// The Unix socket of the console, if [`Builder::console_socket`] was asked for. What came before somebody listens there is lost.
    pub fn console_socket(&self) -> PathBuf {
        self.directory.path().join("console")
    }

    /// Begins to read a console that was left unread: what was held back comes first.
    pub fn read_console(&mut self) {
        if let Some(output) = self.process.stdout.take() {
            self.console.read_from(output, None);
        }
    }

    /// The port of 127.0.0.1 that leads to TCP port `guest` of the machine (UDP if only that is forwarded).
    ///
    /// # Errors
    /// If the port is neither declared nor asked for with [`Builder::forward`].
    pub fn port(&self, guest: u16) -> Result<u16> {
        let of = |protocol: &str| self.forwards.iter().find(|f| f.guest == guest && f.protocol == protocol);
        of("tcp").or_else(|| of("udp")).map(|forward| forward.host).ok_or_else(|| {
            Error::Unsuitable(format!(
                "port {guest} is not forwarded: declare it in the appliance or use Builder::forward"
            ))
        })
    }

    /// [`Vm::port`] with its address.
    ///
    /// # Errors
    /// As [`Vm::port`].
    pub fn address(&self, guest: u16) -> Result<SocketAddr> {
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port(guest)?)))
    }

    /// All forwarded ports.
    pub fn forwards(&self) -> &[Forward] {
        &self.forwards
    }

    /// Its disks.
    pub fn disks(&self) -> &[Disk] {
        &self.disks
    }

    /// Process id of QEMU.
    pub fn qemu_pid(&self) -> u32 {
        self.process.pid
    }

    /// What QEMU has said of itself so far: why it ended, if it ended without having been asked to.
    pub fn qemu_messages(&self) -> String {
        self.process.messages()
    }

    /// Time since QEMU was started.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Processor time that QEMU has used so far: what a boot costs, whatever else the computer does. Zero once it has ended.
    pub fn cpu_time(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.pid)).into_iter().flatten().flatten();
        let used = |task: std::fs::DirEntry| {
            // Nanoseconds on a processor come first (Documentation/scheduler/sched-stats.rst).
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        };
        Duration::from_nanos(tasks.filter_map(used).sum())
    }

    /// How often the machine has restarted itself (with [`Builder::reboot`]).
    pub fn reboots(&self) -> u32 {
        self.monitor.resets()
    }

    /// How the machine ended; `None` while it runs.
    pub fn ending(&self) -> Option<Ending> {
        let status = self.process.run.status()?;
        Some(match self.monitor.ending() {
            Some(ending) if status.success() => ending,
            _ if status.success() => Ending::Stopped,
            _ => Ending::Qemu(status.to_string()),
        })
    }

    /// Asks the appliance how it is.
    ///
    /// # Errors
    /// If it doesn't answer within 30 s, or the machine has ended.
    pub fn status(&self) -> Result<Snapshot> {
        self.status_within(ANSWER)
    }

    fn status_within(&self, timeout: Duration) -> Result<Snapshot> {
        let reply = self.request_within("status", &Map::new(), timeout)?;
        let snapshot = reply.get("snapshot").cloned().unwrap_or_default();
        serde_json::from_value(snapshot).map_err(|e| Error::Refused {
            request: "status".into(),
            message: format!("something that is no snapshot: {e}"),
        })
    }

    /// Sends any request to the status port and returns the whole answer.
    ///
    /// # Errors
    /// If it isn't answered within 30 s or answered with an error, or the machine has ended.
    pub fn request(&self, request: &str, arguments: &Map<String, Value>) -> Result<Value> {
        self.request_within(request, arguments, ANSWER)
    }

    fn request_within(&self, request: &str, arguments: &Map<String, Value>, timeout: Duration) -> Result<Value> {
        let timeout = scaled(timeout);
        let begun = Instant::now();
        let mut port = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let what = || format!("answer to '{request}'");
        match port.request(request, arguments, timeout) {
            Ok(reply) => Ok(reply),
            Err(Failure::Refused(message)) => Err(Error::Refused { request: request.to_owned(), message }),
            Err(Failure::Closed) => Err(self.has_ended(what())),
            Err(Failure::TimedOut) => {
                Err(Error::Timeout { what: what(), waited: begun.elapsed(), evidence: self.evidence() })
            }
        }
    }

    /// The last `tail` lines that a container printed, oldest first.
    ///
    /// # Errors
    /// As [`Vm::request`]; also if there is no such container.
    pub fn logs(&self, container: &str, tail: u32) -> Result<Vec<String>> {
        let mut arguments = Map::new();
        arguments.insert("container".into(), container.into());
        arguments.insert("tail".into(), tail.into());
        let reply = self.request("logs", &arguments)?;
        let lines = reply.get("lines").and_then(Value::as_array).cloned().unwrap_or_default();
        // A line is text, or text with its stream and time.
        let text = |line: &Value| line.as_str().or_else(|| line.get("text")?.as_str()).unwrap_or_default().to_owned();
        Ok(lines.iter().map(text).collect())
    }

    /// Waits until the console has printed `text`, and says how long after the start of QEMU that was.
    ///
    /// # Errors
    /// If it doesn't within `timeout`, or the machine ends before.
    pub fn wait_console(&self, text: &str, timeout: Duration) -> Result<Duration> {
        let begun = Instant::now();
        self.judge(self.console.wait_for(text, scaled(timeout)), begun, || format!("'{text}' on the console"))
    }

    /// Waits until the console has printed a whole line that `wanted` accepts (without its end), and says how long after the start
    /// of QEMU that was.
    ///
    /// # Errors
    /// As [`Vm::wait_console`].
    pub fn wait_line(&self, timeout: Duration, wanted: impl FnMut(&str) -> bool) -> Result<Duration> {
        let begun = Instant::now();
        self.judge(self.console.wait_line(scaled(timeout), wanted), begun, || "line looked for on the console".into())
    }

    fn judge(&self, found: Found, begun: Instant, what: impl Fn() -> String) -> Result<Duration> {
        match found {
            Found::At(time) => Ok(time),
            Found::Ended => Err(self.has_ended(what())),
            Found::TimedOut => Err(Error::Timeout { what: what(), waited: begun.elapsed(), evidence: self.evidence() }),
        }
    }

    /// Waits until every container is as declared.
    ///
    /// # Errors
    /// If they aren't within `timeout`, or the machine ends before.
    pub fn wait_ready(&self, timeout: Duration) -> Result<&Self> {
        self.wait_status("appliance as declared", timeout, |snapshot| Ok(snapshot.ready))
    }

    /// Waits until the container runs and, if it has a health check, passes it.
    ///
    /// # Errors
    /// If it doesn't within `timeout`; at once if there is no such container, it ended for good, or the machine ends.
    pub fn wait_healthy(&self, name: &str, timeout: Duration) -> Result<&Self> {
        self.wait_container(name, "healthy", timeout, ContainerStatus::is_healthy)
    }

    /// Waits until the container is as the declaration wants it: one that is to run has done so for a second, too.
    ///
    /// # Errors
    /// As [`Vm::wait_healthy`].
    pub fn wait_as_declared(&self, name: &str, timeout: Duration) -> Result<&Self> {
        self.wait_container(name, "as declared", timeout, |container| container.as_declared)
    }

    /// Waits until the container is in this state (`running`, `backoff`, `exited`, `failed`, …).
    ///
    /// # Errors
    /// As [`Vm::wait_healthy`].
    pub fn wait_state(&self, name: &str, state: &'static str, timeout: Duration) -> Result<&Self> {
        self.wait_container(name, state, timeout, |container| container.state == state)
    }

    fn wait_container(
        &self,
        name: &str,
        wanted: &'static str,
        timeout: Duration,
        reached: impl Fn(&ContainerStatus) -> bool,
    ) -> Result<&Self> {
        let wont =
            |reason: String| Error::Container { name: name.to_owned(), wanted, reason, evidence: self.evidence() };
        self.wait_status(&format!("container {name} {wanted}"), timeout, |snapshot| {
            let Some(container) = snapshot.container(name) else {
                let names: Vec<&str> = snapshot.containers.iter().map(|c| c.name.as_str()).collect();
                return Err(wont(format!("there is none of that name, only {}", names.join(", "))));
            };
            if reached(container) {
                return Ok(true);
            }
            match container.state.as_str() {
                "exited" | "failed" => Err(wont(format!("{} ({})", container.state, container.detail))),
                _ => Ok(false),
            }
        })
    }

    /// Waits until `reached` says yes to a snapshot.
    ///
    /// # Errors
    /// If it doesn't within `timeout`, or gives an error itself, or the machine ends before.
    pub fn wait_status(
        &self,
        what: &str,
        timeout: Duration,
        mut reached: impl FnMut(&Snapshot) -> Result<bool>,
    ) -> Result<&Self> {
        let begun = Instant::now();
        let timeout = scaled(timeout);
        let mut last = None;
        loop {
            let look = Instant::now();
            let left = timeout.saturating_sub(begun.elapsed());
            match self.status_within(left.max(PAUSE)) {
                Ok(snapshot) if reached(&snapshot)? => return Ok(self),
                Ok(snapshot) => last = Some(snapshot),
                Err(Error::Timeout { .. }) => {}
                Err(Error::Ended { ending, evidence, .. }) => {
                    return Err(Error::Ended { what: what.to_owned(), ending, evidence });
                }
                Err(e) => return Err(e),
            }
            if begun.elapsed() >= timeout {
                let status = last.map(|s| evidence("status", &s.table())).unwrap_or_default();
                let evidence = status + &self.evidence();
                return Err(Error::Timeout { what: what.to_owned(), waited: begun.elapsed(), evidence });
            }
            std::thread::sleep((look.elapsed() * 2).clamp(PAUSE, LONG_PAUSE));
        }
    }

    /// Asks the appliance to stop its containers and switch the machine off, and waits for that.
    ///
    /// # Errors
    /// If it doesn't within `timeout`, or ends otherwise.
    pub fn power_off(&self, timeout: Duration) -> Result<()> {
        let begun = Instant::now();
        match self.request_within("poweroff", &Map::new(), timeout) {
            // It may be gone before its answer was read.
            Ok(_) | Err(Error::Ended { .. }) => {}
            Err(e) => return Err(e),
        }
        match self.wait_exit(timeout.saturating_sub(begun.elapsed()).max(PAUSE))? {
            Ending::PowerOff => Ok(()),
            ending => Err(Error::Ended { what: "power off".into(), ending, evidence: self.evidence() }),
        }
    }

    /// Waits until the machine has ended by itself.
    ///
    /// # Errors
    /// If it hasn't within `timeout`.
    pub fn wait_exit(&self, timeout: Duration) -> Result<Ending> {
        let begun = Instant::now();
        if self.process.run.wait(scaled(timeout)).is_none() {
            let what = "end of the machine".to_owned();
            return Err(Error::Timeout { what, waited: begun.elapsed(), evidence: self.evidence() });
        }
        // The console's last words, and the monitor's, are still on their way.
        self.console.wait_for("\0no such text", Duration::from_millis(500));
        self.monitor.hear_out();
        Ok(self.ending().unwrap_or(Ending::Stopped))
    }

    /// Stops the machine at once, as if its power were cut: nothing is flushed.
    pub fn hard_stop(&self) {
        self.process.kill();
        self.process.run.wait(Duration::from_secs(10));
    }

    fn has_ended(&self, what: String) -> Error {
        // QEMU closes its sockets a moment before it ends.
        self.process.run.wait(Duration::from_secs(2));
        self.console.wait_for("\0no such text", Duration::from_millis(200));
        self.monitor.hear_out();
        let ending = self.ending().unwrap_or_else(|| Ending::Qemu("the connection was closed".into()));
        Error::Ended { what, ending, evidence: self.evidence() }
    }

    /// What QEMU and the machine last said.
    fn evidence(&self) -> String {
        evidence("QEMU says", &self.process.messages())
            + &evidence("the console's last lines", &self.console.tail(TAIL))
    }
}
