//! One device rule → its part of an eBPF program for the device cgroup (`BPF_PROG_TYPE_CGROUP_DEVICE`). Pure.
//!
//! A program is the [`prologue`], which puts what is asked for into registers, then one block for each rule, or for several that
//! differ in the device alone. A rule that denies ends the program if anything that it denies is still asked for; one that allows
//! strikes what it allows off, and ends the program if nothing is left. Else a block runs into the next one. Nothing jumps out of a
//! block but to its end, so blocks can be put in front of others.
//!
//! The kernel looks at every way through a program before it takes it, which is most of what a filter costs. So a device is asked for
//! by one test, and what is done with those that are the same to a block stands there once.

/// Access bits and types of `struct bpf_cgroup_dev_ctx` (`linux/bpf.h`).
pub(crate) const MKNOD: i32 = 1;
pub(crate) const READ: i32 = 2;
pub(crate) const WRITE: i32 = 4;
pub(crate) const BLOCK: i32 = 1;
pub(crate) const CHARACTER: i32 = 2;

/// eBPF opcodes (`linux/bpf_common.h`, `linux/bpf.h`).
pub(crate) const LDX_W: u8 = 0x61;
pub(crate) const MOV32_REG: u8 = 0xbc;
pub(crate) const MOV64_IMM: u8 = 0xb7;
pub(crate) const AND32_IMM: u8 = 0x54;
pub(crate) const RSH32_IMM: u8 = 0x74;
pub(crate) const LSH32_IMM: u8 = 0x64;
pub(crate) const OR32_REG: u8 = 0x4c;
pub(crate) const JA: u8 = 0x05;
pub(crate) const JEQ32_IMM: u8 = 0x16;
pub(crate) const JNE32_IMM: u8 = 0x56;
pub(crate) const EXIT: u8 = 0x95;

/// Registers: r1 is the context, r2 the type, r3 the access that no rule has decided yet, r4 major, r5 minor, r6 scratch, r7 the device.
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;
const DEVICE: u8 = 7;

/// A device's number as the kernel has it: so many bits are the major number (`linux/kdev_t.h`), then so many the minor one.
const MAJOR_BITS: i32 = 12;
const MINOR_BITS: i32 = 20;

/// One eBPF instruction as the kernel has it.
pub(crate) type Instruction = [u8; 8];

/// What is allowed or denied. `None` is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The verdict.
    pub(crate) allow: bool,
    /// [`BLOCK`] or [`CHARACTER`].
    pub(crate) kind: Option<i32>,
    /// What it decides, of [`MKNOD`], [`READ`] and [`WRITE`].
    pub(crate) access: i32,
    /// Major number.
    pub(crate) major: Option<u32>,
    /// Minor number.
    pub(crate) minor: Option<u32>,
}

/// Opcode, registers, offset, immediate.
fn instruction(opcode: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    let ([o0, o1], [i0, i1, i2, i3]) = (offset.to_le_bytes(), immediate.to_le_bytes());
    [opcode, destination | (source << 4), o0, o1, i0, i1, i2, i3]
}

/// How every program begins.
pub(crate) fn prologue() -> [Instruction; 9] {
    [
        // access_type holds the type in its lower and the access in its upper half.
        instruction(LDX_W, TYPE, CONTEXT, 0, 0),
        instruction(MOV32_REG, ACCESS, TYPE, 0, 0),
        instruction(AND32_IMM, TYPE, 0, 0, 0xffff),
        instruction(RSH32_IMM, ACCESS, 0, 0, 16),
        instruction(LDX_W, MAJOR, CONTEXT, 4, 0),
        instruction(LDX_W, MINOR, CONTEXT, 8, 0),
        instruction(MOV32_REG, DEVICE, MAJOR, 0, 0),
        instruction(LSH32_IMM, DEVICE, 0, 0, MINOR_BITS),
        instruction(OR32_REG, DEVICE, MINOR, 0, 0),
    ]
}

/// `return allow`
pub(crate) fn verdict(allow: bool) -> [Instruction; 2] {
    [instruction(MOV64_IMM, 0, 0, 0, i32::from(allow)), instruction(EXIT, 0, 0, 0, 0)]
}

/// The blocks for `rules`, which are asked in this order.
pub(crate) fn blocks(rules: &[Rule]) -> Vec<Instruction> {
    rules.chunk_by(Rule::differs_in_device).flat_map(block).collect()
}

impl Rule {
    /// Its device's number, if it is about one that there can be.
    fn device(&self) -> Option<u32> {
        let (major, minor) = (self.major?, self.minor?);
        (major >> MAJOR_BITS == 0 && minor >> MINOR_BITS == 0).then_some(major << MINOR_BITS | minor)
    }

    fn differs_in_device(&self, other: &Self) -> bool {
        let alike = (self.allow, self.kind, self.access) == (other.allow, other.kind, other.access);
        alike && self.device().is_some() && other.device().is_some()
    }
}

/// The tests of rules that differ in their device, if in anything, then their verdict. A test that holds skips the jump to the end
/// of the block that stands behind it.
///
/// So the kernel, which looks at what follows a test before it looks at where that leads, first goes past all rules without having
/// learnt anything. Of what it comes to later it finds that it has seen more than that. The other way round it wouldn't come to
/// an end with a thousand rules.
fn block(rules: &[Rule]) -> Vec<Instruction> {
    let Some(rule) = rules.first() else { return Vec::new() };
    let mut tests: Vec<Instruction> = Vec::new();
    let mut require = |before: &[Instruction], opcode, register, value: i32| {
        tests.extend(before);
        tests.extend([instruction(opcode, register, 0, 1, value), instruction(JA, 0, 0, 0, 0)]);
    };
    if let Some(kind) = rule.kind {
        require(&[], JEQ32_IMM, TYPE, kind);
    }
    let devices: Vec<u32> = rules.iter().filter_map(Rule::device).collect();
    if let Some((last, others)) = devices.split_last() {
        // Each leads past those behind it and the last one's jump.
        let behind = |at: usize| i16::try_from(devices.len().saturating_sub(at)).unwrap_or(i16::MAX);
        let other = |(at, device): (usize, &u32)| instruction(JEQ32_IMM, DEVICE, 0, behind(at), device.cast_signed());
        let others: Vec<Instruction> = others.iter().enumerate().map(other).collect();
        require(&others, JEQ32_IMM, DEVICE, last.cast_signed());
    } else {
        for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
            if let Some(number) = number {
                require(&[], JEQ32_IMM, register, number.cast_signed());
            }
        }
    }
    if rule.access != MKNOD | READ | WRITE {
        // Behind the others, as it changes what is still asked for.
        if rule.allow {
            let strike = instruction(AND32_IMM, ACCESS, 0, 0, !rule.access & (MKNOD | READ | WRITE));
            require(&[strike], JEQ32_IMM, ACCESS, 0);
        } else {
            let copy = instruction(MOV32_REG, SCRATCH, ACCESS, 0, 0);
            require(&[copy, instruction(AND32_IMM, SCRATCH, 0, 0, rule.access)], JNE32_IMM, SCRATCH, 0);
        }
    }
    let verdict = verdict(rule.allow);
    // From the last test backwards: a jump is relative to the next instruction and leads past the verdict.
    let mut past = i16::try_from(verdict.len()).unwrap_or(i16::MAX);
    for test in tests.iter_mut().rev() {
        if let [JA, _, low, high, ..] = test {
            [*low, *high] = past.to_le_bytes();
        }
        past = past.saturating_add(1);
    }
    tests.into_iter().chain(verdict).collect()
}
