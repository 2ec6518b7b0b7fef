//! The manifest as CBOR: one map, integer keys in rising order, definite lengths.

use alloc::string::String;
use alloc::vec::Vec;

use minicbor::{Decoder, Encoder, decode, encode};

use super::{Field, Manifest, ManifestError, Requirement};
use crate::{Hash, KeySet, SignedKeySet, TableInfo};

impl Manifest {
    /// The one encoding of the manifest: equal manifests have equal bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        self.encode_to(&mut encoder)
            .expect("writing to a vector cannot fail");
        encoder.into_writer()
    }

    fn encode_to(
        &self,
        e: &mut Encoder<Vec<u8>>,
    ) -> Result<(), encode::Error<core::convert::Infallible>> {
        let optional = [
            self.hardware.is_empty(),
            self.requires.is_empty(),
            self.key_sets.is_empty(),
        ];
        let present = optional.iter().filter(|is_empty| !**is_empty);
        e.map(9 + len_u64(present.count()))?;
        texts(e.u8(KEY_DEVICE_TYPES)?, &self.device_types)?;
        if !self.hardware.is_empty() {
            texts(e.u8(KEY_HARDWARE)?, &self.hardware)?;
        }
        e.u8(KEY_COMPONENT)?.str(&self.component)?;
        e.u8(KEY_BUILD)?.str(&self.build)?;
        e.u8(KEY_RELEASE)?.u64(self.release)?;
        e.u8(KEY_SECURITY_VERSION)?.u64(self.security_version)?;
        e.u8(KEY_SIZE)?.u64(self.size)?;
        e.u8(KEY_TABLE)?
            .array(3)?
            .u32(self.table.chunks)?
            .u32(self.table.max_chunk)?
            .bytes(self.table.root.as_bytes())?;
        e.u8(KEY_STORED_SIZE)?.u64(self.stored_size)?;
        e.u8(KEY_STORED_HASH)?.bytes(self.stored_hash.as_bytes())?;
        if !self.requires.is_empty() {
            e.u8(KEY_REQUIRES)?.array(len_u64(self.requires.len()))?;
            for Requirement { component, release } in &self.requires {
                e.array(2)?.str(component)?.u64(*release)?;
            }
        }
        if !self.key_sets.is_empty() {
            e.u8(KEY_KEY_SETS)?.array(len_u64(self.key_sets.len()))?;
            for set in &self.key_sets {
                e.bytes(set.bytes())?;
            }
        }
        Ok(())
    }

    /// Reads a manifest and checks every rule.
    pub(crate) fn decode(payload: &[u8]) -> Result<Self, ManifestError> {
        let mut d = Decoder::new(payload);
        let parts = Parts::decode(&mut d).map_err(|fault| match fault {
            Fault::Cbor => ManifestError::Malformed {
                position: d.position(),
            },
            Fault::Rule(error) => error,
        })?;
        if d.position() != payload.len() {
            return Err(ManifestError::TrailingBytes);
        }
        let manifest = parts.assemble()?;
        manifest.check()?;
        Ok(manifest)
    }
}

/// The fields as they are met.
#[derive(Default)]
struct Parts {
    device_types: Option<Vec<String>>,
    hardware: Option<Vec<String>>,
    component: Option<String>,
    build: Option<String>,
    release: Option<u64>,
    security_version: Option<u64>,
    size: Option<u64>,
    table: Option<TableInfo>,
    stored_size: Option<u64>,
    stored_hash: Option<Hash>,
    requires: Option<Vec<Requirement>>,
    key_sets: Option<Vec<SignedKeySet>>,
}

impl Parts {
    fn decode(d: &mut Decoder<'_>) -> Result<Self, Fault> {
        let mut parts = Self::default();
        let mut last = None;
        for _ in 0..d.map()?.ok_or(Fault::Cbor)? {
            let key = d.u64()?;
            if last.is_some_and(|last| key <= last) {
                return Err(ManifestError::KeyOrder(key).into());
            }
            last = Some(key);
            match u8::try_from(key).unwrap_or(u8::MAX) {
                KEY_DEVICE_TYPES => {
                    parts.device_types = Some(list(
                        d,
                        Field::DeviceTypes,
                        Manifest::MAX_DEVICE_TYPES,
                        text,
                    )?);
                }
                KEY_HARDWARE => {
                    parts.hardware = Some(list(d, Field::Hardware, Manifest::MAX_HARDWARE, text)?);
                }
                KEY_COMPONENT => parts.component = Some(text(d)?),
                KEY_BUILD => parts.build = Some(text(d)?),
                KEY_RELEASE => parts.release = Some(d.u64()?),
                KEY_SECURITY_VERSION => parts.security_version = Some(d.u64()?),
                KEY_SIZE => parts.size = Some(d.u64()?),
                KEY_TABLE => parts.table = Some(table(d)?),
                KEY_STORED_SIZE => parts.stored_size = Some(d.u64()?),
                KEY_STORED_HASH => parts.stored_hash = Some(hash(d)?),
                KEY_REQUIRES => {
                    parts.requires = Some(list(
                        d,
                        Field::Requires,
                        Manifest::MAX_REQUIRES,
                        requirement,
                    )?);
                }
                KEY_KEY_SETS => {
                    parts.key_sets =
                        Some(list(d, Field::KeySets, KeySet::MAX_CHAIN, signed_key_set)?);
                }
                _ if key < FIRST_IGNORED_KEY => return Err(ManifestError::UnknownKey(key).into()),
                _ => d.skip()?,
            }
        }
        Ok(parts)
    }

