mod control;
mod record;

pub use control::BootControl;
pub use record::{BootRecord, BootRefused, ComponentBoot, RecordError};
