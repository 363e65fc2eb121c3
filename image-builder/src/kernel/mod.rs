//! The kernel that boots: where it comes from, and which of its modules the appliance carries.

pub mod compression;
pub mod debian;
#[cfg(test)]
pub mod fake;
pub mod image;
pub mod modinfo;
pub mod modules;
pub mod select;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use garboard_images::erofs::Algorithm;

use modules::{Module, Tree};

/// Directories of drivers for disks and for what they are attached to, below `drivers`.
const STORAGE: [&str; 9] = ["ata", "block", "message", "mmc", "nvme", "scsi", "ufs", "usb", "virtio"];
/// Where modules lie that are no part of the kernel's own tree: what they drive can't be told from that.
const ADDED: [&str; 2] = ["updates", "extra"];

/// Which kernel a person asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// The kernel image; `None`: the distribution's.
    pub image: Option<PathBuf>,
    /// Its modules; `None` with an image: it has none.
    pub modules: Option<PathBuf>,
}

/// A kernel to boot.
#[derive(Debug)]
pub struct Kernel {
    /// `uname -r`, such as `6.12.1-amd64`.
    pub release: String,
    /// The bytes of its image (bzImage).
    pub image: Vec<u8>,
    tree: Tree,
    /// Its configuration, if that lies beside the image as distributions have it.
    config: Option<String>,
}

/// The modules an appliance carries.
#[derive(Debug, Default)]
pub struct Modules {
    /// In the initrd for direct boot, in load order.
    pub direct: Vec<Module>,
    /// In the disk image's initrd, in load order: the same and more.
    pub disk: Vec<Module>,
    /// In the system image, in load order.
    pub stage_two: Vec<Module>,
}

impl Kernel {
    /// Opens the chosen kernel, fetching the distribution's if none was chosen.
    pub fn open(choice: &Choice, say: &dyn Fn(&str)) -> Result<Self> {
        let Choice { image, modules } = match choice.image {
            Some(_) => choice.clone(),
            None => debian::fetch(say)?,
        };
        let image = image.unwrap_or_default();
        Self::read(&image, modules.as_deref()).with_context(|| format!("use kernel {}", image.display()))
    }

    fn read(image: &Path, modules: Option<&Path>) -> Result<Self> {
        let bytes = std::fs::read(image).context("read it")?;
        let release = image::release(&bytes)?;
        image::require_supported(&release)?;
        let tree = modules.map_or_else(|| Ok(Tree::monolithic()), Tree::scan)?;
        let config = std::fs::read_to_string(image.with_file_name(format!("config-{release}"))).ok();
        Ok(Self { release, image: bytes, tree, config })
    }

    /// Refuses a compression of the system image that this kernel is known not to read.
    pub fn require_compression(&self, algorithm: Option<Algorithm>) -> Result<()> {
        algorithm.map_or(Ok(()), |algorithm| compression::require(algorithm, &self.release, self.config.as_deref()))
    }

    /// The modules to carry, those of the declaration included.
    pub fn modules(&self, keeps_data: bool, watched: bool, extra: &[String]) -> Result<Modules> {
        let select = |wanted: &[_], loaded: &[_]| self.tree.select(wanted, loaded, &self.release);
        let direct = select(&select::direct(), &[])?;
        let storage: Vec<String> =
            extra.iter().filter(|name| self.tree.file(name).is_some_and(is_storage)).cloned().collect();
        let disk = select(&select::disk(&storage), &[])?;
        let stage_two = select(&select::stage_two(keeps_data, watched, extra), &direct)?;
        Ok(Modules { direct, disk, stage_two })
    }
}

impl Modules {
    /// What a person should know of the modules that were chosen.
    pub fn warnings(&self) -> BTreeSet<String> {
        let all = self.direct.iter().chain(&self.disk).chain(&self.stage_two);
        let warn = |module: &Module| {
            let first = module.firmware.first()?;
            let name = &module.name;
            Some(format!("module {name} may ask for firmware ({first}), and an appliance carries none"))
        };
        all.filter_map(warn).collect()
    }
}

