//! What a program has to bring when it links nothing: its entry, system calls, an end when it panics.
#![allow(unsafe_code)]

use core::arch::{asm, naked_asm};
use core::ffi::CStr;

/// Where the kernel begins: the stack holds the number of arguments, then pointers to them, then a null pointer.
#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn _start() -> ! {
    naked_asm!("mov rdi, rsp", "call {main}", "ud2", main = sym enter)
}

extern "C" fn enter(stack: *const usize) -> ! {
    // SAFETY: the kernel puts there what `_start` says; the arguments stay for as long as the program runs.
    let arguments = unsafe { core::slice::from_raw_parts(stack.add(1).cast(), *stack) };
    let status = crate::main(&Arguments(arguments));
    call(EXIT_GROUP, [status]);
    unreachable!()
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        call(EXIT_GROUP, [101]);
    }
}

/// The core library, built to unwind, names it; nothing here unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// The program's arguments, its name the first.
pub struct Arguments(&'static [*const core::ffi::c_char]);

impl Arguments {
    /// The one of this number.
    pub fn get(&self, number: usize) -> &'static CStr {
        // SAFETY: each is a string that the kernel ended with a NUL.
        unsafe { CStr::from_ptr(self.0[number]) }
    }

    /// From this number on, as execve takes them: the null pointer that follows them included.
    pub fn from(&self, number: usize) -> usize {
        self.0[number..].as_ptr() as usize
    }
}

/// A string as a call takes it.
pub fn text(text: &CStr) -> usize {
    text.as_ptr() as usize
}

/// Memory that a call writes to or reads.
pub fn memory<T>(memory: &mut T) -> usize {
    core::ptr::from_mut(memory) as usize
}

const EXIT_GROUP: usize = 231;

/// Makes a system call; a negative result is an error number.
///
/// Only for calls whose pointers come from [`text`] and [`memory`] with the lengths of what they point to, and that leave the rest
/// of this process's memory as it is.
#[inline(always)]
pub fn call<const N: usize>(number: usize, arguments: [usize; N]) -> isize {
    let argument = |at: usize| arguments.get(at).copied().unwrap_or(0);
    let result;
    // SAFETY: as above; the kernel overwrites rax, rcx and r11 and no other register.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number.cast_signed() => result,
            in("rdi") argument(0), in("rsi") argument(1), in("rdx") argument(2),
            in("r10") argument(3), in("r8") argument(4), in("r9") argument(5),
            lateout("rcx") _, lateout("r11") _, options(nostack),
        );
    }
    result
}

/// The same for a call that must not fail: the program ends with `status` then.
#[inline(always)]
pub fn must<const N: usize>(status: usize, number: usize, arguments: [usize; N]) -> usize {
    let result = call(number, arguments);
    if result < 0 {
        call(EXIT_GROUP, [status]);
    }
    result.cast_unsigned()
}
