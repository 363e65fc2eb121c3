//! Machines that an appliance can't, or only partly, run on: each ends with one sentence that names the fault, or runs on and
//! says in its status what is missing. None hangs.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use garboard_qemu::{Ending, Image, Machine, Vm, secs};
use support::{Project, fixture};

/// How PID 1 begins the sentence when it can't go on.
const STOPPED: &str = "garboard: stopped: ";
const BLOCK: usize = 4096;

/// A container that counts its starts on a volume and then sleeps.
fn baked() -> &'static (Project, PathBuf) {
    static BAKED: OnceLock<(Project, PathBuf)> = OnceLock::new();
    BAKED.get_or_init(|| {
        let project = Project::new(&format!(
            r#"
            name = "faults"
            [volumes.keep]
            [containers.one]
            image = "{}"
            command = ["sh", "-c", "echo start >> /keep/starts; echo started $(wc -l < /keep/starts); exec sleep 1000000"]
            volumes = ["keep:/keep"]
            restart = "always"
            "#,
            fixture("oci", "busybox")
        ));
        let out = project.build();
        (project, out)
    })
}

fn image() -> Image {
    Image::load(&baked().1).unwrap()
}

/// The machine stops by itself; returns the sentence why.
fn stopped(vm: &Vm) -> String {
    let ending = vm.wait_exit(secs(120)).unwrap();
    let console = vm.console().transcript();
    assert!(matches!(ending, Ending::PowerOff | Ending::Reboot), "{ending:?}: {console}");
    let sentences: Vec<&str> = console.lines().filter_map(|line| line.trim().strip_prefix(STOPPED)).collect();
    assert_eq!(sentences.len(), 1, "{console}");
    assert!(!console.contains("Kernel panic"), "{console}");
    sentences[0].to_owned()
}

/// A copy of the system image with one bit of one block flipped.
fn damaged(directory: &Path, block: usize) -> Image {
    let mut image = image();
    let path = directory.join("system.erofs");
    fs::copy(image.system.as_ref().unwrap(), &path).unwrap();
    support::flip_bit(&path, block * BLOCK + 100);
    image.system = Some(path);
    image
}

/// Blocks that the EROFS in the system image has, from its superblock (32 bits at byte 36 of it).
fn erofs_blocks(image: &Image) -> usize {
    let bytes = fs::read(image.system.as_ref().unwrap()).unwrap();
    u32::from_le_bytes(bytes[1024 + 36..1024 + 40].try_into().unwrap()) as usize
}

/// The control for everything below.
#[test]
fn a_sound_machine_runs_the_appliance() {
    let vm = Vm::boot(&image()).unwrap();
    vm.wait_ready(secs(120)).unwrap();
    vm.wait_console("started 1", secs(20)).unwrap();
    assert!(!vm.console().contains(STOPPED));
    vm.power_off(secs(60)).unwrap();
}

#[test]
fn a_missing_system_disk_is_named() {
    for machine in [Machine::Microvm, Machine::Q35] {
        let vm = Vm::builder(&image()).machine(machine).without_system().boot().unwrap();
        let sentence = stopped(&vm);
        assert!(sentence.starts_with("find the system image"), "{sentence}");
    }
}

#[test]
fn a_system_disk_of_another_build_is_refused() {
    let other = Project::new(&format!(
        "name = \"other\"\n[containers.one]\nimage = \"{}\"\ncommand = [\"true\"]\n",
        fixture("oci", "busybox")
    ));
    let mut image = image();
    image.system = Image::load(other.build_without_disk()).unwrap().system;
    let vm = Vm::boot(&image).unwrap();
    let sentence = stopped(&vm);
    assert!(sentence.starts_with("find the system image"), "{sentence}");
    assert!(sentence.contains("another build's system image") && sentence.contains("different builds"), "{sentence}");
    assert!(vm.console().contains("garboard: waiting up to 10 s for the system image"), "{}", vm.console().tail(30));
}

/// Damage where the boot itself reads: the superblock's block, the plan and metadata at the end, the root of the hash tree.
#[test]
fn a_corrupt_system_image_stops_the_boot() {
    let blocks = erofs_blocks(&image());
    for block in [0, blocks - 1, blocks + 1] {
        let directory = tempfile::tempdir().unwrap();
        let vm = Vm::boot(&damaged(directory.path(), block)).unwrap();
        let sentence = stopped(&vm);
        println!("block {block}: {sentence}");
        assert!(!vm.console().contains("started"), "it runs altered bytes: {}", vm.console().tail(40));
    }
}

#[test]
fn a_corrupt_disk_image_stops_the_boot() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = image();
    let disk = directory.path().join("disk.raw");
    // The system partition holds the same EROFS: its first block, with the superblock, is found by its contents.
    let system = fs::read(image.system.as_ref().unwrap()).unwrap();
    let mut bytes = fs::read(image.disk.as_ref().unwrap()).unwrap();
    let at =
        bytes.chunks(BLOCK).position(|block| block == &system[..BLOCK]).expect("the system image in disk.raw") * BLOCK;
    bytes[at + 100] ^= 1;
    fs::write(&disk, bytes).unwrap();
    image.disk = Some(disk);
    let vm = Vm::builder(&image).machine(Machine::Uefi).boot().unwrap();
    let sentence = stopped(&vm);
    println!("{sentence}");
    assert!(!vm.console().contains("started"), "it runs altered bytes: {}", vm.console().tail(40));
}

/// The logs alone are promised more than the machine has.
#[test]
fn too_little_memory_is_named() {
    let project = Project::new(&format!(
        r#"
        name = "large"
        [system]
        memory = 1024
        log_budget = "200m"
        [containers.one]
        image = "{}"
        command = ["sh", "-c", "echo started; exec sleep 1000000"]
        restart = "always"
        "#,
        fixture("oci", "busybox")
    ));
    let image = Image::load(project.build_without_disk()).unwrap();
    let vm = Vm::builder(&image).memory_mb(192).boot().unwrap();
    let sentence = stopped(&vm);
    assert!(sentence.starts_with("find memory for the containers: "), "{sentence}");
    assert!(sentence.ends_with("give the machine more memory"), "{sentence}");
    assert!(!vm.console().contains("one | started"));

    let vm = Vm::boot(&image).unwrap();
    vm.wait_ready(secs(120)).unwrap();
}

/// The containers run, with what they write kept in memory, and the status says so.
#[test]
fn a_missing_data_disk_is_survived_and_reported() {
    let vm = Vm::builder(&image()).without_data().boot().unwrap();
    vm.wait_healthy("one", secs(120)).unwrap();
    let data = vm.status().unwrap().data;
    assert!(["absent", "tmpfs"].contains(&data.state.as_str()), "{data:?}");
    assert!(!data.detail.is_empty(), "{data:?}");
}

#[test]
fn garbage_on_the_data_disk_is_survived_reported_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = image();
    let data = directory.path().join("data.ext4");
    fs::write(&data, vec![0xa5; 16 << 20]).unwrap();
    image.data = Some(data);
    let state = directory.path().join("state");
    let vm = Vm::builder(&image).state(&state).boot().unwrap();
    vm.wait_healthy("one", secs(120)).unwrap();
    let status = vm.status().unwrap().data;
    assert_ne!(status.state, "mounted", "{status:?}");
    assert!(!status.detail.is_empty(), "{status:?}");
    vm.power_off(secs(60)).unwrap();
    // Nobody knows what it is, so nobody may overwrite it.
    assert!(
        fs::read(state.join("data.ext4")).unwrap().iter().all(|&byte| byte == 0xa5),
        "the unknown disk was written to"
    );
}
