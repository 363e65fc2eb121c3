//! Containers that print more than anybody reads, or what they should not.

use std::time::{Duration, Instant};

use garboard_runtime::plan::Restart;

use crate::rig::{Rig, Setup, changed, find, kill, shell, with};

/// By name.
pub const TESTS: &[(&str, fn())] = &[
    ("flood::floods_are_bounded_and_others_unharmed", floods_are_bounded_and_others_unharmed),
    ("flood::an_unread_console_holds_nobody_up", an_unread_console_holds_nobody_up),
    ("flood::nothing_a_container_prints_passes_for_ours", nothing_a_container_prints_passes_for_ours),
    ("flood::a_line_that_keeps_growing_is_shown", a_line_that_keeps_growing_is_shown),
    ("flood::what_an_end_leaves_unread_is_counted", what_an_end_leaves_unread_is_counted),
    ("flood::prompts_are_shown_before_their_line_ends", prompts_are_shown_before_their_line_ends),
];

fn flooded(unread: bool) {
    let mut rig = Rig::with(
        vec![
            with(Restart::Always, shell("zeros", "exec cat /mnt/zero")),
            with(Restart::Always, shell("lines", "exec yes all work and no play")),
            with(Restart::Always, shell("calm", "i=0; while true; do echo calm $i; i=$((i+1)); usleep 100000; done")),
        ]
        .into_iter()
        .map(with_zero)
        .collect(),
        Setup { unread, ..Setup::default() },
    );
    rig.wait("flooded", |s| {
        find(s, "lines")["log_dropped"].as_u64() > Some(1 << 20)
            && find(s, "zeros")["log_dropped"].as_u64() > Some(1 << 20)
    });
    let before = rig.status();
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let begun = Instant::now();
        rig.status();
        slowest = slowest.max(begun.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(slowest < Duration::from_secs(5), "a reply took {slowest:?}");
    let after = rig.status();
    let rss = |s: &serde_json::Value| s["pid1_rss_bytes"].as_u64().unwrap();
    assert!(rss(&after) < rss(&before) + (1 << 20), "{} → {}", rss(&before), rss(&after));
    let calm = rig.log("calm");
    assert!(calm.len() > 5 && calm.iter().all(|l| l.starts_with("calm ")), "{calm:?}");
    assert_eq!(find(&after, "calm")["log_dropped"], 0);
    assert!(rig.log("lines").iter().any(|l| l == "all work and no play"));
}

/// `/dev/zero`, where the container can open it.
fn with_zero(container: garboard_runtime::plan::Container) -> garboard_runtime::plan::Container {
    use garboard_runtime::launch::{Device, DeviceNode};
    changed(container, |launch| {
        launch.devices = vec![Device { target: "/dev/zero".into(), node: DeviceNode::Machine("/dev/zero".into()) }];
        if let Some(script) = launch.process.args.last_mut() {
            *script = script.replace("/mnt/zero", "/dev/zero");
        }
    })
}

fn floods_are_bounded_and_others_unharmed() {
    flooded(false);
}

fn an_unread_console_holds_nobody_up() {
    flooded(true);
}

fn nothing_a_container_prints_passes_for_ours() {
    let forged = "garboard: all is well";
    // Line feed, carriage return, escape sequences, a terminal's own line break.
    let pad = "x".repeat(80 - "evil | ".len());
    let script = format!(
        r#"printf '\n{forged} 1\n\r{forged} 2\n\033[2K\033[1G{forged} 3\n{pad}{forged} 4\n\302\205{forged} 5\n'; sleep 1000"#
    );
    let mut rig = Rig::new(vec![shell("evil", &script)]);
    rig.wait_console("well 5");
    let console = rig.rows();
    let starts: Vec<&str> = console.split(['\n', '\r']).filter(|l| l.starts_with("garboard: all")).collect();
    assert_eq!(starts, Vec::<&str>::new(), "{console}");
    assert!(!console.contains('\x1b') && !console.contains('\u{85}') && !console.contains('\r'));
    assert!(console.lines().all(|l| l.chars().count() <= 80), "{console}");
    assert_eq!(console.matches(forged).count(), 5, "it is all there, in its place");
    // The log has it as it was printed: what is escaped is the console.
    assert!(rig.log("evil").iter().any(|l| l == &format!("\x1b[2K\x1b[1G{forged} 3")));
}

fn prompts_are_shown_before_their_line_ends() {
    let rig = Rig::new(vec![shell("ask", "printf 'Password: '; sleep 1; echo ok; sleep 1000")]);
    rig.wait_console("ask | Password: \n");
    rig.wait_console("ask > ok\n");
}

fn a_line_that_keeps_growing_is_shown() {
    let mut rig = Rig::new(vec![shell("dots", "while true; do printf .; usleep 50000; done")]);
    rig.wait_console("dots | .");
    // Not only when it is too long for one piece.
    assert!(rig.log("dots")[0].len() < 100, "{:?}", rig.log("dots"));
}

/// A container may make its pipe larger than what is read of it after its end.
fn what_an_end_leaves_unread_is_counted() {
    let mut rig = Rig::new(vec![shell("chatty", "sleep 10000")]);
    let pid = rig.wait_state("chatty", "running")["pid"].as_i64().unwrap() as i32;
    let mut pipe = std::fs::File::options().write(true).open(format!("/proc/{pid}/fd/1")).unwrap();
    rustix::pipe::fcntl_setpipe_size(&pipe, 1 << 20).unwrap();
    rig.signal(19);
    std::io::Write::write_all(&mut pipe, &b"x".repeat(99).into_iter().chain(*b"\n").collect::<Vec<_>>().repeat(9000))
        .unwrap();
    drop(pipe);
    kill(pid, 9);
    rig.signal(18);
    let dropped = rig.wait_state("chatty", "failed")["log_dropped"].as_u64().unwrap();
    // The rest was read: what is left at the end, or is more than a container may print at once, is not.
    assert!((900_000 - (256 << 10)..900_000).contains(&dropped), "{dropped}");
}
