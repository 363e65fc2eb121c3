//! Devices of the machine that containers name, and limits for single disks.

mod support;

use std::fs;

use garboard_qemu::{Image, Vm, secs};
use support::{BOOT, Project, expect, finished, fixture};

/// What is written at the beginning of a disk, so that it is known whatever the machine calls it.
const MARK: &str = "garboard test disk";

const DEVICES: &str = r#"
name = "devices"
[console]
status = false

# The machine has two disks, and the order of their names is its own business. Capabilities of the machine's own root, so that
# the device filter alone decides.
[containers.reader]
image = "BUSYBOX"
command = ["sh", "-c", '''
for disk in one two; do
    dd if=/dev/$disk bs=18 count=1 2>&- | grep -q "garboard test disk" && echo marked $disk
    dd if=/dev/zero of=/dev/$disk bs=1 count=1 conv=notrunc 2>&- && echo written $disk
done
[ -b /dev/one ] && [ -b /dev/two ] && echo nodes yes
[ -c /dev/ttyS0 ] && echo serial yes
''']
userns_mode = "host"
cap_add = ["MKNOD"]
devices = ["/dev/vda:/dev/one:r", "/dev/vdb:/dev/two:r", "/dev/ttyS0"]

# By default, with ids of its own: a node is its program's, and the filter still decides.
[containers.own]
image = "BUSYBOX"
command = ["sh", "-c", '''
for disk in one two; do
    dd if=/dev/$disk bs=18 count=1 2>&- | grep -q "garboard test disk" && echo marked $disk
    dd if=/dev/zero of=/dev/$disk bs=1 count=1 conv=notrunc 2>&- && echo written $disk
done
[ -b /dev/one ] && [ -b /dev/two ] && echo nodes yes
echo owner $(stat -c %u:%g /dev/one)
(: > /dev/ttyS0) 2>&- && echo serial yes
mknod /dev/own b $(sed "s/:/ /" /sys/class/block/vda/dev) 2>&- && echo made yes || echo made no
''']
user = "33:44"
devices = ["/dev/vda:/dev/one:r", "/dev/vdb:/dev/two:r", "/dev/ttyS0"]

# The control: the same numbers, undeclared.
[containers.stranger]
image = "BUSYBOX"
command = ["sh", "-c", '''
[ -e /dev/vda ] || echo node no
mknod /dev/own b $(sed "s/:/ /" /sys/class/block/vda/dev) 2>&- && echo made yes || echo made no
''']
userns_mode = "host"
cap_add = ["MKNOD"]

[containers.limited]
image = "BUSYBOX"
command = ["sh", "-c", "echo number $(cat /sys/class/block/vdb/dev); echo limits $(cat /sys/fs/cgroup/io.max)"]
[containers.limited.blkio_config]
device_read_bps = [{ path = "/dev/vdb", rate = "10m" }]
device_write_iops = [{ path = "/dev/vdb", rate = 100 }]

[containers.unlimited]
image = "BUSYBOX"
command = ["sh", "-c", "echo limits none$(cat /sys/fs/cgroup/io.max)"]

[containers.absent]
image = "BUSYBOX"
command = ["true"]
devices = ["/dev/nvme9n1"]

[containers.absent-limit]
image = "BUSYBOX"
command = ["true"]
[containers.absent-limit.blkio_config]
device_read_bps = [{ path = "/dev/nvme9n1", rate = "1m" }]
"#;

/// Names become numbers when the machine runs. What is absent fails the container that names it, and says so.
#[test]
fn devices_are_found_by_name_allowed_limited_or_told() {
    let project = Project::new(&DEVICES.replace("BUSYBOX", &fixture("oci", "busybox")));
    let image = Image::load(project.build_without_disk()).unwrap();
    let disk = project.path("marked.raw");
    fs::write(&disk, [MARK.as_bytes(), &[0; 4078]].concat()).unwrap();
    fs::File::options().write(true).open(&disk).unwrap().set_len(1 << 20).unwrap();
    let vm = Vm::builder(&image).disk(&disk).boot().unwrap();

    let found = finished(&vm, "reader").1;
    expect(&found, &[("nodes", "yes"), ("serial", "yes")]);
    assert!(found.contains_key("marked"), "neither disk could be read: {found:#?}");
    assert!(!found.contains_key("written"), "a disk that may be read was written to: {found:#?}");
    let found = finished(&vm, "own").1;
    expect(&found, &[("nodes", "yes"), ("owner", "33:44"), ("serial", "yes"), ("made", "no")]);
    assert!(found.contains_key("marked"), "neither disk could be read: {found:#?}");
    assert!(!found.contains_key("written"), "a disk that may be read was written to: {found:#?}");
    expect(&finished(&vm, "stranger").1, &[("node", "no"), ("made", "no")]);

    let limited = finished(&vm, "limited").1;
    let wanted = format!("{} rbps=10485760 wbps=max riops=max wiops=100", limited["number"]);
    expect(&limited, &[("limits", &wanted)]);
    expect(&finished(&vm, "unlimited").1, &[("limits", "none")]);

    for name in ["absent", "absent-limit"] {
        vm.wait_status(&format!("failure of {name}"), BOOT, |status| {
            Ok(status.container(name).is_some_and(|container| container.state == "failed"))
        })
        .unwrap();
        let status = vm.status().unwrap();
        let detail = &status.container(name).unwrap().detail;
        assert!(
            detail.starts_with("device /dev/nvme9n1: no such file or directory (ENOENT): absent: it isn't attached"),
            "{name}: {detail}"
        );
    }
    assert!(vm.console().contains("absent could not be started: device /dev/nvme9n1"), "{}", vm.console().tail(30));
    vm.power_off(secs(60)).unwrap();
}
