use core::ops::Range;

use crate::{Flash, FlashError, FlashErrorKind, Geometry};

/// A part of a larger [`Flash`], used as a flash of its own: offset 0 is the start of the part.
///
/// The part has the units of the whole, and its ends lie on them, so that no write or erase of
/// one part touches another. A `sync` syncs the whole flash.
///
/// Over `&mut F` it is a view for a while. Several parts that are used at the same time share the
/// flash through a [`RefCell`](core::cell::RefCell), for `&RefCell<F>` is a [`Flash`] as well:
///
/// ```
/// use core::cell::RefCell;
/// use rekindle_flash::{Flash, Geometry, Partition};
/// # use rekindle_testkit::SimFlash;
/// # let geometry = Geometry { size: 1 << 20, write_size: 4, erase_size: 4096 };
/// let chip = RefCell::new(SimFlash::new(geometry, 1));
/// let mut boot = Partition::new(&chip, 0..0x2000)?;
/// let mut slot = Partition::new(&chip, 0x2000..0x8_0000)?;
/// assert_eq!(boot.geometry().size, 0x2000);
///
/// boot.write(0, b"boot").expect("it is erased");
/// slot.write(0, b"slot").expect("it is erased");
/// let mut found = [0; 4];
/// chip.borrow_mut().read(0x2000, &mut found).expect("it is in bounds");
/// assert_eq!(&found, b"slot");
/// # Ok::<(), rekindle_flash::PartitionError>(())
/// ```
///
/// That two parts do not overlap is the caller's care.
#[derive(Clone, Debug)]
pub struct Partition<F> {
    inner: F,
    /// Within the flash, on its units.
    range: Range<u64>,
    geometry: Geometry,
}

impl<F: Flash> Partition<F> {
    /// Takes `range` of `inner`, in bytes.
    ///
    /// # Errors
    ///
    /// The range is empty, ends beyond the flash, or does not begin and end on a multiple of the
    /// erase size (the write size, where nothing is erased).
    pub fn new(inner: F, range: Range<u64>) -> Result<Self, PartitionError> {
        let Geometry {
            size,
            write_size,
            erase_size,
        } = inner.geometry();
        if range.is_empty() {
            return Err(PartitionError::Empty { range });
        }
        if range.end > size {
            return Err(PartitionError::OutOfBounds { range, size });
        }
        let unit = if erase_size == 0 {
            write_size.max(1)
        } else {
            erase_size
        };
        if !range.start.is_multiple_of(unit.into()) || !range.end.is_multiple_of(unit.into()) {
            return Err(PartitionError::NotAligned { range, unit });
        }
        let geometry = Geometry {
            size: range.end - range.start,
            write_size,
            erase_size,
        };
        Ok(Self {
            inner,
            range,
            geometry,
        })
    }

    /// Returns where in the whole flash this part lies.
    #[must_use]
    pub const fn range(&self) -> &Range<u64> {
        &self.range
    }

    /// Returns the whole flash.
    #[must_use]
    pub fn into_inner(self) -> F {
        self.inner
    }

    fn refused(
        &self,
        kind: FlashErrorKind,
        offset: u64,
        len: u64,
    ) -> PartitionFlashError<F::Error> {
        let range = self.range.clone();
        match kind {
            FlashErrorKind::NotAligned => PartitionFlashError::NotAligned { range, offset, len },
            FlashErrorKind::OutOfBounds | FlashErrorKind::Full | FlashErrorKind::Io => {
                PartitionFlashError::OutOfBounds { range, offset, len }
            }
        }
    }

    fn failed(&self, source: F::Error) -> PartitionFlashError<F::Error> {
        PartitionFlashError::Flash {
            range: self.range.clone(),
            source,
        }
    }
}

impl<F: Flash> Flash for Partition<F> {
    type Error = PartitionFlashError<F::Error>;

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        self.geometry
            .check_read(offset, buf.len())
            .map_err(|kind| self.refused(kind, offset, length(buf)))?;
        let result = self.inner.read(self.range.start + offset, buf);
        result.map_err(|source| self.failed(source))
    }

    fn read_stored(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        self.geometry
            .check_read(offset, buf.len())
            .map_err(|kind| self.refused(kind, offset, length(buf)))?;
        let result = self.inner.read_stored(self.range.start + offset, buf);
        result.map_err(|source| self.failed(source))
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Self::Error> {
        self.geometry
            .check_write(offset, data.len())
            .map_err(|kind| self.refused(kind, offset, length(data)))?;
        let result = self.inner.write(self.range.start + offset, data);
        result.map_err(|source| self.failed(source))
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), Self::Error> {
        self.geometry.check_erase(&range).map_err(|kind| {
            self.refused(kind, range.start, range.end.saturating_sub(range.start))
        })?;
        let start = self.range.start;
        let result = self.inner.erase(start + range.start..start + range.end);
        result.map_err(|source| self.failed(source))
    }

    fn sync(&mut self) -> Result<(), Self::Error> {
        let result = self.inner.sync();
        result.map_err(|source| self.failed(source))
    }
}

/// The range given for a [`Partition`] is none. Offsets are those of the whole flash.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PartitionError {
    /// It holds no byte.
    #[error("a partition at {:#x} to {:#x} is empty", range.start, range.end)]
    Empty {
        /// As it was given.
        range: Range<u64>,
    },
    /// It ends beyond the flash: the chip is smaller than the table of partitions says.
    #[error(
        "a partition at {:#x} to {:#x} ends beyond the flash, which has {size:#x} bytes",
        range.start, range.end
    )]
    OutOfBounds {
        /// As it was given.
        range: Range<u64>,
        /// The size of the flash.
        size: u64,
    },
    /// It shares an erase block (a write unit, where nothing is erased) with its neighbour.
    #[error(
        "a partition at {:#x} to {:#x} must begin and end on a multiple of {unit:#x} bytes",
        range.start, range.end
    )]
    NotAligned {
        /// As it was given.
        range: Range<u64>,
        /// The erase size, or the write size where that is zero.
        unit: u32,
    },
}

/// A [`Partition`] refuses, or the flash below it failed.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PartitionFlashError<E> {
    /// The caller's mistake.
    #[error(
        "{len} bytes at {offset:#x} of the partition at {:#x} to {:#x} are not aligned",
        range.start, range.end
    )]
    NotAligned {
        /// The partition, within the whole flash.
        range: Range<u64>,
        /// Where the access begins, within the partition.
        offset: u64,
        /// How long it is.
        len: u64,
    },
    /// The caller's mistake.
    #[error(
        "{len} bytes at {offset:#x} reach beyond the partition at {:#x} to {:#x}",
        range.start, range.end
    )]
    OutOfBounds {
        /// The partition, within the whole flash.
        range: Range<u64>,
        /// Where the access begins, within the partition.
        offset: u64,
        /// How long it is.
        len: u64,
    },
    /// The flash failed; its offsets are those of the whole flash.
    #[error("in the partition at {:#x} to {:#x}", range.start, range.end)]
    Flash {
        /// The partition, within the whole flash.
        range: Range<u64>,
        /// What the flash says.
        source: E,
    },
}

impl<E: FlashError> FlashError for PartitionFlashError<E> {
    fn kind(&self) -> FlashErrorKind {
        match self {
            Self::NotAligned { .. } => FlashErrorKind::NotAligned,
            Self::OutOfBounds { .. } => FlashErrorKind::OutOfBounds,
            Self::Flash { source, .. } => source.kind(),
        }
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("no slice is longer than a u64 counts")
}
