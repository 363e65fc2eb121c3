//! config.json by config.json.

use serde_json::{Value, json};

use super::*;
use crate::launch::{IdMapping, MountSource, Namespace, RootSource, TimeNamespace};

const FULL: &str = include_str!("../../fuzz/corpus/config/full.json");
const BUNDLE: Bundle<'_> = Bundle { path: "/bundle", id: "one" };

/// What a config.json comes to.
fn compiled(config: &Value) -> Result<Bundled, Error> {
    let (spec, warnings) = read(config.to_string().as_bytes())?;
    bundle(&spec, BUNDLE).map(|made| Bundled { warnings: [warnings, made.warnings].concat(), ..made })
}

/// The full config.json with one thing changed.
fn changed(pointer: &str, value: Value) -> Result<Bundled, Error> {
    let mut config: Value = serde_json::from_str(FULL).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    config.pointer_mut(parent).unwrap()[key] = value;
    compiled(&config)
}

/// Every leaf of `wanted` that isn't in `found`.
fn lost(at: &str, wanted: &Value, found: Option<&Value>, list: &mut Vec<String>) {
    match (wanted, found) {
        (Value::Object(wanted), Some(Value::Object(found))) => {
            for (key, value) in wanted {
                lost(&format!("{at}/{key}"), value, found.get(key), list);
            }
        }
        (Value::Array(wanted), Some(Value::Array(found))) if wanted.iter().all(Value::is_string) => {
            // Sets come back in another order.
            list.extend(wanted.iter().filter(|item| !found.contains(item)).map(|item| format!("{at}: {item}")));
        }
        (Value::Array(wanted), Some(Value::Array(found))) => {
            for (number, value) in wanted.iter().enumerate() {
                lost(&format!("{at}/{number}"), value, found.get(number), list);
            }
        }
        (wanted, Some(found)) if wanted == found => {}
        (wanted, found) => list.push(format!("{at}: {wanted} became {found:?}")),
    }
}

