//! Maps of ids that are missing, of no use, or without root.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::rootless::{NO_HELPERS, RANGES, USER, by_user};
use crate::site::{Site, shell};
use crate::trials;

pub fn tests() -> Vec<Trial> {
    trials![
        without_a_map_root_s_ids_are_its_own,
        without_a_map_an_ordinary_user_has_the_ranges_of_the_user_s_own,
        mappings_without_a_user_namespace_are_ignored,
        a_user_namespace_needs_no_root,
    ]
}

/// A new user namespace with such mappings, the same for users and groups.
fn mapped(site: Site, mappings: &Value) -> Site {
    site.change(|c| {
        let namespaces = c["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "user");
        namespaces.push(json!({"type": "user"}));
        c["linux"]["uidMappings"] = mappings.clone();
        c["linux"]["gidMappings"] = mappings.clone();
        // A group that isn't in every map.
        let options =
            c["mounts"].as_array_mut().unwrap().iter_mut().filter_map(|mount| mount["options"].as_array_mut());
        options.for_each(|options| options.retain(|option| option != "gid=5"));
    })
}

/// What a map says, and the user, in single words.
const WHO: &str = "echo $(cat /proc/self/uid_map) $(id -u)";

fn without_a_map_root_s_ids_are_its_own() {
    let site = mapped(shell(WHO), &Value::Null).change(|c| c["process"]["user"] = json!({"uid": 3, "gid": 4}));
    let done = site.run(&["run", &site.id]);
    assert_eq!((done.status, done.stdout.as_str()), (0, "0 0 4 3\n"), "{done:?}");
    assert!(done.stderr.contains("a user namespace without any: ids of the container are the machine's"), "{done:?}");
}

fn without_a_map_an_ordinary_user_has_the_ranges_of_the_user_s_own() {
    let site = mapped(by_user(shell(WHO), &[]), &Value::Null);
    let (first, count) = RANGES[0];
    assert_eq!(site.ok(&["run", &site.id]), format!("0 {USER} 1 1 {first} {count} 0\n"));
    // The control: where nobody may map them, the user alone.
    let site = mapped(by_user(shell(WHO), &NO_HELPERS), &Value::Null);
    assert_eq!(site.ok(&["run", &site.id]), format!("0 {USER} 1 0\n"));
}

fn mappings_without_a_user_namespace_are_ignored() {
    let site = shell(WHO).change(|c| {
        c["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
        c["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    });
    let done = site.run(&["run", &site.id]);
    assert_eq!((done.status, done.stdout.as_str()), (0, "0 0 4294967295 0\n"), "{done:?}");
    assert!(done.stderr.contains("linux.uidMappings, gidMappings: ignored"), "{done:?}");
}

fn a_user_namespace_needs_no_root() {
    let one = json!([{"containerID": 1000, "hostID": 1_000_000, "size": 1}]);
    let site = mapped(shell(&format!("{WHO}; touch /dev/shm/file; sleep 1000")), &one);
    let site = site.change(|c| c["process"]["user"] = json!({"uid": 1000, "gid": 1000}));
    site.create(&[]);
    site.ok(&["start", &site.id]);
    let script = format!("{WHO}; id -g; grep CapEff /proc/self/status");
    let told = site.ok(&["exec", "--user", "1000:1000", &site.id, "/bin/sh", "-c", &script]);
    assert_eq!(told, "1000 1000000 1 1000\n1000\nCapEff:\t0000000000000000\n");
}
