//! `garboard-runtime` on a machine whose cgroups have controllers: what it sets holds, what it tells is so.

#[path = "support/guest.rs"]
mod guest;
#[path = "support/oci.rs"]
mod oci;
mod support;

use oci::{run, runtime};
use serde_json::{Value, json};
use support::judge;

const LIMITS: &str = r#"
runtime=garboard-runtime group=/sys/fs/cgroup/one
show() {
    for file in memory.max memory.low memory.swap.max cpu.max cpu.weight cpuset.cpus pids.max io.weight; do
        echo $1:$file $(cat $group/$file)
    done
}
cd /bundle
$runtime run --detach one </dev/null >/dev/null 2>&1
echo state $($runtime state one | grep status)
show before
$runtime update --memory 64m --memory-swap 96m --memory-reservation 32m --cpu-quota 50000 --cpu-period 200000 \
    --cpu-share 512 --cpuset-cpus 0 --pids-limit 20 --blkio-weight 500 one
echo update $?
show limited
$runtime update --cpu-period 100000 one
show period
echo '{"memory": {"limit": 33554432}, "cpu": {"cpus": "1-4000"}}' | $runtime update --resources - one 2>/tmp/said
echo refused $? $(cat /tmp/said)
show refused
echo '{"memory": {"limit": -1, "swap": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1}}' | $runtime update -r - one
show lifted

# Eight processes at most, and the control.
crowd='for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1 >/dev/null 2>&1 & done; echo all; wait'
echo free $($runtime exec one /bin/busybox sh -c "$crowd" 2>&1 | tail -n 1)
$runtime update --pids-limit 8 one
echo crowded $($runtime exec one /bin/busybox sh -c "$crowd" 2>&1 | tail -n 1)
"#;

#[test]
fn the_program_is_static_and_starts_before_any_library() {
    let program = runtime();
    let segments = judge("readelf", ["-lW", program.to_str().unwrap()]);
    assert!(segments.contains("EXEC"), "it isn't at a fixed address: {segments}");
    for loader in ["INTERP", "DYNAMIC"] {
        assert!(!segments.contains(loader), "it asks for a dynamic loader: {segments}");
    }
    // What it does before its C library is set up works without one.
    assert!(judge(program.to_str().unwrap(), ["run", "--help"]).contains("CONTAINER"));
}

#[test]
fn limits_change_while_a_container_runs() {
    let found = run(LIMITS);
    let shown = |at: &str| {
        let of = |file: &str| found.get(&format!("{at}:{file}")).cloned().unwrap_or_default();
        let files = [
            "memory.max",
            "memory.low",
            "memory.swap.max",
            "cpu.max",
            "cpu.weight",
            "cpuset.cpus",
            "pids.max",
            "io.weight",
        ];
        files.map(of)
    };
    assert_eq!(found["update"], "0");
    assert_eq!(shown("before"), ["max", "0", "max", "max 100000", "100", "", "max", "default 100"]);
    let limited = ["67108864", "33554432", "33554432", "50000 200000", "59", "0", "20", "default 4950"];
    assert_eq!(shown("limited"), limited);
    let period = ["67108864", "33554432", "33554432", "50000 100000", "59", "0", "20", "default 4950"];
    assert_eq!(shown("period"), period);
    assert!(
        found["refused"].starts_with("1 ") && found["refused"].contains("cpuset.cpus=1-4000"),
        "{}",
        found["refused"]
    );
    assert_eq!(shown("refused"), period);
    assert_eq!(shown("lifted"), ["max", "33554432", "max", "max 100000", "59", "0", "max", "default 4950"]);
    assert_eq!(found["free"], "all");
    assert!(found["crowded"].contains("fork"), "{}", found["crowded"]);
}

const EVENTS: &str = r#"
runtime=garboard-runtime
cd /bundle
$runtime run --detach one </dev/null >/dev/null 2>&1
# Has memory of its own, and the control: without a limit it gets it.
hog='/bin/busybox dd if=/dev/zero of=/dev/null bs=64M count=1'
$runtime exec one $hog 2>/dev/null
echo free $?
$runtime update --memory 16m --pids-limit 9 --cpuset-cpus 0 one
$runtime events --interval 200ms one >/tmp/events &
events=$!
sleep 1
$runtime exec one $hog 2>/dev/null
echo hog $?
until grep -q oom /tmp/events; do sleep 0.1; done
echo stats $($runtime events --stats one)
$runtime kill one KILL
wait $events
echo events $?
echo oom $(grep -c '"type":"oom","id":"one"' /tmp/events)
echo told $(grep -c '"type":"stats"' /tmp/events)
"#;

#[test]
fn events_tell_what_is_used_and_when_memory_runs_out() {
    let found = run(EVENTS);
    assert_eq!(found["free"], "0");
    assert_eq!(found["hog"], "137");
    assert_eq!((found["events"].as_str(), found["oom"].as_str()), ("0", "1"));
    assert!(found["told"].parse::<u32>().unwrap() >= 2);
    let event: Value = serde_json::from_str(&found["stats"]).unwrap();
    let data = &event["data"];
    assert_eq!(data["memory"]["usage"]["limit"], 16 << 20);
    assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 0);
    assert!(data["memory"]["usage"]["failcnt"].as_u64().unwrap() > 0);
    assert!(data["memory"]["raw"]["anon"].is_u64());
    assert_eq!(data["pids"], json!({"current": 1, "limit": 9}));
    assert_eq!(data["cpuset"]["cpus"], json!([0]));
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    assert_eq!(data["hugetlb"]["2MB"], json!({"usage": 0, "failcnt": 0}));
}
