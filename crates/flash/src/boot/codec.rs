use alloc::string::String;
use alloc::vec::Vec;

use minicbor::{Decode, Encode};

use super::record::{BootRecord, ComponentBoot, KeySetName, RecordError};
use crate::{SlotId, SlotSet};

/// One of the two places in which a [`BootRecord`] is kept, as bytes; see
/// `docs/formats/boot-record.md`.
///
/// | offset | bytes | |
/// |---|---|---|
/// | 0 | 8 | magic `89 52 4B 42 54 43 0D 0A` (`\x89RKBTC\r\n`) |
/// | 8 | 2 | version, 1 |
/// | 10 | 2 | zero |
/// | 12 | 4 | length of the record, at most 4064 |
/// | 16 | 8 | sequence |
/// | 24 | 4 | zero |
/// | 28 | 4 | CRC-32 over bytes 0 to 27 and the record |
/// | 32 | | the record in CBOR |
/// | | | zero, to 4096 bytes in all |
///
/// Numbers are little-endian.
#[expect(clippy::exhaustive_structs, reason = "mirrors a frozen format")]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BootCopy {
    /// Of two valid copies the one with the higher sequence counts; a store overwrites the other.
    pub sequence: u64,
    /// The record.
    pub record: BootRecord,
}

impl BootCopy {
    /// How long a copy is.
    pub const LEN: usize = 4096;

    /// Writes the copy.
    ///
    /// # Panics
    ///
    /// Never: the limits of a record keep it within the length of a copy.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let payload = encode_record(&self.record);
        let len = u32::try_from(payload.len()).expect("a record within its limits is short");
        let mut bytes = Vec::with_capacity(Self::LEN);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        let crc = checksum(&bytes, &payload);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&payload);
        assert!(bytes.len() <= Self::LEN, "a record within its limits fits");
        bytes.resize(Self::LEN, 0);
        bytes
    }

    /// Reads a copy.
    ///
    /// # Errors
    ///
    /// What is wrong with it; never a default record.
    pub fn decode(bytes: &[u8]) -> Result<Self, BootCopyError> {
        let bytes: &[u8; Self::LEN] =
            bytes
                .try_into()
                .map_err(|_: core::array::TryFromSliceError| BootCopyError::Length {
                    len: bytes.len(),
                })?;
        let (header, rest) = bytes.split_at(HEADER_LEN);
        if header[..8] != MAGIC {
            let blank = bytes.iter().all(|byte| *byte == 0);
            return Err(if blank {
                BootCopyError::Empty
            } else {
                BootCopyError::NotACopy
            });
        }
        let version = u16::from_le_bytes([header[8], header[9]]);
        if version != VERSION {
            return Err(BootCopyError::UnknownVersion { version });
        }
        let stated = u32::from_le_bytes(field(header, 12));
        let payload = usize::try_from(stated)
            .ok()
            .and_then(|len| rest.get(..len))
            .ok_or(BootCopyError::RecordLength { len: stated })?;
        if u32::from_le_bytes(field(header, CRC_AT)) != checksum(&header[..CRC_AT], payload) {
            return Err(BootCopyError::Checksum);
        }
        let sequence = u64::from_le_bytes(field(header, 16));
        let copy = Self {
            sequence,
            record: decode_record(payload)?,
        };
        // One encoding per record: this refuses unknown keys, unused bytes and reserved bits.
        if copy.encode() != bytes {
            return Err(RecordError::Encoding.into());
        }
        Ok(copy)
    }
}

