use alloc::collections::BTreeSet;
use core::ops::Range;
use std::io::{Read, Seek};

use crate::{Chunk, Hash, ImageFile, Layout, RangeJoiner, WalkError};

/// Says what a device that holds the image `old` must fetch to get the image `new`.
///
/// It reads the two tables, not the chunks, and looks at no signature. It holds one hash for each chunk of both images. What is asked for is
/// planned as a device plans it, by [`RangeJoiner`].
///
/// # Errors
///
/// When a table cannot be read or is damaged.
pub fn compare<A: Read + Seek, B: Read + Seek>(
    old: &mut ImageFile<A>,
    new: &mut ImageFile<B>,
) -> Result<Comparison, CompareError> {
    let mut known = BTreeSet::<Hash>::new();
    old.for_each_chunk(|_, chunk| {
        known.insert(chunk.hash);
        Ok(())
    })
    .map_err(CompareError::Old)?;
    let mut fetched = BTreeSet::<Hash>::new();
    let layout = new.layout().clone();
    let mut comparison = Comparison::new(&layout);
    let mut joiner = RangeJoiner::new(RangeJoiner::GAP);
    new.for_each_chunk(|_, chunk| {
        let part = if known.contains(&chunk.hash) {
            &mut comparison.shared
        } else if fetched.insert(chunk.hash) {
            if let Some(range) = joiner.push(stored_range(&layout, chunk)) {
                comparison.request(&range);
            }
            &mut comparison.fetch
        } else {
            &mut comparison.repeated
        };
        part.chunks += 1;
        part.raw_bytes += u64::from(chunk.raw_len);
        part.stored_bytes += u64::from(chunk.stored_len);
        Ok(())
    })
    .map_err(CompareError::New)?;
    if let Some(range) = joiner.finish() {
        comparison.request(&range);
    }
    Ok(comparison)
}

fn stored_range(layout: &Layout, chunk: &Chunk) -> Range<u64> {
    let start = layout.chunks.start + chunk.stored_offset;
    start..start + u64::from(chunk.stored_len)
}

/// The chunks of a new image, by where a device that holds the old one gets them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// In the old image already.
    pub shared: Part,
    /// To be fetched.
    pub fetch: Part,
    /// The same as one fetched before.
    pub repeated: Part,
    /// Length of the chunk table in bytes.
    pub table_bytes: u64,
    /// Requests: the opening, what it leaves of the table, and one for each stretch of chunks that it leaves.
    pub requests: u32,
    /// Bytes of the image file that these transfer, with what lies between chunks asked for at once.
    pub transfer: u64,
}

impl Comparison {
    fn new(layout: &Layout) -> Self {
        let mut comparison = Self {
            table_bytes: layout.table.end - layout.table.start,
            requests: 1,
            transfer: Layout::OPENING.min(layout.file_len),
            ..Self::default()
        };
        comparison.request(&layout.table);
        comparison
    }

    /// Counts a range but for what the opening has of it.
    fn request(&mut self, range: &Range<u64>) {
        let more = range.end.saturating_sub(range.start.max(Layout::OPENING));
        self.requests += u32::from(more > 0);
        self.transfer += more;
    }
}

/// Some of the chunks of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// How many.
    pub chunks: u32,
    /// Their raw length in bytes.
    pub raw_bytes: u64,
    /// Their stored length in bytes: what fetching them transfers.
    pub stored_bytes: u64,
}

/// Why two images cannot be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// The old image's table cannot be read.
    #[error("old image: {0}")]
    Old(WalkError),
    /// The new image's table cannot be read.
    #[error("new image: {0}")]
    New(WalkError),
}
