//! Running programs to their end.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

/// Nothing in a test takes longer, not even on an emulated machine.
const DEADLINE: Duration = Duration::from_secs(240);

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Done {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs it to its end, with `input` to read. Output goes by files: what it leaves running holds nobody up.
pub fn finish(mut command: Command, input: &str) -> Done {
    let mut files = [(); 3].map(|()| tempfile::tempfile().unwrap());
    files[0].write_all(input.as_bytes()).unwrap();
    files[0].rewind().unwrap();
    let [stdin, stdout, stderr] = files.each_ref().map(|file| file.try_clone().unwrap());
    let child = command.stdin(stdin).stdout(stdout).stderr(stderr).spawn();
    let status = wait(child.unwrap_or_else(|e| panic!("{command:?}: {e}")));
    let [_, mut stdout, mut stderr] = files;
    Done { status, stdout: text(&mut stdout), stderr: text(&mut stderr) }
}

/// Runs it to its end on a terminal of 33 lines and 99 columns, on which nobody types; what appears there.
pub fn on_a_terminal(mut command: Command) -> (i32, String) {
    let outer = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    rustix::pty::grantpt(&outer).unwrap();
    rustix::pty::unlockpt(&outer).unwrap();
    let name = rustix::pty::ptsname(&outer, Vec::new()).unwrap();
    let inner = rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
    let inner: OwnedFd = inner.unwrap();
    let size = Winsize { ws_row: 33, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&inner, size).unwrap();
    let [stdin, stdout, stderr] = [(); 3].map(|()| Stdio::from(inner.try_clone().unwrap()));
    let child = command.stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap();
    // Whoever still holds the terminal could otherwise be this process.
    drop((command, inner));
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // EIO: the last one who had it open has gone.
        let _ = File::from(outer).read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).replace('\r', "")
    });
    (wait(child), reading.join().unwrap())
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Its exit status, or 128 + signal; killed at the deadline.
pub fn wait(mut child: Child) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        }
        if Instant::now() > end {
            let _ = child.kill();
            panic!("nothing happened for {DEADLINE:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `condition` holds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "it never came to be: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
