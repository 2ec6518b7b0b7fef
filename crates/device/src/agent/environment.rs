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

/// The environment: opened, and locked against `fw_setenv` and other agents, for the time of each load
/// and store, not in between. An install uses it for long, and a UBI volume has one writer.
#[derive(Debug)]
pub(crate) struct Environment {
    config: UBootConfig,
    components: Vec<(String, u8)>,
    /// Where the agents' own lock is.
    state_dir: PathBuf,
}

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
    /// A lock's file cannot be used.
    #[error("cannot lock {}: {cause}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The variables cannot be read or written.
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl Environment {
    /// The environment that the configuration names; nothing is opened yet.
    pub(crate) fn new(config: &UBootConfig, components: &[(&str, u8)], state_dir: &Path) -> Self {
        let components = components.iter();
        Self {
            config: config.clone(),
            components: components
                .map(|(name, slots)| ((*name).to_owned(), *slots))
                .collect(),
            state_dir: state_dir.to_owned(),
        }
    }

    /// Uses the environment with nobody else writing it; waits a while for others.
    pub(crate) fn locked<T>(
        &self,
        operation: impl FnOnce(&mut Control) -> Result<T, ControlError>,
    ) -> Result<T, EnvironmentError> {
        let _locks = lock(&self.state_dir)?;
        let components: Vec<(&str, u8)> = self
            .components
            .iter()
            .map(|(name, slots)| (name.as_str(), *slots))
            .collect();
        let mut control = open(&self.config, &components)?;
        Ok(operation(&mut control)?)
    }
}

fn open(config: &UBootConfig, components: &[(&str, u8)]) -> Result<Control, EnvironmentError> {
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
    Ok(control)
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

/// What is held during a load or store.
#[derive(Debug)]
struct Locks {
    _agents: Option<File>,
    _tools: Option<File>,
}

/// The agents' own lock, which is there also early in a boot, and that of `fw_setenv`: where its folder
/// is missing, those tools do not work either. A recovery environment may have neither.
fn lock(state_dir: &Path) -> Result<Locks, EnvironmentError> {
    let agents = hold_if_there(&state_dir.join(OWN_LOCK))?;
    let tools = hold_if_there(Path::new(LOCK))?;
    if agents.is_none() && tools.is_none() {
        tracing::warn!("the U-Boot environment is not locked against other programs");
    }
    Ok(Locks {
        _agents: agents,
        _tools: tools,
    })
}

fn hold_if_there(path: &Path) -> Result<Option<File>, EnvironmentError> {
    match open_lock(path) {
        Ok(file) => hold(&file, path).map(|()| Some(file)),
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "a lock cannot be opened");
            Ok(None)
        }
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

fn hold(file: &File, path: &Path) -> Result<(), EnvironmentError> {
    let path = || path.to_owned();
    for _ in 0..LOCK_ATTEMPTS {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => pause(),
            Err(cause) => {
                let (path, cause) = (path(), cause.into());
                return Err(EnvironmentError::Lock { path, cause });
            }
        }
    }
    Err(EnvironmentError::Busy { path: path() })
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

/// What the agents of a device lock, in `state.dir`.
const OWN_LOCK: &str = "environment.lock";

/// With [`LOCK_PAUSE`] five seconds: many times what a store takes.
const LOCK_ATTEMPTS: u32 = 250;

const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A `fw_env.config` has a few lines.
const TEXT_LIMIT: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_exclude_each_other_by_a_lock_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let locks = lock(folder.path()).unwrap();
        let other = open_lock(&folder.path().join(OWN_LOCK)).unwrap();
        let attempt = || flock(&other, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(attempt(), Err(rustix::io::Errno::WOULDBLOCK));
        drop(locks);
        assert_eq!(attempt(), Ok(()));
        // As in a recovery environment: a lock makes no folder for a state.
        let nowhere = folder.path().join("nowhere");
        lock(&nowhere).unwrap();
        assert!(!nowhere.exists());
    }
}
