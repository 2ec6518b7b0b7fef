//! Boot control of the backend that the configuration names.

use rekindle_flash::{BootControl, BootRecord, FileBootControl, FileBootControlError};

use crate::config::{BootConfig, BootControlKind};

/// The boot control of this device.
#[derive(Debug)]
pub(crate) enum DeviceBoot {
    /// `control = "file"`.
    File(FileBootControl),
}

/// Boot control failed, in the words of its backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceBootError {
    /// The file of the boot record.
    #[error(transparent)]
    File(#[from] FileBootControlError),
}

impl DeviceBoot {
    /// Whether there is a record, readable or not.
    pub(crate) fn exists(config: &BootConfig) -> bool {
        match config.control {
            BootControlKind::File => config.path.exists(),
        }
    }

    /// Makes the first record; leaves one that exists alone.
    pub(crate) fn create(config: &BootConfig, record: &BootRecord) -> Result<(), DeviceBootError> {
        match config.control {
            BootControlKind::File => Ok(FileBootControl::create(&config.path, record)?),
        }
    }

    /// Opens the record and fits it to the components and their numbers of slots.
    pub(crate) fn open(
        config: &BootConfig,
        components: &[(&str, u8)],
    ) -> Result<Self, DeviceBootError> {
        match config.control {
            BootControlKind::File => {
                Ok(Self::File(FileBootControl::open(&config.path, components)?))
            }
        }
    }
}

impl BootControl for DeviceBoot {
    type Error = DeviceBootError;

    fn load(&mut self) -> Result<BootRecord, Self::Error> {
        match self {
            Self::File(control) => Ok(control.load()?),
        }
    }

    fn store(&mut self, record: &BootRecord) -> Result<(), Self::Error> {
        match self {
            Self::File(control) => Ok(control.store(record)?),
        }
    }
}
