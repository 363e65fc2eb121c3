//! An ordinary user with ranges of ids and cgroups of the user's own, which only root can set up: an account, /etc/subuid, and a
//! delegated cgroup, all of this test's mount namespace.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libtest_mimic::Trial;
use rustix::fs::{CWD, FileType, Mode, makedev};
use rustix::mount::{MountFlags, UnmountFlags, mount_bind};
use serde_json::{Value, json};

use crate::site::{Site, copy_program, place, runtime, shell, until};
use crate::trials;

pub fn tests() -> Vec<Trial> {
    trials![
        several_ranges_are_mapped,
        every_command_is_the_user_s,
        without_helpers_a_single_mapping_is_left,
        ids_of_others_are_refused,
        a_delegated_cgroup_is_used,
        a_caller_outside_the_delegated_tree_is_told,
        root_of_a_user_namespace_runs_containers,
        a_program_that_is_out_of_reach_is_not_warned_of,
        a_mount_that_is_locked_keeps_what_it_denies,
        what_isn_t_mapped_outside_is_refused,
        root_can_be_said_to_be_an_ordinary_user,
    ]
}

pub const USER: u32 = 54321;
const NAME: &str = "garboard-test";
/// First ids and sizes in /etc/subuid and /etc/subgid.
pub const RANGES: [(u32, u32); 2] = [(200_000, 65_536), (300_000, 10)];
const CGROUPS: &str = "/sys/fs/cgroup";

/// The account, once: a program that this user can reach.
pub fn account() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let directory = place().rootfs().with_file_name("account");
        fs::create_dir(&directory).unwrap();
        let over = |file: &str, more: String| {
            let old = fs::read_to_string(Path::new("/etc").join(file)).unwrap_or_default();
            let new = directory.join(file);
            fs::write(&new, format!("{old}{more}")).unwrap();
            mount_bind(&new, Path::new("/etc").join(file)).unwrap_or_else(|error| panic!("/etc/{file}: {error}"));
        };
        over("passwd", format!("{NAME}:x:{USER}:{USER}::/tmp:/bin/sh\n"));
        for file in ["subuid", "subgid"] {
            over(file, RANGES.map(|(first, size)| format!("{NAME}:{first}:{size}\n")).concat());
        }
        // As it is on most machines.
        let device = directory.join("fuse");
        rustix::fs::mknodat(CWD, &device, FileType::CharacterDevice, Mode::RUSR, makedev(10, 229)).unwrap();
        fs::set_permissions(&device, PermissionsExt::from_mode(0o666)).unwrap();
        mount_bind(&device, "/dev/fuse").unwrap();
        let program = directory.join("garboard-runtime");
        copy_program(&runtime(), &program);
        program
    })
}

/// The bundle as this user's, in whose directory the user may write. `before` runs the runtime.
pub fn by_user(site: Site, before: &[&str]) -> Site {
    let program = account().to_str().unwrap();
    chown(&site.directory, Some(USER), Some(USER)).unwrap();
    let id = USER.to_string();
    let user = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--inh-caps=-all"];
    let before: Vec<String> = user.iter().chain(before).chain([&program]).map(|word| (*word).to_owned()).collect();
    let mut site = site.change(|c| {
        let mounts = c["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/sys"));
        // A group that isn't in every map.
        let options = mounts.iter_mut().filter_map(|mount| mount["options"].as_array_mut());
        options.for_each(|options| options.retain(|option| option != "gid=5"));
        let namespaces = ["pid", "ipc", "uts", "mount", "user"].map(|kind| json!({"type": kind}));
        c["linux"]["namespaces"] = json!(namespaces);
        c["linux"].as_object_mut().unwrap().remove("resources");
        map(c, &[(0, USER, 1), (1, RANGES[0].0, 1000), (1001, RANGES[1].0, RANGES[1].1)]);
    });
    site.before = before;
    site
}

fn map(config: &mut Value, ranges: &[(u32, u32, u32)]) {
    let range =
        |(inside, outside, size): &(u32, u32, u32)| json!({"containerID": inside, "hostID": outside, "size": size});
    let ranges: Vec<Value> = ranges.iter().map(range).collect();
    config["linux"]["uidMappings"] = json!(ranges);
    config["linux"]["gidMappings"] = json!(ranges);
}

