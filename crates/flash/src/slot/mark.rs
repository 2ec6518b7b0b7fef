use crate::CopyHeader;

/// The mark that says: every byte of the slot is as this copy's manifest wants it.
///
/// | offset | bytes | |
/// |---|---|---|
/// | 0 | 8 | magic `89 52 4B 45 4E 44 0D 0A` (`\x89RKEND\r\n`) |
/// | 8 | 2 | version, 1 |
/// | 10 | 6 | zero |
/// | 16 | 8 | sequence of the copy |
/// | 24 | 32 | id of the manifest |
/// | 56 | 4 | zero |
/// | 60 | 4 | CRC-32 over bytes 0 to 59 |
///
/// It names the sequence as well as the manifest, so that a mark left from an earlier install of
/// the same manifest into the same copy does not count.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CompletionMark;

impl CompletionMark {
    /// How long a mark is; the caller pads to the write size.
    pub const LEN: usize = 64;

    /// Writes the mark for the copy with this header.
    #[must_use]
    pub fn encode(header: &CopyHeader) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&header.sequence.to_le_bytes());
        bytes[24..56].copy_from_slice(&header.id);
        let crc = crc32fast::hash(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Whether these bytes, the start of a mark area, complete the copy with this header.
    #[must_use]
    pub fn matches(bytes: &[u8], header: &CopyHeader) -> bool {
        bytes
            .get(..Self::LEN)
            .is_some_and(|mark| mark == Self::encode(header))
    }
}

const MAGIC: [u8; 8] = *b"\x89RKEND\r\n";
const VERSION: u16 = 1;
const CRC_AT: usize = 60;
