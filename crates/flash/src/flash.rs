use core::cell::RefCell;
use core::ops::Range;

/// One region of flash, usually a slot: what the layers above write to, and a vendor implements.
///
/// Offsets and lengths are bytes from the start of the region. The region has one [`Geometry`]
/// that does not change while the value lives.
///
/// # What the caller guarantees
///
/// - `write`: offset and length are multiples of [`Geometry::write_size`]; `erase`: both ends are
///   multiples of [`Geometry::erase_size`]; nothing lies outside `0..size`.
/// - Where `erase_size` is not zero, a write unit is written **at most once** after each erase of
///   its block. No word is ever written twice: not to clear more bits, and not to repeat the same
///   bytes. (NAND and ECC-protected NOR lose the word if it is.)
/// - Where `erase_size` is zero, a write replaces what was there.
///
/// # What the backend guarantees
///
/// - It reports a broken alignment or bound with an error and changes nothing.
/// - `read` returns what the last successful `write` or `erase` left, whether synced or not.
/// - When `sync` returns `Ok`, everything written and erased before the call is on the medium and
///   survives a power cut. Nothing else is promised to survive, and between two syncs there is
///   **no order**: any subset of the operations since the last successful `sync` may have reached
///   the medium, each whole, in part, or not at all.
/// - A `write` or `erase` touches its own range only. Backends that read a larger block, change a
///   part and write it back are forbidden: a power cut in that window destroys bytes that
///   the caller did not touch, which it has synced and counts on. Such a medium must report the
///   larger block as its `write_size`.
///
/// # After a power cut
///
/// | the cut came during | what the medium holds |
/// |---|---|
/// | `write` | each write unit of the range: the old bytes, the new ones, or garbage, which may even read differently from one time to the next. Everything outside the range is as it was. |
/// | `erase` | each erase block of the range: anything. It is erased again before it is written, even where it reads as erased, since half-erased cells do not keep what is written to them. |
/// | `sync`, or between two syncs | every operation since the last successful `sync` is as if it had been cut, independently of the others. |
///
/// So whoever reads after a start trusts nothing that it did not check by a hash or a checksum,
/// and whoever needs "A before B" calls `sync` between A and B.
///
/// # After an error
///
/// A failed `write` or `erase` leaves its range as a cut would. A failed `sync` leaves every
/// operation since the last successful one unknown, and repeating it proves nothing (a kernel may
/// have dropped the pages it could not write and report success the next time). A backend
/// therefore fails every later `write`, `erase`, `sync` and `read_stored` until it is opened anew;
/// the caller then starts from what `read_stored` shows.
pub trait Flash {
    /// What went wrong, in the backend's own words.
    type Error: FlashError;

    /// Returns the size and the units of this flash; always the same value.
    fn geometry(&self) -> Geometry;

    /// Fills `buf` with the bytes at `offset`. They may come from a cache, so this proves nothing
    /// about the medium. A read needs no alignment, and its length may be 0.
    ///
    /// # Errors
    ///
    /// Out of bounds, or the medium cannot be read.
    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error>;

    /// Fills `buf` with what the medium itself holds at `offset`, past every cache.
    ///
    /// The read-back check of an install and the scan after a start use this. It says what will be
    /// there after a power cut only for ranges that have been synced since they were written; for
    /// others it returns the old or the new bytes. A backend may read ahead and serve
    /// the next call from that, as long as those bytes came from the medium after the last write.
    ///
    /// # Errors
    ///
    /// Out of bounds, the medium cannot be read, or an earlier `sync` failed.
    fn read_stored(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error>;

    /// Writes `data` at `offset`, both multiples of [`Geometry::write_size`]. Durable after the
    /// next successful [`sync`](Self::sync), not before.
    ///
    /// # Errors
    ///
    /// Not aligned, out of bounds, no space left, the medium refuses, or an earlier `sync` failed.
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Self::Error>;

    /// Erases `range`, whose ends are multiples of [`Geometry::erase_size`], so that it may be
    /// written; erased bytes read as `0xff`.
    ///
    /// Where `erase_size` is zero this does nothing and leaves the bytes as they are. Durable
    /// after the next successful [`sync`](Self::sync).
    ///
    /// # Errors
    ///
    /// Not aligned, out of bounds, the medium refuses, or an earlier `sync` failed.
    fn erase(&mut self, range: Range<u64>) -> Result<(), Self::Error>;

    /// Waits until everything written and erased so far is on the medium.
    ///
    /// # Errors
    ///
    /// The medium did not take everything; see "After an error" above.
    fn sync(&mut self) -> Result<(), Self::Error>;
}

impl<F: Flash + ?Sized> Flash for &mut F {
    type Error = F::Error;

