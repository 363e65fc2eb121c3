//! A container as a unit of systemd: names, and limits as its properties (systemd.resource-control(5)). Pure.

use std::collections::BTreeMap;

use super::bus::message::{Properties, Value};
use super::error::{Error, Result};
use crate::compile;
use crate::launch::Cgroup;

/// `CPUWeight` of who runs only when nobody else wants to.
const IDLE: Value = Value::U64(0);

/// A transient scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    /// The unit's name, which ends in `.scope`.
    pub(crate) unit: String,
    /// The slice that it is in.
    pub(crate) slice: String,
}

/// The scope that `cgroups_path` (`slice:prefix:name`) names, or the usual one of container `id`.
pub(crate) fn scope(cgroups_path: Option<&str>, id: &str, ordinary: bool) -> Result<Scope> {
    let usual = if ordinary { "user.slice" } else { "system.slice" };
    let path = cgroups_path.filter(|path| !path.is_empty());
    let parts: Vec<&str> = path.map_or_else(|| vec!["", "garboard", id], |path| path.split(':').collect());
    let [slice, prefix, name] = parts[..] else {
        return Err(Error::new(format!(
            "config.json: linux.cgroupsPath: {:?} isn't slice:prefix:name, which the systemd cgroup driver needs",
            path.unwrap_or_default()
        )));
    };
    let slice = if slice.is_empty() { usual } else { slice };
    let unit = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b));
    if !is_slice(slice) || !plain(slice) || name.is_empty() || !plain(&unit) || unit.len() > 255 {
        let why = "the slice must be of the form a-b.slice, and the name of letters, digits and ':-_.\\@'";
        return Err(Error::new(format!("config.json: linux.cgroupsPath: no unit of systemd is {slice}/{unit}: {why}")));
    }
    Ok(Scope { unit, slice: slice.to_owned() })
}

/// `a-b.slice`, or the root `-.slice`.
fn is_slice(slice: &str) -> bool {
    slice == "-.slice"
        || slice
            .strip_suffix(".slice")
            .is_some_and(|name| !name.is_empty() && name.split('-').all(|part| !part.is_empty()))
}

/// What the scope is made with, beside the process.
pub(crate) fn properties(
    scope: &Scope,
    id: &str,
    cgroup: &Cgroup,
    annotations: &BTreeMap<String, String>,
) -> Result<Properties> {
    let property = |name: &str, value: Value| (name.to_owned(), value);
    let mut properties = vec![
        property("Description", Value::Text(format!("garboard-runtime container {id}"))),
        property("Slice", Value::Text(scope.slice.clone())),
        // What is in it is the container's and this runtime's, not systemd's (CGROUP_DELEGATION.md of systemd).
        property("Delegate", Value::Bool(true)),
        property("DefaultDependencies", Value::Bool(false)),
        // A scope that failed would keep its name from the next.
        property("CollectMode", Value::Text("inactive-or-failed".to_owned())),
    ];
    properties.extend(limits(cgroup));
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix("org.systemd.property.") else { continue };
        let value = annotated(text)
            .filter(|_| name.bytes().all(|b| b.is_ascii_alphanumeric()) && !name.is_empty())
            .ok_or_else(|| {
                Error::new(format!("config.json: annotations[{key}]: {text:?} isn't a value of GVariant"))
            })?;
        let (name, value) = in_microseconds(name, value)
            .ok_or_else(|| Error::new(format!("config.json: annotations[{key}]: {text:?} is no number of seconds")))?;
        properties.push((name, value));
    }
    Ok(properties)
}

/// Limits that systemd knows too: it would put its own back otherwise, whenever it looks at the unit.
pub(crate) fn limits(cgroup: &Cgroup) -> Properties {
    let settings = cgroup.settings.iter().chain(cgroup.choices.iter().flatten());
    settings.flat_map(|(file, value)| limit(file, value.trim())).collect()
}

