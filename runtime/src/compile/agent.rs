//! What a seccomp agent is told about a container (runtime spec, "The Container Process State").

use std::collections::BTreeMap;

use oci_spec::runtime::Spec;
use serde::Serialize;

use super::Bundle;

/// The version whose state this is.
const VERSION: &str = "1.3.0";
/// Stands for the process id, which isn't known yet. No process has it, and in a string it would be quoted.
const PID: u64 = 0x6761_7262_6f61_7264;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: State<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    pid: u64,
    bundle: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
}

/// The message about a container's first process, or with the id of that about another one; taken apart where the id stands of
/// the process whose filter it is.
pub(super) fn message(spec: &Spec, bundle: Bundle<'_>, metadata: &str, first: Option<i32>) -> Vec<String> {
    let annotations = spec.annotations().iter().flatten().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let status = if first.is_some() { "running" } else { "creating" };
    let pid = first.and_then(|pid| pid.try_into().ok()).unwrap_or(PID);
    let state = State { oci_version: VERSION, id: bundle.id, status, pid, bundle: bundle.path, annotations };
    let whole = ProcessState { oci_version: VERSION, fds: ["seccompFd"], pid: PID, metadata, state };
    let text = serde_json::to_string(&whole).unwrap_or_default();
    // With its colon, the number can't be part of a string: there every quote before it would be escaped.
    let (mut parts, mut rest) = (Vec::new(), text.as_str());
    let key = format!("\"pid\":{PID}");
    while let Some((before, after)) = rest.split_once(&key) {
        parts.push(format!("{before}\"pid\":"));
        rest = after;
    }
    parts.push(rest.to_owned());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_whole_when_the_pid_is_put_in() {
        let mut spec = Spec::default();
        spec.set_annotations(Some([("a".to_owned(), "b\0\"c".to_owned())].into()));
        let parts = message(&spec, Bundle { path: "/b", id: "one" }, "meta", None);
        assert_eq!(parts.len(), 3, "{parts:?}");
        let value: serde_json::Value = serde_json::from_str(&parts.join("42")).unwrap();
        assert_eq!(value["pid"], 42);
        assert_eq!(value["state"]["pid"], 42);
        assert_eq!(value["fds"][0], "seccompFd");
        assert_eq!(value["metadata"], "meta");
        assert_eq!((&value["state"]["id"], &value["state"]["bundle"]), (&"one".into(), &"/b".into()));
        assert_eq!(value["state"]["annotations"]["a"], "b\0\"c");
        assert_eq!(value["state"]["status"], "creating");
        let text = message(&spec, Bundle { path: "/b", id: "one" }, "meta", Some(7)).join("42");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["pid"], &value["state"]["pid"]), (&42.into(), &7.into()));
        assert_eq!(value["state"]["status"], "running");
    }
}
