use alloc::collections::BTreeSet;
use std::io::{Read, Seek};

use crate::{Hash, ImageFile, WalkError};

/// Says what a device that holds the image `old` must fetch to get the image `new`.
///
/// It reads the two tables, not the chunks, and looks at no signature. It holds one hash for each chunk of both images.
///
/// # Errors
///
/// When a table cannot be read or is damaged.
pub fn compare<A: Read + Seek, B: Read + Seek>(
    old: &mut ImageFile<A>,
    new: &mut ImageFile<B>,
) -> Result<Comparison, CompareError> {
    let mut known = BTreeSet::<Hash>::new();
    old.for_each_chunk(|_, chunk| {
        known.insert(chunk.hash);
        Ok(())
    })
    .map_err(CompareError::Old)?;
    let mut fetched = BTreeSet::<Hash>::new();
    let mut comparison = Comparison::default();
    new.for_each_chunk(|_, chunk| {
        let part = if known.contains(&chunk.hash) {
            &mut comparison.shared
        } else if fetched.insert(chunk.hash) {
            &mut comparison.fetch
        } else {
            &mut comparison.repeated
        };
        part.chunks += 1;
        part.raw_bytes += u64::from(chunk.raw_len);
        part.stored_bytes += u64::from(chunk.stored_len);
        Ok(())
    })
    .map_err(CompareError::New)?;
    Ok(comparison)
}

/// The chunks of a new image, by where a device that holds the old one gets them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// In the old image already.
    pub shared: Part,
    /// To be fetched.
    pub fetch: Part,
    /// The same as one fetched before.
    pub repeated: Part,
}

/// Some of the chunks of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// How many.
    pub chunks: u32,
    /// Their raw length in bytes.
    pub raw_bytes: u64,
    /// Their stored length in bytes: what fetching them transfers.
    pub stored_bytes: u64,
}

/// Why two images cannot be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// The old image's table cannot be read.
    #[error("old image: {0}")]
    Old(WalkError),
    /// The new image's table cannot be read.
    #[error("new image: {0}")]
    New(WalkError),
}
