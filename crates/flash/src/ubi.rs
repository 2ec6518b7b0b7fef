use core::ops::Range;
use std::fs::{Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use alloc::borrow::ToOwned as _;

use rustix::io::Errno;

use crate::linux::UbiVolume;
use crate::{Flash, FlashError, FlashErrorKind, Geometry, MtdOperation};

/// Flash in a dynamic volume of UBI, `/dev/ubiX_Y`: the way to put a slot on NAND, whose bad blocks
/// and worn ones UBI replaces behind the volume's back.
///
/// The write unit is a page of the chip, the erase unit a logical erase block, which is a little
/// smaller than the chip's. Writes go straight into the volume; an update of the whole volume, as
/// `ubiupdatevol` does it, would erase all of it first. The kernel lets one process write a volume,
/// a file system on it included. A boot loader that knows UBI, or the kernel's `ubiblock`, reads
/// such a slot.
///
/// # What reaches the medium when
///
/// UBI has no page cache: `write` and `erase` return when the chip has done it, and `read_stored`
/// is `read`. A page that the chip cannot correct, as a power cut in its write leaves it, reads
/// as zeros and is no error: [`Flash`] calls that garbage, and a hash tells.
///
/// Needs sysfs at `/sys`.
#[derive(Debug)]
pub struct UbiFlash {
    path: PathBuf,
    volume: UbiVolume,
    geometry: Geometry,
    /// A sync failed: nothing that follows can be trusted.
    failed: bool,
}

impl UbiFlash {
    /// Opens a volume, alone.
    ///
    /// # Errors
    ///
    /// The path is no volume, the volume is static, another process or a file system writes it, or
    /// it cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, UbiFlashError> {
        let path = path.as_ref();
        Self::open_with(path, OpenOptions::new().read(true).write(true), |volume| {
            volume.allow_direct_writes()
        })
    }

    /// Opens a volume for a look: nothing is written, so this works on what is in use, and what is
    /// being written may be seen half written.
    ///
    /// # Errors
    ///
    /// The path is no volume, the volume is static, or it cannot be opened.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, UbiFlashError> {
        Self::open_with(path.as_ref(), OpenOptions::new().read(true), |_| Ok(()))
    }

    /// Returns whether this is the metadata of a UBI volume.
    #[must_use]
    pub fn is_volume(metadata: &Metadata) -> bool {
        UbiVolume::folder_of(metadata).is_some()
    }

    /// Returns the path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open_with(
        path: &Path,
        options: &OpenOptions,
        prepare: impl FnOnce(&UbiVolume) -> io::Result<()>,
    ) -> Result<Self, UbiFlashError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::ResourceBusy => UbiFlashError::Busy {
                path: path.to_owned(),
            },
            _ => UbiFlashError::Open {
                path: path.to_owned(),
                source,
            },
        };
        let not_ubi = || UbiFlashError::NotUbi {
            path: path.to_owned(),
        };
        // Before it is opened: that alone does something to other devices.
        let metadata = std::fs::metadata(path).map_err(failed)?;
        let folder = UbiVolume::folder_of(&metadata).ok_or_else(not_ubi)?;
        if attribute(&folder, "type").map_err(failed)? != "dynamic" {
            return Err(UbiFlashError::Static {
                path: path.to_owned(),
            });
        }
        let geometry = geometry(&folder).map_err(failed)?;
        let file = options.open(path).map_err(failed)?;
        let volume = UbiVolume::new(file).map_err(failed)?.ok_or_else(not_ubi)?;
        prepare(&volume).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            volume,
            geometry,
            failed: false,
        })
    }

    /// Reads what can be read, in pages, and zeros where it cannot.
    fn read_pages(&self, mut offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
        let page = u64::from(self.geometry.write_size);
        while !buf.is_empty() {
            let left = usize::try_from(page - offset % page).unwrap_or(usize::MAX);
            let (piece, rest) = buf.split_at_mut(left.min(buf.len()));
            match self.volume.file().read_exact_at(piece, offset) {
                Err(error) if is_uncorrectable(&error) => piece.fill(0),
                read => read?,
            }
            offset += length(piece);
            buf = rest;
        }
        Ok(())
    }

    fn usable(&self) -> Result<(), UbiFlashError> {
        if self.failed {
            return Err(UbiFlashError::SyncFailed {
                path: self.path.clone(),
            });
        }
        Ok(())
    }

    fn refused(&self, kind: FlashErrorKind, offset: u64, len: u64) -> UbiFlashError {
        let path = self.path.clone();
        let Geometry {
            size,
            write_size,
            erase_size,
        } = self.geometry;
        match kind {
            FlashErrorKind::NotAligned => UbiFlashError::NotAligned {
                path,
                offset,
                len,
                write_size,
                erase_size,
            },
            FlashErrorKind::OutOfBounds | FlashErrorKind::Full | FlashErrorKind::Io => {
                UbiFlashError::OutOfBounds {
                    path,
                    offset,
                    len,
                    size,
                }
            }
        }
    }

    fn io(&self, operation: MtdOperation, offset: u64, source: io::Error) -> UbiFlashError {
        UbiFlashError::Io {
            path: self.path.clone(),
            operation,
            offset,
            source,
        }
    }
}

