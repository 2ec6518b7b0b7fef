//! Zstandard frames (RFC 8878) as the format allows them: one a chunk, a single segment, no dictionary.

#[cfg(feature = "zstd")]
mod zstd;
#[cfg(feature = "zstd")]
pub(crate) use self::zstd::Backend;

#[cfg(all(feature = "ruzstd", not(feature = "zstd")))]
mod ruzstd;
#[cfg(all(feature = "ruzstd", not(feature = "zstd")))]
pub(crate) use self::ruzstd::Backend;

#[cfg(not(any(feature = "ruzstd", feature = "zstd")))]
mod none;
#[cfg(not(any(feature = "ruzstd", feature = "zstd")))]
pub(crate) use self::none::Backend;

/// The content length that the frame announces. `None`: no frame, or one with a window of its own (which would choose how much memory
/// decoding needs), a dictionary or no announced length.
pub(crate) fn content_len(frame: &[u8]) -> Option<u64> {
    let rest = frame.strip_prefix(&MAGIC)?;
    let (&descriptor, rest) = rest.split_first()?;
    let is_single_segment = descriptor & 0x20 != 0;
    let reserved_or_dictionary = descriptor & 0x0b;
    if !is_single_segment || reserved_or_dictionary != 0 {
        return None;
    }
    Some(match descriptor >> 6 {
        0 => u64::from(*rest.first()?),
        1 => 256 + u64::from(u16::from_le_bytes(*rest.first_chunk()?)),
        2 => u64::from(u32::from_le_bytes(*rest.first_chunk()?)),
        _ => u64::from_le_bytes(*rest.first_chunk()?),
    })
}

/// The frame holds more than fits `out`, which has the length of the chunk.
#[cfg(any(feature = "ruzstd", feature = "zstd"))]
fn too_long(out: &[u8]) -> crate::ChunkError {
    crate::ChunkError::TooLong {
        expected: u32::try_from(out.len()).unwrap_or(u32::MAX),
    }
}

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_announced_length_of_every_width() {
        for (header, len) in [
            (&[0x28, 0xb5, 0x2f, 0xfd, 0x20, 9][..], Some(9)),
            (&[0x28, 0xb5, 0x2f, 0xfd, 0x60, 1, 2], Some(256 + 0x201)),
            (
                &[0x28, 0xb5, 0x2f, 0xfd, 0xa0, 1, 2, 3, 4],
                Some(0x0403_0201),
            ),
            (
                &[0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x10],
                Some(1 << 60),
            ),
            (&[0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0], None),
            (&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x50], None),
            (&[0x28, 0xb5, 0x2f, 0xfd, 0x21, 1, 9], None),
            (&[0x28, 0xb5, 0x2f, 0xfe, 0x20, 9], None),
            (&[], None),
        ] {
            assert_eq!(content_len(header), len, "{header:02x?}");
        }
    }
}
