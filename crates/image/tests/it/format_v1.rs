//! The bytes of format version 1. If this fails, revert your change, do not edit the bytes.

use core::num::NonZeroU8;

use rekindle_image::{KeySet, Manifest, Signed, SignedKeySet, SignedManifest};

use crate::crafted::manifest;
use crate::{key, trust, verify};

/// Packed by the first release: chunks stored raw and compressed, signed by keys 1 and 2.
const IMAGE: &[u8] = include_bytes!("v1.image");

#[test]
fn the_first_image_is_still_good() {
    let report = verify(IMAGE, &trust(&[1, 2], 2)).unwrap();
    assert_eq!(report.signed, Signed::By(2));
    assert_eq!(
        report.id.to_string(),
        "09e444299f948298107f7170d13a3aaddd2eae17913b75d0232cac8ef94acabc"
    );
    assert_eq!((report.manifest.table.chunks, report.compressed), (2, 1));
}

#[test]
fn header_and_manifest_have_these_bytes() {
    let signed = SignedManifest::sign(&manifest(), &[]).unwrap();
    assert_eq!(
        hex::encode(signed.bytes()),
        "d8628440a0586ea9018166495031323030036470726f740463392e3105070603071a000186a008830a198000582040f2a592210ec3856eac17bb83e43c6628bcb85fcecb3f6eb517f13465dac6d40919ea600a5820990de2612355032bba337ef794b13619ea618fb8d48fd2d448322fbd8c00d70680"
    );
    assert_eq!(
        hex::encode(&IMAGE[..16]),
        "89524b494d470d0a010000001e010000"
    );
}

#[test]
fn signatures_have_these_bytes() {
    let signed = SignedManifest::sign(&manifest(), &[key(1)]).unwrap();
    let tail = &signed.bytes()[signed.bytes().len() - 64 - 22..];
    assert_eq!(
        hex::encode(tail),
        "00d70681834da20127044883561adb398fd87fa05840af37526bb684d145d77ee4d432cf501e5cc2f32754093f30c98598fe516bf6a520c8359b8adfff3bd8e0f118a390d6cbc13912e05ee8f39eec21dafcf9310806"
    );
}

/// Content-defined cuts are the packer's choice and not the format's, but a packer that moves them makes every device fetch everything.
#[cfg(feature = "pack")]
#[test]
fn cuts_and_pages_are_where_they_were() {
    use rekindle_image::{Compression, Hash, PackOptions};

    use crate::{options, packed, small_input};

    let raw = PackOptions {
        compression: Compression::None,
        ..options()
    };
    let image = packed(&small_input(), &raw, &[key(1)]);
    assert_eq!(
        Hash::of(&image).to_string(),
        "9f0b0d1e2bdd31f0624ba6a901f750c5b0e33bbb9356e7f15d29ba70babbb489"
    );
}

#[test]
fn a_key_set_and_a_manifest_that_carries_it_have_these_bytes() {
    let keys = vec![key(2).public(), key(3).public()];
    let set = KeySet::new(1, NonZeroU8::new(2).unwrap(), keys).unwrap();
    let digest = set.digest().to_string();
    let set = SignedKeySet::sign(&set, &[key(1)]).unwrap();
    let bytes = hex::encode(set.bytes());
    let manifest = Manifest {
        key_sets: vec![set],
        ..manifest()
    };
    let signed = SignedManifest::sign(&manifest, &[]).unwrap();
    assert_eq!(
        (
            digest.as_str(),
            bytes.as_str(),
            hex::encode(signed.bytes()).as_str()
        ),
        (DIGEST, KEY_SET, MANIFEST)
    );
    let read = SignedManifest::parse(signed.bytes()).unwrap();
    assert_eq!(read.unverified(), &manifest);
}

#[test]
fn key_files_have_these_bytes() {
    let public =
        "rekindle-ed25519-public 8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
    let secret = format!("rekindle-ed25519-secret {}", "01".repeat(32));
    assert_eq!(key(1).public().to_string(), public);
    assert_eq!(*key(1).to_text(), secret);
    assert_eq!(key(1).key_id().to_string(), "83561adb398fd87f");
}

const DIGEST: &str = "10ce57aeaeee0283b58b8911795f80ab0a7e406e9a6d8d14bf2a341ad745f1f5";
const KEY_SET: &str = "d8628440a0584ba301010202038258208139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b3945820ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d181834da20127044883561adb398fd87fa05840debbde73bd3690b034c4b60f7129f66ca40ee9827a777562de950b2d7066d9adaa2e3ba6bd5b57f5e5e48debc95fceeb29ee6dce3ffa36afba91953e0a5ae908";
const MANIFEST: &str = "d8628440a0590118aa018166495031323030036470726f740463392e3105070603071a000186a008830a198000582040f2a592210ec3856eac17bb83e43c6628bcb85fcecb3f6eb517f13465dac6d40919ea600a5820990de2612355032bba337ef794b13619ea618fb8d48fd2d448322fbd8c00d70618408158a5d8628440a0584ba301010202038258208139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b3945820ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d181834da20127044883561adb398fd87fa05840debbde73bd3690b034c4b60f7129f66ca40ee9827a777562de950b2d7066d9adaa2e3ba6bd5b57f5e5e48debc95fceeb29ee6dce3ffa36afba91953e0a5ae90880";
