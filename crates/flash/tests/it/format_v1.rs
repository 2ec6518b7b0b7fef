//! Version 1 of the formats that slots and boot control leave on a device.
//!
//! If this fails, revert your change, do not edit the bytes: devices in the field hold them.

use rekindle_flash::{
    BootCopy, BootCopyError, BootRecord, CompletionMark, CopyError, CopyHeader, KeySetName,
    RecordError, SlotId,
};

/// The id of the manifest in the examples: 0x40 to 0x5f.
fn id() -> [u8; 32] {
    core::array::from_fn(|index| 0x40 + u8::try_from(index).unwrap())
}

fn header() -> CopyHeader {
    CopyHeader::new(7, id(), b"manifest").unwrap()
}

/// `prot` has a pending trial and a floor of 300; `boot` runs from B, its C is unbootable.
fn boot_copy() -> BootCopy {
    let mut record = BootRecord::new(&[("prot", 2), ("boot", 3)]).unwrap();
    record.choose("boot", SlotId::B, 1).unwrap();
    record.start();
    record.confirm().unwrap();
    record.withdraw("boot", SlotId::new(2).unwrap()).unwrap();
    record.raise_floor("prot", 300).unwrap();
    record.choose("prot", SlotId::B, 3).unwrap();
    record.start();
    BootCopy {
        sequence: 258,
        record,
    }
}

#[test]
fn the_head_of_a_copy_is_frozen() {
    assert_eq!(header().encode(b"manifest"), HEAD);
    assert_eq!(CopyHeader::decode(HEAD), Ok((header(), &b"manifest"[..])));
}

#[test]
fn the_completion_mark_is_frozen() {
    assert_eq!(CompletionMark::encode(&header()), MARK);
    assert!(CompletionMark::matches(MARK, &header()));
}

#[test]
fn the_boot_copy_is_frozen() {
    let mut expected = BOOT_COPY.to_vec();
    expected.resize(BootCopy::LEN, 0);
    assert_eq!(boot_copy().encode(), expected);
    assert_eq!(BootCopy::decode(&expected), Ok(boot_copy()));
}

/// The same with an adopted key set.
fn boot_copy_with_keys() -> BootCopy {
    let mut copy = boot_copy();
    copy.record
        .adopt_key_set(KeySetName {
            number: 258,
            digest: id(),
        })
        .unwrap();
    copy
}

#[test]
fn the_boot_copy_with_a_key_set_is_frozen() {
    let mut expected = BOOT_COPY_WITH_KEYS.to_vec();
    expected.resize(BootCopy::LEN, 0);
    assert_eq!(boot_copy_with_keys().encode(), expected);
    assert_eq!(BootCopy::decode(&expected), Ok(boot_copy_with_keys()));
    // What was there has the same bytes, but for the length of the map.
    assert_eq!(BOOT_COPY_WITH_KEYS[33..73], BOOT_COPY[33..73]);
}

#[test]
fn an_adopted_key_set_never_has_number_0() {
    let mut bytes = boot_copy_with_keys().encode();
    let at = bytes.windows(3).position(|at| at == [0x19, 1, 2]).unwrap();
    bytes[at] = 0;
    bytes.copy_within(at + 3.., at + 1);
    bytes[12] -= 2;
    let len = 32 + usize::from(bytes[12]);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..28]);
    crc.update(&bytes[32..len]);
    bytes[28..32].copy_from_slice(&crc.finalize().to_le_bytes());
    assert_eq!(
        BootCopy::decode(&bytes),
        Err(BootCopyError::Record(RecordError::KeySetNumber))
    );
}

#[test]
fn every_flipped_bit_of_a_head_is_seen() {
    for bit in 0..HEAD.len() * 8 {
        let mut bytes = HEAD.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let error = CopyHeader::decode(&bytes).unwrap_err();
        assert_ne!(error, CopyError::Empty, "bit {bit}");
    }
}

#[test]
fn every_flipped_bit_of_a_mark_is_seen() {
    for bit in 0..MARK.len() * 8 {
        let mut bytes = MARK.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(!CompletionMark::matches(&bytes, &header()), "bit {bit}");
    }
}

#[test]
fn every_flipped_bit_of_a_boot_copy_is_seen() {
    let mut good = BOOT_COPY.to_vec();
    good.resize(BootCopy::LEN, 0);
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let error = BootCopy::decode(&bytes).unwrap_err();
        assert_ne!(error, BootCopyError::Empty, "bit {bit}");
    }
}

#[test]
fn what_is_no_head_has_its_own_error() {
    let with = |at: usize, bytes: &[u8]| {
        let mut head = HEAD.to_vec();
        head[at..at + bytes.len()].copy_from_slice(bytes);
        head
    };
    for (head, error) in [
        (vec![0; 200], CopyError::Empty),
        (vec![0xff; 200], CopyError::Empty),
        (vec![0xff; 127], CopyError::TooShort { len: 127 }),
        (HEAD[..135].to_vec(), CopyError::TooShort { len: 135 }),
        (with(0, b"\x89RKIMG\r\n"), CopyError::NotACopy),
        (with(8, &[2, 0]), CopyError::UnknownVersion { version: 2 }),
        (
            with(12, &16385_u32.to_le_bytes()),
            CopyError::ManifestLength { len: 16385 },
        ),
        (with(16, &[8]), CopyError::Checksum),
        (with(128, b"M"), CopyError::Checksum),
    ] {
        assert_eq!(CopyHeader::decode(&head), Err(error));
    }
}

