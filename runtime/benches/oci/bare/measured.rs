//! How much memory a program and the children that it waits for have resident at most, and whether it runs in a control group.
//!
//! `measured PROCS PROGRAM [ARGUMENT…]` executes the program in a child that first enters the control group whose `cgroup.procs` is the
//! file PROCS (`/dev/null` for none), writes the largest number of kibibytes in decimal to standard error, and ends with the
//! program's status. What a process had before it executed a program counts as its own (getrusage(2)), so the one that forks must
//! be smaller than whatever it measures: this one has a few pages.
#![no_std]
#![no_main]

mod sys;

use sys::{Arguments, call, memory, must, text};

// Numbers of asm/unistd_64.h.
const WRITE: usize = 1;
const OPEN: usize = 2;
const CLOSE: usize = 3;
const FORK: usize = 57;
const EXECVE: usize = 59;
const WAIT4: usize = 61;

const WRONLY: usize = 1;
const STDERR: usize = 2;
/// Of struct rusage in words: after two struct timeval.
const MAXRSS: usize = 4;

fn main(arguments: &Arguments) -> usize {
    let child = must(10, FORK, []);
    if child == 0 {
        let procs = must(11, OPEN, [text(arguments.get(1)), WRONLY]);
        // Zero is whoever writes it.
        must(12, WRITE, [procs, text(c"0"), 1]);
        must(13, CLOSE, [procs]);
        let mut environment = [text(c"PATH=/usr/sbin:/usr/bin:/sbin:/bin"), 0];
        call(EXECVE, [text(arguments.get(2)), arguments.from(2), memory(&mut environment)]);
        return 127;
    }
    let (mut status, mut usage) = (0_u32, [0_usize; 18]);
    must(14, WAIT4, [child, memory(&mut status), 0, memory(&mut usage)]);
    let mut digits = [b'\n'; 20];
    let mut rest = usage[MAXRSS];
    for digit in digits[..19].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    must(15, WRITE, [STDERR, memory(&mut digits), size_of_val(&digits)]);
    // A signal's number in the lower seven bits, the exit status in the byte above them.
    if status & 0x7f == 0 { (status >> 8 & 0xff) as usize } else { 128 + (status & 0x7f) as usize }
}
