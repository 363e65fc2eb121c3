//! Appliances whose system image is compressed, booted: the kernel's own reader gives every byte back, and dm-verity covers
//! the compressed ones.

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use garboard_qemu::{Exit, Image, Vm, secs};
use support::{Project, fixture, flip_bit, judge, text};

const BLOCK: usize = 4096;
const MEBI: usize = 1 << 20;
/// What an emulated machine may need from its start until a container has read all its files.
const READ: Duration = secs(180);

/// Bytes that shrink to about a third.
fn words(length: usize) -> Vec<u8> {
    (0u64..).flat_map(|n| format!("{} of a text that repeats itself\n", n * n * n).into_bytes()).take(length).collect()
}

/// Bytes that don't shrink (xorshift64*).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = move |_| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(next).take(length).collect()
}

/// Files of all the forms that the builder knows, and about the sizes of its blocks and chunks.
fn tree() -> Vec<(String, Vec<u8>)> {
    let program = fs::read(std::env::current_exe().unwrap()).unwrap();
    let text = words(4 * MEBI);
    let mut files = vec![
        ("program".to_owned(), program[..program.len().min(4 * MEBI)].to_vec()),
        ("mixed".to_owned(), [&text[..300_000], &noise(200_000), &text[..100_001]].concat()),
        ("noise".to_owned(), noise(500_000)),
        ("holes".to_owned(), [&text[..50_000], &[0; 300_000], &text[..50_000]].concat()),
        ("empty".to_owned(), Vec::new()),
    ];
    let sizes = [1, 1025, 4096, 4097, 8191, 8193, 131_071, 131_072, 131_073, 135_168, 262_145, 4 * MEBI];
    files.extend(sizes.map(|size| (format!("text-{size}"), text[..size].to_vec())));
    files
}

/// The busybox image with a second layer that has these files in `/files`, and their checksums beside it as this computer's
/// own tool says them: of each file, and of its end, by which it can be read first.
fn write_image(project: &Project, files: &[(String, Vec<u8>)]) {
    let work = project.path("image");
    fs::create_dir(&work).unwrap();
    let archive = fixture("docker-archive", "busybox.docker.tar");
    let archive = archive.strip_prefix("docker-archive:").unwrap();
    judge("tar", ["-xf", archive, "-C", work.to_str().unwrap()]);

    let root = project.path("root");
    fs::create_dir_all(root.join("files")).unwrap();
    fs::create_dir_all(root.join("ends")).unwrap();
    for (name, bytes) in files {
        fs::write(root.join("files").join(name), bytes).unwrap();
        fs::write(root.join("ends").join(name), &bytes[bytes.len().saturating_sub(1000)..]).unwrap();
    }
    let sums = |directory: &str| {
        let sums =
            support::command("sh").args(["-c", "sha256sum *"]).current_dir(root.join(directory)).output().unwrap();
        assert!(sums.status.success());
        fs::write(root.join(format!("{directory}.sums")), sums.stdout).unwrap();
    };
    sums("files");
    sums("ends");
    fs::remove_dir_all(root.join("ends")).unwrap();
    let layer = work.join("second.tar");
    judge("tar", ["--owner=0", "--group=0", "-cf", layer.to_str().unwrap(), "-C", root.to_str().unwrap(), "."]);

    let sha256 = |path: &Path| judge("sha256sum", [path])[..64].to_owned();
    let json = |path: &Path| serde_json::from_slice::<serde_json::Value>(&fs::read(path).unwrap()).unwrap();
    let mut manifest = json(&work.join("manifest.json"));
    let mut config = json(&work.join(manifest[0]["Config"].as_str().unwrap()));
    config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(format!("sha256:{}", sha256(&layer)).into());
    config.as_object_mut().unwrap().remove("history");
    fs::write(work.join("config"), config.to_string()).unwrap();
    let name = format!("{}.json", sha256(&work.join("config")));
    fs::rename(work.join("config"), work.join(&name)).unwrap();
    manifest[0]["Config"] = name.into();
    manifest[0]["Layers"].as_array_mut().unwrap().push("second.tar".into());
    fs::write(work.join("manifest.json"), manifest.to_string()).unwrap();
    judge("tar", ["-cf", project.path("image.tar").to_str().unwrap(), "-C", work.to_str().unwrap(), "."]);
}

/// An appliance whose one container checks `files`.
fn bake(compression: &str, files: &[(String, Vec<u8>)], command: &str) -> (Project, Image) {
    let project = Project::new(&format!(
        r#"
        name = "compressed"
        [system]
        compression = "{compression}"
        [containers.reader]
        image = "docker-archive:image.tar"
        command = ["sh", "-c", """{command}"""]
        "#
    ));
    write_image(&project, files);
    let image = Image::load(project.build_without_disk()).unwrap();
    let report = text(&project.garboard(["inspect", "out"]).stdout);
    println!("{report}");
    assert!(report.contains(&format!("compressed {compression}: files of ")), "{report}");
    (project, image)
}

/// What the container ended with, and what it printed.
fn ending(vm: &Vm) -> (Option<Exit>, String) {
    vm.wait_status("end of the reader", READ, |status| {
        Ok(status.container("reader").is_some_and(|container| container.exit.is_some()))
    })
    .unwrap();
    let exit = vm.status().unwrap().container("reader").unwrap().exit;
    (exit, vm.logs("reader", 100).unwrap().join("\n"))
}

