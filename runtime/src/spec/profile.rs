//! Seccomp profiles from JSON: Docker's format, of which the OCI runtime's `linux.seccomp` is the part without conditions.
//!
//! Unknown keys are errors, as what they would restrict is unknown, too. Conditions are decided when the image is built: the
//! container's capabilities, the architecture and the kernel are known then.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};
use serde::Deserialize;

use super::{Error, capabilities, seccomp};

/// No profile is larger, in bytes.
const MAX_SIZE: usize = 1 << 20;
/// The architecture that containers run on, as Docker's conditions have it.
const ARCHITECTURE: &str = "amd64";
/// Every architecture that a condition may name: Go's, and two of Docker's own.
const ARCHITECTURES: [&str; 21] = [
    "386",
    "amd64",
    "arm",
    "arm64",
    "loong64",
    "mips",
    "mips64",
    "mips64le",
    "mips64n32",
    "mipsel",
    "mipsel64",
    "mipsel64n32",
    "mipsle",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv64",
    "s390",
    "s390x",
    "x32",
    "x86",
];

/// What conditions are decided by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// The container's capabilities, as a mask by number.
    pub(crate) capabilities: u64,
    /// The kernel's version; `None`: nobody knows.
    pub(crate) kernel: Option<(u32, u32)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    default_errno: Option<String>,
    architectures: Option<Vec<Arch>>,
    arch_map: Option<Vec<Architecture>>,
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<Syscall>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Architecture {
    architecture: Arch,
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Syscall {
    /// One call, as profiles had it before `names`.
    name: Option<String>,
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    errno: Option<String>,
    args: Option<Vec<Argument>>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
    includes: Option<Condition>,
    excludes: Option<Condition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: usize,
    value: u64,
    value_two: Option<u64>,
    op: LinuxSeccompOperator,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Condition {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// The profile with its conditions decided.
pub(crate) fn parse(json: &str, facts: Facts) -> Result<LinuxSeccomp, Error> {
    if json.len() > MAX_SIZE {
        return Err(wrong(format!("{} bytes; the limit is {MAX_SIZE}", json.len())));
    }
    let profile: Profile = serde_json::from_str(json).map_err(|e| wrong(e.to_string()))?;
    if profile.listener_path.is_some() || profile.listener_metadata.is_some() {
        return Err(wrong("`listenerPath`: nobody would listen; leave it out"));
    }
    named_errno(profile.default_errno.as_deref(), profile.default_errno_ret)?;
    let architectures = architectures(profile.architectures, profile.arch_map)?;
    let mut calls = Vec::new();
    for syscall in profile.syscalls.unwrap_or_default() {
        let names = names(syscall.name, syscall.names)?;
        named_errno(syscall.errno.as_deref(), syscall.errno_ret)?;
        let applies = decide(&names, syscall.includes, syscall.excludes, facts)?;
        let arguments = syscall.args.unwrap_or_default().iter().map(argument).collect::<Vec<_>>();
        if applies {
            calls.push(call(names, syscall.action, syscall.errno_ret, arguments));
        }
    }
    let mut made = LinuxSeccomp::default();
    made.set_default_action(profile.default_action)
        .set_default_errno_ret(profile.default_errno_ret)
        .set_architectures(architectures)
        .set_flags(profile.flags)
        .set_syscalls(Some(calls));
    Ok(made)
}

fn wrong(reason: impl std::fmt::Display) -> Error {
    Error::new("security_opt", format!("seccomp profile: {reason}"))
}

/// Podman's profiles have the error's name beside its number; the number is what counts.
fn named_errno(name: Option<&str>, number: Option<u32>) -> Result<(), Error> {
    match (name.filter(|name| !name.is_empty()), number) {
        (Some(name), None) => {
            Err(wrong(format!("error {name:?} without its number: add `errnoRet` or `defaultErrnoRet`")))
        }
        _ => Ok(()),
    }
}

/// Docker's map says which architectures go with the machine's own.
fn architectures(list: Option<Vec<Arch>>, map: Option<Vec<Architecture>>) -> Result<Option<Vec<Arch>>, Error> {
    let list = list.filter(|list| !list.is_empty());
    let Some(map) = map.filter(|map| !map.is_empty()) else { return Ok(list) };
    if list.is_some() {
        return Err(wrong("it has both `architectures` and `archMap`: leave one out"));
    }
    let own = map.into_iter().find(|entry| entry.architecture == Arch::ScmpArchX86_64);
    let own = own.ok_or_else(|| wrong("its `archMap` has no SCMP_ARCH_X86_64, so it is for other machines"))?;
    let others = own.sub_architectures.unwrap_or_default();
    Ok(Some([vec![own.architecture], others].concat()))
}

fn names(one: Option<String>, several: Option<Vec<String>>) -> Result<Vec<String>, Error> {
    match (one.filter(|name| !name.is_empty()), several.filter(|names| !names.is_empty())) {
        (Some(name), None) => Ok(vec![name]),
        (None, Some(names)) => Ok(names),
        (Some(name), Some(_)) => Err(wrong(format!("a rule has both `name` ({name:?}) and `names`: leave one out"))),
        (None, None) => Err(wrong("a rule names no system call: add `names`")),
    }
}

/// Whether a rule applies: everything that `includes` asks for holds, and nothing that `excludes` names.
fn decide(
    names: &[String],
    includes: Option<Condition>,
    excludes: Option<Condition>,
    facts: Facts,
) -> Result<bool, Error> {
    let of = |e: String| wrong(format!("rule of {:?}: {e}", names.first().map_or("", String::as_str)));
    let (includes, excludes) = (includes.unwrap_or_default(), excludes.unwrap_or_default());
    let wanted = includes.facts(facts).map_err(of)?;
    let unwanted = excludes.facts(facts).map_err(of)?;
    let included = wanted.capabilities.iter().all(|held| *held)
        && wanted.architecture.unwrap_or(true)
        && wanted.kernel.unwrap_or(true);
    let excluded = unwanted.capabilities.iter().any(|held| *held)
        || unwanted.architecture.unwrap_or(false)
        || unwanted.kernel.unwrap_or(false);
    Ok(included && !excluded)
}

/// A condition's parts, each true or false here; absent ones say nothing.
struct Holds {
    capabilities: Vec<bool>,
    architecture: Option<bool>,
    kernel: Option<bool>,
}

impl Condition {
    fn facts(&self, facts: Facts) -> Result<Holds, String> {
        let held = |name: &String| match capabilities::named("", std::slice::from_ref(name)).as_deref() {
            Ok([number]) => Ok(facts.capabilities & (1 << number) != 0),
            _ => Err(format!("{name:?} is no capability (see capabilities(7))")),
        };
        let arches = self.arches.as_deref().unwrap_or_default();
        if let Some(unknown) = arches.iter().find(|arch| !ARCHITECTURES.contains(&arch.as_str())) {
            return Err(format!("{unknown:?} is no architecture; this machine's is {ARCHITECTURE:?}"));
        }
        let kernel = self.min_kernel.as_deref().filter(|text| !text.is_empty());
        Ok(Holds {
            capabilities: self.caps.iter().flatten().map(held).collect::<Result<_, _>>()?,
            architecture: (!arches.is_empty()).then(|| arches.iter().any(|arch| arch == ARCHITECTURE)),
            kernel: kernel.map(|text| at_least(text, facts.kernel)).transpose()?,
        })
    }
}

/// Whether the kernel is of this version or newer.
fn at_least(wanted: &str, kernel: Option<(u32, u32)>) -> Result<bool, String> {
    let exact = wanted.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && wanted.matches('.').count() == 1;
    let wanted = seccomp::kernel_version(wanted).filter(|_| exact);
    let wanted = wanted.ok_or("`minKernel` is a version such as \"4.8\"")?;
    let kernel = kernel.ok_or("`minKernel` can't be decided: the version of this kernel isn't known")?;
    Ok(kernel >= wanted)
}

fn argument(argument: &Argument) -> LinuxSeccompArg {
    seccomp::argument(argument.index, argument.value, argument.value_two, argument.op)
}

fn call(
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno: Option<u32>,
    arguments: Vec<LinuxSeccompArg>,
) -> LinuxSyscall {
    seccomp::rule(names, action, errno, Some(arguments).filter(|arguments| !arguments.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYS_ADMIN: Facts = Facts { capabilities: 1 << 21, kernel: Some((6, 12)) };

    fn with(rule: &str, facts: Facts) -> Result<LinuxSeccomp, String> {
        let json = format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{{rule},"action":"SCMP_ACT_ALLOW"}}]}}"#);
        parse(&json, facts).map_err(|e| e.to_string())
    }

    fn applies(conditions: &str) -> bool {
        let made = with(&format!(r#""names":["bpf"],{conditions}"#), SYS_ADMIN).unwrap();
        made.syscalls().as_ref().is_some_and(|calls| calls.len() == 1)
    }

    #[test]
    fn conditions_are_decided_as_docker_does() {
        for conditions in [
            r#""includes":{},"excludes":{}"#,
            r#""includes":null"#,
            r#""includes":{"caps":["CAP_SYS_ADMIN"]}"#,
            r#""includes":{"arches":["amd64","x32"]}"#,
            r#""includes":{"minKernel":"4.8"}"#,
            r#""includes":{"minKernel":"6.12"}"#,
            r#""excludes":{"caps":["CAP_BPF"]}"#,
            r#""excludes":{"arches":["s390x"]}"#,
            r#""excludes":{"minKernel":"6.13"}"#,
            r#""comment":"why","args":null"#,
        ] {
            assert!(applies(conditions), "{conditions}");
        }
        for conditions in [
            // Every capability of `includes` is needed, any of `excludes` is enough.
            r#""includes":{"caps":["CAP_SYS_ADMIN","CAP_BPF"]}"#,
            r#""excludes":{"caps":["CAP_SYS_ADMIN","CAP_BPF"]}"#,
            r#""includes":{"arches":["arm","arm64"]}"#,
            r#""includes":{"minKernel":"6.13"}"#,
            r#""excludes":{"arches":["amd64"]}"#,
            r#""excludes":{"minKernel":"4.8"}"#,
            r#""includes":{"arches":["amd64"]},"excludes":{"caps":["CAP_SYS_ADMIN"]}"#,
        ] {
            assert!(!applies(conditions), "{conditions}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (rule, word) in [
            (r#""names":["x"],"include":{}"#, "include"),
            (r#""names":["x"],"includes":{"cap":["CAP_BPF"]}"#, "cap"),
            (r#""names":["x"],"includes":{"caps":["CAP_ROOT"]}"#, "CAP_ROOT"),
            (r#""names":["x"],"excludes":{"caps":["ALL"]}"#, "ALL"),
            (r#""names":["x"],"includes":{"arches":["amd46"]}"#, "amd46"),
            (r#""names":["x"],"includes":{"minKernel":"newest"}"#, "minKernel"),
            (r#""names":["x"],"args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ","mask":1}]"#, "mask"),
            (r#""names":["x"],"args":[{"index":0,"value":1,"op":"SCMP_CMP_LIKE"}]"#, "SCMP_CMP_LIKE"),
            (r#""names":["x"],"name":"y""#, "both"),
            (r#""names":[]"#, "names no system call"),
            (r#""names":["x"],"errno":"EPERM""#, "without its number"),
        ] {
            let error = with(rule, SYS_ADMIN).unwrap_err();
            assert!(error.contains(word) && error.contains("seccomp profile"), "{rule}: {error}");
        }
        let unknown = Facts { kernel: None, ..SYS_ADMIN };
        assert!(with(r#""names":["x"],"includes":{"minKernel":"4.8"}"#, unknown).unwrap_err().contains("isn't known"));
        for (profile, word) in [
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}"#,
                "both",
            ),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[{"architecture":"SCMP_ARCH_ARM"}]}"#, "other machines"),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}"#, "listenerPath"),
            (r#"{"syscalls":[]}"#, "defaultAction"),
            ("[]", "seccomp profile"),
            ("{", "seccomp profile"),
        ] {
            let error = parse(profile, SYS_ADMIN).unwrap_err().to_string();
            assert!(error.contains(word), "{profile}: {error}");
        }
        assert!(parse(&" ".repeat(MAX_SIZE + 1), SYS_ADMIN).is_err());
    }

    #[test]
    fn both_formats_give_the_same() {
        let docker = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,
            "archMap":[{"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]},
                       {"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"]}],
            "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[],"comment":"","includes":{},"excludes":{}},
                        {"name":"personality","action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]}]}"#;
        let oci = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,
            "architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],
            "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"},
                        {"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]}]}"#;
        assert_eq!(parse(docker, SYS_ADMIN).unwrap(), parse(oci, SYS_ADMIN).unwrap());
    }
}
