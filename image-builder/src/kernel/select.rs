//! Which modules an appliance wants, and why.

/// A module that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name, `-` and `_` alike.
    pub name: String,
    /// What for, in a few words for the error if it is missing.
    pub reason: String,
    /// Load it only if the machine has a device that it serves.
    pub only_for_devices: bool,
    /// Do without if the kernel has none.
    pub optional: bool,
}

impl Wanted {
    /// Wanted in every boot.
    pub fn always(name: &str, reason: &str) -> Self {
        Self { name: name.to_owned(), reason: reason.to_owned(), only_for_devices: false, optional: false }
    }

    /// Wanted if the machine has a device for it.
    pub fn device(name: &str, reason: &str) -> Self {
        Self { only_for_devices: true, ..Self::always(name, reason) }
    }

    /// Not missed by a kernel that has none.
    pub fn if_present(self) -> Self {
        Self { optional: true, ..self }
    }
}

/// What reaches the system image of a virtual machine and mounts the first container: the modules of the initrd for direct
/// boot. A bus comes before what is on it. Each module costs boot time even if it isn't loaded, so there are no others.
pub fn direct() -> Vec<Wanted> {
    let mut wanted = vec![
        Wanted::device("virtio_mmio", "the bus of QEMU's microvm and of Firecracker").if_present(),
        Wanted::device("virtio_pci", "the bus of virtual machines").if_present(),
        Wanted::device("virtio_blk", "the disk of virtual machines"),
        Wanted::device("nvme", "a disk that the system image may be on").if_present(),
    ];
    wanted.extend(system());
    wanted
}

/// The same for machines that boot from a disk of their own, whatever that is attached to: the modules of the disk image's
/// initrd. `storage` are those that the declaration names and that a disk may need: in the system image they would lie on the very disk.
pub fn disk(storage: &[String]) -> Vec<Wanted> {
    let attached = "a disk that the system image may be on";
    let mut wanted = direct();
    let device = |name| Wanted::device(name, attached).if_present();
    let mut more = vec![device("virtio_scsi"), device("ahci")];
    more.extend(storage.iter().map(|name| extra(name)));
    // What is on the buses before. Those of named drivers may show their disks later than anybody looks for what they need.
    let late = Wanted::always("sd_mod", attached).if_present();
    more.push(if storage.is_empty() { device("sd_mod") } else { late });
    let system = wanted.len() - system().len();
    wanted.splice(system..system, more);
    wanted
}

/// What makes a root of the system image, wherever it is.
fn system() -> Vec<Wanted> {
    vec![
        Wanted::always("dm_verity", "seals the system image"),
        Wanted::always("erofs", "the system image's filesystem"),
        Wanted::always("overlay", "containers' root filesystems"),
    ]
}

/// What else the machine may need: these are in the system image, and `named` are those of the declaration.
///
/// `watched`: the machine is to have a watchdog. The one in the kernel comes after those in hardware, so that it is the first only
/// where there is no other.
pub fn stage_two(keeps_data: bool, watched: bool, named: &[String]) -> Vec<Wanted> {
    let network = "a network interface";
    let mut wanted = vec![
        Wanted::device("virtio_net", "the network of virtual machines"),
        Wanted::device("e1000e", network).if_present(),
        Wanted::device("ena", network).if_present(),
        Wanted::device("gve", network).if_present(),
        Wanted::device("virtio_console", "the status port"),
        Wanted::device("virtio_rng", "randomness from the host").if_present(),
        Wanted::device("vmw_vsock_virtio_transport", "sockets to the host").if_present(),
        Wanted::device("efi_pstore", "a place in UEFI's flash for what the kernel says as it dies").if_present(),
    ];
    if watched {
        let watchdog = |name| Wanted::device(name, "a watchdog").if_present();
        // Intel's is a device that the driver of one of two others makes.
        wanted.extend(["i6300esb", "lpc_ich", "i2c_i801", "iTCO_wdt", "sp5100_tco"].map(watchdog));
        wanted.push(Wanted::always("softdog", "a watchdog for machines without one"));
    }
    if keeps_data {
        wanted.push(Wanted::always("ext4", "the data partition's filesystem"));
    }
    wanted.extend(named.iter().map(|name| extra(name)));
    wanted
}

/// A person asked for it by name: load it whether or not a device calls for it, and miss it loudly.
fn extra(name: &str) -> Wanted {
    Wanted::always(name, "named in kernel.extra_modules")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_all_that_direct_boot_has_and_drivers_before_the_filesystem() {
        let names = |wanted: Vec<Wanted>| wanted.into_iter().map(|one| one.name).collect::<Vec<_>>();
        let (direct, disk) = (names(direct()), names(disk(&["mpt3sas".to_owned()])));
        assert!(direct.iter().all(|name| disk.contains(name)));
        let place = |name: &str| disk.iter().position(|other| other == name).unwrap();
        assert!(place("virtio_pci") < place("virtio_scsi") && place("sd_mod") < place("dm_verity"), "{disk:?}");
        assert!(place("mpt3sas") < place("sd_mod"), "{disk:?}");
    }

    #[test]
    fn what_makes_a_watchdogs_device_comes_before_it() {
        let wanted = stage_two(false, true, &[]);
        let place = |name: &str| wanted.iter().position(|one| one.name == name).unwrap();
        for maker in ["lpc_ich", "i2c_i801"] {
            assert!(place(maker) < place("iTCO_wdt") && wanted[place(maker)].optional, "{maker}");
        }
        assert!(place("sp5100_tco") < place("softdog"));
    }
}
