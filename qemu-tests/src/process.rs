//! A QEMU process: started, listened to and ended.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use crate::error::{Error, Result, evidence};
use crate::machine::{Hardware, SerialConsole};
use crate::sys;

/// Bytes of QEMU's own messages that are kept.
const MESSAGES: usize = 64 << 10;
/// Time that QEMU has to build the machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// QEMU's program.
pub fn qemu() -> PathBuf {
    std::env::var_os("GARBOARD_QEMU").map_or_else(
        || {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let found = std::env::split_paths(&path).map(|d| d.join("qemu-system-x86_64")).find(|p| p.is_file());
            found.unwrap_or_else(|| "qemu-system-x86_64".into())
        },
        PathBuf::from,
    )
}

/// A QEMU process, which a thread of its own starts and awaits: it is killed when its starter ends, and threads of tests end early.
#[derive(Debug)]
pub(crate) struct Process {
    pub pid: u32,
    pub started: Instant,
    pub stdin: Option<ChildStdin>,
    pub stdout: Option<ChildStdout>,
    pub run: Arc<Run>,
    messages: Arc<Mutex<String>>,
    /// Says "kill it" to the thread; so does its end.
    kill: mpsc::Sender<()>,
}

/// How a process's run ends.
#[derive(Debug, Default)]
pub(crate) struct Run {
    status: Mutex<Option<ExitStatus>>,
    ended: Condvar,
    /// What is locked for as long as it runs.
    lock: Mutex<Option<File>>,
}

impl Run {
    fn lock(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unlocks the file when the process ends, before anybody is told so.
    pub fn keep_until_end(&self, lock: File) {
        let status = self.lock();
        if status.is_none() {
            *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(lock);
        }
    }

    /// How it ended; `None` while it runs.
    pub fn status(&self) -> Option<ExitStatus> {
        *self.lock()
    }

    /// Waits for its end.
    pub fn wait(&self, timeout: Duration) -> Option<ExitStatus> {
        let wait = self.ended.wait_timeout_while(self.lock(), timeout, |status| status.is_none());
        *wait.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Process {
    /// Ends it at once.
    pub fn kill(&self) {
        // It has ended by itself if nobody listens any more.
        let _ = self.kill.send(());
    }

    /// What it said on its standard error.
    pub fn messages(&self) -> String {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        self.run.wait(Duration::from_secs(10));
    }
}

/// Starts QEMU, and waits the moment in which it would refuse its arguments.
pub(crate) fn start(qemu: &Path, hardware: &Hardware) -> Result<(Process, BufReader<UnixStream>)> {
    let mut command = Command::new(qemu);
    command.args(hardware.arguments()).stderr(Stdio::piped());
    if hardware.console != SerialConsole::Terminal {
        // Not of our process group: Ctrl-C on a terminal is for us, who may want to switch it off properly.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    } else {
        // The kernel sends these to the whole group, as when a terminal's window is closed, and we want to switch it off properly.
        sys::block_signals(&mut command, &[libc::SIGHUP, libc::SIGINT, libc::SIGTERM]);
    }
    sys::kill_with_parent(&mut command);
    let run = Arc::new(Run::default());
    let messages = Arc::new(Mutex::new(String::new()));
    let (kill, killed) = mpsc::channel();
    let (send, receive) = mpsc::channel();
    let started = Instant::now();
    let shared = (run.clone(), messages.clone());
    std::thread::spawn(move || {
        let (run, messages) = shared;
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(e) => return drop(send.send(Err(e))),
        };
        let reader = child.stderr.take().map(|stderr| std::thread::spawn(move || collect(stderr, &messages)));
        let _ = send.send(Ok((child.id(), child.stdin.take(), child.stdout.take())));
        let status = loop {
            match child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => break status,
                Err(_) => break ExitStatus::default(),
            }
            if !matches!(killed.recv_timeout(Duration::from_millis(10)), Err(mpsc::RecvTimeoutError::Timeout)) {
                let _ = child.kill();
                break child.wait().unwrap_or_default();
            }
        };
        let _ = reader.map(std::thread::JoinHandle::join);
        let mut told = run.lock();
        *run.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *told = Some(status);
        drop(told);
        run.ended.notify_all();
    });
    let spawned = receive.recv().unwrap_or_else(|_| Err(std::io::Error::other("its thread ended")));
    let (pid, stdin, stdout) = spawned.map_err(|cause| Error::Start { program: qemu.to_owned(), cause })?;
    let process = Process { pid, started, stdin, stdout, run, messages, kill };
    let connection = greeting(&process, &hardware.monitor)?;
    Ok((process, connection))
}

/// The connection to the monitor, once QEMU has done what it was told there: it greets before the machine is built, and builds it before it
/// obeys. An end before that is a refusal.
fn greeting(process: &Process, socket: &Path) -> Result<BufReader<UnixStream>> {
    let deadline = Instant::now() + START_LIMIT;
    let connect = || {
        let connection = UnixStream::connect(socket)?;
        connection.set_read_timeout(Some(START_LIMIT))?;
        let mut reader = BufReader::new(connection);
        heard(&mut reader, "\"QMP\"")?;
        // Events come only after the capabilities are settled.
        reader.get_mut().write_all(b"{\"execute\":\"qmp_capabilities\"}\n")?;
        heard(&mut reader, "\"return\"")?;
        reader.get_mut().set_read_timeout(None).map(|()| reader)
    };
    loop {
        let refused = match connect() {
            Ok(connection) => return Ok(connection),
            Err(e) => e,
        };
        let ended = process.run.wait(Duration::from_millis(2));
        if ended.is_some() || Instant::now() >= deadline {
            let how = ended.map_or_else(|| refused.to_string(), |status| status.to_string());
            return Err(Error::Unsuitable(format!(
                "QEMU refused this machine ({how}){}",
                evidence("QEMU says", &process.messages())
            )));
        }
    }
}

/// Reads up to the line that has this key.
fn heard(reader: &mut impl BufRead, key: &str) -> std::io::Result<()> {
    let mut line = String::new();
    while !line.contains(key) {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
    }
    Ok(())
}

/// Keeps the beginning of what QEMU says.
fn collect(mut stderr: ChildStderr, messages: &Mutex<String>) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stderr.read(&mut buffer) {
        let mut messages = messages.lock().unwrap_or_else(PoisonError::into_inner);
        if messages.len() < MESSAGES {
            messages.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    }
}
