//! Flash with power cuts, boot control in memory, and conformance checks for vendors' backends.
//!
//! It is no part of a firmware: a dev-dependency of Rekindle's own crates, and of a vendor's crate
//! that implements [`Flash`](rekindle_flash::Flash) or
//! [`BootControl`](rekindle_flash::BootControl).
//!
//! A power-cut test counts the operations of a good run, then runs once for each of them with a cut
//! there:
//!
//! ```
//! use rekindle_flash::{Flash, Geometry};
//! use rekindle_testkit::{SimFlash, SimFlashError};
//!
//! const GEOMETRY: Geometry = Geometry { size: 16, write_size: 4, erase_size: 0 };
//!
//! /// Data first, then the mark that says it is whole.
//! fn install(flash: &mut SimFlash) -> Result<(), SimFlashError> {
//!     flash.write(0, b"datadata")?;
//!     flash.sync()?;
//!     flash.write(8, b"mark")?;
//!     flash.sync()
//! }
//!
//! let mut flash = SimFlash::new(GEOMETRY, 1);
//! install(&mut flash)?;
//! for cut in 1..=flash.power().operations() {
//!     let mut flash = SimFlash::new(GEOMETRY, cut);
//!     flash.cut_after(cut);
//!     assert!(install(&mut flash).is_err());
//!     flash.restart();
//!     let (data, mark) = flash.stored().split_at(8);
//!     assert!(&mark[..4] != b"mark" || data == b"datadata");
//! }
//! # Ok::<(), SimFlashError>(())
//! ```
//!
//! Several parts of a device (slots, boot control, a test's own store) share one [`Power`]: it
//! counts the operations of all of them, and its log shows their order.
//!
//! Everything is decided by seeds; nothing here reads a clock or a random number.

extern crate alloc;

mod boot;
mod cells;
mod change;
pub mod conformance;
mod fault;
mod flash;
mod medium;
mod point;
mod power;
mod preset;
mod random;
mod recording;

pub use boot::MemoryBootControl;
pub use cells::Torn;
pub use fault::Fault;
pub use flash::{SimFlash, SimFlashError};
pub use medium::Medium;
pub use point::{Inside, ParsePointError, Plan, Point, Unsynced};
pub use power::{Fate, LogEntry, Operation, Power, PowerOff};
pub use preset::Preset;
pub use recording::{Moment, Recording, Step};
