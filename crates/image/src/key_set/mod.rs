//! Key sets: how the keys that a device trusts are replaced.

mod chain;
mod codec;

use alloc::vec::Vec;
use core::num::NonZeroU8;

pub use self::chain::AdoptedKeys;
pub(crate) use self::chain::{Ground, check_numbers};
use crate::cose::{Envelope, EnvelopeFault, MAX_SIGNERS};
use crate::{Hash, KeyId, PublicKey, SecretKey};

/// The keys that count from some moment on, and how many different ones of them must sign.
///
/// Sets are numbered: 0 is what a device was made with, each later one is signed by the threshold of the set before it. An image carries
/// the sets that lead to the keys it is signed with ([`Manifest::key_sets`](crate::Manifest::key_sets)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySet {
    number: u64,
    threshold: NonZeroU8,
    /// In rising order of their bytes, none twice.
    keys: Vec<PublicKey>,
}

impl KeySet {
    /// Most keys of a set.
    pub const MAX_KEYS: usize = 16;
    /// Most sets that an image carries.
    pub const MAX_CHAIN: usize = 16;

    /// Makes a set of keys in any order.
    ///
    /// # Errors
    ///
    /// No key, too many keys, one twice, or a threshold that they cannot meet.
    pub fn new(
        number: u64,
        threshold: NonZeroU8,
        mut keys: Vec<PublicKey>,
    ) -> Result<Self, KeySetError> {
        keys.sort_unstable_by_key(|key| *key.as_bytes());
        let set = Self {
            number,
            threshold,
            keys,
        };
        set.check()?;
        Ok(set)
    }

    fn check(&self) -> Result<(), KeySetError> {
        let count = self.keys.len();
        if count == 0 || count > Self::MAX_KEYS {
            return Err(KeySetError::Keys { count });
        }
        let order = |pair: &[PublicKey]| pair[0].as_bytes().cmp(pair[1].as_bytes());
        if let Some(pair) = self.keys.windows(2).find(|pair| order(pair).is_eq()) {
            return Err(KeySetError::KeyTwice(pair[0].key_id()));
        }
        if self.keys.windows(2).any(|pair| order(pair).is_gt()) {
            return Err(KeySetError::Malformed);
        }
        if usize::from(self.threshold.get()) > count {
            return Err(KeySetError::Threshold {
                threshold: self.threshold.get(),
                count,
            });
        }
        Ok(())
    }

    /// Its place in the chain; 0: the keys that a device was made with.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// How many different ones of the keys must sign.
    #[must_use]
    pub const fn threshold(&self) -> NonZeroU8 {
        self.threshold
    }

    /// The keys, in rising order of their bytes.
    #[must_use]
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// Names the set: the hash of its one encoding, without the signatures.
    #[must_use]
    pub fn digest(&self) -> Hash {
        Hash::of(&self.encode())
    }
}

/// A key set with the signatures of the set before it: as bytes a `COSE_Sign`, which is also the whole of its file.
#[derive(Clone, Debug)]
pub struct SignedKeySet {
    envelope: Envelope,
    set: KeySet,
}

impl SignedKeySet {
    /// Signs `set` with `keys`, which must meet the threshold of the set before it to be of use.
    ///
    /// # Errors
    ///
    /// The set has number 0, which nobody signs, or there are too many keys.
    pub fn sign(set: &KeySet, keys: &[SecretKey]) -> Result<Self, KeySetError> {
        if set.number == 0 {
            return Err(KeySetError::NumberZero);
        }
        Ok(Self {
            envelope: Envelope::seal(set.encode(), keys, AAD)?,
            set: set.clone(),
        })
    }

    /// Reads a signed key set. It does not look at the signatures.
    ///
    /// # Errors
    ///
    /// The bytes are none, or the set breaks a rule of the format.
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Result<Self, KeySetError> {
        let envelope = Envelope::parse(bytes.into(), AAD)?;
        let set = KeySet::decode(envelope.payload())?;
        if set.number == 0 {
            return Err(KeySetError::NumberZero);
        }
        Ok(Self { envelope, set })
    }

    /// The bytes, as parsed or as made by signing.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.envelope.bytes()
    }

    /// The set, whoever made it: to show, never to act upon.
    #[must_use]
    pub const fn unverified(&self) -> &KeySet {
        &self.set
    }

    /// Who claims to have signed it.
    pub fn signers(&self) -> impl Iterator<Item = KeyId> {
        self.envelope.signers()
    }
}

impl PartialEq for SignedKeySet {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for SignedKeySet {}

/// Why bytes are no signed key set, or keys cannot become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// No signature envelope, or not in the one form that the format allows.
    #[error("the signature envelope is damaged, or not in the one form that the format allows")]
    Envelope,
    /// More signers than allowed.
    #[error("{count} signers are more than the {MAX_SIGNERS} allowed")]
    TooManySigners {
        /// How many.
        count: usize,
    },
    /// The signed bytes are no key set in its one encoding.
    #[error("the signed bytes are no key set")]
    Malformed,
    /// 0 is the number of the keys that a device was made with; nobody signs those.
    #[error("number 0 stands for the keys that a device was made with: signed sets begin at 1")]
    NumberZero,
    /// No key, or too many.
    #[error("{count} keys, but 1 to {max} are allowed", max = KeySet::MAX_KEYS)]
    Keys {
        /// How many.
        count: usize,
    },
    /// A key twice would look like two signers and count as one.
    #[error("the key {0} is there twice")]
    KeyTwice(KeyId),
    /// Some of the bytes are no key, or one under which anybody can sign.
    #[error("32 bytes of it are no usable Ed25519 key")]
    NotAKey,
    /// The keys cannot meet the threshold.
    #[error("a threshold of {threshold} cannot be met by {count} keys")]
    Threshold {
        /// The threshold.
        threshold: u8,
        /// How many keys there are.
        count: usize,
    },
}

impl From<EnvelopeFault> for KeySetError {
    fn from(fault: EnvelopeFault) -> Self {
        match fault {
            EnvelopeFault::Damaged | EnvelopeFault::Form | EnvelopeFault::Signer(_) => {
                Self::Envelope
            }
            EnvelopeFault::TooManySigners(count) => Self::TooManySigners { count },
        }
    }
}

/// Binds signatures to this use: none over a manifest passes for one over a key set.
const AAD: &[u8] = b"rekindle-key-set-1";
