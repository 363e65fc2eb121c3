//! Whole builds of the demo appliance with the distribution's kernel.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use support::{GARBOARD, Project, text};

/// Everything that a build with a disk makes.
const FILES: [&str; 6] = ["data.ext4", "disk.raw", "image.json", "initrd", "system.erofs", "vmlinuz"];
/// The user and group that own nothing.
const NOBODY: &str = "65534";

fn built(arguments: &[&str]) -> Project {
    let project = Project::demo();
    succeeds(&project.garboard(arguments));
    project
}

fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_same_input_gives_the_same_bytes_wherever_it_is_built() {
    let (one, two) = (built(&["build"]), built(&["build"]));
    let (one, two) = (one.files("out"), two.files("out"));
    let names: Vec<_> = one.keys().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(names, FILES);
    for name in FILES {
        assert!(one[Path::new(name)] == two[Path::new(name)], "{name} differs between two builds");
    }
}

#[test]
fn another_declaration_gives_another_root_hash() {
    let project = built(&["build", "--no-disk"]);
    let root_hash = || {
        let manifest: serde_json::Value =
            serde_json::from_slice(&fs::read(project.path("out/image.json")).unwrap()).unwrap();
        manifest["root_hash"].as_str().unwrap().to_owned()
    };
    let first = root_hash();
    project.replace("cpus = 0.5", "cpus = 0.25");
    succeeds(&project.garboard(&["build", "--no-disk"]));
    assert_ne!(first, root_hash());
}

#[test]
fn no_disk_leaves_the_disk_out_and_removes_an_old_one() {
    let project = built(&["build"]);
    assert!(project.path("out/disk.raw").exists());
    succeeds(&project.garboard(&["build", "--no-disk"]));
    assert!(!project.path("out/disk.raw").exists());
    let leftovers: Vec<_> = project.files("out").into_keys().collect();
    assert_eq!(leftovers.len(), FILES.len() - 1, "{leftovers:?}");
}

#[test]
fn a_failed_build_leaves_the_last_one() {
    let project = built(&["build", "--no-disk"]);
    let before = project.files("out");
    project.refused(&["build", "--no-disk", "--kernel", "none"], &["none"]);
    // A layer that turns out wrong when half of the work is done.
    let blobs = project.path("images/demo/blobs/sha256");
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    let layer = fs::read_dir(blobs).unwrap().map(|e| e.unwrap().path()).max_by_key(|path| size(path)).unwrap();
    let mut bytes = fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(layer, bytes).unwrap();
    project.refused(&["build", "--no-disk"], &["sha256:", "images/demo"]);
    assert!(before == project.files("out"), "a failed build changed its output directory");
}

#[test]
fn a_missing_module_is_named() {
    let project = built(&["build", "--no-disk"]);
    fs::create_dir(project.path("modules")).unwrap();
    fs::write(project.path("modules/modules.builtin"), "kernel/fs/ext4/ext4.ko\n").unwrap();
    let kernel = ["build", "--kernel", "out/vmlinuz", "--modules", "modules"];
    project.refused(&kernel, &["module virtio_blk", "neither in modules nor built into"]);
    project.append("[kernel]\nextra_modules = [\"no_such_module\"]\n");
    project.refused(&["build"], &["module no_such_module", "kernel.extra_modules"]);
}

