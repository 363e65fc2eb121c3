//! The end of this incarnation: whatever goes wrong, execute ourselves in place, with the descriptors and the reason.
//!
//! Everything that runs after the fault is async-signal-safe: no allocation, no locks, system calls only.

use std::fmt;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};

use libc::{c_char, c_int, c_void, siginfo_t};

use crate::escape::escape_into;

/// Signals that tell of a fault in PID 1 itself.
const FATAL: [c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT];
/// Stack for the handler: the fault may be that the ordinary one is used up.
const STACK: usize = 64 << 10;
const TEXT: usize = 240;

/// This process is a fork: what happens to it is no concern of PID 1's.
const FORKED: u32 = 0;
/// Nothing could be resumed yet.
const UNARMED: u32 = 1;
/// Added to the state's descriptor.
const ARMED: u32 = 2;

/// Points to a page that the kernel empties in a forked child (MADV_WIPEONFORK): a child between clone and exec that faults must
/// not become a second PID 1. Its process id can't tell, it is 1 as well in a namespace of its own.
static MARK: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());

/// The highest descriptor that goes on to the next incarnation.
static HIGHEST: AtomicI32 = AtomicI32::new(2);

/// Has the next incarnation get this descriptor.
pub(super) fn keep(descriptor: i32) {
    HIGHEST.fetch_max(descriptor, Ordering::SeqCst);
}

#[cfg(test)]
pub(super) fn keeps(descriptor: i32) -> bool {
    descriptor <= HIGHEST.load(Ordering::SeqCst)
}

