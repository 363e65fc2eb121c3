//! How the command line begins: before the C library does, and without the start of Rust's.
//!
//! Part of the program only, not of the library. A program is kept from a container by executing it once more from a read-only
//! mount (see [`garboard_runtime::cli`]'s `protect`). Done here, that costs an execve(2) and little else. The C library alone takes
//! several times as long to begin: it asks the processor about itself, which under a hypervisor takes an eighth of a millisecond.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};

/// What the C library's start calls, in place of the one that comes with Rust, which looks for the stack's bounds in
/// `/proc/self/maps` to explain an overflow. The rest of what that does is done here.
#[unsafe(no_mangle)]
extern "C" fn main(_count: c_int, _arguments: *const *const c_char) -> c_int {
    open_streams();
    // Writing to a pipe that nobody reads is an error like others.
    // SAFETY: SIG_IGN installs no code.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    // The children of who ignores this can't be waited for, and a caller may do so.
    // SAFETY: SIG_DFL installs no code.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    let status = garboard_runtime::cli::main();
    // What is left in it goes out; a reader who has gone doesn't matter any more.
    let _ = std::io::Write::flush(&mut std::io::stdout());
    // Nothing is left that the C library would have to do, and it would write to pages that are the child's copies, too.
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(status.into()) }
}

/// Opens the null device for each standard stream that the caller has closed, so that no other file takes its number.
fn open_streams() {
    let mut streams = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: the array is writable and as long as is said; with no time to wait the call returns at once.
    unsafe { libc::poll(streams.as_mut_ptr(), 3, 0) };
    for _ in streams.iter().filter(|stream| stream.revents & libc::POLLNVAL != 0) {
        // SAFETY: the path is NUL-terminated. The lowest free number is the one that is missing.
        unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
    }
}

/// The kernel begins here (`build.rs` says so to the linker). Nothing is set up yet, not even what memory functions of the C
/// library need: only plain code and system calls are possible.
#[cfg(target_arch = "x86_64")]
mod before_libc {
    use std::arch::{asm, naked_asm};
    use std::ffi::{CStr, c_char};

    unsafe extern "C" {
        /// The C library's start.
        fn _start();
    }

    /// With the stack as execve(2) leaves it, and in rdx what the C library is to call at the end; goes on to its start with both.
    #[unsafe(no_mangle)]
    #[unsafe(naked)]
    extern "C" fn start_protected() {
        naked_asm!(
            "mov r12, rdx",
            "mov rdi, rsp",
            "call {protect}",
            "mov rdx, r12",
            "jmp {start}",
            protect = sym protect,
            start = sym _start,
        )
    }

    /// Executes this program from a read-only mount if it will make processes in containers and isn't on one. Comes back if that
    /// isn't needed or can't be done; what follows will find out.
    extern "C" fn protect(stack: *const usize) {
        const OWN_PROGRAM: &CStr = c"/proc/self/exe";
        // SAFETY: at the start there are on the stack: the number of arguments, that many pointers, a null pointer, and then
        // pointers to the environment.
        let (arguments, environment) = unsafe { (stack.add(1), stack.add((*stack).wrapping_add(2))) };
        let (here, own) = (libc::AT_FDCWD as usize, OWN_PROGRAM.as_ptr() as usize);
        if !makes_processes(arguments) || is_executed_by_descriptor(environment) || is_readonly(here, own, 0) {
            return;
        }
        let flags = (libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC) as usize;
        let Ok(program) = usize::try_from(call(libc::SYS_open_tree, [here, own, flags, 0, 0])) else { return };
        let (empty, at_itself) = (c"".as_ptr() as usize, libc::AT_EMPTY_PATH as usize);
        // struct mount_attr: to set, to clear, propagation, user namespace.
        let readonly = [libc::MOUNT_ATTR_RDONLY, 0, 0, 0];
        call(libc::SYS_mount_setattr, [program, empty, at_itself, (&raw const readonly) as usize, 32]);
        // Looked at before it is executed: if it weren't read-only, this would go on for ever.
        if is_readonly(program, empty, at_itself) {
            call(libc::SYS_execveat, [program, empty, arguments as usize, environment as usize, at_itself]);
        }
        call(libc::SYS_close, [program, 0, 0, 0, 0]);
    }

