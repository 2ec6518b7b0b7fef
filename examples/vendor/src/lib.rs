//! A vendor's firmware without an operating system, as far as Rekindle is concerned: an allocator
//! over a fixed block of memory, a panic handler, a flash driver, the partitions of its chip, and one
//! entry point.
//!
//! It links the layers without I/O the way such firmware does. A crate among them that pulls in
//! `std` brings a second panic handler along, and this one no longer builds.

#![no_std]

extern crate alloc;

mod board;
mod nor;
mod scene;
mod served;

use core::panic::PanicInfo;

/// All the memory there is; 1 MiB of it plays the chip.
const HEAP: usize = 3 << 20;

#[global_allocator]
static ALLOCATOR: emballoc::Allocator<HEAP> = emballoc::Allocator::new();

/// Runs the scene. Returns 0 if all went as it must, and else the number of the step that did not.
#[expect(
    unsafe_code,
    reason = "the C program calls it by this name, which nothing else has"
)]
#[unsafe(no_mangle)]
pub extern "C" fn rekindle_vendor_example() -> i32 {
    match scene::run() {
        Ok(()) => 0,
        Err(step) => step.number(),
    }
}

/// A device would restart; here the caller's time limit ends it.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
