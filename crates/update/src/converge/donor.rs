//! Donors: what other flash of the device holds, as far as chunks can be copied from there.

use alloc::vec::Vec;

use rekindle_flash::{CopyState, Flash, SlotLayout, read_slot};
use rekindle_image::{Manifest, SignedManifest};

/// Another slot of the device, by the chunk tables that it holds.
///
/// Nothing of it is trusted, neither its manifests nor its tables nor its chunks: every chunk is
/// compared with its hash before it is written, so that a donor that is damaged, half written or
/// changed meanwhile costs a fetch and nothing else.
#[derive(Debug, Clone, Default)]
pub struct Donor {
    pub(super) tables: Vec<HeldTable>,
}

/// A chunk table in a slot's tail.
#[derive(Debug, Clone)]
pub(super) struct HeldTable {
    /// Where its pages start.
    pub(super) start: u64,
    /// Where the slot's content ends.
    pub(super) data_end: u64,
    pub(super) manifest: Manifest,
}

impl Donor {
    /// Looks at a slot. One that cannot be read, or holds nothing, is a donor of nothing.
    pub fn read<F: Flash>(flash: &mut F) -> Self {
        let Ok(layout) = SlotLayout::new(&flash.geometry()) else {
            return Self::default();
        };
        let Ok(content) = read_slot(flash, &layout) else {
            return Self::default();
        };
        // The current description first: it is the one most likely to be true.
        let current = content.whole().or_else(|| content.current());
        let current = current.map_or(0, |(index, _)| index);
        Self {
            tables: [current, 1 - current]
                .into_iter()
                .filter_map(|copy| HeldTable::of(&layout, &content.copies[copy], copy))
                .collect(),
        }
    }
}

impl HeldTable {
    /// The table of a copy, if it has a manifest that can be read and a table that fits.
    pub(super) fn of(layout: &SlotLayout, state: &CopyState, copy: usize) -> Option<Self> {
        let CopyState::Held(held) = state else {
            return None;
        };
        let manifest = SignedManifest::parse(held.manifest.as_slice())
            .ok()?
            .unverified()
            .clone();
        let table = &layout.copies[copy].table;
        let fits = manifest.table.len_bytes() <= table.end - table.start
            && manifest.size <= layout.data.end - layout.data.start;
        fits.then_some(Self {
            start: table.start,
            data_end: layout.data.end,
            manifest,
        })
    }
}
