//! The signed, chunked firmware image: format, pack, verify, compare.
//!
//! It is no updater: it touches no flash and no network, and decides nothing but whether bytes are what they claim to be and whether a
//! device should take them.
//!
//! An image file is a small signed manifest, a table of chunks in pages of 4096 bytes, and the stored chunks. The manifest is verified
//! first ([`SignedManifest`]), the device's rules next ([`Acceptance`]), each table page against the manifest ([`Cursor`]), each chunk
//! against the table ([`Decoder`]). Nothing needs more memory than five pages and one chunk, and any part can come from anywhere.
//! `docs/formats/image.md` in the repository is the normative description.
#![no_std]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod acceptance;
mod chunk;
#[cfg(feature = "std")]
mod compare;
mod envelope;
#[cfg(feature = "std")]
mod file;
mod frame;
mod hash;
mod header;
mod key;
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
pub use self::envelope::{Signed, SignedManifest, Trust, Unsigned, VerifyError};
#[cfg(feature = "std")]
pub use self::file::{ImageFile, OpenError, WalkError};
pub use self::hash::{Hash, ManifestId};
pub use self::header::{FileHeader, HeaderError, Layout, LayoutError};
pub use self::key::{KeyError, KeyFileError, KeyId, PublicKey, SecretKey};
pub use self::manifest::{Field, Manifest, ManifestError, Requirement};
#[cfg(feature = "pack")]
pub use self::pack::{Compression, PackError, PackOptions, Packed, pack};
pub use self::table::{Chunk, Cursor, PAGE_SIZE, TableError, TableInfo};
#[cfg(feature = "std")]
pub use self::verify::{Report, VerifyImageError, verify_image};
