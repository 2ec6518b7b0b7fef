//! The two kinds of table pages as bytes.

use super::PAGE_SIZE;
use crate::Hash;

/// Chunks on a leaf: what fits after its head.
pub(super) const ENTRIES: u32 = 102;
/// Children of an index page.
pub(super) const CHILDREN: u64 = 128;
/// Head of a leaf: the raw and the stored offset of its first chunk.
const HEAD_LEN: usize = 16;
const ENTRY_LEN: usize = 40;

pub(super) type Page = [u8; PAGE_LEN];
pub(super) const PAGE_LEN: usize = 4096;
const _: () = assert!(PAGE_SIZE == 4096 && HEAD_LEN + 102 * ENTRY_LEN == PAGE_LEN);

/// One chunk on a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) hash: Hash,
    pub(super) raw_len: u32,
    pub(super) stored_len: u32,
}

/// The raw and the stored offset of a leaf's first chunk.
pub(super) fn head(page: &Page) -> (u64, u64) {
    let (raw, stored) = (field(page, 0), field(page, 8));
    (u64::from_le_bytes(raw), u64::from_le_bytes(stored))
}

pub(super) fn entry(page: &Page, index: usize) -> Entry {
    let at = HEAD_LEN + index * ENTRY_LEN;
    Entry {
        hash: Hash::from_bytes(field(page, at)),
        raw_len: u32::from_le_bytes(field(page, at + 32)),
        stored_len: u32::from_le_bytes(field(page, at + 36)),
    }
}

/// Whether a leaf holds nothing after its first `used` chunks.
pub(super) fn is_leaf_clear_after(page: &Page, used: usize) -> bool {
    page[HEAD_LEN + used * ENTRY_LEN..]
        .iter()
        .all(|&byte| byte == 0)
}

pub(super) fn child(page: &Page, index: usize) -> Hash {
    Hash::from_bytes(field(page, index * Hash::LEN))
}

/// Whether an index page holds nothing after its first `used` children.
pub(super) fn is_index_clear_after(page: &Page, used: usize) -> bool {
    page[used * Hash::LEN..].iter().all(|&byte| byte == 0)
}

#[cfg(feature = "pack")]
pub(super) fn set_head(page: &mut Page, raw_offset: u64, stored_offset: u64) {
    page[..8].copy_from_slice(&raw_offset.to_le_bytes());
    page[8..HEAD_LEN].copy_from_slice(&stored_offset.to_le_bytes());
}

#[cfg(feature = "pack")]
pub(super) fn set_entry(page: &mut Page, index: usize, entry: &Entry) {
    let at = HEAD_LEN + index * ENTRY_LEN;
    page[at..at + 32].copy_from_slice(entry.hash.as_bytes());
    page[at + 32..at + 36].copy_from_slice(&entry.raw_len.to_le_bytes());
    page[at + 36..at + 40].copy_from_slice(&entry.stored_len.to_le_bytes());
}

#[cfg(feature = "pack")]
pub(super) fn set_child(page: &mut Page, index: usize, hash: &Hash) {
    let at = index * Hash::LEN;
    page[at..at + Hash::LEN].copy_from_slice(hash.as_bytes());
}

fn field<const N: usize>(page: &Page, at: usize) -> [u8; N] {
    page[at..at + N]
        .try_into()
        .expect("a slice of N bytes is an array of N bytes")
}
