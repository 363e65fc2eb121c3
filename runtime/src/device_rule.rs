//! One device rule → its part of an eBPF program for the device cgroup (`BPF_PROG_TYPE_CGROUP_DEVICE`). Pure.
//!
//! A program is the [`prologue`], which puts what is asked for into registers, then one block for each rule. A rule that denies
//! ends the program if anything that it denies is still asked for; one that allows strikes what it allows off, and ends the program
//! if nothing is left. Else a block runs into the next one. Nothing jumps out of a block but to its end, so blocks can be put in
//! front of others.

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
pub(crate) const JA: u8 = 0x05;
pub(crate) const JEQ32_IMM: u8 = 0x16;
pub(crate) const JNE32_IMM: u8 = 0x56;
pub(crate) const EXIT: u8 = 0x95;

/// Registers: r1 is the context, r2 the type, r3 the access that no rule has decided yet, r4 major, r5 minor, r6 scratch.
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

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
pub(crate) fn prologue() -> [Instruction; 6] {
    [
        // access_type holds the type in its lower and the access in its upper half.
        instruction(LDX_W, TYPE, CONTEXT, 0, 0),
        instruction(MOV32_REG, ACCESS, TYPE, 0, 0),
        instruction(AND32_IMM, TYPE, 0, 0, 0xffff),
        instruction(RSH32_IMM, ACCESS, 0, 0, 16),
        instruction(LDX_W, MAJOR, CONTEXT, 4, 0),
        instruction(LDX_W, MINOR, CONTEXT, 8, 0),
    ]
}

/// `return allow`
pub(crate) fn verdict(allow: bool) -> [Instruction; 2] {
    [instruction(MOV64_IMM, 0, 0, 0, i32::from(allow)), instruction(EXIT, 0, 0, 0, 0)]
}

impl Rule {
    /// The rule's tests, then its verdict. A test that holds skips the jump to the end of the block that stands behind it.
    ///
    /// So the kernel, which looks at what follows a test before it looks at where that leads, first goes past all rules without having
    /// learnt anything. Of what it comes to later it finds that it has seen more than that. The other way round it wouldn't come to
    /// an end with a thousand rules.
    pub(crate) fn block(&self) -> Vec<Instruction> {
        let mut tests: Vec<Instruction> = Vec::new();
        let mut require = |before: &[Instruction], opcode, register, value: i32| {
            tests.extend(before);
            tests.extend([instruction(opcode, register, 0, 1, value), instruction(JA, 0, 0, 0, 0)]);
        };
        if let Some(kind) = self.kind {
            require(&[], JEQ32_IMM, TYPE, kind);
        }
        for (register, number) in [(MAJOR, self.major), (MINOR, self.minor)] {
            if let Some(number) = number {
                require(&[], JEQ32_IMM, register, number.cast_signed());
            }
        }
        if self.access != MKNOD | READ | WRITE {
            // Behind the others, as it changes what is still asked for.
            if self.allow {
                let strike = instruction(AND32_IMM, ACCESS, 0, 0, !self.access & (MKNOD | READ | WRITE));
                require(&[strike], JEQ32_IMM, ACCESS, 0);
            } else {
                let copy = instruction(MOV32_REG, SCRATCH, ACCESS, 0, 0);
                require(&[copy, instruction(AND32_IMM, SCRATCH, 0, 0, self.access)], JNE32_IMM, SCRATCH, 0);
            }
        }
        let verdict = verdict(self.allow);
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
}
