//! config.json → [`Spec`]: unknown properties are ignored, unknown values are errors that name their place.

use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde_json::{Value, json};

use crate::spec::{Error, capabilities};

/// No config.json is larger, in bytes.
pub const MAX_CONFIG: usize = 16 << 20;

/// Properties that the types have under another name, so that they would be ignored.
const MISSPELT: [(&str, &str); 2] = [("enableCMT", "enableCmt"), ("enableMBM", "enableMbm")];

/// The spec in a config.json, and what a person should know about it.
pub fn read(json: &[u8]) -> Result<(Spec, Vec<String>), Error> {
    if json.len() > MAX_CONFIG {
        return Err(Error::new("config.json", format!("{} bytes; the limit is {MAX_CONFIG}", json.len())));
    }
    // The types would take an array for an object.
    if json.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Error::new("config.json", "no JSON object"));
    }
    if !MISSPELT.iter().any(|(name, _)| contains(json, name))
        && let Ok(spec) = serde_json::from_slice::<Spec>(json)
        && !may_lack_a_limit(&spec)
    {
        return Ok((spec, Vec::new()));
    }
    read_slowly(json)
}

/// Something is unknown or wrong: it can be named, or mended.
#[cold]
#[inline(never)]
fn read_slowly(json: &[u8]) -> Result<(Spec, Vec<String>), Error> {
    let mut value: Value = serde_json::from_slice(json).map_err(|e| Error::new("config.json", e.to_string()))?;
    let warnings = mend(&mut value);
    let spec = serde_path_to_error::deserialize(&value).map_err(|e| {
        let path = e.path().to_string();
        let found = found(&value, e.path());
        let known = known_as(&path);
        let field = if path == "." { "config.json".to_owned() } else { path };
        Error::new(field, format!("{known}{}{found}", e.into_inner()))
    })?;
    Ok((spec, warnings))
}

/// What callers know an error at this place by.
fn known_as(path: &str) -> &'static str {
    match path.strip_prefix("linux.memoryPolicy") {
        Some(rest) if rest.starts_with(".flags") => "invalid memory policy flag: ",
        Some(rest) if rest.starts_with(".nodes") => "invalid memory policy nodes: ",
        // The only property that it must have.
        Some("" | ".mode") => "invalid memory policy mode: ",
        _ => "",
    }
}

/// The value of `linux.resources` by itself, as `update` takes it.
pub fn resources(json: &[u8]) -> Result<LinuxResources, Error> {
    if json.len() > MAX_CONFIG {
        return Err(Error::new("resources", format!("{} bytes; the limit is {MAX_CONFIG}", json.len())));
    }
    // The types would take an array for an object.
    let mut value: Value = serde_json::from_slice(json).map_err(|e| Error::new("resources", e.to_string()))?;
    if !value.is_object() {
        return Err(Error::new("resources", "no JSON object"));
    }
    mend_resources(&mut value);
    serde_path_to_error::deserialize(&value).map_err(|e| {
        let found = found(&value, e.path());
        Error::new(format!("linux.resources.{}", e.path()), format!("{}{found}", e.into_inner()))
    })
}

/// The value of `process` by itself, as `exec` takes it, and what a person should know about it.
pub fn process(json: &[u8]) -> Result<(Process, Vec<String>), Error> {
    if json.len() > MAX_CONFIG {
        return Err(Error::new("process", format!("{} bytes; the limit is {MAX_CONFIG}", json.len())));
    }
    let value: Value = serde_json::from_slice(json).map_err(|e| Error::new("process", e.to_string()))?;
    if !value.is_object() {
        return Err(Error::new("process", "no JSON object"));
    }
    let mut config = json!({"process": value});
    let warnings = mend(&mut config);
    let process = serde_path_to_error::deserialize(&config["process"]).map_err(|e| {
        let found = found(&config["process"], e.path());
        Error::new(format!("process.{}", e.path()), format!("{}{found}", e.into_inner()))
    })?;
    Ok((process, warnings))
}

/// Whether the spec may have no limit of processes where the types have 0.
fn may_lack_a_limit(spec: &Spec) -> bool {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    resources.and_then(|resources| resources.pids().as_ref()).is_some_and(|pids| pids.limit() == 0)
}

