use alloc::vec::Vec;
use core::num::NonZeroU8;

use crate::cose::{Envelope, EnvelopeFault, MAX_SIGNERS};
use crate::key_set::Ground;
use crate::{
    AdoptedKeys, FileHeader, KeyId, KeySet, Manifest, ManifestError, ManifestId, PublicKey,
    SecretKey,
};

/// A manifest in its signature envelope (`COSE_Sign`), as it lies in a file and in a slot.
///
/// Parsing checks everything but the signatures; [`verify`](Self::verify) checks those.
#[derive(Clone, Debug)]
pub struct SignedManifest {
    envelope: Envelope,
    id: ManifestId,
    manifest: Manifest,
}

impl SignedManifest {
    /// Most signers: bounds the work that bytes from a stranger can cause.
    pub const MAX_SIGNERS: usize = MAX_SIGNERS;

    /// Reads a signed manifest and checks every rule of the format. It does not look at the signatures.
    ///
    /// # Errors
    ///
    /// When the bytes are no manifest that this version understands, or claim what no image can have.
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Result<Self, ManifestError> {
        let bytes = bytes.into();
        check_len(&bytes)?;
        let envelope = Envelope::parse(bytes, AAD)?;
        Ok(Self {
            id: ManifestId::of(envelope.payload()),
            manifest: Manifest::decode(envelope.payload())?,
            envelope,
        })
    }

    /// Signs `manifest` with every one of `keys`; with none it makes an unsigned image, which devices refuse unless told otherwise.
    ///
    /// # Errors
    ///
    /// When the manifest breaks a rule of the format, or there are too many keys.
    pub fn sign(manifest: &Manifest, keys: &[SecretKey]) -> Result<Self, ManifestError> {
        manifest.check()?;
        let envelope = Envelope::seal(manifest.encode(), keys, AAD)?;
        check_len(envelope.bytes())?;
        Ok(Self {
            id: ManifestId::of(envelope.payload()),
            manifest: manifest.clone(),
            envelope,
        })
    }

    /// The bytes, as parsed or as made by signing.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.envelope.bytes()
    }

    /// Names the image.
    #[must_use]
    pub fn id(&self) -> ManifestId {
        self.id
    }

    /// The manifest, whoever made it: to show, never to act upon.
    #[must_use]
    pub fn unverified(&self) -> &Manifest {
        &self.manifest
    }

    /// Who claims to have signed it.
    pub fn signers(&self) -> impl Iterator<Item = KeyId> {
        self.envelope.signers()
    }

    /// Checks the signatures, on a device that has adopted no key set: its keys count, or those of the last set that the image carries.
    ///
    /// A key counts once, however often it signed. Signatures by keys that are not trusted are passed over; one that names a trusted key
    /// and is wrong makes the whole image refused, even where enough others are right.
    ///
    /// # Errors
    ///
    /// When fewer of the trusted keys signed than the threshold asks, or a signature is wrong.
    pub fn verify(&self, trust: &Trust) -> Result<(&Manifest, Signed), VerifyError> {
        let verified = self.verify_adopted(trust, None)?;
        Ok((verified.manifest, verified.signed))
    }

    /// Checks the signatures on a device that may have `adopted` a key set, and says which set the image leads to.
    ///
    /// Each set that the image carries must be signed by the threshold of the one before it, the first one by the device's keys: the
    /// adopted ones where the device still has them, otherwise those of `trust`. Sets up to one that has just the device's keys need no
    /// check. The adopted set must be among them, or be what the first one follows. The signatures of the manifest are then checked
    /// against the last set.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify), and when the chain is forged, has a gap, or leads past or not as far as the adopted set.
    pub fn verify_adopted(
        &self,
        trust: &Trust,
        adopted: Option<&AdoptedKeys>,
    ) -> Result<Verified<'_>, VerifyError> {
        let ground = Ground::new(trust, adopted);
        let chain = &self.manifest.key_sets;
        let accepts = trust.unsigned == Unsigned::Accept;
        let key_set = match ground.follow(chain) {
            Err(_) if accepts && chain.is_empty() => None,
            followed => followed?,
        };
        let (keys, threshold) = match key_set {
            Some(set) => (set.keys(), set.threshold()),
            None => (ground.current().keys, ground.current().threshold),
        };
        let count = self.envelope.count(keys);
        let found = count.map_err(|key| VerifyError::BadSignature { key })?;
        let verified = |signed, key_set| Verified {
            manifest: &self.manifest,
            signed,
            key_set,
        };
        if found >= threshold.get() {
            return Ok(verified(Signed::By(found), key_set));
        }
        match (found, trust.unsigned) {
            (0, Unsigned::Accept) => Ok(verified(Signed::Unsigned, None)),
            (0, Unsigned::Refuse) if !self.envelope.is_signed() => Err(VerifyError::Unsigned),
            (0, Unsigned::Refuse) => Err(self.stranger(&ground)),
            (found, _) => Err(VerifyError::ThresholdUnmet {
                found,
                needed: threshold,
            }),
        }
    }

    /// Nobody who signed is trusted now: was one of them before the keys were changed?
    fn stranger(&self, ground: &Ground<'_>) -> VerifyError {
        let chain = &self.manifest.key_sets;
        let last = chain.last().map(|signed| signed.unverified().number());
        let earlier = chain.iter().rev().skip(1);
        let mut replaced = earlier
            .map(|signed| signed.unverified().keys())
            .chain([ground.configured().keys]);
        match last.or_else(|| ground.adopted()) {
            Some(by) if replaced.any(|keys| self.envelope.count(keys).is_ok_and(|n| n > 0)) => {
                VerifyError::ReplacedKeys { by }
            }
            _ => VerifyError::NoTrustedSigner,
        }
    }
}