#[test]
fn every_property_of_the_specification_is_read() {
    let wanted: Value = serde_json::from_str(FULL).unwrap();
    let (spec, warnings) = read(FULL.as_bytes()).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    let mut missing = Vec::new();
    lost("", &wanted, Some(&serde_json::to_value(&spec).unwrap()), &mut missing);
    // Read under the other name that these have in the types.
    missing.retain(|field| !field.contains("/enableCMT") && !field.contains("/enableMBM"));
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn the_full_configuration_is_one_launch() {
    let made = compiled(&serde_json::from_str(FULL).unwrap()).unwrap();
    let launch = made.launch;
    assert_eq!(launch.root.source, RootSource::Directory("/bundle/rootfs".to_owned()));
    assert_eq!((launch.root.readonly, launch.root.propagation), (true, Propagation::Slave));
    assert_eq!(launch.ids.as_ref().unwrap().uids.len(), 2);
    assert_eq!(launch.namespaces.time, TimeNamespace::New);
    let offsets: Vec<_> = launch.time_offsets.iter().map(|o| (o.boottime, o.seconds, o.nanoseconds)).collect();
    assert_eq!(offsets, [(false, 172_800, 5), (true, -604_800, 0)]);
    let process = &launch.process;
    assert_eq!((process.uid, process.gid, process.umask), (33, 44, Some(63)));
    assert_eq!(process.additional_gids, [5, 6]);
    assert_eq!(process.capabilities.ambient, 1 << 10);
    assert_eq!(process.exec_affinity.last, [0b1000_1111]);
    assert_eq!(process.personality, Some(8));
    assert!(process.landlock.is_some() && process.memory_policy.is_some() && process.scheduler.is_some());
    assert_eq!((launch.devices.len(), launch.net_devices.len(), launch.populate_dev), (1, 1, true));
    assert_eq!(launch.cgroup.owner, Some(33), "its cgroup is mounted to be written to");
    assert!(launch.intel_rdt.as_ref().unwrap().monitor);
    let data = launch.mounts.iter().find(|m| m.target == "/data").unwrap();
    let MountSource::Bind { path, idmap: IdMapping::Own { recursive: true, .. }, .. } = &data.source else {
        panic!("{data:?}")
    };
    assert_eq!(path, "/bundle/data");
    let tmp = launch.mounts.iter().find(|m| m.target == "/tmp").unwrap();
    let MountSource::Filesystem { options, copy_up: true, .. } = &tmp.source else { panic!("{tmp:?}") };
    assert_eq!(options, &["context=system_u:object_r:container_file_t:s0"]);
    let listener = launch.seccomp.unwrap().listener.unwrap();
    assert_eq!(listener.path, "/run/agent.sock");
    let state: Value = serde_json::from_str(&listener.message.join("7")).unwrap();
    assert_eq!((&state["state"]["id"], &state["metadata"]), (&json!("one"), &json!("opaque")));
}

#[test]
fn the_least_configuration_is_enough() {
    let least = json!({
        "ociVersion": "1.0.0", "root": {"path": "/abs/rootfs"}, "linux": {"namespaces": [{"type": "mount"}]},
        "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["sh"]}
    });
    let launch = compiled(&least).unwrap().launch;
    assert_eq!(launch.root.source, RootSource::Directory("/abs/rootfs".to_owned()));
    assert_eq!((launch.namespaces.pid, launch.ids, launch.seccomp), (Namespace::Host, None, None));
    assert!(!launch.root.readonly && launch.mounts.is_empty() && launch.cgroup.settings.is_empty());
    assert_eq!(launch.process.umask, None);
}

#[test]
fn namespaces_are_joined_by_path() {
    let all = json!([
        {"type": "pid", "path": "/ns/pid"}, {"type": "network", "path": "/ns/net"}, {"type": "mount", "path": "/ns/mnt"},
        {"type": "ipc", "path": "/ns/ipc"}, {"type": "uts", "path": "/ns/uts"}, {"type": "user", "path": "/ns/user"},
        {"type": "cgroup", "path": "/ns/cgroup"}, {"type": "time", "path": "/ns/time"}
    ]);
    let mut config: Value = serde_json::from_str(FULL).unwrap();
    config["linux"]["namespaces"] = all;
    config["linux"].as_object_mut().unwrap().remove("timeOffsets");
    let launch = compiled(&config).unwrap().launch;
    let path = |kind: &str| format!("/ns/{kind}");
    let namespaces = launch.namespaces;
    assert_eq!((namespaces.user, namespaces.mount), (Some(path("user")), Namespace::Path(path("mnt"))));
    assert_eq!(namespaces.time, TimeNamespace::Path(path("time")));
    assert_eq!(namespaces.pid, Namespace::Path(path("pid")));
    assert_eq!(launch.ids, None, "a joined user namespace has its maps");
}

#[test]
fn versions_one_are_understood() {
    for version in ["1.0.0", "1.0.2-dev", "1.1.0", "1.2.1", "1.3.0", "1.9.0+x"] {
        assert!(changed("/ociVersion", json!(version)).is_ok(), "{version}");
    }
    for version in ["", "1", "1.0", "2.0.0", "0.9.0", "1.x.0", "v1.0.0"] {
        assert!(changed("/ociVersion", json!(version)).unwrap_err().to_string().contains("ociVersion"), "{version}");
    }
}

#[test]
fn an_invalid_value_is_an_error_with_its_field() {
    let range = |inside: u32, outside: u32, size: u32| json!({"containerID": inside, "hostID": outside, "size": size});
    let cases = [
        ("/root", json!(null), "root"),
        ("/root/path", json!(""), "root.path"),
        ("/process/args", json!([]), "process.args"),
        ("/process/args", json!(["a\0b"]), "process.args"),
        ("/process/env", json!(["A=\0"]), "process.env"),
        ("/process/cwd", json!("srv"), "process.cwd"),
        ("/process/user/umask", json!(4096), "process.user.umask"),
        ("/process/oomScoreAdj", json!(1001), "process.oomScoreAdj"),
        ("/process/rlimits/1/type", json!("RLIMIT_NOFILE"), "RLIMIT_NOFILE is given twice"),
        ("/process/rlimits/0/soft", json!(9999), "soft limit above hard limit"),
        ("/process/rlimits/0/type", json!("RLIMIT_X"), "process.rlimits[0].type"),
        ("/process/ioPriority/priority", json!(9), "process.ioPriority.priority"),
        ("/process/ioPriority/class", json!("X"), "process.ioPriority.class"),
        ("/process/scheduler/policy", json!("SCHED_X"), "process.scheduler.policy"),
        ("/linux/namespaces/0/type", json!("pods"), "linux.namespaces[0].type"),
        ("/linux/namespaces/0/type", json!("uts"), "given twice"),
        ("/linux/namespaces/0/path", json!("relative"), "isn't absolute"),
        ("/linux/namespaces", json!([{"type": "user"}]), "add {\"type\": \"mount\"}"),
        ("/linux/namespaces/7/type", json!("mount"), "given twice"),
        ("/linux/uidMappings", json!([]), "linux.uidMappings"),
        ("/linux/uidMappings", json!([range(0, 0, 0)]), "maps nothing"),
        ("/linux/gidMappings", json!([range(0, 0, 5), range(4, 100, 5)]), "overlaps"),
        ("/linux/gidMappings", json!([range(u32::MAX, 0, 2)]), "beyond the last id"),
        ("/linux/timeOffsets", json!({"realtime": {"secs": 1}}), "linux.timeOffsets.realtime"),
        ("/linux/timeOffsets/boottime/nanosecs", json!(1_000_000_000), "nanosecs"),
        ("/linux/rootfsPropagation", json!("sideways"), "linux.rootfsPropagation"),
        ("/linux/maskedPaths", json!(["proc/kcore"]), "linux.maskedPaths"),
        ("/linux/readonlyPaths", json!(["../proc/sys"]), "linux.readonlyPaths"),
        ("/linux/personality/domain", json!("BSD"), "linux.personality.domain"),
        ("/linux/personality/flags", json!(["X"]), "linux.personality.flags"),
        ("/linux/memoryPolicy/mode", json!("MPOL_X"), "linux.memoryPolicy.mode: invalid memory policy mode: "),
        ("/linux/memoryPolicy", json!({"nodes": "0"}), "linux.memoryPolicy: invalid memory policy mode: "),
        ("/linux/memoryPolicy/flags", json!(["x"]), "linux.memoryPolicy.flags[0]: invalid memory policy flag: "),
        ("/linux/memoryPolicy/nodes", json!("1-"), "linux.memoryPolicy.nodes: invalid memory policy nodes: "),
        ("/linux/devices/0/major", json!(-1), "linux.devices[/dev/fuse].major"),
        ("/linux/seccomp/defaultAction", json!("SCMP_ACT_X"), "linux.seccomp.defaultAction"),
        ("/linux/seccomp/architectures", json!(["SCMP_ARCH_PDP11"]), "linux.seccomp.architectures[0]"),
        ("/linux/seccomp/listenerPath", json!("agent"), "linux.seccomp.listenerPath"),
        ("/linux/resources/pids/limit", json!("many"), "linux.resources.pids.limit"),
        ("/windows", json!({"layerFolders": []}), "windows"),
        ("/annotations", json!({"org.garboard.landlock.read": "usr"}), "org.garboard.landlock.read"),
        ("/mounts/0/destination", json!(""), "mounts.destination"),
    ];
    for (pointer, value, field) in cases {
        let error = match changed(pointer, value.clone()) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{pointer} = {value} is accepted"),
        };
        assert!(error.contains(field), "{pointer} = {value}: {error}");
    }
}