    fn assemble(self) -> Result<Manifest, ManifestError> {
        use ManifestError::Missing;
        // An empty list is left out, so that equal manifests have equal bytes.
        for (field, empty) in [
            (Field::Hardware, self.hardware.as_ref().map(Vec::is_empty)),
            (Field::Requires, self.requires.as_ref().map(Vec::is_empty)),
            (Field::KeySets, self.key_sets.as_ref().map(Vec::is_empty)),
        ] {
            if empty == Some(true) {
                return Err(Missing(field));
            }
        }
        Ok(Manifest {
            device_types: self.device_types.ok_or(Missing(Field::DeviceTypes))?,
            hardware: self.hardware.unwrap_or_default(),
            component: self.component.ok_or(Missing(Field::Component))?,
            build: self.build.ok_or(Missing(Field::Build))?,
            release: self.release.ok_or(Missing(Field::Release))?,
            security_version: self
                .security_version
                .ok_or(Missing(Field::SecurityVersion))?,
            size: self.size.ok_or(Missing(Field::Size))?,
            table: self.table.ok_or(Missing(Field::Table))?,
            stored_size: self.stored_size.ok_or(Missing(Field::StoredSize))?,
            stored_hash: self.stored_hash.ok_or(Missing(Field::StoredHash))?,
            requires: self.requires.unwrap_or_default(),
            key_sets: self.key_sets.unwrap_or_default(),
        })
    }
}

/// Either the CBOR is wrong, which is told by its position, or a rule is broken.
enum Fault {
    Cbor,
    Rule(ManifestError),
}

impl From<decode::Error> for Fault {
    fn from(_: decode::Error) -> Self {
        Self::Cbor
    }
}

impl From<ManifestError> for Fault {
    fn from(error: ManifestError) -> Self {
        Self::Rule(error)
    }
}

fn texts(
    e: &mut Encoder<Vec<u8>>,
    texts: &[String],
) -> Result<(), encode::Error<core::convert::Infallible>> {
    e.array(len_u64(texts.len()))?;
    for text in texts {
        e.str(text)?;
    }
    Ok(())
}

fn list<T>(
    d: &mut Decoder<'_>,
    field: Field,
    most: usize,
    item: impl Fn(&mut Decoder<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let count = d.array()?.ok_or(Fault::Cbor)?;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > most {
        return Err(ManifestError::Count {
            field,
            count,
            fewest: 0,
            most,
        }
        .into());
    }
    (0..count).map(|_| item(d)).collect()
}

fn text(d: &mut Decoder<'_>) -> Result<String, Fault> {
    Ok(d.str()?.into())
}

fn table(d: &mut Decoder<'_>) -> Result<TableInfo, Fault> {
    tuple(d, 3)?;
    Ok(TableInfo {
        chunks: d.u32()?,
        max_chunk: d.u32()?,
        root: hash(d)?,
    })
}

fn requirement(d: &mut Decoder<'_>) -> Result<Requirement, Fault> {
    tuple(d, 2)?;
    Ok(Requirement {
        component: text(d)?,
        release: d.u64()?,
    })
}

fn signed_key_set(d: &mut Decoder<'_>) -> Result<SignedKeySet, Fault> {
    Ok(SignedKeySet::parse(d.bytes()?).map_err(ManifestError::KeySet)?)
}

fn tuple(d: &mut Decoder<'_>, len: u64) -> Result<(), Fault> {
    if d.array()? == Some(len) {
        Ok(())
    } else {
        Err(Fault::Cbor)
    }
}

fn hash(d: &mut Decoder<'_>) -> Result<Hash, Fault> {
    <[u8; 32]>::try_from(d.bytes()?)
        .map(Hash::from_bytes)
        .map_err(|_| Fault::Cbor)
}

fn len_u64(len: usize) -> u64 {
    u64::try_from(len).expect("a list in memory has fewer than 2^64 entries")
}

const KEY_DEVICE_TYPES: u8 = 1;
const KEY_HARDWARE: u8 = 2;
const KEY_COMPONENT: u8 = 3;
const KEY_BUILD: u8 = 4;
const KEY_RELEASE: u8 = 5;
const KEY_SECURITY_VERSION: u8 = 6;
const KEY_SIZE: u8 = 7;
const KEY_TABLE: u8 = 8;
const KEY_STORED_SIZE: u8 = 9;
const KEY_STORED_HASH: u8 = 10;
const KEY_REQUIRES: u8 = 11;
/// A device that knows no chains passes over it and counts its own keys, as it did before.
const KEY_KEY_SETS: u8 = 64;
/// Keys from here on are for additions that an older device may pass over.
const FIRST_IGNORED_KEY: u64 = 64;
