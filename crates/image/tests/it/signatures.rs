//! Who may sign, and how often a signature counts.

use core::num::NonZeroU8;

use coset::{CoseSign, TaggedCborSerializable as _, iana};
use rekindle_image::{
    ManifestError, SecretKey, Signed, SignedManifest, Trust, Unsigned, VerifyError,
};

use crate::crafted::{ed25519_sign, envelope, manifest, payload};
use crate::{key, packed, refusal, small_image, small_input, trust, verify};

fn signed_by(keys: &[SecretKey]) -> SignedManifest {
    SignedManifest::parse(envelope(&payload(&[]), keys).to_tagged_vec().unwrap()).unwrap()
}

fn check(keys: &[SecretKey], trust: &Trust) -> Result<Signed, VerifyError> {
    let signed = signed_by(keys);
    signed.verify(trust).map(|(verified, by)| {
        assert_eq!(verified, &manifest());
        by
    })
}

#[test]
fn different_trusted_keys_are_counted() {
    let unmet = |found, needed| {
        Err(VerifyError::ThresholdUnmet {
            found,
            needed: NonZeroU8::new(needed).unwrap(),
        })
    };
    for (signers, trusted, threshold, result) in [
        (&[1][..], &[1][..], 1, Ok(Signed::By(1))),
        (&[1, 2, 3], &[1, 2], 2, Ok(Signed::By(2))),
        (&[3, 1], &[1, 2], 1, Ok(Signed::By(1))),
        (&[1], &[1, 2], 2, unmet(1, 2)),
        // One key that signs twice counts once.
        (&[1, 1], &[1, 2], 2, unmet(1, 2)),
        (&[1, 1, 1], &[1, 1], 2, unmet(1, 2)),
        (&[1, 1, 2], &[1, 2], 2, Ok(Signed::By(2))),
        (&[3], &[1, 2], 1, Err(VerifyError::NoTrustedSigner)),
        (&[1], &[], 1, Err(VerifyError::NoTrustedSigner)),
        (&[], &[1], 1, Err(VerifyError::Unsigned)),
    ] {
        let keys: Vec<_> = signers.iter().map(|seed| key(*seed)).collect();
        let by = check(&keys, &trust(trusted, threshold));
        assert_eq!(by, result, "{signers:?} {trusted:?} {threshold}");
    }
}

#[test]
fn an_unsigned_image_is_taken_only_where_the_policy_says_so() {
    let lax = Trust {
        unsigned: Unsigned::Accept,
        ..trust(&[1, 2], 2)
    };
    assert_eq!(check(&[], &lax), Ok(Signed::Unsigned));
    assert_eq!(check(&[key(3)], &lax), Ok(Signed::Unsigned));
    assert_eq!(check(&[key(1), key(2)], &lax), Ok(Signed::By(2)));
    let needed = NonZeroU8::new(2).unwrap();
    assert_eq!(
        check(&[key(1)], &lax),
        Err(VerifyError::ThresholdUnmet { found: 1, needed })
    );
}

/// The envelope by keys 1 and 2, spoilt by `spoil`.
fn spoilt(spoil: impl Fn(&mut CoseSign)) -> Result<SignedManifest, ManifestError> {
    let mut envelope = envelope(&payload(&[]), &[key(1), key(2)]);
    spoil(&mut envelope);
    SignedManifest::parse(envelope.to_tagged_vec().unwrap())
}

#[test]
fn one_wrong_signature_by_a_trusted_key_spoils_the_image() {
    let bad = spoilt(|envelope| envelope.signatures[1].signature[9] ^= 1).unwrap();
    let id = key(2).key_id();
    assert_eq!(
        bad.verify(&trust(&[1, 2], 1)).unwrap_err(),
        VerifyError::BadSignature { key: id }
    );
    assert_eq!(bad.verify(&trust(&[1], 1)).unwrap().1, Signed::By(1));
}

