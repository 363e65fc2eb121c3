//! `delete`: a stopped container, or with `--force` any.

use super::args::Delete;
use crate::container::store::Store;
use crate::container::{Result, life};

pub(super) fn run(store: &Store, arguments: &Delete) -> Result<u8> {
    let id = &arguments.name.id;
    let found = store.find(id).and_then(|entry| entry.lock().map(|lock| (entry, lock)));
    let (entry, lock) = match found {
        // There is none, or somebody else was faster.
        Err(_) if arguments.force && !store.ids()?.contains(id) => return Ok(0),
        other => other?,
    };
    life::delete(&entry, &lock, arguments.force)?;
    Ok(0)
}
