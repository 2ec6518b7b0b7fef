//! Comparing flash with hashes: the read buffer, and the list of what was written and waits for
//! its read-back.

use alloc::vec;
use alloc::vec::Vec;

use rekindle_image::Chunk;

use super::len_u64;

/// Whether flash holds what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Bad,
}

/// Reads a slot in large pieces and hashes chunks out of them, whatever their borders.
#[derive(Debug)]
pub(super) struct ReadBuffer {
    buf: Vec<u8>,
    start: u64,
    valid: usize,
    end: u64,
    hasher: blake3::Hasher,
    /// How far the chunk under way is hashed.
    hashed: u64,
    wanted: u64,
}

impl ReadBuffer {
    pub(super) fn new(end: u64) -> Self {
        Self {
            buf: vec![0; PIECE],
            start: 0,
            valid: 0,
            end,
            hasher: blake3::Hasher::new(),
            hashed: 0,
            wanted: 0,
        }
    }

    /// Forgets what was read: the flash has changed since. Nothing at `end` or behind it is asked for.
    pub(super) fn restart(&mut self, end: u64) {
        self.end = end;
        self.valid = 0;
        self.hashed = 0;
        self.hasher.reset();
    }

    /// Where the next piece is to be read.
    pub(super) fn target(&mut self) -> (u64, &mut [u8]) {
        let left = usize::try_from(self.end.saturating_sub(self.wanted)).unwrap_or(PIECE);
        let len = left.min(PIECE);
        (self.wanted, &mut self.buf[..len])
    }

    pub(super) fn filled(&mut self) {
        self.start = self.wanted;
        let left = usize::try_from(self.end.saturating_sub(self.wanted)).unwrap_or(PIECE);
        self.valid = left.min(PIECE);
    }

    /// Compares `len` bytes at `offset` with a hash; `None`: [`ReadBuffer::target`] must be filled
    /// first.
    pub(super) fn check(&mut self, offset: u64, len: u32, hash: &[u8; 32]) -> Option<Verdict> {
        let len = u64::from(len);
        while self.hashed < len {
            let position = offset + self.hashed;
            let stop = self.start + len_u64(self.valid);
            if position < self.start || position >= stop {
                self.wanted = position;
                return None;
            }
            let from = usize::try_from(position - self.start).unwrap_or(0);
            let take = usize::try_from((stop - position).min(len - self.hashed)).unwrap_or(0);
            self.hasher.update(&self.buf[from..from + take]);
            self.hashed += len_u64(take);
        }
        let same = self.hasher.finalize().as_bytes() == hash;
        self.hasher.reset();
        self.hashed = 0;
        Some(if same { Verdict::Good } else { Verdict::Bad })
    }
}

/// A chunk that was written and not yet read back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    pub(super) index: u32,
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) hash: [u8; 32],
}

/// What was written since the last read-back, bounded in bytes and in entries.
#[derive(Debug)]
pub(super) struct Window {
    entries: Vec<Written>,
    bytes: u64,
}

impl Window {
    pub(super) fn new() -> Self {
        Self {
            entries: Vec::new(),
            bytes: 0,
        }
    }

    pub(super) fn push(&mut self, chunk: &Chunk) {
        self.bytes += u64::from(chunk.raw_len);
        self.entries.push(Written {
            index: chunk.index,
            offset: chunk.raw_offset,
            len: chunk.raw_len,
            hash: *chunk.hash.as_bytes(),
        });
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= WINDOW_BYTES || self.entries.len() >= WINDOW_CHUNKS
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn entry(&self, index: usize) -> Option<Written> {
        self.entries.get(index).copied()
    }

    /// How many entries, from the first on, end at or before `position`; `None`: all.
    pub(super) fn ending_before(&self, position: Option<u64>) -> usize {
        let Some(position) = position else {
            return self.entries.len();
        };
        self.entries
            .iter()
            .take_while(|entry| entry.offset + u64::from(entry.len) <= position)
            .count()
    }

    /// Where the last entry ends.
    pub(super) fn end(&self) -> u64 {
        self.entries
            .last()
            .map_or(0, |entry| entry.offset + u64::from(entry.len))
    }

    /// Moves the first entries to a window that is empty.
    pub(super) fn move_to(&mut self, other: &mut Self, entries: usize) {
        let entries = entries.min(self.entries.len());
        other.entries.extend(self.entries.drain(..entries));
        other.bytes = bytes_in(&other.entries);
        self.bytes = bytes_in(&self.entries);
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }
}

fn bytes_in(entries: &[Written]) -> u64 {
    entries.iter().map(|entry| u64::from(entry.len)).sum()
}

/// One read: large enough for the medium's full speed.
const PIECE: usize = 512 * 1024;

/// Written before it is synced: what a power cut can cost at the most, and large enough that the
/// syncs do not count. As much again waits, synced, to be read back.
const WINDOW_BYTES: u64 = 16 * 1024 * 1024;

/// Bounds the list where chunks are tiny: 4096 entries are 200 KiB.
const WINDOW_CHUNKS: usize = 4096;
