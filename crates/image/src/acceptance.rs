use alloc::string::String;
use alloc::vec::Vec;

use crate::Manifest;

/// The rules by which a device takes or refuses an image whose signatures it has verified.
#[derive(Clone, Copy, Debug)]
pub struct Acceptance;

impl Acceptance {
    /// Decides whether the image that `manifest` describes may be installed on the device that `facts` describes.
    ///
    /// # Errors
    ///
    /// The first rule broken; each has its own variant.
    pub fn check(
        manifest: &Manifest,
        facts: &DeviceFacts<'_>,
        downgrade: Downgrade,
    ) -> Result<(), Refusal> {
        if !manifest.device_types.iter().any(|t| t == facts.device_type) {
            return Err(Refusal::WrongDeviceType {
                device: facts.device_type.into(),
                image: manifest.device_types.clone(),
            });
        }
        let is_hardware_right = manifest.hardware.is_empty()
            || facts
                .hardware
                .is_some_and(|hardware| manifest.hardware.iter().any(|h| h == hardware));
        if !is_hardware_right {
            return Err(Refusal::WrongHardware {
                device: facts.hardware.map(Into::into),
                image: manifest.hardware.clone(),
            });
        }
        if manifest.component != facts.component {
            return Err(Refusal::WrongComponent {
                wanted: facts.component.into(),
                image: manifest.component.clone(),
            });
        }
        if downgrade == Downgrade::Refuse && manifest.security_version < facts.security_floor {
            return Err(Refusal::SecurityDowngrade {
                image: manifest.security_version,
                floor: facts.security_floor,
            });
        }
        if manifest.size > facts.slot_capacity {
            return Err(Refusal::TooLarge {
                size: manifest.size,
                capacity: facts.slot_capacity,
            });
        }
        let table = manifest.table.len_bytes();
        if table > facts.table_capacity {
            return Err(Refusal::TableTooLarge {
                table,
                capacity: facts.table_capacity,
            });
        }
        for requirement in &manifest.requires {
            let installed = facts
                .installed
                .iter()
                .find(|(component, _)| *component == requirement.component)
                .map(|&(_, release)| release);
            if installed.is_none_or(|release| release < requirement.release) {
                return Err(Refusal::RequirementNotMet {
                    component: requirement.component.clone(),
                    needed: requirement.release,
                    installed,
                });
            }
        }
        Ok(())
    }
}

/// What the rules look at on the device.
#[derive(Clone, Copy, Debug)]
pub struct DeviceFacts<'a> {
    /// The device type.
    pub device_type: &'a str,
    /// The hardware revision, where the device knows it.
    pub hardware: Option<&'a str>,
    /// The component that the image shall become.
    pub component: &'a str,
    /// The lowest security version that may be installed.
    pub security_floor: u64,
    /// How many bytes of image the slot holds.
    pub slot_capacity: u64,
    /// How many bytes of table pages the slot holds.
    pub table_capacity: u64,
    /// The release of each component that runs or is staged in this run.
    pub installed: &'a [(&'a str, u64)],
}

/// Whether a lower security version than the device's floor may be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a third answer would be another question"
)]
pub enum Downgrade {
    /// No: the rule at every door.
    Refuse,
    /// Yes: a local operator said so.
    Allow,
}

/// Why a device refuses an image that is genuine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Made for other devices ("wrong device installation").
    #[error("the image is for {image}, this device is a {device}", image = join(image))]
    WrongDeviceType {
        /// The device's type.
        device: String,
        /// The types the image lists.
        image: Vec<String>,
    },
    /// Made for other revisions of the hardware, or the device does not know its own.
    #[error(
        "the image is for hardware {image}, this device is {device}",
        image = join(image), device = device.as_deref().unwrap_or("of unknown hardware")
    )]
    WrongHardware {
        /// The device's revision.
        device: Option<String>,
        /// The revisions the image lists.
        image: Vec<String>,
    },
    /// Another component than the one to be installed ("mix and match").
    #[error("the image is a {image}, a {wanted} is to be installed")]
    WrongComponent {
        /// What was to be installed.
        wanted: String,
        /// What the image is.
        image: String,
    },
    /// A security version that the device must not go back to ("rollback").
    #[error("rollback: the image has security version {image}, this device takes {floor} or later")]
    SecurityDowngrade {
        /// The image's security version.
        image: u64,
        /// The device's floor.
        floor: u64,
    },
    /// Larger than the slot.
    #[error("the image has {size} bytes, the slot holds {capacity}")]
    TooLarge {
        /// The raw size of the image.
        size: u64,
        /// What the slot holds.
        capacity: u64,
    },
    /// Its table is larger than what the slot keeps for it: packed with too small a chunk size.
    #[error(
        "the image's chunk table has {table} bytes, the slot keeps {capacity}: pack it with a larger chunk size"
    )]
    TableTooLarge {
        /// The length of the table.
        table: u64,
        /// The room in the slot.
        capacity: u64,
    },
    /// It needs something beside it that is not there ("mix and match").
    #[error(
        "the image needs {component} of release {needed} or later, {}",
        match installed { Some(release) => alloc::format!("this device has {release}"), None => "this device has none".into() }
    )]
    RequirementNotMet {
        /// The component needed.
        component: String,
        /// The lowest release that will do.
        needed: u64,
        /// The release there is.
        installed: Option<u64>,
    },
}

fn join(texts: &[String]) -> String {
    texts.join(", ")
}
