//! Kinds of device: what flash they have and where their boot control lies.

use rekindle_flash::{
    BootControl, BootRecord, FlashBootControl, FlashBootControlError, UBootEnv, UBootEnvError,
    UBootVariables,
};
use rekindle_testkit::{Medium, Power, Preset, SimFlash, SimFlashError};

use crate::broken::Broken;

/// A kind of device.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Board {
    /// How a run names it.
    pub name: &'static str,
    /// What flash it has.
    pub flash: Preset,
    /// Boot control lies in the environment of U-Boot.
    pub environment: bool,
}

/// All of them: each flash with the boot record on it, and some with the environment of U-Boot.
pub const BOARDS: [Board; 12] = [
    Board::record(Preset::NOR_BYTE),
    Board::record(Preset::NOR_WORD),
    Board::record(Preset::NOR_DOUBLE),
    Board::record(Preset::NOR_PAGE),
    Board::record(Preset::NOR_LARGE),
    Board::record(Preset::ONCE),
    Board::record(Preset::SECTORS),
    Board::record(Preset::FILE),
    Board::environment("nor-4k-4/env", Preset::NOR_WORD),
    Board::environment("nor-64k-8/env", Preset::NOR_LARGE),
    Board::environment("emmc-512/env", Preset::SECTORS),
    Board::environment("file-4k/env", Preset::FILE),
];

impl Board {
    const fn record(flash: Preset) -> Self {
        Self {
            name: flash.name,
            flash,
            environment: false,
        }
    }

    const fn environment(name: &'static str, flash: Preset) -> Self {
        Self {
            name,
            flash,
            environment: true,
        }
    }

    /// Empty flash for boot control.
    pub(crate) fn media(&self) -> [Medium; 2] {
        let unit = u64::from(self.flash.erase_size.max(4096));
        ["boot", "boot2"].map(|name| Medium::new(name, &self.flash, 2 * unit))
    }

    /// Writes the first record to new flash, as a factory does.
    pub(crate) fn create(&self, media: &mut [Medium], power: &Power) -> Result<(), Broken> {
        let record = BootRecord::new(&COMPONENTS).map_err(Broken::setup)?;
        let boot = if self.environment {
            for (medium, flag) in media.iter_mut().zip([1, 0]) {
                medium.damage(0, &first_environment(flag));
            }
            let mut boot = Boot::open(self, media, power).map_err(Broken::setup)?;
            boot.store(&record).map_err(Broken::setup)?;
            boot
        } else {
            let boot = FlashBootControl::create(media[0].start(power), &record);
            Boot::Record(boot.map_err(Broken::setup)?)
        };
        boot.into_media(media);
        Ok(())
    }
}

/// Boot control of either kind.
#[derive(Debug)]
pub(crate) enum Boot {
    Record(FlashBootControl<SimFlash>),
    Environment(UBootEnv<SimFlash>),
}

impl Boot {
    pub(crate) fn open(board: &Board, media: &[Medium], power: &Power) -> Result<Self, BootError> {
        let start = |part: usize| media[part].start(power);
        Ok(if board.environment {
            let variables = UBootVariables::default();
            let copies = [start(0), start(1)];
            Self::Environment(UBootEnv::redundant(
                copies,
                ENVIRONMENT,
                variables,
                &COMPONENTS,
            )?)
        } else {
            Self::Record(FlashBootControl::open(start(0), &COMPONENTS)?)
        })
    }
}

impl Boot {
    /// What its flash holds; the second one is used by the environment only.
    pub(crate) fn into_media(self, media: &mut [Medium]) {
        let flash = match self {
            Self::Record(boot) => vec![boot.into_inner()],
            Self::Environment(boot) => boot.into_inner(),
        };
        for (medium, flash) in media.iter_mut().zip(&flash) {
            *medium = Medium::from(flash);
        }
    }
}

impl BootControl for Boot {
    type Error = BootError;

    fn load(&mut self) -> Result<BootRecord, BootError> {
        Ok(match self {
            Self::Record(boot) => boot.load()?,
            Self::Environment(boot) => boot.load()?,
        })
    }

    fn store(&mut self, record: &BootRecord) -> Result<(), BootError> {
        match self {
            Self::Record(boot) => boot.store(record)?,
            Self::Environment(boot) => boot.store(record)?,
        }
        Ok(())
    }
}

/// Boot control failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error(transparent)]
    Record(#[from] FlashBootControlError<SimFlashError>),
    #[error(transparent)]
    Environment(#[from] UBootEnvError<SimFlashError>),
}

/// What `saveenv` of U-Boot writes on a new board.
fn first_environment(flag: u8) -> Vec<u8> {
    let mut data = b"bootdelay=2\0BOOT_ORDER=A B\0BOOT_A_LEFT=3\0BOOT_B_LEFT=3\0".to_vec();
    data.resize(ENVIRONMENT - 5, 0);
    let mut bytes = crc32fast::hash(&data).to_le_bytes().to_vec();
    bytes.push(flag);
    bytes.extend_from_slice(&data);
    bytes
}

pub(crate) const COMPONENTS: [(&str, u8); 2] = [("prot", 2), ("bmc", 1)];

/// Bytes of a copy of the environment.
const ENVIRONMENT: usize = 4096;
