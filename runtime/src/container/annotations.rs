//! crun's annotations that say how the rest of the configuration is to be read.

use base64ct::{Base64, Encoding};
use oci_spec::runtime::{LinuxTimeOffset, Spec};

use super::error::Result;
use crate::compile::seccomp;
use crate::launch::Seccomp;
use crate::spec::Error;

/// Who answers the calls that the filter hands over, where `listenerPath` doesn't say it.
const RECEIVER: &str = "run.oci.seccomp.receiver";
/// System calls by names that nobody knows are errors.
const FAIL_UNKNOWN: &str = "run.oci.seccomp_fail_unknown_syscall";
/// The filter itself, in base64, instead of `linux.seccomp`.
const FILTER: &str = "run.oci.seccomp_bpf_data";
/// `CLOCK SECONDS NANOSECONDS`, where `linux.timeOffsets` doesn't say it.
const TIME_OFFSET: &str = "run.oci.timens_offset";
/// What there isn't here, and what a container would be wrong without.
const REFUSED: [(&str, &str); 3] = [
    ("run.oci.handler", "programs are executed by the kernel, there are no other handlers"),
    ("run.oci.seccomp.plugins", "calls are handed to who listens at linux.seccomp.listenerPath, there are no plugins"),
    ("run.oci.systemd.force_cgroup_v1", "there is no cgroup version 1 here: the container's is of version 2"),
];

/// Steps of a filter, as the kernel takes them (`BPF_MAXINSNS`), and bytes of each.
const MOST_STEPS: usize = 4096;
const STEP: usize = 8;

/// Obeys those that stand for something else in the configuration.
pub(super) fn apply(spec: &mut Spec) -> Result<()> {
    let value = |name: &str| value(spec, name);
    for (name, why) in REFUSED {
        if let Some(value) = value(name) {
            return Err(Error::new(format!("annotations[{name}]"), format!("{value:?}: {why}")).into());
        }
    }
    let (receiver, offset, has_filter) = (value(RECEIVER), value(TIME_OFFSET), value(FILTER).is_some());
    let strict = value(FAIL_UNKNOWN).is_some_and(|value| value != "0");
    let Some(linux) = spec.linux_mut().as_mut() else { return Ok(()) };
    if let (Some(offset), None) = (offset, linux.time_offsets()) {
        linux.set_time_offsets(Some([time_offset(&offset)?].into()));
    }
    if has_filter {
        linux.set_seccomp(None);
    }
    let Some(seccomp) = linux.seccomp_mut().as_mut() else { return Ok(()) };
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

/// The filter that is given as it is, if one is.
pub(super) fn filter(spec: &Spec) -> Result<Option<Seccomp>> {
    let Some(text) = value(spec, FILTER) else { return Ok(None) };
    let bpf =
        base64(&text).filter(|bpf| bpf.len().is_multiple_of(STEP) && (1..=MOST_STEPS).contains(&(bpf.len() / STEP)));
    let why = "it isn't base64 of 1 to 4096 steps of 8 bytes each";
    let bpf = bpf.ok_or_else(|| Error::new(format!("annotations[{FILTER}]"), why))?;
    Ok(Some(Seccomp { bpf: bpf.into(), flags: 0, listener: None }))
}

/// The annotation, unless it says nothing.
fn value(spec: &Spec, name: &str) -> Option<String> {
    spec.annotations().as_ref()?.get(name).filter(|value| !value.is_empty()).cloned()
}

/// As `/proc/PID/timens_offsets` has it, clocks by their names or numbers (time_namespaces(7)).
fn time_offset(text: &str) -> Result<(String, LinuxTimeOffset)> {
    let parse = || {
        let mut words = text.split_whitespace();
        let clock = match words.next()? {
            "1" => "monotonic",
            "7" => "boottime",
            name => name,
        };
        let mut offset = LinuxTimeOffset::default();
        offset.set_secs(Some(words.next()?.parse().ok()?)).set_nanosecs(Some(words.next()?.parse().ok()?));
        words.next().is_none().then(|| (clock.to_owned(), offset))
    };
    let why = || format!("{text:?} isn't CLOCK SECONDS NANOSECONDS");
    Ok(parse().ok_or_else(|| Error::new(format!("annotations[{TIME_OFFSET}]"), why()))?)
}

/// Bytes from base64 (RFC 4648, section 4).
fn base64(text: &str) -> Option<Vec<u8>> {
    Base64::decode_vec(text.trim()).ok()
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

    #[test]
    fn what_there_is_not_is_refused_by_name() {
        for (name, value) in [
            ("run.oci.handler", "wasm"),
            ("run.oci.seccomp.plugins", "x.so"),
            ("run.oci.systemd.force_cgroup_v1", "/x"),
        ] {
            let with = |value: &str| applied(&format!(r#"{{"{name}":"{value}"}}"#), "null").0;
            let error = with(value).unwrap_err().to_string();
            assert!(error.contains(&format!("annotations[{name}]: {value:?}: ")), "{error}");
            assert!(with("").is_ok());
        }
    }

    #[test]
    fn a_filter_may_be_given_as_it_is() {
        let with = |text: &str| {
            let annotations = format!(r#"{{"run.oci.seccomp_bpf_data":"{text}"}}"#);
            let (result, spec) = applied(&annotations, r#"{"defaultAction":"SCMP_ACT_KILL"}"#);
            result.unwrap();
            assert_eq!(spec.linux().as_ref().unwrap().seccomp().is_none(), !text.is_empty());
            filter(&spec)
        };
        // BPF_RET | BPF_K: SECCOMP_RET_ALLOW.
        let allow = with("BgAAAAAA/38=").unwrap().unwrap();
        assert_eq!(&allow.bpf[..], [6, 0, 0, 0, 0, 0, 0xff, 0x7f]);
        assert_eq!(with(""), Ok(None));
        for wrong in ["BgAAAAAA/38", "BgAAAAAA_38=", "AAAA", &"A".repeat(4 * 11_000)] {
            let error = with(wrong).unwrap_err().to_string();
            assert!(error.contains("annotations[run.oci.seccomp_bpf_data]: it isn't base64"), "{error}");
        }
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, bytes) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob"), ("Zm9vYmFy", "foobar")]
        {
            assert_eq!(base64(text).unwrap(), bytes.as_bytes(), "{text}");
        }
        assert!(base64("Zg=").is_none() && base64("Z===").is_none() && base64("=Zg=").is_none());
    }

    #[test]
    fn a_clock_s_offset_is_the_configuration_s_unless_there_is_one() {
        let offsets = |text: &str| {
            let json =
                format!(r#"{{"ociVersion":"1.0.0","annotations":{{"run.oci.timens_offset":"{text}"}},"linux":{{}}}}"#);
            let mut spec: Spec = serde_json::from_str(&json).unwrap();
            apply(&mut spec).map(|()| {
                let offsets = spec.linux().as_ref().unwrap().time_offsets().clone().unwrap();
                let (clock, offset) = offsets.into_iter().next().unwrap();
                (clock, offset.secs().unwrap(), offset.nanosecs().unwrap())
            })
        };
        assert_eq!(offsets("monotonic -5 7").unwrap(), ("monotonic".to_owned(), -5, 7));
        assert_eq!(offsets("7 86400 0").unwrap(), ("boottime".to_owned(), 86_400, 0));
        for wrong in ["monotonic", "monotonic 1", "monotonic x 0", "monotonic 1 0 0"] {
            assert!(offsets(wrong).unwrap_err().to_string().contains("isn't CLOCK SECONDS NANOSECONDS"), "{wrong}");
        }
    }
}
