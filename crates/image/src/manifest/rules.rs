use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::{Manifest, Requirement};
use crate::key_set::check_numbers;
use crate::{KeySet, KeySetError, TableInfo};

impl Manifest {
    /// Checks every rule that the encoding itself does not enforce.
    pub(crate) fn check(&self) -> Result<(), ManifestError> {
        check_list(
            Field::DeviceTypes,
            &self.device_types,
            1..=Self::MAX_DEVICE_TYPES,
        )?;
        check_list(Field::Hardware, &self.hardware, 0..=Self::MAX_HARDWARE)?;
        check_component(Field::Component, &self.component)?;
        check_text(Field::Build, &self.build)?;
        if self.size == 0 || self.size > Self::MAX_SIZE {
            return Err(ManifestError::Size { size: self.size });
        }
        if self.stored_size == 0 || self.stored_size > self.size {
            return Err(ManifestError::StoredSize {
                stored_size: self.stored_size,
                size: self.size,
            });
        }
        self.check_table()?;
        self.check_requires()?;
        check_count(Field::KeySets, self.key_sets.len(), 0..=KeySet::MAX_CHAIN)?;
        check_numbers(&self.key_sets)
            .map_err(|(before, number)| ManifestError::KeySetNumber { before, number })
    }

    fn check_table(&self) -> Result<(), ManifestError> {
        let TableInfo {
            chunks, max_chunk, ..
        } = self.table;
        if !(TableInfo::MIN_CHUNK..=TableInfo::MAX_CHUNK).contains(&max_chunk) {
            return Err(ManifestError::MaxChunk { max_chunk });
        }
        let fewest = self.size.div_ceil(u64::from(max_chunk));
        let most = self.size.div_ceil(u64::from(TableInfo::MIN_CHUNK));
        if !(fewest..=most).contains(&u64::from(chunks)) || self.stored_size < u64::from(chunks) {
            return Err(ManifestError::Chunks {
                chunks,
                size: self.size,
                fewest,
                most: most.min(self.stored_size),
            });
        }
        Ok(())
    }

    fn check_requires(&self) -> Result<(), ManifestError> {
        check_count(Field::Requires, self.requires.len(), 0..=Self::MAX_REQUIRES)?;
        for (index, Requirement { component, .. }) in self.requires.iter().enumerate() {
            check_component(Field::Requires, component)?;
            if self.requires[..index]
                .iter()
                .any(|earlier| earlier.component == *component)
            {
                return Err(ManifestError::Repeated(Field::Requires));
            }
        }
        Ok(())
    }
}

/// A field of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// The device types.
    DeviceTypes,
    /// The hardware revisions.
    Hardware,
    /// The component.
    Component,
    /// The build.
    Build,
    /// The release.
    Release,
    /// The security version.
    SecurityVersion,
    /// The raw size.
    Size,
    /// The chunk table, or a field of it.
    Table,
    /// The stored size.
    StoredSize,
    /// The hash over the stored chunks.
    StoredHash,
    /// The requirements, or one of them.
    Requires,
    /// The key sets.
    KeySets,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DeviceTypes => "device types",
            Self::Hardware => "hardware",
            Self::Component => "component",
            Self::Build => "build",
            Self::Release => "release",
            Self::SecurityVersion => "security version",
            Self::Size => "size",
            Self::Table => "table",
            Self::StoredSize => "stored size",
            Self::StoredHash => "stored hash",
            Self::Requires => "requires",
            Self::KeySets => "key sets",
        })
    }
}

