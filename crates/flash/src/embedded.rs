use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use embedded_storage::nor_flash::{NorFlash, NorFlashError, NorFlashErrorKind};

use crate::{Flash, FlashError, FlashErrorKind, Geometry};

/// Any NOR flash driver of the `embedded-storage` traits as [`Flash`].
///
/// The driver's `WRITE_SIZE` and `ERASE_SIZE` are the units; reads that do not lie on its
/// `READ_SIZE` go through a buffer of one such unit. What the driver reports done is taken for
/// durable, as its traits have it, so `sync` has nothing to do. Nothing is programmed twice between
/// two erases, whether the driver would allow that or not, and nothing is tried again.
///
/// The traits have 32-bit offsets: of a larger chip only the erase blocks below 4 GiB are used.
/// The size is rounded down to whole erase blocks.
#[derive(Debug)]
pub struct EmbeddedNorFlash<N> {
    driver: N,
    geometry: Geometry,
    /// One read unit.
    bounce: Vec<u8>,
}

impl<N: NorFlash> EmbeddedNorFlash<N> {
    /// Takes a driver.
    ///
    /// # Errors
    ///
    /// Its units make no sense: one is zero or beyond 32 bits, the erase size is no multiple of the
    /// others, or the chip holds no whole erase block.
    pub fn new(driver: N) -> Result<Self, EmbeddedNorUnitsError> {
        let error = EmbeddedNorUnitsError {
            capacity: driver.capacity(),
            read_size: N::READ_SIZE,
            write_size: N::WRITE_SIZE,
            erase_size: N::ERASE_SIZE,
        };
        let unit = |size: usize| u32::try_from(size).ok().filter(|size| *size > 0);
        let (Some(read_size), Some(write_size), Some(erase_size)) =
            (unit(N::READ_SIZE), unit(N::WRITE_SIZE), unit(N::ERASE_SIZE))
        else {
            return Err(error);
        };
        // The end of the last block must be an offset as well.
        let capacity = u32::try_from(driver.capacity()).unwrap_or(u32::MAX);
        let size = capacity / erase_size * erase_size;
        if size == 0
            || !erase_size.is_multiple_of(read_size)
            || !erase_size.is_multiple_of(write_size)
        {
            return Err(error);
        }
        Ok(Self {
            driver,
            geometry: Geometry {
                size: size.into(),
                write_size,
                erase_size,
            },
            bounce: vec![0; N::READ_SIZE],
        })
    }

    /// Returns the driver.
    #[must_use]
    pub fn into_inner(self) -> N {
        self.driver
    }

    /// Reads through the buffer what lies in one read unit; returns how much.
    fn read_part(&mut self, offset: u32, buf: &mut [u8]) -> Result<usize, EmbeddedNorError> {
        let unit = self.bounce.len();
        let skip = index(offset) % unit;
        let start = offset - narrow(skip);
        let result = self.driver.read(start, &mut self.bounce);
        result.map_err(|error| failed(NorOperation::Read, start, unit, &error))?;
        let len = buf.len().min(unit - skip);
        buf[..len].copy_from_slice(&self.bounce[skip..skip + len]);
        Ok(len)
    }
}

