//! Workers: started in order, listened to, held to account, gone at the end. Their bodies here only say what real ones might.

use garboard_runtime::launch::{Mount, MountFlags, MountSource};
use garboard_runtime::plan::Restart;

use crate::rig::{Rig, Setup, find, kill, shell, with};

/// By name.
pub const TESTS: &[(&str, fn())] = &[
    ("workers::what_needs_no_data_runs_without_it", what_needs_no_data_runs_without_it),
    ("workers::required_data_that_is_absent_ends_the_machine", required_data_that_is_absent_ends_the_machine),
];

/// The body of a worker.
pub fn run(kind: &str) -> i32 {
    match kind {
        "modules" => println!(r#"{{"loaded":3,"failed":["load module x.ko: ENOEXEC"],"absent":["x"],"locked":true}}"#),
        "data" => println!(r#"{{"state":"absent","detail":"no disk has it","bytes":0}}"#),
        "network" => {
            println!("this is not a report");
            println!(r#"{{"uplink":"eth7","addresses":["192.0.2.7/24"],"state":"up","detail":""}}"#);
            // The lease is kept until somebody ends it.
            std::thread::sleep(std::time::Duration::from_secs(1000));
        }
        _ => {}
    }
    0
}

fn containers() -> Vec<garboard_runtime::plan::Container> {
    let mut keeper = shell("keeper", "echo never");
    keeper.launch.mounts.push(Mount {
        target: "/mnt".into(),
        source: MountSource::Bind { path: "/data/volumes/x".into(), recursive: false, idmap: true, create: None },
        flags: MountFlags::default(),
    });
    let web = with(Restart::Always, shell("web", "trap 'exit 0' TERM; while true; do usleep 10000; done"));
    vec![keeper, web]
}

fn what_needs_no_data_runs_without_it() {
    let mut rig = Rig::with(containers(), Setup { data: Some(false), ..Setup::default() });
    let status = rig.wait("settled", |s| s["network"]["state"] == "up" && find(s, "keeper")["state"] == "failed");
    assert_eq!(find(&status, "keeper")["detail"], "needs /data: no disk has it");
    assert_eq!(find(&status, "web")["state"], "running");
    assert_eq!(status["data"], serde_json::json!({"state": "absent", "detail": "no disk has it", "bytes": 0}));
    assert_eq!(status["network"]["addresses"], serde_json::json!(["192.0.2.7/24"]));
    assert_eq!(status["notes"], serde_json::json!(["load module x.ko: ENOEXEC"]));
    assert_eq!(rig.children().len(), 2, "web and the network worker");

    // A crash of the supervisor doesn't lose workers either.
    kill(rig.pid(), 34 + 8);
    rig.wait("resumed", |s| s["notes"].as_array().is_some_and(|n| n.len() == 2));
    let web = rig.container("web")["pid"].as_i64().unwrap() as i32;
    let worker = rig.children().into_iter().find(|(pid, _)| *pid != web).unwrap().0;
    kill(worker, 9);
    let status = rig.wait("noticed", |s| s["network"]["state"] == "failed");
    assert_eq!(status["network"]["detail"], "its worker was killed by SIGKILL");

    rig.ask(serde_json::json!({"request": "poweroff"}));
    assert_eq!(rig.end().0, 0);
}

fn required_data_that_is_absent_ends_the_machine() {
    let rig = Rig::with(containers(), Setup { data: Some(true), ..Setup::default() });
    let (status, console) = rig.end();
    assert_eq!(status, 0, "switched off");
    // As `garboard.stop=` has it.
    let halting = Rig::with(containers(), Setup { data: Some(true), halting: true, ..Setup::default() });
    assert_eq!(halting.end().0, 11, "halted");
    assert!(console.contains("garboard: the data filesystem is required and absent: no disk has it"), "{console}");
}
