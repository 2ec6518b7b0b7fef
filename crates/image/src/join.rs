use core::ops::Range;

/// Joins the stored chunks that are to be fetched into the ranges that are asked for.
///
/// A request costs something too: two stretches with little between them are asked for at once, and what lies between is dropped. The
/// choice at each gap is independent of the others, so that this is the cheapest set of ranges, and where every gap is small the one plain
/// download that it comes to. Devices and `compare` share it, so that one says what the other does.
#[derive(Clone, Debug)]
pub struct RangeJoiner {
    gap: u64,
    open: Option<Range<u64>>,
}

impl RangeJoiner {
    /// What a request is taken to cost: the head of the question and of the answer, twice over for the way.
    pub const GAP: u64 = 1024;

    /// Joins over gaps of at most `gap` bytes.
    #[must_use]
    pub fn new(gap: u64) -> Self {
        Self { gap, open: None }
    }

    /// Takes where the next chunk to be fetched lies; chunks come in rising order. Returns the range before it, once that is whole.
    pub fn push(&mut self, chunk: Range<u64>) -> Option<Range<u64>> {
        match &mut self.open {
            Some(open) if chunk.start.saturating_sub(open.end) <= self.gap => {
                open.end = open.end.max(chunk.end);
                None
            }
            open => open.replace(chunk),
        }
    }

    /// Returns the last range.
    pub fn finish(&mut self) -> Option<Range<u64>> {
        self.open.take()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;
    use core::slice;

    use super::*;

    fn joined(gap: u64, chunks: &[Range<u64>]) -> Vec<Range<u64>> {
        let mut joiner = RangeJoiner::new(gap);
        let mut ranges: Vec<_> = chunks
            .iter()
            .filter_map(|chunk| joiner.push(chunk.clone()))
            .collect();
        ranges.extend(joiner.finish());
        ranges
    }

    #[test]
    fn joins_neighbours_and_over_gaps_up_to_the_limit() {
        let chunks = [0..10, 10..20, 25..30, 36..40];
        assert_eq!(joined(0, &chunks), [0..20, 25..30, 36..40]);
        assert_eq!(joined(5, &chunks), [0..30, 36..40]);
        for gap in [6, u64::MAX] {
            assert_eq!(joined(gap, &chunks), slice::from_ref(&(0..40)));
        }
        assert_eq!(joined(5, &[]), []);
    }
}
