//! The system calls for which there is no safe function: the I/O priority of a thread. No other module of the workspace has `unsafe`.

#![expect(
    unsafe_code,
    reason = "docs/decisions/unsafe-in-one-module.md: the kernel offers these no other way"
)]

use core::ffi::c_int;
use std::io;

/// Puts the calling thread into the idle class of I/O: the disk serves it when nobody else wants
/// anything. It holds for this thread alone and until it ends.
///
/// A block device whose scheduler knows no classes (`none`), and MTD, which has no scheduler,
/// take no notice.
///
/// # Errors
///
/// The kernel has no I/O priorities, or a sandbox forbids the call.
pub fn idle_io_priority() -> io::Result<()> {
    let who: c_int = 1; // IOPRIO_WHO_PROCESS: of one thread
    let this_thread: c_int = 0;
    let idle: c_int = 3 << 13; // IOPRIO_CLASS_IDLE, which has no levels
    // SAFETY: the call takes three integers and touches no memory of this process.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, who, this_thread, idle) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_becomes_idle_and_no_other_does() {
        let class = || {
            // SAFETY: the call takes two integers and touches no memory of this process.
            unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) >> 13 }
        };
        let before = class();
        let idle = std::thread::spawn(move || {
            idle_io_priority().unwrap();
            class()
        });
        assert_eq!(idle.join().unwrap(), 3);
        assert_eq!(class(), before);
    }
}
