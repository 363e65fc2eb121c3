//! What `garboard build` leaves behind, judged by the distribution's own tools and not by our code.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use support::{Project, command, copy_tree, fixtures, flip_bit, judge, text, tool};

/// The size that PID 1 may have, stripped, in bytes.
const INIT_LIMIT: u64 = 4 << 20;

/// One appliance from the nginx and redis images with a volume, baked once for all tests here.
fn baked() -> &'static Path {
    static BAKED: OnceLock<(Project, PathBuf)> = OnceLock::new();
    &BAKED
        .get_or_init(|| {
            let project = project().shared();
            let out = project.build();
            (project, out)
        })
        .1
}

/// The declaration with the images beside it, so that it says the same in any directory.
fn project() -> Project {
    let project = Project::new(
        r#"
        name = "artifacts"
        [volumes.keep]
        [containers.web]
        image = "oci:nginx"
        network_mode = "host"
        ports = ["80:80"]
        [containers.store]
        image = "oci-archive:redis.oci.tar"
        volumes = ["keep:/data"]
        "#,
    );
    for name in ["nginx", "redis.oci.tar"] {
        copy_tree(&fixtures().join(name), &project.path(name));
    }
    project
}

fn image_json(out: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(out.join("image.json")).unwrap()).unwrap()
}

/// `/init` out of the initrd, by the distribution's cpio.
fn init_program(directory: &Path) -> PathBuf {
    let initrd = baked().join("initrd");
    let compressed = fs::read(&initrd).unwrap().starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let reader = if compressed { "zstd --decompress --stdout" } else { "cat" };
    let script = format!("{reader} \"$1\" | cpio --quiet --extract --make-directories --no-absolute-filenames");
    let output = Command::new("sh")
        .args(["-c", &script, "sh"])
        .arg(&initrd)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    directory.join("init")
}

#[test]
fn init_is_static_stripped_and_small() {
    let directory = tempfile::tempdir().unwrap();
    let init = init_program(directory.path());
    let segments = judge("readelf", ["-lW", init.to_str().unwrap()]);
    assert!(segments.contains("LOAD"), "{segments}");
    assert!(!segments.contains("INTERP"), "/init asks for a dynamic loader: {segments}");
    assert!(!segments.contains("DYNAMIC"), "/init needs relocation: {segments}");
    let sections = judge("readelf", ["-SW", init.to_str().unwrap()]);
    assert!(!sections.contains(".symtab"), "/init is not stripped");
    let size = fs::metadata(&init).unwrap().len();
    println!("/init: {size} bytes");
    assert!(size <= INIT_LIMIT, "/init has {size} bytes");
}

#[test]
fn initrd_starts_with_an_executable_init() {
    let directory = tempfile::tempdir().unwrap();
    let init = init_program(directory.path());
    assert_eq!(fs::metadata(init).unwrap().permissions().mode() & 0o111, 0o111);
}

#[test]
fn system_image_is_an_erofs_that_fsck_accepts() {
    judge("fsck.erofs", [baked().join("system.erofs")]);
}

#[test]
fn veritysetup_accepts_the_system_image_and_refuses_a_flipped_bit() {
    let json = image_json(baked());
    let root_hash = json["root_hash"].as_str().unwrap();
    let system = baked().join("system.erofs");
    // The superblock's block count, 32 bits at offset 36 of it, is where the hash tree begins.
    let bytes = fs::read(&system).unwrap();
    let blocks = u32::from_le_bytes(bytes[1024 + 36..1024 + 40].try_into().unwrap());
    let verify = |path: &Path| {
        command("veritysetup")
            .arg("verify")
            .args([path, path])
            .args([root_hash, &format!("--hash-offset={}", u64::from(blocks) * 4096)])
            .output()
            .unwrap()
    };
    let accepted = verify(&system);
    assert!(accepted.status.success(), "{}", text(&accepted.stderr));

    let directory = tempfile::tempdir().unwrap();
    let altered = directory.path().join("system.erofs");
    fs::write(&altered, &bytes).unwrap();
    flip_bit(&altered, blocks as usize * 4096 / 2);
    assert!(!verify(&altered).status.success(), "veritysetup accepts an altered image");
}

#[test]
fn kernel_command_line_names_the_root_hash() {
    let json = image_json(baked());
    let cmdline = json["cmdline"].as_str().unwrap();
    let wanted = format!("roothash={}", json["root_hash"].as_str().unwrap());
    assert!(cmdline.split(' ').any(|word| word == wanted), "{cmdline}");
}

#[test]
fn data_filesystem_is_clean() {
    judge("e2fsck", ["-f", "-n", baked().join("data.ext4").to_str().unwrap()]);
}

#[test]
fn disk_has_a_sound_partition_table_with_room_for_two_systems() {
    let disk = baked().join("disk.raw");
    let verdict = judge("sgdisk", ["--verify", disk.to_str().unwrap()]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let table = judge("sgdisk", ["--print", disk.to_str().unwrap()]);
    let partitions = table.lines().filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit())).count();
    assert_eq!(partitions, 6, "ESP, two systems with their hash trees, data: {table}");
}

/// The builder gives the same bytes to root and to a user without any privilege, in another place, at another time of the
/// day, with another umask and locale. That it works for the latter is also the proof that it needs neither root nor loop
/// devices.
#[test]
fn the_same_input_gives_the_same_bytes_to_any_user() {
    let other = project();
    let home = tempfile::tempdir_in("/tmp").unwrap();
    // What the first build fetched, so that this one does not need the network again.
    baked();
    fs::create_dir_all(home.path().join("cache/garboard")).unwrap();
    copy_tree(&support::cache().join("garboard/kernels"), &home.path().join("cache/garboard/kernels"));
    let program = home.path().join("garboard");
    fs::copy(tool(), &program).unwrap();

    let is_root = user_id() == 0;
    let mut build = if is_root {
        judge("chown", ["-R", "54321:54321", home.path().to_str().unwrap(), other.path("").to_str().unwrap()]);
        let mut setpriv = command("setpriv");
        setpriv.args(["--reuid=54321", "--regid=54321", "--clear-groups", "--bounding-set=-all", "--no-new-privs"]);
        setpriv.args(["sh", "-c", "umask 077; exec \"$@\"", "sh"]).arg(&program);
        setpriv
    } else {
        Command::new(&program)
    };
    let output = build
        .args(["build", "-o", "out"])
        .current_dir(other.path(""))
        .env("HOME", home.path())
        .env("XDG_CACHE_HOME", home.path().join("cache"))
        .env("TZ", "Pacific/Kiritimati")
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (ours, theirs) = (hashes(baked()), hashes(&other.path("out")));
    assert_eq!(ours, theirs);
    assert!(ours.len() >= 6, "{ours:?}");
}

/// The user id of this process, from /proc: what the test is about needs no further crate.
fn user_id() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// SHA-256 of every file of a build.
fn hashes(out: &Path) -> BTreeMap<String, String> {
    fs::read_dir(out)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let sum = judge("sha256sum", [&path]);
            (path.file_name().unwrap().to_string_lossy().into_owned(), sum.split(' ').next().unwrap().to_owned())
        })
        .collect()
}
