//! The flash of a slot: whatever its configured path leads to.

use core::ops::Range;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use rekindle_flash::{
    FileFlash, FileFlashError, Flash, FlashError, FlashErrorKind, Geometry, MtdFlash,
    MtdFlashError, UbiFlash, UbiFlashError,
};

/// A slot of this device.
#[derive(Debug)]
pub(crate) enum SlotFlash {
    /// In a file or on a block device.
    File(FileFlash),
    /// On an MTD character device.
    Mtd(MtdFlash),
    /// In a UBI volume.
    Ubi(UbiFlash),
}

impl SlotFlash {
    /// Opens a slot alone: nobody else writes it meanwhile. `size` is that of a file; a device has
    /// its own.
    pub(crate) fn open(path: &Path, size: Option<u64>) -> Result<Self, SlotFlashError> {
        Ok(match (SlotKind::of(path), size) {
            (SlotKind::File, Some(size)) => Self::File(FileFlash::open(path, size)?),
            (SlotKind::File, None) | (SlotKind::Block, _) => {
                Self::File(FileFlash::open_block_device(path)?)
            }
            (SlotKind::Mtd, _) => Self::Mtd(MtdFlash::open(path)?),
            (SlotKind::Ubi, _) => Self::Ubi(UbiFlash::open(path)?),
        })
    }

    /// Opens a file or device that exists, for the part of it that an environment of the boot loader
    /// takes up: nothing is locked.
    pub(crate) fn open_shared(path: &Path) -> Result<Self, SlotFlashError> {
        Ok(match SlotKind::of(path) {
            SlotKind::File | SlotKind::Block => Self::File(FileFlash::open_shared(path)?),
            SlotKind::Mtd => Self::Mtd(MtdFlash::open_shared(path)?),
            // The kernel lets nobody share it.
            SlotKind::Ubi => Self::Ubi(UbiFlash::open(path)?),
        })
    }

    /// Opens a slot for a look, which changes nothing and locks nothing.
    pub(crate) fn open_read_only(path: &Path) -> Result<Self, SlotFlashError> {
        Ok(match SlotKind::of(path) {
            SlotKind::File | SlotKind::Block => Self::File(FileFlash::open_read_only(path)?),
            SlotKind::Mtd => Self::Mtd(MtdFlash::open_read_only(path)?),
            SlotKind::Ubi => Self::Ubi(UbiFlash::open_read_only(path)?),
        })
    }
}

impl Flash for SlotFlash {
    type Error = SlotFlashError;

    fn geometry(&self) -> Geometry {
        match self {
            Self::File(flash) => flash.geometry(),
            Self::Mtd(flash) => flash.geometry(),
            Self::Ubi(flash) => flash.geometry(),
        }
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        match self {
            Self::File(flash) => Ok(flash.read(offset, buf)?),
            Self::Mtd(flash) => Ok(flash.read(offset, buf)?),
            Self::Ubi(flash) => Ok(flash.read(offset, buf)?),
        }
    }

    fn read_stored(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        match self {
            Self::File(flash) => Ok(flash.read_stored(offset, buf)?),
            Self::Mtd(flash) => Ok(flash.read_stored(offset, buf)?),
            Self::Ubi(flash) => Ok(flash.read_stored(offset, buf)?),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Self::Error> {
        match self {
            Self::File(flash) => Ok(flash.write(offset, data)?),
            Self::Mtd(flash) => Ok(flash.write(offset, data)?),
            Self::Ubi(flash) => Ok(flash.write(offset, data)?),
        }
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), Self::Error> {
        match self {
            Self::File(flash) => Ok(flash.erase(range)?),
            Self::Mtd(flash) => Ok(flash.erase(range)?),
            Self::Ubi(flash) => Ok(flash.erase(range)?),
        }
    }

    fn sync(&mut self) -> Result<(), Self::Error> {
        match self {
            Self::File(flash) => Ok(flash.sync()?),
            Self::Mtd(flash) => Ok(flash.sync()?),
            Self::Ubi(flash) => Ok(flash.sync()?),
        }
    }
}

/// The flash of a slot failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SlotFlashError {
    /// In a file or on a block device.
    #[error(transparent)]
    File(#[from] FileFlashError),
    /// On an MTD character device.
    #[error(transparent)]
    Mtd(#[from] MtdFlashError),
    /// In a UBI volume.
    #[error(transparent)]
    Ubi(#[from] UbiFlashError),
}

impl FlashError for SlotFlashError {
    fn kind(&self) -> FlashErrorKind {
        match self {
            Self::File(error) => error.kind(),
            Self::Mtd(error) => error.kind(),
            Self::Ubi(error) => error.kind(),
        }
    }
}

/// What a path leads to, links followed.
#[derive(Clone, Copy, Debug)]
enum SlotKind {
    /// A file, or nothing yet.
    File,
    Block,
    Mtd,
    Ubi,
}

impl SlotKind {
    fn of(path: &Path) -> Self {
        match std::fs::metadata(path) {
            Ok(meta) if meta.file_type().is_block_device() => Self::Block,
            Ok(meta) if MtdFlash::number_in(&meta).is_some() => Self::Mtd,
            Ok(meta) if UbiFlash::is_volume(&meta) => Self::Ubi,
            Ok(_) | Err(_) => Self::File,
        }
    }
}