/// The ends of all files first, when nothing of them is in memory, then all of them from the beginning.
fn every_byte_comes_back(compression: &str) {
    let command = "cd /files && for f in *; do echo \"$(tail -c 1000 $f | sha256sum | cut -c 1-64)  $f\"; done > /tmp/ends \
                   && cmp /tmp/ends /ends.sums && sha256sum -c -s /files.sums && echo $(wc -l < /files.sums) files are right";
    let files = tree();
    let (project, image) = bake(compression, &files, command);
    let vm = Vm::boot(&image).unwrap();
    let (exit, log) = ending(&vm);
    assert_eq!(exit, Some(Exit::Code(0)), "{log}");
    assert!(log.contains(&format!("{} files are right", files.len())), "{log}");
    vm.power_off(secs(60)).unwrap();
    drop(project);
}

#[test]
fn every_byte_comes_back_from_lz4() {
    every_byte_comes_back("lz4");
}

#[test]
fn every_byte_comes_back_from_zstd() {
    every_byte_comes_back("zstd");
}

/// One bit of a compressed chunk: whoever reads it gets an error, not other bytes. The control is the same machine with that bit
/// as it was. (That the bit would give other bytes without dm-verity: `images`, `compression_is_no_protection`.)
fn an_altered_chunk_is_refused(compression: &str) {
    let command = "cd /files && sha256sum -c /files.sums; echo ended with $?";
    let (project, mut image) = bake(compression, &[("text".to_owned(), words(12 * MEBI))], command);
    let (_, log) = ending(&Vm::boot(&image).unwrap());
    assert!(log.contains("text: OK") && log.contains("ended with 0"), "{log}");

    let system = project.path("altered.erofs");
    fs::copy(image.system.as_ref().unwrap(), &system).unwrap();
    let bytes = fs::read(&system).unwrap();
    // Contents lie in front of the inodes (superblock, byte 40), in any order: the middle is in the largest.
    let inodes = u32::from_le_bytes(bytes[1024 + 40..1024 + 44].try_into().unwrap()) as usize;
    flip_bit(&system, inodes / 2 * BLOCK + 1000);
    image.system = Some(system);
    let vm = Vm::boot(&image).unwrap();
    let (_, log) = ending(&vm);
    assert!(log.contains("ended with 1") && !log.contains("text: OK"), "{log}");
    assert!(log.contains("I/O error") || log.contains("Input/output error"), "{log}");
}

#[test]
fn an_altered_lz4_chunk_is_refused() {
    an_altered_chunk_is_refused("lz4");
}

#[test]
fn an_altered_zstd_chunk_is_refused() {
    an_altered_chunk_is_refused("zstd");
}

/// The same image in a form that no kernel takes: the zstd configuration behind the superblock names an unknown format of
/// frames. A kernel without zstd fails at the same place. PID 1 says what the image needs.
#[test]
fn a_compression_that_the_kernel_refuses_is_named() {
    let (project, mut image) = bake("zstd", &[("text".to_owned(), words(MEBI))], "true");
    let system = project.path("refused.erofs");
    fs::copy(image.system.as_ref().unwrap(), &system).unwrap();
    let mut bytes = fs::read(&system).unwrap();
    let blocks = u32::from_le_bytes(bytes[1024 + 36..1024 + 40].try_into().unwrap()) as usize;
    bytes.truncate(blocks * BLOCK);
    // The superblock no longer says that it has a checksum.
    bytes[1024 + 8] &= !1;
    assert_eq!(bytes[1152..1155], [6, 0, 0]);
    bytes[1154] = 1;
    fs::write(&system, bytes).unwrap();
    let root_hash = seal(&system, blocks);
    let words: Vec<_> = image.cmdline.split(' ').filter(|word| !word.starts_with("roothash=")).collect();
    image.cmdline = format!("{} roothash={root_hash}", words.join(" "));
    image.system = Some(system);

    let vm = Vm::boot(&image).unwrap();
    vm.wait_exit(secs(120)).unwrap();
    let console = vm.console().transcript();
    let sentence = console.lines().find_map(|line| line.trim().strip_prefix("garboard: stopped: ")).unwrap_or_default();
    let named = "compression = \"zstd\" needs Linux 6.10 or newer with CONFIG_EROFS_FS_ZIP_ZSTD";
    assert!(sentence.starts_with("mount the system image") && sentence.contains(named), "{console}");
}

/// Puts a hash tree behind a filesystem, as PID 1 wants it: the UUID is the first half of the root hash.
fn seal(system: &Path, blocks: usize) -> String {
    let format = |uuid: &str| {
        let (file, offset) = (system.to_str().unwrap(), format!("--hash-offset={}", blocks * BLOCK));
        let (count, salt) = (format!("--data-blocks={blocks}"), format!("--salt={}", "5".repeat(64)));
        let said = judge("veritysetup", ["format", &offset, &count, &salt, "--uuid", uuid, file, file]);
        said.lines().find_map(|line| line.strip_prefix("Root hash:")).unwrap().trim().to_owned()
    };
    let hash = format("00000000-0000-0000-0000-000000000000");
    let uuid = [&hash[..8], &hash[8..12], &hash[12..16], &hash[16..20], &hash[20..32]].join("-");
    assert_eq!(format(&uuid), hash);
    hash
}