/// Installs the handlers. Until [`arm`] is called, a fault is reported on the console and the machine starts over.
pub fn install() -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice; nothing else is affected.
    let page = unsafe { libc::mmap(ptr::null_mut(), 4096, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `page` is a mapping of 4096 bytes that we have just made.
    if unsafe { libc::madvise(page, 4096, libc::MADV_WIPEONFORK) } != 0 {
        return Err(io::Error::last_os_error());
    }
    MARK.store(page.cast(), Ordering::SeqCst);
    set_mark(UNARMED);

    // Leaked: it is used until the process ends.
    let stack = Box::leak(vec![0_u8; STACK].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK };
    // SAFETY: `stack` describes memory that is never freed and used for nothing else.
    if unsafe { libc::sigaltstack(&stack, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for signal in FATAL {
        // SAFETY: all-zero is a valid sigaction: default flags, empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: `action` is initialised, and `handler` has the signature that SA_SIGINFO asks for and is async-signal-safe.
        if unsafe { libc::sigaction(signal, &action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// From now on a fault executes `/proc/self/exe --resume STATE HIGHEST SINCE REASON`, `state` being the descriptor of the state memfd, HIGHEST
/// the highest of all that go on. SINCE is when that was, in microseconds since the kernel started.
pub fn arm(state: i32) {
    keep(state);
    set_mark(u32::try_from(state).map_or(UNARMED, |fd| fd.saturating_add(ARMED)));
}

/// Nothing can be resumed any more: from now on a fault starts the machine over.
pub fn disarm() {
    set_mark(UNARMED);
}

/// Executes this program again with `reason`; returns only in a forked child, which should die of its fault.
pub fn restart(reason: &[u8]) {
    match mark() {
        FORKED => {}
        UNARMED => last_resort(reason),
        armed => {
            execute(armed.saturating_sub(ARMED), reason);
            last_resort(reason);
        }
    }
}

extern "C" fn handler(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    let mut text = Text::new();
    text.push(b"fatal signal ");
    text.push_number(u64::from(signal.unsigned_abs()), 10);
    if !info.is_null() {
        describe(info, &mut text);
    }
    restart(text.bytes());
    // A fork: let it die of the signal, as it would have.
    // SAFETY: resetting to the default action touches no memory of ours.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    if signal == libc::SIGABRT {
        // SAFETY: raise(3) is async-signal-safe. The signal is blocked until the handler returns.
        unsafe { libc::raise(signal) };
    }
}

/// Says where the fault was, or who sent the signal.
fn describe(info: *const siginfo_t, text: &mut Text) {
    // SAFETY: the kernel passes a valid siginfo to an SA_SIGINFO handler; every one has a code.
    if unsafe { (*info).si_code } > 0 {
        text.push(b" at address 0x");
        // SAFETY: as above; a code above zero means a fault, and the siginfo of the FATAL signals then has an address, or zero.
        let address = unsafe { (*info).si_addr() };
        text.push_number(u64::try_from(address.addr()).unwrap_or(0), 16);
        return;
    }
    // SAFETY: as above; any other code means that a process sent it, and the siginfo then has a process id.
    let sender = unsafe { (*info).si_pid() };
    // SAFETY: getpid(2) has no preconditions.
    if sender != unsafe { libc::getpid() } {
        text.push(b" sent by process ");
        text.push_number(u64::from(sender.unsigned_abs()), 10);
    }
}

fn execute(state: u32, reason: &[u8]) {
    let kept = HIGHEST.load(Ordering::SeqCst);
    keep_descriptors(kept);
    let mut highest = Text::new();
    highest.push_number(u64::from(kept.unsigned_abs()), 10);
    let mut number = Text::new();
    number.push_number(u64::from(state), 10);
    let mut since = Text::new();
    since.push_number(now_us(), 10);
    let mut text = Text::new();
    text.push(reason);
    let argv: [*const c_char; 7] = [
        c"garboard-init".as_ptr(),
        c"--resume".as_ptr(),
        number.0.as_ptr().cast(),
        highest.0.as_ptr().cast(),
        since.0.as_ptr().cast(),
        text.0.as_ptr().cast(),
        ptr::null(),
    ];
    let environment: [*const c_char; 1] = [ptr::null()];
    // SAFETY: the path, every argument and both arrays are terminated by null and live until the call is over.
    unsafe { libc::execve(c"/proc/self/exe".as_ptr(), argv.as_ptr(), environment.as_ptr()) };
}

/// What [`crate::clock::now_us`] tells, without anything but the system call.
fn now_us() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable, and clock_gettime(2) is async-signal-safe.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    let (seconds, rest) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds.saturating_mul(1_000_000).saturating_add(rest.checked_div(1000).unwrap_or(0))
}

/// All descriptors are close-on-exec, so that no container inherits one; this exec is the exception.
fn keep_descriptors(highest: i32) {
    for fd in 3..=highest {
        // SAFETY: fcntl(2) with an integer argument touches no memory; a closed descriptor gives EBADF.
        unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
    }
}

/// Nothing can be resumed: say so and start the machine over. Another process than PID 1 just ends.
fn last_resort(reason: &[u8]) {
    let text = last_words(reason);
    // SAFETY: the path is terminated by null; no memory of ours is written.
    let console = unsafe { libc::open(c"/dev/console".as_ptr(), libc::O_WRONLY | libc::O_NONBLOCK | libc::O_NOCTTY) };
    // SAFETY: the buffer is readable for the given length; a failed open gives EBADF.
    unsafe { libc::write(console, text.bytes().as_ptr().cast(), text.bytes().len()) };
    // SAFETY: getpid(2) has no preconditions.
    if unsafe { libc::getpid() } != 1 {
        // SAFETY: _exit(2) has no preconditions.
        unsafe { libc::_exit(70) };
    }
    let pause = libc::timespec { tv_sec: 3, tv_nsec: 0 };
    // SAFETY: `pause` is a valid time; the remainder isn't wanted.
    unsafe { libc::nanosleep(&pause, ptr::null_mut()) };
    // SAFETY: no memory is involved; it returns only on failure, and then the caller's default action ends the machine.
    unsafe { libc::reboot(libc::RB_AUTOBOOT) };
}

/// What a panic says may quote a container.
fn last_words(reason: &[u8]) -> Text {
    let mut text = Text::new();
    text.push(b"\r\ngarboard: PID 1 can't go on: ");
    escape_into(&mut text, reason);
    text.push(b"\r\n");
    text
}

fn mark() -> u32 {
    let page = MARK.load(Ordering::SeqCst);
    // SAFETY: null or the page from `install`, which is aligned, never unmapped, and only used as this atomic.
    unsafe { page.as_ref() }.map_or(FORKED, |mark| mark.load(Ordering::SeqCst))
}

fn set_mark(value: u32) {
    let page = MARK.load(Ordering::SeqCst);
    // SAFETY: as in `mark`.
    if let Some(mark) = unsafe { page.as_ref() } {
        mark.store(value, Ordering::SeqCst);
    }
}

/// A short text on the stack, always followed by a zero byte.
struct Text([u8; TEXT], usize);

impl Text {
    fn new() -> Self {
        Self([0; TEXT], 0)
    }

    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            // The last byte stays zero; a zero inside would end the text early.
            if let Some(slot) = self.0.get_mut(self.1).filter(|_| self.1 < TEXT - 1 && *byte != 0) {
                *slot = *byte;
                self.1 = self.1.saturating_add(1);
            }
        }
    }

    fn push_number(&mut self, mut number: u64, base: u64) {
        let mut digits = [0_u8; 20];
        let mut count = 0_usize;
        for slot in digits.iter_mut().rev() {
            let digit = u8::try_from(number.checked_rem(base).unwrap_or(0)).unwrap_or(0);
            *slot = if digit < 10 { digit.saturating_add(b'0') } else { digit.saturating_add(b'a' - 10) };
            number = number.checked_div(base).unwrap_or(0);
            count = count.saturating_add(1);
            if number == 0 {
                break;
            }
        }
        self.push(digits.get(digits.len().saturating_sub(count)..).unwrap_or_default());
    }

    fn bytes(&self) -> &[u8] {
        self.0.get(..self.1).unwrap_or_default()
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_steer_no_terminal() {
        let text = last_words(b"panic: \x1b[2J\ngarboard: \xff");
        let said = "\r\ngarboard: PID 1 can't go on: panic: \\x1b[2J\\x0agarboard: \\xff\r\n";
        assert_eq!(text.bytes(), said.as_bytes());
    }

    #[test]
    fn texts_are_bounded_and_terminated() {
        let mut text = Text::new();
        text.push(b"at 0x");
        text.push_number(0xdead_beef, 16);
        text.push_number(0, 10);
        text.push_number(u64::MAX, 10);
        assert_eq!(text.bytes(), b"at 0xdeadbeef018446744073709551615");
        text.push(&[b'x'; 1000]);
        assert_eq!((text.bytes().len(), text.0[TEXT - 1]), (TEXT - 1, 0));
    }
}
