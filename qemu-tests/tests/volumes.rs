//! Volumes, seen and tried from inside.

mod support;

use std::fs::File;
use std::io::Read;

use garboard_qemu::{Exit, Image, Machine, Vm, secs};
use support::{Project, expect, finished, fixture};

fn bake(declaration: &str) -> (Project, Image) {
    let declaration = declaration.replace("BUSYBOX", &fixture("oci", "busybox"));
    let project = Project::new(&declaration.replace("NGINX", &fixture("oci", "nginx")));
    let image = Image::load(project.build_without_disk()).unwrap();
    (project, image)
}

const IN_MEMORY: &str = r#"
name = "memory"
[console]
status = false

[volumes.small]
kind = "tmpfs"
size = "1m"

# Without a limit of its own; the control.
[volumes.large]
kind = "tmpfs"

[containers.writer]
image = "BUSYBOX"
command = ["sh", "-c", '''
for volume in small large; do
    dd if=/dev/zero of=/$volume/f bs=64k count=64 2>/tmp/said && echo $volume all || echo $volume $(sed -n 's/.*: //p;q' /tmp/said)
    echo size-$volume $(stat -c %s /$volume/f)
done
''']
volumes = ["small:/small", "large:/large"]
tmpfs = "/tmp"

# It starts after a volume was filled to the brim, which is nobody's business but the volume's.
[containers.reader]
image = "BUSYBOX"
command = ["sh", "-c", '''
for volume in small large; do echo size-$volume $(stat -c %s /elsewhere/$volume/f); done
rm /elsewhere/large/f 2>&- && echo removed yes || echo removed no
rm /elsewhere/small/f && echo emptied $(ls -A /elsewhere/small | wc -l)
''']
volumes = ["small:/elsewhere/small", "large:/elsewhere/large:ro"]
depends_on = { writer = { condition = "service_completed_successfully" } }
"#;

/// A volume in memory holds what it was declared to hold, and who shares it sees the same files.
#[test]
fn a_volume_in_memory_ends_at_its_size_and_is_shared() {
    let (_project, image) = bake(IN_MEMORY);
    let vm = Vm::boot(&image).unwrap();
    let (exit, written) = finished(&vm, "writer");
    assert_eq!(exit, Exit::Code(0));
    let sizes = [("size-small", "1048576"), ("size-large", "4194304")];
    expect(&written, &[("small", "No space left on device"), ("large", "all")]);
    expect(&written, &sizes);
    let (_, read) = finished(&vm, "reader");
    expect(&read, &sizes);
    expect(&read, &[("removed", "no"), ("emptied", "0")]);
    vm.power_off(secs(60)).unwrap();
}

const FILLED: &str = r#"
name = "fills"
[console]
status = false

[volumes.kept]
[volumes.bare]
[volumes.quick]
kind = "tmpfs"

# Nothing of its own is where it mounts the volume, and it waits for what the next one has.
[containers.sharer]
image = "BUSYBOX"
command = ["sh", "-c", "echo owned $(stat -c %u:%g /elsewhere/owned) $(cat /elsewhere/owned)"]
volumes = ["kept:/elsewhere:ro"]

# Its image has every kind of file in this directory, from five layers, and a check for them.
[containers.first]
image = "NGINX"
command = ["sh", "-c", '''
cd /srv/fixture
[ -e mine ] && echo boot again || echo boot first
echo kept $(cat mine replaced 2>&-)
fixture-check
echo touched > mine
rm -f replaced
''']
volumes = ["kept:/srv/fixture"]

[containers.memory]
image = "NGINX"
command = ["sh", "-c", '''
cd /srv/fixture
[ -e mine ] && echo boot again || echo boot first
fixture-check
echo touched > mine
''']
volumes = ["quick:/srv/fixture"]

# The control.
[containers.bare]
image = "NGINX"
command = ["sh", "-c", "echo entries $(ls -A /srv/fixture | wc -l)"]
volumes = [{ source = "bare", target = "/srv/fixture", volume = { nocopy = true } }]
"#;

/// A new volume holds what the image has where it is mounted, to the last attribute. What a container makes of it stays.
#[test]
fn a_new_volume_gets_what_the_image_has_there_once() {
    const WHOLE: (&str, &str) = ("fixture:", "36 right, 0 wrong");
    let (project, image) = bake(FILLED);
    let boot = || Vm::builder(&image).state(project.path("state")).boot().unwrap();
    let vm = boot();
    let first = finished(&vm, "first").1;
    expect(&first, &[("boot", "first"), ("kept", "above"), WHOLE]);
    expect(&finished(&vm, "sharer").1, &[("owned", "1234:5678 owned")]);
    expect(&finished(&vm, "memory").1, &[("boot", "first"), WHOLE]);
    expect(&finished(&vm, "bare").1, &[("entries", "0")]);
    vm.power_off(secs(60)).unwrap();

    let vm = boot();
    let again = finished(&vm, "first").1;
    expect(&again, &[("boot", "again"), ("kept", "touched"), ("fixture:", "35 right, 1 wrong")]);
    // What was in memory is gone, and begins anew.
    expect(&finished(&vm, "memory").1, &[("boot", "first"), WHOLE]);
    vm.power_off(secs(60)).unwrap();
}

/// The disk of a rebuilt appliance has another system and the same volumes; its tables cover all of it.
#[test]
fn a_rebuild_keeps_its_volumes_on_a_uefi_machine() {
    let declaration = |said: &str| {
        let image = fixture("oci", "busybox");
        format!(
            r#"
            name = "rebuilt"
            [console]
            status = false
            [volumes.kept]
            [containers.one]
            image = "{image}"
            command = ["sh", "-c", "[ -e /kept/said ] || echo none > /kept/said; echo kept $(cat /kept/said); echo {said} > /kept/said"]
            volumes = ["kept:/kept"]
            "#
        )
    };
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    for (said, kept) in [("first", "none"), ("second", "first")] {
        let project = Project::new(&declaration(said));
        let image = Image::load(project.build()).unwrap();
        let vm = Vm::builder(&image).machine(Machine::Uefi).state(&state).data_size(1 << 30).boot().unwrap();
        expect(&finished(&vm, "one").1, &[("kept", kept)]);
        vm.power_off(secs(60)).unwrap();
        let files = std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path());
        let disks: Vec<_> = files.filter(|path| path.extension().is_some_and(|extension| extension == "raw")).collect();
        assert_eq!(disks.len(), 1, "{disks:?}");
        // The protective partition's size in sectors, at byte 458 of the first one.
        let mut mbr = [0; 512];
        File::open(&disks[0]).unwrap().read_exact(&mut mbr).unwrap();
        let size = u32::from_le_bytes(mbr[458..462].try_into().unwrap());
        assert_eq!(u64::from(size) + 1, std::fs::metadata(&disks[0]).unwrap().len() / 512);
    }
}