    /// Whether this is what was executed below. Whoever else executes it by a descriptor is found out when all is set up.
    fn is_executed_by_descriptor(mut environment: *const usize) -> bool {
        const AT_EXECFN: usize = 31;
        const BY_DESCRIPTOR: &CStr = c"/dev/fd/";
        // SAFETY: the environment ends with a null pointer, behind which stand pairs of words, the last of which begins with zero.
        // The value of AT_EXECFN points to a NUL-terminated string (getauxval(3)).
        unsafe {
            while *environment != 0 {
                environment = environment.add(1);
            }
            let mut pair = environment.add(1);
            while *pair != 0 {
                if *pair == AT_EXECFN {
                    return begins_with(*pair.add(1) as *const c_char, BY_DESCRIPTOR);
                }
                pair = pair.add(2);
            }
        }
        false
    }

    /// Whether one of the arguments is the name of a command that does. If it only looks like one, no harm is done.
    fn makes_processes(mut arguments: *const usize) -> bool {
        loop {
            // SAFETY: the pointers to arguments end with a null pointer, which is the last that is read.
            let argument = unsafe { *arguments } as *const c_char;
            if argument.is_null() {
                return false;
            }
            if equal(argument, c"run") || equal(argument, c"create") || equal(argument, c"exec") {
                return true;
            }
            // SAFETY: as this one wasn't null, there is another.
            arguments = unsafe { arguments.add(1) };
        }
    }

    fn equal(left: *const c_char, right: &CStr) -> bool {
        // The terminating NUL belongs to what is to be the same.
        begins_with_all(left, right.as_ptr(), right.count_bytes() + 1)
    }

    fn begins_with(text: *const c_char, beginning: &CStr) -> bool {
        begins_with_all(text, beginning.as_ptr(), beginning.count_bytes())
    }

    /// Byte by byte, and volatile, so that no call of a memory function is made of it.
    fn begins_with_all(mut left: *const c_char, mut right: *const c_char, count: usize) -> bool {
        for _ in 0..count {
            // SAFETY: `right` has so many bytes, and `left` ends with a NUL, which is a difference if `right` goes on there.
            let (one, other) = unsafe { (left.read_volatile(), right.read_volatile()) };
            if one != other {
                return false;
            }
            // SAFETY: as they are the same, neither has ended before `count` says so.
            (left, right) = unsafe { (left.add(1), right.add(1)) };
        }
        true
    }

    /// Whether a file could be written to if it weren't on a read-only mount (faccessat2(2), Linux 5.8).
    fn is_readonly(directory: usize, path: usize, flags: usize) -> bool {
        // As whom it is asked makes no difference here, and as whom the process acts takes the kernel less.
        let flags = flags | libc::AT_EACCESS as usize;
        let result = call(libc::SYS_faccessat2, [directory, path, libc::W_OK as usize, flags, 0]);
        result == -(libc::EROFS as isize)
    }

    /// A system call; a negative result is an error number.
    #[inline(always)]
    fn call(number: libc::c_long, [one, two, three, four, five]: [usize; 5]) -> isize {
        let result;
        // SAFETY: the callers' pointers are valid for what each call reads and writes, and none changes this process's memory
        // otherwise. The kernel overwrites rax, rcx and r11 and no other register.
        unsafe {
            asm!(
                "syscall", inlateout("rax") number as isize => result,
                in("rdi") one, in("rsi") two, in("rdx") three, in("r10") four, in("r8") five,
                lateout("rcx") _, lateout("r11") _, options(nostack),
            );
        }
        result
    }

    // The linker wants it; keeps the compiler from leaving it out.
    #[used]
    static START: extern "C" fn() = start_protected;
}
