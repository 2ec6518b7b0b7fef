//! Copying: chunks that other flash of the device has, read in large pieces where they are
//! neighbours.

use alloc::vec;
use alloc::vec::Vec;

use rekindle_image::Chunk;

use super::load::Placing;
use super::plan::Place;
use super::{Converge, Flow, Need, Region, len_u64, len_usize};

/// A piece of flash that chunks are copied out of.
#[derive(Debug, Default)]
pub(super) struct CopyBuffer {
    /// Made when first needed: most devices install without a donor once.
    buf: Vec<u8>,
    held: Option<(Place, u64)>,
    valid: usize,
    wanted: Option<(Place, u64)>,
    len: usize,
}

impl CopyBuffer {
    /// Takes what it has from `offset` on; how much that is.
    fn take(&self, place: Place, offset: u64, out: &mut [u8]) -> usize {
        let Some((_, start)) = self.held.filter(|(held, _)| *held == place) else {
            return 0;
        };
        let at = offset.checked_sub(start).map(usize::try_from);
        let Some(Ok(at)) = at.filter(|at| at.as_ref().is_ok_and(|at| *at < self.valid)) else {
            return 0;
        };
        let len = out.len().min(self.valid - at);
        out[..len].copy_from_slice(&self.buf[at..at + len]);
        len
    }

    fn want(&mut self, place: Place, offset: u64, len: u64) {
        if self.buf.is_empty() {
            self.buf = vec![0; PIECE];
        }
        self.held = None;
        self.wanted = Some((place, offset));
        self.len = usize::try_from(len).unwrap_or(PIECE).min(PIECE);
    }

    /// What is to be filled, and from where.
    pub(super) fn target(&mut self) -> (Region, u64, &mut [u8]) {
        let (place, offset) = self.wanted.unwrap_or((Place::OWN, 0));
        (place.region(), offset, &mut self.buf[..self.len])
    }

    pub(super) fn filled(&mut self) {
        self.held = self.wanted;
        self.valid = self.len;
    }

    /// Where it was to be filled from and could not.
    pub(super) fn failed(&mut self) -> Option<Place> {
        self.held = None;
        self.wanted.map(|(place, _)| place)
    }

    /// The target has been written: what was read of it may have changed.
    pub(super) fn forget_target(&mut self) {
        self.held = self
            .held
            .filter(|(place, _)| matches!(place.region(), Region::Donor(_)));
    }
}

impl Converge {
    /// Copies the chunk that is loaded next from where the plan found it.
    pub(super) fn copy(&mut self, chunk: &Chunk, place: Place, offset: u64) -> Flow {
        let len = len_usize(chunk.raw_len);
        let end = self.end_of(place);
        if offset.saturating_add(len_u64(len)) > end {
            self.misfit(place);
            return Flow::Go;
        }
        while self.stored_filled < len {
            let position = offset + len_u64(self.stored_filled);
            let rest = &mut self.stored[self.stored_filled..len];
            let taken = self.copier.take(place, position, rest);
            if taken == 0 {
                let last = offset + len_u64(len);
                let until = if self.plan.goes_on_at(place, last) {
                    end
                } else {
                    last
                };
                self.copier.want(place, position, until - position);
                self.need = Some(Need::FillCopy);
                return Flow::Wait;
            }
            self.stored_filled += taken;
        }
        self.stored_filled = 0;
        if place.region() == Region::Target {
            self.block.overlay(offset, &mut self.stored[..len]);
        }
        if !chunk.matches(&self.stored[..len]) {
            self.misfit(place);
            return Flow::Go;
        }
        if place == Place::OLD {
            let range = offset..offset + len_u64(len);
            self.moved = if self.moved.is_empty() {
                range
            } else {
                self.moved.start.min(range.start)..self.moved.end.max(range.end)
            };
        }
        self.misfits = 0;
        self.report.copied += len_u64(len);
        self.placing = Some(Placing::raw(*chunk));
        Flow::Go
    }

    /// A chunk is not where a table says. It is fetched, and a place where that happens again and
    /// again is not looked at any more.
    fn misfit(&mut self, place: Place) {
        self.misfits += 1;
        self.plan.fetch_instead();
        if self.misfits >= MISFITS {
            self.misfits = 0;
            self.abandon(place, self.next);
        }
    }
}

/// One read of neighbours.
const PIECE: usize = 256 * 1024;

/// Chunks not found where they should be, each at the price of a request of its own, before the
/// place is given up.
const MISFITS: u32 = 16;
