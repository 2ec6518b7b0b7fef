//! How a device follows new keys, and what it refuses on the way.

use core::num::NonZeroU8;

use rekindle_image::{
    AdoptedKeys, KeySet, KeySetError, Manifest, ManifestError, PublicKey, Signed, SignedKeySet,
    SignedManifest, Trust, Unsigned, VerifyError,
};

use crate::crafted::{cbor, manifest, payload, signed};
use crate::{key, trust};

fn set(number: u64, threshold: u8, seeds: &[u8]) -> KeySet {
    let keys = seeds.iter().map(|seed| key(*seed).public()).collect();
    KeySet::new(number, NonZeroU8::new(threshold).unwrap(), keys).unwrap()
}

fn by(set: &KeySet, seeds: &[u8]) -> SignedKeySet {
    let keys: Vec<_> = seeds.iter().map(|seed| key(*seed)).collect();
    SignedKeySet::sign(set, &keys).unwrap()
}

/// Sets 1 to 3: key 10, signed by key 1; keys 20 and 21, both needed; key 30.
fn chain() -> Vec<SignedKeySet> {
    vec![
        by(&set(1, 1, &[10]), &[1]),
        by(&set(2, 2, &[20, 21]), &[10]),
        by(&set(3, 1, &[30]), &[20, 21]),
    ]
}

fn image(chain: &[SignedKeySet], signers: &[u8]) -> SignedManifest {
    let manifest = Manifest {
        key_sets: chain.to_vec(),
        ..manifest()
    };
    let keys: Vec<_> = signers.iter().map(|seed| key(*seed)).collect();
    let signed = SignedManifest::sign(&manifest, &keys).unwrap();
    SignedManifest::parse(signed.bytes()).unwrap()
}

fn named(set: &KeySet) -> AdoptedKeys {
    AdoptedKeys::new(set.number(), set.digest())
}

/// The number of the set that the image leads to.
fn verify(
    image: &SignedManifest,
    trust: &Trust,
    adopted: Option<&AdoptedKeys>,
) -> Result<Option<u64>, VerifyError> {
    let verified = image.verify_adopted(trust, adopted)?;
    assert_ne!(verified.signed, Signed::Unsigned);
    Ok(verified.key_set.map(KeySet::number))
}

#[test]
fn a_device_that_knows_only_its_factory_keys_follows_the_chain() {
    let factory = trust(&[1], 1);
    for (sets, signers, last) in [
        (0, &[1][..], None),
        (1, &[10], Some(1)),
        (3, &[30], Some(3)),
    ] {
        let image = image(&chain()[..sets], signers);
        assert_eq!(verify(&image, &factory, None), Ok(last), "{sets} sets");
    }
    let two = image(&chain()[..2], &[20, 21]);
    assert_eq!(two.verify(&factory).unwrap().1, Signed::By(2));
}

#[test]
fn a_device_stands_on_the_set_that_has_just_its_keys() {
    // Configured with the keys of set 2, by a firmware that came with them.
    let newer = trust(&[21, 20], 2);
    assert_eq!(verify(&image(&chain(), &[30]), &newer, None), Ok(Some(3)));
    assert_eq!(
        verify(&image(&chain()[2..], &[30]), &newer, None),
        Ok(Some(3))
    );
    assert_eq!(
        verify(&image(&chain()[..2], &[20, 21]), &newer, None),
        Ok(Some(2))
    );
    // The same keys under another threshold are another set.
    let gap = VerifyError::KeySetForged {
        number: 1,
        found: 0,
        needed: NonZeroU8::MIN,
    };
    assert_eq!(
        verify(&image(&chain(), &[30]), &trust(&[20, 21], 1), None),
        Err(gap)
    );
}

#[test]
fn the_adopted_set_decides_wherever_its_keys_are_known_from() {
    let factory = trust(&[1], 1);
    let second = set(2, 2, &[20, 21]);
    let by_name = named(&second);
    let with_keys = named(&second).with_set(Some(second.clone()));
    let all = image(&chain(), &[30]);
    let rest = image(&chain()[2..], &[30]);
    let none = image(&[], &[20, 21]);
    for (image, by_name_alone, with_its_keys) in [
        (&all, Ok(Some(3)), Ok(Some(3))),
        (
            &rest,
            Err(VerifyError::KeySetGap { first: 3, known: 2 }),
            Ok(Some(3)),
        ),
        (
            &none,
            Err(VerifyError::KeySetMissing { adopted: 2 }),
            Ok(None),
        ),
    ] {
        assert_eq!(verify(image, &factory, Some(&by_name)), by_name_alone);
        assert_eq!(verify(image, &factory, Some(&with_keys)), with_its_keys);
    }
    // The configuration has the keys: they are recognised by the name.
    let newer = trust(&[20, 21], 2);
    assert_eq!(verify(&rest, &newer, Some(&by_name)), Ok(Some(3)));
    assert_eq!(verify(&none, &newer, Some(&by_name)), Ok(None));
    // Keys that are not those of the name are no help.
    let other = named(&second).with_set(Some(set(2, 1, &[66])));
    assert_eq!(
        verify(&none, &factory, Some(&other)),
        Err(VerifyError::KeySetMissing { adopted: 2 })
    );
}