impl Flash for UbiFlash {
    type Error = UbiFlashError;

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        self.geometry
            .check_read(offset, buf.len())
            .map_err(|kind| self.refused(kind, offset, length(buf)))?;
        let read = match self.volume.file().read_exact_at(buf, offset) {
            Err(error) if is_uncorrectable(&error) => self.read_pages(offset, buf),
            read => read,
        };
        read.map_err(|source| self.io(MtdOperation::Read, offset, source))
    }

    fn read_stored(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        self.usable()?;
        self.read(offset, buf)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Self::Error> {
        self.usable()?;
        self.geometry
            .check_write(offset, data.len())
            .map_err(|kind| self.refused(kind, offset, length(data)))?;
        self.volume
            .file()
            .write_all_at(data, offset)
            .map_err(|source| self.io(MtdOperation::Write, offset, source))
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), Self::Error> {
        self.usable()?;
        self.geometry.check_erase(&range).map_err(|kind| {
            self.refused(kind, range.start, range.end.saturating_sub(range.start))
        })?;
        let len = u64::from(self.geometry.erase_size);
        for number in range.start / len..range.end / len {
            let erased = i32::try_from(number)
                .map_err(|_| io::ErrorKind::InvalidInput.into())
                .and_then(|number| self.volume.erase(number));
            erased.map_err(|source| self.io(MtdOperation::Erase, number * len, source))?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Self::Error> {
        self.usable()?;
        self.volume.file().sync_all().map_err(|source| {
            self.failed = true;
            self.io(MtdOperation::Sync, 0, source)
        })
    }
}

/// A UBI volume failed as flash.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum UbiFlashError {
    /// It cannot be opened, or does not say what it is.
    #[error("cannot open {} as flash", path.display())]
    Open {
        /// The volume.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process or a file system writes it: stop or unmount that first.
    #[error("{} is in use by another process or mounted", path.display())]
    Busy {
        /// The volume.
        path: PathBuf,
    },
    /// The path is something else.
    #[error("{} is no UBI volume", path.display())]
    NotUbi {
        /// The path.
        path: PathBuf,
    },
    /// A static volume can be replaced as a whole only: make a dynamic one.
    #[error("{} is a static volume, which can only be replaced as a whole: make it dynamic", path.display())]
    Static {
        /// The volume.
        path: PathBuf,
    },
    /// The caller's mistake.
    #[error(
        "{}: {len} bytes at {offset} are not aligned to {write_size} (write) or {erase_size} (erase)",
        path.display()
    )]
    NotAligned {
        /// The volume.
        path: PathBuf,
        /// Where the range begins.
        offset: u64,
        /// How long it is.
        len: u64,
        /// Bytes in a write unit.
        write_size: u32,
        /// Bytes in an erase block.
        erase_size: u32,
    },
    /// The caller's mistake.
    #[error("{}: {len} bytes at {offset} lie beyond the size of {size}", path.display())]
    OutOfBounds {
        /// The volume.
        path: PathBuf,
        /// Where the range begins.
        offset: u64,
        /// How long it is.
        len: u64,
        /// The size of the flash.
        size: u64,
    },
    /// UBI reports an error; it may have made the device read-only, which the kernel's log tells.
    #[error("{operation} {} at {offset}", path.display())]
    Io {
        /// The volume.
        path: PathBuf,
        /// What was being done.
        operation: MtdOperation,
        /// Where.
        offset: u64,
        /// What the system says.
        source: io::Error,
    },
    /// A sync failed before: what the medium holds is unknown. Open the flash anew and look.
    #[error("{} failed to sync before; open it anew", path.display())]
    SyncFailed {
        /// The volume.
        path: PathBuf,
    },
}

