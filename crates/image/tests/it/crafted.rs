//! Images made by hand, signed with a key that devices trust: what a careless or hostile vendor tool could make.

use coset::{
    CborSerializable as _, CoseSign, CoseSignatureBuilder, HeaderBuilder,
    TaggedCborSerializable as _, iana,
};
use minicbor::Encoder;
use rekindle_image::{FileHeader, Hash, Manifest, SecretKey, SignedManifest, TableInfo};

use crate::key;

/// A chunk as the table shall list it, and what is stored for it.
pub(crate) struct CraftedChunk {
    pub(crate) raw_len: usize,
    pub(crate) hash: Hash,
    pub(crate) stored: Vec<u8>,
}

impl CraftedChunk {
    /// Raw bytes, stored as they are.
    pub(crate) fn raw(bytes: &[u8]) -> Self {
        Self {
            raw_len: bytes.len(),
            hash: Hash::of(bytes),
            stored: bytes.to_vec(),
        }
    }
}

/// An image of `chunks`, at most 102, whose manifest `change` may spoil before it is signed.
pub(crate) fn image(chunks: &[CraftedChunk], change: impl Fn(&mut Manifest)) -> Vec<u8> {
    let mut page = vec![0; 16];
    let mut stored = Vec::new();
    for chunk in chunks {
        page.extend(chunk.hash.as_bytes());
        page.extend(u32::try_from(chunk.raw_len).unwrap().to_le_bytes());
        page.extend(u32::try_from(chunk.stored.len()).unwrap().to_le_bytes());
        stored.extend(&chunk.stored);
    }
    page.resize(4096, 0);
    let mut manifest = manifest();
    manifest.size = chunks.iter().map(|chunk| len(chunk.raw_len)).sum();
    manifest.stored_size = len(stored.len());
    manifest.stored_hash = Hash::of(&stored);
    manifest.table = TableInfo {
        chunks: u32::try_from(chunks.len()).unwrap(),
        max_chunk: 8192,
        root: Hash::of(&page),
    };
    change(&mut manifest);
    let signed = SignedManifest::sign(&manifest, &[key(1)]).unwrap();
    let mut file = start(signed.bytes());
    file.extend(page);
    file.extend(stored);
    file
}

/// Header, manifest and padding.
pub(crate) fn start(signed: &[u8]) -> Vec<u8> {
    let manifest_len = u32::try_from(signed.len()).unwrap();
    let mut file = FileHeader { manifest_len }.encode().to_vec();
    file.extend(signed);
    file.resize(file.len().next_multiple_of(4096), 0);
    file
}

/// A manifest that keeps every rule.
pub(crate) fn manifest() -> Manifest {
    Manifest {
        device_types: vec!["IP1200".to_owned()],
        hardware: Vec::new(),
        component: "prot".to_owned(),
        build: "9.1".to_owned(),
        release: 7,
        security_version: 3,
        size: 100_000,
        table: TableInfo {
            chunks: 10,
            max_chunk: 32768,
            root: Hash::of(b"page 0"),
        },
        stored_size: 60_000,
        stored_hash: Hash::of(b"stored"),
        requires: Vec::new(),
        key_sets: Vec::new(),
    }
}

/// The payload of [`manifest`], with the value of each key in `changed` replaced by the CBOR given, left out where that is empty, and
/// added where the key is new.
pub(crate) fn payload(changed: &[(u64, &[u8])]) -> Vec<u8> {
    let mut fields: Vec<(u64, Vec<u8>)> = good_fields();
    for (key, value) in changed {
        fields.retain(|(k, _)| k != key);
        if !value.is_empty() {
            fields.push((*key, value.to_vec()));
        }
    }
    fields.sort_by_key(|(key, _)| *key);
    map(&fields)
}

pub(crate) fn map(fields: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut payload = Vec::new();
    let mut encoder = Encoder::new(&mut payload);
    encoder.map(len(fields.len())).unwrap();
    for (key, value) in fields {
        Encoder::new(&mut payload).u64(*key).unwrap();
        payload.extend(value);
    }
    payload
}

