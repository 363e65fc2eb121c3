//! What is in a built image, read from the image alone.

mod report;
mod seal;
mod source;
mod text;
mod watched;
mod window;

pub use report::Report;

use std::path::Path;

use anyhow::{Context, Result};
use garboard_images::erofs::Reader;

/// Looks into a system image, a disk image or a build's output directory. Nothing in it is trusted, and nothing is told that the
/// root hash doesn't cover.
pub fn inspect(path: &Path) -> Result<Report> {
    let source = source::open(path)?;
    let reader = Reader::new(source.system.clone()).context("read the system image")?;
    let seal = seal::verify(&source, reader.blocks()).with_context(|| format!("verify {}", path.display()))?;
    report::make(reader, &seal, source.kernel_release)
}
