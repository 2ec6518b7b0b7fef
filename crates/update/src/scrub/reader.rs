use alloc::vec;
use alloc::vec::Vec;

use rekindle_image::Chunk;

/// Whether a chunk is what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Bad,
}

/// Reads the content of a slot in large pieces, one behind the other, and hashes chunks out of them.
#[derive(Debug)]
pub(super) struct Reader {
    buf: Vec<u8>,
    start: u64,
    valid: usize,
    /// Where the content ends.
    end: u64,
    wanted: u64,
    /// The next piece is no longer than this.
    piece: usize,
    /// Nothing is known of what was read last.
    hole: bool,
    hasher: blake3::Hasher,
    /// How far the chunk under way is hashed.
    hashed: u64,
    /// A part of the chunk under way cannot be read.
    torn: bool,
}

impl Reader {
    pub(super) fn new(end: u64) -> Self {
        Self {
            buf: vec![0; PIECE],
            start: 0,
            valid: 0,
            end,
            wanted: 0,
            piece: PIECE,
            hole: false,
            hasher: blake3::Hasher::new(),
            hashed: 0,
            torn: false,
        }
    }

    /// Where the next piece is to be read.
    pub(super) fn target(&mut self) -> (u64, &mut [u8]) {
        let len = self.len();
        (self.wanted, &mut self.buf[..len])
    }

    pub(super) fn filled(&mut self) {
        self.take(false);
        self.piece = if self.wanted_after().is_multiple_of(PIECE_BYTES) {
            PIECE
        } else {
            self.piece
        };
    }

    /// The piece cannot be read: it is read again in the smallest pieces, and one that fails is a
    /// hole.
    pub(super) fn unreadable(&mut self) {
        if self.piece > SMALLEST {
            self.piece = SMALLEST;
        } else {
            self.take(true);
        }
    }

    /// Compares a chunk with its hash; `None`: [`Reader::target`] must be filled first.
    pub(super) fn check(&mut self, chunk: &Chunk) -> Option<Verdict> {
        let len = u64::from(chunk.raw_len);
        while self.hashed < len {
            let position = chunk.raw_offset + self.hashed;
            let stop = self.wanted_after();
            if position < self.start || position >= stop {
                self.wanted = position;
                return None;
            }
            let from = usize::try_from(position - self.start).unwrap_or(0);
            let take = usize::try_from((stop - position).min(len - self.hashed)).unwrap_or(0);
            if self.hole {
                self.torn = true;
            } else {
                self.hasher.update(&self.buf[from..from + take]);
            }
            self.hashed += u64::try_from(take).unwrap_or(u64::MAX);
        }
        let same = !self.torn && self.hasher.finalize().as_bytes() == chunk.hash.as_bytes();
        self.hasher.reset();
        self.hashed = 0;
        self.torn = false;
        Some(if same { Verdict::Good } else { Verdict::Bad })
    }

    fn take(&mut self, hole: bool) {
        self.start = self.wanted;
        self.valid = self.len();
        self.hole = hole;
    }

    /// Up to the end of the content, and of a small piece up to a whole one.
    fn len(&self) -> usize {
        let left = usize::try_from(self.end.saturating_sub(self.wanted)).unwrap_or(PIECE);
        let unit = u64::try_from(self.piece).unwrap_or(PIECE_BYTES);
        let aligned = usize::try_from(unit - self.wanted % unit).unwrap_or(self.piece);
        left.min(aligned)
    }

    fn wanted_after(&self) -> u64 {
        self.start + u64::try_from(self.valid).unwrap_or(0)
    }
}

/// One read: large enough for the medium's full speed.
const PIECE: usize = 512 * 1024;
const PIECE_BYTES: u64 = 512 * 1024;

/// What a medium fails in: a sector or a page.
const SMALLEST: usize = 4096;
