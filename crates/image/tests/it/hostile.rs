//! Everything that an image must be refused for, each with its own error.

#![expect(clippy::panic, reason = "what is accepted is a failed test")]

use core::ops::Range;
use std::io::Write as _;

use rekindle_image::{
    ChunkError, Field, Hash, Manifest, ManifestError, SignedManifest, Trust, Unsigned,
    VerifyImageError, pack,
};

use crate::crafted::{self, CraftedChunk, cbor, payload, signed, table, uint};
use crate::decode::stored;
use crate::{key, noise, options, packed, refusal, small_image, small_input, trust, verify};

/// Changes every byte of `places`, one at a time, and expects each change to be refused for what it is.
fn assert_no_byte_may_change(good: &[u8], places: Range<usize>, trust: &Trust) {
    verify(good, trust).unwrap();
    let mut image = good.to_vec();
    for at in places {
        image[at] ^= 1 << (at % 8);
        match verify(&image, trust) {
            Ok(_) => panic!("byte {at} may be changed"),
            Err(VerifyImageError::Read(error)) => panic!("byte {at}: {error}"),
            Err(_) => image[at] = good[at],
        }
    }
}

#[test]
fn any_changed_byte_of_header_manifest_and_padding_is_refused() {
    assert_no_byte_may_change(&small_image(), 0..4096, &trust(&[1], 1));
}

/// These bytes hang on the manifest by hashes and not on the signature, which takes long to check 8000 times: without one it must hold too.
#[test]
fn any_changed_byte_of_table_and_chunks_is_refused() {
    let image = packed(&small_input(), &options(), &[]);
    let lax = Trust {
        unsigned: Unsigned::Accept,
        ..trust(&[1], 1)
    };
    assert_no_byte_may_change(&image, 4096..image.len(), &lax);
    let signed = small_image();
    for at in (4096..signed.len()).step_by(101) {
        assert_no_byte_may_change(&signed, at..at + 1, &trust(&[1], 1));
    }
}

#[test]
fn any_truncation_is_refused() {
    let good = small_image();
    let trust = trust(&[1], 1);
    for len in (0..good.len()).step_by(37).chain([good.len() - 1]) {
        let why = refusal(&good[..len], &trust);
        assert!(why.starts_with("truncated: "), "{len} bytes: {why}");
    }
}

#[test]
fn trailing_bytes_are_refused() {
    let mut image = small_image();
    let end = image.len();
    image.push(0);
    assert_eq!(
        refusal(&image, &trust(&[1], 1)),
        format!("1 bytes follow the end of the image at byte {end}")
    );
}

/// An image of one chunk, refused for it.
fn refused_chunk(chunk: CraftedChunk) -> ChunkError {
    let padding = CraftedChunk::raw(&[7; 2000]);
    let image = crafted::image(&[chunk, padding], |_| ());
    match verify(&image, &trust(&[1], 1)).unwrap_err() {
        VerifyImageError::Chunk {
            chunk: 0,
            offset: 8192,
            error,
        } => error,
        other => panic!("{other}"),
    }
}

fn frame(raw: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(raw, 3).unwrap()
}

#[test]
fn a_frame_that_holds_more_than_the_table_says_is_refused() {
    let a = [b'A'; 8192];
    assert_eq!(
        refused_chunk(stored(4096, &a[..4096], frame(&a))),
        ChunkError::FrameLength {
            expected: 4096,
            says: 8192
        }
    );
}

#[test]
fn frames_that_the_format_does_not_allow_are_refused() {
    let raw = b"0123456789".repeat(200);
    let good = frame(&raw);
    let twice = [frame(&raw[..1000]), frame(&raw[1000..])].concat();
    let followed = [good.as_slice(), b"x"].concat();
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0], good.as_slice()].concat();
    // A frame with a window of its own, made by the streaming encoder that does not know the length.
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    encoder.write_all(&raw[..1000]).unwrap();
    encoder.flush().unwrap();
    encoder.write_all(&raw[1000..]).unwrap();
    let windowed = encoder.finish().unwrap();
    for (what, bytes) in [
        ("followed by a byte", followed),
        ("after a skippable frame", skippable),
        ("with a window", windowed),
        ("cut off", good[..good.len() - 1].to_vec()),
        ("no frame", noise(900)),
    ] {
        let error = refused_chunk(stored(raw.len(), &raw, bytes));
        assert_eq!(error, ChunkError::Frame, "{what}");
    }
    let error = refused_chunk(stored(raw.len(), &raw, twice));
    assert!(matches!(error, ChunkError::FrameLength { .. }), "{error}");
}

#[test]
fn other_bytes_than_signed_for_are_refused() {
    let raw = b"0123456789".repeat(200);
    let error = refused_chunk(stored(2000, b"other", raw.clone()));
    assert_eq!(error, ChunkError::Hash);
    let error = refused_chunk(stored(2000, b"other", frame(&raw)));
    assert_eq!(error, ChunkError::Hash);
}

#[test]
fn another_frame_of_the_same_bytes_is_refused_by_the_stored_hash() {
    let raw = b"0123456789".repeat(200);
    let chunk = || stored(raw.len(), &raw, frame(&raw));
    let image = crafted::image(&[chunk()], |manifest| {
        manifest.stored_hash = Hash::of(b"else");
    });
    assert!(matches!(
        verify(&image, &trust(&[1], 1)),
        Err(VerifyImageError::StoredHash)
    ));
}

/// Why a payload, though signed by a trusted key, is no manifest.
fn fault(changed: &[(u64, &[u8])]) -> ManifestError {
    SignedManifest::parse(signed(&payload(changed))).unwrap_err()
}

