//! Checks that a vendor's backend keeps the contracts that the rest of Rekindle builds on.
//!
//! Each takes a function that opens the backend: called with `None` first, later with the value it
//! returned before, to be dropped and opened anew on the same medium. A broken rule is a panic that
//! names it, so these are called from a test.

mod boot;
mod flash;

pub use boot::boot_control;
pub use flash::flash;
