//! `garboard-reaper`, as an ordinary process.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn reaper(script: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_garboard-reaper"));
    command.args(["/bin/sh", "-c", script]).stdout(Stdio::piped());
    command
}

#[test]
fn ends_as_its_program_ended() {
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
        assert_eq!(reaper(script).status().unwrap().code(), Some(code), "{script}");
    }
    let missing = Command::new(env!("CARGO_BIN_EXE_garboard-reaper")).arg("/nonesuch").stderr(Stdio::null()).status();
    assert_eq!(missing.unwrap().code(), Some(127));
    let refused = Command::new(env!("CARGO_BIN_EXE_garboard-reaper")).arg("/etc/passwd").stderr(Stdio::null()).status();
    assert_eq!(refused.unwrap().code(), Some(126));
}

#[test]
fn passes_signals_on() {
    // Not HUP: under nohup it is ignored, and a shell can't trap what was ignored when it began.
    for (number, name) in [(15, "TERM"), (10, "USR1"), (34, "RTMIN")] {
        let mut child =
            reaper(&format!("trap 'exit 42' {name}; echo up; while true; do sleep 0.01; done")).spawn().unwrap();
        let mut up = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
        Command::new("kill").arg(format!("-{number}")).arg(child.id().to_string()).status().unwrap();
        let status = child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(42), None), "{name}");
    }
}

#[test]
fn reaps_orphans() {
    // Fifty thousand that end at once, and a hundred that stay for a moment: those are seen.
    let script = "i=0; while [ $i -lt 50000 ]; do (: &); i=$((i+1)); done; \
                  for i in $(seq 100); do (sleep 1 &); done; echo made; read end; exit 0";
    let mut child = reaper(script).stdin(Stdio::piped()).spawn().unwrap();
    let mut made = [0; 5];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut made).unwrap();
    let children = || std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap_or_default();
    let until = Instant::now() + Duration::from_secs(30);
    let (mut most, mut left) = (0, usize::MAX);
    while Instant::now() < until && left != 1 {
        left = children().split_whitespace().count();
        most = most.max(left);
    }
    assert!((10..=101).contains(&most), "orphans come to it and go: {most}");
    assert_eq!(left, 1, "only its program is left");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}