#[test]
fn a_mark_names_the_sequence_as_well_as_the_manifest() {
    let again = CopyHeader::new(8, id(), b"manifest").unwrap();
    assert!(!CompletionMark::matches(MARK, &again));
    let other = CopyHeader::new(7, [0; 32], b"manifest").unwrap();
    assert!(!CompletionMark::matches(MARK, &other));
    assert!(!CompletionMark::matches(&MARK[..63], &header()));
}

#[test]
fn a_manifest_beyond_the_limit_is_refused() {
    let longest = vec![1; 16 * 1024];
    let header = CopyHeader::new(1, id(), &longest).unwrap();
    assert_eq!(
        CopyHeader::decode(&header.encode(&longest)),
        Ok((header, &longest[..]))
    );
    let error = CopyHeader::new(1, id(), &vec![1; 16 * 1024 + 1]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a manifest of 16385 bytes is too long: a slot holds at most 16384 bytes"
    );
}

#[test]
fn what_is_no_boot_copy_has_its_own_error() {
    let mut good = BOOT_COPY.to_vec();
    good.resize(BootCopy::LEN, 0);
    let with = |at: usize, bytes: &[u8]| {
        let mut copy = good.clone();
        copy[at..at + bytes.len()].copy_from_slice(bytes);
        copy
    };
    for (copy, error) in [
        (vec![0; 4096], BootCopyError::Empty),
        (vec![0xff; 4096], BootCopyError::NotACopy),
        (good[..4095].to_vec(), BootCopyError::Length { len: 4095 }),
        (Vec::new(), BootCopyError::Length { len: 0 }),
        (with(8, &[9]), BootCopyError::UnknownVersion { version: 9 }),
        (
            with(12, &4065_u32.to_le_bytes()),
            BootCopyError::RecordLength { len: 4065 },
        ),
        (with(40, b"x"), BootCopyError::Checksum),
    ] {
        assert_eq!(BootCopy::decode(&copy), Err(error));
    }
}

const HEAD: &[u8] = &[
    0x89, 0x52, 0x4b, 0x53, 0x4c, 0x54, 0x0d, 0x0a, 0x01, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00,
    0x07, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47,
    0x48, 0x49, 0x4a, 0x4b, 0x4c, 0x4d, 0x4e, 0x4f, 0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57,
    0x58, 0x59, 0x5a, 0x5b, 0x5c, 0x5d, 0x5e, 0x5f, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x1d, 0x22, 0x16, 0xb4,
    0x6d, 0x61, 0x6e, 0x69, 0x66, 0x65, 0x73, 0x74,
];

const MARK: &[u8] = &[
    0x89, 0x52, 0x4b, 0x45, 0x4e, 0x44, 0x0d, 0x0a, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x07, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47,
    0x48, 0x49, 0x4a, 0x4b, 0x4c, 0x4d, 0x4e, 0x4f, 0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57,
    0x58, 0x59, 0x5a, 0x5b, 0x5c, 0x5d, 0x5e, 0x5f, 0x00, 0x00, 0x00, 0x00, 0xe8, 0x2d, 0xfe, 0xaf,
];

const BOOT_COPY: &[u8] = &[
    0x89, 0x52, 0x4b, 0x42, 0x54, 0x43, 0x0d, 0x0a, 0x01, 0x00, 0x00, 0x00, 0x29, 0x00, 0x00, 0x00,
    0x02, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x39, 0x42, 0xdb, 0xa6,
    0xa3, 0x00, 0x03, 0x01, 0x02, 0x02, 0x82, 0xa6, 0x00, 0x64, 0x70, 0x72, 0x6f, 0x74, 0x01, 0x02,
    0x02, 0x00, 0x03, 0x01, 0x04, 0x00, 0x05, 0x19, 0x01, 0x2c, 0xa5, 0x00, 0x64, 0x62, 0x6f, 0x6f,
    0x74, 0x01, 0x03, 0x02, 0x01, 0x04, 0x04, 0x05, 0x00,
];

const BOOT_COPY_WITH_KEYS: &[u8] = &[
    0x89, 0x52, 0x4b, 0x42, 0x54, 0x43, 0x0d, 0x0a, 0x01, 0x00, 0x00, 0x00, 0x50, 0x00, 0x00, 0x00,
    0x02, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x38, 0xc3, 0xf1, 0xcd,
    0xa4, 0x00, 0x03, 0x01, 0x02, 0x02, 0x82, 0xa6, 0x00, 0x64, 0x70, 0x72, 0x6f, 0x74, 0x01, 0x02,
    0x02, 0x00, 0x03, 0x01, 0x04, 0x00, 0x05, 0x19, 0x01, 0x2c, 0xa5, 0x00, 0x64, 0x62, 0x6f, 0x6f,
    0x74, 0x01, 0x03, 0x02, 0x01, 0x04, 0x04, 0x05, 0x00, 0x03, 0x82, 0x19, 0x01, 0x02, 0x58, 0x20,
    0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x4b, 0x4c, 0x4d, 0x4e, 0x4f,
    0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x5b, 0x5c, 0x5d, 0x5e, 0x5f,
];
