//! What Rekindle writes firmware to: flash that may lose its power, slots that describe themselves,
//! and boot control.
//!
//! It is no driver, no file system and no boot loader, and it decides nothing about images:
//! signatures and chunks belong to `rekindle-image`, the order of an install to `rekindle-update`.
//!
//! # Model
//!
//! A [`Flash`] is one region, usually one slot; a [`Partition`] makes one of a part of another. A [`SlotLayout`] puts the raw image at its start
//! and two copies of a description at its end; [`read_slot`] says what the slot claims to hold.
//! A [`BootRecord`] says, for the whole device, which slot of each component boots next; a
//! [`BootControl`] keeps it, [`FlashBootControl`] on raw flash. A vendor implements the two traits and checks them with
//! `rekindle_testkit::conformance`.
//!
//! # A slot
//!
//! ```
//! use rekindle_flash::{CompletionMark, CopyHeader, Flash, Geometry, SlotLayout, read_slot};
//! # use rekindle_testkit::{SimFlash, SimFlashError};
//! # let geometry = Geometry { size: 1 << 20, write_size: 64, erase_size: 4096 };
//! # let mut flash = SimFlash::new(geometry, 1);
//! let layout = SlotLayout::new(&flash.geometry()).expect("1 MiB is enough");
//! let before = read_slot(&mut flash, &layout)?;
//! let copy = &layout.copies[before.next_copy()];
//!
//! // The description first, then (not shown) the data, then the mark.
//! let manifest = [7; 128];
//! let header = CopyHeader::new(before.next_sequence(), [1; 32], &manifest).expect("it is short");
//! flash.erase(copy.head.clone())?;
//! flash.write(copy.head.start, &header.encode(&manifest))?;
//! flash.sync()?;
//! flash.erase(copy.mark.clone())?;
//! flash.write(copy.mark.start, &CompletionMark::encode(&header))?;
//! flash.sync()?;
//!
//! let after = read_slot(&mut flash, &layout)?;
//! let (_, current) = after.current().expect("it was just written");
//! assert!(current.complete);
//! assert_eq!(current.manifest, manifest);
//! # Ok::<(), SimFlashError>(())
//! ```
//!
//! # What boots
//!
//! ```
//! use rekindle_flash::{BootRecord, SlotId};
//!
//! let mut record = BootRecord::new(&[("prot", 2)])?;
//! record.withdraw("prot", SlotId::B)?; // before the first byte is written to B
//! record.choose("prot", SlotId::B, 3)?; // after B was written and read back
//! let boots = record.start(); // the boot loader, which stores the record before it boots
//! assert_eq!(boots, [("prot".to_owned(), SlotId::B)]);
//! record.confirm()?; // the agent, which runs B and is healthy
//! assert_eq!(record.next("prot"), Some(SlotId::B));
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # Guarantees
//!
//! - Power cuts: the docs of [`Flash`] say what may be garbage after one; nothing here relies on
//!   more. A cut during an install leaves one copy of the description untouched, and a slot that
//!   says it is complete is.
//! - A boot record that cannot be read is an error, never a default one.
//! - Memory: the description of a slot is read in pieces of 16.5 KiB.
//! - Nothing panics on what it reads from a medium.
//!
//! # Features
//!
//! None by default: `no_std` with an allocator. `std` adds `FileFlash` (files and block devices),
//! `MtdFlash` (MTD character devices), `UbiFlash` (UBI volumes) and `FileBootControl`. `embedded-storage` adds
//! `EmbeddedNorFlash`, which takes any driver of that crate's NOR flash traits.

#![no_std]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod boot;
#[cfg(feature = "embedded-storage")]
mod embedded;
#[cfg(feature = "std")]
mod file;
mod flash;
#[cfg(feature = "std")]
mod linux;
#[cfg(feature = "std")]
mod mtd;
mod partition;
mod settled;
mod slot;
#[cfg(feature = "std")]
mod ubi;

pub use boot::{
    BootControl, BootCopy, BootCopyError, BootRecord, BootRefused, ComponentBoot,
    EnvironmentDamage, EnvironmentFlags, FlashBootControl, FlashBootControlError, FwEnvConfig,
    FwEnvError, FwEnvPlace, KeySetName, RecordError, RecordVariableError, UBootEnv, UBootEnvError,
    UBootVariables, VariableNameError,
};
#[cfg(feature = "std")]
pub use boot::{FileBootControl, FileBootControlError};
#[cfg(feature = "embedded-storage")]
pub use embedded::{EmbeddedNorError, EmbeddedNorFlash, EmbeddedNorUnitsError, NorOperation};
#[cfg(feature = "std")]
pub use file::{FileFlash, FileFlashError, FileOperation};
pub use flash::{Flash, FlashError, FlashErrorKind, Geometry};
#[cfg(feature = "std")]
pub use linux::idle_io_priority;
#[cfg(feature = "std")]
pub use mtd::{MtdFlash, MtdFlashError, MtdOperation};
pub use partition::{Partition, PartitionError, PartitionFlashError};
pub use settled::read_settled;
pub use slot::{
    CompletionMark, CopyError, CopyHeader, CopyLayout, CopyState, HeldCopy, LayoutError,
    MANIFEST_MAX, ManifestTooLong, ParseSlotIdError, SlotContent, SlotId, SlotLayout, SlotSet,
    read_slot,
};
#[cfg(feature = "std")]
pub use ubi::{UbiFlash, UbiFlashError};
