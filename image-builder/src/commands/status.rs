//! `garboard status`: how a running appliance is.

use std::process::ExitCode;

use anyhow::{Context, Result};
use garboard_qemu::{Previous, Snapshot};
use serde_json::json;

use super::port;
use crate::cli;
use crate::plain::plain;

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

/// Runs the command.
pub fn run(options: &cli::Status) -> Result<ExitCode> {
    let mut reply = port::ask(&options.target, json!({"request": "status"}))?;
    let snapshot = reply["snapshot"].take();
    if options.target.json {
        super::print_json(&snapshot)?;
        return Ok(ExitCode::SUCCESS);
    }
    let snapshot: Snapshot = serde_json::from_value(snapshot).context("read the appliance's answer")?;
    for (line, colour) in lines(&snapshot) {
        super::print_coloured(&format!("{colour}{}{}\n", plain(&line), if colour.is_empty() { "" } else { PLAIN }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Each line with its colour.
fn lines(snapshot: &Snapshot) -> Vec<(String, &'static str)> {
    let ready = if snapshot.ready { "as declared" } else { "not as declared" };
    let seconds = snapshot.uptime_ms / 1000;
    let head = format!("{} is {}, {ready}, up for {seconds} s", snapshot.appliance, snapshot.state);
    let mut lines = vec![(head, if snapshot.ready { GREEN } else { YELLOW })];
    let table = snapshot.table();
    let mut rows = table.lines();
    lines.extend(rows.next().map(|head| (head.to_owned(), "")));
    for (row, container) in rows.zip(&snapshot.containers) {
        let colour = match container.state.as_str() {
            "failed" => RED,
            _ if container.as_declared => GREEN,
            _ => YELLOW,
        };
        lines.push((row.to_owned(), colour));
    }
    let network = format!("network: {} {}", snapshot.network.state, snapshot.network.addresses.join(", "));
    lines.push((network.trim_end().to_owned(), ""));
    let data = format!("data: {} {}", snapshot.data.state, snapshot.data.detail);
    lines.push((data.trim_end().to_owned(), ""));
    if let Some(previous) = &snapshot.previous {
        lines.extend(before(previous));
    }
    lines
}

/// How the boot before ended, with the kernel's last lines if it has left any.
fn before(previous: &Previous) -> Vec<(String, &'static str)> {
    let orderly = ["first_boot", "reboot", "poweroff", "halt", "unknown"].contains(&previous.cause.as_str());
    let number = previous.boot.map(|boot| format!(" (number {boot})")).unwrap_or_default();
    let mut lines = vec![(format!("boot before{number}: {}", previous.text), if orderly { "" } else { YELLOW })];
    lines.extend(previous.kernel.iter().map(|line| (format!("  kernel: {line}"), "")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use garboard_qemu::ContainerStatus;

    #[test]
    fn how_the_boot_before_ended_is_told_with_the_kernel_s_own_words() {
        let previous = |cause: &str| Previous {
            cause: cause.into(),
            text: "its kernel panicked".into(),
            boot: Some(7),
            kernel: vec!["[ 1.0] Kernel panic".into()],
            ..Previous::default()
        };
        let told = |cause: &str| lines(&Snapshot { previous: Some(previous(cause)), ..Snapshot::default() });
        let panic = told("panic");
        let last = &panic[panic.len() - 2..];
        assert_eq!(last[0], ("boot before (number 7): its kernel panicked".to_owned(), YELLOW));
        assert_eq!(last[1].0, "  kernel: [ 1.0] Kernel panic");
        let reboot = told("reboot");
        assert_eq!(reboot[reboot.len() - 2].1, "");
        assert!(!lines(&Snapshot::default()).iter().any(|(line, _)| line.contains("boot before")));
    }

    #[test]
    fn a_line_for_each_container_in_its_colour() {
        let container = |name: &str, state: &str, as_declared| ContainerStatus {
            name: name.into(),
            state: state.into(),
            as_declared,
            ..ContainerStatus::default()
        };
        let snapshot = Snapshot {
            appliance: "shop".into(),
            state: "running".into(),
            containers: vec![container("web", "running", true), container("db", "failed", false)],
            ..Snapshot::default()
        };
        let lines = lines(&snapshot);
        assert_eq!(lines[0].0, "shop is running, not as declared, up for 0 s");
        assert!(lines[2].0.starts_with("web ") && lines[2].1 == GREEN, "{lines:?}");
        assert!(lines[3].0.starts_with("db ") && lines[3].1 == RED, "{lines:?}");
    }
}
