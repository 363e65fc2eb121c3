//! The `health` worker: asks one container once whether it works. Its standard input is the pid descriptor of the container's first
//! process.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use garboard_runtime::cgroup::memory_events;
use garboard_runtime::failure::Failure;
use garboard_runtime::plan::{Container, HealthTest};
use garboard_runtime::report::{self as start_report, Report};
use garboard_runtime::start::{Running, Stages, Started, Stdio, enter};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, waitid};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::cgroup::Cgroup;
use super::trouble::Trouble;
use super::{emit, has_ended, privileges, report};
use crate::boot;

/// Of an answer so much is told, in bytes.
const LONGEST_DETAIL: usize = 200;
/// So many pieces are read before the time is looked at again.
const PIECES_AT_ONCE: usize = 16;
/// The head of a response is never longer, in bytes.
const LONGEST_HEAD: usize = 16 << 10;
/// Nor has it more headers.
const MOST_HEADERS: usize = 100;

/// Asks the container with this index in the plan at this path, whose first process has this id.
pub fn run(arguments: &[String]) -> i32 {
    let (well, mut detail) = match ask(arguments) {
        Ok(()) => (true, String::new()),
        Err(Trouble::Bad(why)) => (false, why),
        // It will be asked again.
        Err(Trouble::Unasked) => return 1,
    };
    detail.truncate(detail.floor_char_boundary(LONGEST_DETAIL));
    emit(&report::Health { well, detail })
}

fn ask(arguments: &[String]) -> Result<(), Trouble> {
    let [index, pid, plan] = arguments else { return Err("not which container of which plan".into()) };
    // PID 1 has read it: what is wrong now is nothing of the container's.
    let plan = boot::read_plan_at(plan).map_err(|_| Trouble::Unasked)?;
    let container = index
        .parse()
        .ok()
        .and_then(|index: usize| plan.containers.into_iter().nth(index))
        .ok_or("no such container")?;
    let health = container.supervision.health.as_ref().ok_or("it has no health check")?;
    let timeout = Duration::from_millis(health.timeout_ms);
    let until = Instant::now().checked_add(timeout).ok_or("the time to answer has no end")?;
    let stdin = std::io::stdin();
    match &health.test {
        HealthTest::Exec(words) => {
            let pid = pid.parse().map_err(|_| "not a process id")?;
            exec(&container, words, stdin.as_fd(), pid, until)
        }
        HealthTest::Tcp(port) => {
            enter_network(stdin.as_fd())?;
            connect(*port, until).map(drop)
        }
        HealthTest::Http { port, path } => {
            enter_network(stdin.as_fd())?;
            get(connect(*port, until)?, path, until)
        }
    }
}

/// Goes where the container's addresses are, and keeps no privilege there: what answers may be hostile.
fn enter_network(pidfd: BorrowedFd<'_>) -> Result<(), Trouble> {
    move_into_thread_name_spaces(pidfd, ThreadNameSpaceType::NETWORK)
        .map_err(|e| Trouble::of("enter the container's network", &e.into()))?;
    privileges::keep_none().map_err(|e| Trouble::of("give up privileges", &e.into()))
}

/// Connects to a port of the container, by whichever loopback address it listens on.
fn connect(port: u16, until: Instant) -> Result<TcpStream, Trouble> {
    let connect = |address: &SocketAddr, left: Duration| {
        let stream = TcpStream::connect_timeout(address, left)?;
        // Where nobody listens, the port that the kernel has chosen here may be the same one: then it answers itself (RFC 9293, 3.5).
        if stream.local_addr()? == stream.peer_addr()? { Err(ErrorKind::ConnectionRefused.into()) } else { Ok(stream) }
    };
    let what = |e: std::io::Error| match e.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Trouble::Bad(format!("TCP port {port}: no answer in time")),
        _ => Trouble::of(&format!("connect to TCP port {port}"), &e),
    };
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    connect(&v4, left(until)?).or_else(|error| {
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        // The first address says more of what is wrong.
        left(until).map_err(Trouble::Bad).and_then(|left| connect(&v6, left).map_err(what)).map_err(|_| what(error))
    })
}

