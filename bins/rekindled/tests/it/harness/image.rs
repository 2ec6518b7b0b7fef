//! Images, made in a moment.

use std::io::{BufReader, Read};
use std::path::Path;

use rekindle_image::{Compression, PackOptions, SecretKey, pack};

/// What an image is made of.
#[derive(Clone)]
pub(crate) struct Recipe {
    pub(crate) options: PackOptions,
    pub(crate) content: Content,
    pub(crate) keys: Vec<SecretKey>,
}

/// Bytes that look random and are the same for the same seed.
#[derive(Clone, Copy)]
pub(crate) struct Content {
    pub(crate) seed: u64,
    pub(crate) len: u64,
    /// Bits of each byte that are used: the fewer, the better it compresses.
    pub(crate) mask: u8,
}

impl Recipe {
    /// A small image for the device of this harness, signed by its vendor, with content of its own.
    pub(crate) fn new(build: &str) -> Self {
        let mut options = PackOptions::new("IP1200", "prot", build);
        options.compression = Compression::None;
        let seed = build.bytes().fold(1, |seed: u64, byte| {
            seed.wrapping_mul(257).wrapping_add(u64::from(byte))
        });
        Self {
            options,
            content: Content {
                seed,
                len: 600_000,
                mask: 0xff,
            },
            keys: vec![secret_key(1)],
        }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut PackOptions)) -> Self {
        change(&mut self.options);
        self
    }

    pub(crate) fn signed_by(mut self, keys: &[u8]) -> Self {
        self.keys = keys.iter().map(|number| secret_key(*number)).collect();
        self
    }

    pub(crate) fn of_length(mut self, len: u64) -> Self {
        self.content.len = len;
        self
    }

    /// Stored in zstd frames, half as long as the content.
    pub(crate) fn compressed(mut self) -> Self {
        self.content.mask = 0x0f;
        self.options.compression = Compression::Zstd { level: 1 };
        self
    }

    pub(crate) fn pack(&self, path: &Path) {
        let content = Words::of(self.content);
        pack(content, path, &self.options, &self.keys).unwrap();
    }

    /// The file's bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        self.pack(&path);
        std::fs::read(path).unwrap()
    }
}

/// Key number 1 is the vendor's; the others are strangers.
pub(crate) fn secret_key(number: u8) -> SecretKey {
    SecretKey::from_random(&[number; 32])
}

/// A file of public keys.
pub(crate) fn public_keys(numbers: &[u8]) -> String {
    numbers
        .iter()
        .map(|number| format!("{}\n", secret_key(*number).public()))
        .collect()
}

/// The content of an image as one piece.
pub(crate) fn noise(content: Content) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(content.len).unwrap()];
    Words::of(content).read_exact(&mut bytes).unwrap();
    bytes
}

/// Read in pieces of any size: the words behind the buffer are read whole.
type Noise = BufReader<Words>;

struct Words {
    state: u64,
    left: u64,
    mask: [u8; 8],
}

impl Words {
    fn of(content: Content) -> Noise {
        BufReader::new(Self {
            state: content.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            left: content.len,
            mask: [content.mask; 8],
        })
    }
}

impl Read for Words {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let whole = buf.len() - buf.len() % 8;
        assert!(whole > 0, "the buffer asks for thousands");
        let len = whole.min(usize::try_from(self.left).unwrap());
        let mask = u64::from_le_bytes(self.mask);
        for piece in buf[..len].chunks_mut(8) {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            piece.copy_from_slice(&(self.state & mask).to_le_bytes()[..piece.len()]);
        }
        self.left -= u64::try_from(len).unwrap();
        Ok(len)
    }
}
