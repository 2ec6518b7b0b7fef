//! The environment of U-Boot as the configuration names it.

use core::time::Duration;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rekindle_flash::{
    Flash as _, FwEnvConfig, FwEnvError, Partition, PartitionError, PartitionFlashError, UBootEnv,
    UBootEnvError,
};
use rustix::fs::{FlockOperation, flock};

use super::slot_flash::{SlotFlash, SlotFlashError};
use crate::config::{EnvironmentPlace, InPlace, UBootConfig};

/// The environment, locked against `fw_setenv` and other agents during each load and store, not in
/// between: an install keeps it open for long.
#[derive(Debug)]
pub(crate) struct Environment(Control);

type Control = UBootEnv<Partition<SlotFlash>>;
type ControlError = UBootEnvError<PartitionFlashError<SlotFlashError>>;

/// The environment of U-Boot cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// The `fw_env.config` cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The `fw_env.config` is not one.
    #[error("{}: {cause}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: FwEnvError,
    },
    /// There is one copy, and the configuration does not accept that.
    #[error(
        "the U-Boot environment has one copy, which a power cut during a store loses, with all the \
         boot loader's variables; build U-Boot with a redundant one, or accept that with \
         in-place = \"unsafe\""
    )]
    SingleCopy,
    /// The device with a copy cannot be opened.
    #[error(transparent)]
    Open(#[from] SlotFlashError),
    /// A copy lies outside its device, or not on its units.
    #[error("the copy of the U-Boot environment on {}: {cause}", path.display())]
    Place {
        /// The device.
        path: PathBuf,
        /// What is wrong with its place.
        cause: PartitionError,
    },
    /// The two copies overlap, or share an erase block.
    #[error("the two copies of the U-Boot environment on {} overlap", path.display())]
    Overlap {
        /// The device.
        path: PathBuf,
    },
    /// `fw_setenv` or another agent holds the environment and does not let go of it.
    #[error("the U-Boot environment is in use: {} is locked", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The variables cannot be read or written.
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl Environment {
    /// Opens the environment; what it holds is not read yet.
    pub(crate) fn open(
        config: &UBootConfig,
        components: &[(&str, u8)],
    ) -> Result<Self, EnvironmentError> {
        let (copies, size) = copies(config)?;
        let mut parts = Vec::new();
        for (device, offset) in &copies {
            parts.push(part(device, *offset, size)?);
        }
        let variables = config.variables.clone();
        let mut parts = parts.into_iter();
        let mut control = match (parts.next(), parts.next()) {
            (Some(first), Some(second)) => {
                let [(device, _), (other, _)] = &copies[..] else {
                    return Err(EnvironmentError::SingleCopy);
                };
                let (one, two) = (first.range(), second.range());
                if is_same(device, other) && one.start < two.end && two.start < one.end {
                    return Err(EnvironmentError::Overlap {
                        path: device.clone(),
                    });
                }
                UBootEnv::redundant([first, second], size, variables, components)?
            }
            (Some(only), None) if config.in_place == InPlace::Unsafe => {
                UBootEnv::single(only, size, variables, components)?
            }
            (_, _) => return Err(EnvironmentError::SingleCopy),
        };
        if let Some(flags) = config.flags {
            control = control.with_flags(flags);
        }
        Ok(Self(control))
    }

    /// Uses the environment with nobody else writing it; waits a while for others.
    pub(crate) fn locked<T>(
        &mut self,
        operation: impl FnOnce(&mut Control) -> Result<T, ControlError>,
    ) -> Result<T, EnvironmentError> {
        let _lock = lock()?;
        Ok(operation(&mut self.0)?)
    }
}

/// Whether a power cut during a store loses the environment.
pub(crate) fn is_single(config: &UBootConfig) -> bool {
    copies(config).is_ok_and(|(copies, _)| copies.len() == 1)
}

/// The device and the place of each copy, below zero from the end of the device; and their size.
pub(crate) fn copies(
    config: &UBootConfig,
) -> Result<(Vec<(PathBuf, i64)>, usize), EnvironmentError> {
    match &config.place {
        EnvironmentPlace::Named(path) => {
            let mut text = String::new();
            File::open(path)
                .and_then(|file| file.take(TEXT_LIMIT).read_to_string(&mut text))
                .map_err(|cause| EnvironmentError::Read {
                    path: path.clone(),
                    cause,
                })?;
            let named = FwEnvConfig::parse(&text).map_err(|cause| EnvironmentError::Config {
                path: path.clone(),
                cause,
            })?;
            // As the tools: relative to the folder that they were started in, so hardly ever.
            let folder = path.parent().unwrap_or_else(|| Path::new(""));
            let places = named.places.into_iter();
            Ok((
                places
                    .map(|place| (folder.join(place.device), place.offset))
                    .collect(),
                named.size,
            ))
        }
        EnvironmentPlace::At {
            device,
            offsets,
            size,
        } => {
            let offsets = offsets.iter();
            Ok((
                offsets
                    .map(|offset| (device.clone(), i64::try_from(*offset).unwrap_or(i64::MAX)))
                    .collect(),
                *size,
            ))
        }
    }
}

fn part(path: &Path, offset: i64, size: usize) -> Result<Partition<SlotFlash>, EnvironmentError> {
    let flash = SlotFlash::open_shared(path)?;
    let geometry = flash.geometry();
    let start = match u64::try_from(offset) {
        Ok(start) => start,
        Err(_) => geometry.size.saturating_sub(offset.unsigned_abs()),
    };
    let unit = geometry.erase_size.max(geometry.write_size).max(1);
    let len = u64::try_from(size)
        .unwrap_or(u64::MAX)
        .checked_next_multiple_of(unit.into());
    let end = len
        .and_then(|len| start.checked_add(len))
        .unwrap_or(u64::MAX);
    Partition::new(flash, start..end).map_err(|cause| EnvironmentError::Place {
        path: path.to_owned(),
        cause,
    })
}

fn is_same(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |path: &Path| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.dev(), meta.ino(), meta.rdev()))
    };
    one == other || identity(one) == identity(other)
}

/// The lock of `fw_setenv`. Where its folder is missing, those tools do not work either.
fn lock() -> Result<Option<File>, EnvironmentError> {
    let path = Path::new(LOCK);
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    let Ok(file) = opened else {
        tracing::debug!("{LOCK} cannot be opened; fw_setenv is not held off");
        return Ok(None);
    };
    for _ in 0..LOCK_ATTEMPTS {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => pause(),
            Err(_) => {}
        }
    }
    Err(EnvironmentError::Busy {
        path: path.to_owned(),
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "another process holds the lock for the time of a store; there is nothing to wait on"
)]
fn pause() {
    std::thread::sleep(LOCK_PAUSE);
}

/// What libubootenv and the tools of U-Boot lock.
const LOCK: &str = "/var/lock/fw_printenv.lock";

/// With [`LOCK_PAUSE`] five seconds: many times what a store takes.
const LOCK_ATTEMPTS: u32 = 250;

const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A `fw_env.config` has a few lines.
const TEXT_LIMIT: u64 = 64 << 10;
