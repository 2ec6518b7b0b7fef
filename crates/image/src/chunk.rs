use alloc::vec::Vec;
use core::fmt;

use crate::frame::{self, Backend};
use crate::{Chunk, Hash};

impl Chunk {
    /// Whether `raw` are the raw bytes of this chunk: the whole test when it is read back from a slot or got from a peer.
    #[must_use]
    pub fn matches(&self, raw: &[u8]) -> bool {
        u32::try_from(raw.len()) == Ok(self.raw_len) && Hash::of(raw) == self.hash
    }

    /// Whether its stored bytes are its raw bytes, so that nothing needs decoding.
    #[must_use]
    pub const fn is_stored_raw(&self) -> bool {
        self.stored_len == self.raw_len
    }
}

/// Turns stored chunks into raw ones. It keeps the memory of the decompressor from chunk to chunk; [`decode_chunk`] does for one.
pub struct Decoder {
    backend: Backend,
}

impl Decoder {
    /// A decoder for any number of chunks.
    #[must_use]
    pub fn new() -> Self {
        Self {
            backend: Backend::new(),
        }
    }

    /// Writes the raw bytes of `chunk` to `out`, in place of what it holds, and verifies them. After an error `out` is empty.
    ///
    /// `out` grows to the chunk's raw length and no further, whatever `stored` holds; a [`Cursor`](crate::Cursor) yields no chunk longer
    /// than its manifest's `max_chunk`.
    ///
    /// # Errors
    ///
    /// When `stored` is not what the image stores for this chunk.
    pub fn decode(
        &mut self,
        chunk: &Chunk,
        stored: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), ChunkError> {
        let result = self.decode_unverified(chunk, stored, out);
        let result = result.and_then(|()| {
            if Hash::of(out) == chunk.hash {
                Ok(())
            } else {
                Err(ChunkError::Hash)
            }
        });
        if result.is_err() {
            out.clear();
        }
        result
    }

    fn decode_unverified(
        &mut self,
        chunk: &Chunk,
        stored: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), ChunkError> {
        out.clear();
        if u32::try_from(stored.len()) != Ok(chunk.stored_len) {
            return Err(ChunkError::StoredLength {
                expected: chunk.stored_len,
                len: stored.len(),
            });
        }
        if chunk.is_stored_raw() {
            out.extend_from_slice(stored);
            return Ok(());
        }
        let expected = chunk.raw_len;
        let says = frame::content_len(stored).ok_or(ChunkError::Frame)?;
        if says != u64::from(expected) {
            return Err(ChunkError::FrameLength { expected, says });
        }
        let raw_len = usize::try_from(expected).map_err(|_| ChunkError::Frame)?;
        out.resize(raw_len, 0);
        match self.backend.decode(stored, out)? {
            len if len == raw_len => Ok(()),
            len => Err(ChunkError::TooShort { expected, len }),
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

/// Writes the raw bytes of one `chunk` to `out`, in place of what it holds, and verifies them: [`Decoder::decode`] without a decoder kept.
///
/// # Errors
///
/// When `stored` is not what the image stores for this chunk.
pub fn decode_chunk(chunk: &Chunk, stored: &[u8], out: &mut Vec<u8>) -> Result<(), ChunkError> {
    Decoder::new().decode(chunk, stored, out)
}

/// Why stored bytes are not the chunk they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// More or fewer stored bytes than the table says.
    #[error("{len} stored bytes instead of {expected}")]
    StoredLength {
        /// What the table says.
        expected: u32,
        /// How many there are.
        len: usize,
    },
    /// The bytes are no single zstd frame of the form the format allows, or it is damaged.
    #[error("the compressed frame is damaged")]
    Frame,
    /// The frame announces another length than the table.
    #[error("the compressed frame announces {says} bytes instead of {expected}")]
    FrameLength {
        /// What the table says.
        expected: u32,
        /// What the frame says.
        says: u64,
    },
    /// The frame holds more than the table says: a decompression bomb, stopped at the chunk's length.
    #[error("the compressed frame holds more than the {expected} bytes it should")]
    TooLong {
        /// What the table says.
        expected: u32,
    },
    /// The frame holds less than the table says.
    #[error("the compressed frame holds {len} bytes instead of {expected}")]
    TooShort {
        /// What the table says.
        expected: u32,
        /// How many came out.
        len: usize,
    },
    /// The raw bytes are others than the ones signed for.
    #[error("the bytes are not the ones signed for: their hash differs")]
    Hash,
    /// The chunk is compressed and this program was built without a decoder (features `zstd` and `ruzstd`).
    #[error("the chunk is compressed and this program was built without a decoder")]
    NoDecoder,
}