fn contains(json: &[u8], name: &str) -> bool {
    std::str::from_utf8(json).is_ok_and(|text| text.contains(name))
}

/// What stands at a place, if it is short.
fn found(value: &Value, path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut at = value;
    for segment in path {
        let next = match segment {
            Segment::Seq { index } => at.get(index),
            Segment::Map { key } => at.get(key),
            _ => None,
        };
        match next {
            Some(next) => at = next,
            None => return String::new(),
        }
    }
    match at {
        Value::Array(_) | Value::Object(_) => String::new(),
        scalar => format!(", found {}", scalar.to_string().chars().take(80).collect::<String>()),
    }
}

/// Puts right what the specification allows and the types don't.
fn mend(config: &mut Value) -> Vec<String> {
    if let Some(rdt) = config.pointer_mut("/linux/intelRdt").and_then(Value::as_object_mut) {
        for (name, known) in MISSPELT {
            if let Some(value) = rdt.remove(name) {
                rdt.insert(known.to_owned(), value);
            }
        }
    }
    if let Some(resources) = config.pointer_mut("/linux/resources") {
        mend_resources(resources);
    }
    let mut warnings = Vec::new();
    let Some(process) = config.get_mut("process") else { return warnings };
    // Nobody requires it; what it isn't, is root.
    if let Some(process) = process.as_object_mut() {
        process.entry("user").or_insert_with(|| json!({"uid": 0, "gid": 0}));
    }
    // "Any value which cannot be mapped to a relevant kernel interface MUST be logged as a warning."
    if let Some(sets) = process.get_mut("capabilities").and_then(Value::as_object_mut) {
        for (set, names) in sets {
            let Some(names) = names.as_array_mut() else { continue };
            names.retain(|name| {
                let known = name.as_str().is_none_or(|name| capabilities::parse(name).is_some());
                if !known {
                    warnings.push(format!("process.capabilities.{set}: {name} is no capability, ignored"));
                }
                known
            });
        }
    }
    if let Some(flags) = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut) {
        for flag in flags {
            let spelt = match flag.as_str() {
                Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
                Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
                _ => continue,
            };
            *flag = spelt.into();
        }
    }
    // "If omitted or empty."
    if let Some(affinity) = process.get_mut("execCPUAffinity").and_then(Value::as_object_mut) {
        affinity.retain(|_, list| list.as_str() != Some(""));
    }
    warnings
}