#[test]
fn a_signature_made_for_something_else_does_not_count() {
    let bad = spoilt(|envelope| {
        let message = envelope.tbs_data(b"rekindle-script-1", &envelope.signatures[0]);
        envelope.signatures[0].signature = ed25519_sign(&key(1), &message);
    });
    let error = bad.unwrap().verify(&trust(&[1, 2], 1)).unwrap_err();
    let key = key(1).key_id();
    assert_eq!(error, VerifyError::BadSignature { key });
}

#[test]
fn a_signature_does_not_count_under_another_payload() {
    let bad = spoilt(|envelope| envelope.payload = Some(payload(&[(5, &[8])]))).unwrap();
    let key = key(1).key_id();
    assert_eq!(
        bad.verify(&trust(&[1], 1)).unwrap_err(),
        VerifyError::BadSignature { key }
    );
}

#[test]
fn the_image_does_not_choose_the_algorithm() {
    let refused = |spoil: fn(&mut CoseSign)| spoilt(spoil).unwrap_err();
    assert_eq!(
        refused(|envelope| {
            let header = &mut envelope.signatures[1].protected.header;
            header.alg = Some(coset::Algorithm::Assigned(iana::Algorithm::HMAC_256_256));
        }),
        ManifestError::Signer { signer: 2 }
    );
    assert_eq!(
        refused(|envelope| envelope.signatures[0].protected.header.alg = None),
        ManifestError::Signer { signer: 1 }
    );
    assert_eq!(
        refused(|envelope| envelope.signatures[0].signature.truncate(63)),
        ManifestError::Signer { signer: 1 }
    );
    assert_eq!(
        refused(|envelope| envelope.signatures[0].unprotected.key_id = vec![1]),
        ManifestError::Signer { signer: 1 }
    );
    assert_eq!(
        refused(|envelope| envelope.unprotected.key_id = vec![1]),
        ManifestError::EnvelopeForm
    );
    assert_eq!(
        refused(|envelope| envelope.payload = None),
        ManifestError::Envelope
    );
    assert_eq!(
        refused(|envelope| {
            let signature = envelope.signatures[0].clone();
            envelope.signatures = vec![signature; 17];
        }),
        ManifestError::TooManySigners {
            count: 17,
            limit: 16
        }
    );
}

#[test]
fn the_envelope_has_one_form() {
    let good = signed_by(&[key(1)]).bytes().to_vec();
    // The tag 98 in two bytes, written in three.
    assert_eq!(good[..2], [0xd8, 98]);
    let longer = [&[0xd9, 0, 98], &good[2..]].concat();
    assert_eq!(
        SignedManifest::parse(longer).unwrap_err(),
        ManifestError::EnvelopeForm
    );
    let followed = [good.as_slice(), &[0]].concat();
    assert_eq!(
        SignedManifest::parse(followed).unwrap_err(),
        ManifestError::Envelope
    );
    for len in 0..good.len() {
        assert_eq!(
            SignedManifest::parse(&good[..len]).unwrap_err(),
            ManifestError::Envelope
        );
    }
}

#[test]
fn files_signed_by_nobody_or_by_others_are_refused() {
    assert_eq!(
        refusal(&small_image(), &trust(&[2], 1)),
        "the image is signed by none of the trusted keys"
    );
    let unsigned = packed(&small_input(), &crate::options(), &[]);
    assert_eq!(
        refusal(&unsigned, &trust(&[1], 1)),
        "the image is not signed"
    );
    assert_eq!(
        refusal(&small_image(), &trust(&[1, 2], 2)),
        "1 of the trusted keys signed the image, 2 are needed"
    );
    let both = packed(&small_input(), &crate::options(), &[key(1), key(2)]);
    let report = verify(&both, &trust(&[1, 2], 2)).unwrap();
    assert_eq!(report.signed, Signed::By(2));
    let once = verify(&small_image(), &trust(&[1], 1)).unwrap();
    assert_eq!(report.id, once.id, "the signers are no part of the id");
}
