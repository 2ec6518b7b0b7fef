//! Update variables, slot records and rejections that survive power cuts.
//!
//! This is no general key-value store, and it holds no secrets: keys, certificates and passwords
//! are files of their own. It is not where a device learns what it boots: that is boot control's
//! word, and UPDATE/PROT, BOOT and BMC are read through it ([`State::slot_serial`]).
//!
//! - [`State`] is a plain value: change its fields, then commit it whole.
//! - [`Store`] is where it survives: [`FlashStore`] on any flash, [`FileStore`] (feature `std`),
//!   [`MemoryStore`], or a vendor's own, for which [`Generation`] gives the bytes.
//! - Each text and list has a [`limit`]; a state beyond one is refused when it is committed, not
//!   found unreadable after the restart.
//! - A state that cannot be read is an error, never an empty state: a device must not become a
//!   new one because a bit flipped.
//!
//! ```
//! use rekindle_state::{Dated, MemoryStore, Store, UnixTime};
//!
//! let mut store = MemoryStore::default();
//! let mut state = store.load()?.state;
//! assert_eq!(state.check, None);
//!
//! state.check = Some(Dated { value: b"20051010".to_vec(), date: Some(UnixTime::new(1_128_902_400)) });
//! store.commit(&state)?;
//! assert_eq!(store.load()?.state, state);
//! # Ok::<(), rekindle_state::LimitError>(())
//! ```
//!
//! # Guarantees
//!
//! After a commit has returned, the state survives a power cut; during a commit a cut leaves the
//! state before or the new one. A stored file is at most [`limit::FILE`] bytes, and so is the
//! memory that reading it takes, within a small factor. No input panics.
//!
//! # Features
//!
//! `std`: [`FileStore`]. Without it the crate is `no_std` and needs an allocator.

#![no_std]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod codec;
#[cfg(feature = "std")]
mod file;
mod flash;
pub mod limit;
mod record;
mod state;
mod store;
mod time;

pub use codec::{DecodeError, Generation};
#[cfg(feature = "std")]
pub use file::{FileStore, FileStoreError};
pub use flash::{FlashStore, FlashStoreError};
pub use limit::LimitError;
pub use record::{AdoptedKeySet, Dated, DatedIndex, Door, Evidence, Reason, Rejection, SlotRecord};
pub use state::State;
pub use store::{Damage, Loaded, MemoryStore, Store};
pub use time::UnixTime;
