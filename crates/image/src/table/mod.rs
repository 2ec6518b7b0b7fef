#[cfg(feature = "pack")]
mod builder;
mod cursor;
mod page;
mod tree;

#[cfg(feature = "pack")]
pub(crate) use self::builder::{spooled_entry, write_table};
pub use self::cursor::{Cursor, TableError};
use self::tree::Tree;
use crate::Hash;

/// Length of a table page in bytes.
pub const PAGE_SIZE: u32 = 4096;

/// What the manifest says about the chunk table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// How many chunks the image has.
    pub chunks: u32,
    /// The longest raw chunk in bytes: the memory that one chunk needs.
    pub max_chunk: u32,
    /// Hash of page 0, from which every other page follows.
    pub root: Hash,
}

impl TableInfo {
    /// Shortest chunk but the last one; it bounds the table by the size of the image.
    pub const MIN_CHUNK: u32 = 1024;
    /// Longest chunk: 1 MiB.
    pub const MAX_CHUNK: u32 = 1024 * 1024;
    /// How many chunks one leaf page lists: chunks 0 to 101 are on the first leaf.
    pub const CHUNKS_PER_LEAF: u32 = page::ENTRIES;

    /// How many pages the table has.
    #[must_use]
    pub fn page_count(&self) -> u32 {
        Tree::of(self.chunks).page_count()
    }

    /// The room that the table needs in a file or a slot, in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        u64::from(self.page_count()) * u64::from(PAGE_SIZE)
    }
}

/// One chunk of an image, as the verified table lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Counted from 0.
    pub index: u32,
    /// Where its raw bytes lie in the image, and so in the slot.
    pub raw_offset: u64,
    /// How many raw bytes.
    pub raw_len: u32,
    /// Where its stored bytes lie, counted from the start of the stored chunks ([`Layout::chunks`](crate::Layout::chunks)).
    pub stored_offset: u64,
    /// How many stored bytes. As many as raw ones: they are the raw bytes. Fewer: one zstd frame.
    pub stored_len: u32,
    /// Hash of the raw bytes.
    pub hash: Hash,
}
