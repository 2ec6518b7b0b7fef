//! The blocking pump: drives [`Converge`] over a [`Flash`] and a [`Source`].

use core::ops::Range;

use rekindle_flash::Flash;

use crate::converge::{Converge, ConvergeError, Input, Output, Progress, Region, Report};

/// Where the bytes of an image come from: a web server, an upload under way, peers, a file.
///
/// What it says is not trusted; what it costs is bounded by what is asked of it.
pub trait Source {
    /// What goes wrong with it.
    type Error: core::error::Error + Send + Sync + 'static;

    /// Says which ranges will be opened next, in this order and before any other; what was announced
    /// before and is not among them will not be.
    ///
    /// A source that has to wait for answers asks for these meanwhile, as far as it can hold what
    /// comes. Others need not do anything.
    fn announce(&mut self, ranges: &[Range<u64>]) {
        let _: &[Range<u64>] = ranges;
    }

    /// Begins to deliver this range of the image file; a range still open is dropped.
    ///
    /// Ranges come in rising order but for the rare chunk that did not read back.
    ///
    /// # Errors
    ///
    /// When the range cannot be had.
    fn open(&mut self, range: Range<u64>) -> Result<(), Self::Error>;

    /// Fills some of `buf` with what comes next of the open range, and says how much.
    ///
    /// 0: the image ends here.
    ///
    /// # Errors
    ///
    /// When no more can be had. A source that can ask again where it was cut off does so itself.
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Self::Error>;
}

/// Why a pumped converge ended early. The slot stays as it is; the same call continues.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PumpError<F, S> {
    /// The flash failed.
    #[error("the flash failed")]
    Flash(#[source] F),
    /// The source failed.
    #[error("the image could not be fetched")]
    Source(#[source] S),
    /// The image ends before the manifest says so.
    #[error("the image is truncated: it ends inside bytes {0:?}")]
    Truncated(Range<u64>),
    /// The image or the slot is not as it must be.
    #[error(transparent)]
    Converge(#[from] ConvergeError),
}

/// Runs a converge to its end; `observe` hears where it stands after each step.
///
/// `donors` are those that [`Converge::new`] was told of, in the same order. One that cannot be read is
/// no error: what it has is fetched.
///
/// # Errors
///
/// Any [`PumpError`].
pub fn pump<F: Flash, S: Source>(
    converge: &mut Converge,
    flash: &mut F,
    donors: &mut [F],
    source: &mut S,
    observe: &mut dyn FnMut(Progress),
) -> Result<Report, PumpError<F::Error, S::Error>> {
    let mut open = 0..0;
    loop {
        let input = match converge.poll_output()? {
            Output::Read {
                from: Region::Donor(number),
                offset,
                buf,
                ..
            } => {
                let donor = donors.get_mut(usize::from(number));
                match donor.map(|donor| donor.read(offset, buf)) {
                    Some(Ok(())) => Input::Done,
                    Some(Err(_)) | None => Input::Unreadable,
                }
            }
            Output::Read {
                from: Region::Target,
                offset,
                buf,
                stored,
            } => {
                let read = if stored {
                    flash.read_stored(offset, buf)
                } else {
                    flash.read(offset, buf)
                };
                read.map_err(PumpError::Flash)?;
                Input::Done
            }
            Output::Write { offset, data } => {
                flash.write(offset, data).map_err(PumpError::Flash)?;
                observe(converge.progress());
                Input::Done
            }
            Output::Erase(range) => {
                flash.erase(range).map_err(PumpError::Flash)?;
                Input::Done
            }
            Output::Sync => {
                flash.sync().map_err(PumpError::Flash)?;
                observe(converge.progress());
                Input::Done
            }
            Output::Announce(ranges) => {
                source.announce(ranges);
                Input::Done
            }
            Output::Fetch(range) => {
                open = range.clone();
                source.open(range).map_err(PumpError::Source)?;
                Input::Done
            }
            Output::Receive(buf) => match source.read(buf).map_err(PumpError::Source)? {
                0 => return Err(PumpError::Truncated(open)),
                n => Input::Received(n),
            },
            Output::Finished(report) => {
                observe(converge.progress());
                return Ok(report);
            }
        };
        converge.handle_input(input)?;
    }
}