#[test]
fn replaced_keys_cannot_come_back_as_a_later_set() {
    let factory = trust(&[1], 1);
    let second = set(2, 2, &[20, 21]);
    // The factory's key under the next number, signed by nobody, by itself, or by a stranger.
    for signers in [&[][..], &[1], &[10], &[66]] {
        let back = by(&set(3, 1, &[1]), signers);
        for sets in [chain()[..2].to_vec(), vec![chain()[1].clone()]] {
            let image = image(&[sets, vec![back.clone()]].concat(), &[1]);
            for adopted in [
                named(&second),
                named(&second).with_set(Some(second.clone())),
            ] {
                let result = verify(&image, &factory, Some(&adopted));
                assert!(
                    matches!(result, Err(VerifyError::KeySetForged { number: 3, .. })),
                    "{result:?}"
                );
            }
        }
    }
}

#[test]
fn set_that_boot_control_names_is_where_a_device_without_its_keys_begins() {
    let factory = trust(&[1], 1);
    let by_name = named(&set(2, 2, &[20, 21]));
    let short = image(&chain()[1..2], &[20, 21]);
    assert_eq!(verify(&short, &factory, Some(&by_name)), Ok(Some(2)));
    let longer = image(&chain()[1..], &[30]);
    assert_eq!(verify(&longer, &factory, Some(&by_name)), Ok(Some(3)));
    assert!(
        verify(&short, &factory, None).is_err(),
        "nothing vouches for it"
    );
}

#[test]
fn what_older_keys_signed_is_refused_for_ever() {
    let factory = trust(&[1], 1);
    let first = set(1, 1, &[10]);
    let adopted = named(&first).with_set(Some(first));
    let old = image(&[], &[1]);
    assert_eq!(
        verify(&old, &factory, Some(&adopted))
            .unwrap_err()
            .to_string(),
        "key rollback: the image is signed by keys that key set 1 has replaced"
    );
    // A stolen old key under the genuine chain.
    assert_eq!(
        verify(&image(&chain()[..2], &[10]), &factory, None),
        Err(VerifyError::ReplacedKeys { by: 2 })
    );
    let third = named(&set(3, 1, &[30]));
    assert_eq!(
        verify(&image(&chain()[..2], &[20, 21]), &factory, Some(&third))
            .unwrap_err()
            .to_string(),
        "key rollback: the image's key sets end with 2, this device has adopted set 3"
    );
    let stranger = image(&[], &[66]);
    assert_eq!(
        verify(&stranger, &factory, Some(&adopted)),
        Err(VerifyError::NoTrustedSigner)
    );
}

#[test]
fn forged_chains_are_refused_by_name() {
    let factory = trust(&[1], 1);
    let forged = |number, found, needed| {
        Err(VerifyError::KeySetForged {
            number,
            found,
            needed: NonZeroU8::new(needed).unwrap(),
        })
    };
    let mine = by(&set(1, 1, &[66]), &[66]);
    assert_eq!(
        verify(&image(&[mine], &[66]), &factory, None),
        forged(1, 0, 1)
    );
    // One of two keys is not enough, and one that signs twice is one.
    for signers in [&[20][..], &[20, 20]] {
        let mut sets = chain();
        sets[2] = by(&set(3, 1, &[66]), signers);
        assert_eq!(
            verify(&image(&sets, &[66]), &factory, None),
            forged(3, 1, 2)
        );
    }
    // A later set signed by the keys of a set that was replaced.
    let mut sets = chain();
    sets[2] = by(&set(3, 1, &[66]), &[10, 1]);
    assert_eq!(
        verify(&image(&sets, &[66]), &factory, None),
        forged(3, 0, 2)
    );
    // The chain without its beginning.
    assert_eq!(
        verify(&image(&chain()[1..], &[30]), &factory, None),
        Err(VerifyError::KeySetGap { first: 2, known: 0 })
    );
    // A fork: the keys of set 1 signed two different sets 2.
    let mut fork = chain();
    fork.truncate(1);
    fork.push(by(&set(2, 1, &[40]), &[10]));
    let adopted = named(&set(2, 2, &[20, 21]));
    assert_eq!(verify(&image(&fork, &[40]), &factory, None), Ok(Some(2)));
    assert_eq!(
        verify(&image(&fork, &[40]), &factory, Some(&adopted)),
        Err(VerifyError::KeySetFork { number: 2 })
    );
}

