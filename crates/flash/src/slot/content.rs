use alloc::vec;
use alloc::vec::Vec;

use super::layout::HEADER_LEN;
use crate::{CompletionMark, CopyError, CopyHeader, CopyLayout, Flash, MANIFEST_MAX, SlotLayout};

/// Reads what the slot says about itself, from the medium.
///
/// The manifests are as they were stored: nothing here checks a signature.
///
/// # Errors
///
/// The flash cannot be read. A damaged copy is no error but [`CopyState::Damaged`].
pub fn read_slot<F: Flash>(flash: &mut F, layout: &SlotLayout) -> Result<SlotContent, F::Error> {
    let [first, second] = &layout.copies;
    Ok(SlotContent {
        copies: [read_copy(flash, first)?, read_copy(flash, second)?],
    })
}

/// What the two copies in a slot's tail hold.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SlotContent {
    /// In the order of [`SlotLayout::copies`].
    pub copies: [CopyState; 2],
}

impl SlotContent {
    /// Returns the copy that describes the slot, with its index: the one with the highest
    /// sequence. `None`: the slot says nothing, whatever its data area holds.
    #[must_use]
    pub fn current(&self) -> Option<(usize, &HeldCopy)> {
        self.held().max_by_key(|(_, held)| held.header.sequence)
    }

    /// Returns the copy that says what the data area holds, whole, with its index: the one that is
    /// complete. A copy that is newer and not complete only says what the slot is to become: marks
    /// are cleared before the first byte of data changes. `None`: the data is no whole image.
    #[must_use]
    pub fn whole(&self) -> Option<(usize, &HeldCopy)> {
        self.held()
            .filter(|(_, held)| held.complete)
            .max_by_key(|(_, held)| held.header.sequence)
    }

    /// Returns the copy that says what the slot is to become, where nothing of its data was changed
    /// for that yet: newer than the one that is [`whole`](Self::whole), and not complete.
    #[must_use]
    pub fn staged(&self) -> Option<(usize, &HeldCopy)> {
        let (whole, _) = self.whole()?;
        self.current().filter(|(index, _)| *index != whole)
    }

    /// Returns the copy that is not current, with its index: what the slot held before, and so
    /// which chunks may still lie in its data area.
    #[must_use]
    pub fn previous(&self) -> Option<(usize, &HeldCopy)> {
        let (current, _) = self.current()?;
        self.held().find(|(index, _)| *index != current)
    }

    /// Returns the index of the copy that the next install overwrites: never the one that says what
    /// the data area holds.
    #[must_use]
    pub fn next_copy(&self) -> usize {
        self.whole()
            .or_else(|| self.current())
            .map_or(0, |(index, _)| 1 - index)
    }

    /// Returns the sequence for the next install.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.current()
            .map_or(1, |(_, held)| held.header.sequence.saturating_add(1))
    }

    fn held(&self) -> impl Iterator<Item = (usize, &HeldCopy)> {
        self.copies
            .iter()
            .enumerate()
            .filter_map(|(index, copy)| match copy {
                CopyState::Held(held) => Some((index, held)),
                CopyState::Empty | CopyState::Damaged(_) => None,
            })
    }
}

/// What one copy in a slot's tail holds.
#[expect(
    clippy::exhaustive_enums,
    reason = "whoever reads a slot decides on every case"
)]
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CopyState {
    /// Nothing was written yet.
    Empty,
    /// It cannot be used; after a power cut during an install this is normal for one copy.
    Damaged(CopyError),
    /// A manifest, stored whole.
    Held(HeldCopy),
}

/// A manifest as a slot holds it.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeldCopy {
    /// Which manifest, how recent.
    pub header: CopyHeader,
    /// The signed manifest.
    pub manifest: Vec<u8>,
    /// Whether the slot's data was written and checked to the end.
    pub complete: bool,
}

fn read_copy<F: Flash>(flash: &mut F, layout: &CopyLayout) -> Result<CopyState, F::Error> {
    let mut head = vec![0; HEAD_BYTES];
    flash.read_stored(layout.head.start, &mut head)?;
    let (header, manifest) = match CopyHeader::decode(&head) {
        Ok(decoded) => decoded,
        Err(CopyError::Empty) => return Ok(CopyState::Empty),
        Err(error) => return Ok(CopyState::Damaged(error)),
    };
    let mut mark = [0; CompletionMark::LEN];
    flash.read_stored(layout.mark.start, &mut mark)?;
    Ok(CopyState::Held(HeldCopy {
        header,
        manifest: manifest.to_vec(),
        complete: CompletionMark::matches(&mark, &header),
    }))
}

const HEAD_BYTES: usize = 128 + 16 * 1024;
const _: () = assert!(HEADER_LEN == 128 && MANIFEST_MAX == 16 * 1024);