#[test]
fn needs_no_root() {
    let project = Project::demo();
    fs::set_permissions(project.path("."), fs::Permissions::from_mode(0o777)).unwrap();
    // The kernel is fetched by whoever runs the tests; an ordinary user may not be able to reach that cache.
    let kernel = built(&["build", "--no-disk"]);
    fs::set_permissions(kernel.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(kernel.path("out/vmlinuz"), fs::Permissions::from_mode(0o644)).unwrap();
    let program = project.path("garboard");
    fs::copy(GARBOARD, &program).unwrap();
    let mut build = if is_root() {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--no-new-privs", "--bounding-set=-all"]);
        setpriv.arg(&program);
        setpriv
    } else {
        Command::new(&program)
    };
    build.arg("build").arg("--kernel").arg(kernel.path("out/vmlinuz")).current_dir(project.path("."));
    build.env_remove("HOME").env_remove("XDG_CACHE_HOME");
    succeeds(&build.output().unwrap());
    assert!(project.path("out/disk.raw").exists());
    // And it is the same image that root builds.
    let by_root = Project::demo();
    let kernel = kernel.path("out/vmlinuz");
    succeeds(&by_root.garboard(&["build", "--kernel", kernel.to_str().unwrap()]));
    assert!(project.files("out") == by_root.files("out"), "root and an ordinary user build different images");
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}

#[test]
fn inspect_reads_the_image_alone() {
    let project = Project::demo();
    let mut declaration = fs::read_to_string(project.path("appliance.toml")).unwrap();
    declaration += "\n[containers.flaky.logging]\ndriver = \"local\"\noptions = { max-size = \"4m\", max-file = 3 }\n";
    fs::write(project.path("appliance.toml"), declaration).unwrap();
    succeeds(&project.garboard(&["build"]));
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(project.path("out/image.json")).unwrap()).unwrap();
    let directory = json(&project.garboard(&["inspect", "--json", "out"]));
    assert_eq!(directory["root_hash"], manifest["root_hash"]);
    assert_eq!(directory["kernel"], manifest["kernel_release"]);
    assert_eq!(directory["appliance"], "demo");
    let containers = directory["containers"].as_array().unwrap();
    let names: Vec<_> = containers.iter().map(|container| container["name"].as_str().unwrap()).collect();
    assert_eq!(serde_json::json!(names), manifest["containers"]);
    let of = |name: &str| containers.iter().find(|container| container["name"] == name).unwrap();
    assert_eq!(of("web")["args"], serde_json::json!(["/bin/garboard-demo", "web", "0.0.0.0:8080"]));
    assert_eq!(of("web")["user"], "1000:1000");
    assert_eq!(of("web")["weakened"], serde_json::json!(["network_mode = \"host\""]));
    assert_eq!(of("web")["writable_bytes"], 0);
    assert_eq!(of("client")["depends_on"], serde_json::json!(["web", "flaky"]));
    assert_eq!(of("flaky")["restart"], "on-failure:5");
    assert_eq!(of("flaky")["weakened"], serde_json::json!([]));
    assert_eq!(of("flaky")["kept_log"], serde_json::json!({ "file_bytes": 4 << 20, "files": 3 }));
    assert_eq!(of("web")["kept_log"], serde_json::Value::Null);
    assert_eq!(of("flaky")["args"][0], "/dev/.garboard-init");

    // Disk and system image say the same, moved away from everything else.
    for (name, bytes) in [("system.erofs", "system_bytes"), ("disk.raw", "system_bytes")] {
        fs::rename(project.path("out").join(name), project.path(name)).unwrap();
        let alone = json(&project.garboard(&["inspect", "--json", name]));
        for key in ["root_hash", "kernel", "containers", "layers", "modules", bytes] {
            assert_eq!(alone[key], directory[key], "{name}: {key}");
        }
    }

    let text = text(&project.garboard(&["inspect", "system.erofs"]).stdout);
    for part in [
        "appliance  demo",
        "container web",
        "WEAKENED   network_mode = \"host\"",
        "restart    on-failure:5",
        "log        kept in 3 files of 4.00 MiB",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[test]
fn inspect_tells_mounts_devices_and_limits() {
    let project = Project::demo();
    let more = "tmpfs = [\"/cache:size=1m\"]\ndevices = [\"/dev/kmsg:/dev/kmsg:r\"]\n\
                blkio_config = { device_read_bps = [{ path = \"/dev/vda\", rate = \"1m\" }] }\n";
    project.replace("[containers.flaky]\n", &format!("[containers.flaky]\n{more}"));
    succeeds(&project.garboard(&["build", "--no-disk"]));
    let report = json(&project.garboard(&["inspect", "--json", "out"]));
    let flaky = report["containers"].as_array().unwrap().iter().find(|one| one["name"] == "flaky").unwrap();
    let source = |target: &str| {
        let mut mounts = flaky["mounts"].as_array().unwrap().iter();
        mounts.find(|mount| mount["target"] == target).unwrap_or_else(|| panic!("no {target}: {flaky}"))["source"]
            .clone()
    };
    assert!(source("/cache").as_str().unwrap().starts_with("tmpfs (size="), "{flaky}");
    assert_eq!(source("/state"), "/data/volumes/state");
    assert_eq!(flaky["devices"], serde_json::json!({ "/dev/kmsg": "r" }));
    assert_eq!(flaky["device_limits"], serde_json::json!([["io.max", "/dev/vda", "rbps=1048576"]]));
    let said = text(&project.garboard(&["inspect", "out"]).stdout);
    for part in [
        "mounts     /data/volumes/state on /state",
        "device     /dev/kmsg (r)",
        "limits     io.max of /dev/vda: rbps=1048576",
    ] {
        assert!(said.contains(part), "no {part} in {said}");
    }
}

#[test]
fn compression_makes_it_smaller_and_inspect_says_how_much() {
    let system_bytes = |compression: &str| {
        let project = Project::demo();
        project.replace("memory = 256", &format!("memory = 256\ncompression = \"{compression}\""));
        let build = || {
            succeeds(&project.garboard(&["build", "--no-disk"]));
            project.files("out")
        };
        assert!(build() == build(), "{compression}: two builds differ");
        let report = json(&project.garboard(&["inspect", "--json", "out"]));
        let of = |key: &str| report["compression"][key].as_u64().unwrap_or(0);
        assert!(of("stored_bytes") <= of("bytes") * 3 / 4, "{report}");
        let said = text(&project.garboard(&["inspect", "out"]).stdout);
        assert_eq!(said.contains(&format!("compressed {compression}: files of ")), compression != "none", "{said}");
        assert_eq!(report["compression"]["algorithm"].as_str().unwrap_or("none"), compression);
        report["system_bytes"].as_u64().unwrap()
    };
    let [none, lz4, zstd] = ["none", "lz4", "zstd"].map(system_bytes);
    assert!(zstd < lz4 && lz4 < none, "{none} {lz4} {zstd}");
}

/// Where the kernel's configuration lies beside it, as in a distribution's package.
#[test]
fn a_kernel_that_lacks_the_compression_is_refused() {
    let project = built(&["build", "--no-disk"]);
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(project.path("out/image.json")).unwrap()).unwrap();
    let config = project.path(&format!("config-{}", manifest["kernel_release"].as_str().unwrap()));
    fs::copy(project.path("out/vmlinuz"), project.path("vmlinuz")).unwrap();
    project.replace("memory = 256", "memory = 256\ncompression = \"zstd\"");
    fs::write(&config, "CONFIG_EROFS_FS=y\nCONFIG_EROFS_FS_ZIP=y\n# CONFIG_EROFS_FS_ZIP_ZSTD is not set\n").unwrap();
    let build = ["build", "--no-disk", "--kernel", "vmlinuz"];
    project.refused(&build, &["zstd", "lacks CONFIG_EROFS_FS_ZIP_ZSTD", "compression = \"lz4\""]);
    // Control: with the option it builds.
    fs::write(&config, "CONFIG_EROFS_FS=y\nCONFIG_EROFS_FS_ZIP=y\nCONFIG_EROFS_FS_ZIP_ZSTD=y\n").unwrap();
    succeeds(&project.garboard(&build));
}

#[test]
fn inspect_notices_a_damaged_image() {
    let project = built(&["build", "--no-disk"]);
    let system = project.path("out/system.erofs");
    let whole = fs::read(&system).unwrap();
    fs::write(&system, &whole[..whole.len() / 2]).unwrap();
    project.refused(&["inspect", "out/system.erofs"], &["cut off"]);
    // One bit of a container's user in the plan, and one of a file in a layer: the root hash would be shown as before.
    for wanted in [&b"0.0.0.0:8080"[..], b"\x7fELF"] {
        let at = whole.windows(wanted.len()).rposition(|window| window == wanted).unwrap();
        let mut altered = whole.clone();
        altered[at + 3] ^= 1;
        fs::write(&system, altered).unwrap();
        for image in ["out/system.erofs", "out"] {
            project.refused(&["inspect", image], &["block", "damaged or was altered"]);
        }
    }
    // And a whole image of another build.
    let other = Project::demo();
    other.replace("cpus = 0.5", "cpus = 0.25");
    succeeds(&other.garboard(&["build", "--no-disk"]));
    fs::copy(other.path("out/system.erofs"), &system).unwrap();
    project.refused(&["inspect", "out"], &["root hash", "from another build"]);
    fs::write(&system, whole).unwrap();
    // A kernel of another release, of which the manifest knows or not.
    let (kernel, manifest) = (project.path("out/vmlinuz"), project.path("out/image.json"));
    let (right, said) = (fs::read(&kernel).unwrap(), fs::read_to_string(&manifest).unwrap());
    let release = json(&project.garboard(&["inspect", "--json", "out"]))["kernel"].as_str().unwrap().to_owned();
    let another = release.replacen('6', "9", 1);
    let at = right.windows(release.len()).position(|window| window == release.as_bytes()).unwrap();
    let mut wrong = right.clone();
    wrong[at..at + release.len()].copy_from_slice(another.as_bytes());
    fs::write(&kernel, wrong).unwrap();
    project.refused(&["inspect", "out"], &[&another, "image.json names", "from another build"]);
    fs::write(&manifest, said.replace(&release, &another)).unwrap();
    project.refused(&["inspect", "out"], &[&another, "its modules are for", "from another build"]);
    // Control: as it was.
    fs::write(&kernel, right).unwrap();
    fs::write(&manifest, said).unwrap();
    succeeds(&project.garboard(&["inspect", "out"]));
}

#[test]
fn progress_and_colour_stay_off_a_pipe() {
    let project = Project::demo();
    let output = project.garboard(&["build", "--no-disk"]);
    succeeds(&output);
    for stream in [&output.stdout, &output.stderr] {
        assert!(!stream.contains(&0x1b) && !stream.contains(&b'\r'), "{}", text(stream));
    }
}
