//! `garboard build`: from a declaration to bootable files.
//!
//! What can be decided is decided first ([`launch`], [`plan`], [`cmdline`]: no I/O); then everything is written once, to a
//! scratch directory, and moved into place. Equal input gives equal bytes: nothing written has a time, a random number or a
//! path of this machine.

mod cmdline;
pub mod faults;
mod health;
mod launch;
pub mod look;
pub mod manifest;
mod plan;
pub mod sources;
mod system;
mod volumes;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use garboard_images::store::Store;

use crate::declaration::Declaration;
use crate::disk::{self, DiskSpec};
use crate::kernel::{self, Kernel};
use crate::output::{MANIFEST, Output};
use crate::progress::Progress;
use crate::{embedded, initrd};

use manifest::Manifest;
use sources::Sources;

/// What to build.
#[derive(Debug)]
pub struct Options<'a> {
    /// The declaration.
    pub declaration: &'a Declaration,
    /// The kernel, if not the distribution's.
    pub kernel: kernel::Choice,
    /// Make the disk image for UEFI machines too.
    pub disk: bool,
    /// The output directory.
    pub output: &'a Path,
}

/// The appliance's version in the boot menu and in the name of its boot entry. Updates will count it up.
const VERSION: &str = "1";

/// Builds an appliance and says what was made.
pub fn build(options: &Options<'_>, progress: &Progress) -> Result<Manifest> {
    let declaration = options.declaration;
    let appliance = &declaration.appliance;

    progress.step("opening images");
    let sources = Sources::open(declaration).map_err(|faults| declaration.wrong(faults))?;
    progress.step("finding the kernel");
    let kernel = Kernel::open(&options.kernel, &|line| progress.say(line))?;
    if options.disk {
        kernel::image::require_efi(&kernel.image)?;
    }
    let modules =
        kernel.modules(appliance.needs_data(), appliance.system.watchdog.is_some(), &appliance.kernel.extra_modules)?;
    for warning in modules.warnings() {
        progress.say(&format!("warning: {warning}"));
    }
    let compression = system::algorithm(appliance.system.compression);
    kernel.require_compression(compression)?;

    let output = Output::begin(options.output)?;
    let mut store = Store::new(output.scratch())?;
    store.compress(compression);
    sources.store_layers(&mut store, progress).map_err(|(_, error)| error)?;

    progress.step("compiling the plan");
    let launches = launch::all(declaration, &sources, &store, Some(&kernel.release));
    let launches = launches.map_err(|faults| declaration.wrong(faults))?;
    for warning in launches.iter().flat_map(|compiled| &compiled.warnings) {
        progress.say(&format!("warning: {warning}"));
    }
    let fills = volumes::fills(appliance, &sources, &store)?;
    let plan = plan::make(appliance, launches, &fills, &modules.stage_two)?;

    progress.step("writing the system image");
    let system = output.path(manifest::SYSTEM);
    let verity = system::write(store, &plan, &modules.stage_two, &system)?;
    let cmdline = cmdline::make(&verity.root_hash_hex(), &appliance.kernel.cmdline);

    let write = |name: &str, bytes: &[u8]| fs::write(output.path(name), bytes).with_context(|| format!("write {name}"));
    write(manifest::KERNEL, &kernel.image)?;
    write(manifest::INITRD, &initrd::build(embedded::INIT, &modules.direct)?)?;
    let data = output.path(manifest::DATA);
    if let Some(wanted) = &plan.data {
        progress.step("making the data filesystem");
        disk::data::make(&wanted.uuid, appliance.data.size.unwrap_or(disk::data::SIZE), &data)?;
    }
    if options.disk {
        progress.step("writing the disk image");
        // It doesn't stay: on the disk it is part of the UKI.
        let initrd = output.scratch().join("initrd-of-disk");
        fs::write(&initrd, initrd::build(embedded::INIT, &modules.disk)?).context("write the disk's initrd")?;
        let spec = DiskSpec {
            version: VERSION,
            title: &appliance.name,
            kernel: &output.path(manifest::KERNEL),
            release: &kernel.release,
            initrd: &initrd,
            cmdline: &cmdline::for_disk(&cmdline),
            system: &system,
            verity: &verity,
            data: plan.data.as_ref().map(|wanted| (data.as_path(), wanted.uuid)),
        };
        disk::write(&spec, &output.path(manifest::DISK)).context("(--no-disk builds without it)")?;
    }

    let manifest = Manifest::new(appliance, &verity.root_hash_hex(), &cmdline, &kernel.release, options.disk);
    write(MANIFEST, manifest.to_json().as_bytes())?;
    output.commit()?;
    Ok(manifest)
}
