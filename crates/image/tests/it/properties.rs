//! What holds for every input.

use std::io::Cursor as Buffer;

use proptest::prelude::*;
use rekindle_image::{
    Compression, Cursor, Decoder, FileHeader, Hash, ImageFile, Manifest, PackOptions, Requirement,
    SignedManifest, TableInfo, WalkError,
};

use crate::{key, noise, packed, trust, verify};

/// Input that compresses in places and repeats in places.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        (any::<u8>(), 1..20_000usize).prop_map(|(byte, len)| vec![byte; len]),
        (0..50_000usize, 1..20_000usize)
            .prop_map(|(from, len)| noise(70_000)[from..][..len].to_vec()),
    ];
    prop::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat())
}

fn pack_options() -> impl Strategy<Value = PackOptions> {
    let compression = prop_oneof![
        Just(Compression::None),
        (1..6).prop_map(|level| Compression::Zstd { level })
    ];
    (12..15u32, 0..12u32, compression).prop_map(|(chunk, align, compression)| PackOptions {
        chunk_size: 1 << chunk,
        align: 1 << align,
        compression,
        ..PackOptions::new("T", "prot", "1")
    })
}

fn manifests() -> impl Strategy<Value = Manifest> {
    let texts = |fewest| prop::collection::btree_set("[a-zA-Z0-9 .-]{1,64}", fewest..4);
    let component = "[a-z0-9._-]{1,32}";
    let requires = prop::collection::btree_map(component, any::<u64>(), 0..4);
    let numbers = (
        any::<[u64; 2]>(),
        1..1u32 << 31,
        10..21u32,
        any::<[u8; 32]>(),
    );
    (
        texts(1),
        texts(0),
        component,
        "\\PC{1,16}",
        requires,
        numbers,
    )
        .prop_map(
            |(device_types, hardware, component, build, requires, (versions, size, max, hash))| {
                let size = u64::from(size);
                let chunks = size.div_ceil(1 << max);
                Manifest {
                    device_types: device_types.into_iter().collect(),
                    hardware: hardware.into_iter().collect(),
                    component,
                    build,
                    release: versions[0],
                    security_version: versions[1],
                    size,
                    table: TableInfo {
                        chunks: u32::try_from(chunks).unwrap(),
                        max_chunk: 1 << max,
                        root: Hash::from_bytes(hash),
                    },
                    stored_size: size.div_ceil(2).max(chunks),
                    stored_hash: Hash::of(&hash),
                    requires: requires
                        .into_iter()
                        .map(|(component, release)| Requirement { component, release })
                        .collect(),
                    key_sets: Vec::new(),
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_packed_comes_out_again(input in input(), options in pack_options()) {
        let image = packed(&input, &options, &[key(1)]);
        verify(&image, &trust(&[1], 1)).unwrap();
        prop_assert_eq!(&packed(&input, &options, &[key(1)]), &image);

        let mut file = ImageFile::open(Buffer::new(&image)).unwrap();
        let (mut decoder, mut stored, mut raw) = (Decoder::new(), Vec::new(), Vec::new());
        let mut output = Vec::new();
        file.for_each_chunk(|file, chunk| -> Result<(), WalkError> {
            assert_eq!(usize::try_from(chunk.raw_offset), Ok(output.len()));
            file.read_stored(chunk, &mut stored).map_err(WalkError::Read)?;
            decoder.decode(chunk, &stored, &mut raw).unwrap();
            assert!(chunk.matches(&raw));
            output.extend_from_slice(&raw);
            Ok(())
        }).unwrap();
        prop_assert_eq!(output, input);
    }

    #[test]
    fn a_signed_manifest_survives_a_round_trip(manifest in manifests(), signers in 0..3u8) {
        let keys: Vec<_> = (0..signers).map(key).collect();
        let signed = SignedManifest::sign(&manifest, &keys).unwrap();
        let parsed = SignedManifest::parse(signed.bytes()).unwrap();
        prop_assert_eq!(parsed.unverified(), &manifest);
        prop_assert_eq!(parsed.id(), signed.id());
        prop_assert!(parsed.signers().eq(keys.iter().map(rekindle_image::SecretKey::key_id)));
    }

    #[test]
    fn bytes_that_are_no_manifest_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _: Result<_, _> = SignedManifest::parse(bytes);
    }

    #[test]
    fn a_mangled_manifest_parses_to_itself_or_not_at_all(
        manifest in manifests(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = SignedManifest::sign(&manifest, &[key(1)]).unwrap().bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(parsed) = SignedManifest::parse(bytes.as_slice()) {
            prop_assert_eq!(parsed.bytes(), bytes);
        }
    }

    #[test]
    fn any_header_survives_a_round_trip(manifest_len in 1..=FileHeader::MAX_MANIFEST_LEN) {
        let header = FileHeader { manifest_len };
        prop_assert_eq!(FileHeader::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn seeking_finds_what_walking_finds(
        chunks in 1..400u32,
        order in prop::collection::vec(0..400u32, 1..20),
    ) {
        // Raw chunks of 1024 bytes each, the last one of 4 KiB average: the shape is all that counts here.
        let input = noise(usize::try_from(chunks).unwrap() * 1024);
        let options = PackOptions {
            chunk_size: 4096,
            compression: Compression::None,
            ..PackOptions::new("T", "prot", "1")
        };
        let image = packed(&input, &options, &[]);
        let mut file = ImageFile::open(Buffer::new(&image)).unwrap();
        let mut walked = Vec::new();
        file.for_each_chunk(|_, chunk| -> Result<(), WalkError> {
            walked.push(*chunk);
            Ok(())
        }).unwrap();
        let manifest = file.signed().unverified();
        let mut cursor = Cursor::new(&manifest.table, manifest.size, manifest.stored_size);
        for index in order {
            cursor.seek(index);
            while let Some(page) = cursor.wanted() {
                let range = file.layout().page(page);
                let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
                cursor.supply(&image[range]).unwrap();
            }
            prop_assert_eq!(cursor.chunk(), walked.get(usize::try_from(index).unwrap()).copied());
        }
    }
}
