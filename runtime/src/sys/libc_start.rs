//! The C library's start, less what this program has no use for.
//!
//! glibc asks the processor some forty questions (CPUID) before a program begins, to choose among its memory functions. Under a
//! hypervisor each is an exit to the host: 0.15 ms together, a twentieth of a whole `run`. A runtime copies kilobytes, for
//! which the functions that every x86-64 processor has are as good. It also prepares to load libraries, which a static program doesn't
//! (`_dl_non_dynamic_init`: search paths, the kernel's page of clock functions, the program's own directory), reads the environment for
//! its tunables, and notes what to do at the end, to which this program doesn't come (`entry.rs`): another 0.04 ms. Without all that the clock is
//! asked by system calls, and a backtrace has no names, which a release hasn't anyway. The rest of what
//! `__libc_start_main` does is done here in the order of glibc 2.36 (csu/libc-start.c) and by the functions that do it there.
//!
//! Those are glibc's internal ones. So `build.rs` has this compiled only for that release, into a static program at a fixed address;
//! everywhere else glibc's own start runs, and nothing but the time is lost.
#![allow(unsafe_code, non_upper_case_globals)]

use std::arch::asm;
use std::ffi::{c_char, c_int, c_long, c_void};

type Strings = *const *const c_char;
type Initialise = extern "C" fn(c_int, Strings, Strings);

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
    /// The program's headers, from the auxiliary vector.
    static _dl_phdr: *const libc::Elf64_Phdr;
    static _dl_phnum: usize;
    static __libc_enable_secure: c_int;
    /// The rights of the stacks that glibc makes; as long as nobody has asked, code may stand there.
    static mut _dl_stack_flags: c_int;

    // The linker's: where tables begin and end.
    static __rela_iplt_start: [Relocation; 0];
    static __rela_iplt_end: [Relocation; 0];
    static __preinit_array_start: [Initialise; 0];
    static __preinit_array_end: [Initialise; 0];
    static __init_array_start: [Initialise; 0];
    static __init_array_end: [Initialise; 0];

    fn _dl_aux_init(auxiliary: *const usize);
    fn __tunables_init(environment: Strings);
    fn __libc_setup_tls();
    fn __libc_early_init(initial: bool);
    fn __libc_init_first(count: c_int, arguments: Strings, environment: Strings);
    fn __libc_check_standard_fds();
    fn _init();
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
    _: *const c_void,
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
        if __libc_enable_secure != 0 {
            // Takes them from the environment that children get.
            __tunables_init(environment);
        }
        environment
    };
    // SAFETY: no memory function was called so far: which those are is decided now. Each place is the program's own, and writable until
    // it is closed below. What was not asked is zero, for which every choice is the plainest function.
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
        __libc_early_init(true);
        if __libc_enable_secure == 0 {
            obey_headers();
        } else {
            // It does so, too, and takes from the environment what its owner must not decide.
            __libc_init_first(count, arguments, environment);
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
    unsafe { exit(main(count, arguments, environment)) }
}

/// Makes read-only what nobody writes to any more (RELRO), as glibc does, and stacks that nothing is executed on. Where the former can't be, it
/// does without; so does this.
///
/// # Safety
///
/// Relocation is done, and nobody else runs.
unsafe fn obey_headers() {
    const PAGE: usize = 4096;
    // SAFETY: the kernel has said where the headers are, and how many; the program is where they say, as it isn't relocated.
    unsafe {
        let headers = std::slice::from_raw_parts(_dl_phdr, _dl_phnum);
        for header in headers.iter().filter(|header| header.p_type == libc::PT_GNU_STACK) {
            _dl_stack_flags = header.p_flags.cast_signed();
        }
        for header in headers.iter().filter(|header| header.p_type == libc::PT_GNU_RELRO) {
            let (begin, end) = (header.p_vaddr as usize, (header.p_vaddr + header.p_memsz) as usize);
            let (begin, end) = (begin & !(PAGE - 1), end & !(PAGE - 1));
            libc::mprotect(begin as *mut c_void, end - begin, libc::PROT_READ);
        }
    }
}
