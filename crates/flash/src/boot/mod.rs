mod codec;
mod control;
#[cfg(feature = "std")]
mod file;
mod flash;
mod record;
mod uboot;

pub use codec::{BootCopy, BootCopyError};
pub use control::BootControl;
#[cfg(feature = "std")]
pub use file::{FileBootControl, FileBootControlError};
pub use flash::{FlashBootControl, FlashBootControlError};
pub use record::{BootRecord, BootRefused, ComponentBoot, KeySetName, RecordError};
pub use uboot::{
    EnvironmentDamage, EnvironmentFlags, FwEnvConfig, FwEnvError, FwEnvPlace, RecordVariableError,
    UBootEnv, UBootEnvError, UBootVariables, VariableNameError,
};
