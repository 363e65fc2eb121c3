//! `ps`: a container's processes, as this pid namespace counts them.

use super::args::{Format, Ps};
use crate::container::error::During;
use crate::container::record::Status;
use crate::container::store::Store;
use crate::container::{Error, Result, cgroup, process};

#[inline(never)]
pub(super) fn run(store: &Store, arguments: &Ps) -> Result<u8> {
    let entry = store.find(&arguments.name.id)?;
    let record = entry.record()?;
    let (status, _) = entry.status(&record)?;
    // What is left of one that has ended is in its cgroup.
    let ended = status == Status::Stopped && cgroup::open(&record)?.is_none();
    let mut pids = if ended { Vec::new() } else { process::of_container(&record)? };
    pids.sort_unstable();
    let text = match arguments.format {
        Format::Json => {
            serde_json::to_string(&pids).map_err(|error| Error::new(format!("print processes: {error}")))?
        }
        Format::Table => table(&pids, &arguments.options)?,
    };
    super::print(&format!("{}\n", text.trim_end()))?;
    Ok(0)
}

/// The lines of ps(1) about these processes, or where there is no ps(1) just the numbers.
fn table(pids: &[i32], options: &[String]) -> Result<String> {
    let usual = ["-ef".to_owned()];
    let output = std::process::Command::new("ps").args(if options.is_empty() { &usual } else { options }).output();
    let output = match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(numbers(pids)),
        other => other.during(|| "run ps")?,
    };
    if !output.status.success() {
        return Err(Error::new(format!("run ps: {}", String::from_utf8_lossy(&output.stderr).trim_end())));
    }
    select(&String::from_utf8_lossy(&output.stdout), pids)
        .ok_or_else(|| Error::new("run ps: its table has no column PID, so nothing can be found in it"))
}

fn numbers(pids: &[i32]) -> String {
    std::iter::once("PID".to_owned()).chain(pids.iter().map(i32::to_string)).collect::<Vec<_>>().join("\n")
}

/// The heading, and the rows whose PID is among these.
fn select(table: &str, pids: &[i32]) -> Option<String> {
    let mut lines = table.lines();
    let heading = lines.next()?;
    let column = heading.split_whitespace().position(|name| name == "PID")?;
    let wanted = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|text| text.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    Some(std::iter::once(heading).chain(lines.filter(wanted)).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn rows_are_selected_by_the_pid_column() {
        let table = "UID  PID  PPID CMD\nroot   7  1 sh\nroot  70  7 sleep 7\n";
        assert_eq!(super::select(table, &[7]).unwrap(), "UID  PID  PPID CMD\nroot   7  1 sh");
        assert_eq!(super::select("USER CMD\n", &[7]), None);
        assert_eq!(super::numbers(&[7, 8]), "PID\n7\n8");
    }
}
