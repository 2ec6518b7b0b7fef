//! The image that a slot holds, as a source has it.

use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::convert::Infallible;
use core::ops::Range;

use rekindle_image::{AdoptedKeys, Layout, SignedManifest, Trust};

use crate::install::{InstallError, read_manifest};
use crate::keys::verify_held;
use crate::pump::Source;

/// Why the image at the source is of no use for a slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OriginError<R> {
    /// It cannot be had, or is no image, or not one to be trusted.
    #[error(transparent)]
    Image(InstallError<Infallible, Infallible, Infallible, R>),
    /// It is another image than the slot holds.
    #[error(transparent)]
    OtherImage(#[from] SameImageError),
}

/// The image at the source is not the one that the slot holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the image there is build {found}, not the one that the slot holds{}", held_build(.held.as_ref()))]
#[non_exhaustive]
pub struct SameImageError {
    /// The build of the image at the source.
    pub found: String,
    /// The build that the slot holds, where its manifest can be read.
    pub held: Option<String>,
}

fn held_build(held: Option<&String>) -> String {
    held.map_or_else(String::new, |build| alloc::format!(" (build {build})"))
}

impl<R> OriginError<R> {
    /// Whether the source could not be asked: another time it may answer.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Image(InstallError::Source(_)))
    }
}

/// Asks a source for ranges of the image that a slot holds, once it has seen that it is this image.
/// Until something is asked for, the source is left alone.
#[derive(Debug)]
pub(super) struct SameImage<'a, R> {
    inner: &'a mut R,
    expected: Option<Expected>,
    /// Where the table begins in the file at the source: signatures may make its manifest longer.
    table: Option<u64>,
}

#[derive(Debug)]
struct Expected {
    id: [u8; 32],
    build: String,
    /// Where the table would begin behind the slot's manifest.
    table: u64,
}

impl<'a, R: Source> SameImage<'a, R> {
    pub(super) fn new(inner: &'a mut R) -> Self {
        Self {
            inner,
            expected: None,
            table: None,
        }
    }

    /// Ranges are those of a file with this manifest.
    pub(super) fn expect(&mut self, signed: &SignedManifest) {
        self.expected = table_start(signed).map(|table| Expected {
            id: *signed.id().as_bytes(),
            build: signed.unverified().build.clone(),
            table,
        });
    }

    /// The manifest of the image at the source, which must be of this id and trusted.
    pub(super) fn manifest(
        &mut self,
        id: &[u8; 32],
        trust: &Trust,
        adopted: Option<&AdoptedKeys>,
    ) -> Result<SignedManifest, OriginError<R::Error>> {
        let signed = read_manifest(self.inner).map_err(OriginError::Image)?;
        verify_held(&signed, trust, adopted)
            .map(drop)
            .map_err(|error| OriginError::Image(error.into()))?;
        if signed.id().as_bytes() != id {
            return Err(SameImageError {
                found: signed.unverified().build.clone(),
                held: None,
            }
            .into());
        }
        self.table = table_start(&signed);
        Ok(signed)
    }
}

impl<R: Source> SameImage<'_, R> {
    /// Looks whether the image at the source is the one that the slot holds; once.
    pub(super) fn check(&mut self) -> Result<(), OriginError<R::Error>> {
        let (Some(expected), None) = (&self.expected, self.table) else {
            return Ok(());
        };
        let signed = read_manifest(self.inner).map_err(OriginError::Image)?;
        if *signed.id().as_bytes() != expected.id {
            return Err(SameImageError {
                found: signed.unverified().build.clone(),
                held: Some(expected.build.clone()),
            }
            .into());
        }
        self.table = table_start(&signed);
        Ok(())
    }

    fn moved(&self, range: &Range<u64>) -> Range<u64> {
        let (Some(expected), Some(table)) = (&self.expected, self.table) else {
            return range.clone();
        };
        let moved = |at: u64| at.saturating_sub(expected.table).saturating_add(table);
        moved(range.start)..moved(range.end)
    }
}

/// The source, as the pump and the first write of a repair share it.
#[derive(Debug)]
pub(super) struct Shared<'s, 'a, R>(pub(super) &'s RefCell<SameImage<'a, R>>);

impl<R: Source> Source for Shared<'_, '_, R> {
    type Error = OriginError<R::Error>;

    fn announce(&mut self, ranges: &[Range<u64>]) {
        let mut source = self.0.borrow_mut();
        // Before the first answer it is not known whether this is the image at all.
        if source.table.is_some() {
            let moved: Vec<_> = ranges.iter().map(|range| source.moved(range)).collect();
            source.inner.announce(&moved);
        }
    }

    fn open(&mut self, range: Range<u64>) -> Result<(), Self::Error> {
        let mut source = self.0.borrow_mut();
        source.check()?;
        let moved = source.moved(&range);
        let opened = source.inner.open(moved);
        opened.map_err(|error| OriginError::Image(InstallError::Source(error)))
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Self::Error> {
        let read = self.0.borrow_mut().inner.read(buf);
        read.map_err(|error| OriginError::Image(InstallError::Source(error)))
    }
}

fn table_start(signed: &SignedManifest) -> Option<u64> {
    let len = u32::try_from(signed.bytes().len()).ok()?;
    Some(Layout::of(len, signed.unverified()).ok()?.table.start)
}
