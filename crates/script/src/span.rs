/// Where something begins, for people: both count from 1, the column in bytes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column, in bytes from the start of the line.
    pub column: u32,
}

/// A range of bytes in the script, for tools that point at it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// The byte after the last.
    pub end: u32,
}

impl Span {
    /// The range as indices into the script.
    #[must_use]
    pub fn range(self) -> core::ops::Range<usize> {
        let index = |offset: u32| usize::try_from(offset).unwrap_or(usize::MAX);
        index(self.start)..index(self.end)
    }

    /// A span of `len` bytes. Offsets fit: `parse` refuses a script of more than `u32::MAX` bytes first.
    pub(crate) fn at(start: usize, len: usize) -> Self {
        Self {
            start: offset(start),
            end: offset(start.saturating_add(len)),
        }
    }
}

/// An offset in a script whose length has been checked to fit.
pub(crate) fn offset(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// How far into `whole` its suffix `rest` begins.
pub(crate) const fn offset_of(whole: &[u8], rest: &[u8]) -> usize {
    whole.len().saturating_sub(rest.len())
}
