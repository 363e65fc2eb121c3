//! The kernel that boots: where it comes from, and which of its modules the appliance carries.

pub mod compression;
pub mod debian;
#[cfg(test)]
pub mod fake;
pub mod image;
pub mod modinfo;
pub mod modules;
pub mod select;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use garboard_images::erofs::Algorithm;

use modules::{Module, Tree};

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
        let disk = select(&select::disk(), &[])?;
        let stage_two = select(&select::stage_two(keeps_data, watched, extra), &direct)?;
        Ok(Modules { direct, disk, stage_two })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_missing_kernel_is_named() {
        let choice = Choice { image: Some("/nowhere/vmlinuz".into()), modules: None };
        let error = Kernel::open(&choice, &|_| {}).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "use kernel /nowhere/vmlinuz: read it: No such file or directory (os error 2)"
        );
    }
}
