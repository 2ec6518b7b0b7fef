use alloc::vec::Vec;

use super::layout::HEADER_LEN;

/// The longest signed manifest that a slot holds.
pub const MANIFEST_MAX: u32 = 16 * 1024;

/// What stands before a manifest in a slot's tail: which manifest it is, and how recent.
///
/// | offset | bytes | |
/// |---|---|---|
/// | 0 | 8 | magic `89 52 4B 53 4C 54 0D 0A` (`\x89RKSLT\r\n`) |
/// | 8 | 2 | version, 1 |
/// | 10 | 2 | zero |
/// | 12 | 4 | length of the manifest, at most 16384 |
/// | 16 | 8 | sequence |
/// | 24 | 32 | id of the manifest |
/// | 56 | 68 | zero |
/// | 124 | 4 | CRC-32 over bytes 0 to 123 and the manifest |
/// | 128 | | the signed manifest |
///
/// Numbers are little-endian.
#[expect(clippy::exhaustive_structs, reason = "mirrors a frozen format")]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CopyHeader {
    /// Of two copies the one with the higher sequence describes the slot.
    pub sequence: u64,
    /// The id of the manifest that follows.
    pub id: [u8; 32],
    /// How long the manifest is, in bytes.
    pub manifest_len: u32,
}

impl CopyHeader {
    /// Describes `manifest`.
    ///
    /// # Errors
    ///
    /// The manifest is longer than [`MANIFEST_MAX`].
    pub fn new(sequence: u64, id: [u8; 32], manifest: &[u8]) -> Result<Self, ManifestTooLong> {
        match u32::try_from(manifest.len()) {
            Ok(manifest_len) if manifest_len <= MANIFEST_MAX => Ok(Self {
                sequence,
                id,
                manifest_len,
            }),
            Ok(_) | Err(_) => Err(ManifestTooLong {
                len: manifest.len(),
            }),
        }
    }

    /// Writes the header and the manifest, as they begin the head area of a copy; the caller pads
    /// to the write size.
    ///
    /// # Panics
    ///
    /// If `manifest` is not of the length that the header states.
    #[must_use]
    pub fn encode(&self, manifest: &[u8]) -> Vec<u8> {
        assert_eq!(
            u32::try_from(manifest.len()),
            Ok(self.manifest_len),
            "the header describes another manifest"
        );
        let mut bytes = Vec::with_capacity(HEADER_BYTES + manifest.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&self.manifest_len.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&self.id);
        bytes.resize(CRC_AT, 0);
        let crc = checksum(&bytes, manifest);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(manifest);
        bytes
    }

    /// Reads the head area of a copy and returns the header with the manifest behind it. Bytes
    /// after the manifest are padding.
    ///
    /// # Errors
    ///
    /// [`CopyError::Empty`] where nothing was ever written; otherwise what does not fit.
    pub fn decode(head: &[u8]) -> Result<(Self, &[u8]), CopyError> {
        let Some((header, rest)) = head.split_first_chunk::<HEADER_BYTES>() else {
            return Err(CopyError::TooShort { len: head.len() });
        };
        if is_blank(header) {
            return Err(CopyError::Empty);
        }
        if header[..8] != MAGIC {
            return Err(CopyError::NotACopy);
        }
        let version = u16::from_le_bytes(field(header, 8));
        if version != VERSION {
            return Err(CopyError::UnknownVersion { version });
        }
        let manifest_len = u32::from_le_bytes(field(header, 12));
        if manifest_len > MANIFEST_MAX {
            return Err(CopyError::ManifestLength { len: manifest_len });
        }
        let manifest = usize::try_from(manifest_len)
            .ok()
            .and_then(|len| rest.get(..len))
            .ok_or(CopyError::TooShort { len: head.len() })?;
        let stored = u32::from_le_bytes(field(header, CRC_AT));
        if stored != checksum(&header[..CRC_AT], manifest) {
            return Err(CopyError::Checksum);
        }
        if header[10..12] != [0; 2] || header[56..CRC_AT].iter().any(|byte| *byte != 0) {
            return Err(CopyError::Reserved);
        }
        let header = Self {
            sequence: u64::from_le_bytes(field(header, 16)),
            id: field(header, 24),
            manifest_len,
        };
        Ok((header, manifest))
    }
}

/// The manifest does not fit into a slot's tail.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a manifest of {len} bytes is too long: a slot holds at most {MANIFEST_MAX} bytes")]
pub struct ManifestTooLong {
    /// Its length in bytes.
    pub len: usize,
}

/// Why a copy in a slot's tail cannot be used.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CopyError {
    /// Nothing was ever written: all bytes of the header are `0x00` or all are `0xff`.
    #[error("the copy is empty")]
    Empty,
    /// The magic is wrong: something else was written here, or the header is damaged.
    #[error("this is no slot header")]
    NotACopy,
    /// Written by a firmware that knows a later format; update before you use the slot.
    #[error("slot header version {version} is not known, only {VERSION} is")]
    UnknownVersion {
        /// The version found.
        version: u16,
    },
    /// The header states a manifest longer than any slot holds.
    #[error(
        "the slot header states a manifest of {len} bytes; at most {MANIFEST_MAX} are possible"
    )]
    ManifestLength {
        /// The length found.
        len: u32,
    },
    /// The bytes end before the header and its manifest do.
    #[error("{len} bytes are too few for a slot header and its manifest")]
    TooShort {
        /// How many bytes there are.
        len: usize,
    },
    /// The header or the manifest was damaged, or a power cut interrupted its writing.
    #[error("the checksum of the slot header and its manifest is wrong")]
    Checksum,
    /// A reserved byte is not zero, under a right checksum.
    #[error("a reserved byte of the slot header is not zero")]
    Reserved,
}

/// Whether nothing was ever written here: a file or a new block device reads zeros, erased flash ones.
fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0) || bytes.iter().all(|byte| *byte == 0xff)
}

fn checksum(header: &[u8], manifest: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(header);
    crc.update(manifest);
    crc.finalize()
}

/// Copies the field of `N` bytes at a constant offset.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

const MAGIC: [u8; 8] = *b"\x89RKSLT\r\n";
const VERSION: u16 = 1;
const CRC_AT: usize = 124;
const HEADER_BYTES: usize = 128;
const _: () = assert!(HEADER_LEN == 128 && CRC_AT + 4 == HEADER_BYTES);
