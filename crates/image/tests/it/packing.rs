//! Images made by the packer.

use rekindle_image::{Compression, PackOptions, SecretKey, pack};

use crate::{key, trust, verify};

pub(crate) fn options() -> PackOptions {
    PackOptions {
        hardware: vec!["102".to_owned()],
        release: 7,
        security_version: 3,
        chunk_size: 4096,
        ..PackOptions::new("IP1200", "prot", "9.1")
    }
}

pub(crate) fn packed(input: &[u8], options: &PackOptions, keys: &[SecretKey]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    pack(input, &out, options, keys).unwrap();
    std::fs::read(out).unwrap()
}

/// An image of a few chunks, some compressed and some raw, signed by key 1.
pub(crate) fn small_image() -> Vec<u8> {
    packed(&small_input(), &options(), &[key(1)])
}

pub(crate) fn small_input() -> Vec<u8> {
    let mut input = b"a line that repeats\n".repeat(300);
    input.extend(noise(3000));
    input
}

/// Bytes that do not compress and are the same in every run.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn a_packed_image_verifies_and_reports_what_it_is() {
    let report = verify(&small_image(), &trust(&[1], 1)).unwrap();
    let manifest = &report.manifest;
    assert_eq!(manifest.device_types, ["IP1200"]);
    assert_eq!(manifest.hardware, ["102"]);
    assert_eq!(
        (manifest.component.as_str(), manifest.build.as_str()),
        ("prot", "9.1")
    );
    assert_eq!((manifest.release, manifest.security_version), (7, 3));
    assert_eq!(manifest.size, 9000);
    assert!(manifest.stored_size < 6000, "{}", manifest.stored_size);
    assert!((1..manifest.table.chunks).contains(&report.compressed));
}

#[test]
fn compression_none_stores_the_input_as_it_is() {
    let raw = PackOptions {
        compression: Compression::None,
        ..options()
    };
    let image = packed(&small_input(), &raw, &[key(1)]);
    assert!(image.ends_with(&small_input()));
    assert_eq!(verify(&image, &trust(&[1], 1)).unwrap().compressed, 0);
}

/// The lowest level's own window is half as long as the longest chunk.
#[test]
fn the_longest_chunks_verify_at_every_kind_of_level() {
    let mut input = noise(3 << 20);
    input.iter_mut().for_each(|byte| *byte &= 0x0f);
    for level in [1, 3, 22] {
        let options = PackOptions {
            chunk_size: PackOptions::MAX_CHUNK_SIZE,
            compression: Compression::Zstd { level },
            ..options()
        };
        let report = verify(&packed(&input, &options, &[key(1)]), &trust(&[1], 1)).unwrap();
        assert_eq!(report.compressed, report.manifest.table.chunks, "{level}");
    }
}
