use core::ops::Range;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use alloc::borrow::ToOwned as _;
use alloc::format;

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::linux::{MtdDevice, MtdInfo};
use crate::{Flash, FlashError, FlashErrorKind, Geometry};

/// Flash behind a character device of the Linux MTD layer, `/dev/mtdN`: serial and parallel NOR,
/// data flash, and RAM that an MTD driver offers. A partition of MTD is such a device.
///
/// The units are those of the driver, and a write unit is written once after each erase. The
/// device is locked (`flock`) while this lives, and so is the block device of the same number, if
/// it lies beside it (`/dev/mtdblockN`): what is mounted from there is not written.
///
/// NAND is refused. Its blocks go bad, and somebody has to own that: give it to UBI, and a volume
/// of that to [`UbiFlash`](crate::UbiFlash).
///
/// # What reaches the medium when
///
/// MTD has no page cache: `write` and `erase` return when the chip has done it, and `read_stored`
/// is `read`. These devices refuse `fsync`; the kernel has a driver write out what it holds back
/// when a writer closes the device, so that is what `sync` does, beside the one that
/// stays open. A driver cannot report an error then: only the read-back tells.
///
/// Blocks that the chip reports as locked are unlocked before they are erased.
#[derive(Debug)]
pub struct MtdFlash {
    path: PathBuf,
    device: MtdDevice,
    geometry: Geometry,
    /// While this is open, nobody mounts the block device.
    _block_device: Option<File>,
    /// A sync failed: nothing that follows can be trusted.
    failed: bool,
}

impl MtdFlash {
    /// Opens an MTD character device, alone.
    ///
    /// # Errors
    ///
    /// The path is no such device, it is NAND or read-only, another process uses it, its block
    /// device is mounted, or it cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, MtdFlashError> {
        let path = path.as_ref();
        let look = Self::open_read_only(path)?;
        let failed = |source| MtdFlashError::Open {
            path: path.to_owned(),
            source,
        };
        let device = writable(path)?;
        let busy = || MtdFlashError::Busy {
            path: path.to_owned(),
        };
        match flock(device.file(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(busy()),
            Err(errno) => return Err(failed(errno.into())),
        }
        let block_device = path.with_file_name(format!("mtdblock{}", device.number()));
        // Without O_CREAT, O_EXCL on a block device means: not while it is mounted.
        let held = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::EXCL.bits().cast_signed())
            .open(block_device);
        let held = match held {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Err(busy()),
            // The kernel has none for this device, and then nothing is mounted from it.
            Err(_) => None,
        };
        Ok(Self {
            device,
            _block_device: held,
            ..look
        })
    }

    /// Opens an MTD character device for a look: nothing is locked or written, so this works on
    /// what is in use, and what is being written may be seen half written.
    ///
    /// # Errors
    ///
    /// The path is no such device, it is NAND, or it cannot be opened.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, MtdFlashError> {
        let path = path.as_ref();
        let failed = |source| MtdFlashError::Open {
            path: path.to_owned(),
            source,
        };
        // Before it is opened: that alone does something to other devices.
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if Self::number_in(&metadata).is_none() {
            return Err(not_mtd(path));
        }
        let file = File::open(path).map_err(failed)?;
        let device = MtdDevice::new(file)
            .map_err(failed)?
            .ok_or_else(|| not_mtd(path))?;
        let info = device.info().map_err(failed)?;
        // Of the size, the driver's answer has the lower 32 bits only.
        let mut file = device.file();
        let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
        let geometry = geometry(path, &info, size)?;
        Ok(Self {
            path: path.to_owned(),
            device,
            geometry,
            _block_device: None,
            failed: false,
        })
    }

    /// Opens an MTD character device for one part of which the caller is responsible: nothing is
    /// locked. For an environment of the boot loader, two copies of which may lie on one device.
    ///
    /// # Errors
    ///
    /// The path is no such device, it is NAND or read-only, or it cannot be opened.
    pub fn open_shared(path: impl AsRef<Path>) -> Result<Self, MtdFlashError> {
        let path = path.as_ref();
        let look = Self::open_read_only(path)?;
        Ok(Self {
            device: writable(path)?,
            ..look
        })
    }

    /// Returns N for the metadata of the MTD character device N, `/dev/mtdN` or `/dev/mtdNro`.
    #[must_use]
    pub fn number_in(metadata: &Metadata) -> Option<u32> {
        MtdDevice::number_in(metadata)
    }

    /// Returns the path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn unlock(&self, block: u64) -> Result<(), MtdFlashError> {
        // The ioctls reach no further, and neither does any flash that has locks.
        let Ok(start) = u32::try_from(block) else {
            return Ok(());
        };
        let len = self.geometry.erase_size;
        // A driver without locks answers with an error.
        if matches!(self.device.is_locked(start, len), Ok(true)) {
            self.device
                .unlock(start, len)
                .map_err(|source| self.io(MtdOperation::Unlock, block, source))?;
        }
        Ok(())
    }

    fn usable(&self) -> Result<(), MtdFlashError> {
        if self.failed {
            return Err(MtdFlashError::SyncFailed {
                path: self.path.clone(),
            });
        }
        Ok(())
    }

    fn refused(&self, kind: FlashErrorKind, offset: u64, len: u64) -> MtdFlashError {
        let path = self.path.clone();
        let Geometry {
            size,
            write_size,
            erase_size,
        } = self.geometry;
        match kind {
            FlashErrorKind::NotAligned => MtdFlashError::NotAligned {
                path,
                offset,
                len,
                write_size,
                erase_size,
            },
            FlashErrorKind::OutOfBounds | FlashErrorKind::Full | FlashErrorKind::Io => {
                MtdFlashError::OutOfBounds {
                    path,
                    offset,
                    len,
                    size,
                }
            }
        }
    }

    fn io(&self, operation: MtdOperation, offset: u64, source: io::Error) -> MtdFlashError {
        MtdFlashError::Io {
            path: self.path.clone(),
            operation,
            offset,
            source,
        }
    }
}