/// `GET`: the status decides, the rest isn't read.
fn get(mut stream: TcpStream, path: &str, until: Instant) -> Result<(), Trouble> {
    let broken = |e: std::io::Error| match e.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Trouble::Bad(format!("GET {path}: no answer in time")),
        _ => Trouble::of(&format!("GET {path}"), &e),
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: garboard\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.set_write_timeout(Some(left(until)?)).and_then(|()| stream.write_all(request.as_bytes())).map_err(broken)?;
    let (mut head, mut piece) = (Vec::new(), [0_u8; 2048]);
    loop {
        stream.set_read_timeout(Some(left(until)?)).map_err(broken)?;
        let n = match stream.read(&mut piece) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            other => other.map_err(broken)?,
        };
        head.extend_from_slice(piece.get(..n).unwrap_or_default());
        match status(&head)? {
            Some(200..=399) => return Ok(()),
            Some(code) => return Err(format!("GET {path}: status {code}").into()),
            None if n == 0 => return Err(format!("GET {path}: the answer ends in its head").into()),
            None if head.len() > LONGEST_HEAD => {
                return Err(format!("GET {path}: the head of the answer has no end").into());
            }
            None => {}
        }
    }
}

/// The status of a response; `None`: not all of its head is there. One that only announces another (1xx) is none.
fn status(head: &[u8]) -> Result<Option<u16>, String> {
    let mut rest = head;
    loop {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(rest).map_err(|e| format!("the answer isn't HTTP/1: {e}"))?;
        let httparse::Status::Complete(length) = parsed else { return Ok(None) };
        match response.code {
            Some(100..=199) => rest = rest.get(length..).unwrap_or_default(),
            code => return Ok(code),
        }
    }
}

/// Executes the program in the container, which must end with status 0 in time. What it has started stays behind only if it left
/// its process group.
fn exec(
    container: &Container,
    words: &[String],
    pidfd: BorrowedFd<'_>,
    pid: i32,
    until: Instant,
) -> Result<(), Trouble> {
    let launch = container.launch.unpack().map_err(|f| f.to_string())?;
    let process = garboard_runtime::launch::Process { args: words.to_vec(), ..launch.process };
    // The first process's, if that is still there.
    let cgroup = Cgroup::of(pid).map_err(|_| Trouble::Unasked)?.directory;
    // What was found by the number was the container's if its process is still there.
    if has_ended(pidfd) {
        return Err("the container has ended".into());
    }
    let (output, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| Trouble::of("make a pipe", &e.into()))?;
    rustix::io::ioctl_fionbio(&output, true).map_err(|e| Trouble::of("set up a pipe", &e.into()))?;
    let stdio = Stdio { stdin: None, stdout: Some(writer.as_fd()), stderr: Some(writer.as_fd()) };
    let running = Running { pid, pidfd, cgroup: cgroup.as_ref().map(AsFd::as_fd), root: None };
    let stages = Stages { find_home: true, ..Stages::default() };
    let ends = || cgroup.as_ref().and_then(memory_events).map_or(0, |events| events.max);
    let ends_before = ends();
    let trouble = |failure: &Failure| Trouble::of_program(failure, ends() > ends_before);
    let started = enter(&running, &process, launch.seccomp.as_ref(), stdio, &stages).map_err(|f| trouble(&f))?;
    drop(writer);
    let mut said = Vec::new();
    let ended = wait(&started, &output, &mut said, until);
    // Before it is reaped, so that the group's number is nobody else's.
    if let Some(group) = Pid::from_raw(started.pid) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    match &ended {
        Ok(_) => drop(waitid(WaitId::PidFd(started.pidfd.as_fd()), WaitIdOptions::EXITED)),
        Err(_) => drop(rustix::process::pidfd_send_signal(&started.pidfd, Signal::KILL)),
    }
    if let Report::Failed(failure) = start_report::read(&started.report) {
        return Err(trouble(&failure));
    }
    Ok(judge(ended?, &said)?)
}

