//! What only cgroups with controllers can show: limits, what is in use, and an end for want of memory.

use libtest_mimic::Trial;

use crate::containerd::{self, Task};
use crate::podman::Podman;
use crate::trials_of;

pub fn of_podman(podman: &'static Podman) -> Vec<Trial> {
    trials_of![podman; limits_hold_and_change, want_of_memory_ends_a_program]
}

pub fn of_containerd() -> Vec<Trial> {
    vec![Trial::test("containerd::limits_hold_and_are_measured", || {
        limits_hold_and_are_measured();
        Ok(())
    })]
}

const SHOW: &str = "cd /sys/fs/cgroup; cat memory.max pids.max cpu.max cpu.weight";

fn limits_hold_and_change(podman: &'static Podman) {
    let limits = ["--memory=64m", "--pids-limit=40", "--cpus=0.5", "--cpu-shares=512"];
    let container = podman.start(&limits, "exec sleep 1000");
    let show = || container.exec(&[], &["sh", "-c", SHOW]).lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(show(), ["67108864", "40", "50000 100000", "59"]);

    let stats = podman.ok(&["stats", "--no-stream", "--format={{.MemUsage}} {{.PIDS}}", &container.name]);
    assert!(stats.contains("67.11MB") && stats.ends_with(" 1"), "{stats}");

    container.ok(&["pause"]);
    assert_eq!(container.state(), "paused");
    container.ok(&["unpause"]);

    podman.ok(&["update", "--memory=96m", "--cpus=0.25", &container.name]);
    assert_eq!(show(), ["100663296", "40", "25000 100000", "59"]);
    container.ok(&["stop", "--time=0"]);
}

fn want_of_memory_ends_a_program(podman: &'static Podman) {
    // There is no line feed in it, so that all of it is kept.
    let hog = "head -c 40m /dev/zero | tail | wc -c";
    for (options, kept) in [(&["--memory=24m", "--memory-swap=24m"][..], "0"), (&[], "41943040")] {
        let container = podman.start(options, hog);
        assert_eq!(container.ok(&["wait"]), "0");
        assert_eq!(container.logs()["out"].trim(), kept);
    }
}

fn limits_hold_and_are_measured() {
    let task = Task::start(&["--memory-limit=67108864", "--cpus=0.5"], "exec sleep 1000");
    let pid = containerd::ok(&["task", "list"]);
    let pid = pid.lines().find(|line| line.starts_with(&task.id)).unwrap().split_whitespace().nth(1).unwrap();
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let cgroup = format!("{}{}", crate::site::CGROUPS, cgroup.trim().strip_prefix("0::").unwrap());
    let read = |name: &str| std::fs::read_to_string(format!("{cgroup}/{name}")).unwrap().trim().to_owned();
    assert_eq!((read("memory.max"), read("cpu.max")), ("67108864".to_owned(), "50000 100000".to_owned()));

    let metrics = containerd::ok(&["task", "metrics", &task.id]);
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{metrics}"));
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    assert_eq!((value("pids.current"), value("memory.usage_limit")), (1, 67_108_864));

    containerd::ok(&["task", "pause", &task.id]);
    assert_eq!((task.status().as_str(), read("cgroup.freeze").as_str()), ("PAUSED", "1"));
    containerd::ok(&["task", "resume", &task.id]);
    assert_eq!(task.exec(&[], "exit 5").status, 5);
}
