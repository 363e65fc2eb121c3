//! `checkpoint` and `restore` of a container with a terminal, with a fake criu that talks its protocol.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use serde_json::json;

use crate::images::fake;
use crate::site::{Site, finish, shell};
use crate::streams::receive;
use crate::trials;

pub fn tests() -> Vec<Trial> {
    trials![a_terminal_is_handed_over, who_restores_may_show_the_terminal, a_terminal_that_can_t_be_had_is_an_error]
}

/// The argument by which this executable is the program [`talk`].
pub const TALK: &str = "--talk-as-criu";

/// criu on standard input, with its files in `directory`: notes the request, tells of two stages, answers.
pub fn talk(directory: &Path) -> ! {
    let (socket, file) = (rustix::stdio::stdin(), |name: &str| directory.join(name));
    let mut buffer = [0; 1 << 16];
    let mut hear = || {
        let length = recv(socket, &mut buffer[..], RecvFlags::empty()).unwrap().0;
        buffer[..length].to_vec()
    };
    let tell = |message: &[u8], terminal: Option<&std::os::fd::OwnedFd>| {
        let fds: Vec<_> = terminal.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(socket, &[IoSlice::new(message)], &mut control, SendFlags::empty()).unwrap();
    };
    let request = hear();
    std::fs::write(file("request"), &request).unwrap();
    let kind = request[1];
    if file("mute").exists() {
        std::process::exit(0);
    }
    if file("fail").exists() {
        tell(&[0x08, kind, 0x10, 0], None);
        std::process::exit(1);
    }
    let stage = |name: &str| {
        let length = u8::try_from(name.len()).unwrap();
        [&[0x08, 6, 0x10, 1, 0x2a, length + 2, 0x0a, length], name.as_bytes()].concat()
    };
    // The answer to each: go on.
    let mut passes = |name: &str, terminal: Option<&std::os::fd::OwnedFd>| {
        tell(&stage(name), terminal);
        // What fails fails with it.
        if hear() != [0x08, 6, 0x18, 1] {
            std::process::exit(1);
        }
    };
    passes("network-unlock", None);
    if kind == 1 {
        passes("post-dump", None);
    }
    let mut answer = vec![0x08, kind, 0x10, 1];
    if kind == 2 {
        let outer = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&outer).and_then(|()| unlockpt(&outer)).unwrap();
        let inner = ioctl_tiocgptpeer(&outer, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        if !file("without").exists() {
            passes("orphan-pts-master", Some(&outer));
        }
        let stream = || Stdio::from(inner.try_clone().unwrap());
        let mut program = Command::new("sh");
        program.arg("-c").arg(std::fs::read_to_string(file("program")).unwrap());
        let pid = program.stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap().id();
        let restored = [&[0x08], &number(pid.into())[..]].concat();
        answer.extend([0x22, u8::try_from(restored.len()).unwrap()]);
        answer.extend(restored);
    }
    tell(&answer, None);
    std::process::exit(0);
}

/// As protocol buffers have it: seven bits at a time, the lowest first.
fn number(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A site with a terminal and a fake criu, of which `program` is what it restores.
fn site(program: &str) -> (Site, String) {
    let site = shell("sleep 60").change(|c| c["process"]["terminal"] = true.into());
    let criu = fake(&site);
    std::fs::write(site.directory.join("program"), program).unwrap();
    std::fs::create_dir(site.directory.join("images")).unwrap();
    (site, criu)
}

fn listener(site: &Site) -> (UnixListener, PathBuf) {
    let path = site.directory.join("console");
    (UnixListener::bind(&path).unwrap(), path)
}

fn a_terminal_is_handed_over() {
    let (site, criu) = site("echo shown; read line; echo got $line; exec sleep 60");
    let site = site.change(|c| c["annotations"] = json!({"org.criu.config": "/criu.conf"}));
    let (listener, path) = listener(&site);
    let console = ["--console-socket", path.to_str().unwrap()];
    site.ok(&[&["run", "--detach"], &console[..], &[&site.id]].concat());
    drop(receive(&listener));
    let pid = site.state()["pid"].as_u64().unwrap();
    let asked = |bytes: &[u8]| {
        let request = std::fs::read(site.directory.join("request")).unwrap();
        request.windows(bytes.len()).any(|part| part == bytes)
    };
    // What fails leaves it as it was, and says so.
    std::fs::write(site.directory.join("fail"), "").unwrap();
    assert!(site.fails(&["--criu", &criu, "checkpoint", "--image-path", "images", &site.id]).contains("exit status 1"));
    assert_eq!(site.status(), "running");
    std::fs::remove_file(site.directory.join("fail")).unwrap();
    site.ok(&["--criu", &criu, "checkpoint", "--image-path", "images", &site.id]);
    site.assert_gone();
    // `orphan_pts_master`, and which process.
    assert!(asked(&[0x90, 0x03, 1]) && asked(&[&[0x10], &number(pid)[..]].concat()));

    let restore = ["--criu", &criu, "restore", "--detach", "--image-path", "images"];
    site.ok(&[&restore[..], &console, &[&site.id]].concat());
    assert!(asked(&[0x90, 0x03, 1]) && asked(b"mnt[/proc/kcore]:/dev/null"));
    // `config_file`
    assert!(asked(b"\x9a\x03\x0a/criu.conf"));
    let mut terminal = std::fs::File::from(receive(&listener));
    let mut read = |until: &str| {
        let (mut text, mut byte) = (String::new(), [0]);
        while !text.contains(until) {
            terminal.read_exact(&mut byte).unwrap_or_else(|error| panic!("{text:?}: {error}"));
            text.push(char::from(byte[0]));
        }
        terminal.write_all(b"typed\n").unwrap();
    };
    read("shown");
    read("got typed");
    assert_eq!(site.status(), "running");
    let pid = site.state()["pid"].to_string();
    let processes = std::fs::read_to_string(site.cgroup().join("cgroup.procs")).unwrap();
    assert!(processes.lines().any(|line| line == pid), "{processes}");
}

fn who_restores_may_show_the_terminal() {
    let (site, criu) = site("read line; echo got $line; exit 7");
    let mut command = site.command(&["--criu", &criu, "restore", "--image-path", "images", &site.id]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"typed\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("got typed"), "{output:?}");
    assert_eq!(output.status.code(), Some(7));
    site.assert_gone();
}

fn a_terminal_that_can_t_be_had_is_an_error() {
    let (site, criu) = site("exec sleep 60");
    let restore = |more: &[&str]| {
        let all = [&["--criu", &criu, "restore", "--image-path", "images"], more, &[&site.id]].concat();
        let done = finish(site.command(&all));
        assert_eq!(done.status, 1, "{done:?}");
        site.assert_gone();
        done.stderr
    };
    assert!(restore(&["--detach"]).contains("use --console-socket"));
    assert!(restore(&["--console-socket", "/absent/socket"]).contains("connect to the socket /absent/socket"));
    assert!(!site.directory.join("request").exists(), "criu was called");
    for (file, why) in [("mute", "talk to"), ("fail", "exit status 1")] {
        std::fs::write(site.directory.join(file), "").unwrap();
        let error = restore(&[]);
        assert!(error.contains(why), "{file}: {error}");
        std::fs::remove_file(site.directory.join(file)).unwrap();
    }
    // Who had closed it goes on without.
    std::fs::write(site.directory.join("without"), "").unwrap();
    std::fs::write(site.directory.join("program"), "sleep 0.2; exit 3").unwrap();
    assert_eq!(site.run(&["--criu", &criu, "restore", "--image-path", "images", &site.id]).status, 3);
    site.assert_gone();
}
