use alloc::vec::Vec;
use std::io::{self, Read, Seek};

use crate::{
    ChunkError, Decoder, Hash, ImageFile, KeySet, Manifest, ManifestId, OpenError, Signed,
    TableError, Trust, VerifyError, WalkError,
};

/// Checks everything there is to check about an image file: form, signatures, every table page, every chunk, the hash over the stored
/// bytes, and that the file ends where it should. No changed byte passes, except within a signature by a key that is not trusted.
///
/// It reads the file once and holds one chunk at a time.
///
/// # Errors
///
/// The first thing that is wrong, with the chunk and the offset in the file where that can be said.
pub fn verify_image(reader: impl Read + Seek, trust: &Trust) -> Result<Report, VerifyImageError> {
    let mut image = ImageFile::open(reader)?;
    let verified = image.signed().verify_adopted(trust, None)?;
    let (manifest, signed) = (verified.manifest.clone(), verified.signed);
    let key_set = verified.key_set.cloned();
    let mut decoder = Decoder::new();
    let mut hasher = blake3::Hasher::new();
    let (mut stored, mut raw) = (Vec::new(), Vec::new());
    let mut compressed = 0;
    image.for_each_chunk(|image, chunk| {
        image
            .read_stored(chunk, &mut stored)
            .map_err(VerifyImageError::Read)?;
        hasher.update(&stored);
        compressed += u32::from(!chunk.is_stored_raw());
        decoder
            .decode(chunk, &stored, &mut raw)
            .map_err(|error| VerifyImageError::Chunk {
                chunk: chunk.index,
                offset: image.stored_offset(chunk),
                error,
            })
    })?;
    if Hash::from_bytes(*hasher.finalize().as_bytes()) != manifest.stored_hash {
        return Err(VerifyImageError::StoredHash);
    }
    Ok(Report {
        id: image.signed().id(),
        signed,
        key_set,
        manifest,
        compressed,
    })
}

/// What a verified image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Names the image.
    pub id: ManifestId,
    /// By how many of the trusted keys it is signed.
    pub signed: Signed,
    /// The last of the key sets that it carries, whose keys these are; `None`: it carries none.
    pub key_set: Option<KeySet>,
    /// What it says about itself.
    pub manifest: Manifest,
    /// How many of its chunks are stored compressed.
    pub compressed: u32,
}

/// What is wrong with an image file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyImageError {
    /// Reading failed: nothing is known about the image.
    #[error("cannot read the image: {0}")]
    Read(io::Error),
    /// No image, or not the whole of one.
    #[error(transparent)]
    Open(OpenError),
    /// The signatures do not suffice.
    #[error(transparent)]
    Signature(#[from] VerifyError),
    /// A page of the chunk table is wrong.
    #[error("at byte {offset}: {error}")]
    Table {
        /// Offset of the page in the file.
        offset: u64,
        /// What is wrong with it.
        error: TableError,
    },
    /// A chunk is wrong.
    #[error("chunk {chunk} at byte {offset}: {error}")]
    Chunk {
        /// Which one, counted from 0.
        chunk: u32,
        /// Where its stored bytes begin in the file.
        offset: u64,
        /// What is wrong with it.
        error: ChunkError,
    },
    /// Every chunk decodes to the right bytes, but is not stored as it was signed.
    #[error("the stored bytes are not the ones signed for: the hash over all of them differs")]
    StoredHash,
}

impl From<OpenError> for VerifyImageError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Read(error) => Self::Read(error),
            error => Self::Open(error),
        }
    }
}

impl From<WalkError> for VerifyImageError {
    fn from(error: WalkError) -> Self {
        match error {
            WalkError::Read(error) => Self::Read(error),
            WalkError::Table { offset, error } => Self::Table { offset, error },
        }
    }
}
