//! What is in a built image, read from the image alone.

mod report;
mod seal;
mod source;
mod text;
mod window;

pub use report::Report;

use std::path::Path;

use anyhow::{Context, Result};
use garboard_images::erofs::Reader;

/// Looks into a system image, a disk image or a build's output directory. Nothing in it is trusted.
pub fn inspect(path: &Path) -> Result<Report> {
    let source = source::open(path)?;
    let seal = seal::read(&source)?;
    let kernel = source.kernel_release.clone();
    let reader = Reader::new(source.system).context("read the system image")?;
    report::make(reader, &seal, kernel)
}
