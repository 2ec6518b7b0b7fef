//! The one form of `COSE_Sign` in which manifests and key sets are signed.

use alloc::vec::Vec;

use coset::{
    CoseSign, CoseSignature, CoseSignatureBuilder, Header, HeaderBuilder,
    TaggedCborSerializable as _, iana,
};

use crate::{KeyId, PublicKey, SecretKey};

/// A payload with its signatures, and the bytes that it was read from or made into.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    sign: CoseSign,
    bytes: Vec<u8>,
    /// Binds signatures to one use, so that none made for something else passes for one over this.
    aad: &'static [u8],
}

impl Envelope {
    /// Reads an envelope; its signatures are not checked.
    pub(crate) fn parse(bytes: Vec<u8>, aad: &'static [u8]) -> Result<Self, EnvelopeFault> {
        // The error of coset says less than its name: one of ours says as much.
        let Ok(sign) = CoseSign::from_tagged_slice(&bytes) else {
            return Err(EnvelopeFault::Damaged);
        };
        check_form(&sign, &bytes)?;
        if sign.payload.is_none() {
            return Err(EnvelopeFault::Damaged);
        }
        Ok(Self { sign, bytes, aad })
    }

    /// Signs `payload` with every one of `keys`.
    pub(crate) fn seal(
        payload: Vec<u8>,
        keys: &[SecretKey],
        aad: &'static [u8],
    ) -> Result<Self, EnvelopeFault> {
        let mut sign = CoseSign {
            payload: Some(payload),
            ..CoseSign::default()
        };
        for key in keys {
            let mut signature = CoseSignatureBuilder::new()
                .protected(signer_header(key.key_id()))
                .build();
            signature.signature = key.sign(&sign.tbs_data(aad, &signature)).to_vec();
            sign.signatures.push(signature);
        }
        let bytes = to_bytes(&sign)?;
        check_form(&sign, &bytes)?;
        Ok(Self { sign, bytes, aad })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn payload(&self) -> &[u8] {
        self.sign.payload.as_deref().unwrap_or_default()
    }

    pub(crate) fn is_signed(&self) -> bool {
        !self.sign.signatures.is_empty()
    }

    /// Who claims to have signed it.
    pub(crate) fn signers(&self) -> impl Iterator<Item = KeyId> {
        self.sign.signatures.iter().filter_map(signer)
    }

    /// How many different ones of `keys` signed it; or the key that a wrong signature names.
    pub(crate) fn count(&self, keys: &[PublicKey]) -> Result<u8, KeyId> {
        let mut counted: Vec<&PublicKey> = Vec::new();
        for signature in &self.sign.signatures {
            let Some(id) = signer(signature) else {
                continue;
            };
            let mut named = keys.iter().filter(|key| key.key_id() == id).peekable();
            if named.peek().is_none() {
                continue;
            }
            let message = self.sign.tbs_data(self.aad, signature);
            let key = named
                .find(|key| key.is_signer_of(&message, &signature.signature))
                .ok_or(id)?;
            if !counted.contains(&key) {
                counted.push(key);
            }
        }
        Ok(u8::try_from(counted.len()).unwrap_or(u8::MAX))
    }
}

/// Why bytes are no envelope of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EnvelopeFault {
    Damaged,
    Form,
    /// Counted from 1.
    Signer(usize),
    TooManySigners(usize),
}

/// Bounds the work that bytes from a stranger can cause.
pub(crate) const MAX_SIGNERS: usize = 16;

/// One payload with one set of signatures has one form: nobody can vary what the signatures do not cover.
fn check_form(sign: &CoseSign, bytes: &[u8]) -> Result<(), EnvelopeFault> {
    let count = sign.signatures.len();
    if count > MAX_SIGNERS {
        return Err(EnvelopeFault::TooManySigners(count));
    }
    for (index, signature) in sign.signatures.iter().enumerate() {
        let is_ours = signer(signature)
            .is_some_and(|id| signature.protected.header == signer_header(id))
            && signature.unprotected.is_empty()
            && signature.signature.len() == 64;
        if !is_ours {
            return Err(EnvelopeFault::Signer(index + 1));
        }
    }
    let mut canonical = sign.clone();
    canonical.protected.original_data = None;
    for signature in &mut canonical.signatures {
        signature.protected.original_data = None;
    }
    let has_headers = !sign.protected.header.is_empty() || !sign.unprotected.is_empty();
    if has_headers || to_bytes(&canonical)? != bytes {
        return Err(EnvelopeFault::Form);
    }
    Ok(())
}

fn to_bytes(sign: &CoseSign) -> Result<Vec<u8>, EnvelopeFault> {
    let encoded = sign.clone().to_tagged_vec();
    encoded.map_err(|_| EnvelopeFault::Form)
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