impl PartialEq for SignedManifest {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for SignedManifest {}

/// An image's manifest whose signatures suffice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified<'a> {
    /// What the image says about itself.
    pub manifest: &'a Manifest,
    /// By how many of the keys it is signed.
    pub signed: Signed,
    /// The last set that it carries, whose keys signed it; `None`: it carries none, or nobody signed it.
    pub key_set: Option<&'a KeySet>,
}

/// Whose signatures count, and how many it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The keys that count.
    pub keys: Vec<PublicKey>,
    /// How many different ones of them must have signed.
    pub threshold: NonZeroU8,
    /// What to do with an image that none of the keys signed.
    pub unsigned: Unsigned,
}

/// What to do with an image that none of the trusted keys signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "who embeds this decides between the two"
)]
pub enum Unsigned {
    /// Refuse it: the rule.
    Refuse,
    /// Take it: whoever can answer the device chooses its firmware. For a vendor who insists.
    Accept,
}

/// What [`SignedManifest::verify`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "who embeds this must look at both")]
pub enum Signed {
    /// So many different trusted keys signed it, at least the threshold.
    By(u8),
    /// None did, and [`Unsigned::Accept`] says that this will do.
    Unsigned,
}

/// Why the signatures of an image do not suffice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The image carries no signature.
    #[error("the image is not signed")]
    Unsigned,
    /// It is signed, but by none of the trusted keys: another vendor's image, or the wrong key file.
    #[error("the image is signed by none of the trusted keys")]
    NoTrustedSigner,
    /// Fewer of the trusted keys signed than needed; a key that signed twice counted once.
    #[error("{found} of the trusted keys signed the image, {needed} are needed")]
    ThresholdUnmet {
        /// How many signed.
        found: u8,
        /// How many must.
        needed: NonZeroU8,
    },
    /// A signature names a trusted key and is wrong: the manifest or the signature was changed.
    #[error(
        "the signature by key {key} is wrong: the manifest was changed after it was signed, or damaged"
    )]
    BadSignature {
        /// The key it names.
        key: KeyId,
    },
    /// Signed only by keys that a later set has replaced ("key rollback").
    #[error("key rollback: the image is signed by keys that key set {by} has replaced")]
    ReplacedKeys {
        /// The set that counts now.
        by: u64,
    },
    /// The image's key sets end before the one that the device has adopted ("key rollback").
    #[error(
        "key rollback: the image's key sets end with {image}, this device has adopted set {adopted}"
    )]
    KeyRollback {
        /// The last set of the image.
        image: u64,
        /// The device's.
        adopted: u64,
    },
    /// The device has adopted a set and no longer has its keys, and the image carries no sets: pack it with them.
    #[error(
        "the image carries no key sets, and this device knows its adopted set {adopted} by name only: pack the image with its key sets"
    )]
    KeySetMissing {
        /// The device's set.
        adopted: u64,
    },
    /// Not enough of the keys of the set before it signed a set ("forged chain").
    #[error(
        "forged key set {number}: {found} of the keys before it signed it, {needed} are needed"
    )]
    KeySetForged {
        /// The set.
        number: u64,
        /// How many signed.
        found: u8,
        /// How many must.
        needed: NonZeroU8,
    },
    /// A signature of a key set names a key of the set before it and is wrong ("forged chain").
    #[error("forged key set {number}: the signature by key {key} is wrong")]
    KeySetSignature {
        /// The set.
        number: u64,
        /// The key.
        key: KeyId,
    },
    /// The image has another set under the number that the device has adopted ("fork").
    #[error("forked key set {number}: this device has adopted another set of that number")]
    KeySetFork {
        /// The number.
        number: u64,
    },
    /// The image's sets begin after the one that follows the device's keys: pack it with all of them.
    #[error(
        "the image's key sets begin with {first}, and this device has the keys of set {known}: pack the image with the sets between"
    )]
    KeySetGap {
        /// The first set of the image.
        first: u64,
        /// The device's; 0: the keys it is configured with.
        known: u64,
    },
}

impl From<EnvelopeFault> for ManifestError {
    fn from(fault: EnvelopeFault) -> Self {
        match fault {
            EnvelopeFault::Damaged => Self::Envelope,
            EnvelopeFault::Form => Self::EnvelopeForm,
            EnvelopeFault::Signer(signer) => Self::Signer { signer },
            EnvelopeFault::TooManySigners(count) => Self::TooManySigners {
                count,
                limit: MAX_SIGNERS,
            },
        }
    }
}

/// Binds signatures to this use, so that no signature made for something else passes for one over a manifest.
const AAD: &[u8] = b"rekindle-manifest-1";

fn check_len(bytes: &[u8]) -> Result<(), ManifestError> {
    let limit = FileHeader::MAX_MANIFEST_LEN;
    if u32::try_from(bytes.len()).is_ok_and(|len| len <= limit) {
        Ok(())
    } else {
        Err(ManifestError::TooLong {
            len: bytes.len(),
            limit,
        })
    }
}
