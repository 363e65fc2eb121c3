//! crun's annotations that say how the rest of the configuration is to be read.

use oci_spec::runtime::Spec;

use super::error::Result;
use crate::compile::seccomp;
use crate::spec::Error;

/// Who answers the calls that the filter hands over, where `listenerPath` doesn't say it.
const RECEIVER: &str = "run.oci.seccomp.receiver";
/// System calls by names that nobody knows are errors.
const FAIL_UNKNOWN: &str = "run.oci.seccomp_fail_unknown_syscall";

/// Obeys them.
pub(super) fn apply(spec: &mut Spec) -> Result<()> {
    let value = |name: &str| spec.annotations().as_ref().and_then(|annotations| annotations.get(name).cloned());
    let receiver = value(RECEIVER).filter(|path| !path.is_empty());
    let strict = value(FAIL_UNKNOWN).is_some_and(|value| value != "0");
    let Some(seccomp) = spec.linux_mut().as_mut().and_then(|linux| linux.seccomp_mut().as_mut()) else { return Ok(()) };
    if let (Some(receiver), None) = (receiver, seccomp.listener_path()) {
        seccomp.set_listener_path(Some(receiver.into()));
    }
    let mut names = seccomp.syscalls().iter().flatten().flat_map(|rule| rule.names());
    if let Some(unknown) = names.find(|name| strict && !seccomp::is_known(name)) {
        let why = format!("there is no system call {unknown:?} (annotations[{FAIL_UNKNOWN}])");
        return Err(Error::new("linux.seccomp.syscalls", why).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(annotations: &str, seccomp: &str) -> (Result<()>, Spec) {
        let json = format!(r#"{{"ociVersion":"1.0.0","annotations":{annotations},"linux":{{"seccomp":{seccomp}}}}}"#);
        let mut spec: Spec = serde_json::from_str(&json).unwrap();
        (apply(&mut spec), spec)
    }

    #[test]
    fn a_receiver_is_a_listener_unless_there_is_one() {
        let listener = |annotations: &str, seccomp: &str| {
            let (_, spec) = applied(annotations, seccomp);
            spec.linux().as_ref()?.seccomp().as_ref()?.listener_path().clone()
        };
        let annotation = r#"{"run.oci.seccomp.receiver":"/run/agent"}"#;
        let plain = r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#;
        let named = r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/own"}"#;
        assert_eq!(listener(annotation, plain), Some("/run/agent".into()));
        assert_eq!(listener(annotation, named), Some("/run/own".into()));
        assert_eq!(listener("{}", plain), None);
    }

    #[test]
    fn unknown_calls_are_errors_where_that_is_asked_for() {
        let with = |value: &str, call: &str| {
            let annotations = format!(r#"{{"run.oci.seccomp_fail_unknown_syscall":"{value}"}}"#);
            let rule = format!(r#"{{"names":["read","{call}"],"action":"SCMP_ACT_ERRNO"}}"#);
            applied(&annotations, &format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rule}]}}"#)).0
        };
        let error = with("1", "fly").unwrap_err().to_string();
        assert!(error.contains("linux.seccomp.syscalls: there is no system call \"fly\""), "{error}");
        // One of another architecture is known.
        assert!(with("1", "socketcall").is_ok() && with("0", "fly").is_ok());
    }
}