impl Flash for MtdFlash {
    type Error = MtdFlashError;

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        self.geometry
            .check_read(offset, buf.len())
            .map_err(|kind| self.refused(kind, offset, length(buf)))?;
        self.device
            .file()
            .read_exact_at(buf, offset)
            .map_err(|source| self.io(MtdOperation::Read, offset, source))
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
        self.device
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
        if len == 0 {
            return Ok(());
        }
        let mut block = range.start;
        while block < range.end {
            self.unlock(block)?;
            self.device
                .erase(block, len)
                .map_err(|source| self.io(MtdOperation::Erase, block, source))?;
            block += len;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Self::Error> {
        self.usable()?;
        let writer = OpenOptions::new().write(true).open(&self.path);
        writer.map(drop).map_err(|source| {
            self.failed = true;
            self.io(MtdOperation::Sync, 0, source)
        })
    }
}

/// An MTD device failed as flash.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum MtdFlashError {
    /// It cannot be opened, or does not say what it is.
    #[error("cannot open {} as flash", path.display())]
    Open {
        /// The device.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process writes it, or its block device is mounted: stop or unmount that first.
    #[error("{} is in use by another process, or its block device is mounted", path.display())]
    Busy {
        /// The device.
        path: PathBuf,
    },
    /// The path is something else.
    #[error("{} is no MTD character device", path.display())]
    NotMtd {
        /// The path.
        path: PathBuf,
    },
    /// It may be read and not written: it is the name with `ro`, or a partition that is marked
    /// read-only or does not begin and end on erase blocks, or this is not root.
    #[error(
        "{} may not be written: use the device without `ro`, a partition on whole erase blocks that is not marked read-only, and root",
        path.display()
    )]
    ReadOnly {
        /// The device.
        path: PathBuf,
    },
    /// It is NAND, whose blocks go bad: have UBI make a dynamic volume on it, and use that.
    #[error(
        "{} is NAND, whose bad blocks UBI has to own: use a dynamic volume of UBI on it, /dev/ubiX_Y",
        path.display()
    )]
    Nand {
        /// The device.
        path: PathBuf,
    },
    /// It is no kind of memory that can hold a slot, or has impossible units.
    #[error(
        "{} cannot be used as flash: MTD type {kind}, {size} bytes in units of {write_size} (write) and {erase_size} (erase)",
        path.display()
    )]
    Unusable {
        /// The device.
        path: PathBuf,
        /// Its type, a number of `mtd/mtd-abi.h`.
        kind: u8,
        /// Its size.
        size: u64,
        /// Bytes in a write unit.
        write_size: u32,
        /// Bytes in an erase block.
        erase_size: u32,
    },
    /// The caller's mistake.
    #[error(
        "{}: {len} bytes at {offset} are not aligned to {write_size} (write) or {erase_size} (erase)",
        path.display()
    )]
    NotAligned {
        /// The device.
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
        /// The device.
        path: PathBuf,
        /// Where the range begins.
        offset: u64,
        /// How long it is.
        len: u64,
        /// The size of the flash.
        size: u64,
    },
    /// The driver reports an error.
    #[error("{operation} {} at {offset}", path.display())]
    Io {
        /// The device.
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
        /// The device.
        path: PathBuf,
    },
}

impl FlashError for MtdFlashError {
    fn kind(&self) -> FlashErrorKind {
        match self {
            Self::NotAligned { .. } => FlashErrorKind::NotAligned,
            Self::OutOfBounds { .. } => FlashErrorKind::OutOfBounds,
            Self::Open { .. }
            | Self::Busy { .. }
            | Self::NotMtd { .. }
            | Self::ReadOnly { .. }
            | Self::Nand { .. }
            | Self::Unusable { .. }
            | Self::Io { .. }
            | Self::SyncFailed { .. } => FlashErrorKind::Io,
        }
    }
}

/// What an [`MtdFlash`] or [`UbiFlash`](crate::UbiFlash) was doing when the system reported an error.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MtdOperation {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Unlocking a block that was about to be erased.
    Unlock,
    /// Erasing a block.
    Erase,
    /// Having the driver write out what it holds back.
    Sync,
}

