//! The flash backend trait with its power-cut contract, its backends, slots and boot control.
#![no_std]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod boot;
#[cfg(feature = "std")]
mod file;
mod flash;
mod slot;

pub use boot::{
    BootControl, BootCopy, BootCopyError, BootRecord, BootRefused, ComponentBoot, RecordError,
};
#[cfg(feature = "std")]
pub use boot::{FileBootControl, FileBootControlError};
#[cfg(feature = "std")]
pub use file::{FileFlash, FileFlashError, FileOperation};
pub use flash::{Flash, FlashError, FlashErrorKind, Geometry};
pub use slot::{
    CompletionMark, CopyError, CopyHeader, CopyLayout, CopyState, HeldCopy, LayoutError,
    MANIFEST_MAX, ManifestTooLong, ParseSlotIdError, SlotContent, SlotId, SlotLayout, SlotSet,
    read_slot,
};
