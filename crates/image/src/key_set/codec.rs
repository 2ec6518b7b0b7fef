//! A key set as CBOR: one map, integer keys in rising order, definite lengths.

use alloc::vec::Vec;
use core::num::NonZeroU8;

use minicbor::{Decoder, Encoder, decode, encode};

use super::{KeySet, KeySetError};
use crate::PublicKey;

impl KeySet {
    /// The one encoding of the set: equal sets have equal bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        self.encode_to(&mut encoder)
            .expect("writing to a vector cannot fail");
        encoder.into_writer()
    }

    fn encode_to(
        &self,
        e: &mut Encoder<Vec<u8>>,
    ) -> Result<(), encode::Error<core::convert::Infallible>> {
        let count = u64::try_from(self.keys.len()).expect("a set has at most 16 keys");
        e.map(3)?;
        e.u8(KEY_NUMBER)?.u64(self.number)?;
        e.u8(KEY_THRESHOLD)?.u8(self.threshold.get())?;
        e.u8(KEY_KEYS)?.array(count)?;
        for key in &self.keys {
            e.bytes(key.as_bytes())?;
        }
        Ok(())
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Self, KeySetError> {
        let mut d = Decoder::new(payload);
        let (number, threshold, count) =
            head(&mut d).map_err(|_: decode::Error| KeySetError::Malformed)?;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > Self::MAX_KEYS {
            return Err(KeySetError::Keys { count });
        }
        let keys = (0..count)
            .map(|_| {
                let bytes = d
                    .bytes()
                    .map_err(|_: decode::Error| KeySetError::Malformed)?;
                let bytes = bytes.try_into();
                let bytes =
                    bytes.map_err(|_: core::array::TryFromSliceError| KeySetError::Malformed)?;
                PublicKey::from_bytes(bytes).map_err(|_not_a_key| KeySetError::NotAKey)
            })
            .collect::<Result<_, _>>()?;
        let set = Self {
            number,
            threshold: NonZeroU8::new(threshold).ok_or(KeySetError::Malformed)?,
            keys,
        };
        set.check()?;
        // One encoding: this refuses what follows the map, longer forms and other keys.
        if set.encode() != payload {
            return Err(KeySetError::Malformed);
        }
        Ok(set)
    }
}

fn head(d: &mut Decoder<'_>) -> Result<(u64, u8, u64), decode::Error> {
    let wrong = || decode::Error::message("not the map of a key set");
    if d.map()? != Some(3) || d.u8()? != KEY_NUMBER {
        return Err(wrong());
    }
    let number = d.u64()?;
    if d.u8()? != KEY_THRESHOLD {
        return Err(wrong());
    }
    let threshold = d.u8()?;
    if d.u8()? != KEY_KEYS {
        return Err(wrong());
    }
    let count = d.array()?.ok_or_else(wrong)?;
    Ok((number, threshold, count))
}

const KEY_NUMBER: u8 = 1;
const KEY_THRESHOLD: u8 = 2;
const KEY_KEYS: u8 = 3;