#[test]
fn a_signature_over_a_set_counts_for_nothing_else() {
    let factory = trust(&[1], 1);
    let mut wrong = by(&set(1, 1, &[66]), &[1]).bytes().to_vec();
    let last = wrong.len() - 1;
    wrong[last] ^= 1;
    let wrong = SignedKeySet::parse(wrong).unwrap();
    assert_eq!(
        verify(&image(&[wrong], &[66]), &factory, None),
        Err(VerifyError::KeySetSignature {
            number: 1,
            key: key(1).key_id()
        })
    );
    // A manifest is no key set.
    let manifest = image(&[], &[1]);
    assert_eq!(
        SignedKeySet::parse(manifest.bytes()).unwrap_err(),
        KeySetError::Malformed
    );
}

#[test]
fn a_device_that_takes_unsigned_images_still_follows_and_forges_nothing() {
    let lax = Trust {
        unsigned: Unsigned::Accept,
        ..trust(&[1], 1)
    };
    let unsigned = image(&chain(), &[]);
    let verified = unsigned.verify_adopted(&lax, None).unwrap();
    assert_eq!(
        (verified.signed, verified.key_set),
        (Signed::Unsigned, None)
    );
    let adopted = named(&set(1, 1, &[10]));
    let plain = image(&[], &[]);
    let verified = plain.verify_adopted(&lax, Some(&adopted)).unwrap();
    assert_eq!(verified.signed, Signed::Unsigned);
    let forged = image(&[by(&set(1, 1, &[66]), &[66])], &[66]);
    assert!(matches!(
        verify(&forged, &lax, None),
        Err(VerifyError::KeySetForged { number: 1, .. })
    ));
}

#[test]
fn numbers_rise_by_one() {
    let of = |numbers: &[u64]| {
        let sets: Vec<_> = numbers
            .iter()
            .map(|number| by(&set(*number, 1, &[10]), &[1]))
            .collect();
        let manifest = Manifest {
            key_sets: sets,
            ..manifest()
        };
        SignedManifest::sign(&manifest, &[key(1)]).map(|_| ())
    };
    assert_eq!(of(&[5, 6]), Ok(()));
    for (before, number) in [(1, 3), (2, 2), (2, 1), (u64::MAX, 1)] {
        assert_eq!(
            of(&[before, number]),
            Err(ManifestError::KeySetNumber { before, number })
        );
    }
    assert!(matches!(
        of(&[1; 17]),
        Err(ManifestError::Count { count: 17, .. })
    ));
    assert_eq!(
        SignedKeySet::sign(&set(0, 1, &[10]), &[key(1)]).map(|_| ()),
        Err(KeySetError::NumberZero)
    );
}

#[test]
fn sets_that_break_a_rule_are_refused_with_their_reason() {
    let keys =
        |seeds: &[u8]| -> Vec<PublicKey> { seeds.iter().map(|seed| key(*seed).public()).collect() };
    let seventeen: Vec<u8> = (1..=17).collect();
    for (threshold, keys, error) in [
        (1, Vec::new(), KeySetError::Keys { count: 0 }),
        (1, keys(&seventeen), KeySetError::Keys { count: 17 }),
        (1, keys(&[7, 8, 7]), KeySetError::KeyTwice(key(7).key_id())),
        (
            3,
            keys(&[7, 8]),
            KeySetError::Threshold {
                threshold: 3,
                count: 2,
            },
        ),
    ] {
        let made = KeySet::new(1, NonZeroU8::new(threshold).unwrap(), keys);
        assert_eq!(made, Err(error));
    }
    // A garbled set makes the manifest unreadable, and so does an empty list.
    let garbled = cbor(|e| {
        e.array(1).unwrap().bytes(b"nonsense").unwrap();
    });
    assert_eq!(
        SignedManifest::parse(signed(&payload(&[(64, &garbled)]))).unwrap_err(),
        ManifestError::KeySet(KeySetError::Envelope)
    );
    let empty = cbor(|e| {
        e.array(0).unwrap();
    });
    assert_eq!(
        SignedManifest::parse(signed(&payload(&[(64, &empty)])))
            .unwrap_err()
            .to_string(),
        "the manifest has no key sets"
    );
}

#[test]
fn every_flipped_bit_of_a_set_is_seen() {
    let good = by(&set(1, 1, &[10]), &[1]);
    let factory = trust(&[1], 1);
    for bit in 0..good.bytes().len() * 8 {
        let mut bytes = good.bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Ok(parsed) = SignedKeySet::parse(bytes) else {
            continue;
        };
        // With other keys the image below would be refused for its signer alone.
        if parsed.unverified().keys() == [key(10).public()] {
            verify(&image(&[parsed], &[10]), &factory, None).unwrap_err();
        }
    }
}
