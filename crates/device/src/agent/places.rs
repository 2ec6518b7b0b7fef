//! Whether the configured slots and the boot record are really different places: a slot under two
//! names would let an install overwrite what runs.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rekindle_flash::MtdFlash;
use rustix::fs::{major, minor};

use super::board::BoardError;
use crate::config::Config;

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
    let mut seen: Vec<(Place, &Path)> = Vec::new();
    for path in slots.chain([&config.boot.path]) {
        let place = Place::of(path);
        if let Some((_, first)) = seen.iter().find(|(known, _)| *known == place) {
            return Err(BoardError::SamePlace {
                first: first.to_path_buf(),
                second: path.clone(),
            });
        }
        seen.push((place, path));
    }
    Ok(())
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
