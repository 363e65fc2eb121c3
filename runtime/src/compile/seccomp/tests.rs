//! Profiles, and what their filters say.

use super::super::shorten::tests::run;
use super::newer::{AUDIT_ARCH_I386, AUDIT_ARCH_X86_64, X32_BIT};
use super::*;
use crate::spec::seccomp::default_profile;

const ALLOW: u32 = 0x7fff_0000;
const NOT_PERMITTED: u32 = 0x0005_0001;
const NO_SUCH_CALL: u32 = 0x0005_0000 | ENOSYS;

fn number(name: &str) -> u32 {
    ScmpSyscall::from_name(name).unwrap().as_raw_syscall().try_into().unwrap()
}

fn ask(filter: &Seccomp, name: &str, args: [u64; 6]) -> u32 {
    run(&filter.bpf, AUDIT_ARCH_X86_64, number(name), args)
}

#[test]
fn the_default_profile_denies_what_it_says() {
    let filter = compile(&default_profile(0)).unwrap();
    for name in ["read", "openat", "execve", "futex", "epoll_wait", "fork", "accept4", "capset"] {
        assert_eq!(ask(&filter, name, [0; 6]), ALLOW, "{name}");
    }
    for name in "keyctl add_key request_key bpf userfaultfd io_uring_setup io_uring_enter io_uring_register perf_event_open \
                 mount umount2 pivot_root move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr unshare setns \
                 kexec_load kexec_file_load init_module finit_module delete_module ptrace process_vm_readv \
                 process_vm_writev pidfd_getfd kcmp open_by_handle_at reboot swapon swapoff acct quotactl syslog \
                 settimeofday clock_settime adjtimex iopl ioperm modify_ldt uselib ustat chroot"
        .split_whitespace()
    {
        assert_eq!(ask(&filter, name, [0; 6]), NOT_PERMITTED, "{name}");
    }
}

#[test]
fn arguments_are_looked_at() {
    let filter = compile(&default_profile(0)).unwrap();
    let first = |name: &str, argument: u64| ask(&filter, name, [argument, 0, 0, 0, 0, 0]);
    assert_eq!(first("clone", 0x3d_0f00), ALLOW, "a thread");
    for namespace in [0x80, 0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000_u64] {
        assert_eq!(first("clone", namespace | 17), NOT_PERMITTED, "{namespace:#x}");
    }
    assert_eq!(first("clone3", 0), NO_SUCH_CALL);
    assert_eq!((first("socket", 2), first("socket", 1), first("socket", 16)), (ALLOW, ALLOW, ALLOW));
    for family in [38, 40, 21, 29, 31] {
        assert_eq!(first("socket", family), NOT_PERMITTED, "family {family}");
    }
    assert_eq!((first("personality", 0xffff_ffff), first("personality", 0x40_000)), (ALLOW, NOT_PERMITTED));
}

#[test]
fn newer_calls_and_other_abis_do_not_exist() {
    let filter = compile(&default_profile(0)).unwrap();
    for number in [450, 451, 462, 999, 0x3fff_ffff] {
        assert_eq!(run(&filter.bpf, AUDIT_ARCH_X86_64, number, [0; 6]), NO_SUCH_CALL, "{number}");
    }
    assert_eq!(run(&filter.bpf, AUDIT_ARCH_X86_64, X32_BIT, [0; 6]), NO_SUCH_CALL, "x32");
    assert_eq!(run(&filter.bpf, AUDIT_ARCH_I386, 1, [0; 6]), NO_SUCH_CALL, "i386");
    // The newest call named is `futex_waitv`; with the capability for memory policies one further.
    assert_eq!(run(&filter.bpf, AUDIT_ARCH_X86_64, 449, [0; 6]), ALLOW);
    let nice = compile(&default_profile(1 << 23)).unwrap();
    let of_nice = [450, 451].map(|number| run(&nice.bpf, AUDIT_ARCH_X86_64, number, [0; 6]));
    assert_eq!(of_nice, [ALLOW, NO_SUCH_CALL]);
}