/// The specification's limit of huge pages has no sign, the type's has. What doesn't fit is beyond what the kernel counts: no limit.
fn mend_resources(resources: &mut Value) {
    // Optional since 1.3: then nothing is said.
    if let Some(resources) = resources.as_object_mut() {
        let says_nothing =
            |pids: &Value| pids.as_object().is_some_and(|pids| pids.get("limit").is_none_or(Value::is_null));
        if resources.get("pids").is_some_and(says_nothing) {
            resources.remove("pids");
        }
    }
    for limit in resources.get_mut("hugepageLimits").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(limit) = limit.get_mut("limit").filter(|limit| limit.is_u64() && !limit.is_i64()) {
            *limit = json!(-1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_processes_may_be_left_out() {
        for json in [r#"{"pids":{}}"#, r#"{"pids":{"limit":null}}"#] {
            assert!(resources(json.as_bytes()).unwrap().pids().is_none(), "{json}");
            let config = format!(r#"{{"ociVersion":"1.3.0","linux":{{"resources":{json}}}}}"#);
            let spec = read(config.as_bytes()).unwrap().0;
            assert!(spec.linux().as_ref().unwrap().resources().as_ref().unwrap().pids().is_none(), "{json}");
        }
        assert_eq!(resources(br#"{"pids":{"limit":7}}"#).unwrap().pids().unwrap().limit(), 7);
        assert!(resources(br#"{"pids":{"limit":"x"}}"#).is_err());
    }

    #[test]
    fn limits_of_huge_pages_have_no_sign() {
        let json =
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":18446744073709551615},{"pageSize":"1GB","limit":5}]}"#;
        let limits = |found: &LinuxResources| -> Vec<i64> {
            found.hugepage_limits().iter().flatten().map(oci_spec::runtime::LinuxHugepageLimit::limit).collect()
        };
        assert_eq!(limits(&resources(json.as_bytes()).unwrap()), [-1, 5]);
        let config = format!(r#"{{"ociVersion":"1.3.0","linux":{{"resources":{json}}}}}"#);
        let spec = read(config.as_bytes()).unwrap().0;
        assert_eq!(limits(spec.linux().as_ref().unwrap().resources().as_ref().unwrap()), [-1, 5]);
    }

    fn with_process(process: &str) -> Result<(Spec, Vec<String>), Error> {
        let json = format!(r#"{{"ociVersion":"1.3.0","process":{{"user":{{"uid":0,"gid":0}},"cwd":"/",{process}}}}}"#);
        read(json.as_bytes())
    }

    #[test]
    fn unknown_properties_are_ignored() {
        let (spec, warnings) = with_process(r#""args":["x"],"future":{"a":[1]}"#).unwrap();
        assert_eq!((spec.version().as_str(), warnings.len()), ("1.3.0", 0));
    }

    #[test]
    fn a_process_without_a_user_is_root_s() {
        let (spec, _) = read(br#"{"ociVersion":"1.0.0","process":{"cwd":"/","args":["x"]}}"#).unwrap();
        assert_eq!(spec.process().as_ref().unwrap().user().uid(), 0);
        let (alone, warnings) =
            process(br#"{"cwd":"/","args":["x"],"capabilities":{"bounding":["CAP_SWIM"]}}"#).unwrap();
        assert_eq!((alone.user().gid(), warnings.len()), (0, 1));
        let error = process(br#"{"cwd":"/","user":{"uid":-1,"gid":0}}"#).unwrap_err().to_string();
        assert!(error.starts_with("process.user.uid: "), "{error}");
        assert!(process(b"[]").is_err() && process(b"{").is_err());
    }

    #[test]
    fn unknown_values_are_named() {
        let error = with_process(r#""rlimits":[{"type":"RLIMIT_PONIES","hard":1,"soft":1}]"#).unwrap_err().to_string();
        assert!(error.starts_with("process.rlimits[0].type: ") && error.contains("RLIMIT_PONIES"), "{error}");
        let error = with_process(r#""oomScoreAdj":"high""#).unwrap_err().to_string();
        assert!(error.starts_with("process.oomScoreAdj: ") && error.contains("high"), "{error}");
    }

    #[test]
    fn unknown_capabilities_are_warnings() {
        let (spec, warnings) =
            with_process(r#""capabilities":{"bounding":["CAP_CHOWN","CAP_TO_FLY"],"ambient":["CAP_SWIM"]}"#).unwrap();
        assert_eq!(
            spec.process().as_ref().unwrap().capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(),
            1
        );
        assert_eq!(warnings.len(), 2);
        assert!(warnings.iter().any(|w| w.contains("bounding") && w.contains("CAP_TO_FLY")), "{warnings:?}");
    }

    #[test]
    fn flags_are_spelt_as_in_the_specification() {
        for flag in
            ["RESET_ON_FORK", "RECLAIM", "DL_OVERRUN", "KEEP_POLICY", "KEEP_PARAMS", "UTIL_CLAMP_MIN", "UTIL_CLAMP_MAX"]
        {
            let process = format!(r#""scheduler":{{"policy":"SCHED_OTHER","flags":["SCHED_FLAG_{flag}"]}}"#);
            assert!(with_process(&process).is_ok(), "{flag}");
        }
        assert!(with_process(r#""execCPUAffinity":{"initial":"","final":"0-1"}"#).is_ok());
        assert!(
            with_process(r#""execCPUAffinity":{"initial":"a"}"#).unwrap_err().to_string().contains("execCPUAffinity")
        );
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        for bytes in [&b""[..], b"{", b"[]", b"\xff", b"null", b"{\"ociVersion\":1}"] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        assert!(read(&deep).is_err());
        assert!(read(&vec![b' '; MAX_CONFIG + 1]).unwrap_err().to_string().contains("limit"));
    }
}