fn numbers(text: &str) -> Vec<u32> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn several_ranges_are_mapped() {
    let site = by_user(
        shell("cat /proc/self/uid_map /proc/self/gid_map; cd /tmp; echo > file; chown 5:1003 file; id -G"),
        &[],
    );
    let bound = site.directory.join("work");
    fs::create_dir(&bound).unwrap();
    chown(&bound, Some(USER), Some(USER)).unwrap();
    let site = site.change(|c| {
        let mount = json!({"destination": "/tmp", "type": "bind", "source": bound, "options": ["bind"]});
        c["mounts"].as_array_mut().unwrap().push(mount);
        c["process"]["user"]["additionalGids"] = json!([7, 1001]);
        for set in ["bounding", "effective", "permitted"] {
            c["process"]["capabilities"][set] = json!(["CAP_CHOWN"]);
        }
    });
    let told = numbers(&site.ok(&["run", &site.id]));
    let ranges = [0, USER, 1, 1, 200_000, 1000, 1001, 300_000, 10];
    assert_eq!(told, [&ranges[..], &ranges[..], &[0, 7, 1001]].concat());
    let file = fs::metadata(bound.join("file")).unwrap();
    assert_eq!((file.uid(), file.gid()), (200_004, 300_002));
    site.assert_gone();
}

fn every_command_is_the_user_s() {
    let site = by_user(shell("trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done"), &[]);
    let site = site.change(|c| c["process"]["user"] = json!({"uid": 33, "gid": 33}));
    let output = site.create(&[]);
    assert_eq!((site.status().as_str(), &site.state()["owner"]), ("created", &json!(NAME)));
    site.ok(&["start", &site.id]);
    until("the trap is set", || fs::read_to_string(&output).unwrap().contains("ready"));
    assert_eq!(site.ok(&["exec", &site.id, "id", "-u"]), "33\n");
    assert_eq!(site.ok(&["exec", "--user", "1010:3", &site.id, "id"]), "uid=1010 gid=3\n");
    assert!(site.ok(&["list", "--quiet"]).contains(&site.id));
    let pid = site.state()["pid"].as_u64().unwrap();
    assert!(fs::read_to_string(format!("/proc/{pid}/status")).unwrap().contains("Uid:\t200032\t200032"));
    let pids: Vec<u64> = serde_json::from_str(&site.ok(&["ps", "--format", "json", &site.id])).unwrap();
    assert!(pids.contains(&pid), "{pids:?}");
    for command in ["pause", "resume"] {
        site.fails(&[command, &site.id]);
    }
    site.ok(&["kill", &site.id, "TERM"]);
    site.wait_for("stopped");
    site.ok(&["delete", &site.id]);
    site.assert_gone();
    let site = by_user(shell("exit 9"), &[]);
    assert_eq!(site.run(&["run", &site.id]).status, 9);
}

/// Where no program is but the runtime and what it is begun by.
pub const NO_HELPERS: [&str; 2] = ["env", "PATH=/nowhere"];

fn without_helpers_a_single_mapping_is_left() {
    let site = by_user(shell("true"), &NO_HELPERS);
    let error = site.fails(&["run", &site.id]);
    assert!(
        error.contains("map ids by newuidmap: no such file or directory (ENOENT)") && error.contains("Debian: uidmap"),
        "{error}"
    );
    assert!(error.contains("one id only, the own one"), "{error}");
    site.assert_gone();
    // Several groups take the other helper.
    let site = site.change(|c| c["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": USER, "size": 1}]));
    let error = site.fails(&["run", &site.id]);
    assert!(
        error.contains("map ids by newgidmap: no such file or directory (ENOENT)") && error.contains("Debian: uidmap"),
        "{error}"
    );
    site.assert_gone();
    // One id that is somebody else's takes a helper, too.
    let site = site.change(|c| map(c, &[(0, USER + 1, 1)]));
    assert!(site.fails(&["run", &site.id]).contains("map ids by newuidmap: no such file or directory (ENOENT)"));
    // What the configuration asks for is what there is: the own id alone, as whatever id inside.
    let site =
        by_user(shell("cat /proc/self/uid_map /proc/self/gid_map; id -u; cat /proc/self/setgroups"), &NO_HELPERS);
    let site = site.change(|c| {
        map(c, &[(0, USER, 1)]);
        // The only group there is.
        c["process"]["user"]["additionalGids"] = json!([0]);
    });
    let text = site.ok(&["run", &site.id]);
    assert_eq!(numbers(&text), [0, USER, 1, 0, USER, 1, 0], "{text}");
    assert!(text.ends_with("deny\n"), "{text}");
    site.assert_gone();
}

