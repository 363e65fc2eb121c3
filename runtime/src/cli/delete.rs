//! `delete`: a stopped container, or with `--force` any.

use super::args::Delete;
use super::matching;
use crate::container::store::{Entry, Store};
use crate::container::{Result, life};

#[inline(never)]
pub(super) fn run(store: &Store, arguments: &Delete) -> Result<u8> {
    let delete = |id: &str| delete(store, id, arguments.force);
    if arguments.regex {
        return matching::each(store, &arguments.name.id, delete);
    }
    delete(&arguments.name.id)?;
    Ok(0)
}

fn delete(store: &Store, id: &str, force: bool) -> Result<()> {
    let lock = |entry: &Entry| if force { entry.lock_by_force() } else { entry.lock() };
    let found = store.find(id).and_then(|entry| lock(&entry).map(|lock| (entry, lock)));
    let (entry, lock) = match found {
        // There is none, or somebody else was faster.
        Err(_) if force && !store.ids()?.iter().any(|known| known == id) => return Ok(()),
        other => other?,
    };
    life::delete(&entry, &lock, force)
}
