//! `start`: the program of a created container.

use super::args::Name;
use crate::container::store::Store;
use crate::container::{Result, life};

#[inline(never)]
pub(super) fn run(store: &Store, arguments: &Name) -> Result<u8> {
    let entry = store.find(&arguments.id)?;
    let lock = entry.lock()?;
    life::start(&entry, lock)?;
    Ok(0)
}