fn ids_of_others_are_refused() {
    let (first, size) = RANGES[0];
    for (outside, size) in [(first, size + 1), (first - 1, 2), (0, 1)] {
        let site = by_user(shell("true"), &[]).change(|c| map(c, &[(0, USER, 1), (1, outside, size)]));
        let error = site.fails(&["run", &site.id]);
        assert!(
            error.contains("map ids by newuidmap: uid range [1-") && error.contains("/etc/subuid must give them"),
            "{error}"
        );
        site.assert_gone();
    }
    let site = by_user(shell("true"), &[]).change(|c| c["linux"]["gidMappings"][1]["hostID"] = 7.into());
    let error = site.fails(&["run", &site.id]);
    assert!(
        error.contains("map ids by newgidmap: gid range [1-") && error.contains("/etc/subgid must give them"),
        "{error}"
    );
    site.assert_gone();
}

/// A cgroup that is this user's, as systemd delegates one, with a cgroup in it for the runtime. It goes with the test.
struct Delegated {
    path: PathBuf,
    /// The path of the one in it, from the mount on.
    own: String,
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for beneath in ["own", "elsewhere", ""] {
            let _ = fs::remove_dir(self.path.join(beneath));
        }
    }
}

fn delegate(name: &str) -> Delegated {
    let delegated = Path::new(CGROUPS).join(name);
    let own = delegated.join("own");
    fs::create_dir_all(&own).unwrap();
    for directory in [&delegated, &own] {
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(directory.join(file), Some(USER), Some(USER)).unwrap();
        }
    }
    Delegated { path: delegated, own: format!("/{name}/own") }
}

/// Puts a process into that cgroup in front of what it becomes.
fn inside(mut site: Site, cgroup: &str) -> Site {
    let enter = format!("echo 0 > {CGROUPS}{cgroup}/cgroup.procs && exec \"$@\"");
    site.before.splice(0..0, ["sh", "-c", &enter, "sh"].map(str::to_owned));
    site
}

fn a_delegated_cgroup_is_used() {
    let delegated = delegate("garboard-delegated");
    let own = delegated.own.as_str();
    let site = inside(by_user(shell("sleep 60 & wait"), &[]), own);
    site.create(&[]);
    let cgroup = PathBuf::from(format!("{CGROUPS}{own}/{}", site.id));
    assert!(cgroup.is_dir());
    site.ok(&["start", &site.id]);
    until("both run", || fs::read_to_string(cgroup.join("cgroup.procs")).unwrap().lines().count() == 2);
    site.ok(&["pause", &site.id]);
    assert_eq!(site.status(), "paused");
    site.ok(&["resume", &site.id]);
    assert_eq!(site.status(), "running");
    assert_eq!(site.ok(&["exec", &site.id, "echo", "inside"]), "inside\n");
    site.ok(&["kill", "--all", &site.id, "KILL"]);
    site.wait_for("stopped");
    site.ok(&["delete", &site.id]);
    assert!(!cgroup.exists());
    site.assert_gone();
    // Where the configuration says, as far as that is the user's.
    let site = inside(by_user(shell("cat /proc/self/cgroup"), &[]), own);
    let site = site.change(|c| c["linux"]["cgroupsPath"] = "/garboard-delegated/elsewhere/web".into());
    assert!(site.ok(&["run", &site.id]).contains("0::/garboard-delegated/elsewhere/web\n"));
    assert!(!Path::new(CGROUPS).join("garboard-delegated/elsewhere/web").exists());
    // A limit whose controller isn't delegated can't hold.
    let site = site.change(|c| c["linux"]["resources"] = json!({"rdma": {"mlx5_1": {"hcaHandles": 3}}}));
    let error = site.fails(&["run", &site.id]);
    assert!(error.contains("set cgroup rdma.max=") && error.contains("the controller isn't enabled"), "{error}");
}

fn a_caller_outside_the_delegated_tree_is_told() {
    let delegated = delegate("garboard-delegated-away");
    let own = delegated.own.as_str();
    let site = by_user(shell("true"), &[]).change(|c| c["linux"]["cgroupsPath"] = format!("{own}/web").into());
    let error = site.fails(&["run", &site.id]);
    assert!(
        error.contains(
            "clone3 /bin/sh: permission denied (EACCES): this process is in no cgroup of the same delegated tree"
        ),
        "{error}"
    );
    assert!(!Path::new(&format!("{CGROUPS}{own}/web")).exists());
    site.assert_gone();
}

/// In a user namespace of the user's, as Podman runs runtimes: all its ids, of which 0 is the user.
const IN_NAMESPACE: [&str; 5] = ["unshare", "--user", "--map-root-user", "--map-auto", "--mount"];

