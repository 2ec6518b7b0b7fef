//! Images that are really packed and signed, and a source that serves them.

use core::convert::Infallible;
use core::num::NonZeroU8;
use core::ops::Range;
use std::io::{self, Cursor};

use rekindle_image::{
    Chunk, Compression, FileHeader, ImageFile, KeySet, PackOptions, SecretKey, SignedKeySet,
    SignedManifest, Trust, Unsigned, WalkError, pack,
};
use rekindle_update::Source;

/// An image file, what it was made of, and how firmware of it behaves.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) name: &'static str,
    pub(crate) component: &'static str,
    bytes: Vec<u8>,
    pub(crate) content: Vec<u8>,
    pub(crate) id: [u8; 32],
    pub(crate) serial: &'static [u8],
    pub(crate) build: String,
    pub(crate) security_version: u64,
    pub(crate) health: Health,
    /// It is signed by the keys that follow those of the factory, and brings them along.
    pub(crate) changes_keys: bool,
    pub(crate) signed: SignedManifest,
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) table_len: u64,
}

/// What firmware does when it is started.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Health {
    /// It works.
    Good,
    /// Its agent starts and finds it broken.
    Sick,
    /// It hangs until somebody takes the power away.
    Hangs,
}

/// All images of a run, by name.
#[derive(Debug)]
pub(crate) struct Catalog {
    images: Vec<Image>,
    pub(crate) trust: Trust,
}

impl Catalog {
    /// Packs images of about `len` bytes in chunks of `chunk_size` on average.
    pub(crate) fn new(len: usize, chunk_size: u32) -> io::Result<Self> {
        let key = SecretKey::from_random(&[7; 32]);
        let base = noise(1, len);
        let part = len / 8;
        // Two places of eight differ.
        let change = |mut content: Vec<u8>, seed: u64, at: usize| {
            for at in [at * part, (at * part + len / 2) % (7 * part)] {
                content[at..at + 60].copy_from_slice(&noise(seed, 60));
            }
            content
        };
        let with = |seed: u64, at: usize| change(base.clone(), seed, at);
        // The second keys, which the first have signed.
        let second = SecretKey::from_random(&[8; 32]);
        let set =
            KeySet::new(1, NonZeroU8::MIN, vec![second.public()]).map_err(io::Error::other)?;
        let chain =
            SignedKeySet::sign(&set, core::slice::from_ref(&key)).map_err(io::Error::other)?;
        let recipes = [
            ("v0", "prot", b"04-0000", 1, Health::Good, with(2, 1)),
            ("v1", "prot", b"04-0001", 1, Health::Good, base.clone()),
            ("v2", "prot", b"04-0002", 2, Health::Good, with(3, 4)),
            ("v3", "prot", b"04-0003", 5, Health::Good, with(4, 6)),
            ("sick", "prot", b"04-0666", 3, Health::Sick, with(5, 4)),
            ("hangs", "prot", b"04-0667", 3, Health::Hangs, with(6, 5)),
            ("other", "prot", b"04-0009", 2, Health::Good, noise(9, len)),
            ("keyed2", "prot", b"04-0012", 2, Health::Good, with(10, 4)),
            ("keyed3", "prot", b"04-0013", 2, Health::Good, with(11, 6)),
            ("bmc1", "bmc", b"07-0001", 1, Health::Good, noise(7, len)),
            (
                "bmc2",
                "bmc",
                b"07-0002",
                1,
                Health::Good,
                change(noise(7, len), 8, 2),
            ),
        ];
        let folder = tempfile::tempdir()?;
        let mut images = Vec::new();
        for (name, component, serial, security_version, health, content) in recipes {
            let mut options = PackOptions::new(DEVICE_TYPE, component, name);
            options.chunk_size = chunk_size;
            options.compression = Compression::None;
            options.security_version = security_version;
            let path = folder.path().join(name);
            let mut signer = &key;
            if name.starts_with("keyed") {
                options.key_sets.push(chain.clone());
                signer = &second;
            }
            pack(
                content.as_slice(),
                &path,
                &options,
                core::slice::from_ref(signer),
            )
            .map_err(io::Error::other)?;
            let bytes = std::fs::read(&path)?;
            images.push(Image::read(name, serial, health, bytes, content)?);
        }
        let trust = Trust {
            keys: vec![key.public()],
            threshold: NonZeroU8::MIN,
            unsigned: Unsigned::Refuse,
        };
        Ok(Self { images, trust })
    }

