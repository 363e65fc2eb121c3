//! Machines that an appliance can't, or only partly, run on: each ends with one sentence that names the fault, or runs on and
//! says in its status what is missing. None hangs.

#[path = "support/cpio.rs"]
mod cpio;
mod support;

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use garboard_qemu::{DiskFault, Ending, Image, Machine, Snapshot, Vm, secs};
use support::{BOOT, Project, fixture, judge};

/// How PID 1 begins the sentence when it can't go on.
const STOPPED: &str = "garboard: stopped: ";
const BLOCK: usize = 4096;
/// What the kernel says of a block that isn't the one its hash is of, and what follows from that.
const DAMAGED: &str = ": Input/output error (os error 5); the image is damaged";

/// A container that counts its starts on a volume and then sleeps, and one that keeps nothing and says more than a serial line
/// holds.
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
            [containers.two]
            image = "{}"
            command = ["sh", "-c", "seq 20000; while :; do echo still; sleep 1; done"]
            restart = "always"
            "#,
            fixture("oci", "busybox"),
            fixture("oci", "busybox")
        ))
        .shared();
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

/// What must not change: processes and starts.
fn lives(status: &Snapshot) -> Vec<(String, Option<u32>, u64)> {
    status.containers.iter().map(|c| (c.name.clone(), c.pid, c.restarts)).collect()
}

/// When the machine was ready by its status port, in time and in the processor time it had used.
fn ready_after(vm: &Vm) -> String {
    vm.wait_ready(secs(120)).unwrap();
    format!("ready after {} ms, {} ms of them on a processor", vm.elapsed().as_millis(), vm.cpu_time().as_millis())
}

/// Waits until the container has logged just these lines: it may run for a while before it says something.
fn logged(vm: &Vm, container: &str, lines: &[&str]) {
    let what = format!("{lines:?} from {container}");
    vm.wait_status(&what, secs(60), |_| Ok(vm.logs(container, 10)? == lines)).unwrap();
}

/// The control for everything below; and what comes in on the serial line doesn't matter.
#[test]
fn a_sound_machine_runs_the_appliance() {
    let vm = Vm::boot(&image()).unwrap();
    // Line noise from the first moment on, with all that means something to a terminal: Ctrl-C, Ctrl-S, Ctrl-Z, line feeds.
    vm.console().send(&(0..32_u8).cycle().take(4 << 10).collect::<Vec<_>>());
    println!("read: {}", ready_after(&vm));
    logged(&vm, "one", &["started 1"]);
    assert!(!vm.console().contains(STOPPED));
    let before = vm.status().unwrap();
    let printed = vm.console().transcript().len();
    vm.console().send(&(0..=255_u8).cycle().take(8 << 10).collect::<Vec<_>>());
    vm.wait_status("output after the noise", secs(30), |_| {
        Ok(vm.console().transcript().get(printed..).is_some_and(|text| text.matches("two | still").count() > 2))
    })
    .unwrap();
    assert!(!vm.console().contains("abcdefgh"), "the noise is echoed: {}", vm.console().tail(40));
    let after = vm.status().unwrap();
    assert_eq!(lives(&before), lives(&after), "{}", after.table());
    assert!(after.ready, "{}", after.table());
    vm.power_off(secs(60)).unwrap();
}

/// The rows of the table of missing features, with single blanks.
fn rows(vm: &Vm) -> Vec<String> {
    let text = vm.console().transcript();
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    text.lines().map(words).filter(|line| line.contains(" CONFIG_")).collect()
}

/// Each missing feature is named with its option, what fails without it and what follows: before the system image can be read,
/// and after, when it is known what the containers need.
#[test]
fn missing_features_stop_the_boot_with_a_table() {
    let erofs = "erofs CONFIG_EROFS_FS STOP the system image can't be mounted";
    let verity = "dm_verity CONFIG_DM_VERITY STOP the system image can't be verified";
    let layers = "image layers can't be stacked";
    for (absent, lacks, table) in [
        (
            "erofs,dm_verity,overlay",
            "erofs, dm_verity",
            vec![erofs.into(), verity.into(), format!("overlay CONFIG_OVERLAY_FS may stop {layers}")],
        ),
        ("overlay", "overlay", vec![format!("overlay CONFIG_OVERLAY_FS STOP {layers}")]),
    ] {
        let vm = Vm::builder(&image()).cmdline(&format!("module_blacklist={absent}")).boot().unwrap();
        let sentence = stopped(&vm);
        assert!(
            sentence.starts_with(&format!("check the kernel: the kernel lacks {lacks} (load module ")),
            "{sentence}"
        );
        assert!(sentence.contains("module_blacklist= on the kernel command line forbids it"), "{sentence}");
        assert_eq!(rows(&vm), table, "{}", vm.console().tail(20));
    }
}

