//! What a test can rely on: the simulated parts keep the contracts, and the checks see who does not.

extern crate alloc;

mod conformance;
mod recording;
mod sim_flash;
