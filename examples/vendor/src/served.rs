use core::convert::Infallible;
use core::ops::Range;

use rekindle_update::Source;

/// An image file in memory. A board has a socket.
pub(crate) struct Served<'a> {
    file: &'a [u8],
    open: &'a [u8],
    fetched: usize,
}

impl<'a> Served<'a> {
    pub(crate) const fn new(file: &'a [u8]) -> Self {
        Self {
            file,
            open: &[],
            fetched: 0,
        }
    }

    /// Returns how many bytes were taken from here.
    pub(crate) const fn fetched(&self) -> usize {
        self.fetched
    }
}

impl Source for Served<'_> {
    type Error = Infallible;

    /// What lies beyond the end of the file is not served.
    fn open(&mut self, range: Range<u64>) -> Result<(), Infallible> {
        let within = |offset| {
            usize::try_from(offset).map_or(self.file.len(), |at: usize| at.min(self.file.len()))
        };
        self.open = &self.file[within(range.start)..within(range.end)];
        Ok(())
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Infallible> {
        let len = buf.len().min(self.open.len());
        let (now, later) = self.open.split_at(len);
        buf[..len].copy_from_slice(now);
        self.open = later;
        self.fetched += len;
        Ok(len)
    }
}