    fn geometry(&self) -> Geometry {
        (**self).geometry()
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        (**self).read(offset, buf)
    }

    fn read_stored(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        (**self).read_stored(offset, buf)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Self::Error> {
        (**self).write(offset, data)
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), Self::Error> {
        (**self).erase(range)
    }

    fn sync(&mut self) -> Result<(), Self::Error> {
        (**self).sync()
    }
}

/// Shared flash, for several parts that are used in turn by one thread; see
/// [`Partition`](crate::Partition).
impl<F: Flash + ?Sized> Flash for &RefCell<F> {
    type Error = F::Error;

    fn geometry(&self) -> Geometry {
        self.borrow().geometry()
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        self.borrow_mut().read(offset, buf)
    }

    fn read_stored(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        self.borrow_mut().read_stored(offset, buf)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Self::Error> {
        self.borrow_mut().write(offset, data)
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), Self::Error> {
        self.borrow_mut().erase(range)
    }

    fn sync(&mut self) -> Result<(), Self::Error> {
        self.borrow_mut().sync()
    }
}

/// The size and the units of a [`Flash`].
#[expect(
    clippy::exhaustive_structs,
    reason = "vendors construct it in their backends"
)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Geometry {
    /// Bytes in the region; a multiple of both units.
    pub size: u64,
    /// Writes start at and extend over multiples of this many bytes; at least 1.
    pub write_size: u32,
    /// Erases cover multiples of this many bytes; a multiple of `write_size`. Zero: the medium
    /// overwrites without an erase (files, block devices).
    pub erase_size: u32,
}

impl Geometry {
    /// Checks a read of `len` bytes at `offset`; for backends.
    ///
    /// # Errors
    ///
    /// [`FlashErrorKind::OutOfBounds`].
    pub fn check_read(&self, offset: u64, len: usize) -> Result<(), FlashErrorKind> {
        let end = u64::try_from(len)
            .ok()
            .and_then(|len| offset.checked_add(len));
        match end {
            Some(end) if end <= self.size => Ok(()),
            Some(_) | None => Err(FlashErrorKind::OutOfBounds),
        }
    }

    /// Checks bounds and alignment of a write of `len` bytes at `offset`; for backends.
    ///
    /// # Errors
    ///
    /// [`FlashErrorKind::OutOfBounds`] or [`FlashErrorKind::NotAligned`].
    pub fn check_write(&self, offset: u64, len: usize) -> Result<(), FlashErrorKind> {
        self.check_read(offset, len)?;
        let unit = u64::from(self.write_size.max(1));
        let len_aligned = u64::try_from(len).is_ok_and(|len| len.is_multiple_of(unit));
        if offset.is_multiple_of(unit) && len_aligned {
            Ok(())
        } else {
            Err(FlashErrorKind::NotAligned)
        }
    }

    /// Checks bounds and alignment of an erase; for backends.
    ///
    /// # Errors
    ///
    /// [`FlashErrorKind::OutOfBounds`] or [`FlashErrorKind::NotAligned`].
    pub fn check_erase(&self, range: &Range<u64>) -> Result<(), FlashErrorKind> {
        if range.start > range.end || range.end > self.size {
            return Err(FlashErrorKind::OutOfBounds);
        }
        let unit = u64::from(self.erase_size);
        if unit == 0 || (range.start.is_multiple_of(unit) && range.end.is_multiple_of(unit)) {
            Ok(())
        } else {
            Err(FlashErrorKind::NotAligned)
        }
    }
}

/// What every backend's error tells the layers above.
pub trait FlashError: core::error::Error + Send + Sync + 'static {
    /// Returns the kind of failure, for callers that cannot know the backend.
    fn kind(&self) -> FlashErrorKind;
}

/// What kind of failure a [`FlashError`] is.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum FlashErrorKind {
    /// An offset or length is no multiple of the unit: the caller's mistake.
    NotAligned,
    /// The range ends beyond the region: the caller's mistake.
    OutOfBounds,
    /// The medium below (a file system) has no space left: free some and try again.
    Full,
    /// The medium failed, or refuses since it failed before.
    Io,
}
