//! The containers' images, where they lie.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use garboard_config::Fault;
use garboard_images::source::{self, Image};
use garboard_images::store::Store;

use super::faults;
use crate::declaration::Declaration;
use crate::progress::Progress;

/// The images that a declaration names, each opened once.
pub struct Sources {
    images: BTreeMap<String, Image>,
}

impl Sources {
    /// Opens every image: its manifest and configuration are then verified. All faults are found at once.
    pub fn open(declaration: &Declaration) -> Result<Self, Vec<Fault>> {
        let (mut images, mut found) = (BTreeMap::new(), Vec::new());
        for container in &declaration.appliance.containers {
            if !images.contains_key(&container.image) {
                match source::open(&container.image, &declaration.directory) {
                    Ok(image) => drop(images.insert(container.image.clone(), image)),
                    Err(error) => found.push(faults::of_container(container, &error.into())),
                }
            }
        }
        if found.is_empty() { Ok(Self { images }) } else { Err(found) }
    }

    /// The image of this reference.
    pub fn get(&self, reference: &str) -> Result<&Image> {
        self.images.get(reference).with_context(|| format!("image {reference} was not opened"))
    }

    /// Reads and verifies all layers into the store; else says what is wrong, and with the image of which reference.
    pub fn store_layers(&self, store: &mut Store, progress: &Progress) -> Result<(), (&str, anyhow::Error)> {
        progress.bytes(
            "reading layers",
            self.images.values().flat_map(|image| &image.layers).map(|layer| layer.size).sum(),
        );
        for (reference, image) in &self.images {
            for n in 0..image.layers.len() {
                store
                    .add_layer(image, n, &mut |bytes| progress.advance(bytes))
                    .with_context(|| format!("image {reference}"))
                    .map_err(|error| (reference.as_str(), error))?;
            }
        }
        Ok(())
    }
}