pub(crate) fn cbor(write: impl FnOnce(&mut Encoder<Vec<u8>>)) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    write(&mut encoder);
    encoder.into_writer()
}

pub(crate) fn len(len: usize) -> u64 {
    u64::try_from(len).unwrap()
}

pub(crate) fn uint(value: u64) -> Vec<u8> {
    cbor(|e| {
        e.u64(value).unwrap();
    })
}

fn good_fields() -> Vec<(u64, Vec<u8>)> {
    let m = manifest();
    let text = |text: &str| {
        cbor(|e| {
            e.str(text).unwrap();
        })
    };
    vec![
        (
            1,
            cbor(|e| {
                e.array(1).unwrap().str("IP1200").unwrap();
            }),
        ),
        (3, text(&m.component)),
        (4, text(&m.build)),
        (5, uint(m.release)),
        (6, uint(m.security_version)),
        (7, uint(m.size)),
        (8, table(m.table.chunks, m.table.max_chunk)),
        (9, uint(m.stored_size)),
        (
            10,
            cbor(|e| {
                e.bytes(m.stored_hash.as_bytes()).unwrap();
            }),
        ),
    ]
}

pub(crate) fn table(chunks: u32, max_chunk: u32) -> Vec<u8> {
    cbor(|e| {
        let e = e.array(3).unwrap().u32(chunks).unwrap();
        let e = e.u32(max_chunk).unwrap();
        e.bytes(Hash::of(b"page 0").as_bytes()).unwrap();
    })
}

/// Signs any payload at all with `keys`, each as often as it is named.
pub(crate) fn envelope(payload: &[u8], keys: &[SecretKey]) -> CoseSign {
    let mut envelope = CoseSign {
        payload: Some(payload.to_vec()),
        ..CoseSign::default()
    };
    for key in keys {
        let header = HeaderBuilder::new()
            .algorithm(iana::Algorithm::EdDSA)
            .key_id(key.key_id().as_bytes().to_vec())
            .build();
        let mut signature = CoseSignatureBuilder::new().protected(header).build();
        let message = envelope.tbs_data(b"rekindle-manifest-1", &signature);
        signature.signature = ed25519_sign(key, &message);
        envelope.signatures.push(signature);
    }
    envelope
}

pub(crate) fn signed(payload: &[u8]) -> Vec<u8> {
    envelope(payload, &[key(1)]).to_tagged_vec().unwrap()
}

/// Signs with dalek itself: the crate signs only manifests that keep the rules.
pub(crate) fn ed25519_sign(key: &SecretKey, message: &[u8]) -> Vec<u8> {
    use ed25519_dalek::{Signer as _, SigningKey};
    let text = key.to_text();
    let digits = text.split_whitespace().nth(1).unwrap();
    let mut bytes = [0; 32];
    hex::decode_to_slice(digits, &mut bytes).unwrap();
    SigningKey::from_bytes(&bytes)
        .sign(message)
        .to_bytes()
        .to_vec()
}

#[test]
fn what_is_crafted_without_a_fault_is_accepted() {
    let image = image(&[CraftedChunk::raw(&[7; 2000])], |_| ());
    crate::verify(&image, &crate::trust(&[1], 1)).unwrap();
    let parsed = SignedManifest::parse(signed(&payload(&[]))).unwrap();
    assert_eq!(parsed.unverified(), &manifest());
    let ours = SignedManifest::sign(&manifest(), &[key(1)]).unwrap();
    assert_eq!(parsed.bytes(), ours.bytes());
    assert_eq!(parsed.id(), ours.id());
    let untagged = envelope(&payload(&[]), &[key(1)]).to_vec().unwrap();
    assert_eq!(
        SignedManifest::parse(untagged).unwrap_err(),
        rekindle_image::ManifestError::Envelope
    );
}
