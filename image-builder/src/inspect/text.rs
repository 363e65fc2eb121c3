//! The report, for a person.

use std::fmt;
use std::path::Path;

use indicatif::HumanBytes;

use super::report::{Compression, Report, Summary};
use crate::plain::plain;

/// Digits of a digest that tell layers apart.
const SHORT: usize = 12;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "appliance  {} (host name {})", plain(&self.appliance), plain(&self.hostname))?;
        writeln!(f, "kernel     {}", self.kernel.as_deref().map_or("unknown".into(), plain))?;
        writeln!(f, "system     {}, hash tree {}", HumanBytes(self.system_bytes), HumanBytes(self.hash_bytes))?;
        if let Some(Compression { algorithm, bytes, stored_bytes }) = &self.compression {
            // Of an image that anybody may have made: it might name no bytes.
            let share = stored_bytes.saturating_mul(100) / (*bytes).max(1);
            let (bytes, stored) = (HumanBytes(*bytes), HumanBytes(*stored_bytes));
            writeln!(f, "compressed {algorithm}: files of {bytes} in {stored} ({share} %)")?;
        }
        writeln!(f, "root hash  {}", self.root_hash)?;
        writeln!(f, "data       {}", self.data_uuid.as_deref().unwrap_or("none: nothing is kept"))?;
        writeln!(f, "modules    {}", self.modules.iter().map(|name| plain(name)).collect::<Vec<_>>().join(" "))?;
        writeln!(f, "\nlayers")?;
        for layer in &self.layers {
            let size = HumanBytes(layer.bytes).to_string();
            writeln!(f, "  {}  {size:>12}  {} files", short(&layer.diff_id), layer.files)?;
        }
        for container in &self.containers {
            write_container(f, container)?;
        }
        Ok(())
    }
}

fn write_container(f: &mut fmt::Formatter<'_>, container: &Summary) -> fmt::Result {
    writeln!(f, "\ncontainer {}", plain(&container.name))?;
    let mut line = |key: &str, value: String| writeln!(f, "  {key:<11}{}", plain(&value));
    line("image", container.image.clone())?;
    line("runs", format!("{} as {}", container.args.join(" "), container.user))?;
    line("ids", container.ids_from.map_or("the machine's own".to_owned(), |first| format!("from {first}")))?;
    line("layers", container.layers.iter().map(|id| short(id)).collect::<Vec<_>>().join(" "))?;
    let writable = container.writable_bytes;
    line(
        "root",
        if writable == 0 { "read-only".into() } else { format!("writable, {} in memory", HumanBytes(writable)) },
    )?;
    if !container.limits.is_empty() {
        let limits = container.limits.iter().map(|(file, value)| format!("{file}={value}"));
        line("limits", limits.collect::<Vec<_>>().join(" "))?;
    }
    for [file, path, value] in &container.device_limits {
        line("limits", format!("{file} of {path}: {value}"))?;
    }
    for mount in container.mounts.iter().filter(|mount| !is_usual(&mount.target)) {
        let readonly = if mount.readonly { ", read-only" } else { "" };
        line("mounts", format!("{} on {}{readonly}", mount.source, mount.target))?;
    }
    for (path, access) in &container.devices {
        line("device", format!("{path} ({access})"))?;
    }
    line("restart", container.restart.clone())?;
    for watched in &container.watched {
        line("watched", watched.clone())?;
    }
    if let Some(pod) = &container.pod {
        line("pod", pod.clone())?;
    }
    if !container.depends_on.is_empty() {
        line("depends on", container.depends_on.join(" "))?;
    }
    if !container.ports.is_empty() {
        line("ports", container.ports.join(" "))?;
    }
    if let Some(kept) = &container.kept_log {
        line("log", format!("kept in {} files of {}", kept.files, HumanBytes(kept.file_bytes)))?;
    }
    for (name, value) in &container.labels {
        line("label", format!("{name}={value}"))?;
    }
    for weakened in &container.weakened {
        line("WEAKENED", weakened.clone())?;
    }
    Ok(())
}

/// Where every container has the kernel's own filesystems.
fn is_usual(target: &str) -> bool {
    ["/proc", "/sys", "/dev"].iter().any(|usual| Path::new(target).starts_with(usual))
}

fn short(digest: &str) -> String {
    plain(digest).chars().take(SHORT).collect()
}