/// Why bytes are no signed manifest, or a value cannot become one.
///
/// Whoever made the image is at fault, or the bytes were damaged on their way; trying the same bytes again does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Longer than [`FileHeader::MAX_MANIFEST_LEN`](crate::FileHeader::MAX_MANIFEST_LEN).
    #[error("a signed manifest of {len} bytes is longer than the {limit} bytes allowed")]
    TooLong {
        /// The length.
        len: usize,
        /// The longest allowed.
        limit: u32,
    },
    /// No COSE signature envelope: damaged, truncated, or something after its end.
    #[error("the manifest's signature envelope is damaged or truncated")]
    Envelope,
    /// An envelope, but written differently than the format says: other headers, or not in the shortest form.
    #[error("the manifest's signature envelope is not in the one form that the format allows")]
    EnvelopeForm,
    /// A signer uses something else than Ed25519, or is not named by 8 bytes.
    #[error("signer {signer} of the manifest is not an Ed25519 signer named by an 8-byte key id")]
    Signer {
        /// Counted from 1.
        signer: usize,
    },
    /// More signers than [`SignedManifest::MAX_SIGNERS`](crate::SignedManifest::MAX_SIGNERS).
    #[error("{count} signers are more than the {limit} allowed")]
    TooManySigners {
        /// How many.
        count: usize,
        /// The most allowed.
        limit: usize,
    },
    /// The signed bytes are no manifest.
    #[error("the manifest is damaged at its byte {position}")]
    Malformed {
        /// Where in the payload decoding stopped.
        position: usize,
    },
    /// Bytes follow the manifest inside its envelope.
    #[error("bytes follow the manifest inside its envelope")]
    TrailingBytes,
    /// A key below 64 that this version does not know: the image needs a newer program.
    #[error("manifest key {0} is not known here: the image needs a newer version of this program")]
    UnknownKey(u64),
    /// Keys must rise; this one does not.
    #[error("manifest key {0} is repeated or out of order")]
    KeyOrder(u64),
    /// A field that must be there is not.
    #[error("the manifest has no {0}")]
    Missing(Field),
    /// A list is longer or shorter than allowed.
    #[error("{field}: {count} entries, but {fewest} to {most} are allowed")]
    Count {
        /// The list.
        field: Field,
        /// How many entries it has.
        count: usize,
        /// The fewest allowed.
        fewest: usize,
        /// The most allowed.
        most: usize,
    },
    /// A list holds an entry twice.
    #[error("{0}: an entry is repeated")]
    Repeated(Field),
    /// A text is empty or too long.
    #[error("{field}: a text of {len} bytes, but 1 to {limit} are allowed")]
    TextLength {
        /// The field.
        field: Field,
        /// Its length in bytes.
        len: usize,
        /// The longest allowed.
        limit: usize,
    },
    /// A text holds a control character, or a component name something else than `a-z 0-9 - _ .`.
    #[error("{field}: the character {character:?} is not allowed")]
    Character {
        /// The field.
        field: Field,
        /// The character.
        character: char,
    },
    /// An image of no bytes, or larger than the format allows ("endless data").
    #[error("the manifest claims {size} bytes, but 1 to {max} are allowed", max = Manifest::MAX_SIZE)]
    Size {
        /// The size claimed.
        size: u64,
    },
    /// The stored chunks would be empty or larger than the raw image.
    #[error("the manifest claims {stored_size} stored bytes for an image of {size} bytes")]
    StoredSize {
        /// The stored size claimed.
        stored_size: u64,
        /// The raw size.
        size: u64,
    },
    /// The largest chunk is out of range.
    #[error(
        "the manifest claims chunks of up to {max_chunk} bytes, but {min} to {max} are allowed",
        min = TableInfo::MIN_CHUNK, max = TableInfo::MAX_CHUNK
    )]
    MaxChunk {
        /// The length claimed.
        max_chunk: u32,
    },
    /// A table larger or smaller than the size of the image allows.
    #[error(
        "the manifest claims {chunks} chunks for {size} bytes, but {fewest} to {most} are possible"
    )]
    Chunks {
        /// The count claimed.
        chunks: u32,
        /// The raw size.
        size: u64,
        /// The fewest possible.
        fewest: u64,
        /// The most possible.
        most: u64,
    },
    /// One of its key sets is none.
    #[error("a key set in the manifest: {0}")]
    KeySet(KeySetError),
    /// The numbers of key sets rise by one; these two do not ("gap" or "duplicate").
    #[error("key set {number} follows set {before} in the manifest: the numbers must rise by one")]
    KeySetNumber {
        /// The number of the set before.
        before: u64,
        /// The one that does not follow.
        number: u64,
    },
}

fn check_list(
    field: Field,
    texts: &[String],
    allowed: core::ops::RangeInclusive<usize>,
) -> Result<(), ManifestError> {
    check_count(field, texts.len(), allowed)?;
    let mut sorted: Vec<&str> = texts.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(ManifestError::Repeated(field));
    }
    texts.iter().try_for_each(|text| check_text(field, text))
}

fn check_count(
    field: Field,
    count: usize,
    allowed: core::ops::RangeInclusive<usize>,
) -> Result<(), ManifestError> {
    if allowed.contains(&count) {
        Ok(())
    } else {
        Err(ManifestError::Count {
            field,
            count,
            fewest: *allowed.start(),
            most: *allowed.end(),
        })
    }
}

fn check_text(field: Field, text: &str) -> Result<(), ManifestError> {
    check_length(field, text, Manifest::MAX_TEXT_LEN)?;
    match text.chars().find(|character| character.is_control()) {
        None => Ok(()),
        Some(character) => Err(ManifestError::Character { field, character }),
    }
}

fn check_component(field: Field, name: &str) -> Result<(), ManifestError> {
    check_length(field, name, Manifest::MAX_COMPONENT_LEN)?;
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    match name.chars().find(|&character| !allowed(character)) {
        None => Ok(()),
        Some(character) => Err(ManifestError::Character { field, character }),
    }
}

fn check_length(field: Field, text: &str, limit: usize) -> Result<(), ManifestError> {
    if (1..=limit).contains(&text.len()) {
        Ok(())
    } else {
        Err(ManifestError::TextLength {
            field,
            len: text.len(),
            limit,
        })
    }
}
