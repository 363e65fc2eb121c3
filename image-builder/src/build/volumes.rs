//! Where volumes lie on the machine, what new ones are filled with, and what an image's own ones hide.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use garboard_config::{Appliance, Container, MountSource, Volume};
use garboard_images::source::Image;
use garboard_images::store::Store;
use garboard_images::view::View;
use garboard_runtime::plan::Fill;
use garboard_runtime::spec::Options;

use super::sources::Sources;

/// Directory of volumes that are kept.
const DATA_VOLUMES: &str = "/data/volumes";
/// Directory of the filesystems that hold volumes in memory.
const MEMORY_VOLUMES: &str = "/run/garboard/volumes";

/// Where the filesystem of a volume in memory is mounted.
pub fn filesystem(name: &str) -> String {
    format!("{MEMORY_VOLUMES}/{name}")
}

/// The directory of the declared volume `name`; `None` if there is none of that name.
pub fn directory(appliance: &Appliance, name: &str) -> Option<String> {
    Some(match appliance.volumes.get(name)? {
        Volume::Data => format!("{DATA_VOLUMES}/{name}"),
        // A directory in the filesystem and not its root: like any other volume it is made as the image has what it covers.
        Volume::Tmpfs { .. } => format!("{}/files", filesystem(name)),
    })
}

/// What new volumes are filled with, by name: what the first container that mounts the volume has there, of those whose image
/// has anything there and that don't say `nocopy`. Containers stand in the order in which they start.
pub fn fills(appliance: &Appliance, sources: &Sources, store: &Store) -> Result<BTreeMap<String, Fill>> {
    let mut fills = BTreeMap::new();
    for (container, name, target) in candidates(appliance) {
        let image = sources.get(&container.image)?;
        let object = || format!("container {}: volume {name}", container.name);
        if fills.contains_key(name) || !store.view(image)?.has_entries(target).with_context(object)? {
            continue;
        }
        let directory = directory(appliance, name).with_context(object)?;
        let fill = Fill { directory, layers: store.lowers(image)?, path: target.to_owned() };
        fills.insert(name.to_owned(), fill);
    }
    Ok(fills)
}

/// What the empty tmpfs hides that is mounted on a volume of the image where nothing is declared to be, in sentences.
pub fn hidden(image: &Image, options: &Options, files: &View<'_>) -> Result<Vec<String>> {
    let volumes = image.config.config().as_ref().and_then(|config| config.volumes().as_ref());
    let mut hidden = Vec::new();
    for volume in volumes.filter(|_| options.image_volumes.is_some()).into_iter().flatten() {
        let declared = options.mounts.iter().any(|mount| Path::new(&mount.target) == Path::new(volume));
        if !declared && files.has_entries(volume).with_context(|| format!("volume {volume} of the image"))? {
            hidden.push(format!(
                "the image's files in {volume} are hidden: with `read_only` an empty tmpfs is mounted there; a volume that is \
                 declared there is filled with them"
            ));
        }
    }
    hidden.sort();
    Ok(hidden)
}

/// Every mount of a volume that may be copied to: container, volume and target.
fn candidates(appliance: &Appliance) -> impl Iterator<Item = (&Container, &str, &str)> {
    appliance.containers.iter().flat_map(|container| {
        let mounts = container.mounts.iter().filter(|mount| !mount.nocopy);
        mounts.filter_map(move |mount| Some((container, volume(&mount.source)?, mount.target.as_str())))
    })
}

/// The fills that must be done before this container starts: those of all of its volumes, whoever they come from.
pub fn fills_of(container: &Container, fills: &BTreeMap<String, Fill>) -> Vec<Fill> {
    let mut of_container: Vec<Fill> = Vec::new();
    for fill in container.mounts.iter().filter_map(|mount| fills.get(volume(&mount.source)?)) {
        if !of_container.contains(fill) {
            of_container.push(fill.clone());
        }
    }
    of_container
}

fn volume(source: &MountSource) -> Option<&str> {
    if let MountSource::Volume(name) = source { Some(name) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn only_volumes_without_nocopy_are_candidates_in_the_order_of_starts() {
        let appliance = testing::appliance(
            "name = \"x\"\n[volumes.v]\n[volumes.w]\n\
             [containers.last]\nimage = \"i\"\nvolumes = [\"v:/l\", \"w:/w\"]\ntmpfs = \"/t\"\ndepends_on = [\"first\"]\n\
             [containers.first]\nimage = \"i\"\nvolumes = [\"v:/f\", \"w:/w:nocopy\"]\n",
        );
        let found: Vec<_> =
            candidates(&appliance).map(|(c, volume, target)| (c.name.as_str(), volume, target)).collect();
        assert_eq!(found, [("first", "v", "/f"), ("last", "v", "/l"), ("last", "w", "/w")]);
    }

    #[test]
    fn whoever_mounts_a_volume_waits_for_its_fill() {
        let appliance = testing::appliance(
            "name = \"x\"\n[volumes.v]\n[volumes.w]\n\
             [containers.a]\nimage = \"i\"\nvolumes = [\"v:/a:nocopy\", \"v:/b:ro\", \"w:/w\"]\n",
        );
        let fill = Fill { directory: "/data/volumes/v".to_owned(), layers: vec![], path: "/x".to_owned() };
        let fills = BTreeMap::from([("v".to_owned(), fill.clone())]);
        assert_eq!(fills_of(&appliance.containers[0], &fills), [fill]);
    }
}
