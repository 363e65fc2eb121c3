//! What clients of runtimes rely on, as they have shown by what went wrong.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use libtest_mimic::Trial;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::{Value, json};

use crate::site::{Site, finish, program, shell};
use crate::trials;

pub fn tests() -> Vec<Trial> {
    trials![
        the_machine_s_null_device_stays_its_own,
        who_has_failed_to_start_has_ended_when_that_is_told,
        the_machine_s_settings_are_left_alone_by_whichever_path,
        what_was_never_started_can_be_deleted,
        a_name_is_as_long_as_can_be_removed,
        a_group_that_is_named_twice_is_there_once,
        a_mount_may_be_deep,
        warnings_are_in_the_log_alone,
        a_pid_file_that_can_t_be_written_leaves_nothing,
        nothing_of_the_machine_s_cgroups_can_be_written_to,
    ]
}

/// Streams are passed on by descriptor, and a descriptor leads to its node.
fn the_machine_s_null_device_stays_its_own() {
    let null = |name: &str, site: &Site| {
        let path = site.directory.join(name);
        mknodat(CWD, &path, FileType::CharacterDevice, Mode::RUSR, makedev(1, 3)).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        path
    };
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let site =
        shell("chmod 600 /proc/self/fd/0; chmod 600 /proc/self/fd/3; echo kept >/proc/self/fd/0 && echo written");
    let (stdin, preserved) = (null("stdin", &site), null("preserved", &site));
    let open = |path: &Path| File::options().read(true).write(true).open(path).unwrap();
    let (first, other) = (open(&stdin), open(&preserved));
    // As descriptor 3, by a shell: what is handed over on purpose is handed over as it is, which is the control.
    let mut command = site.command(&["run", "--preserve-fds", "1", &site.id]);
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let mut by_shell = std::process::Command::new("/bin/sh");
    by_shell
        .args(["-c", "exec \"$@\" 3<>\"$NULL\"", "sh"])
        .args(&words)
        .env("NULL", &preserved)
        .current_dir(&site.directory);
    command.stdin(std::process::Stdio::null());
    by_shell.stdin(first);
    let done = finish(by_shell);
    drop(other);
    assert_eq!((done.status, done.stdout.as_str()), (0, "written\n"), "{done:?}");
    assert_eq!((mode(&stdin), mode(&preserved)), (0o666, 0o600), "{done:?}");
}

/// Who is told deletes it at once.
fn who_has_failed_to_start_has_ended_when_that_is_told() {
    let script = crate::site::place().rootfs().join("no-interpreter");
    std::fs::write(&script, "#!/nowhere\n").unwrap();
    std::fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    for _ in 0..30 {
        let site = program(&["/no-interpreter"]);
        site.create(&[]);
        let pid = site.state()["pid"].as_i64().unwrap();
        site.fails(&["start", &site.id]);
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
        site.ok(&["delete", &site.id]);
    }
}

fn the_machine_s_settings_are_left_alone_by_whichever_path() {
    let with = |namespace: Value| {
        let site = shell("cat /proc/sys/net/ipv4/ip_default_ttl").change(|c| {
            let all = c["linux"]["namespaces"].as_array_mut().unwrap();
            all.retain(|one| one["type"] != "network");
            all.push(namespace);
            c["linux"]["sysctl"] = json!({"net.ipv4.ip_default_ttl": "77"});
        });
        site.run(&["run", &site.id])
    };
    let before = std::fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").unwrap();
    let done = with(json!({"type": "network", "path": "/proc/self/ns/net"}));
    assert!(done.status == 1 && done.stderr.contains("in a namespace of the machine"), "{done:?}");
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").unwrap(), before);
    // The control.
    assert_eq!(with(json!({"type": "network"})).stdout, "77\n");
}