/// Why a copy of the boot record cannot be used.
#[non_exhaustive]
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BootCopyError {
    /// All bytes are zero (on raw flash also: erased): never written.
    #[error("empty")]
    Empty,
    /// A copy has 4096 bytes; the file was cut or is something else.
    #[error("{len} bytes instead of {}", BootCopy::LEN)]
    Length {
        /// How many bytes there are.
        len: usize,
    },
    /// The magic is wrong.
    #[error("not a boot record")]
    NotACopy,
    /// Written by a firmware that knows a later format.
    #[error("version {version} is not known, only {VERSION} is")]
    UnknownVersion {
        /// The version found.
        version: u16,
    },
    /// The record would not fit into the copy.
    #[error("states a record of {len} bytes, which does not fit")]
    RecordLength {
        /// The length found.
        len: u32,
    },
    /// Damaged, or a power cut interrupted its writing.
    #[error("wrong checksum")]
    Checksum,
    /// Two readings of it differ: a power cut left cells between two values.
    #[error("reads differently from one time to the next")]
    Unsettled,
    /// The medium cannot read it: a power cut left cells that fail their error correction.
    #[error("cannot be read")]
    Unreadable,
    /// The checksum is right, the record is not.
    #[error("wrong record")]
    Record(#[from] RecordError),
}

#[derive(Decode, Encode)]
#[cbor(map)]
struct WireRecord {
    #[n(0)]
    attempts: u8,
    #[n(1)]
    attempts_left: u8,
    #[n(2)]
    components: Vec<WireComponent>,
    #[n(3)]
    key_set: Option<WireKeySet>,
}

#[derive(Decode, Encode)]
struct WireKeySet {
    #[n(0)]
    number: u64,
    #[cbor(n(1), with = "minicbor::bytes")]
    digest: [u8; 32],
}

#[derive(Decode, Encode)]
#[cbor(map)]
struct WireComponent {
    #[n(0)]
    name: String,
    #[n(1)]
    slots: u8,
    #[n(2)]
    confirmed: u8,
    #[n(3)]
    chosen: Option<u8>,
    #[n(4)]
    unbootable: u32,
    #[n(5)]
    security_floor: u64,
}

pub(super) fn encode_record(record: &BootRecord) -> Vec<u8> {
    let wire = WireRecord {
        attempts: record.attempts(),
        attempts_left: record.attempts_left(),
        components: record
            .components()
            .map(|component| WireComponent {
                name: component.name.clone(),
                slots: component.slots,
                confirmed: component.confirmed.index(),
                chosen: component.chosen.map(SlotId::index),
                unbootable: component.unbootable.bits(),
                security_floor: component.security_floor,
            })
            .collect(),
        key_set: record.key_set().map(|key_set| WireKeySet {
            number: key_set.number,
            digest: key_set.digest,
        }),
    };
    let mut bytes = Vec::new();
    minicbor::encode(&wire, &mut bytes).expect("a vector takes every byte");
    bytes
}

pub(super) fn decode_record(payload: &[u8]) -> Result<BootRecord, RecordError> {
    let wire: WireRecord =
        minicbor::decode(payload).map_err(|_: minicbor::decode::Error| RecordError::Encoding)?;
    let mut components = Vec::new();
    for component in wire.components {
        let slot = |index| SlotId::new(index).ok_or(RecordError::Encoding);
        components.push(ComponentBoot {
            name: component.name,
            slots: component.slots,
            confirmed: slot(component.confirmed)?,
            chosen: component.chosen.map(slot).transpose()?,
            unbootable: SlotSet::from_bits(component.unbootable).ok_or(RecordError::Encoding)?,
            security_floor: component.security_floor,
        });
    }
    let key_set = wire.key_set.map(|key_set| KeySetName {
        number: key_set.number,
        digest: key_set.digest,
    });
    BootRecord::from_parts(components, wire.attempts, wire.attempts_left)?.with_key_set(key_set)
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(header);
    crc.update(payload);
    crc.finalize()
}

/// Copies the field of `N` bytes at a constant offset of the header.
fn field<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&header[at..at + N]);
    field
}

const MAGIC: [u8; 8] = *b"\x89RKBTC\r\n";
const VERSION: u16 = 1;
const HEADER_LEN: usize = 32;
const CRC_AT: usize = 28;
