//! Where the clients work: namespaces of their own, an account, and an image of busybox.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::fs::{Dev, FileType, Mode};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use crate::command::finish;

/// The account of Podman without root. Nobody's on any machine, and only in these tests' own view of /etc.
pub const USER: u32 = 54_322;
/// Its further ids, and those that root's Podman gives to containers.
pub const RANGES: &str = "clients:1000000:65536\ncontainers:2000000:1048576\n";
pub const CGROUPS: &str = "/sys/fs/cgroup";

pub struct Site {
    scratch: tempfile::TempDir,
    /// Cgroups have controllers here.
    pub machine: bool,
}

static SITE: OnceLock<Site> = OnceLock::new();

/// The program under test: a copy that any user can reach, or the one that was built.
pub fn runtime() -> PathBuf {
    std::env::var_os("GARBOARD_RUNTIME").unwrap_or_else(|| env!("CARGO_BIN_EXE_garboard-runtime").into()).into()
}

pub fn site() -> &'static Site {
    SITE.get().expect("entered by main")
}

/// Enters the namespaces (as root) and makes the image.
pub fn enter(machine: bool) -> &'static Site {
    let scratch = tempfile::tempdir().expect("scratch directory");
    std::fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o755)).unwrap();
    if rustix::process::geteuid().is_root() {
        // What the clients would leave in the machine's /run, network and locks is gone with these.
        crate::sys::unshare();
        let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", flags).expect("private mounts");
        for directory in ["/run", "/dev/shm"] {
            std::fs::create_dir_all(directory).unwrap();
            mount("tmpfs", directory);
        }
        if !machine {
            mount("cgroup2", CGROUPS);
        }
        must_run("ip", &["link", "set", "lo", "up"]);
        add_account(scratch.path());
        if !machine {
            open_tun(scratch.path());
        }
    }
    let site = Site { scratch, machine };
    make_image(&site.scratch.path().join("box"), &site.image());
    SITE.set(site).ok().expect("entered once");
    self::site()
}

pub fn mount(kind: &str, target: &str) {
    rustix::mount::mount(kind, target, kind, MountFlags::empty(), None).unwrap_or_else(|e| panic!("{target}: {e}"));
}

/// An account with ids for containers, in these mounts only.
fn add_account(scratch: &Path) {
    let add = |file: &str, lines: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let own = scratch.join(Path::new(file).file_name().unwrap());
        std::fs::write(&own, format!("{}\n{lines}", text.trim_end())).unwrap();
        std::fs::set_permissions(&own, PermissionsExt::from_mode(0o644)).unwrap();
        bind(&own, file);
    };
    add("/etc/passwd", &format!("clients:x:{USER}:{USER}::/:/bin/sh\n"));
    add("/etc/group", &format!("clients:x:{USER}:\n"));
    for file in ["/etc/subuid", "/etc/subgid"] {
        std::fs::write(scratch.join("ranges"), RANGES).unwrap();
        bind(&scratch.join("ranges"), file);
    }
}

/// What udev does on any Debian: every user may open /dev/net/tun. A build machine may have no udev.
fn open_tun(scratch: &Path) {
    let node = scratch.join("tun");
    let number: Dev = rustix::fs::makedev(10, 200);
    rustix::fs::mknodat(rustix::fs::CWD, &node, FileType::CharacterDevice, Mode::empty(), number).unwrap();
    std::fs::set_permissions(&node, PermissionsExt::from_mode(0o666)).unwrap();
    bind(&node, "/dev/net/tun");
}

fn bind(source: &Path, target: &str) {
    rustix::mount::mount_bind(source, target).unwrap_or_else(|e| panic!("bind on {target}: {e}"));
}

/// A root directory with every applet of busybox, as a tar archive.
fn make_image(root: &Path, archive: &Path) {
    for directory in ["bin", "etc", "tmp", "proc", "sys", "dev", "run", "data", "mnt"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for applet in must_run("/bin/busybox", &["--list"]).lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(root.join("data/of-the-image"), "image\n").unwrap();
    let [root, archive] = [root, archive].map(|path| path.to_str().unwrap());
    must_run("tar", &["-C", root, "--owner=0", "--group=0", "--numeric-owner", "-cf", archive, "."]);
}

fn must_run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    let done = finish(command, "");
    assert_eq!(done.status, 0, "{program} {arguments:?}: {done:?}");
    done.stdout
}

impl Site {
    pub fn leave(&self) {
        let path = self.scratch.path();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let beneath =
            mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|at| Path::new(at).starts_with(path));
        for mount in beneath.collect::<Vec<_>>().into_iter().rev() {
            rustix::mount::unmount(mount, UnmountFlags::DETACH).unwrap_or_else(|e| panic!("unmount {mount}: {e}"));
        }
        std::fs::remove_dir_all(path).unwrap_or_else(|e| panic!("remove {}: {e}", path.display()));
    }

    /// A directory for this client.
    pub fn directory(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The image as a tar archive of its root directory.
    pub fn image(&self) -> PathBuf {
        self.directory("image.tar")
    }
}
