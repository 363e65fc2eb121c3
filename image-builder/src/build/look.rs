//! What a build would find wrong, or warn of, without building: everything up to the plan.

use garboard_config::Fault;
use garboard_images::store::Store;

use super::sources::Sources;
use super::{faults, launch, system};
use crate::declaration::Declaration;
use crate::kernel::{self, Choice, Kernel};
use crate::progress::Progress;

/// The warnings; else all faults. Reads the images' layers, as users and owners stand in them, and the kernel if the declaration
/// has anything to say about it.
pub fn look(declaration: &Declaration, progress: &Progress) -> Result<Vec<String>, Vec<Fault>> {
    let mut found = Vec::new();
    let kernel = open_kernel(declaration, progress).unwrap_or_else(|error| {
        found.push(faults::of_kernel(&error));
        None
    });
    let compression = system::algorithm(declaration.appliance.system.compression);
    if let Some(Err(error)) = kernel.as_ref().map(|kernel| kernel.require_compression(compression)) {
        found.push(faults::of_compression(&error));
    }
    let by_uefi = kernel.as_ref().map(|kernel| kernel::image::require_efi(&kernel.image));
    let by_uefi = by_uefi
        .and_then(Result::err)
        .map(|error| format!("{}; `build --no-disk` makes an image for other machines only", crate::sentence(&error)));
    let warnings = containers(declaration, kernel.as_ref().map(|kernel| kernel.release.as_str()), progress);
    match warnings {
        Ok(warnings) if found.is_empty() => Ok(warnings.into_iter().chain(by_uefi).collect()),
        Ok(_) => Err(found),
        Err(more) => Err([found, more].concat()),
    }
}

fn containers(
    declaration: &Declaration,
    release: Option<&str>,
    progress: &Progress,
) -> Result<Vec<String>, Vec<Fault>> {
    let containers = &declaration.appliance.containers;
    // What is nobody's in particular is told of the first container.
    let of_first = |error: anyhow::Error| containers.first().map(|first| faults::of_container(first, &error));
    let sources = Sources::open(declaration)?;
    let mut store = Store::new(&std::env::temp_dir()).map_err(|error| Vec::from_iter(of_first(error.into())))?;
    sources.store_layers(&mut store, progress).map_err(|(reference, error)| {
        let concerned = containers.iter().find(|container| container.image == reference);
        Vec::from_iter(concerned.map(|container| faults::of_container(container, &error)))
    })?;
    let launches = launch::all(declaration, &sources, &store, release)?;
    Ok(launches.into_iter().flat_map(|compiled| compiled.warnings).collect())
}

/// The kernel, if the declaration chooses one or wants more of its modules.
fn open_kernel(declaration: &Declaration, progress: &Progress) -> anyhow::Result<Option<Kernel>> {
    let declared = &declaration.appliance.kernel;
    if declared.image.is_none() && declared.extra_modules.is_empty() {
        return Ok(None);
    }
    let path = |path: &Option<_>| path.as_deref().map(|path| declaration.path(path));
    let choice = Choice { image: path(&declared.image), modules: path(&declared.modules) };
    let kernel = Kernel::open(&choice, &|line| progress.say(line))?;
    let watched = declaration.appliance.system.watchdog.is_some();
    kernel.modules(declaration.appliance.needs_data(), watched, &declared.extra_modules)?;
    Ok(Some(kernel))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::fake;

    #[test]
    fn a_kernel_that_can_not_read_the_image_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let faults = |release: &str| {
            std::fs::write(directory.path().join("vmlinuz"), fake::image(release)).unwrap();
            let file = directory.path().join("appliance.toml");
            let text = "name = \"x\"\n[kernel]\nimage = \"vmlinuz\"\n[system]\ncompression = \"zstd\"\n\
                        [containers.a]\nimage = \"nowhere\"\n";
            std::fs::write(&file, text).unwrap();
            let declaration = crate::declaration::read(&file).unwrap();
            let faults = look(&declaration, &Progress::new(true)).unwrap_err();
            faults.into_iter().map(|fault| (fault.about[0].join("."), fault.message)).collect::<Vec<_>>()
        };
        let old = faults("6.1.0-test");
        assert!(old.iter().any(|(about, text)| about == "system.compression" && text.contains("zstd")), "{old:?}");
        // Control: the other fault is the container's.
        let new = faults("6.12.0-test");
        assert!(new.len() == 1 && new[0].0.starts_with("containers.a"), "{new:?}");
    }
}
