//! What a container finds inside.

use libtest_mimic::Trial;

use super::{IMAGE, Podman};
use crate::site::USER;
use crate::trials_of;

pub fn for_everybody(podman: &'static Podman) -> Vec<Trial> {
    trials_of![podman;
        options_of_run_arrive,
        volumes_and_directories_are_mounted,
        a_read_only_container_has_its_temporary_files,
        secrets_arrive,
        a_container_is_confined,
        a_privileged_container_is_not,
    ]
}

pub fn with_ids(podman: &'static Podman) -> Vec<Trial> {
    trials_of![podman; users_and_groups_are_as_asked_for, ids_are_allotted]
}

pub fn for_root(podman: &'static Podman) -> Vec<Trial> {
    trials_of![podman; devices_are_given]
}

pub fn without_root(podman: &'static Podman) -> Vec<Trial> {
    trials_of![podman; an_id_is_kept]
}

fn options_of_run_arrive(podman: &'static Podman) {
    let options = [
        "--hostname=named",
        "--workdir=/data",
        "--env=A=b c",
        "--ulimit=nofile=99:100",
        "--ulimit=nproc=1000:1000",
        "--umask=0027",
        "--sysctl=kernel.shm_rmid_forced=1",
        "--shm-size=1m",
        "--oom-score-adj=500",
        "--ipc=private",
        "--entrypoint=[\"/bin/env\", \"X=y\"]",
    ];
    let script = "hostname; pwd; echo $A; echo $X; ulimit -n; umask; cat /proc/sys/kernel/shm_rmid_forced; \
                  df -k /dev/shm | awk 'NR == 2 {print $2}'; cat /proc/self/oom_score_adj";
    let found = podman.shell(&options, script);
    assert_eq!(found.lines().collect::<Vec<_>>(), ["named", "/data", "b c", "y", "99", "0027", "1", "1024", "500"]);
}

fn volumes_and_directories_are_mounted(podman: &'static Podman) {
    let volume = podman.fresh();
    let named = format!("{volume}:/data");
    // A new volume gets what the image has there.
    assert_eq!(podman.shell(&["--volume", &named], "cat /data/of-the-image; echo kept > /data/file"), "image");
    assert_eq!(podman.shell(&["--volume", &named], "cat /data/file"), "kept");
    podman.ok(&["volume", "rm", &volume]);
    let directory = podman.directory().join(&volume);
    std::fs::create_dir(&directory).unwrap();
    std::os::unix::fs::chown(&directory, Some(owner(podman)), None).unwrap();
    let bound = format!("{}:/mnt/deep", directory.display());
    podman.shell(&["--volume", &bound], "echo written > /mnt/deep/file");
    assert_eq!(std::fs::read_to_string(directory.join("file")).unwrap(), "written\n");
    let read_only = format!("type=bind,source={},destination=/mnt,readonly", directory.display());
    let tmpfs = "type=tmpfs,destination=/scratch,tmpfs-size=65536";
    let script =
        "cat /mnt/file; ! touch /mnt/file 2>/dev/null; ! dd if=/dev/zero of=/scratch/x bs=128k count=1 2>/dev/null";
    assert_eq!(podman.shell(&["--mount", &read_only, "--mount", tmpfs], script), "written");
}

/// Whom root of the container is outside.
fn owner(podman: &Podman) -> u32 {
    match podman.name() {
        "root" => 0,
        "ranges" => USER,
        _ => rustix::process::geteuid().as_raw(),
    }
}

fn a_read_only_container_has_its_temporary_files(podman: &'static Podman) {
    let script = "! touch /file 2>/dev/null; echo a > /tmp/file; echo b > /run/file; echo c > /dev/shm/file; cat /tmp/file /run/file";
    assert_eq!(podman.shell(&["--read-only"], script), "a\nb");
}

fn secrets_arrive(podman: &'static Podman) {
    let name = podman.fresh();
    let file = podman.directory().join(&name);
    std::fs::write(&file, "hush").unwrap();
    podman.ok(&["secret", "create", &name, file.to_str().unwrap()]);
    let script = format!("cat /run/secrets/{name}; stat -c %a /run/secrets/{name}");
    assert_eq!(podman.shell(&["--secret", &name], &script), "hush444");
    let variable = format!("{name},type=env,target=SECRET");
    assert_eq!(podman.shell(&["--secret", &variable], "echo $SECRET"), "hush");
    podman.ok(&["secret", "rm", &name]);
}

fn a_container_is_confined(podman: &'static Podman) {
    let status = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'";
    let found = podman.shell(&["--cap-drop=all", "--cap-add=chown", "--security-opt=no-new-privileges"], status);
    assert_eq!(found, "CapEff:0000000000000001\nCapBnd:0000000000000001\nNoNewPrivs:1\nSeccomp:2");
    // What the profile of Debian's Podman refuses although the capability is there.
    let script =
        "! unshare -m true 2>/dev/null; test ! -s /proc/keys; ! touch /proc/sys/kernel/x 2>/dev/null; echo held";
    assert_eq!(podman.shell(&[], script), "held");
}

fn a_privileged_container_is_not(podman: &'static Podman) {
    let script = "grep Seccomp: /proc/self/status | tr -d '\\t'; mount -t tmpfs tmpfs /mnt && echo mounted; test -e /dev/ptmx && echo there";
    assert_eq!(podman.shell(&["--privileged"], script), "Seccomp:0\nmounted\nthere");
}

fn users_and_groups_are_as_asked_for(podman: &'static Podman) {
    let script = "id -u; id -g; id -G";
    assert_eq!(podman.shell(&["--user=1000:1001", "--group-add=1002"], script), "1000\n1001\n1001 1002");
    let container = podman.start(&["--user=1000"], "exec sleep 1000");
    assert_eq!(container.exec(&[], &["id", "-u"]), "1000");
    assert_eq!(container.exec(&["--user=7:8"], &["sh", "-c", "id -u; id -g"]), "7\n8");
    let name = podman.fresh();
    let named = format!("{name}:/data");
    assert_eq!(podman.shell(&["--volume", &named], "chown 5:6 /data; stat -c %u:%g /data"), "5:6");
    podman.ok(&["volume", "rm", &name]);
}

fn ids_are_allotted(podman: &'static Podman) {
    let map = podman.shell(&["--userns=auto:size=2000"], "cat /proc/self/uid_map; id -u");
    let words: Vec<&str> = map.split_whitespace().collect();
    assert!(words[0] == "0" && words[1] != "0" && words[2] == "2000" && words[3] == "0", "{map}");
}

fn devices_are_given(podman: &'static Podman) {
    let found =
        podman.shell(&["--device=/dev/zero:/dev/mine:r"], "head -c 3 /dev/mine | wc -c; stat -c %t:%T /dev/mine");
    assert_eq!(found, "3\n1:5");
    // Not without being asked, whatever node is made.
    let done =
        podman.run(&["run", "--rm", "--network=none", IMAGE, "sh", "-c", "mknod /tmp/tun c 10 200; cat /tmp/tun"]);
    assert!(done.status != 0 && done.stderr.contains("not permitted"), "{done:?}");
}

fn an_id_is_kept(podman: &'static Podman) {
    let found = podman.shell(&["--userns=keep-id"], "id -u; stat -L -c %u /proc/self");
    assert_eq!(found, format!("{USER}\n{USER}"));
}
