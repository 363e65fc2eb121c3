//! How long `garboard-runtime run` and `exec` take, against crun with the same config.json.
//!
//! `sudo cargo bench -p garboard-runtime --bench oci [ROUNDS]`; `GARBOARD_RUNTIME` names another build of the program, such as a static one.
//! The program in the container is busybox's `true`. Runs alternate, so that they share the machine's moods.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const CGROUPS: &str = "/sys/fs/cgroup";
/// Below it both keep their state: on a tmpfs, as /run is elsewhere.
const STATE: &str = "/dev/shm";

fn main() {
    let rounds = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(100);
    if std::env::var_os("IN_OWN_MOUNTS").is_none() {
        // A mount namespace for the cgroup mount that both expect.
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().expect("own path"));
        let status = unshare.arg(rounds.to_string()).env("IN_OWN_MOUNTS", "1").status().expect("run unshare");
        std::process::exit(status.code().unwrap_or(1));
    }
    rustix::mount::mount("cgroup2", CGROUPS, "cgroup2", rustix::mount::MountFlags::empty(), None)
        .expect("mount cgroup2 as root");
    let bundle = tempfile::tempdir().expect("scratch directory");
    std::fs::set_permissions(bundle.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("permissions");
    let state = tempfile::tempdir_in(STATE).expect("state directory");
    for directory in ["bin", "proc", "sys", "dev"] {
        std::fs::create_dir_all(bundle.path().join("rootfs").join(directory)).expect("rootfs");
    }
    for applet in ["true", "sleep"] {
        std::fs::copy("/bin/busybox", bundle.path().join("rootfs/bin").join(applet))
            .expect("busybox-static is installed");
    }
    let own = std::env::var("GARBOARD_RUNTIME").unwrap_or_else(|_| env!("CARGO_BIN_EXE_garboard-runtime").to_owned());
    let runtimes =
        [own.as_str(), "crun"].map(|program| Runtime { program, bundle: bundle.path(), state: state.path() });
    println!("median and least of {rounds} rounds, milliseconds");
    for user_namespace in [false, true] {
        let what = if user_namespace { "user namespace" } else { "no user namespace" };
        write_config(&runtimes[0], user_namespace, &["/bin/true"]);
        print(&format!("run, {what}"), rounds, &runtimes, |runtime| runtime.call(&["run", "bench"]));
        write_config(&runtimes[0], user_namespace, &["/bin/sleep", "100000"]);
        runtimes.iter().for_each(|runtime| runtime.call(&["run", "--detach", runtime.name()]));
        print(&format!("exec, {what}"), rounds, &runtimes, |runtime| {
            runtime.call(&["exec", runtime.name(), "/bin/true"])
        });
        runtimes.iter().for_each(|runtime| runtime.call(&["delete", "--force", runtime.name()]));
    }
}

/// One of the two.
struct Runtime<'a> {
    program: &'a str,
    bundle: &'a Path,
    state: &'a Path,
}

impl Runtime<'_> {
    fn name(&self) -> &str {
        if self.program == "crun" { "bench-crun" } else { "bench-garboard" }
    }

    fn call(&self, arguments: &[&str]) {
        let mut command = Command::new(self.program);
        command.arg("--root").arg(self.state.join(self.name())).args(arguments).current_dir(self.bundle);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.is_ok_and(|status| status.success()), "{} {arguments:?}", self.program);
    }
}

/// What `spec` writes, without what not every machine's crun can do.
fn write_config(runtime: &Runtime<'_>, user_namespace: bool, arguments: &[&str]) {
    let path = runtime.bundle.join("config.json");
    let _ = std::fs::remove_file(&path);
    runtime.call(&["spec"]);
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).expect("config.json")).expect("JSON");
    config["ociVersion"] = "1.0.2".into();
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = json!(arguments);
    config["process"]["rlimits"] = json!([]);
    config["linux"].as_object_mut().expect("linux").remove("resources");
    if user_namespace {
        config["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "user"}));
        for side in ["uidMappings", "gidMappings"] {
            config["linux"][side] = json!([{"containerID": 0, "hostID": 1_000_000, "size": 65536}]);
        }
    }
    std::fs::write(path, config.to_string()).expect("config.json");
}

fn print(what: &str, rounds: usize, runtimes: &[Runtime<'_>; 2], call: impl Fn(&Runtime<'_>)) {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (runtime, times) in runtimes.iter().zip(&mut times) {
            let begin = Instant::now();
            call(runtime);
            times.push(begin.elapsed());
        }
    }
    times.iter_mut().for_each(|times| times.sort());
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let [(own, own_least), (crun, crun_least)] = times.map(|t| (milliseconds(t[t.len() / 2]), milliseconds(t[0])));
    println!(
        "{what:<24} garboard {own:6.2} ({own_least:.2})   crun {crun:6.2} ({crun_least:.2})   ratio {:.2} ({:.2})",
        own / crun,
        own_least / crun_least
    );
}