/// What each ABI answers to the last numbers that the profile may mean, and to the first that it can't.
#[test]
fn calls_are_newer_than_what_a_profile_names_by_each_abi_s_own_numbers() {
    let profile = |abis: &str, names: &str| {
        of(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","architectures":[{abis}],"syscalls":[
                {{"names":["read",{names}],"action":"SCMP_ACT_ALLOW"}},
                {{"names":["pidfd_open"],"action":"SCMP_ACT_ERRNO"}}]}}"#
        ))
        .unwrap()
    };
    const ALL: &str = r#""SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32""#;
    let answers = |filter: &Seccomp, architecture: u32, numbers: [u32; 3]| {
        numbers.map(|number| run(&filter.bpf, architecture, number, [0; 6]))
    };
    // 434 is pidfd_open everywhere: named, though only to be denied.
    let around = |of: u32| [of + 433, of + 434, of + 435];
    let expected = [NOT_PERMITTED, NOT_PERMITTED, NO_SUCH_CALL];
    let all = profile(ALL, r#""mkdir""#);
    for (architecture, first) in [(AUDIT_ARCH_X86_64, 0), (AUDIT_ARCH_I386, 0), (AUDIT_ARCH_X86_64, X32_BIT)] {
        assert_eq!(answers(&all, architecture, around(first)), expected, "{architecture:#x} {first:#x}");
    }
    // Calls of 32-bit programs alone make theirs newer, not those of others: clock_gettime64 is 403, futex_time64 is 422 there.
    let old =
        r#""architectures":["SCMP_ARCH_X86"],"syscalls":[{"names":["read","futex_time64"],"action":"SCMP_ACT_ALLOW"}]"#;
    let old = of(&format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO",{old}}}"#)).unwrap();
    assert_eq!(answers(&old, AUDIT_ARCH_I386, [403, 422, 423]), [NOT_PERMITTED, ALLOW, NO_SUCH_CALL]);
    assert_eq!(answers(&old, AUDIT_ARCH_X86_64, [0, 1, 422]), [ALLOW, NO_SUCH_CALL, NO_SUCH_CALL]);
    // What is allowed by default has nothing to fall back from, and a profile that names nothing knows of nothing newer.
    let open = of(r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}"#);
    assert_eq!(answers(&open.unwrap(), AUDIT_ARCH_X86_64, [83, 84, 999]), [NOT_PERMITTED, ALLOW, ALLOW]);
    let shut = of(r#"{"defaultAction":"SCMP_ACT_ERRNO"}"#).unwrap();
    assert_eq!(answers(&shut, AUDIT_ARCH_X86_64, [0, 84, 999]), [NOT_PERMITTED; 3]);
}

#[test]
fn capabilities_open_their_calls() {
    let admin = compile(&default_profile(1 << 21)).unwrap();
    assert_eq!(ask(&admin, "mount", [0; 6]), ALLOW);
    assert_eq!(ask(&admin, "clone", [0x1000_0000, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(ask(&admin, "bpf", [0; 6]), NOT_PERMITTED);
    let debugger = compile(&default_profile(1 << 19)).unwrap();
    assert_eq!(ask(&debugger, "ptrace", [0; 6]), ALLOW);
    assert_eq!(ask(&debugger, "mount", [0; 6]), NOT_PERMITTED);
}

#[test]
fn the_default_filter_is_short_and_means_the_same() {
    let native = [0, 1 << 21, 1 << 19, u64::MAX].map(default_profile);
    let mut compatible = default_profile(0);
    compatible.set_architectures(Some(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]));
    for profile in native.iter().chain([&compatible]) {
        let (whole, filter) = (whole(profile).unwrap(), compile(profile).unwrap());
        assert!(filter.bpf.len() * 4 < whole.len(), "{} of {} bytes", filter.bpf.len(), whole.len());
        let arguments =
            [0, 1, 8, 16, 38, 40, 0x8000_0000, 0x1000_0011, 0x2_0008, 0x3d_0f00, 0xffff_ffff, 1 << 32, u64::MAX];
        for number in (0..600).chain([0, 1, 40, 500, 600].map(|n| X32_BIT + n)).chain([u32::MAX - 1, u32::MAX]) {
            for argument in arguments {
                for arch in [AUDIT_ARCH_X86_64, 0x4000_0003, 0] {
                    let of = |filter: &[u8]| run(filter, arch, number, [argument; 6]);
                    assert_eq!(of(&filter.bpf), of(&whole), "{arch:#x} {number} {argument:#x}");
                }
            }
        }
    }
}

#[test]
fn equal_profiles_give_equal_bytes() {
    assert_eq!(compile(&default_profile(0)).unwrap(), compile(&default_profile(0)).unwrap());
}

fn of(json: &str) -> Result<Seccomp, Error> {
    compile(&serde_json::from_str(json).unwrap())
}

#[test]
fn every_action_is_the_kernel_s() {
    for (action, errno, expected) in [
        ("KILL", "", 0),
        ("KILL_THREAD", "", 0),
        ("KILL_PROCESS", "", 0x8000_0000),
        ("TRAP", "", 0x0003_0000),
        ("ERRNO", "", 0x0005_0001),
        ("ERRNO", r#","errnoRet":38"#, 0x0005_0026),
        ("TRACE", r#","errnoRet":7"#, 0x7ff0_0007),
        ("LOG", "", 0x7ffc_0000),
        ("NOTIFY", "", 0x7fc0_0000),
    ] {
        let json = format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/agent","syscalls":[{{"names":["mkdir"],"action":"SCMP_ACT_{action}"{errno}}}]}}"#
        );
        let filter = of(&json).unwrap();
        assert_eq!(ask(&filter, "mkdir", [0; 6]), expected, "{json}");
        assert_eq!(ask(&filter, "rmdir", [0; 6]), ALLOW);
        assert_eq!(filter.listener.is_some(), action == "NOTIFY");
        assert_eq!(filter.flags & FLAG_NEW_LISTENER != 0, action == "NOTIFY");
    }
}

#[test]
fn other_abis_are_filtered_where_they_are_named() {
    let profile = |architectures: &str| {
        of(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","architectures":[{architectures}],"syscalls":[{{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}}]}}"#
        ))
    };
    let both = profile(r#""SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_AARCH64""#).unwrap();
    // mkdir is 39 there.
    assert_eq!(run(&both.bpf, AUDIT_ARCH_I386, 39, [0; 6]), NOT_PERMITTED);
    assert_eq!(run(&both.bpf, AUDIT_ARCH_I386, 40, [0; 6]), ALLOW);
    assert_eq!(ask(&both, "mkdir", [0; 6]), NOT_PERMITTED);
    let native = profile("").unwrap();
    assert_eq!(run(&native.bpf, AUDIT_ARCH_I386, 40, [0; 6]), NO_SUCH_CALL);
    // The native one has its rules in any case.
    let foreign = profile(r#""SCMP_ARCH_AARCH64""#).unwrap();
    assert_eq!(ask(&foreign, "mkdir", [0; 6]), NOT_PERMITTED);
    assert_eq!(run(&foreign.bpf, AUDIT_ARCH_I386, 40, [0; 6]), NO_SUCH_CALL);
}

#[test]
fn arguments_are_compared_by_every_operator() {
    let of = |op: &str, two: &str| {
        of(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["close"],"action":"SCMP_ACT_ERRNO",
                "args":[{{"index":0,"value":5{two},"op":"SCMP_CMP_{op}"}}]}}]}}"#
        ))
        .unwrap()
    };
    let denied = |filter: &Seccomp| -> Vec<u64> {
        (0..8).filter(|value| ask(filter, "close", [*value, 0, 0, 0, 0, 0]) == NOT_PERMITTED).collect()
    };
    assert_eq!(denied(&of("EQ", "")), [5]);
    assert_eq!(denied(&of("NE", "")), [0, 1, 2, 3, 4, 6, 7]);
    assert_eq!(denied(&of("LT", "")), [0, 1, 2, 3, 4]);
    assert_eq!(denied(&of("LE", "")), [0, 1, 2, 3, 4, 5]);
    assert_eq!(denied(&of("GE", "")), [5, 6, 7]);
    assert_eq!(denied(&of("GT", "")), [6, 7]);
    assert_eq!(denied(&of("MASKED_EQ", r#","valueTwo":4"#)), [4, 6]);
}

#[test]
fn an_argument_named_twice_means_either() {
    let filter = of(r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["close"],"action":"SCMP_ACT_ERRNO",
            "args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#)
    .unwrap();
    let first = |argument: u64| ask(&filter, "close", [argument, 0, 0, 0, 0, 0]);
    assert_eq!((first(1), first(2), first(3)), (NOT_PERMITTED, NOT_PERMITTED, ALLOW));
}

#[test]
fn what_is_not_supported_is_named() {
    for (json, word) in [
        (
            r#"{"defaultAction":"SCMP_ACT_NOTIFY","listenerPath":"/x"}"#,
            "defaultAction: SCMP_ACT_NOTIFY cannot be used as default action",
        ),
        (r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":99999}"#, "defaultErrnoRet: 99999"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}"#, "defaultErrnoRet: 1"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerMetadata":"x"}"#, "listenerMetadata"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}"#, "flags"),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":[],"action":"SCMP_ACT_KILL"}]}"#,
            "syscalls[0].names",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}"#,
            "listenerPath",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x","syscalls":[{"names":["sendmsg"],"action":"SCMP_ACT_NOTIFY"}]}"#,
            "SCMP_ACT_NOTIFY cannot be used for the sendmsg syscall",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x","syscalls":[{"names":["mkdir","write"],"action":"SCMP_ACT_NOTIFY"}]}"#,
            "SCMP_ACT_NOTIFY cannot be used for the write syscall",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_KILL","errnoRet":2}]}"#,
            "syscalls[0].errnoRet: 2",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_KILL","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
            "no argument 6",
        ),
    ] {
        let error = of(json).unwrap_err().to_string();
        assert!(error.contains(word), "{json}: {error}");
    }
}

#[test]
fn a_filter_may_be_early_if_it_lets_the_runtime_go_on() {
    let early = |rest: &str| {
        let notify = r#"{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}"#;
        let json = format!(r#"{{"listenerPath":"/a","syscalls":[{notify},{rest}}}"#);
        listener(&serde_json::from_str(&json).unwrap()).unwrap().unwrap().early
    };
    let rule =
        |names: &str, action: &str, more: &str| format!(r#"{{"names":[{names}],"action":"SCMP_ACT_{action}"{more}}}"#);
    let by_default = |action: &str| format!(r#"],"defaultAction":"SCMP_ACT_{action}""#);
    let all = FROM_CREATE_TO_PROGRAM.map(|name| format!("\"{name}\"")).join(",");
    let conditional = r#","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]"#;
    for (rules, default, expected) in [
        (rule("\"chroot\"", "ERRNO", ""), "ALLOW", true),
        (rule("\"chroot\",\"accept4\"", "ERRNO", ""), "ALLOW", false),
        (rule("\"write\"", "KILL", conditional), "ALLOW", false),
        (rule(&all, "ALLOW", ""), "ERRNO", true),
        (rule(&all, "LOG", ""), "ERRNO", true),
        (rule(&all, "ALLOW", conditional), "ERRNO", false),
        (rule("\"execve\"", "ALLOW", ""), "ERRNO", false),
    ] {
        assert_eq!(early(&format!("{rules}{}", by_default(default))), expected, "{rules} {default}");
    }
}

/// One comparison of an argument each, of different values.
fn comparisons(number: u64, abis: &str) -> LinuxSeccomp {
    let rule = |i: u64| {
        serde_json::json!({"names": ["personality"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 0, "value": i * 7 + (i << 33), "op": "SCMP_CMP_EQ"}]})
    };
    let rules: Vec<_> = (1..=number).map(rule).collect();
    let architectures: Vec<&str> = abis.split_whitespace().collect();
    let profile =
        serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures, "syscalls": rules});
    serde_json::from_value(profile).unwrap()
}

/// From 65,536 steps on libseccomp writes beyond its memory; it never sees so many.
#[test]
fn a_profile_that_the_kernel_would_not_take_is_refused_before_it_is_compiled() {
    for (number, abis) in [
        (20_000, "SCMP_ARCH_X86_64"),
        (2_049, "SCMP_ARCH_X86_64"),
        (1_025, "SCMP_ARCH_X86"),
        (1_500, "SCMP_ARCH_X86_64"),
    ] {
        let error = compile(&comparisons(number, abis)).unwrap_err().to_string();
        assert!(error.contains("linux.seccomp.syscalls") && error.contains("the kernel takes 4096"), "{error}");
    }
    let filter = compile(&comparisons(500, "SCMP_ARCH_X86_64")).unwrap();
    assert!(filter.bpf.len() <= 4096 * 8);
    let personality = |persona| ask(&filter, "personality", [persona, 0, 0, 0, 0, 0]);
    assert_eq!((personality(7 + (1 << 33)), personality(7)), (NOT_PERMITTED, ALLOW));
}
