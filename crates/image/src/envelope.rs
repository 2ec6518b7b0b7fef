use alloc::vec::Vec;
use core::num::NonZeroU8;

use coset::{
    CoseSign, CoseSignature, CoseSignatureBuilder, Header, HeaderBuilder,
    TaggedCborSerializable as _, iana,
};

use crate::{FileHeader, KeyId, Manifest, ManifestError, ManifestId, PublicKey, SecretKey};

/// A manifest in its signature envelope (`COSE_Sign`), as it lies in a file and in a slot.
///
/// Parsing checks everything but the signatures; [`verify`](Self::verify) checks those.
#[derive(Clone, Debug)]
pub struct SignedManifest {
    bytes: Vec<u8>,
    envelope: CoseSign,
    id: ManifestId,
    manifest: Manifest,
}

impl SignedManifest {
    /// Most signers: bounds the work that bytes from a stranger can cause.
    pub const MAX_SIGNERS: usize = 16;

    /// Reads a signed manifest and checks every rule of the format. It does not look at the signatures.
    ///
    /// # Errors
    ///
    /// When the bytes are no manifest that this version understands, or claim what no image can have.
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Result<Self, ManifestError> {
        let bytes = bytes.into();
        check_len(&bytes)?;
        // The error of coset says less than its name: one of ours says as much.
        let Ok(envelope) = CoseSign::from_tagged_slice(&bytes) else {
            return Err(ManifestError::Envelope);
        };
        check_form(&envelope, &bytes)?;
        let payload = envelope.payload.as_deref().ok_or(ManifestError::Envelope)?;
        Ok(Self {
            id: ManifestId::of(payload),
            manifest: Manifest::decode(payload)?,
            bytes,
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
        let payload = manifest.encode();
        let id = ManifestId::of(&payload);
        let mut envelope = CoseSign {
            payload: Some(payload),
            ..CoseSign::default()
        };
        for key in keys {
            let mut signature = CoseSignatureBuilder::new()
                .protected(signer_header(key.key_id()))
                .build();
            signature.signature = key.sign(&envelope.tbs_data(AAD, &signature)).to_vec();
            envelope.signatures.push(signature);
        }
        let bytes = to_bytes(&envelope)?;
        check_len(&bytes)?;
        check_form(&envelope, &bytes)?;
        Ok(Self {
            bytes,
            envelope,
            id,
            manifest: manifest.clone(),
        })
    }

    /// The bytes, as parsed or as made by signing.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
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
        self.envelope.signatures.iter().filter_map(signer)
    }

    /// Checks the signatures.
    ///
    /// A key counts once, however often it signed. Signatures by keys that are not trusted are passed over; one that names a trusted key
    /// and is wrong makes the whole image refused, even where enough others are right.
    ///
    /// # Errors
    ///
    /// When fewer of the trusted keys signed than the threshold asks, or a signature is wrong.
    pub fn verify(&self, trust: &Trust) -> Result<(&Manifest, Signed), VerifyError> {
        let mut counted: Vec<&PublicKey> = Vec::new();
        for signature in &self.envelope.signatures {
            let Some(id) = signer(signature) else {
                continue;
            };
            let mut named = trust
                .keys
                .iter()
                .filter(|key| key.key_id() == id)
                .peekable();
            if named.peek().is_none() {
                continue;
            }
            let message = self.envelope.tbs_data(AAD, signature);
            let key = named
                .find(|key| key.is_signer_of(&message, &signature.signature))
                .ok_or(VerifyError::BadSignature { key: id })?;
            if !counted.contains(&key) {
                counted.push(key);
            }
        }
        let found = u8::try_from(counted.len()).unwrap_or(u8::MAX);
        if found >= trust.threshold.get() {
            return Ok((&self.manifest, Signed::By(found)));
        }
        match (found, trust.unsigned) {
            (0, Unsigned::Accept) => Ok((&self.manifest, Signed::Unsigned)),
            (0, Unsigned::Refuse) if self.envelope.signatures.is_empty() => {
                Err(VerifyError::Unsigned)
            }
            (0, Unsigned::Refuse) => Err(VerifyError::NoTrustedSigner),
            (found, _) => Err(VerifyError::ThresholdUnmet {
                found,
                needed: trust.threshold,
            }),
        }
    }
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

/// One manifest with one set of signatures has one form: nobody can vary what the signatures do not cover.
fn check_form(envelope: &CoseSign, bytes: &[u8]) -> Result<(), ManifestError> {
    let count = envelope.signatures.len();
    if count > SignedManifest::MAX_SIGNERS {
        return Err(ManifestError::TooManySigners {
            count,
            limit: SignedManifest::MAX_SIGNERS,
        });
    }
    for (index, signature) in envelope.signatures.iter().enumerate() {
        let is_ours = signer(signature)
            .is_some_and(|id| signature.protected.header == signer_header(id))
            && signature.unprotected.is_empty()
            && signature.signature.len() == 64;
        if !is_ours {
            return Err(ManifestError::Signer { signer: index + 1 });
        }
    }
    let mut canonical = envelope.clone();
    canonical.protected.original_data = None;
    for signature in &mut canonical.signatures {
        signature.protected.original_data = None;
    }
    let has_headers = !envelope.protected.header.is_empty() || !envelope.unprotected.is_empty();
    if has_headers || to_bytes(&canonical)? != bytes {
        return Err(ManifestError::EnvelopeForm);
    }
    Ok(())
}

fn to_bytes(envelope: &CoseSign) -> Result<Vec<u8>, ManifestError> {
    let encoded = envelope.clone().to_tagged_vec();
    encoded.map_err(|_| ManifestError::EnvelopeForm)
}

fn signer(signature: &CoseSignature) -> Option<KeyId> {
    let id = signature.protected.header.key_id.as_slice();
    id.try_into().ok().map(KeyId::from_bytes)
}

fn signer_header(id: KeyId) -> Header {
    HeaderBuilder::new()
        .algorithm(iana::Algorithm::EdDSA)
        .key_id(id.as_bytes().to_vec())
        .build()
}
