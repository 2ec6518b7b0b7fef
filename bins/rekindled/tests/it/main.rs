//! The real agent, end to end: against the update server, against servers that misbehave, against
//! stock web servers, with hostile images, and killed again and again.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a harness is test code, where a panic is the report"
)]

extern crate alloc;

mod components;
mod counterparts;
mod delta;
mod failing_disk;
mod harness;
mod hostile;
mod kill;
mod lifecycle;
mod memory;
mod mishaps;
mod mounted;
mod mtd;
mod recover;
mod scrub;
mod server;
mod trust;
mod uboot;
