//! The flash of a slot under repair.

use alloc::vec;
use core::ops::Range;

use rekindle_flash::{Flash, FlashError, FlashErrorKind, Geometry};

use crate::around::{ReadAround, is_filler};

/// Lets a repair write, but not before the slot is out of use; and where the slot stays in use, only
/// what is wrong.
#[derive(Debug)]
pub(super) struct Guarded<'a, F, G> {
    flash: ReadAround<'a, F>,
    /// Runs before the first change.
    first: Option<G>,
    /// Units that are right already are not written.
    only_wrong: bool,
    wrote: bool,
}

/// The flash failed, or what comes before the first write.
#[derive(Debug, thiserror::Error)]
pub(super) enum GuardedError<F, G> {
    #[error(transparent)]
    Flash(F),
    #[error("the slot cannot be taken out of use")]
    First(G),
}

impl<F, G> FlashError for GuardedError<F, G>
where
    F: FlashError,
    G: core::error::Error + Send + Sync + 'static,
{
    fn kind(&self) -> FlashErrorKind {
        match self {
            Self::Flash(error) => error.kind(),
            Self::First(_) => FlashErrorKind::Io,
        }
    }
}

impl<'a, F, G, E> Guarded<'a, F, G>
where
    F: Flash,
    G: FnOnce() -> Result<(), E>,
{
    pub(super) fn new(flash: &'a mut F, only_wrong: bool, first: G) -> Self {
        Self {
            only_wrong: only_wrong && flash.geometry().erase_size == 0,
            flash: ReadAround::new(flash),
            first: Some(first),
            wrote: false,
        }
    }

    /// Another slot, which is only read.
    pub(super) fn lending(flash: &'a mut F) -> Self {
        Self {
            flash: ReadAround::new(flash),
            first: None,
            only_wrong: false,
            wrote: false,
        }
    }

    /// Whether anything was changed.
    pub(super) fn wrote(&self) -> bool {
        self.wrote
    }

    fn begin(&mut self) -> Result<(), GuardedError<F::Error, E>> {
        if let Some(first) = self.first.take() {
            first().map_err(GuardedError::First)?;
        }
        self.wrote = true;
        Ok(())
    }

    /// Writes those units of `data` that the medium does not hold; all, where it cannot be read.
    fn write_wrong(&mut self, offset: u64, data: &[u8]) -> Result<(), GuardedError<F::Error, E>> {
        let mut stored = vec![0; data.len()];
        if self.flash.read_stored(offset, &mut stored).is_err() {
            self.begin()?;
            return self.flash.write(offset, data).map_err(GuardedError::Flash);
        }
        let unit = u64::from(self.flash.geometry().write_size.max(1));
        let unit = SECTOR.next_multiple_of(unit);
        let mut run = 0..0;
        let mut at = 0;
        while at < data.len() {
            let position = offset + u64::try_from(at).unwrap_or(0);
            let rest = usize::try_from(unit - position % unit).unwrap_or(data.len());
            let end = data.len().min(at + rest);
            // What could not be read, and was read as filler, is nothing to write.
            if data[at..end] == stored[at..end] || is_filler(position, &data[at..end]) {
                self.write_run(offset, data, run)?;
                run = end..end;
            } else {
                run.end = end;
            }
            at = end;
        }
        self.write_run(offset, data, run)
    }

    fn write_run(
        &mut self,
        offset: u64,
        data: &[u8],
        run: Range<usize>,
    ) -> Result<(), GuardedError<F::Error, E>> {
        if run.is_empty() {
            return Ok(());
        }
        self.begin()?;
        let start = offset + u64::try_from(run.start).unwrap_or(0);
        self.flash
            .write(start, &data[run])
            .map_err(GuardedError::Flash)
    }
}

impl<F: Flash, G, E> Guarded<'_, F, G>
where
    G: FnOnce() -> Result<(), E>,
    E: core::error::Error + Send + Sync + 'static,
{
    /// Makes sure that nothing stands in an area of one unit.
    pub(super) fn clear(&mut self, area: &Range<u64>) -> Result<(), GuardedError<F::Error, E>> {
        if self.geometry().erase_size > 0 {
            self.erase(area.clone())?;
        } else {
            let unit = u64::from(self.geometry().write_size.max(1));
            let len = usize::try_from(SECTOR.next_multiple_of(unit)).unwrap_or(0);
            self.write(area.start, &vec![0; len])?;
        }
        self.sync()
    }
}

impl<F: Flash, G, E> Flash for Guarded<'_, F, G>
where
    G: FnOnce() -> Result<(), E>,
    E: core::error::Error + Send + Sync + 'static,
{
    type Error = GuardedError<F::Error, E>;

    fn geometry(&self) -> Geometry {
        self.flash.geometry()
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        self.flash.read(offset, buf).map_err(GuardedError::Flash)
    }

    fn read_stored(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        self.flash
            .read_stored(offset, buf)
            .map_err(GuardedError::Flash)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Self::Error> {
        if self.only_wrong {
            return self.write_wrong(offset, data);
        }
        self.begin()?;
        self.flash.write(offset, data).map_err(GuardedError::Flash)
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), Self::Error> {
        self.begin()?;
        self.flash.erase(range).map_err(GuardedError::Flash)
    }

    fn sync(&mut self) -> Result<(), Self::Error> {
        self.flash.sync().map_err(GuardedError::Flash)
    }
}

/// Compared and written at once, where the medium writes smaller units: a sector.
const SECTOR: u64 = 512;