impl core::fmt::Display for MtdOperation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Read => "cannot read",
            Self::Write => "cannot write",
            Self::Unlock => "cannot unlock",
            Self::Erase => "cannot erase",
            Self::Sync => "cannot sync",
        })
    }
}

fn writable(path: &Path) -> Result<MtdDevice, MtdFlashError> {
    let failed = |source| MtdFlashError::Open {
        path: path.to_owned(),
        source,
    };
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(MtdFlashError::ReadOnly {
                path: path.to_owned(),
            });
        }
        Err(error) => return Err(failed(error)),
    };
    MtdDevice::new(file)
        .map_err(failed)?
        .ok_or_else(|| not_mtd(path))
}

fn not_mtd(path: &Path) -> MtdFlashError {
    MtdFlashError::NotMtd {
        path: path.to_owned(),
    }
}

fn geometry(path: &Path, info: &MtdInfo, size: u64) -> Result<Geometry, MtdFlashError> {
    let MtdInfo {
        kind,
        flags,
        erase_size,
        write_size,
    } = *info;
    if kind == MTD_NANDFLASH || kind == MTD_MLCNANDFLASH {
        return Err(MtdFlashError::Nand {
            path: path.to_owned(),
        });
    }
    // MRAM behind a serial NOR driver refuses to erase. RAM says that it need not be erased, and
    // lets itself be.
    let erases = kind != MTD_NORFLASH || flags & MTD_NO_ERASE == 0;
    let geometry = Geometry {
        size,
        write_size,
        erase_size: if erases { erase_size } else { 0 },
    };
    let known = matches!(kind, MTD_RAM | MTD_ROM | MTD_NORFLASH | MTD_DATAFLASH);
    if !known || size == 0 || write_size == 0 || !geometry.erase_size.is_multiple_of(write_size) {
        return Err(MtdFlashError::Unusable {
            path: path.to_owned(),
            kind,
            size,
            write_size,
            erase_size,
        });
    }
    Ok(geometry)
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("no slice is longer than a u64 counts")
}

// Types and flags of `mtd/mtd-abi.h`.
const MTD_RAM: u8 = 1;
const MTD_ROM: u8 = 2;
const MTD_NORFLASH: u8 = 3;
const MTD_NANDFLASH: u8 = 4;
const MTD_DATAFLASH: u8 = 6;
const MTD_MLCNANDFLASH: u8 = 8;
const MTD_NO_ERASE: u32 = 0x1000;

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    const NOR: MtdInfo = MtdInfo {
        kind: MTD_NORFLASH,
        flags: 0xc00,
        erase_size: 65536,
        write_size: 1,
    };

    fn of(info: &MtdInfo) -> Result<Geometry, MtdFlashError> {
        geometry(Path::new("/dev/mtd3"), info, 1 << 20)
    }

    #[test]
    fn the_units_are_those_of_the_driver() {
        let expected = Geometry {
            size: 1 << 20,
            write_size: 1,
            erase_size: 65536,
        };
        assert_eq!(of(&NOR).unwrap(), expected);
        let ram = MtdInfo {
            kind: MTD_RAM,
            flags: 0x1c00,
            ..NOR
        };
        assert_eq!(of(&ram).unwrap(), expected, "RAM takes an erase");
        let mram = MtdInfo {
            flags: 0x1c00,
            ..NOR
        };
        assert_eq!(of(&mram).unwrap().erase_size, 0, "and MRAM none");
        let data_flash = MtdInfo {
            kind: MTD_DATAFLASH,
            flags: 0x400,
            erase_size: 1056,
            write_size: 1056,
        };
        assert_eq!(of(&data_flash).unwrap().write_size, 1056);
    }

    #[test]
    fn nand_is_refused_and_told_who_owns_it() {
        for kind in [MTD_NANDFLASH, MTD_MLCNANDFLASH] {
            let nand = MtdInfo {
                kind,
                write_size: 2048,
                ..NOR
            };
            let error = of(&nand).unwrap_err();
            assert_eq!(
                error.to_string(),
                "/dev/mtd3 is NAND, whose bad blocks UBI has to own: use a dynamic volume of UBI on it, /dev/ubiX_Y"
            );
        }
    }

    #[test]
    fn what_cannot_hold_a_slot_is_refused_with_what_the_driver_said() {
        let absent = MtdInfo { kind: 0, ..NOR };
        let unwritable = MtdInfo {
            write_size: 0,
            ..NOR
        };
        let crooked = MtdInfo {
            write_size: 1000,
            ..NOR
        };
        for info in [absent, unwritable, crooked] {
            let error = of(&info).unwrap_err();
            assert!(matches!(error, MtdFlashError::Unusable { .. }), "{error}");
        }
    }

    #[test]
    fn other_devices_and_files_are_no_mtd_and_are_not_opened() {
        for path in ["/dev/null", "/proc/self/exe", "/"] {
            let error = MtdFlash::open(path).unwrap_err();
            assert!(matches!(error, MtdFlashError::NotMtd { .. }), "{error}");
        }
        let error = MtdFlash::open("/nowhere/mtd0").unwrap_err();
        assert!(matches!(error, MtdFlashError::Open { .. }), "{error}");
    }
}
