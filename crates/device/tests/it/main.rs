//! What an integrator can do with the crate's leaves, over real files, processes and loopback sockets.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a step that fails is a failed test"
)]

extern crate alloc;

mod config;
mod fetch;
mod host;
mod put;
mod range;
mod server;
mod status;
mod tls;
