mod chunker;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use self::chunker::Chunker;
use crate::table::{spooled_entry, write_table};
use crate::{
    FileHeader, Hash, Layout, LayoutError, Manifest, ManifestError, ManifestId, Requirement,
    SecretKey, SignedKeySet, SignedManifest, TableInfo,
};

/// Makes an image of `input`, signed with every one of `keys`, and puts it at `out`.
///
/// `input` is read once, in a stream; memory does not grow with it. The stored chunks and the table wait in files without a name beside
/// `out`, so its folder needs room for twice the image while it is made. `out` appears, or is replaced, as a whole once everything is on
/// disk; after an error it is as before.
///
/// The same input, options, keys and version of this crate and of zstd give the same bytes.
///
/// # Errors
///
/// When the options or the keys cannot make an image, the input is empty or too large, or reading or writing fails.
pub fn pack(
    input: impl Read,
    out: &Path,
    options: &PackOptions,
    keys: &[SecretKey],
) -> Result<Packed, PackError> {
    options.check()?;
    check_keys(keys)?;
    // Rules broken by the options show before hours of input are read.
    SignedManifest::sign(&options.manifest(&Spooled::smallest()), keys)?;
    let folder = match out.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    };
    let spool = Spool::fill(input, folder, options)?;
    let manifest = options.manifest(&spool.totals);
    let (signed, file) = spool.write_image(manifest, keys, folder)?;
    file.as_file().sync_all().map_err(PackError::Output)?;
    file.persist(out)
        .map_err(|error| PackError::Output(error.error))?;
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(PackError::Output)?;
    Ok(Packed {
        id: signed.id(),
        manifest: signed.unverified().clone(),
    })
}

/// What the packer is told about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackOptions {
    /// [`Manifest::device_types`].
    pub device_types: Vec<String>,
    /// [`Manifest::hardware`]; empty by default: any.
    pub hardware: Vec<String>,
    /// [`Manifest::component`].
    pub component: String,
    /// [`Manifest::build`].
    pub build: String,
    /// [`Manifest::release`]; 0 by default.
    pub release: u64,
    /// [`Manifest::security_version`]; 0 by default.
    pub security_version: u64,
    /// [`Manifest::requires`]; empty by default.
    pub requires: Vec<Requirement>,
    /// [`Manifest::key_sets`]; empty by default.
    pub key_sets: Vec<SignedKeySet>,
    /// Average raw length of a chunk: a power of two, 4 KiB to 512 KiB. No chunk is longer than twice that. 16 KiB by default: smaller
    /// chunks share more between builds, larger ones compress better and need a smaller table.
    pub chunk_size: u32,
    /// Cuts fall on multiples of this: a power of two, at most the chunk size. 1 by default. The erase size of the flash makes a changed
    /// chunk touch no block of its neighbours, the block size of the file system inside the image finds more of its files again.
    pub align: u32,
    /// How chunks are stored.
    pub compression: Compression,
}

impl PackOptions {
    /// Smallest average length of a chunk.
    pub const MIN_CHUNK_SIZE: u32 = 4 * 1024;
    /// Largest average length of a chunk.
    pub const MAX_CHUNK_SIZE: u32 = TableInfo::MAX_CHUNK / 2;

    /// Options for an image that fits one device type; everything else as the fields say.
    #[must_use]
    pub fn new(device_type: &str, component: &str, build: &str) -> Self {
        Self {
            device_types: vec![device_type.into()],
            hardware: Vec::new(),
            component: component.into(),
            build: build.into(),
            release: 0,
            security_version: 0,
            requires: Vec::new(),
            key_sets: Vec::new(),
            chunk_size: 16 * 1024,
            align: 1,
            compression: Compression::default(),
        }
    }

    fn check(&self) -> Result<(), PackError> {
        let chunk_size = self.chunk_size;
        let allowed = Self::MIN_CHUNK_SIZE..=Self::MAX_CHUNK_SIZE;
        if !chunk_size.is_power_of_two() || !allowed.contains(&chunk_size) {
            return Err(PackError::ChunkSize(chunk_size));
        }
        if !self.align.is_power_of_two() || self.align > chunk_size {
            return Err(PackError::Align {
                align: self.align,
                chunk_size,
            });
        }
        Ok(())
    }

