//! The write buffer: flash with erase blocks is committed in whole blocks.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use rekindle_flash::Geometry;
use rekindle_image::TableInfo;

use super::{len_u64, len_usize};

/// Bytes on their way to one block of the slot.
#[derive(Debug)]
pub(super) struct Block {
    buf: Vec<u8>,
    /// Where the open block starts; `None`: no block is open.
    base: Option<u64>,
    /// Length of the open block: the last one of a slot may be shorter.
    len: usize,
    /// What of `buf` is to be written.
    dirty: Range<usize>,
    /// The chunks that it is of.
    chunks: Range<u32>,
    preload: bool,
    erases: bool,
    /// Not byte by byte: what a block does not get anew is read first and may be written back.
    whole: bool,
    write_size: usize,
    slot_end: u64,
    /// Beyond it nothing is worth keeping.
    content_end: u64,
}

impl Block {
    pub(super) fn new(geometry: &Geometry, slot_end: u64, content_end: u64) -> Self {
        let size = if geometry.erase_size > 0 {
            geometry.erase_size
        } else {
            FREE_BLOCK.next_multiple_of(geometry.write_size.max(1))
        };
        Self {
            buf: vec![0; len_usize(size)],
            base: None,
            len: 0,
            dirty: 0..0,
            chunks: 0..0,
            preload: false,
            erases: geometry.erase_size > 0,
            whole: geometry.erase_size > 0 || geometry.write_size > 1,
            write_size: len_usize(geometry.write_size.max(1)),
            slot_end,
            content_end,
        }
    }

    /// Whether bytes at this position can go into the open block as it is.
    pub(super) fn takes(&self, position: u64) -> bool {
        let Some(base) = self.base else { return false };
        let inside = position >= base && position < base + len_u64(self.len);
        inside
            && (self.whole || self.dirty.is_empty() || position == base + len_u64(self.dirty.end))
    }

    /// Opens the block of this position; content comes without a gap from there to `run_end`.
    pub(super) fn open(&mut self, position: u64, run_end: u64) {
        let size = len_u64(self.buf.len());
        let base = position - position % size;
        let end = (base + size).min(self.slot_end);
        self.base = Some(base);
        self.len = usize::try_from(end - base).unwrap_or(0);
        self.dirty = 0..0;
        self.preload = self.whole && (position > base || run_end < end.min(self.content_end));
        if self.erases {
            self.buf.fill(0xff);
        }
    }

    pub(super) fn wants_preload(&self) -> bool {
        self.preload
    }

    pub(super) fn preload_target(&mut self) -> (u64, &mut [u8]) {
        (self.base.unwrap_or(0), &mut self.buf[..self.len])
    }

    pub(super) fn preloaded(&mut self) {
        self.preload = false;
    }

    /// Takes what fits of `bytes`, which are of this chunk and belong at `position`; says how many.
    pub(super) fn put(&mut self, chunk: u32, position: u64, bytes: &[u8]) -> usize {
        let Some(base) = self.base else { return 0 };
        let start = usize::try_from(position - base).unwrap_or(self.len);
        let taken = bytes.len().min(self.len - start);
        self.buf[start..start + taken].copy_from_slice(&bytes[..taken]);
        if self.dirty.is_empty() {
            self.dirty = start..start + taken;
            self.chunks = chunk..chunk + 1;
        } else {
            self.dirty = self.dirty.start.min(start)..self.dirty.end.max(start + taken);
            self.chunks = self.chunks.start.min(chunk)..self.chunks.end.max(chunk + 1);
        }
        taken
    }

    /// What is to be done to bring the block to flash.
    pub(super) fn flush(&mut self) -> Option<Flush> {
        let base = self.base?;
        if self.dirty.is_empty() {
            return None;
        }
        let write = if self.erases {
            0..self.len
        } else {
            let end = self.dirty.end.next_multiple_of(self.write_size);
            self.dirty.start - self.dirty.start % self.write_size..end.min(self.len)
        };
        let before = most_chunks_in(self.dirty.start - write.start);
        let behind = most_chunks_in(write.end - self.dirty.end);
        self.dirty = 0..0;
        Some(Flush {
            erase: self.erases.then(|| base..base + len_u64(self.len)),
            write,
            touches: self.chunks.start.saturating_sub(before)
                ..self.chunks.end.saturating_add(behind),
        })
    }

    /// The bytes of a flushed range and where they go.
    pub(super) fn content(&self, range: Range<usize>) -> (u64, &[u8]) {
        (
            self.base.unwrap_or(0) + len_u64(range.start),
            &self.buf[range],
        )
    }

    /// Puts what waits here to be written over what was read from flash at `offset`.
    pub(super) fn overlay(&self, offset: u64, read: &mut [u8]) {
        let Some(base) = self.base else { return };
        let dirty = base + len_u64(self.dirty.start)..base + len_u64(self.dirty.end);
        let start = offset.max(dirty.start);
        let end = (offset + len_u64(read.len())).min(dirty.end);
        if start < end {
            let within = |from: u64, at: u64| usize::try_from(at - from).unwrap_or(usize::MAX);
            read[within(offset, start)..within(offset, end)]
                .copy_from_slice(&self.buf[within(base, start)..within(base, end)]);
        }
    }

    /// Where the open block starts.
    pub(super) fn base(&self) -> Option<u64> {
        self.base
    }

    /// Forgets the open block if all that it holds has been written.
    pub(super) fn close_if_clean(&mut self) {
        if self.dirty.is_empty() {
            self.base = None;
        }
    }
}

/// How a block is brought to flash.
#[derive(Debug)]
pub(super) struct Flush {
    /// What is erased first, in the slot.
    pub(super) erase: Option<Range<u64>>,
    /// What is written, of the buffer.
    pub(super) write: Range<usize>,
    /// The chunks that may have a part in what is written, those written back beside the new ones
    /// included.
    pub(super) touches: Range<u32>,
}

/// At most so many chunks can lie in these bytes beside another one.
fn most_chunks_in(len: usize) -> u32 {
    u32::try_from(len)
        .unwrap_or(u32::MAX)
        .div_ceil(TableInfo::MIN_CHUNK)
}

/// The block on flash that needs no erase: large enough to make few writes of many chunks.
const FREE_BLOCK: u32 = 256 * 1024;