fn root_of_a_user_namespace_runs_containers() {
    // With that namespace's ids as they are.
    let site = by_user(shell("cat /proc/self/uid_map; id"), &IN_NAMESPACE).change(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "user");
        for field in ["uidMappings", "gidMappings"] {
            c["linux"].as_object_mut().unwrap().remove(field);
        }
        c["process"]["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [9]});
    });
    let text = site.ok(&["run", &site.id]);
    assert!(numbers(&text).starts_with(&[0, USER, 1, 1, RANGES[0].0]), "{text}");
    assert!(text.contains("uid=7 gid=8 groups=9"), "{text}");
    site.assert_gone();
    // And in another one within it, mapped without a helper.
    let site = by_user(shell("cat /proc/self/uid_map; id -u"), &[&IN_NAMESPACE[..], &NO_HELPERS].concat());
    let site = site.change(|c| map(c, &[(0, 0, 1), (1, 100, 50)]));
    assert_eq!(numbers(&site.ok(&["run", &site.id])), [0, 0, 1, 1, 100, 50, 0]);
    site.assert_gone();
    // Its state is where an ordinary user's is.
    let runtime = account().to_str().unwrap();
    let mut command = std::process::Command::new(&site.before[0]);
    let words = site.before[1..].iter().filter(|word| word.as_str() != runtime);
    let output = command.args(words).args([runtime, "list"]).env_remove("XDG_RUNTIME_DIR").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("XDG_RUNTIME_DIR isn't set"), "{output:?}");
}

/// As of containers of a pod: who joins a user namespace doesn't know its ids.
fn a_program_that_is_out_of_reach_is_not_warned_of() {
    let first = by_user(shell("exec sleep 100"), &[]);
    first.ok(&["run", "--detach", &first.id]);
    let user = format!("/proc/{}/ns/user", first.state()["pid"]);
    let joining = || {
        by_user(shell("true"), &[]).change(|c| {
            let namespaces = c["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "user");
            namespaces.push(json!({"type": "user", "path": user}));
            for field in ["uidMappings", "gidMappings"] {
                c["linux"].as_object_mut().unwrap().remove(field);
            }
        })
    };
    const WARNING: &str = "own program is on a writable mount";
    let (site, mut own) = (joining(), joining());
    let done = site.run(&["run", &site.id]);
    assert!(done.status == 0 && !done.stderr.contains(WARNING), "{done:?}");
    // Control: it is the user's, whom the namespace's root is.
    let program = own.directory.join("garboard-runtime");
    copy_program(&runtime(), &program);
    chown(&program, Some(USER), Some(USER)).unwrap();
    *own.before.last_mut().unwrap() = program.to_str().unwrap().to_owned();
    let done = own.run(&["run", &own.id]);
    assert!(done.status == 0 && done.stderr.contains(WARNING), "control: {done:?}");
    first.ok(&["delete", "--force", &first.id]);
}

fn a_mount_that_is_locked_keeps_what_it_denies() {
    let of = |option: &str| {
        let site = by_user(shell("cat /proc/self/mountinfo"), &IN_NAMESPACE);
        let source = site.directory.join("locked");
        fs::create_dir(&source).unwrap();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("tmpfs", &source, "tmpfs", flags, Some(c"mode=755")).unwrap();
        let site = site.change(|c| {
            c["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "user");
            for field in ["uidMappings", "gidMappings"] {
                c["linux"].as_object_mut().unwrap().remove(field);
            }
            let mount = json!({"destination": "/tmp", "source": source, "options": ["bind", option]});
            c["mounts"].as_array_mut().unwrap().push(mount);
        });
        let done = site.run(&["run", &site.id]);
        rustix::mount::unmount(&source, UnmountFlags::DETACH).unwrap();
        done
    };
    let done = of("ro");
    assert!(done.stdout.contains(" /tmp ro,nosuid,nodev,"), "{done:?}");
    let done = of("suid");
    assert!(done.status == 1 && done.stderr.contains("locked: operation not permitted (EPERM)"), "{done:?}");
}

fn what_isn_t_mapped_outside_is_refused() {
    let site = by_user(shell("true"), &IN_NAMESPACE).change(|c| map(c, &[(0, 4_000_000, 1)]));
    let error = site.fails(&["run", &site.id]);
    assert!(
        error.contains("write uid_map: operation not permitted (EPERM): the ids aren't this user's to map"),
        "{error}"
    );
    site.assert_gone();
}

fn root_can_be_said_to_be_an_ordinary_user() {
    let list = |rootless| {
        std::process::Command::new(runtime()).args([rootless, "list"]).env_remove("XDG_RUNTIME_DIR").output().unwrap()
    };
    let output = list("--rootless");
    assert!(String::from_utf8_lossy(&output.stderr).contains("XDG_RUNTIME_DIR isn't set"), "{output:?}");
    assert!(list("--rootless=false").status.success());
}