/// An initrd with a further archive at its end, whose members take the place of those before: `modules/*-NAME.ko` becomes
/// `contents`, of type and mode `mode`.
fn with_modules(directory: &Path, replacements: &[(&str, u32, &[u8])]) -> Image {
    let mut image = image();
    let mut initrd = fs::read(&image.initrd).unwrap();
    let listed = String::from_utf8_lossy(&initrd).into_owned();
    initrd.resize(initrd.len().next_multiple_of(4), 0);
    for (name, mode, contents) in replacements {
        let end = listed.find(&format!("-{name}.ko\t")).expect("a module of that name");
        let path = listed[..end].rsplit('/').next().unwrap();
        cpio::entry(&mut initrd, &format!("modules/{path}-{name}.ko"), *mode, contents);
    }
    cpio::entry(&mut initrd, "TRAILER!!!", 0, &[]);
    image.initrd = directory.join("initrd");
    fs::write(&image.initrd, initrd).unwrap();
    image
}

#[test]
fn missing_and_damaged_modules_are_named() {
    let directory = tempfile::tempdir().unwrap();
    // A link that leads nowhere is as good as no file; another archive can't remove one.
    let image = with_modules(
        directory.path(),
        &[("dm_verity", 0o120_777, b"/nowhere"), ("erofs", 0o100_644, b"this is no module")],
    );
    let vm = Vm::boot(&image).unwrap();
    let sentence = stopped(&vm);
    println!("{sentence}");
    assert!(
        sentence.starts_with("check the kernel: the kernel lacks erofs, dm_verity (load module /modules/"),
        "{sentence}"
    );
    for part in [
        "-dm_verity.ko: No such file or directory (os error 2); build the image again: it lacks that file",
        "-erofs.ko: Exec format error (os error 8); it was built for another kernel, or is damaged",
    ] {
        assert!(sentence.contains(part), "{part}: {sentence}");
    }
    assert_eq!(rows(&vm).len(), 2, "{}", vm.console().tail(20));
}

/// Linux 6.1 has neither `lowerdir+` of overlayfs (6.7) nor tmpfs with mapped ids (6.3).
#[test]
fn an_older_kernel_runs_the_appliance() {
    let (kernel, modules) = support::older_kernel();
    let project = Project::new(&format!(
        r#"
        name = "older"
        [kernel]
        image = "{}"
        modules = "{}"
        [volumes.keep]
        [containers.one]
        image = "{}"
        command = ["sh", "-c", "touch /etc/new /keep/new && rm /bin/ls && echo wrote; echo $(stat -c %u /etc/new /keep/new /bin); exec sleep 1000000"]
        volumes = ["keep:/keep"]
        restart = "always"
        mem_limit = "32m"
        "#,
        kernel.display(),
        modules.display(),
        fixture("oci", "busybox"),
    ));
    let vm = Vm::boot(&Image::load(project.build_without_disk()).unwrap()).unwrap();
    vm.wait_ready(secs(120)).unwrap();
    logged(&vm, "one", &["wrote", "0 0 0"]);
    let status = vm.status().unwrap();
    assert_eq!((status.data.state.as_str(), status.container("one").unwrap().restarts), ("mounted", 0));
    let lacking: Vec<_> = status.features.iter().filter(|f| f.verdict != "ok").collect();
    assert!(lacking.len() == 1 && lacking[0].name == "idmapped_tmpfs", "{lacking:?}");
    assert_eq!(lacking[0].verdict, "degraded");
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
    for (block, step) in
        [(0, "mount the system image "), (blocks - 1, "read the plan "), (blocks + 1, "mount the system image ")]
    {
        let directory = tempfile::tempdir().unwrap();
        let vm = Vm::boot(&damaged(directory.path(), block)).unwrap();
        let sentence = stopped(&vm);
        println!("block {block}: {sentence}");
        assert!(sentence.starts_with(step) && sentence.contains(DAMAGED), "block {block}: {sentence}");
        assert!(!vm.console().contains("started"), "it runs altered bytes: {}", vm.console().tail(40));
    }
}

