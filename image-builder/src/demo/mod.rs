//! The demo appliance: its declaration, and its image made from the embedded program.

mod layout;

use std::path::Path;

use anyhow::{Context, Result};

/// The demo's declaration.
pub const DECLARATION: &str = include_str!("../../demo-appliance/appliance.toml");
/// Where the declaration expects the image.
pub const IMAGE: &str = "images/demo";

/// Writes the demo's image, an OCI layout, below `directory`.
pub fn write_image(directory: &Path) -> Result<()> {
    let at = directory.join(IMAGE);
    layout::write(crate::embedded::DEMO, &at).with_context(|| format!("write the demo's image to {}", at.display()))
}
