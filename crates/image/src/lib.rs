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
mod envelope;
mod frame;
mod hash;
mod header;
mod key;
mod manifest;
mod table;

pub use self::acceptance::{Acceptance, DeviceFacts, Downgrade, Refusal};
pub use self::chunk::{ChunkError, Decoder, decode_chunk};
pub use self::envelope::{Signed, SignedManifest, Trust, Unsigned, VerifyError};
pub use self::hash::{Hash, ManifestId};
pub use self::header::{FileHeader, HeaderError, Layout, LayoutError};
pub use self::key::{KeyError, KeyFileError, KeyId, PublicKey, SecretKey};
pub use self::manifest::{Field, Manifest, ManifestError, Requirement};
pub use self::table::{Chunk, Cursor, PAGE_SIZE, TableError, TableInfo};
