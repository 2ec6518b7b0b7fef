//! Which of the two copies in a slot's tail is to describe the image.

use rekindle_flash::{CopyHeader, CopyState, SlotContent};

use super::len_u32;

/// Which copy of the slot's tail is to describe the image.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about two copies"
)]
pub(super) struct Target {
    pub(super) copy: usize,
    pub(super) header: CopyHeader,
    /// The copy's mark completes the header.
    pub(super) marked: bool,
    /// The copy speaks for the slot already: its header may stay.
    pub(super) speaks: bool,
    /// The copy holds this manifest, and so perhaps its table.
    pub(super) held: bool,
    /// The copy's head cannot be used, and a mark may stand behind it that would complete another
    /// head of the same sequence.
    pub(super) damaged: bool,
    /// The other copy's mark completes its header, which is about to become untrue.
    pub(super) other_marked: bool,
}

impl Target {
    /// A copy that holds the manifest, else the one that does not describe the old content.
    pub(super) fn find(content: &SlotContent, id: [u8; 32], signed: &[u8]) -> Self {
        let fresh = CopyHeader {
            sequence: content.next_sequence(),
            id,
            manifest_len: len_u32(signed.len()),
        };
        let speakers = [content.current(), content.whole()].map(|held| held.map(|held| held.0));
        for (copy, state) in content.copies.iter().enumerate() {
            let CopyState::Held(held) = state else {
                continue;
            };
            if held.header.id != id || held.manifest != signed {
                continue;
            }
            let speaks = speakers.contains(&Some(copy));
            return Self {
                copy,
                header: if speaks { held.header } else { fresh },
                marked: speaks && held.complete,
                speaks,
                held: true,
                damaged: false,
                other_marked: is_complete(content, 1 - copy),
            };
        }
        let copy = content.next_copy();
        Self {
            copy,
            header: fresh,
            marked: false,
            speaks: false,
            held: false,
            damaged: matches!(content.copies[copy], CopyState::Damaged(_)),
            other_marked: is_complete(content, 1 - copy),
        }
    }
}

fn is_complete(content: &SlotContent, copy: usize) -> bool {
    matches!(&content.copies[copy], CopyState::Held(held) if held.complete)
}