    fn manifest(&self, spooled: &Spooled) -> Manifest {
        Manifest {
            device_types: self.device_types.clone(),
            hardware: self.hardware.clone(),
            component: self.component.clone(),
            build: self.build.clone(),
            release: self.release,
            security_version: self.security_version,
            size: spooled.size,
            table: TableInfo {
                chunks: spooled.chunks,
                max_chunk: 2 * self.chunk_size,
                root: Hash::from_bytes([0; 32]),
            },
            stored_size: spooled.stored_size,
            stored_hash: spooled.stored_hash,
            requires: self.requires.clone(),
            key_sets: self.key_sets.clone(),
        }
    }
}

/// How chunks are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Raw, each of them: for what is compressed already, and for devices without a decoder.
    None,
    /// A zstd frame where that saves at least 1/32 of the chunk, raw where not.
    Zstd {
        /// zstd's level, 1 to 22; most levels decode at the same speed.
        level: i32,
    },
}

impl Default for Compression {
    /// Level 19: an image is packed once and fetched often. Level 9 packs several times as fast into 6 % more bytes.
    fn default() -> Self {
        Self::Zstd { level: 19 }
    }
}

/// The image made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Names it.
    pub id: ManifestId,
    /// What it says about itself.
    pub manifest: Manifest,
}

/// Why no image was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The average chunk length is no power of two, or out of range.
    #[error(
        "a chunk size of {0} bytes: it must be a power of two from {min} to {max}",
        min = PackOptions::MIN_CHUNK_SIZE, max = PackOptions::MAX_CHUNK_SIZE
    )]
    ChunkSize(u32),
    /// The alignment is no power of two, or larger than the chunk size.
    #[error(
        "an alignment of {align} bytes: it must be a power of two up to the chunk size, {chunk_size}"
    )]
    Align {
        /// The alignment.
        align: u32,
        /// The chunk size.
        chunk_size: u32,
    },
    /// zstd does not know the level.
    #[error("compression level {level}: it must be from 1 to {max}")]
    Level {
        /// The level.
        level: i32,
        /// The highest.
        max: i32,
    },
    /// The same key given twice would look like two signers and count as one.
    #[error("the key {0} is given twice")]
    KeyTwice(crate::KeyId),
    /// An image of nothing.
    #[error("the input is empty")]
    Empty,
    /// More input than an image can hold.
    #[error("the input is longer than the {max} bytes or 2^32 chunks that an image holds", max = Manifest::MAX_SIZE)]
    TooLarge,
    /// The options break a rule of the format.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The file would be longer than a file can be.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Reading the input failed.
    #[error("cannot read the input: {0}")]
    Input(io::Error),
    /// Writing the image, or the files that wait beside it, failed.
    #[error("cannot write the image: {0}")]
    Output(io::Error),
}

/// What is known of the chunks once all are spooled.
struct Spooled {
    chunks: u32,
    size: u64,
    stored_size: u64,
    stored_hash: Hash,
}

impl Spooled {
    /// Of an image of one byte.
    fn smallest() -> Self {
        Self {
            chunks: 1,
            size: 1,
            stored_size: 1,
            stored_hash: Hash::from_bytes([0; 32]),
        }
    }
}

/// The chunks and their table entries, waiting for the table's length to be known.
struct Spool {
    stored: File,
    entries: File,
    totals: Spooled,
}

impl Spool {
    fn fill(input: impl Read, folder: &Path, options: &PackOptions) -> Result<Self, PackError> {
        let scratch = || tempfile::tempfile_in(folder).map_err(PackError::Output);
        let mut stored = BufWriter::with_capacity(BUFFER, scratch()?);
        let mut entries = BufWriter::with_capacity(BUFFER, scratch()?);
        let mut squeezer = Squeezer::new(options)?;
        let mut chunker = Chunker::new(input, options.chunk_size, options.align);
        let mut hasher = blake3::Hasher::new();
        let mut totals = Spooled {
            chunks: 0,
            size: 0,
            ..Spooled::smallest()
        };
        totals.stored_size = 0;
        while let Some(raw) = chunker.next().map_err(PackError::Input)? {
            let bytes = squeezer.squeeze(raw).map_err(PackError::Output)?;
            let (raw_len, stored_len) = (len_u32(raw), len_u32(bytes));
            totals.chunks = totals.chunks.checked_add(1).ok_or(PackError::TooLarge)?;
            totals.size += u64::from(raw_len);
            totals.stored_size += u64::from(stored_len);
            if totals.size > Manifest::MAX_SIZE {
                return Err(PackError::TooLarge);
            }
            hasher.update(bytes);
            let entry = spooled_entry(&Hash::of(raw), raw_len, stored_len);
            stored
                .write_all(bytes)
                .and_then(|()| entries.write_all(&entry))
                .map_err(PackError::Output)?;
        }
        if totals.chunks == 0 {
            return Err(PackError::Empty);
        }
        totals.stored_hash = Hash::from_bytes(*hasher.finalize().as_bytes());
        Ok(Self {
            stored: rewound(stored).map_err(PackError::Output)?,
            entries: rewound(entries).map_err(PackError::Output)?,
            totals,
        })
    }

