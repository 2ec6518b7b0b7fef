//! How an image is fetched.

use rekindle_image::RangeJoiner;

/// How an image is fetched, and how much memory the plan for it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transfer {
    /// Bytes between two missing stretches up to which both are asked for at once: about what a
    /// request costs. [`RangeJoiner::GAP`] unless set; `u64::MAX` for a source that delivers the
    /// file from start to end whatever is asked.
    pub join_gap: u64,
    /// How many of the next ranges the source is told of in advance; 4 unless set. A source that
    /// has to wait for each answer asks for them meanwhile.
    pub ahead: usize,
    /// Missing chunks planned at a time, 32768 at most and unless set. A plan takes 16 bytes for
    /// each, and as much again for each range to be asked for.
    pub plan_chunks: u16,
    /// Bytes that may be fetched in all; `None`: as many as it takes.
    pub max_download: Option<u64>,
    /// Bytes from the start of the file that the source holds already. They count as fetched, and
    /// cost nothing to be asked for again.
    pub at_hand: u64,
}

impl Default for Transfer {
    fn default() -> Self {
        Self {
            join_gap: RangeJoiner::GAP,
            ahead: 4,
            plan_chunks: 1 << 15,
            max_download: None,
            at_hand: 0,
        }
    }
}
