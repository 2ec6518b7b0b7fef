use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use rekindle_flash::{Flash, FlashError, FlashErrorKind, Geometry};

/// NOR flash, here a piece of memory: whole blocks are erased to ones, and a write clears bits.
pub(crate) struct Nor {
    bytes: Vec<u8>,
}

const GEOMETRY: Geometry = Geometry {
    size: 512 << 10,
    write_size: 16,
    erase_size: 4096,
};

/// What the driver refuses.
#[derive(Debug)]
pub(crate) struct NorError(FlashErrorKind);

impl Nor {
    pub(crate) fn erased() -> Self {
        let size = usize::try_from(GEOMETRY.size).expect("the flash is in the address space");
        Self {
            bytes: vec![0xff; size],
        }
    }

    fn range(offset: u64, len: usize) -> Result<Range<usize>, NorError> {
        let start = usize::try_from(offset).map_err(|_| NorError(FlashErrorKind::OutOfBounds))?;
        Ok(start..start + len)
    }
}

impl Flash for Nor {
    type Error = NorError;

    fn geometry(&self) -> Geometry {
        GEOMETRY
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), NorError> {
        GEOMETRY.check_read(offset, buf.len()).map_err(NorError)?;
        let range = Self::range(offset, buf.len())?;
        buf.copy_from_slice(&self.bytes[range]);
        Ok(())
    }

    fn read_stored(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), NorError> {
        self.read(offset, buf)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), NorError> {
        GEOMETRY.check_write(offset, data.len()).map_err(NorError)?;
        let range = Self::range(offset, data.len())?;
        for (cell, byte) in self.bytes[range].iter_mut().zip(data) {
            *cell &= byte;
        }
        Ok(())
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), NorError> {
        GEOMETRY.check_erase(&range).map_err(NorError)?;
        let len = usize::try_from(range.end - range.start)
            .map_err(|_| NorError(FlashErrorKind::OutOfBounds))?;
        let range = Self::range(range.start, len)?;
        self.bytes[range].fill(0xff);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), NorError> {
        Ok(())
    }
}

impl fmt::Display for NorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            FlashErrorKind::NotAligned => "not aligned to the flash",
            FlashErrorKind::OutOfBounds => "beyond the end of the flash",
            _ => "the flash failed",
        })
    }
}

impl core::error::Error for NorError {}

impl FlashError for NorError {
    fn kind(&self) -> FlashErrorKind {
        self.0
    }
}
