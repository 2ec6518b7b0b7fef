//! The flash of a slot under repair.

use alloc::vec;
use core::ops::Range;

use rekindle_flash::{Flash, FlashError, FlashErrorKind, Geometry};

/// Lets a repair write, but not before the slot is out of use; and where the slot stays in use, only
/// what is wrong. What cannot be read is read as something that no image holds, so that it is fetched
/// and written anew, which makes most media readable there again.
#[derive(Debug)]
pub(super) struct Guarded<'a, F, G> {
    flash: &'a mut F,
    /// Runs before the first change.
    first: Option<G>,
    /// Units that are right already are not written.
    only_wrong: bool,
    wrote: bool,
    /// Reads that failed and had no good one behind them.
    failures: u32,
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
            flash,
            first: Some(first),
            wrote: false,
            failures: 0,
        }
    }

    /// Another slot, which is only read.
    pub(super) fn lending(flash: &'a mut F) -> Self {
        Self {
            flash,
            first: None,
            only_wrong: false,
            wrote: false,
            failures: 0,
        }
    }

    /// Whether anything was changed.
    pub(super) fn wrote(&self) -> bool {
        self.wrote
    }

    /// Reads piece by piece what cannot be read as one.
    fn read_around(
        &mut self,
        offset: u64,
        buf: &mut [u8],
        read: impl Fn(&mut F, u64, &mut [u8]) -> Result<(), F::Error>,
    ) -> Result<(), GuardedError<F::Error, E>> {
        match read(self.flash, offset, buf) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() != FlashErrorKind::Io => {
                return Err(GuardedError::Flash(error));
            }
            Err(_unreadable) => {}
        }
        let mut at = offset;
        for piece in buf.chunks_mut(PIECE) {
            match read(self.flash, at, piece) {
                Ok(()) => self.failures = 0,
                Err(error) => {
                    self.failures += 1;
                    if self.failures > FAILURES {
                        return Err(GuardedError::Flash(error));
                    }
                    for (byte, filler) in piece.iter_mut().zip(UNREADABLE.iter().cycle()) {
                        *byte = *filler;
                    }
                }
            }
            at += u64::try_from(piece.len()).unwrap_or(0);
        }
        Ok(())
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
            if data[at..end] == stored[at..end] {
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
            let len = usize::try_from(SECTOR.next_multiple_of(unit)).unwrap_or(PIECE);
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
        self.read_around(offset, buf, F::read)
    }

    fn read_stored(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        self.read_around(offset, buf, F::read_stored)
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

/// What a medium fails in: a sector or a page.
const PIECE: usize = 4096;

/// So many reads that fail in a row are no bad place but a medium that is gone.
const FAILURES: u32 = 256;

/// In place of what cannot be read.
const UNREADABLE: &[u8] = b"\x9d\x01rekindle cannot read this\xf3";

/// Compared and written at once, where the medium writes smaller units: a sector.
const SECTOR: u64 = 512;
