//! Power cuts, enumerated: a simulated device is cut at every operation and inside each, restarted,
//! and must run what it should in the end; `docs/testing.md` says what that proves.
//!
//! `cargo run --release --example power_cuts` runs all of it, the tests of this package a part.
//!
//! A [`Scenario`] runs once with its flash recorded. Each moment of the recording gives the media
//! that a cut may leave; a new device starts from them, and its life must lead to what
//! the scenario is about. What boots on the way is authentic, variables say no more than that, and
//! what was committed is there.

extern crate alloc;

mod board;
mod broken;
mod device;
mod enumeration;
mod image;
mod job;
mod journal;
mod life;
#[cfg(test)]
mod mutants;
mod report;
mod scenario;

pub use board::{BOARDS, Board};
pub use broken::Broken;
pub use enumeration::{Catalogs, Failure, Options, Outcome, Row, enumerate, repeat};
pub use report::table;
pub use scenario::{SCENARIOS, Scenario};