fn limit(file: &str, value: &str) -> Properties {
    let name = match file {
        "memory.max" => "MemoryMax",
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.min" => "MemoryMin",
        "memory.swap.max" => "MemorySwapMax",
        "pids.max" => "TasksMax",
        "cpu.weight" => "CPUWeight",
        "io.weight" => "IOWeight",
        "cpuset.cpus" => "AllowedCPUs",
        "cpuset.mems" => "AllowedMemoryNodes",
        "cpu.max" => return cpu_max(value),
        // systemd has it as a weight. The kernel's own default comes after it.
        "cpu.idle" => {
            let weight = if value == "1" { IDLE } else { Value::U64(u64::MAX) };
            return vec![("CPUWeight".to_owned(), weight)];
        }
        _ => return Vec::new(),
    };
    let value = match file {
        "cpuset.cpus" | "cpuset.mems" => compile::mask(file, value).ok().map(Value::Bytes),
        "io.weight" => value.strip_prefix("default ").unwrap_or(value).parse().ok().map(Value::U64),
        // It knows no fewer.
        "pids.max" => number(value).map(|tasks| Value::U64(tasks.max(1))),
        _ => number(value).map(Value::U64),
    };
    // What isn't one number (a single device's weight) is the file's alone.
    value.map(|value| (name.to_owned(), value)).into_iter().collect()
}

/// Leaves out what systemd doesn't know before version 252; whether there was any of it.
pub(crate) fn drop_idle(properties: &mut Properties) -> bool {
    let before = properties.len();
    properties.retain(|(name, value)| name != "CPUWeight" || *value != IDLE);
    properties.len() < before
}

/// No limit is the greatest number.
fn number(text: &str) -> Option<u64> {
    if text == "max" { Some(u64::MAX) } else { text.parse().ok() }
}

/// `QUOTA PERIOD` as time in each second, in whole hundredths as systemd counts; rounded up, as the file has it exactly.
fn cpu_max(value: &str) -> Properties {
    const HUNDREDTH: u64 = 10_000;
    let mut words = value.split(' ');
    let (quota, period) = (words.next().and_then(number), words.next().and_then(number));
    let Some(quota) = quota else { return Vec::new() };
    let period = period.filter(|period| *period > 0).unwrap_or(100_000);
    let each_second = if quota == u64::MAX {
        u64::MAX
    } else {
        quota.saturating_mul(1_000_000).div_ceil(period).checked_next_multiple_of(HUNDREDTH).unwrap_or(u64::MAX)
    };
    vec![
        ("CPUQuotaPerSecUSec".to_owned(), Value::U64(each_second)),
        ("CPUQuotaPeriodUSec".to_owned(), Value::U64(period)),
    ]
}

/// A value of an annotation `org.systemd.property.*` in GVariant's text format: text, truth values, numbers and lists of text.
fn annotated(text: &str) -> Option<Value> {
    let text = text.trim();
    if let Some(list) = text.strip_prefix('[') {
        let list = list.strip_suffix(']')?.trim();
        let items = list.split(',').filter(|_| !list.is_empty()).map(quoted);
        return items.collect::<Option<Vec<_>>>().map(Value::Texts);
    }
    match text.split_once(' ') {
        _ if text.starts_with(['\'', '"']) => quoted(text).map(Value::Text),
        Some(("uint32", number)) => number.trim().parse().ok().map(Value::U32),
        Some(("int32", number)) => number.trim().parse().ok().map(Value::I32),
        Some(("uint64", number)) => number.trim().parse().ok().map(Value::U64),
        Some(("int64", number)) => number.trim().parse().ok().map(Value::I64),
        Some(_) => None,
        None => match text {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            _ if text.contains('.') => text.parse().ok().map(Value::Double),
            _ => text.parse().ok().map(Value::I32),
        },
    }
}

