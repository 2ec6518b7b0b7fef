//! The web server that a fleet of devices polls: maintenance scripts, firmware with ranges, and configuration backups.
//!
//! It is not a general web server: no directory listing, no redirects, no TLS, no users. Firmware is signed, so it need not
//! be secret or come from a trusted place; put a TLS proxy in front where scripts or backups must not be read on the way.
//!
//! The model: one data folder. GET and HEAD read any file in it, by name without regard to letter case (an exact match wins).
//! PUT writes below one folder only, the backups. Nothing outside the data folder is ever touched, whatever a path says or a
//! link points at.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use rekindle_fleet::{Config, Server};
//!
//! let folder = tempfile::tempdir().unwrap();
//! let mut config = Config::new(folder.path());
//! config.listen = "127.0.0.1:0".parse().unwrap();
//! let server = Server::bind(config).await.unwrap();
//!
//! assert_ne!(server.local_addr().port(), 0);
//! assert!(folder.path().join("scripts").is_dir());
//! server.serve(async { /* until a signal comes */ }).await;
//! # });
//! ```
//!
//! Guarantees:
//!
//! - A backup is replaced as a whole or not at all: temporary file in the same folder, sync, rename, sync of the folder.
//! - A file that changes while it is being sent ends the connection; old and new content never mix in one body.
//! - A download costs at most three pieces of 16 to 256 KiB, smaller the more there are.
//! - A client that sends nothing, or too little, loses its connection; what is over the connection limit waits.
//! - No panic on any input.
//!
//! Each request is one `tracing` event of the target `rekindle_fleet::request` with `remote`, `method`, `path`, `status`, `sent`, `received`,
//! `ms`, the device's own facts (`ver`, `prot`, `boot`, …) and `failure`. Control characters are escaped; of a query only the
//! standard device arguments are logged.
//!
//! Linux and other Unix systems; no cargo features.

extern crate alloc;

mod backup;
mod body;
mod config;
mod error;
mod facts;
mod folder;
mod pace;
mod path;
mod precondition;
mod record;
mod server;
mod site;
mod stream;

pub use crate::config::{Config, Limits};
pub use crate::error::BindError;
pub use crate::server::Server;
