//! The machine's own tables.

use crate::appliance::{Console, ConsoleAccess, Data, Kernel, System, Volume};
use crate::errors::quote;
use crate::keys::{Access, ConsoleKeys, DataKeys, KernelKeys, SystemKeys, VolumeKeys, VolumeKind};
use crate::problems::Problems;
use crate::read::{At, Fault, Field, OneOrMany, Pairs, Table, Text, nearest};
use crate::syntax::{decimal, sysctl_fault};

/// MiB. Enough for a handful of containers, and QEMU starts with it at once.
const DEFAULT_MEMORY: u32 = 512;
const DEFAULT_LOG_BUDGET: u64 = 8 << 20;
/// Less couldn't hold the last words of even one container.
const MIN_LOG_BUDGET: u64 = 64 << 10;
/// Seconds. More than that no device can, and nobody waits.
const LONGEST_WATCHDOG: u64 = 600;
/// The smallest ext4 that has a journal and room for files.
const MIN_DATA: u64 = 16 << 20;
/// x86's `COMMAND_LINE_SIZE` is 2048; the builder needs the other half.
const MAX_CMDLINE: usize = 1024;

/// The machine's host name, and the rest of `[system]`.
pub(super) fn system(keys: Option<SystemKeys>, name: &str, problems: &mut Problems) -> (String, System) {
    let keys = keys.unwrap_or_default();
    let memory = keys.memory.as_ref().map(|field| field.value.0).unwrap_or(DEFAULT_MEMORY);
    let mut log_budget = DEFAULT_LOG_BUDGET;
    if let Some(field) = keys.log_budget {
        log_budget = field.value.0;
        let most = u64::from(memory) << 18;
        if log_budget < MIN_LOG_BUDGET {
            problems
                .error(&field.span, format!("a log budget of {log_budget} bytes is too small"))
                .help("write at least \"64k\"; a size without a unit is in bytes");
        } else if log_budget > most {
            problems.error(&field.span, "the logs would take more than a quarter of the machine's memory").help(
                format!("write at most \"{}m\", or raise `memory` in [system], which is {memory} MiB", most >> 20),
            );
        }
    }
    let sysctls = keys.sysctls.map(|field| sysctls(field.value, problems)).unwrap_or_default();
    let hostname = keys.hostname.map(|field| field.value.0).unwrap_or_else(|| name.to_owned());
    let compression = keys.compression.map(|field| field.value).unwrap_or_default();
    let watchdog = keys.watchdog.map(|field| {
        let seconds = field.value.0.as_secs();
        if !(1..=LONGEST_WATCHDOG).contains(&seconds) || field.value.0.subsec_nanos() != 0 {
            problems.error(&field.span, "a watchdog waits whole seconds, from \"1s\" to \"10m\"");
        }
        u32::try_from(seconds).unwrap_or(0)
    });
    let status_vsock = keys.status_vsock.and_then(|field| u32::try_from(field.value.get()).ok());
    (hostname, System { memory_mb: memory, sysctls, log_budget, compression, watchdog, status_vsock })
}

/// The most files that a program may have open: Linux's default of `fs.nr_open`, or what `system` sets it to.
pub(super) fn most_files(system: &System) -> u64 {
    let declared = system.sysctls.iter().rev().find(|(name, _)| name == "fs.nr_open");
    declared.and_then(|(_, value)| decimal(value)).unwrap_or(1 << 20)
}

fn sysctls(pairs: Pairs, problems: &mut Problems) -> Vec<(String, String)> {
    let mut sysctls = Vec::with_capacity(pairs.0.len());
    for (name, value) in pairs.0 {
        match sysctl_fault(&name.value) {
            Some(fault) => fault.report(&name.span, problems),
            None => sysctls.push((name.value, value.value)),
        }
    }
    sysctls
}

pub(super) fn kernel(keys: Option<KernelKeys>, problems: &mut Problems) -> Kernel {
    let keys = keys.unwrap_or_default();
    if let Some(modules) = keys.modules.as_ref().filter(|_| !keys.given("image")) {
        problems
            .error(&modules.key, "`modules` without `image`: modules fit only the kernel that they were built for")
            .help("add `image`, the path of that kernel; or leave out `modules` to use the distribution kernel with its own");
    }
    let cmdline = keys.cmdline.map(|field| cmdline(field.value, problems)).unwrap_or_default();
    let mut extra_modules = Vec::new();
    for At { span, value } in keys.extra_modules.map(|field| field.value.0).unwrap_or_default() {
        let name = value.0;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if (1..=64).contains(&name.len()) && name.bytes().all(allowed) {
            extra_modules.push(name);
        } else {
            problems
                .error(&span, format!("{} isn't the name of a kernel module", quote(&name)))
                .help("write its name without directory and `.ko`, such as \"nf_tables\"");
        }
    }
    Kernel {
        image: keys.image.map(|field| field.value.0),
        modules: keys.modules.map(|field| field.value.0),
        cmdline,
        extra_modules,
    }
}

/// Parameters by which the builder says what PID 1 is and what it may trust.
const OURS: [&str; 5] = ["roothash", "root", "init", "rdinit", "initrd"];

/// The name of the parameter that a word sets.
fn parameter(word: &str) -> &str {
    word.split_once('=').map_or(word, |(parameter, _)| parameter)
}

/// What is between the quotes of `name="a value"`, if it is nothing else.
fn quoted_value(text: &str) -> Option<&str> {
    let (name, value) = text.split_once('=')?;
    let inside = value.strip_prefix('"')?.strip_suffix('"')?;
    (!name.is_empty() && !name.contains(['"', ' ', '\t', '\n']) && !inside.contains('"')).then_some(inside)
}

