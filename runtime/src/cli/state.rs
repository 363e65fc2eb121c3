//! `state`: one container as JSON.

use super::args::Name;
use crate::container::record::Status;
use crate::container::store::Store;
use crate::container::{Error, Result};

#[inline(never)]
pub(super) fn run(store: &Store, arguments: &Name) -> Result<u8> {
    let entry = store.find(&arguments.id)?;
    let (record, status) = entry.look()?;
    let pid = if status == Status::Stopped { 0 } else { record.pid };
    let json = serde_json::to_string_pretty(&record.view(status.text(), pid));
    super::print(&format!("{}\n", json.map_err(|error| Error::new(format!("print the state: {error}")))?))?;
    Ok(0)
}
