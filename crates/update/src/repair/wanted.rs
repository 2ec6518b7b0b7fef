use alloc::boxed::Box;

use rekindle_flash::{CopyState, SlotContent, SlotLayout};
use rekindle_image::{AdoptedKeys, SignedManifest, Trust};

use super::error::Unknown;
use crate::scrub::judge;

/// What a slot is to be made to match.
#[derive(Debug)]
pub(super) enum Wanted {
    /// The slot never held anything.
    Nothing,
    /// An install was begun in the slot and has not ended.
    Unfinished,
    /// A manifest in the slot's tail, authentic.
    Held(Box<SignedManifest>),
    /// The image of this id, which the state recorded for the slot: its tail has no manifest of it.
    FromOrigin([u8; 32]),
}

impl Wanted {
    /// `known` is the manifest that the state recorded for the slot; `idle`: nothing boots it.
    ///
    /// A copy that is complete is what the slot holds. Where none is, the newer one may be what an
    /// install was making of the slot, or the older one may have come to speak because the newer
    /// one rotted away: the state tells, and without it only a tail that shows no damage is believed.
    pub(super) fn of(
        content: &SlotContent,
        layout: &SlotLayout,
        trust: &Trust,
        adopted: Option<&AdoptedKeys>,
        known: Option<[u8; 32]>,
        idle: bool,
    ) -> Result<Self, Unknown> {
        let empty = content
            .copies
            .iter()
            .all(|copy| matches!(copy, CopyState::Empty));
        if empty && (known.is_none() || idle) {
            return Ok(Self::Nothing);
        }
        let Some((copy, current)) = content.whole().or_else(|| content.current()) else {
            return known.map(Self::FromOrigin).ok_or(Unknown::NoManifest);
        };
        if current.complete {
            return match (judge(current, layout, copy, trust, adopted), known) {
                (Ok(image), _) => Ok(Self::Held(Box::new(image.signed))),
                (Err(_), Some(id)) => Ok(Self::FromOrigin(id)),
                (Err(error), None) => Err(Unknown::NotAuthentic(error)),
            };
        }
        if idle && known != Some(current.header.id) {
            return Ok(Self::Unfinished);
        }
        let Some(id) = known else {
            if matches!(content.copies[1 - copy], CopyState::Damaged(_)) {
                return Err(Unknown::NoManifest);
            }
            let image =
                judge(current, layout, copy, trust, adopted).map_err(Unknown::NotAuthentic)?;
            return Ok(Self::Held(Box::new(image.signed)));
        };
        let held = content.copies.iter().enumerate().find_map(|(copy, state)| {
            let CopyState::Held(held) = state else {
                return None;
            };
            (held.header.id == id).then(|| judge(held, layout, copy, trust, adopted).ok())?
        });
        Ok(held.map_or(Self::FromOrigin(id), |image| {
            Self::Held(Box::new(image.signed))
        }))
    }
}
