//! The C library's start, less its questions to the processor.
//!
//! glibc asks the processor some forty questions (CPUID) before a program begins, to choose among its memory functions. Under a
//! hypervisor each is an exit to the host: 0.15 ms together, a twentieth of a whole `run`. A runtime copies kilobytes, for
//! which the functions that every x86-64 processor has are as good. So what `__libc_start_main` does is done here without that,
//! in the order of glibc 2.36 (csu/libc-start.c) and by the functions that do it there.
//!
//! Those are glibc's internal ones. So `build.rs` has this compiled only for that release, into a static program at a fixed address;
//! everywhere else glibc's own start runs, and nothing but the time is lost.
#![allow(unsafe_code, non_upper_case_globals)]

use std::arch::asm;
use std::ffi::{c_char, c_int, c_long, c_void};
use std::ptr;

type Strings = *const *const c_char;
type AtEnd = extern "C" fn(*mut c_void);
type Initialise = extern "C" fn(c_int, Strings, Strings);
type Finalise = extern "C" fn();

/// `Elf64_Rela` of type `R_X86_64_IRELATIVE`, the only one of a static program at a fixed address.
#[repr(C)]
struct Relocation {
    place: *mut usize,
    kind: u64,
    choose: extern "C" fn() -> usize,
}

unsafe extern "C" {
    static mut __environ: Strings;
    static mut __libc_stack_end: *const c_void;
    /// The kernel's 16 random bytes, from the auxiliary vector.
    static _dl_random: *const [usize; 2];
    static __libc_enable_secure: c_int;

    // The linker's: where tables begin and end.
    static __rela_iplt_start: [Relocation; 0];
    static __rela_iplt_end: [Relocation; 0];
    static __preinit_array_start: [Initialise; 0];
    static __preinit_array_end: [Initialise; 0];
    static __init_array_start: [Initialise; 0];
    static __init_array_end: [Initialise; 0];
    static __fini_array_start: [Finalise; 0];
    static __fini_array_end: [Finalise; 0];

    fn _dl_aux_init(auxiliary: *const usize);
    fn __tunables_init(environment: Strings);
    fn __libc_setup_tls();
    fn __libc_early_init(initial: bool);
    fn __libc_init_first(count: c_int, arguments: Strings, environment: Strings);
    fn __libc_check_standard_fds();
    fn __cxa_atexit(function: AtEnd, argument: *mut c_void, object: *mut c_void) -> c_int;
    fn _dl_debug_initialize(base: usize) -> *mut c_void;
    fn _init();
    fn _fini();
    fn exit(status: c_int) -> !;
}

/// What the memory functions take from the answers: sizes, in bytes, at which they change their ways. They are glibc's for a processor that
/// says nothing of its caches. Their object is the one that has its `__libc_start_main`, so they are to be here, too.
mod sizes {
    use super::{c_int, c_long};

    const DATA_CACHE: c_long = 32 << 10;
    const SHARED_CACHE: c_long = 1 << 20;

    #[unsafe(no_mangle)]
    static __x86_data_cache_size: c_long = DATA_CACHE;
    #[unsafe(no_mangle)]
    static __x86_data_cache_size_half: c_long = DATA_CACHE / 2;
    #[unsafe(no_mangle)]
    static __x86_shared_cache_size: c_long = SHARED_CACHE;
    #[unsafe(no_mangle)]
    static __x86_shared_cache_size_half: c_long = SHARED_CACHE / 2;
    #[unsafe(no_mangle)]
    static __x86_shared_non_temporal_threshold: c_long = SHARED_CACHE * 3 / 4;
    #[unsafe(no_mangle)]
    static __x86_rep_movsb_threshold: c_long = 2 << 10;
    #[unsafe(no_mangle)]
    static __x86_rep_movsb_stop_threshold: c_long = SHARED_CACHE * 3 / 4;
    #[unsafe(no_mangle)]
    static __x86_rep_stosb_threshold: c_long = 2 << 10;
    #[unsafe(no_mangle)]
    static __x86_string_control: c_int = 0;
}

/// In place of glibc's: `_start` (crt1.o) calls it. `arguments` is the stack as execve(2) leaves it, less the number of arguments.
#[unsafe(no_mangle)]
unsafe extern "C" fn __libc_start_main(
    main: extern "C" fn(c_int, Strings, Strings) -> c_int,
    count: c_int,
    arguments: Strings,
    _: *const c_void,
    _: *const c_void,
    at_end: Option<AtEnd>,
    stack_end: *const c_void,
) -> c_int {
    // SAFETY: behind `count` arguments and a null pointer stands the environment, which ends with one, and behind that the auxiliary
    // vector. Nobody else runs yet, so glibc's variables are nobody else's.
    let environment = unsafe {
        let environment = arguments.offset(count as isize + 1);
        __environ = environment;
        __libc_stack_end = stack_end;
        let mut end = environment;
        while !(*end).is_null() {
            end = end.add(1);
        }
        _dl_aux_init(end.add(1).cast());
        __tunables_init(environment);
        environment
    };
    // SAFETY: no memory function was called so far: which those are is decided now. Each place is the program's own, and writable until
    // `__libc_init_first` protects it. What was not asked is zero, for which every choice is the plainest function.
    unsafe {
        let mut relocation = (&raw const __rela_iplt_start).cast::<Relocation>();
        while relocation < (&raw const __rela_iplt_end).cast() {
            *(*relocation).place = ((*relocation).choose)();
            relocation = relocation.add(1);
        }
    }
    // SAFETY: thread-local storage is set up before what is in it: the canary, whose first byte is zero so that no text has it, at 0x28
    // and what glibc hides addresses with at 0x30 (tcbhead_t). The rest as glibc does it, each once and in its order.
    unsafe {
        __libc_setup_tls();
        let [canary, guard] = *_dl_random;
        asm!("mov fs:[0x28], {}", in(reg) canary & !0xff, options(nostack, preserves_flags));
        asm!("mov fs:[0x30], {}", in(reg) guard, options(nostack, preserves_flags));
        if let Some(at_end) = at_end {
            __cxa_atexit(at_end, ptr::null_mut(), ptr::null_mut());
        }
        __libc_early_init(true);
        __libc_init_first(count, arguments, environment);
        __cxa_atexit(finalise, ptr::null_mut(), ptr::null_mut());
        if __libc_enable_secure != 0 {
            __libc_check_standard_fds();
        }
    }
    let initialise = |mut at: *const Initialise, end: *const Initialise| {
        while at < end {
            // SAFETY: the linker has put functions of this kind from the one place to the other.
            unsafe {
                (*at)(count, arguments, environment);
                at = at.add(1);
            }
        }
    };
    initialise((&raw const __preinit_array_start).cast(), (&raw const __preinit_array_end).cast());
    // SAFETY: once, and before what follows it.
    unsafe { _init() };
    initialise((&raw const __init_array_start).cast(), (&raw const __init_array_end).cast());
    // SAFETY: everything is set up.
    unsafe {
        _dl_debug_initialize(0);
        exit(main(count, arguments, environment))
    }
}

/// What is to be done at the end, the last one first.
extern "C" fn finalise(_: *mut c_void) {
    let mut at = (&raw const __fini_array_end).cast::<Finalise>();
    while at > (&raw const __fini_array_start).cast() {
        // SAFETY: the linker has put functions of this kind from the one place to the other.
        unsafe {
            at = at.sub(1);
            (*at)();
        }
    }
    // SAFETY: once, and after all of those.
    unsafe { _fini() };
}