fn what_was_never_started_can_be_deleted() {
    let site = shell("sleep 60");
    site.create(&[]);
    site.ok(&["delete", &site.id]);
    site.assert_gone();
    // The control: what runs can't.
    site.ok(&["run", "--detach", &site.id]);
    assert!(site.fails(&["delete", &site.id]).contains("that is not stopped: it is running"));
}

fn a_name_is_as_long_as_can_be_removed() {
    let mut site = shell("true");
    site.id = "x".repeat(254);
    site.ok(&["run", &site.id]);
    site.assert_gone();
    let longer = "x".repeat(255);
    assert!(site.fails(&["run", &longer]).contains("1 to 254"));
}

fn a_group_that_is_named_twice_is_there_once() {
    let site = shell("id -G").change(|c| c["process"]["user"]["additionalGids"] = json!([44, 55, 44]));
    assert_eq!(site.ok(&["run", &site.id]), "0 44 55\n");
}

fn a_mount_may_be_deep() {
    let deep: String = (0..60).map(|n| format!("/d{n}")).collect();
    let tmpfs = |path: &str| json!({"destination": path, "type": "tmpfs", "source": "tmpfs"});
    let site = shell(&format!("[ -d {deep} ] && echo there")).change(|c| {
        let mounts = c["mounts"].as_array_mut().unwrap();
        // The root is read-only.
        mounts.push(tmpfs("/tmp"));
        mounts.push(tmpfs(&format!("/tmp{deep}")));
        c["process"]["cwd"] = "/tmp".into();
        c["process"]["args"] = json!(["/bin/sh", "-c", format!("[ -d /tmp{deep} ] && echo there")]);
    });
    assert_eq!(site.ok(&["run", &site.id]), "there\n");
}

/// Standard error may be the container's own by then.
fn warnings_are_in_the_log_alone() {
    let ambient = |c: &mut Value| c["process"]["capabilities"]["ambient"] = json!(["CAP_KILL", "CAP_AUDIT_WRITE"]);
    let site = shell("echo program >&2").change(ambient);
    let done = site.run(&["--log", "log", "run", &site.id]);
    assert_eq!((done.status, done.stderr.as_str()), (0, "program\n"));
    let log = std::fs::read_to_string(site.directory.join("log")).unwrap();
    assert_eq!(log.matches("can't raise ambient capability").count(), 1, "one line of both: {log}");
    assert!(log.contains("CAP_AUDIT_WRITE") && log.contains("CAP_KILL"), "{log}");
    // The control: without a log they are there.
    assert!(site.run(&["run", &site.id]).stderr.contains("can't raise ambient capability"));
}

fn a_pid_file_that_can_t_be_written_leaves_nothing() {
    let site = shell("sleep 60");
    std::fs::create_dir_all(site.directory.join("pid/occupied")).unwrap();
    site.fails(&["run", "--detach", "--pid-file", "pid", &site.id]);
    assert!(!site.directory.join("pid.new").exists());
}

/// What `spec --rootless` writes shows the machine's `/sys`, and beneath it what may be the user's own.
fn nothing_of_the_machine_s_cgroups_can_be_written_to() {
    let site = shell(
        "while read -r _ path kind options _; do case $path in /sys/fs/cgroup*) echo $kind ${options%%,*};; esac; done </proc/self/mounts",
    );
    let rootless = site.directory.join("rootless.json");
    site.ok(&["spec", "--rootless", "--file", rootless.to_str().unwrap()]);
    let written: Value = serde_json::from_slice(&std::fs::read(&rootless).unwrap()).unwrap();
    let site = site.change(|c| {
        let (process, root) = (c["process"].take(), c["root"].take());
        *c = written;
        (c["process"], c["root"]) = (process, root);
        // This is root; an ordinary user's ids are the same to it.
        c["linux"].as_object_mut().unwrap().remove("uidMappings");
        c["linux"].as_object_mut().unwrap().remove("gidMappings");
        c["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "user");
    });
    let text = site.ok(&["run", &site.id]);
    assert!(!text.is_empty() && text.lines().all(|line| line.ends_with(" ro")), "{text}");
}
