mod codec;
mod rules;

use alloc::string::String;
use alloc::vec::Vec;

pub use self::rules::{Field, ManifestError};
use crate::{Hash, SignedKeySet, TableInfo};

/// What an image says about itself, under its signatures.
///
/// The value is passive: what [`SignedManifest::parse`](crate::SignedManifest::parse) returns has passed every rule of
/// `docs/formats/image.md`, a value made by hand has not until it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The device types it is for, 1 to 32 of at most 64 bytes, compared exactly.
    pub device_types: Vec<String>,
    /// The hardware revisions it runs on, at most 32; empty: any.
    pub hardware: Vec<String>,
    /// The component it is for: `prot`, `boot`, `bmc` or a vendor's own; lower-case letters, digits, `-`, `_` and `.`.
    pub component: String,
    /// The build as people call it, 1 to 64 bytes.
    pub build: String,
    /// Orders the builds of a component; it only rises.
    pub release: u64,
    /// Rises when older builds must not come back.
    pub security_version: u64,
    /// Length of the raw image in bytes: what lies in the slot.
    pub size: u64,
    /// The chunk table.
    pub table: TableInfo,
    /// Length of the stored chunks in bytes: what lies in the file.
    pub stored_size: u64,
    /// Hash over the stored chunks, so that a flip in a compressed frame shows too.
    pub stored_hash: Hash,
    /// What must run or be staged on the device beside it, at most 16.
    pub requires: Vec<Requirement>,
    /// The key sets that lead from what older devices trust to the keys that sign this, at most 16, their numbers rising by one; empty:
    /// the keys are not changed.
    pub key_sets: Vec<SignedKeySet>,
}

impl Manifest {
    /// Largest image, raw and stored: 1 TiB.
    pub const MAX_SIZE: u64 = 1 << 40;
    /// Most device types.
    pub const MAX_DEVICE_TYPES: usize = 32;
    /// Most hardware revisions.
    pub const MAX_HARDWARE: usize = 32;
    /// Most requirements.
    pub const MAX_REQUIRES: usize = 16;
    /// Longest device type, hardware revision or build, in bytes.
    pub const MAX_TEXT_LEN: usize = 64;
    /// Longest component name, in bytes.
    pub const MAX_COMPONENT_LEN: usize = 32;
}

/// A component that must run, or be staged in the same run, in at least this release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The component.
    pub component: String,
    /// The lowest release of it that will do.
    pub release: u64,
}
