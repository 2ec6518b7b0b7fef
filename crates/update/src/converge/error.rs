use rekindle_image::{ChunkError, PAGE_SIZE, TableError};

/// Why a slot could not be made to match its manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConvergeError {
    /// The image does not fit the slot.
    #[error("the image needs {needed} bytes, the slot holds {capacity}")]
    TooLarge {
        /// Bytes of the image.
        needed: u64,
        /// Bytes that the slot has for content.
        capacity: u64,
    },
    /// The chunk table does not fit the slot's tail: the image has too many chunks for it.
    #[error(
        "the chunk table needs {needed} bytes, the slot has {capacity}; pack with larger chunks"
    )]
    TableTooLarge {
        /// Bytes of the table.
        needed: u64,
        /// Bytes that the slot has for a table.
        capacity: u64,
    },
    /// The flash writes in larger units than the chunk table's pages.
    #[error(
        "the flash writes {write_size} bytes at a time, of which a page of the chunk table ({PAGE_SIZE}) is no multiple"
    )]
    WriteUnit {
        /// The flash's write unit.
        write_size: u32,
    },
    /// The source sent a page of the chunk table that the manifest does not know.
    #[error("page {page} of the chunk table is not the signed one")]
    BadTable {
        /// The page's number.
        page: u32,
        /// What is wrong with it.
        source: TableError,
    },
    /// A page of the table was good when written and is not when read back.
    #[error("page {page} of the chunk table does not read back as written; the flash may be worn")]
    TableReadBack {
        /// The page's number.
        page: u32,
    },
    /// The source sent a chunk that the manifest does not know. Nothing of it was written.
    #[error("chunk {chunk} (byte {offset} of the image) is not the signed one")]
    BadChunk {
        /// The chunk's number.
        chunk: u32,
        /// Where it lies in the image's content.
        offset: u64,
        /// What is wrong with it.
        source: ChunkError,
    },
    /// A chunk reads back otherwise than it was written, again and again.
    #[error(
        "chunk {chunk} (byte {offset} of the slot) does not read back as written; the flash may be worn"
    )]
    ReadBack {
        /// The chunk's number.
        chunk: u32,
        /// Where it lies in the slot.
        offset: u64,
    },
    /// More would have to be fetched than may be. Nothing of that was fetched.
    #[error(
        "the image needs at least {needed} bytes from the network, and {limit} may be fetched; raise the limit"
    )]
    Budget {
        /// What had to be fetched in all, with what has been already.
        needed: u64,
        /// The limit.
        limit: u64,
    },
    /// The caller answered something that was not asked.
    #[error("an answer came that nothing had asked for")]
    Misuse,
}