/// Waits for the program's end, and reads what it prints, of which the beginning is kept.
fn wait(started: &Started, output: &OwnedFd, said: &mut Vec<u8>, until: Instant) -> Result<WaitIdStatus, String> {
    loop {
        drain(output, said);
        let left = left(until).map_err(|_| "no answer in time".to_owned())?;
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut waits = [PollFd::new(&started.pidfd, PollFlags::IN), PollFd::new(output, PollFlags::IN)];
        match poll(&mut waits, Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(format!("wait for its health check: {e}")),
        }
        let [ended, prints] = &waits;
        if ended.revents().is_empty() {
            if prints.revents().contains(PollFlags::HUP) && !prints.revents().contains(PollFlags::IN) {
                // It has closed its output and goes on: only its end is waited for.
                let mut end = [PollFd::new(&started.pidfd, PollFlags::IN)];
                let _ = poll(&mut end, Some(&left));
            }
            continue;
        }
        drain(output, said);
        let status = waitid(WaitId::PidFd(started.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        return status.ok().flatten().ok_or_else(|| "its health check has ended, nobody knows how".to_owned());
    }
}

/// Reads what is there, but not for ever: several who print all the time leave always some.
fn drain(output: &OwnedFd, said: &mut Vec<u8>) {
    let mut piece = [0_u8; 4096];
    for _ in 0..PIECES_AT_ONCE {
        let Ok(n @ 1..) = rustix::io::read(output, &mut piece) else { return };
        let room = LONGEST_DETAIL.saturating_sub(said.len());
        said.extend_from_slice(piece.get(..n.min(room)).unwrap_or_default());
    }
}

fn judge(status: WaitIdStatus, said: &[u8]) -> Result<(), String> {
    let how = match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => return Ok(()),
        (Some(code), _) => format!("status {code}"),
        (_, Some(signal)) => format!("killed by signal {signal}"),
        _ => "ended somehow".to_owned(),
    };
    let said = String::from_utf8_lossy(said);
    let said = said.trim();
    Err(if said.is_empty() { how } else { format!("{how}: {said}") })
}

/// How long there is still, never nothing, which would mean for ever.
fn left(until: Instant) -> Result<Duration, String> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err("no answer in time".to_owned()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn text(trouble: Trouble) -> String {
        match trouble {
            Trouble::Bad(text) => text,
            Trouble::Unasked => "unasked".to_owned(),
        }
    }

    #[test]
    fn without_a_plan_nobody_is_asked_and_nothing_is_said() {
        let arguments = ["0", "1", "/nowhere"].map(str::to_owned);
        assert_eq!(ask(&arguments), Err(Trouble::Unasked));
        assert_eq!(run(&arguments), 1);
    }

    /// What a `GET` of a server that answers with `response` and closes comes to.
    fn asked(response: &'static [u8]) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let n = stream.read(&mut request).unwrap();
            let _ = stream.write_all(response);
            String::from_utf8_lossy(&request[..n]).into_owned()
        });
        let until = Instant::now() + Duration::from_secs(10);
        let answer = get(connect(port, until).unwrap(), "/x?y", until).map_err(text);
        assert!(server.join().unwrap().starts_with("GET /x?y HTTP/1.1\r\nHost: localhost\r\n"));
        answer
    }

    #[test]
    fn the_status_decides() {
        assert_eq!(asked(b"HTTP/1.1 204 No Content\r\n\r\n"), Ok(()));
        assert_eq!(asked(b"HTTP/1.0 301 Moved\r\nLocation: /z\r\n\r\nbody"), Ok(()));
        assert_eq!(asked(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"), Ok(()));
        assert_eq!(asked(b"HTTP/1.1 503 Sorry\r\n\r\n"), Err("GET /x?y: status 503".to_owned()));
        assert!(asked(b"220 mail ESMTP\r\n").unwrap_err().contains("isn't HTTP/1"));
        assert!(asked(b"HTTP/1.1 200 OK\r\nA: b").unwrap_err().contains("ends in its head"));
        assert!(asked(b"").unwrap_err().contains("ends in its head"));
    }

    #[test]
    fn an_answer_without_an_end_is_bounded() {
        let endless = [b"HTTP/1.1 200 OK\r\nA: ".as_slice(), &vec![b'x'; 60_000]].concat();
        let answer = asked(Box::leak(endless.into_boxed_slice()));
        assert!(answer.unwrap_err().contains("has no end"));
    }

    #[test]
    fn nobody_listens_or_nobody_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let soon = || Instant::now() + Duration::from_millis(200);
        assert!(connect(port, soon()).is_ok());
        let silent = get(connect(port, soon()).unwrap(), "/", soon()).map_err(text).unwrap_err();
        assert!(silent.contains("in time"), "{silent}");
        drop(listener);
        let refused = connect(port, soon()).map_err(text).unwrap_err();
        assert!(refused.contains("refused"), "{refused}");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_status_or_none(head in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = status(&head);
            let _ = status(&[b"HTTP/1.1 ".as_slice(), &head].concat());
        }
    }
}