#[test]
fn what_is_asked_for_beside_its_namespace_is_an_error() {
    let without = |kind: &str| {
        let config: Value = serde_json::from_str(FULL).unwrap();
        let list = config["linux"]["namespaces"].as_array().unwrap();
        Value::Array(list.iter().filter(|namespace| namespace["type"] != kind).cloned().collect())
    };
    for (kind, field) in [
        ("time", "linux.timeOffsets"),
        ("network", "linux.netDevices"),
        ("user", "linux.uidMappings"),
        ("mount", "linux.namespaces"),
    ] {
        let error = match changed("/linux/namespaces", without(kind)) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("without {kind}"),
        };
        assert!(error.contains(field), "{kind}: {error}");
    }
}

#[test]
fn what_the_kernel_takes_for_as_it_is_is_no_id() {
    for (field, value) in [("uid", json!(u32::MAX)), ("gid", json!(u32::MAX)), ("additionalGids", json!([5, u32::MAX]))]
    {
        let mut config: Value = serde_json::from_str(FULL).unwrap();
        config["process"]["user"][field] = value;
        let error = compiled(&config).unwrap_err().to_string();
        assert!(error.contains(&format!("process.user.{field}: 4294967295 is no id")), "{error}");
    }
}

#[test]
fn a_console_has_a_size_that_fits() {
    let process = |console: Value| {
        let mut config: Value = serde_json::from_str(FULL).unwrap();
        config["process"]["consoleSize"] = console;
        read(config.to_string().as_bytes()).unwrap().0.process().clone().unwrap()
    };
    assert_eq!(terminal(&process(json!({"height": 25, "width": 80}))).unwrap(), Some((25, 80)));
    assert_eq!(terminal(&process(json!(null))).unwrap(), Some((0, 0)));
    assert!(
        terminal(&process(json!({"height": 70000, "width": 1})))
            .unwrap_err()
            .to_string()
            .contains("consoleSize.height")
    );
    let mut config: Value = serde_json::from_str(FULL).unwrap();
    config["process"]["terminal"] = json!(false);
    let warnings = compiled(&config).unwrap().warnings;
    assert!(warnings.iter().any(|warning| warning.contains("process.consoleSize")), "{warnings:?}");
}

