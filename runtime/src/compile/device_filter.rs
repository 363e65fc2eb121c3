//! Device rules of a spec → an eBPF program for the device cgroup (`BPF_PROG_TYPE_CGROUP_DEVICE`). Pure.
//!
//! Of each kind of access the last rule that names it decides, as in cgroup v1's list, so the program asks them from the last to
//! the first. A request may ask for several kinds at once: it is allowed if each of them is, be it by different rules.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::device_rule::{self, BLOCK, CHARACTER, MKNOD, READ, Rule, WRITE};
use crate::spec::Error;

/// More rules than any real list. The kernel puts one branch of each aside before it has seen the end, and takes 8,192 of them
/// (`BPF_COMPLEXITY_LIMIT_JMP_SEQ`).
const MAX_RULES: usize = 8000;

/// The rule that matches whatever is asked for.
const EVERYTHING: Rule = Rule { allow: true, kind: None, access: MKNOD | READ | WRITE, major: None, minor: None };

/// The program for `rules`, 8 bytes per instruction. It returns 1 (allow) or 0; what no rule matches is denied.
pub fn compile(rules: &[LinuxDeviceCgroup]) -> Result<Vec<u8>, Error> {
    if rules.len() > MAX_RULES {
        return Err(Error::new("linux.resources.devices", format!("{} rules; at most {MAX_RULES}", rules.len())));
    }
    let mut asked = Vec::new();
    let mut decided = false;
    for rule in rules.iter().rev() {
        let rule = one(rule)?;
        asked.push(rule);
        // Nothing after such a rule is ever asked.
        if (Rule { allow: true, ..rule }) == EVERYTHING {
            decided = true;
            break;
        }
    }
    let mut program = device_rule::prologue().to_vec();
    program.extend(device_rule::blocks(&asked));
    if !decided {
        program.extend(device_rule::verdict(false));
    }
    Ok(program.concat())
}

fn one(rule: &LinuxDeviceCgroup) -> Result<Rule, Error> {
    let kind = match rule.typ() {
        Some(LinuxDeviceType::B) => Some(BLOCK),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(CHARACTER),
        Some(LinuxDeviceType::A) | None => None,
        Some(LinuxDeviceType::P) => return Err(Error::new("linux.resources.devices", "type p is no device")),
    };
    // Absent and -1 are "any".
    let number = |number: Option<i64>| {
        let number = number.filter(|number| *number != -1).map(u32::try_from).transpose();
        number.map_err(|_| Error::new("linux.resources.devices", "a device number is out of range"))
    };
    let (major, minor) = (number(rule.major())?, number(rule.minor())?);
    Ok(Rule { allow: rule.allow(), kind, access: access(rule), major, minor })
}

