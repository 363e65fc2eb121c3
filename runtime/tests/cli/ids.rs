//! Maps of ids that are missing, of no use, or without root; and whose rights count.

use std::os::unix::fs::PermissionsExt;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::rootless::{NO_HELPERS, RANGES, USER, by_user};
use crate::site::{Site, program, shell};
use crate::trials;

pub fn tests() -> Vec<Trial> {
    trials![
        without_a_map_root_s_ids_are_its_own,
        without_a_map_an_ordinary_user_has_the_ranges_of_the_user_s_own,
        mappings_without_a_user_namespace_are_ignored,
        a_user_namespace_needs_no_root,
        where_root_may_not_look_its_user_goes,
        where_root_may_look_alone_nobody_else_is_started,
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

/// A directory at `/tmp` with a program in `work` that only this user of the container and nobody of this group may look at.
fn private(site: Site, uid: u32, gid: u32) -> Site {
    let home = site.directory.join("home");
    std::fs::create_dir_all(home.join("work")).unwrap();
    std::fs::write(home.join("work/prog"), "#!/bin/sh\npwd\n").unwrap();
    for path in [home.join("work/prog"), home.join("work"), home.clone()] {
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
    }
    site.change(|c| {
        let mount = json!({"destination": "/tmp", "type": "bind", "source": home, "options": ["bind"]});
        c["mounts"].as_array_mut().unwrap().push(mount);
        c["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    })
}

/// The container's root has no rights over files with a group that has no id there, as nobody's root has on some filesystems of networks.
fn where_root_may_not_look_its_user_goes() {
    let site = private(program(&["./prog"]).with_user_namespace(), 1_001_000, 0)
        .change(|c| c["process"]["cwd"] = json!("/tmp/work"));
    let text = site.ok(&["run", &site.id]);
    assert_eq!(text, "/tmp/work\n");
    let output = site.create(&[]);
    site.ok(&["start", &site.id]);
    site.wait_for("stopped");
    assert_eq!(std::fs::read_to_string(output).unwrap(), text);
    site.ok(&["delete", &site.id]);
    // The control: root itself.
    let refused = site.change(|c| c["process"]["user"] = json!({"uid": 0, "gid": 0}));
    let error = refused.fails(&["create", &refused.id]);
    assert!(error.contains("enter working directory /tmp/work: permission denied (EACCES)"), "{error}");
    let running = refused.change(|c| {
        c["process"]["cwd"] = json!("/");
        c["process"]["args"] = json!(["/bin/sleep", "60"]);
    });
    running.create(&[]);
    running.ok(&["start", &running.id]);
    let exec = |user| running.run(&["exec", "--user", user, "--cwd", "/tmp/work", &running.id, "./prog"]);
    assert_eq!(exec("1000:1000").stdout, text);
    assert!(exec("0:0").stderr.contains("/tmp/work: permission denied (EACCES)"));
}

/// That is an error of `create`, not of `start`.
fn where_root_may_look_alone_nobody_else_is_started() {
    let site = private(program(&["/tmp/work/prog"]), 0, 0);
    let error = site.fails(&["create", &site.id]);
    assert!(error.contains("exec /tmp/work/prog: permission denied (EACCES)"), "{error}");
    site.assert_gone();
    // A user who may look everywhere may look there.
    let site = site.change(|c| {
        for set in ["bounding", "effective", "inheritable", "permitted", "ambient"] {
            c["process"]["capabilities"][set] = json!(["CAP_DAC_OVERRIDE"]);
        }
    });
    let output = site.create(&[]);
    site.ok(&["start", &site.id]);
    site.wait_for("stopped");
    assert_eq!(std::fs::read_to_string(output).unwrap(), "/\n");
}
