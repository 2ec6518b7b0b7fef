use core::ops::Range;

use crate::Manifest;
use crate::table::PAGE_SIZE;

/// The first 16 bytes of an image file: what it is, and how long its signed manifest is.
///
/// | offset | length | content |
/// |---|---|---|
/// | 0 | 8 | magic `89 52 4B 49 4D 47 0D 0A` |
/// | 8 | 2 | version, little-endian, 1 |
/// | 10 | 2 | reserved, 0 |
/// | 12 | 4 | length of the signed manifest, little-endian |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// Length in bytes of the signed manifest that follows, 1 to [`FileHeader::MAX_MANIFEST_LEN`].
    pub manifest_len: u32,
}

impl FileHeader {
    /// Length of the header in bytes.
    pub const LEN: usize = 16;
    /// Longest signed manifest: it fits the memory of a small device and the area a slot keeps for it.
    pub const MAX_MANIFEST_LEN: u32 = 16 * 1024;

    /// Reads a header.
    ///
    /// # Errors
    ///
    /// When the bytes are no image, an image of a later version, or name a manifest of impossible length.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, HeaderError> {
        let [magic @ .., v0, v1, r0, r1, l0, l1, l2, l3] = *bytes;
        if magic != MAGIC {
            return Err(HeaderError::NotAnImage);
        }
        let version = u16::from_le_bytes([v0, v1]);
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        if [r0, r1] != [0, 0] {
            return Err(HeaderError::Reserved);
        }
        let manifest_len = u32::from_le_bytes([l0, l1, l2, l3]);
        if manifest_len == 0 || manifest_len > Self::MAX_MANIFEST_LEN {
            return Err(HeaderError::ManifestLength(manifest_len));
        }
        Ok(Self { manifest_len })
    }

    /// Writes the header.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let [v0, v1] = VERSION.to_le_bytes();
        let [l0, l1, l2, l3] = self.manifest_len.to_le_bytes();
        let [m0, m1, m2, m3, m4, m5, m6, m7] = MAGIC;
        [m0, m1, m2, m3, m4, m5, m6, m7, v0, v1, 0, 0, l0, l1, l2, l3]
    }
}

/// Why 16 bytes are no header of an image file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The magic differs: another kind of file, or one mangled on its way (CR LF translation, a stripped eighth bit).
    #[error("not a Rekindle image: the first 8 bytes differ from its magic")]
    NotAnImage,
    /// Made by a later packer: this program is too old for it.
    #[error("image format version {0} is not known here, only version {VERSION}")]
    Version(u16),
    /// The reserved bytes hold something.
    #[error("the reserved bytes of the image header are not zero")]
    Reserved,
    /// The signed manifest would be empty or longer than the format allows.
    #[error(
        "the image header gives the manifest {0} bytes, but 1 to {max} are allowed",
        max = FileHeader::MAX_MANIFEST_LEN
    )]
    ManifestLength(u32),
}

/// Where the parts of an image file lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The signed manifest.
    pub manifest: Range<u64>,
    /// The table pages.
    pub table: Range<u64>,
    /// The stored chunks; their offsets in the table count from its start.
    pub chunks: Range<u64>,
    /// The length of the whole file.
    pub file_len: u64,
}

impl Layout {
    /// What a device asks a server for first, in bytes: header, the longest manifest and the start of the table.
    pub const OPENING: u64 = 32 << 10;

    /// The layout of the file whose header says `manifest_len` and whose manifest is `manifest`.
    ///
    /// # Errors
    ///
    /// When a manifest that was not parsed but made by hand says lengths whose sum no file can have.
    pub fn of(manifest_len: u32, manifest: &Manifest) -> Result<Self, LayoutError> {
        const HEADER: u64 = 16;
        let page = u64::from(PAGE_SIZE);
        let manifest_end = HEADER + u64::from(manifest_len);
        let table_start = manifest_end.next_multiple_of(page);
        let chunks_start = table_start + manifest.table.len_bytes();
        let file_len = chunks_start
            .checked_add(manifest.stored_size)
            .ok_or(LayoutError {
                stored_size: manifest.stored_size,
            })?;
        Ok(Self {
            manifest: HEADER..manifest_end,
            table: table_start..chunks_start,
            chunks: chunks_start..file_len,
            file_len,
        })
    }

    /// Where in the file the table page `number` lies.
    #[must_use]
    pub fn page(&self, number: u32) -> Range<u64> {
        let page = u64::from(PAGE_SIZE);
        let start = self.table.start + u64::from(number) * page;
        start..start + page
    }
}

/// A stored size that no file can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a file cannot hold {stored_size} bytes of chunks")]
pub struct LayoutError {
    stored_size: u64,
}

const MAGIC: [u8; 8] = *b"\x89RKIMG\r\n";
const VERSION: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_survives_a_round_trip() {
        let header = FileHeader { manifest_len: 777 };
        assert_eq!(FileHeader::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn header_names_what_is_wrong() {
        let good = FileHeader { manifest_len: 777 }.encode();
        for (at, byte, error) in [
            (0, 0x09, HeaderError::NotAnImage),
            (8, 2, HeaderError::Version(2)),
            (11, 1, HeaderError::Reserved),
            (14, 1, HeaderError::ManifestLength(0x1_0309)),
        ] {
            let mut bad = good;
            bad[at] = byte;
            assert_eq!(FileHeader::decode(&bad), Err(error));
        }
        let empty = FileHeader { manifest_len: 0 }.encode();
        assert_eq!(
            FileHeader::decode(&empty),
            Err(HeaderError::ManifestLength(0))
        );
    }
}
