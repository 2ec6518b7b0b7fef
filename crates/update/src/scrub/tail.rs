use alloc::boxed::Box;

use rekindle_flash::{CopyError, CopyState, Flash, HeldCopy, SlotContent, SlotLayout, read_slot};
use rekindle_image::{AdoptedKeys, ManifestError, Signed, SignedManifest, Trust, VerifyError};

use super::ScrubError;
use crate::keys::verify_held;

/// What a slot's tail says, judged under the device's trust.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Tail {
    /// Nothing was ever written to it.
    Empty,
    /// Something is there, and no copy of the description can be used.
    Unusable(CopyError),
    /// The description is whole and not to be believed: it is not what a trusted key signed.
    NotAuthentic(TailError),
    /// An authentic manifest.
    Held(Box<HeldImage>),
}

/// The image that a slot says it holds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HeldImage {
    /// Its signed manifest.
    pub signed: SignedManifest,
    /// Whether nobody has signed it, and the device's policy lets that pass.
    pub unsigned: bool,
    /// Whether the slot was written and checked to the end. If not: an install or a repair was begun
    /// and not ended, or the completion mark is damaged.
    pub complete: bool,
    /// The number of this description, which rises with each install.
    pub sequence: u64,
    /// What is wrong with the other copy, which says what the slot held before. Nothing
    /// depends on it.
    pub spare: Option<CopyError>,
    /// Where its chunk table begins in the slot.
    pub(super) table: u64,
}

impl HeldImage {
    /// The id of its manifest.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        *self.signed.id().as_bytes()
    }
}

/// Why the manifest in a slot is not to be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TailError {
    /// The manifest cannot be read.
    #[error("the slot's manifest is unreadable")]
    Manifest(#[from] ManifestError),
    /// The manifest is not signed as the device demands.
    #[error("the slot's manifest is not trusted")]
    Trust(#[from] VerifyError),
    /// The slot's head names another image than the manifest behind it.
    #[error("the slot's head names another image than its manifest is")]
    OtherId,
    /// The image could not lie in this slot.
    #[error("the slot's manifest describes {needed} bytes, the slot holds {capacity}")]
    TooLarge {
        /// Bytes of the image.
        needed: u64,
        /// Bytes that the slot has for content.
        capacity: u64,
    },
}

/// Reads what a slot's tail says, from the medium, and judges it under the device's trust, with
/// the key set that it has [`adopted`](crate::adopted_keys), if any.
///
/// # Errors
///
/// If the slot is too small to hold anything, or its tail cannot be read.
pub fn inspect<F: Flash>(
    flash: &mut F,
    trust: &Trust,
    adopted: Option<&AdoptedKeys>,
) -> Result<Tail, ScrubError<F::Error>> {
    let layout = SlotLayout::new(&flash.geometry())?;
    let content = read_slot(flash, &layout).map_err(ScrubError::Flash)?;
    // What an install has staged for later is not what the slot holds.
    let Some((copy, held)) = content.whole().or_else(|| content.current()) else {
        return Ok(unused(&content));
    };
    Ok(match judge(held, &layout, copy, trust, adopted) {
        Ok(image) => Tail::Held(Box::new(HeldImage {
            spare: damage(&content.copies[1 - copy]),
            ..image
        })),
        Err(error) => Tail::NotAuthentic(error),
    })
}

fn unused(content: &SlotContent) -> Tail {
    let damaged = content.copies.iter().find_map(damage);
    damaged.map_or(Tail::Empty, Tail::Unusable)
}

fn damage(copy: &CopyState) -> Option<CopyError> {
    match copy {
        CopyState::Damaged(error) => Some(*error),
        CopyState::Empty | CopyState::Held(_) => None,
    }
}

/// Whether a copy of the description is what a trusted key signed.
pub(crate) fn judge(
    held: &HeldCopy,
    layout: &SlotLayout,
    copy: usize,
    trust: &Trust,
    adopted: Option<&AdoptedKeys>,
) -> Result<HeldImage, TailError> {
    let signed = SignedManifest::parse(held.manifest.as_slice())?;
    let verified = verify_held(&signed, trust, adopted)?;
    let (manifest, unsigned) = (verified.manifest, verified.signed == Signed::Unsigned);
    if *signed.id().as_bytes() != held.header.id {
        return Err(TailError::OtherId);
    }
    let table = &layout.copies[copy].table;
    if manifest.size > layout.data_len() || manifest.table.len_bytes() > layout.table_len() {
        return Err(TailError::TooLarge {
            needed: manifest.size,
            capacity: layout.data_len(),
        });
    }
    Ok(HeldImage {
        unsigned,
        complete: held.complete,
        sequence: held.header.sequence,
        spare: None,
        table: table.start,
        signed,
    })
}
