//! Whether the configured slots and the boot record are really different places: a slot under two
//! names would let an install overwrite what runs.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rekindle_flash::MtdFlash;
use rustix::fs::{major, minor};

use super::board::BoardError;
use super::environment;
use crate::config::{BootControlConfig, Config};

/// What a path leads to, links followed.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// A device, by its number.
    Device(u64),
    /// An MTD, by its number, whether as a character or as a block device.
    Mtd(u32),
    /// A file, by file system and inode.
    File(u64, u64),
    /// Not there yet: its folder, as far as that is, and its name.
    Missing(PathBuf),
}

/// Refuses a configuration in which two slots, or a slot and the boot record, are one place.
pub(crate) fn check(config: &Config) -> Result<(), BoardError> {
    let slots = config
        .components
        .iter()
        .flat_map(|component| &component.slots);
    let mut seen: Vec<(Place, PathBuf)> = Vec::new();
    for path in slots.cloned() {
        let place = different(&seen, &path)?;
        seen.push((place, path));
    }
    // The copies of an environment may share a device.
    for path in record_places(&config.boot.control) {
        different(&seen, &path)?;
    }
    Ok(())
}

fn different(seen: &[(Place, PathBuf)], path: &Path) -> Result<Place, BoardError> {
    let place = Place::of(path);
    match seen.iter().find(|(known, _)| *known == place) {
        Some((_, first)) => Err(BoardError::SamePlace {
            first: first.clone(),
            second: path.to_owned(),
        }),
        None => Ok(place),
    }
}

fn record_places(control: &BootControlConfig) -> Vec<PathBuf> {
    match control {
        BootControlConfig::File(path) => Vec::from([path.clone()]),
        // What is wrong with it, the one who opens it says.
        BootControlConfig::UBoot(uboot) => environment::copies(uboot)
            .map(|(copies, _)| copies.into_iter().map(|(device, _)| device).collect())
            .unwrap_or_default(),
    }
}

impl Place {
    fn of(path: &Path) -> Self {
        match std::fs::metadata(path) {
            Ok(meta) => Self::of_existing(&meta),
            Err(_) => {
                let folder = path
                    .parent()
                    .filter(|folder| !folder.as_os_str().is_empty());
                let folder = folder.unwrap_or_else(|| Path::new("."));
                let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
                Self::Missing(
                    path.file_name()
                        .map_or_else(|| folder.clone(), |name| folder.join(name)),
                )
            }
        }
    }

    fn of_existing(meta: &Metadata) -> Self {
        let kind = meta.file_type();
        if let Some(number) = MtdFlash::number_in(meta) {
            Self::Mtd(number)
        } else if kind.is_block_device() && major(meta.rdev()) == MTD_BLOCK_MAJOR {
            Self::Mtd(minor(meta.rdev()))
        } else if kind.is_block_device() || kind.is_char_device() {
            Self::Device(meta.rdev())
        } else {
            Self::File(meta.dev(), meta.ino())
        }
    }
}

/// The number of all mtdblockN.
const MTD_BLOCK_MAJOR: u32 = 31;
