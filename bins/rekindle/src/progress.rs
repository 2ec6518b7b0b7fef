//! A bar on the terminal for work that takes long. Where standard error is no terminal there is none.

use std::io::{self, Read, Seek, SeekFrom};

use indicatif::{ProgressBar, ProgressStyle};

/// A reader whose progress is shown until it is dropped.
pub(crate) struct Watched<R> {
    reader: R,
    bar: ProgressBar,
}

impl<R> Watched<R> {
    /// Shows `what` is done; `len` is how many bytes will be read, where that is known.
    pub(crate) fn new(reader: R, what: &'static str, len: Option<u64>) -> Self {
        let template = if len.is_some() {
            "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}"
        } else {
            "{msg} {spinner} {binary_bytes} {binary_bytes_per_sec}"
        };
        let bar = len.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let style =
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        bar.set_message(what);
        Self { reader, bar }
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.reader.read(buf)?;
        self.bar.inc(u64::try_from(len).unwrap_or(0));
        Ok(len)
    }
}

/// Seeking is no progress: only what is read counts.
impl<R: Seek> Seek for Watched<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.reader.seek(to)
    }
}

impl<R> Drop for Watched<R> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