    /// Returns the image of this name.
    pub(crate) fn image(&self, name: &str) -> &Image {
        self.images
            .iter()
            .find(|image| image.name == name)
            .unwrap_or_else(|| unreachable!("no image is called {name}"))
    }

    pub(crate) fn with_id(&self, id: &[u8; 32]) -> Option<&Image> {
        self.images.iter().find(|image| image.id == *id)
    }

    /// Bytes of the longest image.
    pub(crate) fn content_len(&self) -> u64 {
        let longest = self.images.iter().map(|image| image.content.len()).max();
        longest.and_then(|len| u64::try_from(len).ok()).unwrap_or(0)
    }
}

impl Image {
    fn read(
        name: &'static str,
        serial: &'static [u8],
        health: Health,
        bytes: Vec<u8>,
        content: Vec<u8>,
    ) -> io::Result<Self> {
        let header = bytes.first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
        let len = FileHeader::decode(header)
            .map_err(io::Error::other)?
            .manifest_len;
        let end = FileHeader::LEN + usize::try_from(len).map_err(io::Error::other)?;
        let signed =
            SignedManifest::parse(&bytes[FileHeader::LEN..end]).map_err(io::Error::other)?;
        let mut file = ImageFile::open(Cursor::new(&bytes)).map_err(io::Error::other)?;
        let mut chunks = Vec::new();
        file.for_each_chunk(|_, chunk| {
            chunks.push(*chunk);
            Ok::<(), WalkError>(())
        })
        .map_err(io::Error::other)?;
        let manifest = signed.unverified();
        let layout = rekindle_image::Layout::of(len, manifest).map_err(io::Error::other)?;
        let component = match manifest.component.as_str() {
            "bmc" => "bmc",
            _ => "prot",
        };
        Ok(Self {
            name,
            component,
            id: *signed.id().as_bytes(),
            serial,
            build: manifest.build.clone(),
            security_version: manifest.security_version,
            health,
            changes_keys: !manifest.key_sets.is_empty(),
            table_len: layout.table.end - layout.table.start,
            chunks,
            signed,
            content,
            bytes,
        })
    }

    /// Whether a slot of these bytes holds this content.
    pub(crate) fn is_on(&self, bytes: &[u8]) -> bool {
        bytes[..self.content.len()] == self.content
    }

    /// The chunks, and whether a slot of these bytes holds them at their place.
    pub(crate) fn chunks_on<'a>(
        &'a self,
        bytes: &'a [u8],
    ) -> impl Iterator<Item = (&'a Chunk, bool)> {
        self.chunks.iter().map(|chunk| {
            let start = index(chunk.raw_offset);
            let range = start..start + index(chunk.raw_len.into());
            (chunk, bytes[range.clone()] == self.content[range])
        })
    }
}

/// Serves an image, and counts.
#[derive(Debug)]
pub(crate) struct MemorySource<'a> {
    bytes: &'a [u8],
    open: Range<usize>,
}

impl<'a> MemorySource<'a> {
    pub(crate) fn of(image: &'a Image) -> Self {
        Self {
            bytes: &image.bytes,
            open: 0..0,
        }
    }

    /// Serves only the first `len` bytes, as a broken connection does.
    pub(crate) fn first(image: &'a Image, len: usize) -> Self {
        Self {
            bytes: &image.bytes[..len],
            open: 0..0,
        }
    }
}

impl Source for MemorySource<'_> {
    type Error = Infallible;

    fn open(&mut self, range: Range<u64>) -> Result<(), Infallible> {
        let end = self.bytes.len();
        self.open = index(range.start).min(end)..index(range.end).min(end);
        Ok(())
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Infallible> {
        let n = buf.len().min(self.open.len());
        buf[..n].copy_from_slice(&self.bytes[self.open.start..self.open.start + n]);
        self.open.start += n;
        Ok(n)
    }
}

/// Bytes without a pattern.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let random = rekindle_testkit::Power::new(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.random_below(u64::MAX).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub(crate) fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("images here fit into memory")
}

pub(crate) const DEVICE_TYPE: &str = "IP1200";