#[test]
fn claims_that_no_image_can_meet_are_refused() {
    for size in [0, Manifest::MAX_SIZE + 1, 1 << 60, u64::MAX] {
        assert_eq!(fault(&[(7, &uint(size))]), ManifestError::Size { size });
    }
    for stored_size in [0, 100_001, 1 << 60] {
        assert_eq!(
            fault(&[(9, &uint(stored_size))]),
            ManifestError::StoredSize {
                stored_size,
                size: 100_000
            }
        );
    }
    for max_chunk in [0, 1023, (1 << 20) + 1, u32::MAX] {
        let error = ManifestError::MaxChunk { max_chunk };
        assert_eq!(fault(&[(8, &table(10, max_chunk))]), error);
    }
    for chunks in [0, 3, 99, u32::MAX] {
        let error = fault(&[(8, &table(chunks, 32768))]);
        let expected = ManifestError::Chunks {
            chunks,
            size: 100_000,
            fewest: 4,
            most: 98,
        };
        assert_eq!(error, expected);
    }
    for chunks in [4, 98] {
        SignedManifest::parse(signed(&payload(&[(8, &table(chunks, 32768))]))).unwrap();
    }
}

#[test]
fn manifests_that_are_not_written_as_the_format_says_are_refused() {
    let text = |text: &str| {
        cbor(|e| {
            e.str(text).unwrap();
        })
    };
    let texts = |texts: &[&str]| {
        cbor(|e| {
            e.array(crafted::len(texts.len())).unwrap();
            for text in texts {
                e.str(text).unwrap();
            }
        })
    };
    let long = "x".repeat(65);
    let many: Vec<String> = (0..33).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (key, value, error) in [
        (12, uint(1), ManifestError::UnknownKey(12)),
        (63, uint(1), ManifestError::UnknownKey(63)),
        (0, uint(1), ManifestError::UnknownKey(0)),
        (3, vec![], ManifestError::Missing(Field::Component)),
        (10, vec![], ManifestError::Missing(Field::StoredHash)),
        (2, texts(&[]), ManifestError::Missing(Field::Hardware)),
        (1, texts(&[]), count(Field::DeviceTypes, 0, 1, 32)),
        (1, texts(&many), count(Field::DeviceTypes, 33, 0, 32)),
        (
            2,
            texts(&["a", "b", "a"]),
            ManifestError::Repeated(Field::Hardware),
        ),
        (4, text(""), length(Field::Build, 0, 64)),
        (4, text(&long), length(Field::Build, 65, 64)),
        (3, text(&long[..33]), length(Field::Component, 33, 32)),
        (4, text("1\x1b[2J"), character(Field::Build, '\x1b')),
        (3, text("../prot"), character(Field::Component, '/')),
        (3, text("Prot"), character(Field::Component, 'P')),
    ] {
        assert_eq!(fault(&[(key, &value)]), error, "key {key}");
    }
    let malformed = fault(&[(5, &text("seven"))]);
    assert!(
        matches!(malformed, ManifestError::Malformed { .. }),
        "{malformed}"
    );
    let malformed = fault(&[(
        10,
        &cbor(|e| {
            e.bytes(b"short").unwrap();
        }),
    )]);
    assert!(
        matches!(malformed, ManifestError::Malformed { .. }),
        "{malformed}"
    );
}

fn count(field: Field, count: usize, fewest: usize, most: usize) -> ManifestError {
    ManifestError::Count {
        field,
        count,
        fewest,
        most,
    }
}

fn length(field: Field, len: usize, limit: usize) -> ManifestError {
    ManifestError::TextLength { field, len, limit }
}

fn character(field: Field, character: char) -> ManifestError {
    ManifestError::Character { field, character }
}

#[test]
fn unknown_keys_from_64_on_are_passed_over_and_change_the_id() {
    let plain = SignedManifest::parse(signed(&payload(&[]))).unwrap();
    let nested = cbor(|e| {
        let e = e.map(1).unwrap().str("a").unwrap();
        e.array(2).unwrap().u8(1).unwrap().bytes(b"x").unwrap();
    });
    let more = payload(&[(65, &nested), (u64::MAX, &uint(5))]);
    let later = SignedManifest::parse(signed(&more)).unwrap();
    assert_eq!(later.unverified(), plain.unverified());
    assert_ne!(later.id(), plain.id());
}

#[test]
fn keys_out_of_order_or_repeated_and_bytes_after_the_map_are_refused() {
    let parse = |payload: &[u8]| SignedManifest::parse(signed(payload)).unwrap_err();
    let repeated = crafted::map(&[(5, uint(1)), (5, uint(2))]);
    assert_eq!(parse(&repeated), ManifestError::KeyOrder(5));
    let falling = crafted::map(&[(6, uint(1)), (5, uint(2))]);
    assert_eq!(parse(&falling), ManifestError::KeyOrder(5));
    let followed = [payload(&[]), vec![0]].concat();
    assert_eq!(parse(&followed), ManifestError::TrailingBytes);
}

#[test]
fn a_manifest_longer_than_allowed_is_refused_before_it_is_read() {
    let error = SignedManifest::parse(vec![0; 16 * 1024 + 1]).unwrap_err();
    assert_eq!(
        error,
        ManifestError::TooLong {
            len: 16 * 1024 + 1,
            limit: 16 * 1024
        }
    );
}

#[test]
fn an_existing_file_survives_a_pack_that_fails() {
    struct Failing;
    impl std::io::Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("cable pulled"))
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    std::fs::write(&out, "the image before").unwrap();
    let error = pack(Failing, &out, &options(), &[key(1)]).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the input: cable pulled");
    assert_eq!(std::fs::read(&out).unwrap(), b"the image before");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
