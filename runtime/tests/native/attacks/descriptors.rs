//! R1, R2: what the launcher leaves within reach: its program, its descriptors, its keys.

use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use libtest_mimic::Trial;
use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;

use super::as_machine_root;
use crate::site::{copy_self, probe, scratch, shell};
use crate::{launcher, sys};

pub fn tests() -> Vec<Trial> {
    trials![
        r1_the_launcher_s_program_cannot_be_overwritten,
        r2_only_the_three_streams_are_open,
        r2_the_working_directory_is_inside,
        r2_the_launcher_s_keys_stay_with_it,
    ]
}

fn r1_the_launcher_s_program_cannot_be_overwritten() {
    let image = scratch("r1-image");
    let base = scratch("base");
    for entry in std::fs::read_dir(&base).unwrap() {
        let entry = entry.unwrap();
        let copied = std::process::Command::new("cp").arg("-a").arg(entry.path()).arg(&image).status().unwrap();
        assert!(copied.success());
    }
    let trap = image.join(launcher::TRAP.trim_start_matches('/'));
    std::fs::write(&trap, "#!/proc/self/exe\n").unwrap();
    std::fs::set_permissions(&trap, PermissionsExt::from_mode(0o755)).unwrap();
    let copy = scratch("r1").join("launcher");
    copy_self(&copy);

    let (changed, log) = launcher::attack(&copy, &image, "user");
    assert!(
        !changed && log.contains("Permission denied") && log.contains("degraded: []"),
        "the attack must have been tried: {log}"
    );

    // What a container without a user namespace needs: a launcher on a read-only mount.
    let mount = scratch("r1-readonly");
    rustix::mount::mount_bind(scratch("r1"), &mount).unwrap();
    let flags = rustix::mount::MountFlags::BIND | rustix::mount::MountFlags::RDONLY;
    rustix::mount::mount_remount(&mount, flags, c"").unwrap();
    let (changed, log) = launcher::attack(&mount.join("launcher"), &image, "host");
    assert!(!changed && log.contains("Read-only file system") && log.contains("degraded: []"), "{log}");
    rustix::mount::unmount(&mount, UnmountFlags::empty()).unwrap();

    let (changed, log) = launcher::attack(&copy, &image, "host");
    assert!(changed, "control: root of the machine can overwrite it: {log}");
    assert!(log.contains("own program is on a writable mount"), "and the launcher said so: {log}");
}

fn r2_only_the_three_streams_are_open() {
    // A descriptor of the machine that isn't close-on-exec, as a careless caller has it.
    let leak = rustix::fs::open("/", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let script = "for fd in /proc/self/fd/*; do echo ${fd##*/}; done";
    let list = |text: &str| -> Vec<i32> { text.split_whitespace().filter_map(|word| word.parse().ok()).collect() };
    // The shell opens the directory to expand the pattern, and has closed it by the time it prints; its number may be listed.
    let inside = list(&shell(script).output());
    assert!(inside.iter().all(|fd| *fd <= 3), "{inside:?}");
    let held = shell(&format!("ls /proc/self/fd/{}/etc", leak.as_raw_fd())).run().unwrap();
    assert_ne!(held.status, 0, "{held:?}");

    let outside = std::process::Command::new("/bin/busybox").args(["sh", "-c", script]).output().unwrap();
    let outside = list(&String::from_utf8_lossy(&outside.stdout));
    assert!(outside.contains(&leak.as_raw_fd()), "control: an ordinary exec leaks it: {outside:?}");
}

fn r2_the_working_directory_is_inside() {
    let leak = rustix::fs::open("/", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    for number in [leak.as_raw_fd(), 3, 7, 9] {
        let container = shell("pwd; ls -id . ..").options(|o| o.working_dir = Some(format!("/proc/self/fd/{number}")));
        let text = container.refusal();
        assert!(text.contains("enter working directory"), "{number}: {text}");
    }
    let by_name = std::fs::metadata(format!("/proc/self/fd/{}/.", leak.as_raw_fd())).unwrap();
    assert_eq!(by_name.ino(), std::fs::metadata("/").unwrap().ino(), "control: by name it leads to the machine's root");
}

fn r2_the_launcher_s_keys_stay_with_it() {
    const KEY: &std::ffi::CStr = c"garboard-test";
    const ENOKEY: i32 = 126;
    sys::add_session_key(KEY).unwrap();
    let search = ["key", KEY.to_str().unwrap()];
    // Even with the filter off, which denies all of it.
    let inside = as_machine_root(probe(&search)).run().unwrap().status;
    let itself = std::process::Command::new(std::env::current_exe().unwrap()).arg("probe").args(search).status();
    assert_eq!(inside, ENOKEY);
    assert_eq!(itself.unwrap().code(), Some(0), "control: an ordinary child finds the launcher's key");
}