/// A time as systemd's files have it isn't what its bus takes: `RuntimeMaxSec` in seconds is `RuntimeMaxUSec` there, as with runc.
/// `None`: it is no time.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "checked, saturating"
)]
fn in_microseconds(name: &str, value: Value) -> Option<(String, Value)> {
    const SECOND: u64 = 1_000_000;
    // Not those that end so already.
    let time = name.strip_suffix("Sec").filter(|time| time.ends_with(|c: char| c.is_ascii_lowercase()));
    let Some(time) = time else { return Some((name.to_owned(), value)) };
    let time_of = |seconds: i64| u64::try_from(seconds).ok().map(|seconds| seconds.saturating_mul(SECOND));
    let microseconds = match value {
        Value::I32(seconds) => time_of(seconds.into()),
        Value::I64(seconds) => time_of(seconds),
        Value::U32(seconds) => time_of(seconds.into()),
        Value::U64(seconds) => Some(seconds.saturating_mul(SECOND)),
        Value::Double(seconds) if seconds >= 0.0 => Some((seconds * SECOND as f64) as u64),
        _ => None,
    };
    microseconds.map(|microseconds| (format!("{time}USec"), Value::U64(microseconds)))
}

/// Text without what would have to be escaped.
fn quoted(text: &str) -> Option<String> {
    let text = text.trim();
    let mark = text.chars().next().filter(|mark| matches!(mark, '\'' | '"'))?;
    let inner = text.strip_prefix(mark)?.strip_suffix(mark)?;
    (!inner.contains([mark, '\\'])).then(|| inner.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_slice_prefix_name() {
        let named = |path: &str, ordinary| {
            scope(Some(path), "id", ordinary).map(|scope| format!("{}/{}", scope.slice, scope.unit)).ok()
        };
        assert_eq!(named("machine.slice:libpod:abc", false).unwrap(), "machine.slice/libpod-abc.scope");
        assert_eq!(named(":docker:abc", false).unwrap(), "system.slice/docker-abc.scope");
        assert_eq!(named(":docker:abc", true).unwrap(), "user.slice/docker-abc.scope");
        assert_eq!(named("kubepods-pod1.slice::abc", false).unwrap(), "kubepods-pod1.slice/abc.scope");
        assert_eq!(named("", false).unwrap(), "system.slice/garboard-id.scope");
        assert_eq!(named("-.slice:a:b", false).unwrap(), "-.slice/a-b.scope");
        for wrong in [
            "/a/b",
            "a:b",
            "a.slice:b:c:d",
            "a:b:c",
            "a.slice:b:",
            ".slice:b:c",
            "a--b.slice:b:c",
            "a/b.slice:b:c",
            "a.slice:b:c/d",
            "a.slice:b c:d",
            &format!("a.slice:b:{}", "x".repeat(250)),
        ] {
            assert_eq!(named(wrong, false), None, "{wrong}");
        }
    }

    #[test]
    fn limits_become_properties() {
        let pair = |file: &str, value: &str| (file.to_owned(), value.to_owned());
        let settings = [
            ("memory.max", "4096"),
            ("memory.swap.max", "max"),
            ("memory.low", "0"),
            ("cpu.weight", "100"),
            ("cpu.max", "50000 100000"),
            ("cpuset.cpus", "0-1,9"),
            ("pids.max", "max"),
            ("io.max", "8:0 rbps=5"),
            ("misc.max", "res 5"),
        ];
        let settings = settings.iter().map(|(file, value)| pair(file, value)).collect();
        assert_eq!(limit("pids.max", "0"), [("TasksMax".to_owned(), Value::U64(1))]);
        let choices = vec![vec![pair("io.bfq.weight", "10"), pair("io.weight", "1")], vec![pair("io.weight", "8:0 5")]];
        let found = limits(&Cgroup { settings, choices, ..Cgroup::default() });
        let expected = [
            ("MemoryMax", Value::U64(4096)),
            ("MemorySwapMax", Value::U64(u64::MAX)),
            ("MemoryLow", Value::U64(0)),
            ("CPUWeight", Value::U64(100)),
            ("CPUQuotaPerSecUSec", Value::U64(500_000)),
            ("CPUQuotaPeriodUSec", Value::U64(100_000)),
            ("AllowedCPUs", Value::Bytes(vec![3, 2])),
            ("TasksMax", Value::U64(u64::MAX)),
            ("IOWeight", Value::U64(1)),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn idle_is_a_weight_that_not_every_systemd_knows() {
        let properties = |settings: &[(&str, &str)]| {
            let pair = |(file, value): &(&str, &str)| ((*file).to_owned(), (*value).to_owned());
            limits(&Cgroup { settings: settings.iter().map(pair).collect(), ..Cgroup::default() })
        };
        let weights = |list: &[u64]| -> Properties {
            list.iter().map(|weight| ("CPUWeight".to_owned(), Value::U64(*weight))).collect()
        };
        let mut idle = properties(&[("cpu.idle", "1"), ("pids.max", "5")]);
        assert_eq!(idle[..1], weights(&[0]));
        assert!(drop_idle(&mut idle) && !drop_idle(&mut idle));
        assert_eq!(idle, [("TasksMax".to_owned(), Value::U64(5))]);
        // The last word counts.
        let mut woken = properties(&[("cpu.idle", "0"), ("cpu.weight", "59")]);
        assert_eq!(woken, weights(&[u64::MAX, 59]));
        assert!(!drop_idle(&mut woken));
    }

    #[test]
    fn processor_time_is_rounded_up_to_hundredths() {
        let each_second = |value: &str| cpu_max(value).first().cloned().map(|(_, value)| value);
        assert_eq!(each_second("max 100000"), Some(Value::U64(u64::MAX)));
        assert_eq!(each_second("33333 100000"), Some(Value::U64(340_000)));
        assert_eq!(each_second("1000 1000000"), Some(Value::U64(10_000)));
        assert_eq!(each_second("150000 100000"), Some(Value::U64(1_500_000)));
        assert_eq!(each_second("18446744073709551614 1"), Some(Value::U64(u64::MAX)));
        assert_eq!(each_second("5 0"), Some(Value::U64(10_000)));
        assert_eq!(each_second("many"), None);
    }

    #[test]
    fn annotations_are_properties() {
        let all = |pairs: &[(&str, &str)]| {
            let annotations = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let scope = Scope { unit: "a.scope".into(), slice: "b.slice".into() };
            properties(&scope, "id", &Cgroup::default(), &annotations).map(|list| list[5..].to_vec())
        };
        for (text, value) in [
            ("'inactive-or-failed'", Value::Text("inactive-or-failed".into())),
            ("\"a\"", Value::Text("a".into())),
            ("true", Value::Bool(true)),
            ("uint64 5000", Value::U64(5000)),
            ("uint32 5", Value::U32(5)),
            ("int64 -5", Value::I64(-5)),
            ("-7", Value::I32(-7)),
            ("0.5", Value::Double(0.5)),
            ("['a', 'b']", Value::Texts(vec!["a".into(), "b".into()])),
            ("[]", Value::Texts(Vec::new())),
        ] {
            let found = all(&[("org.systemd.property.X", text)]).unwrap();
            assert_eq!(found, [("X".to_owned(), value)], "{text}");
        }
        assert_eq!(all(&[("org.example.other", "x")]).unwrap(), []);
        for wrong in ["", "x", "'a", "uint64 x", "uint64 -1", "['a'", "[a]", "'a\\n'", "@as []"] {
            let error = all(&[("org.systemd.property.X", wrong)]).unwrap_err().to_string();
            assert!(error.contains("org.systemd.property.X"), "{wrong}: {error}");
        }
        assert!(all(&[("org.systemd.property.", "1")]).is_err());
        for (name, text, expected, value) in [
            ("RuntimeMaxSec", "2", "RuntimeMaxUSec", Value::U64(2_000_000)),
            ("TimeoutStopSec", "uint64 1", "TimeoutStopUSec", Value::U64(1_000_000)),
            ("TimeoutStopSec", "0.5", "TimeoutStopUSec", Value::U64(500_000)),
            ("TimeoutStopUSec", "uint64 7", "TimeoutStopUSec", Value::U64(7)),
            ("CPUQuotaPerSecUSec", "uint64 7", "CPUQuotaPerSecUSec", Value::U64(7)),
        ] {
            let found = all(&[(&format!("org.systemd.property.{name}"), text)]).unwrap();
            assert_eq!(found, [(expected.to_owned(), value)], "{name} {text}");
        }
        for wrong in ["-1", "'2'", "true", "-0.5"] {
            let error = all(&[("org.systemd.property.RuntimeMaxSec", wrong)]).unwrap_err().to_string();
            assert!(error.contains("no number of seconds"), "{wrong}: {error}");
        }
    }
}
