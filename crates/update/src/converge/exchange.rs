//! What the machine and its caller say to each other.

use core::ops::Range;

/// What the machine wants done. Each but [`Output::Finished`] is answered by one [`Input`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Output<'a> {
    /// Fill `buf` from flash; `stored`: from the medium, past every cache.
    Read {
        /// Which flash.
        from: Region,
        /// Where, in bytes from the start of the slot.
        offset: u64,
        /// What to fill, whole.
        buf: &'a mut [u8],
        /// Whether the bytes must come from the medium itself.
        stored: bool,
    },
    /// Write `data` to the slot's flash.
    Write {
        /// Where, in bytes from the start of the slot.
        offset: u64,
        /// What to write.
        data: &'a [u8],
    },
    /// Erase this range of the slot's flash.
    Erase(Range<u64>),
    /// Make all that was written durable.
    Sync,
    /// Tell the source which ranges of the image file it will be asked for next, in this order and
    /// before any other. What was announced before and is not here any more will not be asked for.
    Announce(&'a [Range<u64>]),
    /// Ask the source for this range of the image file; a range still open is dropped.
    Fetch(Range<u64>),
    /// Fill some of `buf` from the range that is open; answered by [`Input::Received`].
    Receive(&'a mut [u8]),
    /// The slot matches the manifest, verified and marked complete.
    Finished(Report),
}

/// Which flash an [`Output::Read`] is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "whoever reads must know where")]
pub enum Region {
    /// The slot that is made to match.
    Target,
    /// The donor of this number, in the order given to [`Converge::new`](super::Converge::new).
    Donor(u8),
}

/// The answer to an [`Output`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input {
    /// It is done; buffers are filled whole.
    Done,
    /// So many bytes of a [`Output::Receive`] were filled, at least one.
    Received(usize),
    /// A donor could not be read. It is not asked again.
    Unreadable,
}

/// What a finished converge did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Bytes asked of the source, manifest not counted.
    pub fetched: u64,
    /// Bytes of image content written to the slot.
    pub written: u64,
    /// Of these, bytes that were copied from this device's own flash.
    pub copied: u64,
    /// Bytes of image content found in place.
    pub kept: u64,
    /// Ranges asked of the source, manifest not counted.
    pub requests: u32,
}

/// Where a converge stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What it does now.
    pub phase: Phase,
    /// Bytes of image content in place, of which the last few MiB may wait to be read back.
    pub done: u64,
    /// Bytes of image content in all.
    pub total: u64,
}

/// The stages of a converge, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// The chunk table is read or fetched.
    Table,
    /// The slot is searched for chunks that are in place.
    Scan,
    /// Missing chunks are fetched, written and read back.
    Load,
    /// The slot is marked complete.
    Finish,
}
