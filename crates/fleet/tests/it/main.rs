//! The server over real sockets, as a device or an attacker sees it.

mod get;
mod harness;
mod limits;
mod put;
