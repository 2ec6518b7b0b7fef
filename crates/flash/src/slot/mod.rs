mod content;
mod header;
mod id;
mod layout;
mod mark;

pub use content::{CopyState, HeldCopy, SlotContent, read_slot};
pub use header::{CopyError, CopyHeader, MANIFEST_MAX, ManifestTooLong};
pub(crate) use id::MAX_SLOTS;
pub use id::{ParseSlotIdError, SlotId, SlotSet};
pub use layout::{CopyLayout, LayoutError, SlotLayout};
pub use mark::CompletionMark;
