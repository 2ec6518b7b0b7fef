//! Boot control of the backend that the configuration names.

use rekindle_flash::{
    BootControl, BootRecord, FileBootControl, FileBootControlError, SlotId, UBootEnv,
};

use super::environment::{self, Environment, EnvironmentError};
use crate::config::{BootConfig, BootControlConfig, Config};

/// The boot control of this device.
#[derive(Debug)]
pub(crate) enum DeviceBoot {
    /// `control = "file"`.
    File(FileBootControl),
    /// `control = "uboot"`.
    UBoot(Environment),
}

/// Boot control failed, in the words of its backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceBootError {
    /// The file of the boot record.
    #[error(transparent)]
    File(#[from] FileBootControlError),
    /// The environment of U-Boot.
    #[error(transparent)]
    UBoot(#[from] EnvironmentError),
}

impl DeviceBoot {
    /// Whether there is a record, readable or not.
    pub(crate) fn exists(
        config: &Config,
        components: &[(&str, u8)],
    ) -> Result<bool, DeviceBootError> {
        match &config.boot.control {
            BootControlConfig::File(path) => Ok(path.exists()),
            BootControlConfig::UBoot(uboot) => {
                let environment = Environment::new(uboot, components, &config.state_dir);
                Ok(environment.locked(UBootEnv::has_record)?)
            }
        }
    }

    /// Makes the first record; leaves one that exists alone.
    pub(crate) fn create(
        config: &Config,
        components: &[(&str, u8)],
        record: &BootRecord,
    ) -> Result<(), DeviceBootError> {
        match &config.boot.control {
            BootControlConfig::File(path) => Ok(FileBootControl::create(path, record)?),
            BootControlConfig::UBoot(uboot) => {
                let environment = Environment::new(uboot, components, &config.state_dir);
                Ok(environment.locked(|control| {
                    if control.has_record()? {
                        return Ok(());
                    }
                    control.store(record)
                })?)
            }
        }
    }

    /// Opens the record and fits it to the components and their numbers of slots.
    pub(crate) fn open(
        config: &Config,
        components: &[(&str, u8)],
    ) -> Result<Self, DeviceBootError> {
        match &config.boot.control {
            BootControlConfig::File(path) => {
                Ok(Self::File(FileBootControl::open(path, components)?))
            }
            BootControlConfig::UBoot(uboot) => Ok(Self::UBoot(Environment::new(
                uboot,
                components,
                &config.state_dir,
            ))),
        }
    }

    /// Gives back what a boot loader counted although the slot is confirmed; returns whether there
    /// was anything.
    pub(crate) fn give_back(&mut self) -> Result<bool, DeviceBootError> {
        match self {
            Self::File(_) => Ok(false),
            Self::UBoot(environment) => Ok(environment.locked(UBootEnv::give_back)?),
        }
    }

    /// What an operator should know of this boot control.
    pub(crate) fn warning(config: &BootConfig) -> Option<&'static str> {
        match &config.control {
            BootControlConfig::UBoot(uboot) if environment::is_single(uboot) => Some(SINGLE),
            BootControlConfig::File(_) | BootControlConfig::UBoot(_) => None,
        }
    }

    /// The letter of a slot that the boot loader calls by a name of its own; any other text as it
    /// is.
    pub(crate) fn slot_letter(config: &BootConfig, text: String) -> String {
        let BootControlConfig::UBoot(uboot) = &config.control else {
            return text;
        };
        let index = uboot.slot_names.iter().position(|name| *name == text);
        let slot = index
            .and_then(|index| u8::try_from(index).ok())
            .and_then(SlotId::new);
        slot.map_or(text, |slot| slot.to_string())
    }
}

impl BootControl for DeviceBoot {
    type Error = DeviceBootError;

    fn load(&mut self) -> Result<BootRecord, Self::Error> {
        match self {
            Self::File(control) => Ok(control.load()?),
            Self::UBoot(environment) => Ok(environment.locked(BootControl::load)?),
        }
    }

    fn store(&mut self, record: &BootRecord) -> Result<(), Self::Error> {
        tracing::debug!("storing the boot record");
        match self {
            Self::File(control) => Ok(control.store(record)?),
            Self::UBoot(environment) => Ok(environment.locked(|control| control.store(record))?),
        }
    }
}

const SINGLE: &str = "the U-Boot environment has a single copy: a power cut while it is written loses \
                      it, and the device may not start again";