/// Whichever of two disks is seen first: the one that can be used is, and the other one is told of.
#[test]
fn a_damaged_twin_of_the_system_disk_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let (sound, plan) = (image(), erofs_blocks(&image()) - 1);
    let damaged = damaged(directory.path(), plan);
    let copy = directory.path().join("sound.erofs");
    fs::copy(sound.system.as_ref().unwrap(), &copy).unwrap();
    let mut told = 0;
    for (image, twin) in [(&damaged, &copy), (&sound, damaged.system.as_ref().unwrap())] {
        let vm = Vm::builder(image).disk(twin).boot().unwrap();
        vm.wait_ready(BOOT).unwrap();
        told += usize::from(vm.console().contains("garboard: read the plan ") && vm.console().contains(DAMAGED));
        vm.power_off(secs(60)).unwrap();
    }
    assert_eq!(told, 1, "the damaged one was first in one of the two");
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
    assert!(sentence.starts_with("mount the system image ") && sentence.contains(DAMAGED), "{sentence}");
    assert!(!vm.console().contains("started"), "it runs altered bytes: {}", vm.console().tail(40));
}

/// With less than this the kernel itself gives up.
const SMALLEST_MB: u32 = 88;

#[test]
fn a_machine_that_is_too_small_is_named() {
    let vm = Vm::builder(&image()).memory_mb(SMALLEST_MB).boot().unwrap();
    let sentence = stopped(&vm);
    assert!(sentence.starts_with("find memory for the containers: "), "{sentence}");
    assert!(sentence.ends_with(" MiB are needed; give the machine more memory"), "{sentence}");
    assert!(!vm.console().contains("one | started"));
}