#[test]
fn a_path_that_is_hidden_twice_is_hidden_once() {
    let launch =
        |field: &str| changed(&format!("/linux/{field}"), json!(["/b", "/a", "/b", "/x/../a"])).unwrap().launch;
    assert_eq!(launch("maskedPaths").masked_paths, ["/b", "/a"]);
    assert_eq!(launch("readonlyPaths").readonly_paths, ["/b", "/a"]);
}

/// The kernel wouldn't grant it, and wouldn't say so either.
#[test]
fn an_ambient_capability_that_needs_the_other_sets_is_a_warning() {
    let warned = |inheritable: &[&str]| {
        let both = json!(["CAP_CHOWN", "CAP_KILL"]);
        let sets = json!({"bounding": both, "permitted": both, "inheritable": inheritable, "ambient": both});
        let mut warnings = changed("/process/capabilities", sets).unwrap().warnings;
        warnings.retain(|warning| warning.starts_with("process.capabilities.ambient: "));
        warnings
    };
    let warning = "process.capabilities.ambient: can't raise ambient capability CAP_CHOWN: it isn't both permitted and inheritable";
    assert_eq!(warned(&[]), [format!("{warning}; nor CAP_KILL")]);
    assert_eq!(warned(&["CAP_KILL"]), [warning]);
    assert!(warned(&["CAP_KILL", "CAP_CHOWN"]).is_empty());
}

#[test]
fn a_slave_root_makes_slaves_of_its_bind_mounts() {
    let mut config: Value = serde_json::from_str(FULL).unwrap();
    config["mounts"][2]["options"] = json!(["rbind"]);
    let slave = u32::try_from(libc::MS_SLAVE | libc::MS_REC).unwrap();
    let of = |config: &Value| compiled(config).unwrap().launch.mounts[2].flags.propagation.clone();
    assert_eq!(of(&config), [slave]);
    config["linux"]["rootfsPropagation"] = json!("private");
    assert_eq!(of(&config), Vec::<u32>::new());
}

/// The seeds of the fuzzer, and what it is likely to make of them, also where there is no fuzzer.
#[test]
fn seeds_and_their_neighbours_are_launches_or_errors() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/config");
    let mut seeds = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        fuzz(&bytes);
        seeds += 1;
        for at in (0..bytes.len()).step_by(bytes.len() / 40 + 1) {
            fuzz(&bytes[..at]);
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            fuzz(&flipped);
        }
    }
    assert!(seeds >= 8, "{seeds}");
}

proptest::proptest! {
    #[test]
    fn any_value_at_any_place_is_a_launch_or_an_error(place in proptest::prelude::any::<proptest::sample::Index>(), value in 0_usize..9) {
        let mut config: Value = serde_json::from_str(FULL).unwrap();
        let mut places = Vec::new();
        collect("", &config, &mut places);
        let values = [json!(null), json!(true), json!(-1), json!(u64::MAX), json!(1.5), json!(""), json!("\0"), json!([]), json!({})];
        *config.pointer_mut(&places[place.index(places.len())]).unwrap() = values[value].clone();
        fuzz(config.to_string().as_bytes());
    }
}

/// Every place in a value, as JSON pointers.
fn collect(at: &str, value: &Value, places: &mut Vec<String>) {
    places.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| collect(&format!("{at}/{key}"), value, places)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(n, value)| collect(&format!("{at}/{n}"), value, places))
        }
        _ => {}
    }
}
