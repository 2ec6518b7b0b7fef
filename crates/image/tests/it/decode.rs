//! Decoding, whichever backend is built in.

use rekindle_image::{Chunk, ChunkError, Decoder, Hash, decode_chunk};

use crate::crafted::{self, CraftedChunk};
use crate::{trust, verify};

/// A frame that announces `says` bytes and holds blocks that each repeat one byte `times`.
fn bomb(says: u32, times: &[u32]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    frame.extend(says.to_le_bytes());
    for (index, len) in times.iter().enumerate() {
        let last = u32::from(index + 1 == times.len());
        frame.extend(&(last | 1 << 1 | len << 3).to_le_bytes()[..3]);
        frame.push(b'A');
    }
    frame
}

pub(crate) fn stored(raw_len: usize, raw: &[u8], stored: Vec<u8>) -> CraftedChunk {
    CraftedChunk {
        raw_len,
        hash: Hash::of(raw),
        stored,
    }
}

/// Decodes `frame` as a chunk of `raw_len` bytes `A`, and says how much memory the output took.
fn decode_as(raw_len: u32, frame: &[u8]) -> (Result<(), ChunkError>, usize) {
    let raw = vec![b'A'; usize::try_from(raw_len).unwrap()];
    let chunk = Chunk {
        index: 0,
        raw_offset: 0,
        raw_len,
        stored_offset: 0,
        stored_len: u32::try_from(frame.len()).unwrap(),
        hash: Hash::of(&raw),
    };
    let mut out = Vec::new();
    let result = decode_chunk(&chunk, frame, &mut out);
    assert_eq!(out, if result.is_ok() { raw } else { Vec::new() });
    (result, out.capacity())
}

#[test]
fn a_frame_of_the_announced_length_decodes() {
    for blocks in [&[4096][..], &[1, 4095], &[1000, 3000, 96]] {
        assert_eq!(decode_as(4096, &bomb(4096, blocks)).0, Ok(()));
    }
    let image = crafted::image(&[stored(4096, &[b'A'; 4096], bomb(4096, &[4096]))], |_| ());
    verify(&image, &trust(&[1], 1)).unwrap();
}

#[test]
fn a_bomb_is_stopped_at_the_length_of_its_chunk() {
    let blocks = [128 * 1024; 250];
    let (result, memory) = decode_as(4096, &bomb(4096, &blocks));
    assert!(
        matches!(
            result,
            Err(ChunkError::TooLong { expected: 4096 } | ChunkError::Frame)
        ),
        "{result:?}"
    );
    assert_eq!(memory, 4096);
    let (result, memory) = decode_as(4096, &bomb(4096, &[4096, 1]));
    assert_eq!(result, Err(ChunkError::TooLong { expected: 4096 }));
    assert_eq!(memory, 4096);
}

#[test]
fn a_frame_shorter_than_announced_is_refused() {
    let (result, _) = decode_as(4096, &bomb(4096, &[1000]));
    assert!(
        matches!(result, Err(ChunkError::Frame | ChunkError::TooShort { .. })),
        "{result:?}"
    );
}

#[test]
fn a_frame_that_announces_another_length_than_the_table_is_refused_before_it_is_decoded() {
    let (result, memory) = decode_as(4096, &bomb(u32::MAX, &[4096]));
    let says = u64::from(u32::MAX);
    assert_eq!(
        result,
        Err(ChunkError::FrameLength {
            expected: 4096,
            says
        })
    );
    assert_eq!(memory, 0);
}

#[test]
fn bytes_after_the_frame_and_bytes_missing_from_it_are_refused() {
    let good = bomb(4096, &[4000, 96]);
    let followed = [good.as_slice(), &good].concat();
    assert_eq!(decode_as(4096, &followed).0, Err(ChunkError::Frame));
    for len in 0..good.len() {
        assert_eq!(
            decode_as(4096, &good[..len]).0,
            Err(ChunkError::Frame),
            "{len}"
        );
    }
}

#[test]
fn a_decoder_is_good_for_the_next_chunk_after_a_bad_one() {
    let raw = [b'A'; 4096];
    let good = bomb(4096, &[4096]);
    let chunk = Chunk {
        index: 0,
        raw_offset: 0,
        raw_len: 4096,
        stored_offset: 0,
        stored_len: u32::try_from(good.len()).unwrap(),
        hash: Hash::of(&raw),
    };
    let mut decoder = Decoder::new();
    let mut out = Vec::new();
    let mut bad = good.clone();
    bad[9] ^= 0x06;
    assert!(decoder.decode(&chunk, &bad, &mut out).is_err());
    assert_eq!(
        decoder.decode(&chunk, &good[1..], &mut out),
        Err(ChunkError::StoredLength {
            expected: 13,
            len: 12
        })
    );
    assert_eq!(decoder.decode(&chunk, &good, &mut out), Ok(()));
    assert_eq!(out, raw);
}
