//! The signed, chunked firmware image: format, pack, verify, compare.
//!
//! It is no updater: it touches no flash and no network, and decides nothing but whether bytes are what they claim to be and whether a
//! device should take them.
//!
//! An image file is a small signed manifest, a table of chunks in pages of 4096 bytes, and the stored chunks. The manifest is verified
//! first ([`SignedManifest`]), the device's rules next ([`Acceptance`]), each table page against the manifest ([`Cursor`]), each chunk
//! against the table ([`Decoder`]). Nothing needs more memory than five pages and one chunk, and any part can come from anywhere.
//! `docs/formats/image.md` in the repository is the normative description.
//!
//! ```
//! use core::num::NonZeroU8;
//! use rekindle_image::{Acceptance, DeviceFacts, Downgrade, Signed, SignedManifest, Trust, Unsigned};
//! # use rekindle_image::{Hash, Manifest, SecretKey, TableInfo};
//! # let key = SecretKey::from_random(&[1; 32]);
//! # let from_the_file = SignedManifest::sign(&Manifest {
//! #     device_types: vec!["IP1200".into()], hardware: vec![], component: "prot".into(), build: "9.1".into(), release: 7,
//! #     security_version: 3, size: 90_000, table: TableInfo { chunks: 6, max_chunk: 32_768, root: Hash::of(b"page 0") },
//! #     stored_size: 40_000, stored_hash: Hash::of(b"stored"), requires: vec![], key_sets: vec![],
//! # }, &[key.clone()])?.bytes().to_vec();
//! # let vendor_key = key.public();
//! let trust = Trust { keys: vec![vendor_key], threshold: NonZeroU8::MIN, unsigned: Unsigned::Refuse };
//! let signed = SignedManifest::parse(from_the_file)?;
//! let (manifest, by) = signed.verify(&trust)?;
//! assert_eq!(by, Signed::By(1));
//!
//! let device = DeviceFacts {
//!     device_type: "IP1200",
//!     hardware: None,
//!     component: "prot",
//!     security_floor: 2,
//!     slot_capacity: 1 << 20,
//!     table_capacity: 1 << 16,
//!     installed: &[],
//! };
//! Acceptance::check(manifest, &device, Downgrade::Refuse)?;
//! assert_eq!(manifest.build, "9.1");
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # Guarantees
//!
//! No input makes it panic, and none makes it allocate more than the limits of the format: 16 KiB of manifest, 4 KiB for each of five
//! table pages, 1 MiB of chunk. Time is linear in the bytes given, and in the number of signers, which is bounded.
//!
//! # Features
//!
//! None by default. `zstd` and `ruzstd` decode compressed chunks (C, and Rust without std), `std` adds whole files, `pack` makes them.
#![no_std]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod acceptance;
mod chunk;
#[cfg(feature = "std")]
mod compare;
mod cose;
mod envelope;
#[cfg(feature = "std")]
mod file;
mod frame;
mod hash;
mod header;
mod join;
mod key;
mod key_set;
mod manifest;
#[cfg(feature = "pack")]
mod pack;
mod table;
#[cfg(feature = "std")]
mod verify;

pub use self::acceptance::{Acceptance, DeviceFacts, Downgrade, Refusal};
pub use self::chunk::{ChunkError, Decoder, decode_chunk};
#[cfg(feature = "std")]
pub use self::compare::{CompareError, Comparison, Part, compare};
pub use self::envelope::{Signed, SignedManifest, Trust, Unsigned, Verified, VerifyError};
#[cfg(feature = "std")]
pub use self::file::{ImageFile, OpenError, WalkError};
pub use self::hash::{Hash, ManifestId};
pub use self::header::{FileHeader, HeaderError, Layout, LayoutError};
pub use self::join::RangeJoiner;
pub use self::key::{KeyError, KeyFileError, KeyId, PublicKey, SecretKey};
pub use self::key_set::{AdoptedKeys, KeySet, KeySetError, SignedKeySet};
pub use self::manifest::{Field, Manifest, ManifestError, Requirement};
#[cfg(feature = "pack")]
pub use self::pack::{Compression, PackError, PackOptions, Packed, pack};
pub use self::table::{Chunk, Cursor, PAGE_SIZE, TableError, TableInfo};
#[cfg(feature = "std")]
pub use self::verify::{Report, VerifyImageError, verify_image};