impl<N: NorFlash> Flash for EmbeddedNorFlash<N> {
    type Error = EmbeddedNorError;

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        self.geometry
            .check_read(offset, buf.len())
            .map_err(|kind| refused(kind, offset, buf.len()))?;
        let unit = self.bounce.len();
        let mut offset = offset_of(offset);
        let mut rest = buf;
        while !rest.is_empty() {
            let whole = rest.len() / unit * unit;
            let len = if index(offset).is_multiple_of(unit) && whole > 0 {
                let result = self.driver.read(offset, &mut rest[..whole]);
                result.map_err(|error| failed(NorOperation::Read, offset, whole, &error))?;
                whole
            } else {
                self.read_part(offset, rest)?
            };
            offset += narrow(len);
            rest = &mut rest[len..];
        }
        Ok(())
    }

    fn read_stored(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        self.read(offset, buf)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Self::Error> {
        self.geometry
            .check_write(offset, data.len())
            .map_err(|kind| refused(kind, offset, data.len()))?;
        if data.is_empty() {
            return Ok(());
        }
        let offset = offset_of(offset);
        let result = self.driver.write(offset, data);
        result.map_err(|error| failed(NorOperation::Write, offset, data.len(), &error))
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), Self::Error> {
        let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        self.geometry
            .check_erase(&range)
            .map_err(|kind| refused(kind, range.start, len))?;
        if range.is_empty() {
            return Ok(());
        }
        let (from, to) = (offset_of(range.start), offset_of(range.end));
        let result = self.driver.erase(from, to);
        result.map_err(|error| failed(NorOperation::Erase, from, len, &error))
    }

    fn sync(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// The units of a driver make no sense, or do not fit 32 bits.
#[expect(clippy::exhaustive_structs, reason = "what the traits say, no more")]
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "a NOR flash of {capacity} bytes in units of {read_size} (read), {write_size} (write) and {erase_size} (erase) cannot be used"
)]
pub struct EmbeddedNorUnitsError {
    /// What the driver says of the chip's size.
    pub capacity: usize,
    /// The driver's constant.
    pub read_size: usize,
    /// The driver's constant.
    pub write_size: usize,
    /// The driver's constant.
    pub erase_size: usize,
}

/// NOR flash refuses, or its driver failed.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EmbeddedNorError {
    /// The caller's mistake.
    #[error("{len} bytes at {offset:#x} are not aligned to the units of the flash")]
    NotAligned {
        /// Where the access begins.
        offset: u64,
        /// How long it is.
        len: usize,
    },
    /// The caller's mistake.
    #[error("{len} bytes at {offset:#x} reach beyond the flash")]
    OutOfBounds {
        /// Where the access begins.
        offset: u64,
        /// How long it is.
        len: usize,
    },
    /// The driver reports an error.
    #[error("{operation} {len} bytes at {offset:#x}: {detail}")]
    Driver {
        /// What was tried.
        operation: NorOperation,
        /// Where it began.
        offset: u32,
        /// How many bytes it was about.
        len: usize,
        /// What kind the driver calls it.
        kind: FlashErrorKind,
        /// The driver's error, for people.
        detail: String,
    },
}

impl FlashError for EmbeddedNorError {
    fn kind(&self) -> FlashErrorKind {
        match self {
            Self::NotAligned { .. } => FlashErrorKind::NotAligned,
            Self::OutOfBounds { .. } => FlashErrorKind::OutOfBounds,
            Self::Driver { kind, .. } => *kind,
        }
    }
}

/// What a NOR flash driver was asked for.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NorOperation {
    /// Reading.
    Read,
    /// Programming.
    Write,
    /// Erasing.
    Erase,
}

impl core::fmt::Display for NorOperation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Read => "cannot read",
            Self::Write => "cannot write",
            Self::Erase => "cannot erase",
        })
    }
}

fn failed(
    operation: NorOperation,
    offset: u32,
    len: usize,
    error: &impl NorFlashError,
) -> EmbeddedNorError {
    EmbeddedNorError::Driver {
        operation,
        offset,
        len,
        kind: match error.kind() {
            NorFlashErrorKind::NotAligned => FlashErrorKind::NotAligned,
            NorFlashErrorKind::OutOfBounds => FlashErrorKind::OutOfBounds,
            _ => FlashErrorKind::Io,
        },
        detail: format!("{error:?}"),
    }
}

fn refused(kind: FlashErrorKind, offset: u64, len: usize) -> EmbeddedNorError {
    match kind {
        FlashErrorKind::NotAligned => EmbeddedNorError::NotAligned { offset, len },
        FlashErrorKind::OutOfBounds | FlashErrorKind::Full | FlashErrorKind::Io => {
            EmbeddedNorError::OutOfBounds { offset, len }
        }
    }
}

fn offset_of(offset: u64) -> u32 {
    u32::try_from(offset).expect("the size was cut to 32 bits")
}

fn narrow(len: usize) -> u32 {
    u32::try_from(len).expect("a range within the flash is shorter than 32 bits count")
}

fn index(offset: u32) -> usize {
    usize::try_from(offset).expect("drivers take offsets of 32 bits as lengths of their memory")
}