fn access(rule: &LinuxDeviceCgroup) -> i32 {
    // Without letters the rule is about every access, as runc has it.
    let letters = rule.access().as_deref().filter(|letters| !letters.is_empty()).unwrap_or("rwm");
    let named = letters.chars().fold(0, |bits, letter| match letter {
        'm' => bits | MKNOD,
        'r' => bits | READ,
        'w' => bits | WRITE,
        // Any other letter names no access, as with runc: nothing is allowed by it.
        _ => bits,
    });
    // Who denies something that nobody knows had better be taken to deny everything.
    if named == 0 && !rule.allow() { MKNOD | READ | WRITE } else { named }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_rule::{
        AND32_IMM, EXIT, JA, JEQ32_IMM, JNE32_IMM, LDX_W, LSH32_IMM, MOV32_REG, MOV64_IMM, OR32_REG, RSH32_IMM,
    };
    use proptest::prelude::*;

    /// Runs a program as the kernel would, for a device and an access.
    fn run(program: &[u8], kind: u32, access: u32, major: u32, minor: u32) -> u64 {
        let mut registers = [0_u64; 11];
        let context = [kind | (access << 16), major, minor];
        let mut at = 0;
        loop {
            let [opcode, regs, o0, o1, i @ ..]: [u8; 8] = program[at * 8..at * 8 + 8].try_into().unwrap();
            let (to, from) = (usize::from(regs & 15), usize::from(regs >> 4));
            let (offset, immediate) = (i16::from_le_bytes([o0, o1]), i32::from_le_bytes(i).cast_unsigned());
            let mut next = at + 1;
            let jump = (next as isize + isize::from(offset)) as usize;
            match opcode {
                LDX_W => registers[to] = u64::from(context[offset as usize / 4]),
                MOV32_REG => registers[to] = registers[from] & 0xffff_ffff,
                MOV64_IMM => registers[to] = u64::from(immediate),
                AND32_IMM => registers[to] &= u64::from(immediate),
                RSH32_IMM => registers[to] = (registers[to] & 0xffff_ffff) >> immediate,
                LSH32_IMM => registers[to] = (registers[to] << immediate) & 0xffff_ffff,
                OR32_REG => registers[to] = (registers[to] | registers[from]) & 0xffff_ffff,
                JA => next = jump,
                JEQ32_IMM if registers[to] as u32 == immediate => next = jump,
                JNE32_IMM if registers[to] as u32 != immediate => next = jump,
                JEQ32_IMM | JNE32_IMM => {}
                EXIT => return registers[0],
                other => panic!("opcode {other:#x}"),
            }
            at = next;
        }
    }

    fn matches(rule: &LinuxDeviceCgroup, kind: i32, major: u32, minor: u32) -> bool {
        let kind_matches = match rule.typ() {
            Some(LinuxDeviceType::B) => kind == BLOCK,
            Some(LinuxDeviceType::C) => kind == CHARACTER,
            _ => true,
        };
        let number = |rule: Option<i64>, number: u32| rule.is_none_or(|n| n == -1 || n == i64::from(number));
        kind_matches && number(rule.major(), major) && number(rule.minor(), minor)
    }

    /// The rules' meaning, written down again: kind of access by kind of access.
    fn reference(rules: &[LinuxDeviceCgroup], kind: i32, wanted: i32, major: u32, minor: u32) -> bool {
        [MKNOD, READ, WRITE].iter().filter(|bit| wanted & **bit != 0).all(|bit| {
            let decides = |rule: &&LinuxDeviceCgroup| access(rule) & bit != 0 && matches(rule, kind, major, minor);
            rules.iter().rev().find(decides).is_some_and(LinuxDeviceCgroup::allow)
        })
    }

    /// cgroup v1's list for rules of everything or of one device each (`security/device_cgroup.c`): a default, and the exceptions
    /// from it, one for each device.
    fn version_1(rules: &[LinuxDeviceCgroup], kind: i32, wanted: i32, major: u32, minor: u32) -> bool {
        let (mut default_allow, mut exception) = (false, 0);
        for rule in rules {
            if rule.typ() == Some(LinuxDeviceType::A) {
                (default_allow, exception) = (rule.allow(), 0);
            } else if matches(rule, kind, major, minor) {
                let bits = access(rule);
                exception = if rule.allow() == default_allow { exception & !bits } else { exception | bits };
            }
        }
        if default_allow { wanted & exception == 0 } else { wanted & !exception == 0 }
    }

    fn rules(json: &str) -> Vec<LinuxDeviceCgroup> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        let rules = rules(
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"},
                {"allow":true,"type":"c","major":136,"access":"rw"},{"allow":false,"type":"c","major":136,"minor":7}]"#,
        );
        let program = compile(&rules).unwrap();
        let asks = |kind: i32, access: i32, major, minor| run(&program, kind as u32, access as u32, major, minor);
        assert_eq!(asks(CHARACTER, READ | WRITE, 1, 3), 1);
        assert_eq!(asks(CHARACTER, READ | MKNOD, 1, 3), 0);
        assert_eq!(asks(BLOCK, READ, 1, 3), 0);
        assert_eq!(asks(CHARACTER, READ, 1, 11), 0);
        assert_eq!(asks(CHARACTER, READ, 136, 6), 1);
        assert_eq!(asks(CHARACTER, READ, 136, 7), 0);
        assert_eq!(asks(BLOCK, READ, 8, 0), 0);
    }

    #[test]
    fn rules_of_one_device_add_up() {
        let rules = rules(
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"r"},
                {"allow":true,"type":"b","access":"m"},{"allow":true,"type":"c","major":10,"minor":229,"access":"w"}]"#,
        );
        let program = compile(&rules).unwrap();
        let asks = |access: i32| run(&program, CHARACTER as u32, access as u32, 10, 229);
        assert_eq!([READ, WRITE, READ | WRITE, MKNOD, MKNOD | READ].map(asks), [1, 1, 1, 0, 0]);
    }

    #[test]
    fn other_letters_name_no_access() {
        let asks = |json: &str| {
            let program = compile(&rules(json)).unwrap();
            [READ, WRITE, MKNOD].map(|access| run(&program, CHARACTER as u32, access as u32, 1, 11))
        };
        assert_eq!(asks(r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","access":"rwa"}]"#), [1, 1, 0]);
        assert_eq!(asks(r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","access":"rxa"}]"#), [0, 1, 1]);
        for (json, all) in [
            (r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","access":"a"}]"#, 0),
            (r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","access":"a"}]"#, 0),
        ] {
            assert_eq!(asks(json), [all; 3], "{json}");
        }
    }

    #[test]
    fn numbers_that_no_device_has_match_none() {
        // As the kernel packs numbers, each would be (0, 0).
        for (major, minor) in [(4096, 0), (0, 1 << 20), (4096, 1 << 20)] {
            let rule = format!(r#"{{"allow":true,"type":"c","major":{major},"minor":{minor}}}"#);
            let other = r#"{"allow":true,"type":"c","major":4095,"minor":1048575}"#;
            let program = compile(&rules(&format!("[{rule},{other},{rule}]"))).unwrap();
            let asks = |major, minor| run(&program, CHARACTER as u32, READ as u32, major, minor);
            assert_eq!([asks(0, 0), asks(4095, 0), asks(4095, 1_048_575)], [0, 0, 1], "{major} {minor}");
        }
    }

    #[test]
    fn alike_rules_share_their_tests() {
        let device = |minor| format!(r#"{{"allow":true,"type":"c","major":1,"minor":{minor},"access":"rw"}}"#);
        let list = |count| rules(&format!("[{}]", (0..count).map(device).collect::<Vec<_>>().join(",")));
        let length = |count| compile(&list(count)).unwrap().len() / 8;
        assert_eq!(length(100), length(1) + 99);
        let program = compile(&list(100)).unwrap();
        for (minor, allowed) in [(0, 1), (50, 1), (99, 1), (100, 0)] {
            assert_eq!(run(&program, CHARACTER as u32, (READ | WRITE) as u32, 1, minor), allowed, "{minor}");
        }
    }

    #[test]
    fn no_rules_allow_nothing_and_bad_ones_are_errors() {
        assert_eq!(run(&compile(&[]).unwrap(), 2, 2, 1, 3), 0);
        assert!(compile(&rules(r#"[{"allow":true,"major":4294967296}]"#)).is_err());
        assert!(compile(&vec![LinuxDeviceCgroup::default(); MAX_RULES + 1]).is_err());
    }

    fn letters(bits: u8) -> String {
        [(1, 'm'), (2, 'r'), (4, 'w')].iter().filter(|(bit, _)| bits & bit != 0).map(|(_, letter)| *letter).collect()
    }

    fn any_rule() -> impl Strategy<Value = LinuxDeviceCgroup> {
        let kinds = prop_oneof![Just(None), Just(Some("a")), Just(Some("b")), Just(Some("c"))];
        (any::<bool>(), kinds, prop::option::of(-1_i64..4), prop::option::of(-1_i64..4), 1_u8..8).prop_map(
            |(allow, kind, major, minor, bits)| {
                let mut json =
                    serde_json::json!({"allow": allow, "access": letters(bits), "major": major, "minor": minor});
                if let Some(kind) = kind {
                    json["type"] = kind.into();
                }
                serde_json::from_value(json).unwrap()
            },
        )
    }

    /// Of everything, or of one device.
    fn any_single_rule() -> impl Strategy<Value = LinuxDeviceCgroup> {
        let everything =
            any::<bool>().prop_map(|allow| serde_json::json!({"allow": allow, "type": "a", "access": "rwm"}));
        let single = (any::<bool>(), any::<bool>(), 0..2, 0..2, 1_u8..8).prop_map(|(allow, block, major, minor, bits)| {
            let kind = if block { "b" } else { "c" };
            serde_json::json!({"allow": allow, "type": kind, "access": letters(bits), "major": major, "minor": minor})
        });
        prop_oneof![1 => everything, 8 => single].prop_map(|json| serde_json::from_value(json).unwrap())
    }

    proptest! {
        #[test]
        fn program_and_rules_agree(rules in prop::collection::vec(any_rule(), 0..8), kind in 1_i32..3, wanted in 1_i32..8,
                                   major in 0_u32..4, minor in 0_u32..4) {
            let program = compile(&rules).unwrap();
            let allowed = run(&program, kind as u32, wanted as u32, major, minor) == 1;
            prop_assert_eq!(allowed, reference(&rules, kind, wanted, major, minor));
        }

        #[test]
        fn rules_without_wildcards_are_version_1_s(list in prop::collection::vec(any_single_rule(), 0..12), kind in 1_i32..3,
                                                   wanted in 1_i32..8, major in 0_u32..2, minor in 0_u32..2) {
            let program = compile(&list).unwrap();
            let allowed = run(&program, kind as u32, wanted as u32, major, minor) == 1;
            prop_assert_eq!(allowed, version_1(&list, kind, wanted, major, minor));
        }
    }
}