/// The logs alone are promised more than the machine has.
#[test]
fn too_little_memory_for_the_logs_is_named() {
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

/// The containers run, with what they write kept in memory and without limits, and status and console say so.
#[test]
fn a_missing_data_disk_and_missing_features_are_survived_and_reported() {
    // ext4 is part of this kernel, which is told not to start it.
    let words = "cgroup_disable=memory,pids,io initcall_blacklist=ext4_init_fs";
    let vm = Vm::builder(&image()).without_data().cmdline(words).boot().unwrap();
    vm.wait_healthy("one", secs(120)).unwrap();
    let status = vm.status().unwrap();
    assert_eq!(status.data.state, "tmpfs", "{:?}", status.data);
    assert!(status.data.detail.contains("it is on none of the disks"), "{:?}", status.data);

    let lacking: Vec<_> = status.features.iter().filter(|f| f.verdict != "ok").collect();
    let names: Vec<&str> = lacking.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["memory", "pids", "io", "ext4"]);
    assert!(lacking.iter().all(|f| f.verdict == "degraded" && f.config.starts_with("CONFIG_")), "{lacking:?}");
    let detail = &status.container("one").unwrap().detail;
    assert!(detail.contains("without pids"), "{detail}");
    for line in [
        "kernel: memory: memory limits are not enforced",
        "kernel: ext4: the data partition can't be mounted: volumes are kept",
        "data: in memory only, nothing is kept",
    ] {
        vm.wait_console(line, secs(60)).unwrap();
    }
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

#[test]
fn a_data_disk_that_can_not_be_read_is_survived_and_reported() {
    // The sector of the superblock.
    let vm = Vm::builder(&image()).data_fault(DiskFault { write: false, sector: 2 }).boot().unwrap();
    vm.wait_ready(secs(120)).unwrap();
    let data = vm.status().unwrap().data;
    assert_eq!(data.state, "tmpfs", "{data:?}");
    assert!(data.detail.contains("can't be read: Input/output error"), "{data:?}");
    vm.power_off(secs(60)).unwrap();
}

/// Who needs to write there says so, and the others run.
#[test]
fn a_read_only_data_disk_is_survived_and_reported() {
    let vm = Vm::builder(&image()).readonly_data().boot().unwrap();
    vm.wait_healthy("two", secs(120)).unwrap();
    let reason = "reason of the one that can't write";
    vm.wait_status(reason, secs(60), |status| {
        let one = status.container("one").unwrap();
        Ok(one.detail.contains("the data filesystem is read-only") && status.container("two").unwrap().as_declared)
    })
    .unwrap();
    let data = vm.status().unwrap().data;
    assert_eq!(data.state, "readonly", "{data:?}");
    assert!(data.detail.contains("can only be read"), "{data:?}");
    vm.power_off(secs(60)).unwrap();
}

/// A sector of the journal of an ext4 image that is written once the first few hundred blocks of the journal are.
fn sector_in_the_journal(image: &Path) -> u64 {
    let image = image.to_str().unwrap();
    let number = |text: &str| text.trim().parse::<u64>().unwrap_or_else(|_| panic!("no number: {text}"));
    let superblock = judge("dumpe2fs", ["-h", image]);
    let block_size = superblock.lines().find_map(|line| line.strip_prefix("Block size:")).unwrap();
    // Inode 8 is the journal's. The first line is debugfs's own.
    let block = judge("debugfs", ["-R", "bmap <8> 400", image]);
    let block = number(block.lines().find(|line| !line.starts_with("debugfs")).unwrap());
    assert_ne!(block, 0, "the journal is smaller than that");
    block * number(block_size) / 512
}

/// The filesystem fills up, and later its disk fails: the status says so, nothing hangs, and who keeps nothing runs on.
#[test]
fn a_data_disk_that_fills_up_and_fails_is_survived_and_reported() {
    let project = Project::new(
        &r#"
        name = "worn"
        [volumes.keep]
        [containers.writer]
        image = "BUSYBOX"
        command = ["sh", "-c", '''
        dd if=/dev/zero of=/keep/fill bs=1M 2>&1 | grep -o "No space left on device"
        nc -l -p 7000 </dev/null
        rm /keep/fill
        while dd if=/dev/zero of=/keep/note bs=4k count=1 conv=fsync 2>/tmp/said; do :; done
        echo "stopped: $(head -n 1 /tmp/said)"
        # The kernel looks at what became of its journal when somebody next wants to write.
        touch /keep/more
        exec sleep 1000000
        ''']
        network_mode = "host"
        ports = ["7000:7000"]
        volumes = ["keep:/keep"]
        restart = "always"
        [containers.other]
        image = "BUSYBOX"
        command = ["sleep", "1000000"]
        restart = "always"
        "#
        .replace("BUSYBOX", &fixture("oci", "busybox")),
    );
    let image = Image::load(project.build_without_disk()).unwrap();
    let sector = sector_in_the_journal(image.data.as_ref().unwrap());
    let vm = Vm::builder(&image).data_fault(DiskFault { write: true, sector }).boot().unwrap();
    vm.wait_console("writer | No space left on device", secs(120)).unwrap();
    let data = vm.status().unwrap().data;
    assert!(data.state == "mounted" && data.detail.starts_with("full: "), "{data:?}");

    // The writer goes on once somebody has connected to it.
    vm.wait_status("failed write", secs(120), |_| {
        let _ = TcpStream::connect(vm.address(7000).unwrap());
        Ok(vm.console().contains("writer | stopped: "))
    })
    .unwrap();
    vm.wait_console("garboard: the data filesystem: its disk failed", secs(30)).unwrap();
    for name in ["writer", "other"] {
        vm.wait_as_declared(name, BOOT).unwrap();
    }
    let status = vm.status().unwrap();
    assert_eq!(status.data.state, "readonly", "{:?}", status.data);
    assert!(status.data.detail.contains("its disk failed"), "{:?}", status.data);
    assert!(status.containers.iter().all(|c| c.restarts == 0), "{}", status.table());
    vm.power_off(secs(60)).unwrap();
}