impl FlashError for UbiFlashError {
    fn kind(&self) -> FlashErrorKind {
        match self {
            Self::NotAligned { .. } => FlashErrorKind::NotAligned,
            Self::OutOfBounds { .. } => FlashErrorKind::OutOfBounds,
            Self::Open { .. }
            | Self::Busy { .. }
            | Self::NotUbi { .. }
            | Self::Static { .. }
            | Self::Io { .. }
            | Self::SyncFailed { .. } => FlashErrorKind::Io,
        }
    }
}

/// From the folder of a volume in sysfs; its parent is that of the UBI device.
fn geometry(folder: &Path) -> io::Result<Geometry> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let device = folder.parent().ok_or_else(invalid)?;
    let number = |folder: &Path, name: &str| -> io::Result<u32> {
        attribute(folder, name)?.parse().map_err(|_| invalid())
    };
    let erase_size = number(folder, "usable_eb_size")?;
    let blocks = number(folder, "reserved_ebs")?;
    let write_size = number(device, "min_io_size")?;
    if blocks == 0 || erase_size == 0 || write_size == 0 || !erase_size.is_multiple_of(write_size) {
        return Err(invalid());
    }
    Ok(Geometry {
        size: u64::from(blocks) * u64::from(erase_size),
        write_size,
        erase_size,
    })
}

fn attribute(folder: &Path, name: &str) -> io::Result<alloc::string::String> {
    let text = std::fs::read_to_string(folder.join(name))?;
    Ok(text.trim().to_owned())
}

/// More bits flipped than the chip's code corrects.
fn is_uncorrectable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::BADMSG.raw_os_error())
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("no slice is longer than a u64 counts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_are_those_that_sysfs_tells() {
        let device = tempfile::tempdir().unwrap();
        let volume = device.path().join("ubi0_3");
        std::fs::create_dir(&volume).unwrap();
        let tell = |name: &str, text: &str| std::fs::write(device.path().join(name), text).unwrap();
        tell("min_io_size", "2048\n");
        tell("ubi0_3/usable_eb_size", "126976\n");
        tell("ubi0_3/reserved_ebs", "20\n");
        let expected = Geometry {
            size: 20 * 126_976,
            write_size: 2048,
            erase_size: 126_976,
        };
        assert_eq!(geometry(&volume).unwrap(), expected);
        tell("min_io_size", "4096\n");
        tell("ubi0_3/usable_eb_size", "6144\n");
        assert!(geometry(&volume).is_err(), "no whole pages");
    }

    #[test]
    fn other_devices_and_files_are_no_volumes_and_are_not_opened() {
        for path in ["/dev/null", "/proc/self/exe", "/"] {
            let error = UbiFlash::open(path).unwrap_err();
            assert!(matches!(error, UbiFlashError::NotUbi { .. }), "{error}");
        }
        let error = UbiFlash::open_read_only("/nowhere/ubi0_0").unwrap_err();
        assert!(matches!(error, UbiFlashError::Open { .. }), "{error}");
    }
}