    fn write_image(
        mut self,
        mut manifest: Manifest,
        keys: &[SecretKey],
        folder: &Path,
    ) -> Result<(SignedManifest, tempfile::NamedTempFile), PackError> {
        // The root is not known yet, the length of the manifest is: a hash always takes the same room.
        let manifest_len = len_u32(SignedManifest::sign(&manifest, keys)?.bytes());
        let layout = Layout::of(manifest_len, &manifest)?;
        let mut file = image_file(folder).map_err(PackError::Output)?;
        let out = file.as_file_mut();
        let mut entries = BufReader::with_capacity(BUFFER, self.entries);
        manifest.table.root =
            write_table(manifest.table.chunks, &mut entries, out, layout.table.start)
                .map_err(PackError::Output)?;
        let signed = SignedManifest::sign(&manifest, keys)?;
        debug_assert_eq!(len_u32(signed.bytes()), manifest_len);
        let mut write_rest = || {
            out.seek(SeekFrom::Start(layout.chunks.start))?;
            io::copy(&mut self.stored, out)?;
            out.seek(SeekFrom::Start(0))?;
            out.write_all(&FileHeader { manifest_len }.encode())?;
            out.write_all(signed.bytes())
        };
        write_rest().map_err(PackError::Output)?;
        Ok((signed, file))
    }
}

/// Compresses chunks, one at a time.
struct Squeezer {
    compressor: Option<Compressor<'static>>,
    frame: Vec<u8>,
}

impl Squeezer {
    fn new(options: &PackOptions) -> Result<Self, PackError> {
        let compressor = match options.compression {
            Compression::None => None,
            Compression::Zstd { level } => {
                let levels = 1..=*zstd::compression_level_range().end();
                if !levels.contains(&level) {
                    return Err(PackError::Level {
                        level,
                        max: *levels.end(),
                    });
                }
                let mut compressor = Compressor::new(level).map_err(PackError::Output)?;
                // The lowest level's own window is shorter than the longest chunks, and a frame
                // must be a single segment.
                compressor
                    .set_parameter(CParameter::WindowLog((2 * options.chunk_size).ilog2()))
                    .map_err(PackError::Output)?;
                Some(compressor)
            }
        };
        let longest = usize::try_from(2 * options.chunk_size).expect("a chunk fits into memory");
        Ok(Self {
            compressor,
            frame: vec![0; zstd::zstd_safe::compress_bound(longest)],
        })
    }

    /// What to store for `raw`.
    fn squeeze<'a>(&'a mut self, raw: &'a [u8]) -> io::Result<&'a [u8]> {
        let Some(compressor) = &mut self.compressor else {
            return Ok(raw);
        };
        let len = compressor.compress_to_buffer(raw, self.frame.as_mut_slice())?;
        let worthwhile = raw.len() - raw.len() / 32;
        Ok(if len < worthwhile {
            &self.frame[..len]
        } else {
            raw
        })
    }
}

/// Large enough that the number of system calls does not matter.
const BUFFER: usize = 256 * 1024;

fn check_keys(keys: &[SecretKey]) -> Result<(), PackError> {
    for (index, key) in keys.iter().enumerate() {
        if keys[..index].iter().any(|k| k.public() == key.public()) {
            return Err(PackError::KeyTwice(key.key_id()));
        }
    }
    Ok(())
}

fn rewound(spool: BufWriter<File>) -> io::Result<File> {
    let mut file = spool.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(file)
}

/// A file that will be the image, readable as the user's other files are.
fn image_file(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".rekindle-pack-");
    #[cfg(unix)]
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    #[cfg(unix)]
    builder.permissions(mode);
    builder.tempfile_in(folder)
}

fn len_u32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("chunks and manifests are far shorter than 4 GiB")
}