fn cmdline(parts: OneOrMany<Text>, problems: &mut Problems) -> Vec<String> {
    let mut words = Vec::new();
    let mut length = 0usize;
    for At { span, value } in parts.0 {
        // To the kernel they hold blanks together, and are no part of a parameter: they could hide one, or what the builder adds.
        let quoted = quoted_value(&value.0);
        if value.0.contains('"') && quoted.is_none() {
            problems
                .error(&span, "double quotes may stand around the whole value of a kernel parameter only")
                .help("write such a parameter by itself, as one of several strings: 'name=\"a value\"'");
            continue;
        }
        let these = match quoted {
            Some(inside) if inside.split_whitespace().any(|word| OURS.contains(&parameter(word))) => {
                problems
                    .error(&span, "a parameter that the builder sets stands in these quotes")
                    .help("leave it out: it decides which system is booted and verified");
                continue;
            }
            Some(_) => vec![value.0.as_str()],
            None => value.0.split_whitespace().collect(),
        };
        for word in these {
            let parameter = parameter(word);
            if OURS.contains(&parameter) {
                problems
                    .error(&span, format!("the kernel parameter `{parameter}` is set by the builder"))
                    .help("leave it out: it decides which system is booted and verified");
            } else if let Some(fault) = option_fault(word) {
                fault.report(&span, problems);
            } else if word == "--" {
                problems.error(&span, "`--` would end the kernel's own parameters").help("leave it out");
            } else if !word.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
                problems
                    .error(&span, format!("{} isn't a kernel parameter", quote(word)))
                    .help("write printable ASCII only");
            } else if length.saturating_add(word.len()) >= MAX_CMDLINE {
                problems.error(&span, format!("the kernel parameters are longer than {MAX_CMDLINE} bytes together"));
                return words;
            } else {
                length += word.len() + 1;
                words.push(word.to_owned());
            }
        }
    }
    words
}

/// What is wrong with a word that is for PID 1, which boots with none that it doesn't know (`init/src/boot/cmdline.rs`).
fn option_fault(word: &str) -> Option<Fault> {
    const STOPS: [&str; 3] = ["garboard.stop=poweroff", "garboard.stop=reboot", "garboard.stop=halt"];
    let name = word.split_once('=').map_or(word, |(name, _)| name);
    if !name.starts_with("garboard.") || name == "garboard.trace" || STOPS.contains(&word) {
        return None;
    }
    let fault = Fault::new(format!("{} isn't an option of Garboard's", quote(word)));
    Some(match nearest(word, STOPS.into_iter().chain(["garboard.trace"])) {
        Some(meant) => fault.help(format!("did you mean `{meant}`?")),
        None => fault.help(format!("the options are: garboard.trace, {}", STOPS.join(", "))),
    })
}

pub(super) fn console(keys: Option<ConsoleKeys>, problems: &mut Problems) -> Console {
    let keys = keys.unwrap_or_default();
    let needs_hash = !keys.given("passphrase_hash");
    let access = match (keys.access, keys.passphrase_hash) {
        (Some(Field { value: Access::Control, .. }), Some(hash)) => ConsoleAccess::Control(hash.value.0),
        (Some(Field { value: Access::Control, span, .. }), None) => {
            if needs_hash {
                problems
                    .error(&span, "whoever reaches the console could control the machine: there is no passphrase")
                    .help("add `passphrase_hash`, or write \"status\"");
            }
            ConsoleAccess::Off
        }
        (access, Some(hash)) => {
            problems
                .error(&hash.key, "there is nothing to control, so a passphrase has no use")
                .help("write access = \"control\", or leave it out");
            console_access(access)
        }
        (access, None) => console_access(access),
    };
    Console {
        logs: keys.logs.is_none_or(|field| field.value.0),
        status: keys.status.is_none_or(|field| field.value.0),
        access,
    }
}

fn console_access(field: Option<Field<Access>>) -> ConsoleAccess {
    match field.map(|field| field.value).unwrap_or_default() {
        Access::Status => ConsoleAccess::Status,
        Access::Off | Access::Control => ConsoleAccess::Off,
    }
}

pub(super) fn data(keys: Option<DataKeys>, problems: &mut Problems) -> Data {
    let keys = keys.unwrap_or_default();
    if let Some(field) = keys.size.as_ref().filter(|field| field.value.0 < MIN_DATA) {
        problems
            .error(&field.span, format!("a data partition of {} bytes is too small", field.value.0))
            .help("write at least \"16m\"; a size without a unit is in bytes");
    }
    Data { size: keys.size.map(|field| field.value.0), required: keys.required.is_some_and(|field| field.value.0) }
}

pub(super) fn volume(keys: VolumeKeys, problems: &mut Problems) -> Volume {
    if keys.given("kind") && keys.kind.is_none() {
        return Volume::Data;
    }
    let kind = keys.kind.map(|field| field.value).unwrap_or_default();
    match (kind, keys.size) {
        (VolumeKind::Tmpfs, Some(field)) => {
            if field.value.0 == 0 {
                problems
                    .error(&field.span, "a tmpfs of size 0 would be without limit")
                    .help("leave it out, or write a size such as \"16m\"");
            }
            Volume::Tmpfs { size: Some(field.value.0) }
        }
        (VolumeKind::Tmpfs, None) => Volume::Tmpfs { size: None },
        (VolumeKind::Data, Some(field)) => {
            problems
                .error(&field.key, "the size of a single volume on the data partition can't be limited yet")
                .help("leave it out; the partition's size is `size` in [data]. Or set kind = \"tmpfs\" for a volume in memory");
            Volume::Data
        }
        (VolumeKind::Data, None) => Volume::Data,
    }
}
