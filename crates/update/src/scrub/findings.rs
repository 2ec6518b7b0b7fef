use alloc::vec::Vec;

use rekindle_image::Chunk;

/// What a scrub has found in a slot's table and content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a passive value that callers keep and give back"
)]
pub struct Findings {
    /// Bytes of the image.
    pub total: u64,
    /// Chunks compared with their hashes.
    pub checked_chunks: u32,
    /// Bytes of these.
    pub checked_bytes: u64,
    /// Chunks that are not what they should be, or cannot be read.
    pub damaged_chunks: u32,
    /// Bytes of these.
    pub damaged_bytes: u64,
    /// Where they lie: the first [`Findings::RANGES`] runs.
    pub ranges: Vec<DamagedRange>,
    /// Pages of the chunk table that are not the signed ones, or cannot be read.
    pub damaged_pages: u32,
    /// The first [`Findings::PAGES`] of them, by their numbers.
    pub pages: Vec<u32>,
    /// Chunks of which nothing is known, since a damaged page describes them.
    pub unchecked_chunks: u32,
}

/// Damaged chunks, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a passive value that callers keep and give back"
)]
pub struct DamagedRange {
    /// The first chunk's number.
    pub chunk: u32,
    /// How many chunks.
    pub chunks: u32,
    /// Where they begin, in bytes from the start of the slot.
    pub offset: u64,
    /// How many bytes they have.
    pub len: u64,
}

impl Findings {
    /// Runs of damaged chunks that are kept; all are counted.
    pub const RANGES: usize = 64;
    /// Damaged pages that are kept; all are counted.
    pub const PAGES: usize = 16;

    /// Whether anything is not as it should be.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        self.damaged_chunks > 0 || self.damaged_pages > 0 || self.unchecked_chunks > 0
    }

    pub(super) fn add(&mut self, chunk: &Chunk) {
        self.damaged_chunks += 1;
        self.damaged_bytes += u64::from(chunk.raw_len);
        if let Some(last) = self.ranges.last_mut()
            && last.chunk + last.chunks == chunk.index
        {
            last.chunks += 1;
            last.len += u64::from(chunk.raw_len);
        } else if self.ranges.len() < Self::RANGES {
            self.ranges.push(DamagedRange {
                chunk: chunk.index,
                chunks: 1,
                offset: chunk.raw_offset,
                len: u64::from(chunk.raw_len),
            });
        }
    }

    pub(super) fn add_page(&mut self, number: u32) {
        self.damaged_pages += 1;
        if self.pages.len() < Self::PAGES {
            self.pages.push(number);
        }
    }
}
