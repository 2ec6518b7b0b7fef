//! Checks that a vendor's backend keeps the contracts that the rest of Rekindle builds on.
//!
//! [`flash()`] and [`boot_control()`] run the whole contract of a trait against a backend and return a
//! [`Report`], which names each sentence of the trait's documentation and whether it is kept. They
//! need no test harness, so a vendor can run them in a program on the board as well.
//!
//! Each takes a function that opens the backend: called with `None` first, later with the value it
//! returned before, to be dropped and opened anew on the same medium. Where a backend cannot be
//! opened anew, or where more can be done to it (its power can be cut), use [`FlashSuite`] and
//! [`BootSuite`]; what was not given to them is reported as not checked.
//!
//! ```
//! use rekindle_flash::Geometry;
//! use rekindle_testkit::{SimFlash, conformance::FlashSuite};
//!
//! let nor = Geometry { size: 64 * 1024, write_size: 4, erase_size: 4096 };
//! let report = FlashSuite::new(SimFlash::new(nor, 7))
//!     .restart(|mut flash| {
//!         flash.restart();
//!         flash
//!     })
//!     .cut(|flash, operations| flash.cut_after(operations))
//!     .fail_sync(SimFlash::fail_next_sync)
//!     .run();
//! println!("{report}");
//! report.assert();
//! ```

mod area;
mod boot;
mod flash;
mod report;

pub use boot::{BootSuite, boot_control};
pub use flash::{FlashSuite, flash};
pub use report::{Check, Report, Verdict};
