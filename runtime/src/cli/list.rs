//! `list`: all containers of a root.

use super::args::{Format, List};
use super::log;
use crate::container::record::{Record, Status};
use crate::container::store::Store;
use crate::container::{Error, Result};

#[inline(never)]
pub(super) fn run(store: &Store, arguments: &List) -> Result<u8> {
    let ids = store.ids()?;
    if arguments.quiet {
        super::print(&ids.iter().map(|id| format!("{id}\n")).collect::<String>())?;
        return Ok(0);
    }
    let mut containers = Vec::new();
    for id in &ids {
        match look(store, id) {
            Ok(found) => containers.push(found),
            // Deleted while this command ran, or damaged: the others are there all the same.
            Err(error) => log::warn(&error.to_string()),
        }
    }
    let views: Vec<_> = containers.iter().map(|(record, status, pid)| record.view(status.text(), *pid)).collect();
    let text = match arguments.format {
        // Without any it is `null`, as with runc.
        Format::Json => serde_json::to_string(&(!views.is_empty()).then_some(views))
            .map_err(|error| Error::new(format!("print the list: {error}")))?,
        Format::Table => table(&containers),
    };
    super::print(&format!("{}\n", text.trim_end()))?;
    Ok(0)
}

fn look(store: &Store, id: &str) -> Result<(Record, Status, i32)> {
    let entry = store.find(id)?;
    let (record, status) = entry.look()?;
    let pid = if status == Status::Stopped { 0 } else { record.pid };
    Ok((record, status, pid))
}

fn table(containers: &[(Record, Status, i32)]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    for (record, status, pid) in containers {
        rows.push([
            record.id.clone(),
            pid.to_string(),
            status.text().to_owned(),
            record.bundle.clone(),
            record.created.clone(),
            record.owner_name(),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row.get(column).map_or(0, String::len)).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("   ").trim_end())
    };
    rows.iter().map(line).collect()
}
