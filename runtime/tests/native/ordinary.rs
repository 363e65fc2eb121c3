//! The same runtime for an ordinary user: one id mapped to the user's own, no cgroup.

use garboard_runtime::launch::{EndLinks, IdMap, IdMapping, IdRange, Mount, MountFlags, MountSource};
use libtest_mimic::Trial;

use crate::site::{Container, fields, program, scratch, shell};

pub fn tests() -> Vec<Trial> {
    trials![
        a_container_runs_with_the_user_s_one_id,
        isolation_is_the_same,
        errors_say_what_an_ordinary_user_lacks,
        mapped_mounts_are_refused,
        a_shortage_is_temporary,
        nothing_is_left_behind,
    ]
}

/// Root of the container is the user.
fn own(container: Container) -> Container {
    let map = |id: u32| vec![IdRange { inside: 0, outside: id, size: 1 }];
    let ids = IdMap { uids: map(rustix::process::geteuid().as_raw()), gids: map(rustix::process::getegid().as_raw()) };
    container.options(move |o| o.ids = Some(ids))
}

fn a_container_runs_with_the_user_s_one_id() {
    let text =
        own(shell("id -u; cat /proc/self/uid_map; cat /etc/passwd | head -n 1; echo written > /file && cat /file"))
            .output();
    let id = rustix::process::geteuid().as_raw().to_string();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words[..4], ["0", "0", &id, "1"], "{text}");
    assert!(text.ends_with("root:x:0:0::/root:/bin/sh\nwritten\n"), "{text}");
    assert!(!scratch("base").join("file").exists());
}

fn isolation_is_the_same() {
    let text = own(shell("echo pid: $$; ls -id / /..; cat /proc/self/status; cat /proc/self/mountinfo; echo 1 > /proc/sys/net/ipv4/ip_forward"))
        .run()
        .unwrap()
        .output;
    let status = fields(&text);
    assert_eq!((status["pid"].as_str(), status["NoNewPrivs"].as_str(), status["Seccomp"].as_str()), ("1", "1", "2"));
    assert!(!text.contains("ext4") && text.contains("Read-only file system"), "{text}");
}

fn errors_say_what_an_ordinary_user_lacks() {
    let text = shell("true").refusal();
    assert!(
        text.contains("map ids by newuidmap: ")
            && text.contains("operation not permitted (EPERM): the ids aren't this user's"),
        "{text}"
    );
    let text = own(program(&["/bin/absent"])).refusal();
    assert!(text.contains("exec /bin/absent: no such file or directory (ENOENT)"), "{text}");
    let error = own(shell("true")).options(|o| o.user = Some("web".to_owned())).decide().unwrap_err().to_string();
    assert!(error.contains("the program's user id is 33") && error.contains("the ids 0 to 0 only"), "{error}");
    // The kernel says so, too.
    let text = own(shell("true")).change(|launch| launch.process.uid = 33).refusal();
    assert!(
        text.contains("set uid to 33: invalid argument (EINVAL): the id isn't in the container's id map"),
        "{text}"
    );
}

fn mapped_mounts_are_refused() {
    let mapped = |idmap: IdMapping| {
        own(shell("true")).change(move |launch| {
            let source = MountSource::Bind {
                path: "/etc".to_owned(),
                recursive: false,
                idmap: idmap.clone(),
                links: EndLinks::Followed,
                create: None,
            };
            launch.mounts.push(Mount { target: "/tmp".to_owned(), source, flags: MountFlags::default() });
        })
    };
    let text = mapped(IdMapping::Container { recursive: false }).refusal();
    assert!(
        text.contains(
            "clone mount of /etc: operation not permitted (EPERM): this needs CAP_SYS_ADMIN: an ordinary user can't map"
        ),
        "{text}"
    );
    // Control: as it is.
    mapped(IdMapping::None).output();
}

fn nothing_is_left_behind() {
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    for _ in 0..10 {
        own(shell("true")).output();
        own(program(&["/bin/absent"])).refusal();
    }
    assert_eq!(descriptors(), before);
    assert_eq!(std::fs::read_to_string("/proc/thread-self/children").unwrap(), "");
}

fn a_shortage_is_temporary() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nproc);
    setrlimit(Resource::Nproc, Rlimit { current: Some(1), maximum: before.maximum }).unwrap();
    let failure = own(shell("true")).run().unwrap_err();
    setrlimit(Resource::Nproc, before).unwrap();
    assert!(failure.is_temporary() && failure.to_string().contains("RLIMIT_NPROC"), "{failure}");
    own(shell("true")).output();
}
