//! Flash of which some places cannot be read.

use core::ops::Range;

use rekindle_flash::{Flash, FlashError, FlashErrorKind, Geometry};

/// A slot's flash as an install or a repair sees it: what cannot be read is read as something that no
/// image holds, so that it is fetched and written anew, which makes most media readable there again.
#[derive(Debug)]
pub(crate) struct ReadAround<'a, F> {
    flash: &'a mut F,
    /// Otherwise a failed read is an error: of a donor, which somebody else stands in for.
    patient: bool,
    /// Reads that failed and had no good one behind them.
    failures: u32,
}

impl<'a, F: Flash> ReadAround<'a, F> {
    pub(crate) fn new(flash: &'a mut F) -> Self {
        Self {
            flash,
            patient: true,
            failures: 0,
        }
    }

    /// Another slot, which is only read: it fails as it is.
    pub(crate) fn donor(flash: &'a mut F) -> Self {
        Self {
            flash,
            patient: false,
            failures: 0,
        }
    }

    /// Reads piece by piece what cannot be read as one.
    fn read_around(
        &mut self,
        offset: u64,
        buf: &mut [u8],
        read: impl Fn(&mut F, u64, &mut [u8]) -> Result<(), F::Error>,
    ) -> Result<(), F::Error> {
        match read(self.flash, offset, buf) {
            Err(error) if self.patient && error.kind() == FlashErrorKind::Io => {}
            other => return other,
        }
        let mut at = offset;
        for piece in buf.chunks_mut(PIECE) {
            match read(self.flash, at, piece) {
                Ok(()) => self.failures = 0,
                Err(error) => {
                    self.failures += 1;
                    if self.failures > FAILURES {
                        return Err(error);
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
}

impl<F: Flash> Flash for ReadAround<'_, F> {
    type Error = F::Error;

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
        self.flash.write(offset, data)
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), Self::Error> {
        self.flash.erase(range)
    }

    fn sync(&mut self) -> Result<(), Self::Error> {
        self.flash.sync()
    }
}

/// Whether these bytes are what stands in for an unreadable place, in a read that began at a multiple
/// of a page.
pub(crate) fn is_filler(position: u64, bytes: &[u8]) -> bool {
    let page = u64::try_from(PIECE).unwrap_or(u64::MAX);
    let start = usize::try_from(position % page).unwrap_or(0);
    let filler = UNREADABLE.iter().cycle().skip(start % UNREADABLE.len());
    !bytes.is_empty()
        && bytes
            .iter()
            .zip(filler)
            .all(|(byte, filler)| byte == filler)
}

/// What a medium fails in: a sector or a page.
const PIECE: usize = 4096;

/// So many reads that fail in a row are no bad place but a medium that is gone.
const FAILURES: u32 = 256;

/// In place of what cannot be read.
const UNREADABLE: &[u8] = b"\x9d\x01rekindle cannot read this\xf3";