/// Whether a driver may be one of those by which a disk is reached, by where it lies in the kernel's tree.
fn is_storage(file: &Path) -> bool {
    let parts: Vec<&str> = file.iter().filter_map(|part| part.to_str()).collect();
    // The last one: the tree itself may lie in anything.
    let within = parts.iter().rposition(|part| *part == "drivers").map_or(parts.as_slice(), |at| &parts[at + 1..]);
    match within {
        // Intel's Volume Management Device has NVMe disks behind it.
        ["pci", "controller", ..] => true,
        [kind, ..] if STORAGE.contains(kind) => true,
        _ => within.iter().any(|part| ADDED.contains(part)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_of_disks_are_known_by_their_place() {
        let is = |file: &str| is_storage(Path::new(file));
        for file in [
            "/k/kernel/drivers/scsi/vmw_pvscsi.ko",
            "/k/kernel/drivers/ufs/host/ufshcd-pci.ko.xz",
            "/k/kernel/drivers/pci/controller/vmd.ko",
            "/srv/drivers/lib/modules/6.12/kernel/drivers/nvme/host/nvme.ko",
            "/srv/drivers/lib/modules/6.12/updates/dkms/raid.ko",
        ] {
            assert!(is(file), "{file}");
        }
        for file in ["/k/kernel/drivers/net/tun.ko", "/k/kernel/drivers/pci/pci-stub.ko", "/k/kernel/fs/xfs/xfs.ko"] {
            assert!(!is(file), "{file}");
        }
    }

    #[test]
    fn a_chosen_kernel_is_opened_without_fetching() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("vmlinuz");
        std::fs::write(&image, fake::image("6.12.1-test")).unwrap();
        let choice = Choice { image: Some(image), modules: None };
        let kernel = Kernel::open(&choice, &|_| panic!("nothing to say")).unwrap();
        assert_eq!(kernel.release, "6.12.1-test");
        assert!(kernel.modules(true, false, &[]).unwrap().disk.is_empty());
    }

    #[test]
    fn a_named_driver_of_disks_is_in_the_disks_initrd_and_firmware_is_warned_of() {
        let dir = tempfile::tempdir().unwrap();
        let (scsi, gpu) = (dir.path().join("kernel/drivers/scsi/mpt"), dir.path().join("kernel/drivers/gpu"));
        for made in [&scsi, &gpu] {
            std::fs::create_dir_all(made).unwrap();
        }
        for name in ["virtio_blk", "dm-verity", "erofs", "overlay", "virtio_net", "virtio_console"] {
            fake::module(dir.path(), name, "6.12.1-test", &[]);
        }
        fake::module(&scsi, "mpt-sas", "6.12.1-test", &[]);
        fake::module(&gpu, "show", "6.12.1-test", &["firmware=show/it.bin"]);
        let image = dir.path().join("vmlinuz");
        std::fs::write(&image, fake::image("6.12.1-test")).unwrap();
        let kernel = Kernel::open(&Choice { image: Some(image), modules: Some(dir.path().into()) }, &|_| {}).unwrap();
        let modules = kernel.modules(false, false, &["mpt_sas".into(), "show".into()]).unwrap();
        let has = |modules: &[Module], name: &str| modules.iter().any(|module| module.name == name);
        assert!(
            has(&modules.disk, "mpt_sas") && has(&modules.stage_two, "mpt_sas") && !has(&modules.direct, "mpt_sas")
        );
        assert!(has(&modules.stage_two, "show") && !has(&modules.disk, "show"));
        let warnings: Vec<String> = modules.warnings().into_iter().collect();
        assert_eq!(warnings, ["module show may ask for firmware (show/it.bin), and an appliance carries none"]);
    }

    #[test]
    fn a_missing_kernel_is_named() {
        let choice = Choice { image: Some("/nowhere/vmlinuz".into()), modules: None };
        let error = Kernel::open(&choice, &|_| {}).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "use kernel /nowhere/vmlinuz: read it: No such file or directory (os error 2)"
        );
    }
}
